//! What systemd hears: ready when the daemon is, a sign of life only while the database answers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use daemon::{DEADLINE, HeldDatabase, Home};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The period of the watchdog; the daemon speaks twice as often.
const PERIOD: Duration = Duration::from_secs(1);

struct Systemd {
    socket: UnixDatagram,
    daemon: Child,
}

impl Systemd {
    fn start(home: &Home) -> Self {
        let path = home.folder().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let daemon = home
            .command(&["run", "--no-chat"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", PERIOD.as_micros().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { socket, daemon }
    }

    /// What comes within `time`, if anything.
    fn heard(&self, time: Duration) -> Option<String> {
        let mut bytes = [0; 256];
        self.socket.set_read_timeout(Some(time)).unwrap();
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).trim().to_owned())
    }

    /// Waits for `word` and returns what came before it.
    fn wait_for(&self, word: &str) -> Vec<String> {
        let mut before = Vec::new();
        let begun = Instant::now();
        loop {
            let heard = self.heard(DEADLINE).expect("something");
            if heard.contains(word) {
                return before;
            }
            assert!(begun.elapsed() < DEADLINE, "no {word}: {before:?}");
            before.push(heard);
        }
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

#[test]
fn a_sign_of_life_needs_the_database() {
    let home = Home::new("");
    let mut systemd = Systemd::start(&home);
    assert!(systemd.wait_for("READY=1").is_empty(), "ready is the first word");
    assert_eq!(daemon::get(&format!("http://127.0.0.1:{}/health", home.webhook)).0, 200);
    systemd.wait_for("WATCHDOG=1");
    systemd.wait_for("WATCHDOG=1");
    // Somebody holds the database: nothing can be written.
    let held = HeldDatabase::hold(&home.database());
    // One answer may have been on its way.
    let mut signs = 0;
    let begun = Instant::now();
    while let Some(left) = (PERIOD * 3).checked_sub(begun.elapsed()) {
        signs += u32::from(systemd.heard(left.max(Duration::from_millis(1))).is_some());
    }
    assert!(signs <= 1, "{signs} signs of life from a daemon that cannot write");
    held.release();
    systemd.wait_for("WATCHDOG=1");
    kill(Pid::from_raw(i32::try_from(systemd.daemon.id()).unwrap()), Signal::SIGTERM).unwrap();
    systemd.wait_for("STOPPING=1");
    assert!(systemd.daemon.wait().unwrap().success());
}
