//! Many vectors that do not change: their keys and sketches in memory, their codes in a file.

use std::sync::Arc;

use super::bits::Bits;
use super::code::{self, Record};
use super::folder::Folder;
use super::kernels::{DIMENSIONS, Near, RECORD, Sketch, kernels};
use super::mapped::Bytes;
use super::nearest::{Highest, NearestSketches};
use super::partition::Partition;
use super::segment_file::{self, Mark};
use super::{Tuning, VectorError};
use crate::thread::Cancel;

/// Rows between two looks at the stop request, and what the loops work off at a time.
const BLOCK: usize = 4_096;

/// Which keys count in a search.
pub(super) type Filter<'a> = Option<&'a dyn Fn(u64) -> bool>;

/// A question, in the three forms in which it is compared.
pub(super) struct Query {
    pub(super) unit: [f32; DIMENSIONS],
    pub(super) record: Record,
}

impl Query {
    /// # Errors
    /// It has no direction.
    pub(super) fn new(vector: &[f32]) -> Result<Self, VectorError> {
        let unit = code::unit(vector)?;
        Ok(Self { unit, record: code::record(&unit) })
    }
}

/// Everything a search is held to.
pub(super) struct Search<'a> {
    pub(super) query: &'a Query,
    pub(super) filter: Filter<'a>,
    pub(super) limit: usize,
    pub(super) tuning: &'a Tuning,
    pub(super) cancel: &'a Cancel,
}

#[derive(Debug)]
pub(super) struct Sketches {
    /// The mean of the vectors; a sketch says what is above it.
    pub(super) middle: Box<[f32; DIMENSIONS]>,
    /// In the order of the rows, or of the lists.
    pub(super) all: Vec<Sketch>,
    pub(super) partition: Option<Partition>,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    /// Ascending.
    pub(super) keys: Vec<u64>,
    pub(super) records: Bytes,
    /// None where looking at all codes is as fast.
    pub(super) sketches: Option<Sketches>,
    /// None for what is only in memory.
    pub(super) mark: Option<Mark>,
}

impl Segment {
    pub(super) fn record(&self, row: usize) -> &Record {
        &self.records.as_slice().as_chunks::<RECORD>().0[row]
    }

    /// Writes these rows, in ascending order of their keys, as a new segment.
    ///
    /// # Errors
    /// The disk's, or the stop request came.
    pub(super) fn write(
        folder: &Folder,
        id: u64,
        applied: u64,
        rows: &[(u64, &Record)],
        tuning: &Tuning,
        cancel: &Cancel,
    ) -> Result<Self, VectorError> {
        let keys: Vec<u64> = rows.iter().map(|(key, _)| *key).collect();
        let records: Vec<&Record> = rows.iter().map(|(_, record)| *record).collect();
        let sketches = match rows.len() >= tuning.sketch_rows.max(1) {
            true => Some(Sketches::of(&records, tuning, cancel)?),
            false => None,
        };
        let mark = segment_file::write(folder, id, applied, &keys, sketches.as_ref(), &records, cancel)?;
        let records = segment_file::records(folder, id, &mark, sketches.is_some())?;
        Ok(Self { id, keys, records, sketches, mark: Some(mark) })
    }
}

impl Sketches {
    fn of(records: &[&Record], tuning: &Tuning, cancel: &Cancel) -> Result<Self, VectorError> {
        let mut values = [0.0; DIMENSIONS];
        let mut sums = [0.0_f64; DIMENSIONS];
        for block in records.chunks(BLOCK) {
            look(cancel)?;
            for record in block {
                code::values(record, &mut values);
                sums.iter_mut().zip(&values).for_each(|(sum, value)| *sum += f64::from(*value));
            }
        }
        let share = 1.0 / records.len().max(1) as f64;
        let middle = Box::new(sums.map(|sum| (sum * share) as f32));
        let partition = match records.len() >= tuning.partition_rows {
            true => Some(Partition::learn(records, tuning.lists, cancel)?),
            false => None,
        };
        let mut all = Vec::with_capacity(records.len());
        let mut sketch = |record: &Record| {
            code::values(record, &mut values);
            all.push(code::sketch(&values, &middle));
        };
        match &partition {
            Some(partition) => partition.rows.iter().for_each(|row| sketch(records[*row as usize])),
            None => records.iter().for_each(|record| sketch(record)),
        }
        Ok(Self { middle, all, partition })
    }

    fn row(&self, place: u32) -> u32 {
        self.partition.as_ref().map_or(place, |partition| partition.rows[place as usize])
    }
}

/// A segment as it is seen at one moment: without what has died since.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) segment: Arc<Segment>,
    pub(super) dead: Arc<Bits>,
    pub(super) live: usize,
    /// From before a rebuild: it answers until what replaces it is there.
    pub(super) stale: bool,
}

