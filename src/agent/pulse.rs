//! Signs of life of a process: it writes them itself, with its own look at the clock, so that nobody is taken
//! for stuck because the hub was busy.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::SharedClock;

/// Shared by a process and whoever watches over it.
pub struct Pulse {
    clock: SharedClock,
    /// Of the last sign, in milliseconds of the monotonic clock.
    at: AtomicU64,
    in_model_call: AtomicBool,
}

impl Pulse {
    /// The beginning is a sign of life.
    pub fn new(clock: SharedClock) -> Self {
        let pulse = Self { clock, at: AtomicU64::new(0), in_model_call: AtomicBool::new(false) };
        pulse.beat();
        pulse
    }

    pub(super) fn beat(&self) {
        self.at.store(self.milliseconds(), Ordering::Release);
    }

    /// A model call has limits of its own and counts as activity while it lasts.
    pub(super) fn model_call(&self, begins: bool) {
        self.beat();
        self.in_model_call.store(begins, Ordering::Release);
    }

    /// How long nothing was heard; none while a model is asked.
    pub fn quiet(&self) -> Option<Duration> {
        if self.in_model_call.load(Ordering::Acquire) {
            return None;
        }
        Some(Duration::from_millis(self.milliseconds().saturating_sub(self.at.load(Ordering::Acquire))))
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{SimulatedClock, Timestamp};

    #[test]
    fn a_model_call_is_activity_and_silence_begins_with_the_last_sign() {
        let clock = SimulatedClock::starting_at(Timestamp(0));
        let pulse = Pulse::new(clock.clone());
        clock.advance(Duration::from_secs(5));
        assert_eq!(pulse.quiet(), Some(Duration::from_secs(5)));
        pulse.model_call(true);
        clock.advance(Duration::from_secs(500));
        assert_eq!(pulse.quiet(), None);
        pulse.model_call(false);
        assert_eq!(pulse.quiet(), Some(Duration::ZERO));
        clock.advance(Duration::from_secs(7));
        assert_eq!(pulse.quiet(), Some(Duration::from_secs(7)));
    }
}
