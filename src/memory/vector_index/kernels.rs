//! The loops over all vectors, written once for each instruction set and chosen when the program runs;
//! the plain ones are the reference that the others are tested against.
//!
//! The processor's own instructions can only be reached by `unsafe`: a pointer is read in steps of 16 or
//! 32 bytes, always inside of an array whose length the type fixes.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// Numbers of one vector.
pub const DIMENSIONS: usize = 384;
/// A vector of one byte a number, and what one step of them is worth (`f32`, little endian).
pub(super) const RECORD: usize = DIMENSIONS + 4;
/// Words of a sketch.
pub(super) const WORDS: usize = DIMENSIONS / 64;

/// One bit a number.
pub(super) type Sketch = [u64; WORDS];

/// A sketch that is near: in how many bits it differs, and where it stands.
pub(super) type Near = (u16, u32);

/// Appends the cosine of a record and those of others at these places.
type ScoresAt = fn(&[u8; RECORD], &[u8], places: &[u32], scores: &mut Vec<f32>);

/// Whole loops for one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    pub(super) name: &'static str,
    /// Appends those of the sketches that differ from the first argument in fewer bits than `below`; the
    /// first of them stands at `first`.
    pub(super) near: fn(&Sketch, &[Sketch], below: u16, first: u32, found: &mut Vec<Near>),
    /// The cosine of two records.
    pub(super) cosine: fn(&[u8; RECORD], &[u8; RECORD]) -> f32,
    /// Appends the cosine of the first record and each of the others.
    pub(super) cosines: fn(&[u8; RECORD], &[u8], scores: &mut Vec<f32>),
    /// The same for the records at these places.
    pub(super) cosines_at: ScoresAt,
}

/// The best that this processor can run.
pub(super) fn kernels() -> &'static Kernels {
    static BEST: OnceLock<Kernels> = OnceLock::new();
    BEST.get_or_init(|| available().pop().unwrap_or(PLAIN))
}

/// All that this processor can run, the best last.
pub(super) fn available() -> Vec<Kernels> {
    let mut found = vec![PLAIN];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
        found.push(AVX2);
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        found.push(NEON);
    }
    found
}

/// The codes of a record, and what one step of them is worth.
#[inline(always)]
fn parts(record: &[u8; RECORD]) -> (&[u8; DIMENSIONS], f32) {
    let [codes @ .., a, b, c, d] = record;
    (codes, f32::from_le_bytes([*a, *b, *c, *d]))
}

