//! The files of the messages that a turn answers, as its model gets them: text within the prompt, pictures and
//! documents beside it, and a line for each in the words of its message. Later turns have the line alone.

use crate::conversation::AttachmentFolder;
use crate::event::Received;
use crate::llm::attached::is_shown;
use crate::message::{Attachment, FileKind};
use crate::prompts;
use crate::turn::Part;

/// Bytes of one text file, and of all of a turn, that stand in its prompt: some 8,000 and 16,000 tokens.
const FILE_BYTES_MAX: usize = 32 << 10;
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Pictures and documents of a turn, and their bytes: a request holds them twice while it is written.
const SHOWN_MAX: usize = 16;
const SHOWN_BYTES_MAX: u64 = 8 << 20;

/// What a turn has been given of files.
#[derive(Debug, Default)]
pub(super) struct Attached {
    /// Pictures and documents, in order.
    pub(super) shown: Vec<Attachment>,
    /// There was a file, whatever became of it.
    pub(super) any: bool,
    text_bytes: usize,
    shown_bytes: u64,
}

impl Attached {
    /// What stands in front of these messages.
    pub(super) fn take(&mut self, folder: &AttachmentFolder, messages: &[Received]) -> Vec<Part> {
        let files = messages.iter().flat_map(|received| &received.attachments);
        files.filter_map(|file| self.take_one(folder, file)).collect()
    }

    fn take_one(&mut self, folder: &AttachmentFolder, file: &Attachment) -> Option<Part> {
        self.any = true;
        if file.kind == FileKind::Text {
            let room = TEXT_BYTES_MAX.saturating_sub(self.text_bytes).min(FILE_BYTES_MAX);
            let text = text(folder.beginning(file, room)?, file.bytes)?;
            self.text_bytes += text.len();
            return Some(Part::File { name: file.name.clone(), text });
        }
        let bytes = self.shown_bytes.saturating_add(file.bytes);
        if is_shown(file) && self.shown.len() < SHOWN_MAX && bytes <= SHOWN_BYTES_MAX {
            self.shown_bytes = bytes;
            self.shown.push(file.clone());
        }
        None
    }
}

/// The whole characters of the beginning of a file that is `whole` long.
fn text(beginning: Vec<u8>, whole: u64) -> Option<String> {
    let is_cut = u64::try_from(beginning.len()).is_ok_and(|length| length < whole);
    let mut text = match String::from_utf8(beginning) {
        Ok(text) => text,
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let mut bytes = error.into_bytes();
            bytes.truncate(valid);
            String::from_utf8(bytes).ok()?
        }
    };
    if text.is_empty() {
        return None;
    }
    if is_cut {
        text.push('\n');
        text.push_str(prompts::notice("attachment_cut"));
    }
    Some(text)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_says_so() {
        let cut = prompts::notice("attachment_cut");
        assert!(!cut.is_empty());
        assert_eq!(text("naïve".as_bytes().to_vec(), 6).as_deref(), Some("naïve"));
        assert_eq!(text("naï".as_bytes()[..3].to_vec(), 6), Some(format!("na\n{cut}")));
        assert_eq!(text(Vec::new(), 0), None);
        assert_eq!(text(Vec::new(), 9), None, "no room is left");
    }

    #[test]
    fn a_turn_is_shown_so_much_and_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = crate::db::Db::open_inline(&folder.path().join("spacebot.db"), None).expect("a database");
        let clock = crate::clock::SystemClock::shared();
        let folder = crate::conversation::Conversations::new(db, clock).attachments();
        let file = |kind, bytes| Attachment {
            name: "x".to_owned(),
            media_type: String::new(),
            kind,
            bytes,
            hash: "0".repeat(64),
        };
        let mut attached = Attached::default();
        assert!(attached.take_one(&folder, &file(FileKind::Text, 5)).is_none(), "it is gone");
        assert!(attached.any && attached.shown.is_empty());
        attached.take_one(&folder, &file(FileKind::Png, 4_000_000));
        attached.take_one(&folder, &file(FileKind::Other, 1));
        assert!(attached.shown.is_empty(), "too large for a provider, and nothing that is looked at");
        for _ in 0..SHOWN_MAX + 1 {
            attached.take_one(&folder, &file(FileKind::Webp, 1));
        }
        assert_eq!(attached.shown.len(), SHOWN_MAX);
        let mut attached = Attached::default();
        attached.take_one(&folder, &file(FileKind::Pdf, SHOWN_BYTES_MAX));
        attached.take_one(&folder, &file(FileKind::Png, 1));
        assert_eq!(attached.shown.len(), 1);
    }
}
