//! The vectors of one store in memory, small enough for a board: for each a sketch of one bit a number
//! and a code of one byte a number. A search looks at all sketches, then at the codes of the best; the
//! exact numbers stay in the database for the last word.
//!
//! Derived and never saved: it is filled from the database, row by row, and knows rows by their keys.

use std::collections::HashMap;

use super::embed::DIMENSIONS;

/// Words of a sketch.
const WORDS: usize = DIMENSIONS / 64;
/// Up to here all codes are looked at: sketches would save nothing.
const EXACT_ROWS: usize = 5_000;
/// Sketches whose codes are looked at: this many, and one more for each [`ROWS_PER_CANDIDATE`] rows. Measured on
/// jittered vectors of dialogue: recall@10 .9997 at 10,000 rows with 500, .9993 at 100,000 with 2,000.
const CANDIDATES: usize = 500;
const ROWS_PER_CANDIDATE: usize = 60;
/// Vectors whose mean is the middle of the sketches.
const MEAN_ROWS: usize = 2_048;

/// Which rows count in a search.
pub(super) type Filter<'a> = &'a dyn Fn(&Tag) -> bool;

/// What a search may filter by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) memory_type: u8,
    pub(super) forgotten: bool,
}

#[derive(Debug, Default)]
pub(super) struct VectorIndex {
    keys: Vec<i64>,
    tags: Vec<Tag>,
    scales: Vec<f32>,
    /// `[n, 384] i8`.
    codes: Vec<i8>,
    /// `[n, 6] u64`.
    sketches: Vec<u64>,
    places: HashMap<i64, u32>,
    /// `[384] f32`, from the first rows; sketches are of what is above it.
    mean: Vec<f32>,
    mean_of: usize,
}

impl VectorIndex {
    /// Puts a row in, or in the place of what has its key. `vector` is `[384] f32` of length 1; anything
    /// else is passed over.
    pub(super) fn put(&mut self, key: i64, tag: Tag, vector: &[f32]) {
        if vector.len() != DIMENSIONS || vector.iter().any(|value| !value.is_finite()) {
            return;
        }
        if self.mean_of < MEAN_ROWS {
            self.learn_mean(vector);
        }
        let (codes, scale) = quantized(vector);
        let sketch = self.sketch(vector);
        if let Some(place) = self.places.get(&key) {
            let place = *place as usize;
            (self.tags[place], self.scales[place]) = (tag, scale);
            self.codes[place * DIMENSIONS..(place + 1) * DIMENSIONS].copy_from_slice(&codes);
            self.sketches[place * WORDS..(place + 1) * WORDS].copy_from_slice(&sketch);
            return;
        }
        let Ok(place) = u32::try_from(self.keys.len()) else { return };
        self.places.insert(key, place);
        self.keys.push(key);
        self.tags.push(tag);
        self.scales.push(scale);
        self.codes.extend_from_slice(&codes);
        self.sketches.extend_from_slice(&sketch);
    }

    pub(super) fn retag(&mut self, key: i64, tag: Tag) {
        if let Some(place) = self.places.get(&key) {
            self.tags[*place as usize] = tag;
        }
    }

    /// Takes a row out: the last one moves into its place.
    pub(super) fn remove(&mut self, key: i64) {
        let Some(place) = self.places.remove(&key) else { return };
        let (place, last) = (place as usize, self.keys.len() - 1);
        self.keys.swap_remove(place);
        self.tags.swap_remove(place);
        self.scales.swap_remove(place);
        self.codes.copy_within(last * DIMENSIONS.., place * DIMENSIONS);
        self.codes.truncate(last * DIMENSIONS);
        self.sketches.copy_within(last * WORDS.., place * WORDS);
        self.sketches.truncate(last * WORDS);
        if let Some(moved) = self.keys.get(place) {
            self.places.insert(*moved, u32::try_from(place).unwrap_or(u32::MAX));
        }
    }

