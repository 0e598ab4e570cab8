//! A small HTTP/1.1 server: a fixed number of threads, a fixed number of connections, no thread for
//! a connection that waits.
//!
//! One thread accepts and keeps the deadlines (`accept`), a few workers share one epoll set and
//! serve whichever connection has something to read or room to write (`worker`). Every connection
//! is armed for one event at a time, so that exactly one thread has it in hand; in between it lies
//! in the table (`table`). A worker blocks nowhere but in a handler: a request that comes slowly
//! and a response that is read slowly go back to the table.
//!
//! A handler may park a request (long poll). It is then dispatched again after
//! [`ServerHandle::wake`] with its key, or at its deadline. Or it promises an answer that somebody
//! else makes ([`promise`]): what waits for the disk holds no worker. Or it answers with a [`Stream`], whose
//! pieces come as they are there; in between it is parked like a long poll.

mod accept;
mod connection;
mod framing;
mod guard;
mod lease;
mod promise;
mod request;
mod response;
mod stream;
mod table;
mod worker;

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub use guard::{authorized, is_from_foreign_page};
pub use httparse::Header;
pub use lease::{Lease, Leases};
pub use promise::{Later, Promise, promise};
pub use request::{Parameter, Request, percent_decode};
pub use response::{Response, Settled};
pub use stream::{Ring, Source, Stream};

use nix::sys::socket::{Backlog, listen};

use crate::clock::SharedClock;
use crate::error::{Fault, Kind};
use crate::thread::{self, Cancel};
use table::Shared;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 512;
/// Most fields of one request's head.
const MAX_HEADERS: usize = 64;

/// Answers requests. Called by several threads at once. While it blocks it holds one of the few workers:
/// what may take long belongs into [`Outcome::Later`].
pub trait Handler: Send + Sync {
    fn handle(&self, request: &Request<'_>) -> Outcome;
}

impl<F: Fn(&Request<'_>) -> Outcome + Send + Sync> Handler for F {
    fn handle(&self, request: &Request<'_>) -> Outcome {
        self(request)
    }
}

pub enum Outcome {
    Respond(Response),
    /// Nothing to say yet: ask again after a wake of `key`, at the latest `wait` after the request
    /// had come in. Parking again does not begin the wait anew. A wake that came since this
    /// dispatch began counts, so that nothing falls between looking and parking. Not allowed when
    /// the request is expired.
    Park {
        key: String,
        wait: Duration,
    },
    /// Somebody else answers, through the [`Promise`] that belongs to it.
    Later(Later),
    /// An answer whose end is not known yet.
    Stream(Stream),
}

/// What the server takes at most, and for how long. The defaults are meant for the daemon; tests
/// shorten the times.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Threads that run handlers.
    pub workers: usize,
    /// Open connections; one more is answered with 503 and closed.
    pub connections: usize,
    /// Parked requests; one more is dispatched as expired at once.
    pub parked: usize,
    /// Bytes of one request body.
    pub body_bytes: usize,
    /// Bytes of all large bodies and unread responses together, so that many clients at once
    /// cannot take the board's memory.
    pub held_bytes: usize,
    /// From the first byte of a request to its last.
    pub request_time: Duration,
    /// From the first byte of a response to its last.
    pub response_time: Duration,
    /// Between two requests of a connection.
    pub idle_time: Duration,
    /// For requests in hand after the stop was asked for.
    pub stop_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            workers: 4,
            connections: 256,
            parked: 128,
            // The files of a message in base64, and its words.
            body_bytes: 8 << 20,
            held_bytes: 16 << 20,
            // A full body over a slow radio link, some 2 Mbit/s.
            request_time: Duration::from_secs(30),
            response_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(60),
            stop_time: Duration::from_secs(2),
        }
    }
}

pub struct ServerOptions {
    pub clock: SharedClock,
    /// The stop request of this server; [`ServerHandle::stop`] makes it too.
    pub cancel: Cancel,
    pub limits: Limits,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum HttpError {
    #[error("the HTTP server cannot listen: {0}")]
    Listen(String),
    #[error("the HTTP server cannot start: {0}")]
    Start(String),
}

impl Fault for HttpError {
    fn kind(&self) -> Kind {
        Kind::Transient
    }

    fn hint(&self) -> Option<&str> {
        Some("check the limits on open files and threads of the daemon (LimitNOFILE, TasksMax)")
    }
}

pub struct Server;

impl Server {
    /// Starts `http-accept` and the workers `http:<n>`, which end after the stop. A worker whose
    /// handler blocks ends when the handler returns.
    ///
    /// # Errors
    /// The system refuses a descriptor or a thread; nothing keeps running then.
    pub fn start(
        listeners: Vec<(TcpListener, Arc<dyn Handler>)>,
        options: ServerOptions,
    ) -> Result<(ServerHandle, Vec<JoinHandle<()>>), HttpError> {
        for (listener, _) in &listeners {
            listener.set_nonblocking(true).map_err(|error| HttpError::Listen(error.to_string()))?;
            // The standard library asks for 128; a burst beyond that waits a second for a second try.
            Backlog::new(BACKLOG)
                .and_then(|backlog| listen(listener, backlog))
                .map_err(|error| HttpError::Listen(error.to_string()))?;
        }
        let workers = options.limits.workers;
        let shared = Shared::new(options).map_err(|error| HttpError::Start(error.to_string()))?;
        let handle = ServerHandle(Arc::new(shared));
        let started = Self::start_threads(&handle, listeners, workers);
        if started.is_err() {
            handle.stop();
            handle.0.finish();
        }
        started.map(|threads| (handle, threads)).map_err(|error| HttpError::Start(error.to_string()))
    }

    fn start_threads(
        handle: &ServerHandle,
        listeners: Vec<(TcpListener, Arc<dyn Handler>)>,
        workers: usize,
    ) -> std::io::Result<Vec<JoinHandle<()>>> {
        let mut threads = Vec::with_capacity(workers + 1);
        for number in 1..=workers {
            let server = handle.clone();
            threads.push(thread::spawn(format!("http:{number}"), move || worker::Worker::new(server).run())?);
        }
        let server = handle.clone();
        threads.push(thread::spawn("http-accept", move || accept::run(listeners, &server))?);
        Ok(threads)
    }
}

/// Clones are the same server. Dropping them all does not stop it.
#[derive(Clone)]
pub struct ServerHandle(Arc<Shared>);

impl ServerHandle {
    /// Dispatches the requests parked under `key` again. Does not block, and may be called from
    /// anywhere, also when nobody is parked.
    pub fn wake(&self, key: &str) {
        self.0.wake(key);
    }

    /// Accepts no more, answers what is parked as expired, gives requests in hand their time
    /// (`stop_time`) and ends the threads. Returns at once; join the threads to wait for it.
    pub fn stop(&self) {
        self.0.cancel.cancel();
    }
}

#[cfg(test)]
mod tests;
