//! Messages in company that wait for each other, so that a lively moment is one turn and not many.
//!
//! While fewer than `min_messages` wait, each further one starts the debounce anew; from then on the
//! deadline stands, and it is never later than the first message and `max_wait`. A message that addresses
//! the agent starts it once more at most, and lets no later one do so: whoever asks waits one debounce.

use std::time::Duration;

use super::{Conversation, Hub, Key};
use crate::config::CoalescingConfig;
use crate::message::Lane;

#[derive(Debug)]
pub(super) struct Batch {
    first: Duration,
    count: usize,
    /// Somebody waits for an answer.
    addressed: bool,
    pub(super) due: Duration,
}

impl Batch {
    fn new(now: Duration) -> Self {
        Self { first: now, count: 0, addressed: false, due: now }
    }

    fn join(&mut self, addressed: bool, now: Duration, config: &CoalescingConfig) {
        if self.count < config.min_messages && !self.addressed {
            self.due = (now + config.debounce).min(self.first + config.max_wait);
        }
        self.count += 1;
        self.addressed |= addressed;
    }
}

impl Conversation {
    /// A new message has come.
    pub(super) fn gather(&mut self, addressed: bool, now: Duration, config: &CoalescingConfig) {
        if config.enabled && !(self.place.direct && config.multi_user_only) {
            self.batch.get_or_insert_with(|| Batch::new(now)).join(addressed, now, config);
        }
    }

    /// What waits is a turn now.
    pub(super) fn flush(&mut self, now: Duration) {
        if let Some(batch) = &mut self.batch {
            batch.due = batch.due.min(now);
        }
    }
}

impl Hub {
    /// How messages of this conversation wait for each other; none where each is for itself.
    pub(super) fn coalescing(&self, key: &Key) -> Option<CoalescingConfig> {
        (key.2 == Lane::Talk).then(|| self.agents.get(&key.0).map(|agent| agent.limits.coalescing.clone()))?
    }
}
