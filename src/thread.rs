//! The only place that starts threads, and how a thread is asked to stop.
//!
//! A [`Cancel`] is one stop request shared by everybody who works on one process: a flag for loops
//! that look, a receiver whose hang-up wakes every `select!`, and closers for waits that neither
//! reaches (a socket read, a child process).

mod current;

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

pub use current::Current;

/// Stack of every thread, in bytes. 128 KiB carried a model run without TLS; 1 MiB leaves room for
/// TLS and deep JSON, and costs address space only.
const STACK_BYTES: usize = 1 << 20;

/// Starts a named thread; the name is what `top -H` and the panic message show.
///
/// # Errors
/// When the system refuses another thread.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(body)
}

/// Runs `body` and turns a panic into its message, so that one process cannot take the daemon along.
pub fn contained<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| panic_text(&*payload))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}

/// A lock that a panic elsewhere does not poison: what it guards is replaced whole, never half-written.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Closer = Box<dyn FnOnce() + Send>;

struct Shared {
    cancelled: AtomicBool,
    /// Dropped on cancel; every clone of `woken` then reports a hang-up.
    hold: Mutex<Option<Sender<Infallible>>>,
    woken: Receiver<Infallible>,
    closers: Mutex<Vec<(u64, Closer)>>,
    next_closer: AtomicU64,
}

/// One stop request; clones are the same request.
#[derive(Clone)]
pub struct Cancel(Arc<Shared>);

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl Cancel {
    pub fn new() -> Self {
        let (hold, woken) = bounded(0);
        Self(Arc::new(Shared {
            cancelled: AtomicBool::new(false),
            hold: Mutex::new(Some(hold)),
            woken,
            closers: Mutex::new(Vec::new()),
            next_closer: AtomicU64::new(0),
        }))
    }

    /// Asks for the stop. The second call does nothing.
    pub fn cancel(&self) {
        if self.0.cancelled.swap(true, Ordering::SeqCst) {
            return;
        }
        lock(&self.0.hold).take();
        let closers = std::mem::take(&mut *lock(&self.0.closers));
        for (_, close) in closers {
            close();
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Becomes ready (disconnected) on cancel; for `select!`. Nothing is ever received from it.
    pub fn receiver(&self) -> &Receiver<Infallible> {
        &self.0.woken
    }

    /// Waits up to `duration`; true when the stop came first.
    pub fn wait(&self, duration: Duration) -> bool {
        matches!(self.0.woken.recv_timeout(duration), Err(RecvTimeoutError::Disconnected))
    }

    /// Runs `close` on cancel (at once if that has already happened), unless the guard was dropped
    /// before. `close` must not block.
    #[must_use = "dropping the guard removes the closer"]
    pub fn on_cancel(&self, close: impl FnOnce() + Send + 'static) -> CloserGuard {
        let number = self.0.next_closer.fetch_add(1, Ordering::Relaxed);
        lock(&self.0.closers).push((number, Box::new(close)));
        if self.is_cancelled() {
            // The cancel may have run between the two lines above, or long before.
            let late = std::mem::take(&mut *lock(&self.0.closers));
            for (_, close) in late {
                close();
            }
        }
        CloserGuard { cancel: self.clone(), number }
    }
}

/// Keeps a closer registered; see [`Cancel::on_cancel`].
pub struct CloserGuard {
    cancel: Cancel,
    number: u64,
}

impl Drop for CloserGuard {
    fn drop(&mut self) {
        lock(&self.cancel.0.closers).retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn cancel_wakes_a_waiting_thread_and_runs_closers_once() {
        let cancel = Cancel::new();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let guard = cancel.on_cancel(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let waiting = cancel.clone();
        let thread = spawn("waiter", move || waiting.wait(Duration::from_secs(60))).expect("spawn");
        cancel.cancel();
        cancel.cancel();
        assert!(thread.join().expect("join"));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        drop(guard);
    }

    #[test]
    fn a_dropped_guard_removes_its_closer_and_a_late_closer_runs_at_once() {
        let cancel = Cancel::new();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        drop(cancel.on_cancel(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        cancel.cancel();
        assert_eq!(count.load(Ordering::SeqCst), 0);
        let counted = count.clone();
        let _guard = cancel.on_cancel(move || {
            counted.fetch_add(10, Ordering::SeqCst);
        });
        assert_eq!(count.load(Ordering::SeqCst), 10);
    }

    #[test]
    fn a_panic_is_contained_with_its_message() {
        assert_eq!(contained(|| panic!("boom {}", 7)).err(), Some("boom 7".to_owned()));
        assert_eq!(contained(|| 3), Ok(3));
    }
}
