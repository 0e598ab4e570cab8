//! The newest vectors, in memory only: all of their codes are looked at by each search.

use std::collections::HashMap;

use super::VectorError;
use super::code::Record;
use super::kernels::{RECORD, kernels};
use super::mapped::Bytes;
use super::nearest::Highest;
use super::segment::{Search, Segment, look};

/// Rows between two looks at the stop request.
const BLOCK: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Tail {
    keys: Vec<u64>,
    records: Vec<u8>,
    rows: HashMap<u64, u32>,
}

impl Tail {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn record(&self, key: u64) -> Option<&Record> {
        self.records.as_chunks::<RECORD>().0.get(*self.rows.get(&key)? as usize)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (u64, &Record)> {
        self.keys.iter().copied().zip(self.records.as_chunks::<RECORD>().0)
    }

    /// Puts a vector in, or in the place of what has its key.
    pub(super) fn put(&mut self, key: u64, record: &Record) {
        if let Some(row) = self.rows.get(&key) {
            self.records.as_chunks_mut::<RECORD>().0[*row as usize] = *record;
            return;
        }
        // It is written out long before 2^32 rows.
        self.rows.insert(key, self.keys.len() as u32);
        self.keys.push(key);
        self.records.extend_from_slice(record);
    }

    /// Takes a vector out: the last one moves into its place. True when it was there.
    pub(super) fn remove(&mut self, key: u64) -> bool {
        let Some(row) = self.rows.remove(&key) else { return false };
        let (row, last) = (row as usize, self.keys.len() - 1);
        self.keys.swap_remove(row);
        self.records.copy_within(last * RECORD.., row * RECORD);
        self.records.truncate(last * RECORD);
        if let Some(moved) = self.keys.get(row) {
            self.rows.insert(*moved, row as u32);
        }
        true
    }

    /// Offers what is here and allowed.
    ///
    /// # Errors
    /// The stop request came.
    pub(super) fn search(&self, search: &Search<'_>, best: &mut Highest) -> Result<(), VectorError> {
        let mut scores = Vec::with_capacity(BLOCK.min(self.len()));
        for (keys, records) in self.keys.chunks(BLOCK).zip(self.records.chunks(BLOCK * RECORD)) {
            look(search.cancel)?;
            scores.clear();
            (kernels().cosines)(&search.query.record, records, &mut scores);
            for (key, score) in keys.iter().zip(&scores) {
                let allowed = || search.filter.is_none_or(|filter| filter(*key));
                best.offer(*score, || allowed().then_some(*key));
            }
        }
        Ok(())
    }

    /// All of it as a segment that is only in memory, and an empty tail.
    pub(super) fn freeze(&mut self, id: u64) -> Segment {
        let tail = std::mem::take(self);
        let mut order: Vec<(u64, u32)> = tail.keys.into_iter().zip(0..).collect();
        order.sort_unstable();
        let records = tail.records.as_chunks::<RECORD>().0;
        let mut sorted = Vec::with_capacity(records.len() * RECORD);
        order.iter().for_each(|(_, row)| sorted.extend_from_slice(&records[*row as usize]));
        let keys = order.into_iter().map(|(key, _)| key).collect();
        Segment { id, keys, records: Bytes::Loaded(sorted), sketches: None, mark: None }
    }
}
