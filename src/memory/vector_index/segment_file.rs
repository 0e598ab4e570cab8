//! A segment on disk: a header, its sections one after the other, and the checksum of all of it.
//!
//! ```text
//! header 512 B | middle 384 f32 | keys u64 | sketches 6 u64 | centres 388 B | starts u32 | rows u32 | records 388 B | crc32
//! ```
//! Numbers are little endian. Without sketches there is no middle, without lists no centres to rows.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::VectorError;
use super::bytes::Cursor;
use super::code::Record;
use super::folder::{Folder, Sink, TRAILER};
use super::kernels::{DIMENSIONS, RECORD, Sketch, WORDS};
use super::mapped::Bytes;
use super::partition::Partition;
use super::segment::{Segment, Sketches, look};
use crate::thread::Cancel;

/// Raised with every change of what a file holds.
pub(super) const FORMAT: u32 = 1;
/// How the names of these files begin.
pub(super) const PREFIX: &str = "segment-";
/// More rows are in no segment; sizes are computed without overflow below it.
pub(super) const ROWS_MAX: usize = 1 << 26;
/// More lists are not learned.
const LISTS_MAX: usize = 1 << 14;
const MAGIC: &[u8; 8] = b"vecsegm\n";
const HEADER: usize = 512;
/// Records that are written between two looks at the stop request, and numbers that are read at a time.
const BLOCK: usize = 4_096;

/// What tells one file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) rows: usize,
    pub(super) length: u64,
    pub(super) checksum: u32,
}

pub(super) fn name(id: u64) -> String {
    format!("{PREFIX}{id:016x}")
}

/// Where the sections of a file stand, from its counts alone.
struct Layout {
    middle: Range<usize>,
    keys: Range<usize>,
    sketches: Range<usize>,
    centres: Range<usize>,
    starts: Range<usize>,
    order: Range<usize>,
    records: Range<usize>,
    length: usize,
}

impl Layout {
    /// `rows` and `lists` are below their limits.
    fn new(rows: usize, sketched: bool, lists: usize) -> Self {
        let mut at = HEADER;
        let mut section = |bytes: usize| {
            at += bytes;
            at - bytes..at
        };
        let if_sketched = usize::from(sketched);
        let if_lists = usize::from(lists > 0);
        let middle = section(if_sketched * DIMENSIONS * 4);
        let keys = section(rows * 8);
        let sketches = section(if_sketched * rows * WORDS * 8);
        let centres = section(lists * RECORD);
        let starts = section(if_lists * (lists + 1) * 4);
        let order = section(if_lists * rows * 4);
        let records = section(rows * RECORD);
        let length = records.end + TRAILER;
        Self { middle, keys, sketches, centres, starts, order, records, length }
    }
}

/// # Errors
/// The disk's, or the stop request came.
pub(super) fn write(
    folder: &Folder,
    id: u64,
    applied: u64,
    keys: &[u64],
    sketches: Option<&Sketches>,
    records: &[&Record],
    cancel: &Cancel,
) -> Result<Mark, VectorError> {
    if keys.len() > ROWS_MAX {
        return Err(VectorError::Invalid(format!("more than {ROWS_MAX} vectors in one file")));
    }
    let partition = sketches.and_then(|sketches| sketches.partition.as_ref());
    let lists = partition.map_or(0, Partition::lists);
    let checksum = folder.publish(&name(id), |sink| {
        sink.put(&header(id, applied, keys.len(), sketches.is_some(), lists))?;
        if let Some(sketches) = sketches {
            put_all(sink, sketches.middle.iter().map(|value| value.to_le_bytes()))?;
        }
        put_all(sink, keys.iter().map(|key| key.to_le_bytes()))?;
        if let Some(sketches) = sketches {
            put_all(sink, sketches.all.iter().flatten().map(|word| word.to_le_bytes()))?;
        }
        if let Some(partition) = partition {
            sink.put(&partition.centres)?;
            put_all(sink, partition.starts.iter().map(|start| start.to_le_bytes()))?;
            put_all(sink, partition.rows.iter().map(|row| row.to_le_bytes()))?;
        }
        for block in records.chunks(BLOCK) {
            look(cancel)?;
            block.iter().try_for_each(|record| sink.put(*record))?;
        }
        Ok(())
    })?;
    let length = Layout::new(keys.len(), sketches.is_some(), lists).length as u64;
    Ok(Mark { rows: keys.len(), length, checksum })
}

fn put_all<const N: usize>(
    sink: &mut Sink<'_>,
    all: impl Iterator<Item = [u8; N]>,
) -> Result<(), VectorError> {
    for bytes in all {
        sink.put(&bytes)?;
    }
    Ok(())
}

fn header(id: u64, applied: u64, rows: usize, sketched: bool, lists: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(MAGIC);
    // Both counts are below their limits.
    for number in [FORMAT, DIMENSIONS as u32, u32::from(sketched), lists as u32] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    for number in [id, applied, rows as u64] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    header.resize(HEADER, 0);
    header
}

