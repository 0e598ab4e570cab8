//! Child processes: one shell command at a time, in a bubblewrap sandbox, in a process group of its
//! own, with a time-out, bounded output and nothing left behind.

mod output;
mod sandbox;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

pub use output::{MAX_OUTPUT_BYTES, Output};
pub use sandbox::Sandbox;

use crate::error::{Fault, Kind};
use crate::thread::{self, Cancel};
use output::Kept;

/// How long output may still come after the command has ended and its group was killed.
const DRAIN_TIME: Duration = Duration::from_millis(100);
/// Rounds of looking for processes that left the group; each can find only children of the last.
const STRAGGLER_ROUNDS: usize = 5;
/// Marks every process of one command, also those that leave its process group.
const MARKER: &str = "SPACEBOT_COMMAND";

#[derive(Debug, Clone)]
pub struct Command {
    /// For `/bin/sh -c`.
    pub shell: String,
    pub folder: PathBuf,
    pub variables: Vec<(String, String)>,
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    #[error("commands cannot be run: {0}")]
    Unavailable(String),
    #[error("{0}")]
    Refused(String),
    #[error("the command did not start: {0}")]
    Start(String),
    #[error("cancelled")]
    Cancelled,
}

impl Fault for ExecError {
    fn kind(&self) -> Kind {
        match self {
            ExecError::Unavailable(_) | ExecError::Refused(_) => Kind::Invalid,
            ExecError::Start(_) => Kind::Transient,
            ExecError::Cancelled => Kind::Cancelled,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            ExecError::Unavailable(_) => {
                Some("install bubblewrap, or set sandbox.mode = \"disabled\" if you accept the risk")
            }
            _ => None,
        }
    }
}

/// Runs one command to its end. Whatever happens, no process of it is alive afterwards, except in
/// mode `disabled` one that has left the group and cleared its environment.
///
/// # Errors
/// It could not be started, or was cancelled.
pub fn run(sandbox: &Sandbox, command: &Command, cancel: &Cancel) -> Result<Output, ExecError> {
    let mark = format!("{}{}", mark_of(sandbox), uuid::Uuid::now_v7());
    let mut prepared = sandbox.prepare(command)?;
    prepared.env(MARKER, &mark).process_group(0).stdin(Stdio::null());
    let failed = |error: &dyn std::fmt::Display| ExecError::Start(error.to_string());
    let (reader, writer) = std::io::pipe().map_err(|error| failed(&error))?;
    let second = writer.try_clone().map_err(|error| failed(&error))?;
    prepared.stdout(writer).stderr(second);
    let started = Instant::now();
    let child = prepared.spawn().map_err(|error| failed(&error))?;
    // The parent's copies of the writing end live in here.
    drop(prepared);
    let group = Group { leader: pid_of(&child), mark };
    let watched = Watched::new(child).inspect_err(|_| group.kill())?;
    let mut kept = Kept::default();
    let end = watched.read(OwnedFd::from(reader), started + command.timeout, cancel, &group, &mut kept);
    group.kill();
    let status = watched.status();
    match end {
        End::Cancelled => Err(ExecError::Cancelled),
        End::Over | End::TimedOut => Ok(kept.finish(
            status.and_then(|status| status.code()),
            status.and_then(|status| status.signal()),
            end == End::TimedOut,
        )),
    }
}

/// How the marks of this workspace's commands begin.
fn mark_of(sandbox: &Sandbox) -> String {
    format!("{}#", sandbox.workspace().display())
}

/// Ends what an earlier daemon's commands in this workspace left behind, if it was killed and could not
/// do so itself. Returns how many processes that were.
pub fn end_leftovers(sandbox: &Sandbox) -> usize {
    let begins = format!("{MARKER}={}", mark_of(sandbox));
    let mut ended = 0;
    for _ in 0..STRAGGLER_ROUNDS {
        let left = marked(|variable| variable.starts_with(begins.as_bytes()));
        if left.is_empty() {
            break;
        }
        ended += left.len();
        for process in left {
            kill(process, Signal::SIGKILL).ok(); // it may have ended by itself
        }
    }
    ended
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Over,
    TimedOut,
    Cancelled,
}

/// The processes of one command.
struct Group {
    leader: Pid,
    mark: String,
}

