//! Models that asked to be left alone, and until when.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::thread::lock;

/// No provider's limit is longer than its day; a longer wish is taken for an error.
const COOLDOWN_MAX: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Cooldowns {
    clock: SharedClock,
    /// By `provider/model`, so bounded by the configuration.
    until: Mutex<HashMap<String, Duration>>,
}

impl Cooldowns {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self { clock, until: Mutex::default() }
    }

    pub(super) fn rest(&self, model: &str, wait: Duration) {
        let until = self.clock.monotonic() + wait.min(COOLDOWN_MAX);
        lock(&self.until).insert(model.to_owned(), until);
    }

    /// How much longer the model rests; none when it may be asked.
    pub(super) fn left(&self, model: &str) -> Option<Duration> {
        let now = self.clock.monotonic();
        let mut until = lock(&self.until);
        match until.get(model)?.checked_sub(now).filter(|left| !left.is_zero()) {
            Some(left) => Some(left),
            None => {
                until.remove(model);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{SimulatedClock, Timestamp};

    #[test]
    fn a_model_rests_until_its_time_and_not_longer() {
        let clock = SimulatedClock::starting_at(Timestamp(1_000));
        let cooldowns = Cooldowns::new(clock.clone());
        assert_eq!(cooldowns.left("a/b"), None);
        cooldowns.rest("a/b", Duration::from_secs(60));
        clock.advance(Duration::from_millis(59_999));
        assert_eq!(cooldowns.left("a/b"), Some(Duration::from_millis(1)));
        assert_eq!(cooldowns.left("a/c"), None);
        clock.advance(Duration::from_millis(1));
        assert_eq!(cooldowns.left("a/b"), None);
        cooldowns.rest("a/b", Duration::MAX);
        assert_eq!(cooldowns.left("a/b"), Some(COOLDOWN_MAX));
    }
}
