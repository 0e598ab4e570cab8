//! IRC: one connection for each configured instance.
//!
//! [`protocol`] decides what a line means and what to say, without I/O, clock or threads;
//! [`connection`] owns the socket. One thread for each instance does both directions: it waits in one
//! `poll` for the socket, for the bell of the outbox and for its next deadline.

mod access;
mod backoff;
mod casemap;
mod channels;
mod connection;
mod delivery;
mod dial;
mod earlier;
mod flood;
mod format;
mod grammar;
mod isupport;
mod people;
mod protocol;
mod registration;
mod settings;
mod socket;
mod split;
#[cfg(test)]
mod tests;
mod texts;

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};

pub use backoff::Pace;

use crate::clock::SharedClock;
use crate::config::IrcConfig;
use crate::error::{Fault, Kind};
use crate::id::InstanceId;
use crate::message::{Intake, Outbox};
use crate::thread::{self, Cancel, lock};
use connection::{Connection, ConnectionParts};
use dial::Dialer;
use settings::Settings;

/// Restarts after a panic; then the instance stays down.
const MAX_RESTARTS: usize = 5;

#[derive(Debug, Clone, thiserror::Error)]
pub enum IrcError {
    #[error("{instance}: {key} {reason}")]
    Configuration { instance: InstanceId, key: &'static str, reason: String },
    #[error("prompts/en/irc.toml: {0}")]
    Texts(String),
    #[error("{0}")]
    Start(String),
}

impl Fault for IrcError {
    fn kind(&self) -> Kind {
        match self {
            IrcError::Configuration { .. } => Kind::Invalid,
            IrcError::Texts(_) => Kind::Bug,
            IrcError::Start(_) => Kind::Transient,
        }
    }
}

/// What `status` shows of an instance.
#[derive(Debug, Clone, Default)]
pub struct State(Arc<Mutex<Snapshot>>);

#[derive(Debug, Clone, Default)]
struct Snapshot {
    nick: Option<String>,
    error: Option<String>,
}

impl State {
    pub fn is_connected(&self) -> bool {
        lock(&self.0).nick.is_some()
    }

    /// One line for the operator.
    pub fn describe(&self) -> String {
        let snapshot = lock(&self.0);
        match (&snapshot.nick, &snapshot.error) {
            (Some(nick), _) => format!("connected as {nick}"),
            (None, Some(error)) => format!("not connected: {error}"),
            (None, None) => "connecting".to_owned(),
        }
    }

    fn up(&self, nick: &str) {
        *lock(&self.0) = Snapshot { nick: Some(nick.to_owned()), error: None };
    }

    fn down(&self, error: &str) {
        *lock(&self.0) = Snapshot { nick: None, error: Some(error.to_owned()) };
    }
}

/// Rings when the outbox has something; never blocks.
#[derive(Clone)]
pub struct Bell(Arc<EventFd>);

impl Bell {
    pub fn ring(&self) {
        self.0.write(1).ok(); // full means that it rings already
    }
}

pub struct Adapter {
    pub bell: Bell,
    pub state: State,
    pub threads: Vec<JoinHandle<()>>,
}

/// Starts `in:<instance>`; it connects, and connects again, until `cancel`.
///
/// # Errors
/// The configuration cannot work, or the system refuses a thread.
pub fn start(
    config: IrcConfig,
    intake: Arc<dyn Intake>,
    outbox: Arc<dyn Outbox>,
    clock: SharedClock,
    cancel: Cancel,
) -> Result<Adapter, IrcError> {
    start_paced(config, intake, outbox, clock, cancel, Pace::default())
}

/// As [`start`], with another patience: for tests.
///
/// # Errors
/// As [`start`].
pub fn start_paced(
    config: IrcConfig,
    intake: Arc<dyn Intake>,
    outbox: Arc<dyn Outbox>,
    clock: SharedClock,
    cancel: Cancel,
    pace: Pace,
) -> Result<Adapter, IrcError> {
    let failed = |error: &dyn std::fmt::Display| IrcError::Start(error.to_string());
    let dialer = Dialer::new(&config)?;
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let bell = Bell(Arc::new(EventFd::from_value_and_flags(0, flags).map_err(|error| failed(&error))?));
    let state = State::default();
    let name = format!("in:{}", config.instance);
    let settings = Arc::new(Settings::new(config)?);
    let parts =
        ConnectionParts { settings, intake, outbox, clock, cancel, bell: bell.clone(), state: state.clone() };
    let handle =
        thread::spawn(name, move || keep_running(parts, dialer, pace)).map_err(|error| failed(&error))?;
    Ok(Adapter { bell, state, threads: vec![handle] })
}

/// Runs the connection until the cancel; a panic begins it anew, a bounded number of times.
fn keep_running(parts: ConnectionParts, dialer: Dialer, pace: Pace) {
    let (cancel, state, instance) =
        (parts.cancel.clone(), parts.state.clone(), parts.settings.config.instance.clone());
    let mut connection = Connection::new(parts, dialer, pace);
    let mut wait = pace.first_retry;
    for _ in 0..=MAX_RESTARTS {
        let Err(panic) = thread::contained(|| connection.run()) else { return };
        log::error!("{instance}: the adapter broke: {panic}");
        state.down(&format!("the adapter broke: {panic}"));
        if cancel.wait(wait) {
            return;
        }
        wait = (wait * 2).min(pace.longest_retry);
    }
    log::error!("{instance}: the adapter broke too often and stays down until the next start");
    state.down("the adapter broke too often and stays down until the next start");
}
