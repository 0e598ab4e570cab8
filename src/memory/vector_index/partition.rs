//! Lists of rows that lie together (an inverted file): a search looks into those whose centre is near.

use std::cmp::Reverse;

use super::VectorError;
use super::code::{self, Record};
use super::kernels::{DIMENSIONS, RECORD, kernels};
use crate::thread::Cancel;

/// Rows of a list that the centres are learned from.
const SAMPLE: usize = 40;
/// Rounds of learning; more move the centres little.
const ROUNDS: usize = 6;
/// Rows between two looks at the stop request.
const ROWS_BETWEEN_LOOKS: usize = 4_096;

#[derive(Debug)]
pub(super) struct Partition {
    /// The centre of each list.
    pub(super) centres: Vec<u8>,
    /// Where each list begins in `rows`, and the end.
    pub(super) starts: Vec<u32>,
    /// The rows of all lists, one list after the other.
    pub(super) rows: Vec<u32>,
}

impl Partition {
    /// Sorts rows into lists.
    ///
    /// # Errors
    /// The stop request came.
    pub(super) fn learn(rows: &[&Record], lists: usize, cancel: &Cancel) -> Result<Self, VectorError> {
        let lists = lists.clamp(1, rows.len().max(1));
        let centres = centres(rows, lists, cancel)?;
        let mut counts = vec![0_u32; lists + 1];
        let mut nearest = Nearest::default();
        let mut list_of = Vec::with_capacity(rows.len());
        for (number, row) in rows.iter().enumerate() {
            look(number, cancel)?;
            let list = nearest.of(row, &centres);
            counts[list as usize + 1] += 1;
            list_of.push(list);
        }
        for list in 0..lists {
            counts[list + 1] += counts[list];
        }
        let (starts, mut next) = (counts.clone(), counts);
        let mut order = vec![0_u32; rows.len()];
        for (row, list) in (0..).zip(list_of) {
            order[next[list as usize] as usize] = row;
            next[list as usize] += 1;
        }
        Ok(Self { centres, starts, rows: order })
    }

    pub(super) fn lists(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// The places of each list, the nearest to the query first.
    pub(super) fn nearest_lists(&self, query: &Record) -> Vec<(usize, usize)> {
        let mut scores = Vec::with_capacity(self.lists());
        (kernels().cosines)(query, &self.centres, &mut scores);
        let mut lists: Vec<(f32, usize)> = scores.into_iter().zip(0..).collect();
        lists.sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
        let range = |list: usize| (self.starts[list] as usize, self.starts[list + 1] as usize);
        lists.into_iter().map(|(_, list)| range(list)).collect()
    }

    /// Whether every row of `rows` stands in exactly one list.
    pub(super) fn is_whole(&self, rows: usize) -> bool {
        let ascending = self.starts.windows(2).all(|pair| pair[0] <= pair[1]);
        let ends = self.starts.first() == Some(&0) && self.starts.last() == Some(&(rows as u32));
        let mut seen = vec![false; rows];
        let once = |row: &u32| seen.get_mut(*row as usize).is_some_and(|seen| !std::mem::replace(seen, true));
        ascending
            && ends
            && self.rows.len() == rows
            && self.rows.iter().all(once)
            && self.centres.len() == self.lists() * RECORD
    }
}

fn look(number: usize, cancel: &Cancel) -> Result<(), VectorError> {
    if number.is_multiple_of(ROWS_BETWEEN_LOOKS) && cancel.is_cancelled() {
        return Err(VectorError::Cancelled);
    }
    Ok(())
}

/// Spherical k-means over a sample.
fn centres(rows: &[&Record], lists: usize, cancel: &Cancel) -> Result<Vec<u8>, VectorError> {
    let step = (rows.len() / (lists * SAMPLE)).max(1);
    let sample: Vec<&Record> = rows.iter().step_by(step).copied().collect();
    let mut centres: Vec<u8> = (0..lists).flat_map(|list| rows[list * rows.len() / lists]).copied().collect();
    let mut nearest = Nearest::default();
    let mut values = [0.0; DIMENSIONS];
    for _ in 0..ROUNDS {
        let mut sums = vec![[0.0_f32; DIMENSIONS]; lists];
        for (number, row) in sample.iter().enumerate() {
            look(number, cancel)?;
            code::values(row, &mut values);
            let sum = &mut sums[nearest.of(row, &centres) as usize];
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        for (centre, sum) in centres.as_chunks_mut::<RECORD>().0.iter_mut().zip(&sums) {
            // An empty list keeps its centre.
            if let Ok(middle) = code::unit(sum) {
                *centre = code::record(&middle);
            }
        }
    }
    Ok(centres)
}

#[derive(Default)]
struct Nearest {
    scores: Vec<f32>,
}

impl Nearest {
    fn of(&mut self, row: &Record, centres: &[u8]) -> u32 {
        self.scores.clear();
        (kernels().cosines)(row, centres, &mut self.scores);
        let best = (0_u32..)
            .zip(&self.scores)
            .max_by(|one, other| one.1.total_cmp(other.1).then(Reverse(one.0).cmp(&Reverse(other.0))));
        best.map_or(0, |(list, _)| list)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_lie_together_stand_in_one_list() {
        let row = |theme: usize, shift: usize| {
            let mut vector = [0.01; DIMENSIONS];
            vector[theme] = 1.0;
            vector[100 + shift % 200] += 0.1;
            code::record(&code::unit(&vector).unwrap())
        };
        let rows: Vec<Record> = (0..400).map(|number| row(number / 100, number)).collect();
        let records: Vec<&Record> = rows.iter().collect();
        let partition = Partition::learn(&records, 4, &Cancel::new()).unwrap();
        assert!(partition.is_whole(400) && !partition.is_whole(401));
        for theme in 0..4 {
            let (start, end) = partition.nearest_lists(&row(theme, 3))[0];
            let mut list = partition.rows[start..end].to_vec();
            list.sort_unstable();
            assert_eq!(list, (theme as u32 * 100..theme as u32 * 100 + 100).collect::<Vec<_>>());
        }
        let stopped = Cancel::new();
        stopped.cancel();
        assert!(matches!(Partition::learn(&records, 4, &stopped), Err(VectorError::Cancelled)));
    }
}
