//! How long to wait before the next connection.

use std::time::Duration;

/// How patient the adapter is. Tests shorten it; nothing else does.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Wait after the first lost connection; doubled each time.
    pub first_retry: Duration,
    /// Longest wait between two tries.
    pub longest_retry: Duration,
    /// Wait after the server refused our credentials, our nick or us: trying often makes that worse.
    pub refused_retry: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first_retry: Duration::from_secs(5),
            longest_retry: Duration::from_secs(300),
            refused_retry: Duration::from_secs(900),
        }
    }
}

#[derive(Debug)]
pub(super) struct Backoff {
    pace: Pace,
    failures: u32,
    random: u64,
}

impl Backoff {
    pub(super) fn new(pace: Pace, seed: u64) -> Self {
        Self { pace, failures: 0, random: seed }
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next wait: doubled up to the longest, then up to a quarter less, so that not all clients
    /// of a restarted server come back in the same second.
    pub(super) fn next_wait(&mut self) -> Duration {
        let factor = 1u32 << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let wait = self.pace.first_retry.saturating_mul(factor).min(self.pace.longest_retry);
        self.less(wait)
    }

    pub(super) fn refused_wait(&mut self) -> Duration {
        self.less(self.pace.refused_retry)
    }

    fn less(&mut self, wait: Duration) -> Duration {
        // SplitMix64: a step that turns any seed, even 0, into well-mixed numbers.
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let per_mille = u32::try_from((mixed ^ (mixed >> 31)) % 250).unwrap_or(0);
        wait - wait * per_mille / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_replay_from_the_seed() {
        let pace = Pace::default();
        let waits = |seed| {
            let mut backoff = Backoff::new(pace, seed);
            (0..40).map(|_| backoff.next_wait()).collect::<Vec<_>>()
        };
        let mut expected = 5;
        for wait in waits(7) {
            let longest = Duration::from_secs(expected.min(300));
            assert!(wait <= longest && wait >= longest * 3 / 4, "{wait:?} {longest:?}");
            expected = (expected * 2).min(300);
        }
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
        let mut backoff = Backoff::new(pace, 1);
        backoff.next_wait();
        backoff.reset();
        assert!(backoff.next_wait() <= pace.first_retry);
    }
}
