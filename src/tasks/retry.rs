//! How long a task pauses that has failed; pure.

use std::time::Duration;

use super::{AttemptEnd, Status, Task};
use crate::clock::Timestamp;

/// The longest pause: what takes longer to come back is worth an attempt all the same, and the task is not forgotten.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(600);

/// How often a task is tried, and how far apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Attempts before the task has failed.
    pub attempts: usize,
    /// The pause after the first failure; it doubles with each, up to [`PAUSE_MAX`].
    pub pause: Duration,
}

impl Retries {
    /// When a task that has ended so may be tried again; none: at once, or not at all.
    pub(super) fn next(&self, end: AttemptEnd, task: &Task, now: Timestamp) -> Option<Timestamp> {
        let failed = matches!(end, AttemptEnd::Failed | AttemptEnd::Timeout);
        (failed && task.status == Status::Ready && !self.pause.is_zero())
            .then(|| now.plus(self.after(task.attempts)))
    }

    /// After so many failures.
    fn after(&self, failures: usize) -> Duration {
        let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.pause.saturating_mul(2_u32.saturating_pow(doublings)).min(PAUSE_MAX)
    }
}

/// What is left of a pause. More than there can be was written under another clock: nobody waits for that.
pub(super) fn wait(retry_at: Option<Timestamp>, now: Timestamp) -> Duration {
    let left = retry_at.map(|at| at.since(now)).unwrap_or_default();
    if left > PAUSE_MAX { Duration::ZERO } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_its_longest() {
        let retries = |pause| Retries { attempts: 10, pause: Duration::from_secs(pause) };
        let pauses = |pause| [1, 2, 3, 5, 6, 200].map(|failures| retries(pause).after(failures).as_secs());
        assert_eq!(pauses(30), [30, 60, 120, 480, 600, 600]);
        assert_eq!(pauses(0), [0; 6]);
    }

    #[test]
    fn what_is_left_is_never_more_than_a_pause() {
        let left = |at: i64| wait(Some(Timestamp(at)), Timestamp(1_000_000)).as_millis();
        assert_eq!(wait(None, Timestamp(5)), Duration::ZERO);
        assert_eq!([left(0), left(1_000_000), left(1_000_001), left(1_600_000)], [0, 0, 1, 600_000]);
        assert_eq!(left(1_600_001), 0, "the clock was set back");
    }
}