/// The loops around `$differing(&Sketch, &Sketch) -> u32` and `$dot(&[u8; 384], &[u8; 384]) -> i32`.
macro_rules! loops {
    ($differing:path, $dot:path $(, $attribute:meta)?) => {
        $(#[$attribute])?
        pub(super) fn near(query: &Sketch, all: &[Sketch], below: u16, first: u32, found: &mut Vec<Near>) {
            for (place, sketch) in (first..).zip(all) {
                let differing = $differing(query, sketch) as u16;
                if differing < below {
                    found.push((differing, place));
                }
            }
        }

        $(#[$attribute])?
        pub(super) fn cosine(one: &[u8; RECORD], other: &[u8; RECORD]) -> f32 {
            let ((codes, scale), (other, step)) = (parts(one), parts(other));
            $dot(codes, other) as f32 * scale * step
        }

        $(#[$attribute])?
        pub(super) fn cosines(query: &[u8; RECORD], records: &[u8], scores: &mut Vec<f32>) {
            let (codes, scale) = parts(query);
            for record in records.as_chunks::<RECORD>().0 {
                let (other, step) = parts(record);
                scores.push($dot(codes, other) as f32 * scale * step);
            }
        }

        $(#[$attribute])?
        pub(super) fn cosines_at(query: &[u8; RECORD], records: &[u8], places: &[u32], scores: &mut Vec<f32>) {
            let (codes, scale) = parts(query);
            let records = records.as_chunks::<RECORD>().0;
            for place in places {
                let (other, step) = parts(&records[*place as usize]);
                scores.push($dot(codes, other) as f32 * scale * step);
            }
        }
    };
}

mod plain {
    use super::{DIMENSIONS, Near, RECORD, Sketch, parts};

    #[inline(always)]
    pub(super) fn differing(one: &Sketch, other: &Sketch) -> u32 {
        one.iter().zip(other).map(|(one, other)| (one ^ other).count_ones()).sum()
    }

    /// At most 384 x 127 x 127, far below what an `i32` holds.
    #[inline(always)]
    pub(super) fn dot(one: &[u8; DIMENSIONS], other: &[u8; DIMENSIONS]) -> i32 {
        one.iter().zip(other).map(|(one, other)| i32::from(*one as i8) * i32::from(*other as i8)).sum()
    }

    loops!(differing, dot);
}

const PLAIN: Kernels = Kernels {
    name: "plain",
    near: plain::near,
    cosine: plain::cosine,
    cosines: plain::cosines,
    cosines_at: plain::cosines_at,
};

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_shuffle_epi32, _mm256_add_epi32,
        _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_extracti128_si256, _mm256_madd_epi16,
        _mm256_setzero_si256,
    };

    use super::{DIMENSIONS, Near, RECORD, Sketch, parts};

    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    fn differing(one: &Sketch, other: &Sketch) -> u32 {
        (one[0] ^ other[0]).count_ones()
            + (one[1] ^ other[1]).count_ones()
            + (one[2] ^ other[2]).count_ones()
            + (one[3] ^ other[3]).count_ones()
            + (one[4] ^ other[4]).count_ones()
            + (one[5] ^ other[5]).count_ones()
    }

    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    fn dot(one: &[u8; DIMENSIONS], other: &[u8; DIMENSIONS]) -> i32 {
        let (one, other) = (one.as_ptr(), other.as_ptr());
        let mut sums = [_mm256_setzero_si256(); 2];
        let mut at = 0;
        while at < DIMENSIONS {
            let [even, odd] = &mut sums;
            for (sum, at) in [(even, at), (odd, at + 16)] {
                // SAFETY: both arrays have 384 bytes and `at` is at most 368; the loads may be unaligned.
                let (one, other) = unsafe {
                    (
                        _mm_loadu_si128(one.add(at).cast::<__m128i>()),
                        _mm_loadu_si128(other.add(at).cast::<__m128i>()),
                    )
                };
                let products = _mm256_madd_epi16(_mm256_cvtepi8_epi16(one), _mm256_cvtepi8_epi16(other));
                *sum = _mm256_add_epi32(*sum, products);
            }
            at += 32;
        }
        let sum = _mm256_add_epi32(sums[0], sums[1]);
        let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b01_00_11_10>(sum));
        _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32::<0b10_11_00_01>(sum)))
    }

    loops!(differing, dot, target_feature(enable = "avx2,popcnt"));
}

#[cfg(target_arch = "x86_64")]
const AVX2: Kernels = Kernels {
    name: "avx2",
    // SAFETY of all four: `available` hands these out only where the processor has AVX2 and POPCNT.
    near: |query, all, below, first, found| unsafe { avx2::near(query, all, below, first, found) },
    cosine: |one, other| unsafe { avx2::cosine(one, other) },
    cosines: |query, records, scores| unsafe { avx2::cosines(query, records, scores) },
    cosines_at: |query, records, places, scores| unsafe { avx2::cosines_at(query, records, places, scores) },
};

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::{
        vaddlvq_u8, vaddq_u8, vaddvq_s32, vcntq_u8, vdupq_n_s32, veorq_u8, vget_low_s8, vld1q_s8, vld1q_u64,
        vmull_high_s8, vmull_s8, vpadalq_s16, vreinterpretq_u8_u64,
    };

    use super::{DIMENSIONS, Near, RECORD, Sketch, parts};

    #[inline]
    #[target_feature(enable = "neon")]
    fn differing(one: &Sketch, other: &Sketch) -> u32 {
        let (one, other) = (one.as_ptr(), other.as_ptr());
        let bits = |at: usize| {
            // SAFETY: both arrays have six words and `at` is 0, 2 or 4; two words are read.
            let (one, other) = unsafe { (vld1q_u64(one.add(at)), vld1q_u64(other.add(at))) };
            vcntq_u8(veorq_u8(vreinterpretq_u8_u64(one), vreinterpretq_u8_u64(other)))
        };
        // At most 24 in each of the sixteen lanes.
        u32::from(vaddlvq_u8(vaddq_u8(vaddq_u8(bits(0), bits(2)), bits(4))))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn dot(one: &[u8; DIMENSIONS], other: &[u8; DIMENSIONS]) -> i32 {
        let (one, other) = (one.as_ptr().cast::<i8>(), other.as_ptr().cast::<i8>());
        let (mut low, mut high) = (vdupq_n_s32(0), vdupq_n_s32(0));
        let mut at = 0;
        while at < DIMENSIONS {
            // SAFETY: both arrays have 384 bytes and `at` is at most 368; sixteen bytes are read.
            let (one, other) = unsafe { (vld1q_s8(one.add(at)), vld1q_s8(other.add(at))) };
            low = vpadalq_s16(low, vmull_s8(vget_low_s8(one), vget_low_s8(other)));
            high = vpadalq_s16(high, vmull_high_s8(one, other));
            at += 16;
        }
        vaddvq_s32(low) + vaddvq_s32(high)
    }

    loops!(differing, dot, target_feature(enable = "neon"));
}

