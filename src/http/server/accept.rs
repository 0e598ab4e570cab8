//! The thread `http-accept`: new connections, deadlines, and the order of the stop.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::connection::{Connection, Phase};
use super::table::Shared;
use super::{Handler, Response, ServerHandle};
use crate::error::Kind;

/// Connections taken from one listener before the deadlines are looked at again.
const MAX_ACCEPTED_AT_ONCE: usize = 64;
/// Pause after the system had no descriptor for a new connection: it would report it again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

type Listener = (TcpListener, Arc<dyn Handler>);

pub(super) fn run(listeners: Vec<Listener>, server: &ServerHandle) {
    let shared = &*server.0;
    let mut paused_until = None;
    while !shared.is_stopping() {
        let next = sweep(shared);
        let now = shared.now();
        paused_until = paused_until.filter(|until| *until > now);
        let open: &[Listener] = if paused_until.is_some() { &[] } else { &listeners };
        let next = [next, paused_until].into_iter().flatten().min();
        for (listener, handler) in wait(shared, open, next) {
            if !accept(shared, listener, handler) {
                paused_until = Some(shared.now() + ACCEPT_PAUSE);
            }
        }
    }
    drop(listeners);
    stop(shared);
}

/// Waits for a listener, a nudge or the time `until`; the listeners that have somebody.
fn wait<'a>(shared: &Shared, listeners: &'a [Listener], until: Option<Duration>) -> Vec<&'a Listener> {
    let mut watched = Vec::with_capacity(1 + listeners.len());
    watched.push(PollFd::new(shared.nudge.as_fd(), PollFlags::POLLIN));
    watched.extend(listeners.iter().map(|(listener, _)| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
    let timeout = until.map_or(PollTimeout::NONE, |until| {
        // One more millisecond: waking a moment too early would only mean to wait again.
        let wait = until.saturating_sub(shared.now()) + Duration::from_millis(1);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    });
    if let Err(error) = poll(&mut watched, timeout)
        && error != nix::Error::EINTR
    {
        log::error!("the HTTP server cannot wait for connections: {error}");
        shared.cancel.wait(ACCEPT_PAUSE);
    }
    let has_events = |watched: &PollFd<'_>| watched.any().unwrap_or(false);
    if has_events(&watched[0]) {
        // Another reader does not exist; the value does not matter.
        shared.nudge.read().ok();
    }
    let ready = watched[1..].iter().zip(listeners).filter(|(watched, _)| has_events(watched));
    ready.map(|(_, listener)| listener).collect()
}

/// False when the system has no room for more connections.
fn accept(shared: &Shared, listener: &TcpListener, handler: &Arc<dyn Handler>) -> bool {
    for _ in 0..MAX_ACCEPTED_AT_ONCE {
        match listener.accept() {
            Ok((stream, _)) => admit(shared, stream, handler.clone()),
            Err(error) => match error.kind() {
                std::io::ErrorKind::WouldBlock => return true,
                // The client left before its turn.
                std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::Interrupted => {}
                _ => {
                    log::warn!("the HTTP server cannot accept a connection: {error}");
                    return false;
                }
            },
        }
    }
    true
}

fn admit(shared: &Shared, mut stream: TcpStream, handler: Arc<dyn Handler>) {
    if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_err() {
        return;
    }
    let is_refused = shared.is_full();
    if is_refused {
        let message = "Too many connections are open. Try again in a moment.";
        let response = Response::error(503, Kind::Full, message).with_header("Retry-After", "1");
        last_words(shared, &mut stream, response);
    }
    shared.admit(stream, handler, is_refused);
}

/// One try to say something to a client that is closed in any case.
fn last_words(shared: &Shared, stream: &mut TcpStream, response: Response) {
    stream.write_all(&response.into_bytes(shared.wall())).ok();
    stream.shutdown(Shutdown::Write).ok();
}

/// Deals with what is overdue; the time of the next deadline.
fn sweep(shared: &Shared) -> Option<Duration> {
    let (expired, next) = shared.sweep();
    for mut connection in expired {
        if is_half_read(&connection) {
            let message = "The request did not come within its time.";
            let response = Response::error(408, Kind::Transient, message);
            last_words(shared, &mut connection.stream, response);
        }
    }
    next
}

fn is_half_read(connection: &Connection) -> bool {
    matches!(connection.phase, Phase::Reading) && !connection.buffer.is_empty()
}

fn stop(shared: &Shared) {
    drop(shared.begin_stop());
    let deadline = shared.now() + shared.limits.stop_time;
    while shared.open_connections() > 0 && shared.now() < deadline {
        let next = sweep(shared).map_or(deadline, |next| next.min(deadline));
        // The last connection nudges.
        wait(shared, &[], Some(next));
    }
    let left = shared.open_connections();
    if left > 0 {
        log::info!("{left} HTTP connections were cut off by the stop");
    }
    shared.finish();
}
