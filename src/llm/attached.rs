//! Files in a conversation, which their models see. Until a request leaves, a picture or document is a reference
//! to a file that is kept: so history, journal and hashes hold its name and no bytes, and each model of a chain
//! gets what it takes: the bytes, or a line that says what it is not shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rig_core::completion::{CompletionRequest, Message};
use rig_core::message::{
    Document, DocumentMediaType, DocumentSourceKind, Image, ImageMediaType, UserContent,
};

use super::media::Takes;
use crate::message::attachment::Files;
use crate::message::{Attachment, FileKind};
use crate::prompts::notice;

/// Bytes of a picture that is shown: some providers take 5 MB of base64 and no more.
pub const IMAGE_BYTES_MAX: u64 = 3_750_000;
/// What the address of a file begins with that is kept here.
const SCHEME: &str = "attachment:";

/// Words with files in front of them.
pub fn message(words: &str, shown: &[Attachment]) -> Message {
    let files = shown.iter().filter_map(reference);
    Message::User { content: files.chain([UserContent::text(words)]).collect() }
}

/// Whether models that take such files are shown this one.
pub fn is_shown(file: &Attachment) -> bool {
    match file.kind {
        FileKind::Pdf => true,
        kind => kind.is_image() && file.bytes <= IMAGE_BYTES_MAX,
    }
}

fn reference(file: &Attachment) -> Option<UserContent> {
    let address = format!("{SCHEME}{}", serde_json::to_string(file).ok()?);
    let data = DocumentSourceKind::url(address);
    let image = |media_type| {
        let (data, media_type) = (data.clone(), Some(media_type));
        Some(UserContent::Image(Image { data, media_type, detail: None, native: None }))
    };
    match file.kind {
        FileKind::Png => image(ImageMediaType::PNG),
        FileKind::Jpeg => image(ImageMediaType::JPEG),
        FileKind::Gif => image(ImageMediaType::GIF),
        FileKind::Webp => image(ImageMediaType::WEBP),
        FileKind::Pdf => Some(UserContent::Document(Document {
            data,
            media_type: Some(DocumentMediaType::PDF),
            additional_params: None,
        })),
        FileKind::Text | FileKind::Other => None,
    }
}

/// The file that a part refers to.
fn referred(part: &UserContent) -> Option<Attachment> {
    let data = match part {
        UserContent::Image(image) => &image.data,
        UserContent::Document(document) => &document.data,
        _ => return None,
    };
    let DocumentSourceKind::Url(address) = data else { return None };
    serde_json::from_str(address.strip_prefix(SCHEME)?).ok()
}

fn parts(request: &mut CompletionRequest) -> impl Iterator<Item = &mut UserContent> {
    let said = request.chat_history.iter_mut().filter_map(|message| match message {
        Message::User { content } => Some(content),
        _ => None,
    });
    said.flatten()
}

/// Whether there are files in it.
pub(super) fn has_files(request: &CompletionRequest) -> bool {
    let said = request.chat_history.iter().filter_map(|message| match message {
        Message::User { content } => Some(content),
        _ => None,
    });
    said.flatten().any(|part| referred(part).is_some())
}

/// Puts a line in the place of files that this model does not take. True when some are left.
pub(super) fn describe(request: &mut CompletionRequest, takes: Takes) -> bool {
    let mut left = false;
    for part in parts(request) {
        let Some(file) = referred(part) else { continue };
        if if file.kind.is_image() { takes.images } else { takes.documents } {
            left = true;
        } else {
            *part = not_shown(&file, "attachment_not_taken");
        }
    }
    left
}

/// Puts the bytes in the place of the references that are left.
pub(super) fn fill(request: &mut CompletionRequest, files: Option<&dyn Files>) {
    for part in parts(request) {
        let Some(file) = referred(part) else { continue };
        match (files.and_then(|files| files.read(&file)), &mut *part) {
            (
                Some(bytes),
                UserContent::Image(Image { data, .. }) | UserContent::Document(Document { data, .. }),
            ) => {
                *data = DocumentSourceKind::base64(STANDARD.encode(bytes));
            }
            _ => *part = not_shown(&file, "attachment_gone"),
        }
    }
}

fn not_shown(file: &Attachment, why: &str) -> UserContent {
    UserContent::text(format!("{} {}", file.line(), notice(why)))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    struct Kept(&'static [u8]);

    impl Files for Kept {
        fn read(&self, file: &Attachment) -> Option<Vec<u8>> {
            (file.hash == "there").then(|| self.0.to_vec())
        }
    }

    fn file(kind: FileKind, hash: &str) -> Attachment {
        let (name, media_type) = ("a\"b".to_owned(), "text/plain".to_owned());
        Attachment { name, media_type, kind, bytes: 2_000, hash: hash.to_owned() }
    }

    fn request(files: &[Attachment]) -> CompletionRequest {
        let mut request = CompletionRequest::new("before");
        request.chat_history.push(message("look", files));
        request
    }

    fn texts(request: &CompletionRequest) -> Vec<String> {
        let text = |part: &UserContent| match part {
            UserContent::Text(text) => text.text.clone(),
            UserContent::Image(Image { data: DocumentSourceKind::Base64(data), .. }) => {
                format!("image {data}")
            }
            UserContent::Document(Document { data: DocumentSourceKind::Base64(data), .. }) => {
                format!("document {data}")
            }
            other => format!("{other:?}"),
        };
        match request.chat_history.last().expect("a message") {
            Message::User { content } => content.iter().map(text).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_model_gets_what_it_takes_and_a_line_for_the_rest() {
        let files =
            [file(FileKind::Jpeg, "there"), file(FileKind::Pdf, "there"), file(FileKind::Text, "there")];
        let (image, document) = ("[image a\"b, 2 KB]", "[document a\"b, 2 KB]");
        let (not, gone) = (notice("attachment_not_taken"), notice("attachment_gone"));
        assert!(!not.is_empty() && !gone.is_empty());
        let takes = |images, documents| Takes { images, documents };
        let cases = [
            (takes(true, true), ["image aGk=".to_owned(), "document aGk=".to_owned()]),
            (takes(true, false), ["image aGk=".to_owned(), format!("{document} {not}")]),
            (takes(false, true), [format!("{image} {not}"), "document aGk=".to_owned()]),
            (takes(false, false), [format!("{image} {not}"), format!("{document} {not}")]),
        ];
        for (takes, [first, second]) in cases {
            let mut asked = request(&files);
            assert!(has_files(&asked));
            assert_eq!(describe(&mut asked, takes), takes.images || takes.documents);
            fill(&mut asked, Some(&Kept(b"hi")));
            assert_eq!(texts(&asked), [first, second, "look".to_owned()], "{takes:?}");
            assert!(!has_files(&asked));
        }
        let mut lost = request(&[file(FileKind::Gif, "lost")]);
        describe(&mut lost, takes(true, true));
        fill(&mut lost, Some(&Kept(b"hi")));
        assert_eq!(texts(&lost), [format!("{image} {gone}"), "look".to_owned()]);
    }

    #[test]
    fn words_that_look_like_a_reference_are_words() {
        let mut asked = CompletionRequest::new(format!("{SCHEME}{{\"hash\":\"there\"}}"));
        let before = format!("{:?}", asked.chat_history);
        assert!(!has_files(&asked) && !describe(&mut asked, Takes::default()));
        fill(&mut asked, Some(&Kept(b"hi")));
        assert_eq!(format!("{:?}", asked.chat_history), before);
    }
}