/// Rows, whether there are sketches, lists; if this is the header of the file that is looked for.
fn counts(header: &[u8], id: u64) -> Option<(usize, bool, usize)> {
    let mut cursor = Cursor::new(header);
    let ours =
        cursor.take(MAGIC.len())? == MAGIC && cursor.u32()? == FORMAT && cursor.u32()? == DIMENSIONS as u32;
    let sketched = cursor.u32()?;
    let lists = cursor.u32()? as usize;
    let same = cursor.u64()? == id;
    let _applied = cursor.u64()?;
    let rows = usize::try_from(cursor.u64()?).ok()?;
    let possible = rows <= ROWS_MAX && sketched <= 1 && lists <= LISTS_MAX && (lists == 0 || sketched == 1);
    (ours && same && possible).then_some((rows, sketched == 1, lists))
}

/// A segment as it lies there, every byte compared with its checksum.
///
/// # Errors
/// In words, why it cannot be used.
pub(super) fn read(folder: &Folder, id: u64, mark: Mark) -> Result<Segment, String> {
    let words_of = |error: std::io::Error| error.to_string();
    let file = File::open(folder.path(&name(id))).map_err(words_of)?;
    if file.metadata().map_err(words_of)?.len() != mark.length || mark.length < (HEADER + TRAILER) as u64 {
        return Err("it has another length".to_owned());
    }
    let mut reader = Reader { file: &file, at: 0, sum: crc32fast::Hasher::new() };
    let header: Vec<u8> = reader.section(HEADER, |[byte]: [u8; 1]| byte)?;
    let (rows, sketched, lists) = counts(&header, id).ok_or("its header is wrong")?;
    // What is allocated from here on is no larger than the file.
    let layout = Layout::new(rows, sketched, lists);
    if layout.length as u64 != mark.length || rows != mark.rows {
        return Err("its header does not fit its length".to_owned());
    }
    let middle = reader.section(layout.middle.len(), f32::from_le_bytes)?;
    let keys = reader.section(layout.keys.len(), u64::from_le_bytes)?;
    let sketch = |bytes: [u8; WORDS * 8]| {
        let mut sketch = Sketch::default();
        for (word, bytes) in sketch.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        sketch
    };
    let all = reader.section(layout.sketches.len(), sketch)?;
    let centres = reader.section(layout.centres.len(), |[byte]: [u8; 1]| byte)?;
    let starts = reader.section(layout.starts.len(), u32::from_le_bytes)?;
    let order = reader.section(layout.order.len(), u32::from_le_bytes)?;
    reader.pass(layout.records.len())?;
    let sum = reader.sum.clone().finalize();
    let trailer = reader.section(TRAILER, u32::from_le_bytes)?;
    if sum != mark.checksum || trailer != [mark.checksum] {
        return Err("it is damaged".to_owned());
    }
    if !keys.is_sorted_by(|one, other| one < other) {
        return Err("its keys are out of order".to_owned());
    }
    let partition = (lists > 0).then_some(Partition { centres, starts, rows: order });
    if !partition.as_ref().is_none_or(|partition| partition.is_whole(rows)) {
        return Err("its lists are wrong".to_owned());
    }
    let middle = <Box<[f32; DIMENSIONS]>>::try_from(middle).ok();
    let sketches = middle.map(|middle| Sketches { middle, all, partition });
    let records = Bytes::of_file(&file, layout.records, sketched).map_err(words_of)?;
    Ok(Segment { id, keys, records, sketches, mark: Some(mark) })
}

/// Reads a file from its beginning to its end, and adds up its checksum.
struct Reader<'a> {
    file: &'a File,
    at: u64,
    sum: crc32fast::Hasher,
}

impl Reader<'_> {
    /// The next `length` bytes, in numbers of `N` bytes.
    fn section<T, const N: usize>(
        &mut self,
        length: usize,
        number: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, String> {
        let mut all = Vec::with_capacity(length / N);
        self.blocks(length, BLOCK * N, |block| {
            all.extend(block.as_chunks::<N>().0.iter().map(|bytes| number(*bytes)));
        })?;
        Ok(all)
    }

    fn pass(&mut self, length: usize) -> Result<(), String> {
        self.blocks(length, BLOCK * RECORD, |_| {})
    }

    fn blocks(&mut self, length: usize, size: usize, mut each: impl FnMut(&[u8])) -> Result<(), String> {
        let (mut block, mut left) = (vec![0; size.min(length)], length);
        while left > 0 {
            let now = &mut block[..size.min(left)];
            self.file.read_exact_at(now, self.at).map_err(|error| error.to_string())?;
            self.sum.update(now);
            each(now);
            self.at += now.len() as u64;
            left -= now.len();
        }
        Ok(())
    }
}

/// The codes of a file that was just written.
///
/// # Errors
/// The file's.
pub(super) fn records(folder: &Folder, id: u64, mark: &Mark, scattered: bool) -> Result<Bytes, VectorError> {
    let path = folder.path(&name(id));
    let failed = |error: std::io::Error| VectorError::file(&path, &error);
    let end = usize::try_from(mark.length).unwrap_or(usize::MAX).saturating_sub(TRAILER);
    let file = File::open(&path).map_err(failed)?;
    Bytes::of_file(&file, end - mark.rows * RECORD..end, scattered).map_err(failed)
}