    /// The best `limit` rows that pass `filter`, with about their cosine to `query`, best first.
    pub(super) fn search(&self, query: &[f32], limit: usize, filter: Filter<'_>) -> Vec<(i64, f32)> {
        if query.len() != DIMENSIONS || self.keys.is_empty() || query.iter().any(|value| !value.is_finite()) {
            return Vec::new();
        }
        let (codes, scale) = quantized(query);
        let wanted = CANDIDATES.max(limit) + self.keys.len() / ROWS_PER_CANDIDATE;
        let places: Vec<u32> = if self.keys.len() <= EXACT_ROWS.max(wanted) {
            (0..).zip(&self.tags).filter(|(_, tag)| filter(tag)).map(|(place, _)| place).collect()
        } else {
            self.nearest_sketches(&self.sketch(query), wanted, filter)
        };
        let mut found: Vec<(i64, f32)> = places
            .into_iter()
            .map(|place| {
                let place = place as usize;
                let row = &self.codes[place * DIMENSIONS..(place + 1) * DIMENSIONS];
                (self.keys[place], dot(&codes, row) as f32 * scale * self.scales[place])
            })
            .collect();
        let best_first =
            |one: &(i64, f32), other: &(i64, f32)| other.1.total_cmp(&one.1).then(other.0.cmp(&one.0));
        if found.len() > limit {
            found.select_nth_unstable_by(limit, best_first);
            found.truncate(limit);
        }
        found.sort_unstable_by(best_first);
        found
    }

    /// The places of about `wanted` rows whose sketches differ least, by counting how many differ by how
    /// much: two passes, no sorting.
    fn nearest_sketches(&self, query: &[u64; WORDS], wanted: usize, filter: Filter<'_>) -> Vec<u32> {
        let mut distances = vec![u16::MAX; self.keys.len()];
        let mut counts = [0_usize; DIMENSIONS + 1];
        for ((distance, sketch), tag) in
            distances.iter_mut().zip(self.sketches.as_chunks::<WORDS>().0).zip(&self.tags)
        {
            if filter(tag) {
                let differing: u32 =
                    query.iter().zip(sketch).map(|(one, other)| (one ^ other).count_ones()).sum();
                counts[differing as usize] += 1;
                *distance = differing as u16;
            }
        }
        let mut left = wanted;
        let farthest = counts.iter().position(|count| {
            let enough = *count >= left;
            left = left.saturating_sub(*count);
            enough
        });
        let farthest = farthest.unwrap_or(DIMENSIONS) as u16;
        (0..).zip(distances).filter(|(_, distance)| *distance <= farthest).map(|(place, _)| place).collect()
    }

    fn learn_mean(&mut self, vector: &[f32]) {
        if self.mean.is_empty() {
            self.mean = vec![0.0; DIMENSIONS];
        }
        self.mean_of += 1;
        let share = 1.0 / self.mean_of as f32;
        for (mean, value) in self.mean.iter_mut().zip(vector) {
            *mean += (value - *mean) * share;
        }
        // The sketches so far were of another middle; all of them, when it has settled.
        if self.mean_of == MEAN_ROWS {
            self.sketch_anew();
        }
    }

    fn sketch_anew(&mut self) {
        for place in 0..self.keys.len() {
            let codes = &self.codes[place * DIMENSIONS..(place + 1) * DIMENSIONS];
            let vector: Vec<f32> = codes.iter().map(|code| f32::from(*code) * self.scales[place]).collect();
            let sketch = self.sketch(&vector);
            self.sketches[place * WORDS..(place + 1) * WORDS].copy_from_slice(&sketch);
        }
    }

    fn sketch(&self, vector: &[f32]) -> [u64; WORDS] {
        let mut sketch = [0; WORDS];
        for (place, (value, mean)) in vector.iter().zip(&self.mean).enumerate() {
            sketch[place / 64] |= u64::from(value > mean) << (place % 64);
        }
        sketch
    }
}

/// Codes from -127 to 127 and what one step of them is worth.
fn quantized(vector: &[f32]) -> ([i8; DIMENSIONS], f32) {
    let largest = vector.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
    let mut codes = [0; DIMENSIONS];
    for (code, value) in codes.iter_mut().zip(vector) {
        *code = (value / scale).round() as i8;
    }
    (codes, scale)
}