impl Group {
    /// Kills the group, then whoever left it; killing what is gone already is no error.
    fn kill(&self) {
        killpg(self.leader, Signal::SIGKILL).ok();
        let wanted = format!("{MARKER}={}", self.mark);
        for _ in 0..STRAGGLER_ROUNDS {
            let left = marked(|variable| variable == wanted.as_bytes());
            if left.is_empty() {
                return;
            }
            for process in left {
                kill(process, Signal::SIGKILL).ok(); // it may have ended by itself
            }
        }
    }
}

/// Living processes with such a variable in their environment. Inside the sandbox the environment is another
/// one and nothing is found; there the PID namespace does the work.
fn marked(wanted: impl Fn(&[u8]) -> bool) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let marked = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        // A zombie has an empty environment.
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        let found = environment.split(|byte| *byte == 0).any(&wanted);
        found.then(|| Pid::from_raw(number))
    };
    processes.filter_map(marked).collect()
}

/// A child that a thread waits for, and the event that wakes the reading side.
struct Watched {
    exited: Receiver<Option<ExitStatus>>,
    event: Arc<EventFd>,
}

impl Watched {
    fn new(mut child: Child) -> Result<Self, ExecError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event =
            EventFd::from_value_and_flags(0, flags).map_err(|error| ExecError::Start(error.to_string()))?;
        let event = Arc::new(event);
        let (send, exited) = bounded(1);
        let bell = event.clone();
        let wait = move || {
            let status = child.wait().ok();
            send.try_send(status).ok(); // room for exactly this one
            bell.write(1).ok();
        };
        thread::spawn("exec", wait).map_err(|error| ExecError::Start(error.to_string()))?;
        Ok(Self { exited, event })
    }

    fn status(&self) -> Option<ExitStatus> {
        self.exited.recv_timeout(DRAIN_TIME * 10).ok().flatten()
    }

    /// Reads until the command is over, its time is up or somebody cancels.
    fn read(&self, pipe: OwnedFd, deadline: Instant, cancel: &Cancel, group: &Group, kept: &mut Kept) -> End {
        let bell = self.event.clone();
        let _guard = cancel.on_cancel(move || {
            bell.write(1).ok(); // full means that it rings already
        });
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok(); // a blocking read would still end with the group
        let mut deadline = deadline;
        let mut over = false;
        loop {
            if cancel.is_cancelled() {
                return End::Cancelled;
            }
            let now = Instant::now();
            if now >= deadline {
                return if over { End::Over } else { End::TimedOut };
            }
            if !over && !self.exited.is_empty() {
                // Background children may hold the pipe open for ever.
                over = true;
                group.kill();
                deadline = deadline.min(now + DRAIN_TIME);
            }
            self.wait(&pipe, deadline - now, over);
            match kept.read_from(&pipe) {
                Ok(true) => {}
                Ok(false) if over => return End::Over,
                // Closed its output and goes on: only its end, the clock or a stop ends this.
                Ok(false) => return self.wait_for_exit(deadline, cancel),
                Err(error) => {
                    log::warn!("the output of a command could not be read: {error}");
                    return End::Over;
                }
            }
        }
    }

    /// Until the pipe has something, the child has ended or the time is up.
    fn wait(&self, pipe: &OwnedFd, timeout: Duration, over: bool) {
        let timeout = PollTimeout::try_from(timeout.as_millis().min(60_000) + 1).unwrap_or(PollTimeout::MAX);
        let mut watched = vec![PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        if !over {
            watched.push(PollFd::new(self.event.as_fd(), PollFlags::POLLIN));
        }
        if let Err(error) = poll(&mut watched, timeout)
            && error != Errno::EINTR
        {
            log::warn!("poll: {error}");
        }
    }

    fn wait_for_exit(&self, deadline: Instant, cancel: &Cancel) -> End {
        while Instant::now() < deadline {
            if cancel.is_cancelled() {
                return End::Cancelled;
            }
            if !self.exited.is_empty() {
                return End::Over;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left.as_millis().min(60_000) + 1).unwrap_or(PollTimeout::MAX);
            poll(&mut [PollFd::new(self.event.as_fd(), PollFlags::POLLIN)], timeout).ok(); // the loop looks again
        }
        End::TimedOut
    }
}
