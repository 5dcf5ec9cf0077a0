//! `rebound classify`: what the rules make of replies, to test a rule before it is used.

use std::io::{self, BufRead};
use std::path::PathBuf;

use super::{complain, exit, parse, say};
use crate::bounce::classify::{Classification, classify_reply};

/// What `classify` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// One JSON object per reply.
    #[arg(long)]
    json: bool,
    /// A rules file instead of the rules that come with the program.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Replies such as `550 5.7.26 unauthenticated`; `-` reads one per line of standard input.
    /// Where the first is a bare code, all words are one reply, so that it needs no quotes.
    #[arg(value_name = "REPLY", required = true)]
    replies: Vec<String>,
}

/// Prints category, recommended action and fault of every reply, and the rule that decided.
pub fn run(arguments: &Arguments) -> u8 {
    let rules = match parse::rules(arguments.rules.as_deref()) {
        Ok(rules) => rules,
        Err(problem) => {
            complain(problem);
            return exit::CONFIG;
        }
    };
    let show = |reply: &str| {
        let found = classify_reply(&rules, reply);
        if !arguments.json {
            say(line(&found));
            return;
        }
        match serde_json::to_string(&found) {
            Ok(line) => say(line),
            Err(error) => complain(format_args!("cannot show it as JSON: {error}")),
        }
    };
    for reply in &replies(&arguments.replies) {
        if reply != "-" {
            show(reply);
            continue;
        }
        for reply in io::stdin().lock().lines() {
            match reply {
                Ok(reply) => show(&reply),
                Err(error) => {
                    complain(format_args!("cannot read standard input: {error}"));
                    return exit::DATA;
                }
            }
        }
    }
    exit::OK
}

/// The replies as they were meant: after a bare code of three digits, all words are one reply.
fn replies(words: &[String]) -> Vec<String> {
    let is_code = |word: &String| word.len() == 3 && word.bytes().all(|b| b.is_ascii_digit());
    if words.first().is_some_and(is_code) { vec![words.join(" ")] } else { words.to_vec() }
}

/// `user_unknown remove recipient (rule no-such-user)`.
fn line(found: &Classification) -> String {
    let mut line = format!("{} {} {}", found.category, found.recommended_action, found.fault);
    if let Some(seconds) = found.retry_after_secs {
        line.push_str(&format!(" retry after {seconds} s"));
    }
    if let Some(list) = &found.blocklist {
        line.push_str(&format!(" listed by {} ({})", list.name, list.kind));
    }
    let rule = if found.rule.is_empty() { "none" } else { found.rule.as_str() };
    line.push_str(&format!(" (rule {rule})"));
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounce::Rules;

    #[test]
    fn a_reply_without_quotes_is_one_reply() {
        for (words, want) in [
            (vec!["550", "5.7.26", "x"], vec!["550 5.7.26 x"]),
            (vec!["550"], vec!["550"]),
            (vec!["550 5.1.1 x", "421 busy"], vec!["550 5.1.1 x", "421 busy"]),
            (vec!["-"], vec!["-"]),
            (vec!["5500", "x"], vec!["5500", "x"]),
        ] {
            let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
            assert_eq!(replies(&words), want);
        }
    }

    #[test]
    fn the_line_says_everything_that_was_found() {
        let rules = Rules::compiled_in();
        for (reply, want) in [
            (
                "554 5.7.1 blocked using zen.spamhaus.org, try again in 5 minutes",
                "ip_blacklisted retry_different_ip sender retry after 300 s listed by Spamhaus ZEN (ip) (rule ip-list)",
            ),
            ("hello", "unknown review unknown (rule none)"),
        ] {
            assert_eq!(line(&classify_reply(&rules, reply)), want);
        }
    }
}
