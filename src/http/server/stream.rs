//! An answer that goes on: its pieces are written as they are there, and in between no thread holds it.
//!
//! It has no length; its end is the end of the connection. A client that reads slowly is asked for nothing
//! and given nothing until it has read the last piece: whoever makes the pieces bounds what waits meanwhile.

use std::time::Duration;

/// Called when there is something again after [`Source::next`] had nothing. Does not block.
pub type Ring = Box<dyn Fn() + Send + Sync>;

/// Makes the pieces. Dropped when the client has gone or the server stops.
pub trait Source: Send {
    /// Called once, before anything else.
    fn begin(&mut self, ring: Ring);

    /// What there is to send now; empty: nothing, ask again after a ring. `quiet`: nothing was sent for the
    /// stream's pause, and something should be, or nobody would notice that the other side has gone. None: that
    /// was all. Must not block.
    fn next(&mut self, quiet: bool) -> Option<Vec<u8>>;
}

pub struct Stream {
    pub(super) content_type: &'static str,
    /// No other stream or parked request has the same.
    pub(super) key: String,
    /// Longest silence.
    pub(super) pause: Duration,
    pub(super) source: Box<dyn Source>,
}

impl Stream {
    pub fn new(
        content_type: &'static str,
        key: String,
        pause: Duration,
        source: impl Source + 'static,
    ) -> Self {
        Self { content_type, key, pause, source: Box::new(source) }
    }

    /// For tests of handlers.
    pub fn source(&mut self) -> &mut dyn Source {
        &mut *self.source
    }
}
