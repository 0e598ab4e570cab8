//! The file that makes the others an index: which segments there are, what died in them, and which
//! changes of the database they hold.

use super::VectorError;
use super::bits::Bits;
use super::bytes::{Cursor, words};
use super::folder::Folder;
use super::segment::View;
use super::segment_file::{FORMAT, Mark, ROWS_MAX};

const NAME: &str = "manifest";
const MAGIC: &[u8; 8] = b"vecindx\n";
/// Longest name of a model, in bytes.
pub(super) const MODEL_BYTES_MAX: usize = 256;
/// Each merge keeps them below twenty; more than this is no index of ours.
const SEGMENTS_MAX: usize = 65_536;
/// Room for the dead of 2^26 rows, and for the lines of many segments.
const BYTES_MAX: usize = 16 << 20;

/// What the files hold of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// Every change up to this one.
    pub(super) applied: u64,
    /// Change and key of the last vector that came in, if it is still there: a database that does not know
    /// them is not the one that was indexed.
    pub(super) newest: Option<(u64, u64)>,
    /// Rows whose numbers were no vector.
    pub(super) refused: u64,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) mark: Mark,
    pub(super) dead: Bits,
}

#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) standing: Standing,
    pub(super) entries: Vec<Entry>,
}

/// # Errors
/// The disk's.
pub(super) fn publish(
    folder: &Folder,
    model: &str,
    standing: Standing,
    views: &[View],
) -> Result<(), VectorError> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&(model.len() as u32).to_le_bytes());
    bytes.extend_from_slice(model.as_bytes());
    let (sequence, key) = standing.newest.unwrap_or_default();
    let newest = [u64::from(standing.newest.is_some()), sequence, key];
    let written: Vec<_> = views.iter().filter_map(|view| Some((view, view.segment.mark?))).collect();
    let head = [standing.applied, standing.refused, newest[0], newest[1], newest[2], written.len() as u64];
    head.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
    for (view, mark) in written {
        let dead = if view.dead.count() > 0 { view.dead.words() } else { &[] };
        let line =
            [view.segment.id, mark.rows as u64, mark.length, u64::from(mark.checksum), dead.len() as u64];
        line.iter().chain(dead).for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
    }
    folder.publish(NAME, |sink| sink.put(&bytes)).map(|_| ())
}

/// What was published last, if it is of this model. None when there is nothing.
///
/// # Errors
/// In words, why it cannot be used.
pub(super) fn read(folder: &Folder, model: &str) -> Result<Option<Manifest>, String> {
    let Some(bytes) = folder.read(NAME, BYTES_MAX)? else { return Ok(None) };
    let mut cursor = Cursor::new(&bytes);
    if cursor.take(MAGIC.len()) != Some(MAGIC) || cursor.u32() != Some(FORMAT) {
        return Err("it was written by another version".to_owned());
    }
    let of = cursor.u32().and_then(|length| cursor.take((length as usize).min(MODEL_BYTES_MAX)));
    if of != Some(model.as_bytes()) {
        return Err("it was made with another model".to_owned());
    }
    parse(&mut cursor).map(Some).ok_or_else(|| "it says what cannot be".to_owned())
}

fn parse(cursor: &mut Cursor<'_>) -> Option<Manifest> {
    let (applied, refused) = (cursor.u64()?, cursor.u64()?);
    let (known, sequence, key) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
    let standing = Standing { applied, refused, newest: (known == 1).then_some((sequence, key)) };
    let count = usize::try_from(cursor.u64()?).ok().filter(|count| *count <= SEGMENTS_MAX)?;
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..count {
        let id = cursor.u64()?;
        let rows = usize::try_from(cursor.u64()?).ok().filter(|rows| *rows <= ROWS_MAX)?;
        let (length, checksum) = (cursor.u64()?, u32::try_from(cursor.u64()?).ok()?);
        let dead = match usize::try_from(cursor.u64()?).ok()? {
            0 => Bits::new(rows),
            count if count == rows.div_ceil(64) => {
                Bits::from_words(words(cursor.take(count * 8)?, u64::from_le_bytes), rows)?
            }
            _ => return None,
        };
        if entries.iter().any(|entry| entry.id == id) {
            return None;
        }
        entries.push(Entry { id, mark: Mark { rows, length, checksum }, dead });
    }
    cursor.is_empty().then_some(Manifest { standing, entries })
}