/// At most 384 x 127 x 127, far below what an i32 holds.
fn dot(one: &[i8], other: &[i8]) -> i32 {
    one.iter().zip(other).map(|(one, other)| i32::from(*one) * i32::from(*other)).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const LIVE: Tag = Tag { memory_type: 0, forgotten: false };

    /// SplitMix64; the seed is the test.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ (mixed >> 31)
        }

        /// About normal, from twelve uniform numbers.
        fn normal(&mut self) -> f32 {
            (0..12).map(|_| (self.next() >> 40) as f32 / (1_u64 << 24) as f32).sum::<f32>() - 6.0
        }
    }

    fn unit(mut vector: Vec<f32>) -> Vec<f32> {
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|value| *value /= length);
        vector
    }

    /// Real vectors stand in families (a shared middle, themes); so do these.
    fn families(count: usize, seed: u64) -> Vec<Vec<f32>> {
        let mut random = Random(seed);
        let middle: Vec<f32> = (0..DIMENSIONS).map(|_| random.normal() * 0.5).collect();
        let themes: Vec<Vec<f32>> = (0..count.div_ceil(40).max(1))
            .map(|_| middle.iter().map(|value| value + random.normal()).collect())
            .collect();
        (0..count)
            .map(|_| {
                let theme = &themes[random.next() as usize % themes.len()];
                unit(theme.iter().map(|value| value + random.normal() * 0.7).collect())
            })
            .collect()
    }

    fn exact(vectors: &[Vec<f32>], query: &[f32], limit: usize) -> Vec<i64> {
        let score = |vector: &[f32]| vector.iter().zip(query).map(|(one, other)| one * other).sum::<f32>();
        let mut all: Vec<(i64, f32)> = (0..).zip(vectors).map(|(key, vector)| (key, score(vector))).collect();
        all.sort_by(|one, other| other.1.total_cmp(&one.1));
        all.into_iter().take(limit).map(|(key, _)| key).collect()
    }

    /// As the store does it: forty by code, the best ten of them by their exact numbers.
    fn searched(index: &VectorIndex, vectors: &[Vec<f32>], query: &[f32]) -> Vec<i64> {
        let found = index.search(query, 40, &|_| true);
        let candidates: Vec<Vec<f32>> = found.iter().map(|(key, _)| vectors[*key as usize].clone()).collect();
        exact(&candidates, query, 10).into_iter().map(|place| found[place as usize].0).collect()
    }

    #[test]
    fn the_ten_nearest_are_found() {
        for count in [100, 1_000, 8_000] {
            let vectors = families(count, 3);
            let mut index = VectorIndex::default();
            (0..).zip(&vectors).for_each(|(key, vector)| index.put(key, LIVE, vector));
            let mut random = Random(9);
            let (mut right, mut all) = (0, 0);
            for _ in 0..50 {
                let near = &vectors[random.next() as usize % count];
                let query = unit(near.iter().map(|value| value + random.normal() * 0.02).collect());
                let wanted = exact(&vectors, &query, 10);
                let found = searched(&index, &vectors, &query);
                right += wanted.iter().filter(|key| found.contains(key)).count();
                all += wanted.len();
            }
            assert!(right as f64 / all as f64 >= 0.995, "{right} of {all} at {count}");
        }
    }

    #[test]
    fn any_sequence_of_changes_leaves_what_a_simple_list_would_hold() {
        let vectors = families(400, 5);
        let mut random = Random(1);
        let mut index = VectorIndex::default();
        let mut list: HashMap<i64, (Tag, usize)> = HashMap::new();
        for _ in 0..5_000 {
            let key = (random.next() % 300) as i64;
            let (vector, tag) = (
                random.next() as usize % vectors.len(),
                Tag { memory_type: (random.next() % 3) as u8, ..LIVE },
            );
            match random.next() % 4 {
                0 | 1 => {
                    index.put(key, tag, &vectors[vector]);
                    list.insert(key, (tag, vector));
                }
                2 => {
                    index.remove(key);
                    list.remove(&key);
                }
                _ => {
                    index.retag(key, tag);
                    list.entry(key).and_modify(|entry| entry.0 = tag);
                }
            }
        }
        assert_eq!(index.keys.len(), list.len());
        let found = index.search(&vectors[0], usize::MAX / 2, &|tag| tag.memory_type == 1);
        let mut keys: Vec<i64> = found.iter().map(|(key, _)| *key).collect();
        let mut wanted: Vec<i64> =
            list.iter().filter(|(_, (tag, _))| tag.memory_type == 1).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(keys, wanted);
        for (key, score) in found {
            let vector = &vectors[list[&key].1];
            let cosine: f32 = vector.iter().zip(&vectors[0]).map(|(one, other)| one * other).sum();
            assert!((cosine - score).abs() < 0.01, "{cosine} {score}");
        }
    }

    #[test]
    fn what_is_no_vector_is_passed_over() {
        let mut index = VectorIndex::default();
        index.put(1, LIVE, &[0.0; 3]);
        index.put(2, LIVE, &[f32::NAN; DIMENSIONS]);
        assert_eq!(index.keys.len(), 0);
        assert!(index.search(&[0.1; DIMENSIONS], 5, &|_| true).is_empty());
        index.put(3, LIVE, &[0.0; DIMENSIONS]);
        assert_eq!(index.search(&[0.0; DIMENSIONS], 5, &|_| true).len(), 1);
        assert!(index.search(&[f32::INFINITY; DIMENSIONS], 5, &|_| true).is_empty());
        index.remove(3);
        index.remove(3);
        assert_eq!(index.keys.len(), 0);
    }
}
