//! Files that go with a message.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::ChatError;
use crate::message::FileKind;
use crate::message::attachment::{BYTES_MAX, FILES_MAX};

/// As the daemon takes them.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<Value>, ChatError> {
    let mut left = BYTES_MAX;
    if files.len() > FILES_MAX {
        return Err(ChatError::TooManyFiles);
    }
    let mut attachments = Vec::with_capacity(files.len());
    for path in files {
        let bytes = bytes_of(path, left)?;
        left -= bytes.len();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        attachments.push(json!({
            "name": name, "type": media_type(&bytes), "data": STANDARD.encode(bytes),
        }));
    }
    Ok(attachments)
}

fn bytes_of(path: &Path, most: usize) -> Result<Vec<u8>, ChatError> {
    let failed = |error: std::io::Error| ChatError::File(path.to_owned(), error);
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > most { Err(ChatError::FilesTooLarge) } else { Ok(bytes) }
}

fn media_type(bytes: &[u8]) -> &'static str {
    match FileKind::of(bytes) {
        FileKind::Png => "image/png",
        FileKind::Jpeg => "image/jpeg",
        FileKind::Gif => "image/gif",
        FileKind::Webp => "image/webp",
        FileKind::Pdf => "application/pdf",
        FileKind::Text => "text/plain",
        FileKind::Other => "application/octet-stream",
    }
}
