//! Plain text: which encoding it is in, and its copy in UTF-8.

use std::fs::File;
use std::io::{Read, Seek};

use encoding_rs::{CoderResult, Encoding, UTF_8, WINDOWS_1252};
use ring::digest::{Context, SHA256};

use super::texts::Bounded;
use super::{FILE_BYTES_MAX, IngestError};
use crate::thread::Cancel;

/// Bytes read at a time.
const PIECE: usize = 64 << 10;

/// What one pass over a file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Looked {
    /// SHA-256 in hex.
    pub(super) hash: String,
    /// None: it holds NUL and is no text.
    pub(super) encoding: Option<&'static Encoding>,
}

/// Hands a file piece by piece to `take`; the last piece is empty.
fn pieces(
    file: &mut File,
    cancel: &Cancel,
    mut take: impl FnMut(&[u8]) -> Result<(), IngestError>,
) -> Result<(), IngestError> {
    let failed = |error: std::io::Error| IngestError::io("reading it", &error);
    file.rewind().map_err(failed)?;
    let mut piece = vec![0; PIECE];
    let mut read = 0;
    loop {
        if cancel.is_cancelled() {
            return Err(IngestError::Cancelled);
        }
        let count = file.read(&mut piece).map_err(failed)?;
        read += count as u64;
        if read > FILE_BYTES_MAX {
            return Err(IngestError::Changed);
        }
        take(&piece[..count])?;
        if count == 0 {
            return Ok(());
        }
    }
}

pub(super) fn look(file: &mut File, cancel: &Cancel) -> Result<Looked, IngestError> {
    let mut digest = Context::new(&SHA256);
    let mut sniffer = Sniffer::default();
    pieces(file, cancel, |piece| {
        digest.update(piece);
        sniffer.take(piece);
        Ok(())
    })?;
    let hash = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Looked { hash, encoding: sniffer.encoding() })
}

/// Copies the text in UTF-8.
pub(super) fn copy(
    file: &mut File,
    encoding: &'static Encoding,
    target: &mut Bounded,
    cancel: &Cancel,
) -> Result<(), IngestError> {
    let mut decoder = encoding.new_decoder_with_bom_removal();
    let mut decoded = vec![0; 3 * PIECE];
    pieces(file, cancel, |piece| {
        let mut rest = piece;
        loop {
            let last = piece.is_empty();
            let (result, read, written, _) = decoder.decode_to_utf8(rest, &mut decoded, last);
            target.put(&decoded[..written])?;
            rest = &rest[read..];
            if result == CoderResult::InputEmpty {
                return Ok(());
            }
        }
    })
}

/// What the bytes of a file say about their encoding.
#[derive(Default)]
struct Sniffer {
    /// The first bytes, for a mark of the byte order.
    head: Vec<u8>,
    /// The beginning of a character whose end is in the next piece.
    open: Vec<u8>,
    has_nul: bool,
    is_other: bool,
}

impl Sniffer {
    const HEAD: usize = 3;

    fn take(&mut self, piece: &[u8]) {
        let wanted = Self::HEAD.saturating_sub(self.head.len()).min(piece.len());
        self.head.extend_from_slice(&piece[..wanted]);
        self.has_nul |= piece.contains(&0);
        if self.is_other {
            return;
        }
        if piece.is_empty() {
            self.is_other = !self.open.is_empty();
            return;
        }
        let mut bytes = std::mem::take(&mut self.open);
        bytes.extend_from_slice(piece);
        if let Err(error) = std::str::from_utf8(&bytes) {
            match error.error_len() {
                None => self.open = bytes.split_off(error.valid_up_to()),
                Some(_) => self.is_other = true,
            }
        }
    }

    /// A text without a mark that is not UTF-8 is read as Windows-1252, which takes any byte.
    fn encoding(&self) -> Option<&'static Encoding> {
        if let Some((encoding, _)) = Encoding::for_bom(&self.head) {
            return Some(encoding);
        }
        match (self.has_nul, self.is_other) {
            (true, _) => None,
            (false, false) => Some(UTF_8),
            (false, true) => Some(WINDOWS_1252),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::ingest::texts::Texts;
    use std::io::Write;

    fn read(bytes: &[u8]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let cancel = Cancel::new();
        let looked = look(&mut file, &cancel).unwrap();
        let texts = Texts::new(folder.path().join("t"));
        let encoding = looked.encoding?;
        texts.store("h", |target| copy(&mut file, encoding, target, &cancel)).unwrap();
        Some(std::fs::read_to_string(folder.path().join("t/h.txt")).unwrap())
    }

    #[test]
    fn encodings_are_told_apart() {
        let utf16 = |text: &str, big: bool| -> Vec<u8> {
            let mark = std::iter::once(0xFEFF).chain(text.encode_utf16());
            mark.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
        };
        let cases: [(&[u8], Option<&str>); 8] = [
            (b"plain\r\nlines\n", Some("plain\r\nlines\n")),
            ("漢字 🦀".as_bytes(), Some("漢字 🦀")),
            (b"\xEF\xBB\xBFmarked", Some("marked")),
            (b"caf\xE9 \x80 5", Some("café € 5")),
            (b"cut \xE6\xBC", Some("cut æ¼")),
            (b"ELF\0\x01", None),
            (&utf16("é🦀", false), Some("é🦀")),
            (&utf16("é🦀", true), Some("é🦀")),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read(bytes).as_deref(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_character_across_two_pieces_is_whole() {
        let text = format!("{}漢字{}", "x".repeat(PIECE - 1), "é".repeat(PIECE));
        assert_eq!(read(text.as_bytes()).unwrap(), text);
    }

    #[test]
    fn the_hash_is_that_of_the_content() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let looked = look(&mut file, &Cancel::new()).unwrap();
        assert_eq!(looked.hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
