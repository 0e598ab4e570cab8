//! A vector as it stands in the database: 384 numbers of 16 bits and what one of their steps is worth.
//!
//! Five of these fit into a page of the database and two of `[384] f32`, and what is searched, written and
//! kept on a card is less than half. A cosine is off by some 0.000002, a fifth of what two runtimes differ by.
//! Vectors that were stored as f32, by an older version, are read as they are.

use crate::memory::embed::DIMENSIONS;

/// Bytes of a stored vector.
const BYTES: usize = STEP_BYTES + 2 * DIMENSIONS;
const STEP_BYTES: usize = size_of::<f32>();
/// The largest number of a vector becomes this.
const LARGEST: f32 = i16::MAX as f32;

/// `[384] f32` as the database keeps it: the step as f32, then `[384] i16`, all little endian.
#[must_use]
pub fn encode(vector: &[f32]) -> Vec<u8> {
    let largest = vector.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    // A vector of zeros has no direction, but is not to become one of NaN.
    let step = largest.max(f32::MIN_POSITIVE * LARGEST) / LARGEST;
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend(step.to_le_bytes());
    bytes.extend(vector.iter().flat_map(|number| ((number / step).round() as i16).to_le_bytes()));
    bytes
}

/// The numbers again; none if these are not the bytes of a vector.
pub(super) fn decode(bytes: &[u8], vector: &mut Vec<f32>) {
    vector.clear();
    match bytes.split_first_chunk::<STEP_BYTES>() {
        Some((step, numbers)) if bytes.len() == BYTES => {
            let step = f32::from_le_bytes(*step);
            let numbers = numbers.as_chunks::<2>().0.iter();
            vector.extend(numbers.map(|number| f32::from(i16::from_le_bytes(*number)) * step));
        }
        _ => vector.extend(bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of length 1, with numbers of all sizes.
    fn unit(seed: usize) -> Vec<f32> {
        let number = |place: usize| ((place * 7_919 + seed * 104_729) % 1_009) as f32 / 1_009.0 - 0.5;
        let mut vector: Vec<f32> = (0..DIMENSIONS).map(|place| number(place).powi(3)).collect();
        let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|number| *number /= length);
        vector
    }

    fn cosine(one: &[f32], other: &[f32]) -> f64 {
        one.iter().zip(other).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum()
    }

    #[test]
    fn a_cosine_is_kept_to_a_hundred_thousandth() {
        let mut back = Vec::new();
        for seed in 0..200 {
            let (vector, query) = (unit(seed), unit(seed + 1));
            let bytes = encode(&vector);
            assert_eq!(bytes.len(), 772);
            decode(&bytes, &mut back);
            assert_eq!(back.len(), DIMENSIONS);
            for other in [&vector, &query] {
                let off = (cosine(&back, other) - cosine(&vector, other)).abs();
                assert!(off < 1e-5, "seed {seed}: {off}");
            }
        }
    }

    #[test]
    fn what_an_older_version_stored_is_read_as_it_is() {
        let vector = unit(3);
        let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut back = vec![1.0];
        decode(&bytes, &mut back);
        assert_eq!(back, vector);
    }

    #[test]
    fn what_is_no_vector_does_no_harm() {
        let mut back = Vec::new();
        decode(&encode(&[0.0; DIMENSIONS]), &mut back);
        assert_eq!(back, [0.0; DIMENSIONS]);
        for length in [0, 3, 4, 771, 773] {
            decode(&vec![255; length], &mut back);
            assert_ne!(back.len(), DIMENSIONS, "{length} bytes");
        }
    }
}
