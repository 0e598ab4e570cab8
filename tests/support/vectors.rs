//! Vectors for tests and figures: real ones of short texts (`tests/fixtures/vectors`), as many more as are
//! wanted that lie among them, and sources that hold them.

#![allow(dead_code, unreachable_pub)] // every user takes a part of this

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use spacebot::memory::vector_index::{Change, DIMENSIONS, Summary, VectorError, VectorSource};

/// SplitMix64; the seed is the test.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 24) as f32
    }
}

/// Vectors one after the other.
pub struct Rows(pub Vec<f32>);

impl Rows {
    pub fn len(&self) -> usize {
        self.0.len() / DIMENSIONS
    }

    pub fn row(&self, number: usize) -> &[f32] {
        &self.0[number * DIMENSIONS..(number + 1) * DIMENSIONS]
    }

    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let mut rows = Vec::with_capacity(bytes.len());
        for record in bytes.chunks_exact(DIMENSIONS + 4) {
            let (codes, step) = record.split_at(DIMENSIONS);
            let step = f32::from_le_bytes(step.try_into().unwrap());
            let start = rows.len();
            rows.extend(codes.iter().map(|code| f32::from(*code as i8) * step));
            let share = 1.0 / dot(&rows[start..], &rows[start..]).sqrt();
            rows[start..].iter_mut().for_each(|value| *value *= share);
        }
        Self(rows)
    }

    /// The vectors in this folder, made as `tests/fixtures/vectors/make.py` tells.
    pub fn of_folder(folder: &Path) -> (Self, Self) {
        (Self::read(&folder.join("base.bin")), Self::read(&folder.join("queries.bin")))
    }

    pub fn fixture() -> &'static (Self, Self) {
        static FIXTURE: OnceLock<(Rows, Rows)> = OnceLock::new();
        let folder = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vectors");
        FIXTURE.get_or_init(|| Self::of_folder(&folder()))
    }

    /// These rows, and then others that lie between them: one, with parts of three others and noise.
    pub fn grown(&self, count: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut middle = vec![0.0_f32; DIMENSIONS];
        for row in self.0.chunks_exact(DIMENSIONS) {
            middle.iter_mut().zip(row).for_each(|(middle, value)| *middle += value / self.len() as f32);
        }
        let mut rows = Vec::with_capacity(count * DIMENSIONS);
        rows.extend_from_slice(&self.0[..count.min(self.len()) * DIMENSIONS]);
        while rows.len() < count * DIMENSIONS {
            let of = |random: &mut Random| self.row(random.below(self.len()));
            let (one, two, three, four) =
                (of(&mut random), of(&mut random), of(&mut random), of(&mut random));
            let parts = [random.share() * 0.7, random.share() * 0.5 - 0.25, random.share() * 0.5 - 0.25];
            let others: f32 = parts.iter().sum();
            let start = rows.len();
            let (mut noise, mut square) = (0, 0.0);
            for place in 0..DIMENSIONS {
                if place % 4 == 0 {
                    noise = random.next();
                }
                let value =
                    one[place] + parts[0] * two[place] + parts[1] * three[place] + parts[2] * four[place]
                        - others * middle[place]
                        + f32::from((noise >> (place % 4 * 16)) as u16 as i16) * (0.03 / 32768.0);
                square += value * value;
                rows.push(value);
            }
            let share = 1.0 / square.sqrt();
            rows[start..].iter_mut().for_each(|value| *value *= share);
        }
        Self(rows)
    }

    /// The numbers of the `limit` rows nearest to a query.
    pub fn nearest(&self, query: &[f32], limit: usize) -> Vec<usize> {
        let scores = self.0.chunks_exact(DIMENSIONS).map(|row| dot(row, query)).zip(0..);
        let mut all: Vec<(f32, usize)> = scores.collect();
        let limit = limit.min(all.len());
        if limit < all.len() {
            all.select_nth_unstable_by(limit, |one, other| other.0.total_cmp(&one.0));
        }
        all[..limit].iter().map(|(_, row)| *row).collect()
    }
}

/// In lanes, so that it is fast without optimisation too.
#[inline(always)]
pub fn dot(one: &[f32], other: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    for (one, other) in one.as_chunks::<16>().0.iter().zip(other.as_chunks::<16>().0) {
        let mut lane = 0;
        while lane < 16 {
            sums[lane] += one[lane] * other[lane];
            lane += 1;
        }
    }
    sums.iter().sum()
}

/// A source that never changes: row n has key and change n + 1.
impl VectorSource for Rows {
    fn summary(&self) -> Result<Summary, VectorError> {
        Ok(Summary { newest: self.len() as u64, vectors: self.len() as u64 })
    }

    fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, VectorError> {
        let of = |row: usize| {
            let key = row as u64 + 1;
            Change { sequence: key, key, vector: Some(self.row(row).to_vec()) }
        };
        Ok((after as usize..self.len()).take(limit).map(of).collect())
    }

    fn change_of(&self, key: u64) -> Result<Option<u64>, VectorError> {
        Ok((1..=self.len() as u64).contains(&key).then_some(key))
    }

    fn vectors(&self, keys: &[u64], each: &mut dyn FnMut(u64, &[f32])) -> Result<(), VectorError> {
        keys.iter()
            .filter(|key| **key <= self.len() as u64)
            .for_each(|key| each(*key, self.row(*key as usize - 1)));
        Ok(())
    }
}

#[derive(Default, Clone)]
struct Content {
    newest: u64,
    /// The last change of a key, and its vector if it still has one.
    rows: HashMap<u64, (u64, Option<Vec<f32>>)>,
    changes: BTreeMap<u64, u64>,
}

/// A source that changes, as a database would.
#[derive(Default)]
pub struct Table(Mutex<Content>);

impl Table {
    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, key: u64, vector: Option<Vec<f32>>) -> Change {
        let mut content = self.content();
        content.newest += 1;
        let sequence = content.newest;
        if let Some((before, _)) = content.rows.insert(key, (sequence, vector.clone())) {
            content.changes.remove(&before);
        }
        content.changes.insert(sequence, key);
        Change { sequence, key, vector }
    }

    /// As a database restored from a backup of this moment would be.
    pub fn copy(&self) -> Self {
        Self(Mutex::new(self.content().clone()))
    }

    pub fn newest(&self) -> u64 {
        self.content().newest
    }

    /// Keys with their vectors, ascending.
    pub fn all(&self) -> BTreeMap<u64, Vec<f32>> {
        let content = self.content();
        content.rows.iter().filter_map(|(key, (_, vector))| Some((*key, vector.clone()?))).collect()
    }
}

impl VectorSource for Table {
    fn summary(&self) -> Result<Summary, VectorError> {
        let content = self.content();
        let vectors = content.rows.values().filter(|(_, vector)| vector.is_some()).count() as u64;
        Ok(Summary { newest: content.newest, vectors })
    }

    fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, VectorError> {
        let content = self.content();
        let of = |(sequence, key): (&u64, &u64)| Change {
            sequence: *sequence,
            key: *key,
            vector: content.rows[key].1.clone(),
        };
        Ok(content.changes.range(after + 1..).take(limit).map(of).collect())
    }

    fn change_of(&self, key: u64) -> Result<Option<u64>, VectorError> {
        Ok(self.content().rows.get(&key).map(|(sequence, _)| *sequence))
    }

    fn vectors(&self, keys: &[u64], each: &mut dyn FnMut(u64, &[f32])) -> Result<(), VectorError> {
        let content = self.content();
        for key in keys {
            if let Some((_, Some(vector))) = content.rows.get(key) {
                each(*key, vector);
            }
        }
        Ok(())
    }
}
