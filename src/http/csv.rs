//! Tables as text (RFC 4180): read with either end of line, written with CRLF.
//!
//! A cell is data, whatever it begins with: nothing is put before a `=`, so that what is written
//! is what is read again.

/// Writes one line.
pub(super) fn write_line(out: &mut String, cells: &[impl AsRef<str>]) {
    for (index, cell) in cells.iter().map(AsRef::as_ref).enumerate() {
        if index > 0 {
            out.push(',');
        }
        if cell.contains(['"', ',', '\r', '\n']) || cell.trim() != cell {
            out.push('"');
            out.push_str(&cell.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(cell);
        }
    }
    out.push_str("\r\n");
}

/// The lines of a table, empty ones left out, each with the number of the line that it begins in.
///
/// # Errors
/// With the number of the line where a quote is not closed, or stands where none may.
pub(super) fn read(text: &str) -> Result<Vec<(usize, Vec<String>)>, usize> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Vec::new();
    let mut cells = Vec::new();
    let mut cell = String::new();
    let (mut number, mut begins) = (1_usize, 1_usize);
    let mut place = Place::Start;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\n' {
            number = number.saturating_add(1);
        }
        place = match (place, c) {
            (Place::Quoted, '"') => Place::Closed,
            (Place::Quoted, _) => {
                cell.push(c);
                Place::Quoted
            }
            // A quote that was doubled.
            (Place::Closed, '"') => {
                cell.push('"');
                Place::Quoted
            }
            (Place::Start, '"') => Place::Quoted,
            (_, ',') => {
                cells.push(std::mem::take(&mut cell));
                Place::Start
            }
            (place, '\r') if chars.peek() == Some(&'\n') => place,
            (_, '\n') => {
                end_line(&mut lines, begins, &mut cells, &mut cell);
                begins = number;
                Place::Start
            }
            (Place::Closed, _) | (Place::Plain, '"') => return Err(number),
            (Place::Start | Place::Plain, _) => {
                cell.push(c);
                Place::Plain
            }
        };
    }
    if place == Place::Quoted {
        return Err(begins);
    }
    end_line(&mut lines, begins, &mut cells, &mut cell);
    Ok(lines)
}

/// Where in a cell the next character stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Plain,
    Quoted,
    Closed,
}

fn end_line(
    lines: &mut Vec<(usize, Vec<String>)>,
    begins: usize,
    cells: &mut Vec<String>,
    cell: &mut String,
) {
    cells.push(std::mem::take(cell));
    let cells = std::mem::take(cells);
    if cells.iter().any(|cell| !cell.is_empty()) {
        lines.push((begins, cells));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_whatever_it_holds() {
        let table = [
            vec!["plain", "", "a,b", "\"quoted\"", "two\r\nlines", "one\nmore"],
            vec!["=1+1", "@SUM(A1)", "-x", "+y", "\t=z", " spaced "],
            vec!["\"", "\"\"", ",", "\r", "é\u{1f40d}", "''"],
        ];
        let mut text = String::new();
        table.iter().for_each(|cells| write_line(&mut text, cells));
        let read: Vec<Vec<String>> = read(&text).unwrap().into_iter().map(|(_, c)| c).collect();
        assert_eq!(read, table, "{text}");
        assert!(text.starts_with("plain,,\"a,b\",\"\"\"quoted\"\"\","), "{text}");
    }

    #[test]
    fn other_programs_lines_are_understood_and_broken_ones_named() {
        for (text, want) in [
            ("a,b\nc,d", Ok(vec![(1, vec!["a", "b"]), (2, vec!["c", "d"])])),
            ("\u{feff}a\r\n\r\n\r\nb\r\n", Ok(vec![(1, vec!["a"]), (4, vec!["b"])])),
            ("\"x\ny\",z\nw", Ok(vec![(1, vec!["x\ny", "z"]), (3, vec!["w"])])),
            ("", Ok(vec![])),
            (",\n", Ok(vec![])),
            ("a\n\"b", Err(2)),
            ("a\nb\"c", Err(2)),
            ("\"a\"b", Err(1)),
        ] {
            let got = read(text);
            let want = want.map(|lines: Vec<(usize, Vec<&str>)>| {
                let owned = |cells: Vec<&str>| cells.into_iter().map(str::to_owned).collect();
                lines
                    .into_iter()
                    .map(|(n, cells)| (n, owned(cells)))
                    .collect::<Vec<(usize, Vec<String>)>>()
            });
            assert_eq!(got, want, "{text:?}");
        }
    }
}
