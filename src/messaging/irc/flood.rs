//! How fast we may talk: servers throw out who sends too much at once.

use std::time::Duration;

/// Lines that may go out at once after a silence.
const BURST: u32 = 4;
/// After that, one line in this time; the classic limit of RFC 1459 servers.
const REFILL: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Bucket {
    tokens: u32,
    /// When the last token came in.
    filled: Duration,
}

impl Bucket {
    pub(super) fn new(now: Duration) -> Self {
        Self { tokens: BURST, filled: now }
    }

    /// True when a line may go now; it is then counted.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let free = self.ready(now);
        self.tokens -= u32::from(free);
        free
    }

    pub(super) fn ready(&mut self, now: Duration) -> bool {
        while self.tokens < BURST && now.saturating_sub(self.filled) >= REFILL {
            self.tokens += 1;
            self.filled += REFILL;
        }
        if self.tokens == BURST {
            self.filled = now;
        }
        self.tokens > 0
    }

    /// When the next line may go.
    pub(super) fn next(&self) -> Duration {
        if self.tokens > 0 { self.filled } else { self.filled + REFILL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_line_in_two_seconds() {
        let mut bucket = Bucket::new(Duration::ZERO);
        let mut sent = Vec::new();
        for millisecond in 0..10_000 {
            let now = Duration::from_millis(millisecond);
            while bucket.take(now) {
                sent.push(millisecond);
            }
        }
        assert_eq!(sent, [0, 0, 0, 0, 2000, 4000, 6000, 8000]);
        let later = Duration::from_secs(1000);
        assert_eq!((0..9).filter(|_| bucket.take(later)).count(), 4);
        assert_eq!(bucket.next(), later + REFILL);
    }
}
