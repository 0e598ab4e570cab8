//! Keeping the best of many without sorting all of them.

use super::kernels::{DIMENSIONS, Near};

/// The rows whose sketches differ least.
pub(super) struct NearestSketches {
    wanted: usize,
    /// Only what differs in fewer bits has a chance.
    pub(super) below: u16,
    found: Vec<Near>,
}

impl NearestSketches {
    pub(super) fn new(wanted: usize) -> Self {
        Self { wanted: wanted.max(1), below: DIMENSIONS as u16 + 1, found: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// Takes what `allowed` lets through.
    pub(super) fn take(&mut self, near: &[Near], mut allowed: impl FnMut(u32) -> bool) {
        self.found.extend(near.iter().filter(|(_, place)| allowed(*place)));
        if self.found.len() >= 2 * self.wanted {
            self.found.select_nth_unstable(self.wanted - 1);
            self.below = self.found[self.wanted - 1].0;
            self.found.truncate(self.wanted);
        }
    }

    /// Their places, in ascending order: neighbours in a file are read together.
    pub(super) fn places(mut self) -> Vec<u32> {
        if self.found.len() > self.wanted {
            self.found.select_nth_unstable(self.wanted - 1);
            self.found.truncate(self.wanted);
        }
        let mut places: Vec<u32> = self.found.into_iter().map(|(_, place)| place).collect();
        places.sort_unstable();
        places
    }
}

/// The keys with the highest scores.
pub(super) struct Highest {
    wanted: usize,
    /// Only what scores higher has a chance.
    above: f32,
    found: Vec<(u64, f32)>,
}

impl Highest {
    pub(super) fn new(wanted: usize) -> Self {
        Self { wanted: wanted.max(1), above: f32::NEG_INFINITY, found: Vec::new() }
    }

    /// `key` is asked for only when the score has a chance, and may have none.
    pub(super) fn offer(&mut self, score: f32, key: impl FnOnce() -> Option<u64>) {
        if score <= self.above {
            return;
        }
        let Some(key) = key() else { return };
        self.found.push((key, score));
        if self.found.len() >= self.wanted.saturating_mul(2).max(64) {
            self.found.select_nth_unstable_by(self.wanted - 1, best_first);
            self.above = self.found[self.wanted - 1].1;
            self.found.truncate(self.wanted);
        }
    }

    pub(super) fn best_first(mut self) -> Vec<(u64, f32)> {
        self.found.sort_unstable_by(best_first);
        self.found.truncate(self.wanted);
        self.found
    }
}

/// By score; among equals the newer key, which is the larger one.
pub(super) fn best_first(one: &(u64, f32), other: &(u64, f32)) -> std::cmp::Ordering {
    other.1.total_cmp(&one.1).then(other.0.cmp(&one.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_in_any_order_of_arrival() {
        for wanted in [1, 3, 40] {
            let mut highest = Highest::new(wanted);
            let mut sketches = NearestSketches::new(wanted);
            // 389 is prime: every number below it comes once, in a scattered order.
            for place in 0..389_u32 {
                let value = place * 137 % 389;
                highest.offer(value as f32, || (value % 2 == 0).then_some(u64::from(value)));
                if (value as u16) < sketches.below {
                    sketches.take(&[(value as u16, value)], |place| place % 2 == 1);
                }
            }
            let best: Vec<u64> = highest.best_first().into_iter().map(|(key, _)| key).collect();
            let wanted_best: Vec<u64> = (0..wanted as u64).map(|place| 388 - 2 * place).collect();
            assert_eq!(best, wanted_best);
            let nearest: Vec<u32> = (0..wanted as u32).map(|place| 2 * place + 1).collect();
            assert_eq!(sketches.places(), nearest);
        }
    }
}
