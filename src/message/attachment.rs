//! Files that come with a message. What they are is read from their bytes; a name and a claimed type are words
//! of who sent them and decide nothing.

use serde::{Deserialize, Serialize};

/// Files of one message, and their bytes together: a photo of a phone fits, and the request with it, in base64,
/// into the memory that a small board has for requests.
pub const FILES_MAX: usize = 8;
pub const BYTES_MAX: usize = 5 << 20;

/// A file as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    pub name: String,
    /// What the sender calls it, such as `image/png`.
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// What the bytes of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    Png,
    Jpeg,
    Gif,
    Webp,
    Pdf,
    /// UTF-8 without a zero.
    Text,
    Other,
}

impl FileKind {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Png, "png"),
        (Self::Jpeg, "jpeg"),
        (Self::Gif, "gif"),
        (Self::Webp, "webp"),
        (Self::Pdf, "pdf"),
        (Self::Text, "text"),
        (Self::Other, "other"),
    ];

    /// By the bytes that every file of a kind begins with.
    pub fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Self::Png,
            [0xff, 0xd8, 0xff, ..] => Self::Jpeg,
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Self::Gif,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Self::Webp,
            [b'%', b'P', b'D', b'F', b'-', ..] => Self::Pdf,
            _ if !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok() => Self::Text,
            _ => Self::Other,
        }
    }

    /// As it stands in the database.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(kind, _)| *kind == self).map_or("other", |(_, name)| name)
    }

    pub fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|(_, name)| *name == text).map_or(Self::Other, |(kind, _)| kind)
    }

    pub fn is_image(self) -> bool {
        matches!(self, Self::Png | Self::Jpeg | Self::Gif | Self::Webp)
    }
}

/// A file that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub name: String,
    pub media_type: String,
    pub kind: FileKind,
    pub bytes: u64,
    /// SHA-256 of the bytes, in hexadecimal digits: where they are found.
    pub hash: String,
}

impl Attachment {
    /// What stands for it in the words of its message, now and later: `[image cat.png, 120 KB]`.
    pub fn line(&self) -> String {
        let size = match self.bytes {
            bytes @ 0..1_000 => format!("{bytes} bytes"),
            bytes @ 1_000..1_000_000 => format!("{} KB", bytes.div_ceil(1_000)),
            bytes => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
        };
        match self.kind {
            kind if kind.is_image() => format!("[image {}, {size}]", self.name),
            FileKind::Pdf => format!("[document {}, {size}]", self.name),
            FileKind::Text => format!("[file {}, {size}]", self.name),
            _ => format!("[file {}, {}, {size}]", self.name, self.media_type),
        }
    }
}

/// Words of a message with what stands for its files.
pub fn with_lines(content: &str, attachments: &[Attachment]) -> String {
    let words = Some(content).filter(|content| !content.is_empty()).map(str::to_owned);
    let lines = attachments.iter().map(Attachment::line);
    words.into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

/// Where the bytes of kept files are read.
pub trait Files: Send + Sync {
    /// None: they are gone, or are not what they were.
    fn read(&self, attachment: &Attachment) -> Option<Vec<u8>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_is_stands_in_its_bytes() {
        let cases: [(&[u8], FileKind); 11] = [
            (b"\x89PNG\r\n\x1a\n\0\0", FileKind::Png),
            (b"\xff\xd8\xff\xe0\0", FileKind::Jpeg),
            (b"GIF89a\0", FileKind::Gif),
            (b"RIFF\x01\x02\x03\x04WEBPVP8 ", FileKind::Webp),
            (b"%PDF-1.7\n%\xe2\xe3", FileKind::Pdf),
            ("naïve\n".as_bytes(), FileKind::Text),
            (b"", FileKind::Text),
            (b"caf\xe9", FileKind::Other),
            (b"a\0b", FileKind::Other),
            // A beginning of one is none.
            (b"\x89PNG", FileKind::Other),
            (b"RIFF\xff\x02\x03\x04WAVE", FileKind::Other),
        ];
        for (bytes, kind) in cases {
            assert_eq!(FileKind::of(bytes), kind, "{bytes:?}");
            assert_eq!(FileKind::parse(kind.as_str()), kind);
        }
    }

    #[test]
    fn a_file_is_one_line_of_its_message() {
        let file = |kind, bytes| Attachment {
            name: "a.x".to_owned(),
            media_type: "application/zip".to_owned(),
            kind,
            bytes,
            hash: String::new(),
        };
        let files = [
            file(FileKind::Webp, 119_001),
            file(FileKind::Pdf, 4_250_000),
            file(FileKind::Text, 7),
            file(FileKind::Other, 999),
        ];
        let lines = "[image a.x, 120 KB]\n[document a.x, 4.2 MB]\n[file a.x, 7 bytes]\n\
                     [file a.x, application/zip, 999 bytes]";
        assert_eq!(with_lines("", &files), lines);
        assert_eq!(with_lines("look", &files), format!("look\n{lines}"));
        assert_eq!(with_lines("look", &[]), "look");
    }
}