#[cfg(target_arch = "aarch64")]
const NEON: Kernels = Kernels {
    name: "neon",
    // SAFETY of all four: `available` hands these out only where the processor has NEON.
    near: |query, all, below, first, found| unsafe { neon::near(query, all, below, first, found) },
    cosine: |one, other| unsafe { neon::cosine(one, other) },
    cosines: |query, records, scores| unsafe { neon::cosines(query, records, scores) },
    cosines_at: |query, records, places, scores| unsafe { neon::cosines_at(query, records, places, scores) },
};

#[cfg(test)]
mod tests {
    use super::*;

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

        fn record(&mut self, extreme: bool) -> [u8; RECORD] {
            let mut record = [0; RECORD];
            for code in &mut record[..DIMENSIONS] {
                let value = (self.next() % 255) as i16 - 127;
                *code = if extreme { value.signum() * 127 } else { value } as i8 as u8;
            }
            record[DIMENSIONS..].copy_from_slice(&(0.001 + (self.next() % 99) as f32 / 1e4).to_le_bytes());
            record
        }
    }

    /// Counted and multiplied by hand, number by number.
    fn by_hand(one: &[u8; RECORD], other: &[u8; RECORD]) -> f32 {
        let (mut sum, at) = (0_i32, DIMENSIONS);
        for place in 0..DIMENSIONS {
            sum += i32::from(one[place] as i8) * i32::from(other[place] as i8);
        }
        let step = |record: &[u8; RECORD]| {
            f32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
        };
        sum as f32 * step(one) * step(other)
    }

    #[test]
    fn every_instruction_set_says_the_same() {
        assert_eq!(available()[0].name, "plain");
        let mut random = Random(7);
        for count in [0, 1, 2, 3, 7, 8, 31, 64, 257] {
            for extreme in [false, true] {
                let query = random.record(extreme);
                let rows: Vec<[u8; RECORD]> = (0..count).map(|_| random.record(extreme)).collect();
                let sketch = std::array::from_fn(|_| random.next());
                let sketches: Vec<Sketch> =
                    (0..count).map(|_| std::array::from_fn(|_| random.next())).collect();
                let places: Vec<u32> = (0..count as u32).rev().filter(|place| place % 3 != 1).collect();
                let mut records = rows.concat();
                // A torn last record is left out.
                records.extend_from_slice(&query[..RECORD - 1]);
                let wanted: Vec<f32> = rows.iter().map(|row| by_hand(&query, row)).collect();
                let picked: Vec<f32> = places.iter().map(|place| wanted[*place as usize]).collect();
                let near: Vec<Near> = (5..)
                    .zip(&sketches)
                    .map(|(place, other)| {
                        ((0..WORDS).map(|at| (sketch[at] ^ other[at]).count_ones()).sum(), place)
                    })
                    .filter(|(differing, _): &(u32, u32)| *differing < 192)
                    .map(|(differing, place)| (differing as u16, place))
                    .collect();
                for kernels in available() {
                    let (mut scores, mut at, mut found) = (vec![], vec![], vec![]);
                    (kernels.cosines)(&query, &records, &mut scores);
                    (kernels.cosines_at)(&query, &records, &places, &mut at);
                    (kernels.near)(&sketch, &sketches, 192, 5, &mut found);
                    assert_eq!(scores, wanted, "{}", kernels.name);
                    let single: Vec<f32> = rows.iter().map(|row| (kernels.cosine)(&query, row)).collect();
                    assert_eq!(single, wanted, "{}", kernels.name);
                    assert_eq!(at, picked, "{}", kernels.name);
                    assert_eq!(found, near, "{}", kernels.name);
                }
            }
        }
    }
}
