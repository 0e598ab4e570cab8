//! Files of messages: rows beside the inbox, and the bytes in `attachments/<hash>` beside the database, once for
//! each hash.
//!
//! Bytes are written and synced under another name before the transaction that takes the message, which gives
//! them their own name; so a row never stands without its file. Files are named and deleted by the thread that
//! writes the database alone, so a file that is about to go is not taken for one that is there. A crash between
//! the two leaves files without a row, which the next start deletes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use super::{Conversations, inbox};
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, Row, params};
use crate::id::InboxId;
use crate::message::attachment::Files;
use crate::message::{Attachment, FileKind, Inbound, NewFile};

/// Bytes of all files of one agent; beyond it those of the oldest answered messages go. Some fifty times what
/// one message may bring, and little on any card.
pub const FILES_BYTES_MAX: u64 = 256 << 20;
/// Beside the database.
const FOLDER: &str = "attachments";
/// What the name of a file begins with that belongs to no message yet.
const NEW: &str = "new-";
/// Hexadecimal digits of a hash.
const HASH_LENGTH: usize = 64;

/// The files of one agent.
#[derive(Debug, Clone)]
pub struct AttachmentFolder(PathBuf);

/// Files on disk that belong to no message yet; dropped, they are deleted.
pub(super) struct Staged {
    folder: AttachmentFolder,
    files: Vec<(Attachment, PathBuf)>,
}

impl Drop for Staged {
    fn drop(&mut self) {
        for (_, path) in &self.files {
            fs::remove_file(path).ok(); // what has its own name by now is not there any more
        }
    }
}

impl Conversations {
    /// Where the bytes of files are read.
    pub fn attachments(&self) -> AttachmentFolder {
        AttachmentFolder(self.db.path().with_file_name(FOLDER))
    }

    /// As [`Conversations::begin_receive`] for a message with files, whose bytes are on disk when this
    /// returns; `done` may be called at once.
    pub fn begin_receive_with(
        &self,
        message: Inbound,
        files: Vec<NewFile>,
        done: impl FnOnce(Result<Option<InboxId>, DbError>) + Send + 'static,
    ) {
        let staged = match self.attachments().stage(files) {
            Ok(staged) => staged,
            Err(error) => return done(Err(error.into())),
        };
        let now = self.now();
        let receive = move |connection: &Connection| {
            let id = inbox::insert(connection, &message, now)?;
            id.map_or(Ok(()), |id| staged.keep(connection, id))?;
            Ok(id)
        };
        self.db.submit_then(receive, done);
    }

    /// After a start, before any message comes: deletes files that belong to no message.
    ///
    /// # Errors
    /// The database or the folder cannot be read.
    pub fn sweep_attachments(&self) -> Result<usize, DbError> {
        let folder = self.attachments();
        self.db.read(|connection| folder.sweep(connection))
    }
}

impl AttachmentFolder {
    /// None: a hash that came from nowhere names no file.
    fn path(&self, hash: &str) -> Option<PathBuf> {
        let is_hash = hash.len() == HASH_LENGTH && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then(|| self.0.join(hash))
    }

    /// Whether the file is there, as long as it was.
    pub fn has(&self, attachment: &Attachment) -> bool {
        let path = self.path(&attachment.hash);
        path.and_then(|path| fs::metadata(path).ok()).is_some_and(|file| file.len() == attachment.bytes)
    }

    /// The beginning of a file, at most `bytes` of it.
    pub fn beginning(&self, attachment: &Attachment, bytes: usize) -> Option<Vec<u8>> {
        let file = File::open(self.path(&attachment.hash)?).ok()?;
        let mut read = Vec::new();
        file.take(u64::try_from(bytes).ok()?).read_to_end(&mut read).ok()?;
        Some(read)
    }

    /// Puts the bytes on disk.
    pub(super) fn stage(&self, files: Vec<NewFile>) -> io::Result<Staged> {
        if !self.0.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
            sync_folder(self.0.parent().unwrap_or(&self.0))?;
        }
        let mut staged = Staged { folder: self.clone(), files: Vec::with_capacity(files.len()) };
        for file in files {
            let attachment = Attachment {
                kind: FileKind::of(&file.bytes),
                bytes: u64::try_from(file.bytes.len()).unwrap_or(u64::MAX),
                hash: hash_of(&file.bytes),
                name: file.name,
                media_type: file.media_type,
            };
            let path = self.0.join(format!("{NEW}{}", uuid::Uuid::now_v7()));
            let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            staged.files.push((attachment, path));
            new.write_all(&file.bytes)?;
            new.sync_all()?;
        }
        Ok(staged)
    }

    fn sweep(&self, connection: &Connection) -> Result<usize, DbError> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let mut deleted = 0;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let belongs = match name.to_str() {
                Some(name) if !name.starts_with(NEW) => is_used(connection, name)?,
                _ => false,
            };
            if !belongs {
                fs::remove_file(entry.path())?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Deletes the files of those hashes that no row has any more. One that cannot be deleted is left to the
    /// next start.
    fn delete_unused(&self, connection: &Connection, hashes: &[String]) -> Result<(), DbError> {
        for hash in hashes {
            if let Some(path) = self.path(hash).filter(|path| path.exists())
                && !is_used(connection, hash)?
                && let Err(error) = fs::remove_file(&path)
            {
                log::warn!("{} could not be deleted: {error}", path.display());
            }
        }
        Ok(())
    }
}

