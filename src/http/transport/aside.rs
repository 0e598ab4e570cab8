//! System calls that nothing can interrupt, name lookup and connect, done on a thread of their own
//! while the caller waits in slices and leaves on a stop request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::Signal;
use crate::thread::spawn;

/// How often the waiting caller looks for a stop request: well inside the 250 ms of a stop.
const STOP_LOOK: Duration = Duration::from_millis(50);
/// Threads at once. One that is given up lives on until the system call returns, so a silent name
/// server or a silent host must not pile them up.
const THREADS_MAX: usize = 64;

/// Counts the threads of one program.
#[derive(Debug, Default, Clone)]
pub(super) struct Aside(Arc<AtomicUsize>);

impl Aside {
    /// Runs `job` on a thread called `name` for at most `wait`.
    ///
    /// # Errors
    /// What `job` reports; `TimedOut` after `wait`; `NotConnected` on a stop request.
    pub(super) fn run<T: Send + 'static>(
        &self,
        name: &str,
        wait: Duration,
        signal: &Signal,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let seat = Seat::take(&self.0)?;
        let (answer, answered) = bounded(1);
        spawn(name, move || {
            let done = job();
            drop(seat);
            // Nobody listens any more when the wait was over before the answer.
            answer.send(done).ok();
        })?;
        let mut left = wait;
        while !signal.is_stopped() {
            let slice = left.min(STOP_LOOK);
            match answered.recv_timeout(slice) {
                Ok(done) => return done,
                Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the thread panicked")),
                Err(RecvTimeoutError::Timeout) => left -= slice,
            }
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Err(io::Error::new(io::ErrorKind::NotConnected, "stopped"))
    }
}

struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(count: &Arc<AtomicUsize>) -> io::Result<Self> {
        let seat = Self(count.clone());
        if count.fetch_add(1, Ordering::SeqCst) >= THREADS_MAX {
            return Err(io::Error::other("too many connects and name lookups are waiting"));
        }
        Ok(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
