//! Whether the clock may be believed: a board without a battery wakes up in the past and learns the time
//! from the network, and until then no job may run.

use std::path::Path;

use crate::clock::Timestamp;

/// systemd-timesyncd makes this file when the clock has been set.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";
/// No clock was right before this program existed: 2026-01-01T00:00:00Z.
const FLOOR: Timestamp = Timestamp(1_767_225_600_000);

/// True when the system says that its clock is right, or when `now` is not before the last thing that was
/// written, and not before this program was.
pub fn is_trusted(now: Timestamp, last_written: Timestamp) -> bool {
    now >= FLOOR && (now >= last_written || Path::new(SYNCHRONISED).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_the_past_is_not_trusted() {
        let written = Timestamp(FLOOR.0 + 1_000_000);
        assert!(!is_trusted(Timestamp(0), Timestamp(0)));
        assert!(!is_trusted(Timestamp(5_000), written));
        assert!(is_trusted(written, written));
        // The file decides for what lies between; most machines that build this have none.
        assert_eq!(is_trusted(FLOOR, written), Path::new(SYNCHRONISED).exists());
    }
}