impl Files for AttachmentFolder {
    fn read(&self, attachment: &Attachment) -> Option<Vec<u8>> {
        let bytes = fs::read(self.path(&attachment.hash).filter(|_| self.has(attachment))?).ok()?;
        (hash_of(&bytes) == attachment.hash).then_some(bytes)
    }
}

impl Staged {
    /// In the transaction that takes their message.
    pub(super) fn keep(self, connection: &Connection, message: InboxId) -> Result<(), DbError> {
        let sql = "INSERT INTO attachments (inbox_id, name, media_type, kind, bytes, hash)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let mut statement = connection.prepare_cached(sql)?;
        for (file, _) in &self.files {
            let values =
                params![message.0, file.name, file.media_type, file.kind.as_str(), file.bytes, file.hash];
            statement.execute(values)?;
        }
        make_room(connection, &self.folder)?;
        let mut named = false;
        for (file, new) in &self.files {
            if let Some(path) = self.folder.path(&file.hash).filter(|_| !self.folder.has(file)) {
                fs::rename(new, path)?;
                named = true;
            }
        }
        if named {
            sync_folder(&self.folder.0)?;
        }
        Ok(())
    }
}

/// Lets the files of the oldest answered messages go, until all of them have room.
fn make_room(connection: &Connection, folder: &AttachmentFolder) -> Result<(), DbError> {
    let total = "SELECT coalesce(sum(bytes), 0) FROM (SELECT DISTINCT hash, bytes FROM attachments)";
    let oldest = "SELECT hash FROM attachments a JOIN inbox i ON i.id = a.inbox_id
                  WHERE i.answered_at IS NOT NULL AND NOT EXISTS
                      (SELECT 1 FROM attachments b JOIN inbox j ON j.id = b.inbox_id
                       WHERE b.hash = a.hash AND j.answered_at IS NULL)
                  ORDER BY a.id LIMIT 1";
    while connection.prepare_cached(total)?.query_row([], |row| row.get::<_, u64>(0))? > FILES_BYTES_MAX {
        let hash: Option<String> =
            connection.prepare_cached(oldest)?.query_row([], |row| row.get(0)).optional()?;
        let Some(hash) = hash else {
            let limit = FILES_BYTES_MAX >> 20;
            let reason = format!("files of messages that are not answered yet take all of their {limit} MiB");
            return Err(DbError::NoRoom(reason));
        };
        log::info!("a file of an answered message goes, because files take more than their room");
        connection.prepare_cached("DELETE FROM attachments WHERE hash = ?1")?.execute([&hash])?;
        folder.delete_unused(connection, &[hash])?;
    }
    Ok(())
}

/// Deletes what belongs to messages that are gone.
pub(super) fn forget(connection: &Connection, folder: &AttachmentFolder) -> Result<usize, DbError> {
    let sql = "DELETE FROM attachments WHERE NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.id = inbox_id)
               RETURNING hash";
    let hashes: Vec<String> =
        connection.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    folder.delete_unused(connection, &hashes)?;
    Ok(hashes.len())
}

/// The files of the messages from `first` to `last`, each with the message that it belongs to, in order.
pub(super) fn between(
    connection: &Connection,
    first: InboxId,
    last: InboxId,
) -> Result<Vec<(InboxId, Attachment)>, DbError> {
    let sql = "SELECT inbox_id, name, media_type, kind, bytes, hash FROM attachments
               WHERE inbox_id BETWEEN ?1 AND ?2 ORDER BY inbox_id, id";
    let file = |row: &Row<'_>| {
        let attachment = Attachment {
            name: row.get(1)?,
            media_type: row.get(2)?,
            kind: FileKind::parse(row.get_ref(3)?.as_str()?),
            bytes: row.get(4)?,
            hash: row.get(5)?,
        };
        Ok((InboxId(row.get(0)?), attachment))
    };
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_map(params![first.0, last.0], file)?.collect::<Result<_, _>>()?)
}

fn is_used(connection: &Connection, hash: &str) -> Result<bool, DbError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM attachments WHERE hash = ?1)";
    Ok(connection.prepare_cached(sql)?.query_row([hash], |row| row.get(0))?)
}

fn hash_of(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
