//! Notices when the wall clock is set and when the board wakes from sleep, without looking at it: the
//! kernel cancels a timer of the wall clock then. Until that happens the thread sleeps.

use std::os::fd::AsFd;
use std::sync::Arc;

use crossbeam_channel::{Sender, select};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::read;

use super::state::Event;
use crate::thread::{self, Cancel};

/// The timer is there to be cancelled, not to ring: it would in the year 2200, in seconds.
const NEVER: i64 = 7_258_118_400;

/// Tells the hub of every change until `cancel`. Without the kernel's help nothing is told: then jobs are
/// looked at when their time comes by the clock of the processor.
///
/// # Errors
/// No timer, or no thread.
pub fn watch_clock(hub: Sender<Event>, cancel: &Cancel) -> std::io::Result<std::thread::JoinHandle<()>> {
    let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
    arm(&timer)?;
    let (ring, cancel) = (bell.clone(), cancel.clone());
    thread::spawn("clock", move || {
        let _closer = cancel.on_cancel(move || {
            ring.write(1).ok(); // a bell that is full rings already
        });
        while let Ok(changed) = wait(&timer, &bell)
            && !cancel.is_cancelled()
        {
            if changed {
                select! {
                    send(hub, Event::ClockChanged) -> sent => if sent.is_err() { return },
                    recv(cancel.receiver()) -> _ => return,
                }
            }
        }
    })
}

fn arm(timer: &TimerFd) -> Result<(), Errno> {
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(Expiration::OneShot(TimeSpec::new(NEVER, 0)), flags)
}

/// True when the clock was set; false when the bell rang.
fn wait(timer: &TimerFd, bell: &EventFd) -> Result<bool, Errno> {
    let mut ready =
        [PollFd::new(timer.as_fd(), PollFlags::POLLIN), PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
    match poll(&mut ready, PollTimeout::NONE) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(false),
        Err(error) => return Err(error),
    }
    match read(timer, &mut [0; 8]) {
        Err(Errno::EAGAIN) => Ok(false),
        // ECANCELED: the clock was set. Anything else would ring again at once without being armed anew.
        _ => arm(timer).map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn the_watch_is_silent_while_nothing_happens_and_ends_at_once() {
        let (hub, heard) = bounded(1);
        let cancel = Cancel::new();
        let thread = watch_clock(hub, &cancel).unwrap();
        cancel.cancel();
        thread.join().unwrap();
        assert!(heard.try_recv().is_err());
    }
}
