//! How a vector becomes small: one byte a number with a common step, or one bit a number.

use super::VectorError;
use super::kernels::{DIMENSIONS, RECORD, Sketch};

/// Shorter than this, a vector has no direction that numbers of 32 bits could tell.
const LENGTH_MIN: f64 = 1e-6;
/// Longer than this, squares leave what numbers of 32 bits hold.
const LENGTH_MAX: f64 = 1e12;

pub(super) type Record = [u8; RECORD];

/// Whether these numbers have a direction: 384 of them, all finite, neither zero nor close to it.
///
/// # Errors
/// Which of these fails.
pub fn check(vector: &[f32]) -> Result<(), VectorError> {
    length(vector).map(|_| ())
}

fn length(vector: &[f32]) -> Result<f64, VectorError> {
    if vector.len() != DIMENSIONS {
        return Err(VectorError::Vector(format!("{} numbers, not {DIMENSIONS}", vector.len())));
    }
    let square: f64 = vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    let length = square.sqrt();
    if !length.is_finite() {
        return Err(VectorError::Vector("a number is not finite".to_owned()));
    }
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
        return Err(VectorError::Vector(format!("its length is {length:e}")));
    }
    Ok(length)
}

/// The vector with length 1.
///
/// # Errors
/// As [`check`].
pub(super) fn unit(vector: &[f32]) -> Result<[f32; DIMENSIONS], VectorError> {
    let share = 1.0 / length(vector)?;
    let mut unit = [0.0; DIMENSIONS];
    for (unit, value) in unit.iter_mut().zip(vector) {
        *unit = (f64::from(*value) * share) as f32;
    }
    Ok(unit)
}

/// Codes from -127 to 127 of a vector of length 1.
pub(super) fn record(unit: &[f32; DIMENSIONS]) -> Record {
    let largest = unit.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    // Not zero: the largest of 384 numbers of length 1 is at least 0.05.
    let step = largest.max(f32::MIN_POSITIVE) / 127.0;
    let mut record = [0; RECORD];
    for (code, value) in record.iter_mut().zip(unit) {
        *code = (value / step).round() as i8 as u8;
    }
    record[DIMENSIONS..].copy_from_slice(&step.to_le_bytes());
    record
}

/// What the codes stand for.
pub(super) fn values(record: &Record, values: &mut [f32; DIMENSIONS]) {
    let [codes @ .., a, b, c, d] = record;
    let step = f32::from_le_bytes([*a, *b, *c, *d]);
    for (value, code) in values.iter_mut().zip(codes) {
        *value = f32::from(*code as i8) * step;
    }
}

/// Where the vector is above the middle.
pub(super) fn sketch(vector: &[f32; DIMENSIONS], middle: &[f32; DIMENSIONS]) -> Sketch {
    let mut sketch = Sketch::default();
    for (word, (values, middles)) in
        sketch.iter_mut().zip(vector.as_chunks::<64>().0.iter().zip(middle.as_chunks::<64>().0))
    {
        for (bit, (value, middle)) in values.iter().zip(middles).enumerate() {
            *word |= u64::from(value > middle) << bit;
        }
    }
    sketch
}

/// The exact cosine of a vector of length 1 and any other; none when that has no direction.
pub(super) fn cosine(unit: &[f32; DIMENSIONS], vector: &[f32]) -> Option<f32> {
    let length = length(vector).ok()?;
    let mut sums = [0.0_f32; 16];
    for (ours, theirs) in unit.as_chunks::<16>().0.iter().zip(vector.as_chunks::<16>().0) {
        for lane in 0..16 {
            sums[lane] += ours[lane] * theirs[lane];
        }
    }
    Some((sums.iter().map(|sum| f64::from(*sum)).sum::<f64>() / length) as f32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn wave(step: f32) -> [f32; DIMENSIONS] {
        std::array::from_fn(|place| (place as f32 * step).sin())
    }

    #[test]
    fn what_has_no_direction_is_refused() {
        let one_is = |value: f32| {
            let mut vector = wave(0.1);
            vector[7] = value;
            vector
        };
        for bad in [
            one_is(f32::NAN),
            one_is(f32::INFINITY),
            one_is(f32::MAX),
            [0.0; DIMENSIONS],
            [1e-40; DIMENSIONS],
        ] {
            assert!(check(&bad).is_err(), "{:?}", &bad[..8]);
        }
        assert!(check(&[]).is_err());
        assert!(check(&[1.0; DIMENSIONS + 1]).is_err());
        assert!(check(&[1e-5; DIMENSIONS]).is_ok());
        assert!(cosine(&wave(0.1), &one_is(f32::NAN)).is_none());
    }

    #[test]
    fn codes_are_near_what_they_stand_for() {
        let vector = unit(&wave(0.37)).unwrap();
        let mut back = [0.0; DIMENSIONS];
        values(&record(&vector), &mut back);
        assert!(cosine(&vector, &back).unwrap() > 0.9999);
        assert!((cosine(&vector, &wave(0.37)).unwrap() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_sketch_says_what_is_above_the_middle() {
        let mut vector = [0.0; DIMENSIONS];
        (vector[0], vector[65], vector[383]) = (1.0, 1.0, 1.0);
        assert_eq!(sketch(&vector, &[0.5; DIMENSIONS]), [1, 2, 0, 0, 0, 1 << 63]);
    }
}
