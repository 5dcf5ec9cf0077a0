//! Bounces in pictures: bars by day, and bars beside the numbers of a table.
//!
//! The policy of the page lets no element carry a style, so what has a length is SVG.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::bounce::Fault;

/// A day and its bounces by whose fault they were.
pub(super) struct Day {
    /// `2022-10-12`.
    pub(super) date: String,
    pub(super) counts: BTreeMap<Fault, u64>,
}

impl Day {
    fn total(&self) -> u64 {
        self.counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// One bar for each day, in pieces by fault; the same as a table for who sees no pictures.
pub(super) fn by_day(days: &[Day]) -> Markup {
    let most = days.iter().map(Day::total).max().unwrap_or_default();
    let all = days.iter().fold(0_u64, |sum, day| sum.saturating_add(day.total()));
    let step = days.len().div_ceil(LABELS_MAX).max(1);
    html! {
        figure.chart {
            figcaption {
                (all) @if all == 1 { " bounce" } @else { " bounces" }
                ", at most " (most) " in a day"
            }
            div.bars aria-hidden="true" {
                @for (at, day) in days.iter().enumerate() {
                    div.bar {
                        (pieces(day, most))
                        // The last day has its name, and those in steps before it.
                        @if days.len().saturating_sub(at) % step == 1 % step {
                            span { (day.date.get(5..).unwrap_or_default()) }
                        }
                    }
                }
            }
            ul.legend aria-hidden="true" {
                @for fault in Fault::ALL {
                    li { (swatch(*fault)) (fault.as_str()) }
                }
            }
            details data-key="by-day" {
                summary { "The same as a table" }
                (table(days))
            }
        }
    }
}

/// How a number compares to the largest of its table.
pub(super) fn beside(count: u64, most: u64) -> Markup {
    let width = scaled(count, most, 100).max(1);
    html! {
        svg.beside viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect x="0" y="0" width=(width) height="8" {}
        }
    }
}

fn pieces(day: &Day, most: u64) -> Markup {
    let mut top = HEIGHT;
    let mut rects = Vec::new();
    for (fault, count) in &day.counts {
        let height = scaled(*count, most, HEIGHT).max(1);
        top = top.saturating_sub(height);
        rects.push((*fault, top, height));
    }
    html! {
        svg viewBox={ "0 0 10 " (HEIGHT) } preserveAspectRatio="none" {
            title { (day.date) ": " (day.total()) }
            @for (fault, top, height) in rects {
                rect.(class(fault)) x="1" y=(top) width="8" height=(height) {}
            }
        }
    }
}

fn swatch(fault: Fault) -> Markup {
    html! {
        svg.swatch viewBox="0 0 10 10" { rect.(class(fault)) width="10" height="10" rx="2" {} }
    }
}

fn table(days: &[Day]) -> Markup {
    html! {
        table {
            caption.unseen { "Bounces by day and by whose fault they were" }
            thead {
                tr {
                    th scope="col" { "Day" }
                    @for fault in Fault::ALL { th.number scope="col" { (fault.as_str()) } }
                }
            }
            tbody {
                @for day in days.iter().rev().filter(|day| day.total() > 0) {
                    tr {
                        th scope="row" { (day.date) }
                        @for fault in Fault::ALL {
                            td.number { (day.counts.get(fault).copied().unwrap_or_default()) }
                        }
                    }
                }
            }
        }
    }
}

fn class(fault: Fault) -> String {
    format!("of-{}", fault.as_str())
}

/// `count` in parts of `most`, of which `whole` make a full bar.
fn scaled(count: u64, most: u64, whole: u64) -> u64 {
    count.saturating_mul(whole).checked_div(most).unwrap_or_default()
}

/// The height of a full bar.
const HEIGHT: u64 = 1000;

/// Days that have their name below them.
const LABELS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn day(date: &str, counts: &[(Fault, u64)]) -> Day {
        Day { date: date.to_owned(), counts: counts.iter().copied().collect() }
    }

    #[test]
    fn bars_are_as_high_as_the_numbers_and_the_table_has_them_all() {
        let days = [
            day("2022-10-11", &[(Fault::Recipient, 30), (Fault::Sender, 10)]),
            day("2022-10-12", &[(Fault::Recipient, 10)]),
            day("2022-10-13", &[]),
        ];
        let shown = by_day(&days).into_string();
        assert!(shown.contains("50 bounces, at most 40 in a day"), "{shown}");
        for height in [750, 250] {
            assert!(shown.contains(&format!("height=\"{height}\"")), "{height}: {shown}");
        }
        assert!(shown.contains("<td class=\"number\">30</td>"), "{shown}");
        assert_eq!(shown.matches("<th scope=\"row\">").count(), 2, "{shown}");
        assert!(!shown.contains("style="), "{shown}");
    }

    #[test]
    fn nothing_and_too_much_can_be_drawn() {
        for days in [vec![], vec![day("2022-10-13", &[])]] {
            assert!(by_day(&days).into_string().contains("0 bounces"));
        }
        let shown = by_day(&[day("2022-10-13", &[(Fault::Unknown, u64::MAX)])]).into_string();
        assert!(shown.contains("height=\"1\"") || shown.contains("height=\"1000\""), "{shown}");
        assert!(beside(0, 0).into_string().contains("width=\"1\""));
    }
}
