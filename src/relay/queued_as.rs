//! The next hop's own name for a mail, read from its reply to the final dot.

/// Finds the queue id in the text of a positive reply, in the forms that are in wide use.
///
/// What is found is a hint for people and for later correlation; no decision hangs on it.
pub(super) fn remote_queue_id(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let after = |marks: &[&str]| {
        let at = words.windows(marks.len()).position(|window| {
            window.iter().zip(marks).all(|(word, mark)| word.eq_ignore_ascii_case(mark))
        })?;
        words.get(at.checked_add(marks.len())?).copied()
    };
    let starts = |word: &&&str| word.get(..3).is_some_and(|tag| tag.eq_ignore_ascii_case("id="));
    let exim = words.iter().find(starts).and_then(|word| word.get(3..));
    // Sendmail: `2.0.0 29CCAe0x012345 Message accepted for delivery`.
    let sendmail = words
        .windows(4)
        .find(|window| {
            let tail = window.iter().skip(1);
            tail.zip(["Message", "accepted", "for"]).all(|(word, want)| *word == want)
        })
        .and_then(|window| window.first().copied());
    // Postfix and many others, then Exim, Sendmail, qmail; then those that answer `Ok <id>`.
    let only = match words.as_slice() {
        [ok, id] if ok.eq_ignore_ascii_case("ok") => Some(*id),
        _ => None,
    };
    let found = after(&["queued", "as"]).or(exim).or(sendmail).or(after(&["qp"])).or(only)?;
    let found = found.trim_matches(|c: char| "<>()[].,;:\"'".contains(c));
    let is_id = (1..=ID_BYTES_MAX).contains(&found.len()) && found.chars().all(is_id_char);
    is_id.then(|| found.to_owned())
}

fn is_id_char(c: char) -> bool {
    c.is_ascii_graphic()
}

/// Octets of a queue id; longer words are something else.
const ID_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_ids_are_found_in_the_replies_of_known_servers() {
        for (text, want) in [
            ("Ok: queued as 4MnF2v1hZ9z9s", Some("4MnF2v1hZ9z9s")),
            ("Ok: queued as 0c3k9s0ab1d2e3f4 <a@b>", Some("0c3k9s0ab1d2e3f4")),
            ("OK id=1oiXyz-0003Ab-7C", Some("1oiXyz-0003Ab-7C")),
            ("29CCAe0x012345 Message accepted for delivery", Some("29CCAe0x012345")),
            ("ok 1665576640 qp 12345", Some("12345")),
            ("Ok 010201-abc-000000", Some("010201-abc-000000")),
            ("Great success. Queued as <abc>.", Some("abc")),
            ("", None),
            ("Ok", None),
            ("Message accepted", None),
            ("queued as", None),
            ("queued as \u{e9}", None),
        ] {
            assert_eq!(remote_queue_id(text).as_deref(), want, "{text}");
        }
        assert_eq!(remote_queue_id(&format!("queued as {}", "x".repeat(200))), None);
    }
}
