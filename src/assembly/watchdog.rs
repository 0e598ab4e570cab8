//! The sign of life that systemd waits for.

use std::time::Duration;

use spacebot::db::{Db, Ticket};

/// Half of what systemd allows, as sd_watchdog_enabled(3) advises.
pub(super) fn interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|allowed| allowed / 2)
}

/// systemd hears of us only when every database has answered since the last tick.
pub(super) struct Watchdog {
    /// With the question that it was asked last; none when its queue was full.
    databases: Vec<(Db, Option<Ticket<()>>)>,
}

impl Watchdog {
    /// Each is asked at the first tick, unless it was before.
    pub(super) fn new(databases: Vec<(Db, Option<Ticket<()>>)>) -> Self {
        Self { databases }
    }

    pub(super) fn tick(&mut self) {
        let mut alive = true;
        for (db, asked) in &mut self.databases {
            match asked.as_ref().map(Ticket::poll) {
                Some(Some(Ok(()))) => *asked = db.probe(),
                Some(None) => alive = false,
                Some(Some(Err(_))) | None => {
                    alive = false;
                    *asked = db.probe();
                }
            }
        }
        if alive {
            sd_notify::notify(&[sd_notify::NotifyState::Watchdog]).ok(); // without systemd there is no one to tell
        }
    }
}