impl View {
    pub(super) fn new(segment: Segment) -> Self {
        let rows = segment.keys.len();
        Self { segment: Arc::new(segment), dead: Arc::new(Bits::new(rows)), live: rows, stale: false }
    }

    /// The row of a key that lives here.
    pub(super) fn find(&self, key: u64) -> Option<usize> {
        let row = self.segment.keys.binary_search(&key).ok()?;
        (!self.dead.get(row)).then_some(row)
    }

    /// True when the key lived here until now.
    pub(super) fn kill(&mut self, key: u64) -> bool {
        let Some(row) = self.find(key) else { return false };
        Arc::make_mut(&mut self.dead).set(row);
        self.live -= 1;
        true
    }

    pub(super) fn live_rows(&self) -> impl Iterator<Item = (u64, &Record)> {
        let rows = self.segment.keys.iter().zip(self.segment.records.as_slice().as_chunks::<RECORD>().0);
        rows.enumerate().filter(|(row, _)| !self.dead.get(*row)).map(|(_, (key, record))| (*key, record))
    }

    /// Offers what lives here and is allowed.
    ///
    /// # Errors
    /// The stop request came.
    pub(super) fn search(&self, search: &Search<'_>, best: &mut Highest) -> Result<(), VectorError> {
        let wanted = search.tuning.candidates(self.live, search.limit);
        match &self.segment.sketches {
            Some(sketches) if wanted < self.live => {
                let rows = self.nearest(sketches, wanted, search)?;
                self.offer_rows(&rows, search, best);
                Ok(())
            }
            _ => self.offer_all(search, best),
        }
    }

    fn allowed(&self, row: usize, filter: Filter<'_>) -> Option<u64> {
        let key = self.segment.keys[row];
        (!self.dead.get(row) && filter.is_none_or(|filter| filter(key))).then_some(key)
    }

    fn offer_all(&self, search: &Search<'_>, best: &mut Highest) -> Result<(), VectorError> {
        let mut scores = Vec::with_capacity(BLOCK);
        for (first, block) in (0..).step_by(BLOCK).zip(self.segment.records.as_slice().chunks(BLOCK * RECORD))
        {
            look(search.cancel)?;
            scores.clear();
            (kernels().cosines)(&search.query.record, block, &mut scores);
            for (row, score) in (first..).zip(&scores) {
                best.offer(*score, || self.allowed(row, search.filter));
            }
        }
        Ok(())
    }

    fn offer_rows(&self, rows: &[u32], search: &Search<'_>, best: &mut Highest) {
        let mut scores = Vec::with_capacity(rows.len());
        let records = self.segment.records.as_slice();
        (kernels().cosines_at)(&search.query.record, records, rows, &mut scores);
        for (row, score) in rows.iter().zip(scores) {
            // That it is allowed was asked already.
            best.offer(score, || Some(self.segment.keys[*row as usize]));
        }
    }

    /// The rows whose sketches are nearest, among those allowed.
    fn nearest(
        &self,
        sketches: &Sketches,
        wanted: usize,
        search: &Search<'_>,
    ) -> Result<Vec<u32>, VectorError> {
        let query = code::sketch(&search.query.unit, &sketches.middle);
        let mut nearest = NearestSketches::new(wanted);
        let mut near: Vec<Near> = Vec::with_capacity(BLOCK);
        let allowed = |place: u32| self.allowed(sketches.row(place) as usize, search.filter).is_some();
        let mut scan = |start: usize, end: usize, nearest: &mut NearestSketches| {
            for (first, block) in (start..).step_by(BLOCK).zip(sketches.all[start..end].chunks(BLOCK)) {
                look(search.cancel)?;
                near.clear();
                // Fewer than 2^32 rows: a segment of more is refused.
                (kernels().near)(&query, block, nearest.below, first as u32, &mut near);
                nearest.take(&near, allowed);
            }
            Ok(())
        };
        match &sketches.partition {
            None => scan(0, sketches.all.len(), &mut nearest)?,
            Some(partition) => {
                let probes = search.tuning.probes;
                for (number, (start, end)) in
                    partition.nearest_lists(&search.query.record).into_iter().enumerate()
                {
                    // A filter that leaves little is no reason to find less: further lists are looked at.
                    if number >= probes && nearest.len() >= wanted {
                        break;
                    }
                    scan(start, end, &mut nearest)?;
                }
            }
        }
        let mut rows = nearest.places();
        if sketches.partition.is_some() {
            rows.iter_mut().for_each(|place| *place = sketches.row(*place));
            rows.sort_unstable();
        }
        Ok(rows)
    }
}

pub(super) fn look(cancel: &Cancel) -> Result<(), VectorError> {
    if cancel.is_cancelled() { Err(VectorError::Cancelled) } else { Ok(()) }
}
