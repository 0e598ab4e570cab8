//! The process that reads a document: this program once more, with limits of its own. A file that makes
//! it crash, hang or eat memory costs that process and nothing else, and a stop ends it at once.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;

use super::IngestError;
use super::take::Format;
use super::texts::Bounded;
use crate::text;
use crate::thread::Cancel;

/// Wall clock of one document: a thick book on a slow board. Its processor time is bounded likewise.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The same of a page of HTML; longer means that it is nested against its reader.
const HTML_TIMEOUT: Duration = Duration::from_secs(60);
/// Address space, in bytes: room for the largest file, its parts unpacked, and the program.
const MEMORY_BYTES: u64 = 512 << 20;
/// How often a stop is looked for while the document says nothing.
const LOOK: Duration = Duration::from_millis(100);
/// Longest note that is kept, in bytes.
const NOTE_BYTES: usize = 500;
const PIECE: usize = 64 << 10;

/// Limits that hold from now on; where the system refuses one, the others hold.
pub(super) fn confine() {
    let limits = [
        (Resource::RLIMIT_AS, MEMORY_BYTES),
        (Resource::RLIMIT_CPU, TIMEOUT.as_secs()),
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_CORE, 0),
    ];
    for (resource, limit) in limits {
        setrlimit(resource, limit, limit).ok(); // a system call filter may forbid it
    }
    // It goes with the daemon, and first when memory is short.
    prctl::set_pdeathsig(Signal::SIGKILL).ok();
    fs::write("/proc/self/oom_score_adj", "1000").ok();
}

/// Copies the text of a document, and returns what its reader noted.
pub(super) fn copy(
    format: Format,
    document: File,
    target: &mut Bounded,
    cancel: &Cancel,
) -> Result<Option<String>, IngestError> {
    let failed = |error: std::io::Error| IngestError::io("the reader of documents", &error);
    let child = Command::new("/proc/self/exe")
        .args(["extract", format.as_str()])
        .env_clear()
        .current_dir("/")
        .stdin(document)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut child = Killed(child);
    let timeout = if format == Format::Html { HTML_TIMEOUT } else { TIMEOUT };
    let deadline = Instant::now() + timeout;
    if let Some(mut output) = child.0.stdout.take() {
        let mut piece = vec![0; PIECE];
        loop {
            wait(&output, deadline, cancel)?;
            match output.read(&mut piece).map_err(failed)? {
                0 => break,
                count => target.put(&piece[..count])?,
            }
        }
    }
    let mut note = String::new();
    if let Some(mut words) = child.0.stderr.take() {
        wait(&words, deadline, cancel)?;
        let mut bytes = vec![0; PIECE];
        let count = words.read(&mut bytes).map_err(failed)?;
        note = text::one_line(&String::from_utf8_lossy(&bytes[..count]), NOTE_BYTES);
    }
    // Both of its outputs are closed or read: it has nothing left to do.
    let status = child.0.wait().map_err(failed)?;
    match (status.success(), status.signal()) {
        (true, _) => Ok((!note.is_empty()).then_some(note)),
        (false, None) => Err(IngestError::left(note, "if other programs can read it, save it as text")),
        (false, Some(signal)) => Err(IngestError::left(
            format!("its reader broke or took too much (signal {signal})"),
            "if other programs can read it, save it as text",
        )),
    }
}

/// Until there is something to read.
fn wait(pipe: &impl AsFd, deadline: Instant, cancel: &Cancel) -> Result<(), IngestError> {
    loop {
        if cancel.is_cancelled() {
            return Err(IngestError::Cancelled);
        }
        if Instant::now() >= deadline {
            return Err(IngestError::left("reading it took too long", "split it, or save it as text"));
        }
        let mut watched = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(IngestError::io("the reader of documents", &error.into())),
        }
    }
}

/// Whatever happens here, the process is gone afterwards.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok(); // it may have ended
        self.0.wait().ok();
    }
}
