//! Lines of a person or a pipe, of which none is longer than a message may be.

use std::io::{BufRead, Error, ErrorKind};

/// Longest line, as long as a message may be, in bytes.
pub(super) const MAX_LINE_BYTES: usize = 100_000;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(String),
    TooLong,
    NotUtf8,
    End,
}

/// The next line without its end; of one that is too long nothing is kept.
pub(super) fn read(input: &mut impl BufRead) -> Result<Line, Error> {
    let (mut line, mut fits, mut came) = (Vec::new(), true, false);
    loop {
        let part = match input.fill_buf() {
            Ok(part) => part,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        came |= !part.is_empty();
        let end = part.iter().position(|byte| *byte == b'\n');
        let text = &part[..end.unwrap_or(part.len())];
        fits &= line.len() + text.len() <= MAX_LINE_BYTES;
        if fits {
            line.extend_from_slice(text);
        }
        let length = end.map_or(part.len(), |end| end + 1);
        let over = end.is_some() || part.is_empty();
        input.consume(length);
        if over {
            break;
        }
    }
    Ok(match String::from_utf8(line) {
        _ if !came => Line::End,
        _ if !fits => Line::TooLong,
        Ok(text) => Line::Text(text),
        Err(_) => Line::NotUtf8,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_a_broken_one_does_not_end_the_rest() {
        let fits = "é".repeat(MAX_LINE_BYTES / 2);
        let long = format!("{fits}x");
        let mut input = Vec::new();
        for line in ["one", "", &fits, &long, "two\r"] {
            input.extend_from_slice(line.as_bytes());
            input.push(b'\n');
        }
        input.extend_from_slice(b"caf\xc3\nlast");
        // Small pieces, as a pipe gives them: no border falls on the end of a line.
        let mut reader = std::io::BufReader::with_capacity(7, &input[..]);
        let expected = [
            Line::Text("one".to_owned()),
            Line::Text(String::new()),
            Line::Text(fits),
            Line::TooLong,
            Line::Text("two\r".to_owned()),
            Line::NotUtf8,
            Line::Text("last".to_owned()),
            Line::End,
            Line::End,
        ];
        for line in expected {
            assert_eq!(read(&mut reader).unwrap(), line);
        }
    }
}
