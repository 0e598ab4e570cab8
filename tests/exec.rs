//! Commands in the sandbox: what they can reach, how they end, what is left of them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::{Duration, Instant};

use daemon::{eventually, not_run, processes_with};
use spacebot::config::{SandboxConfig, SandboxMode};
use spacebot::exec::{Command, ExecError, MAX_OUTPUT_BYTES, Output, Sandbox, run};
use spacebot::thread::{self, Cancel};

struct Yard {
    folder: tempfile::TempDir,
}

impl Yard {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("agents/main/workspace")).unwrap();
        std::fs::write(folder.path().join("agents/main/SOUL.md"), "private soul").unwrap();
        Self { folder }
    }

    fn workspace(&self) -> PathBuf {
        self.folder.path().join("agents/main/workspace")
    }

    fn sandbox(&self, config: &SandboxConfig) -> Sandbox {
        Sandbox::new(config, &self.workspace(), self.folder.path())
    }

    fn run(&self, shell: &str) -> Output {
        run(&self.sandbox(&SandboxConfig::default()), &command(shell), &Cancel::new()).unwrap()
    }
}

fn command(shell: &str) -> Command {
    Command {
        shell: shell.to_owned(),
        folder: PathBuf::new(),
        variables: vec![],
        timeout: Duration::from_secs(20),
    }
}

fn open() -> SandboxConfig {
    SandboxConfig { mode: SandboxMode::Disabled, ..SandboxConfig::default() }
}

fn has_bubblewrap() -> bool {
    let there = Process::new("bwrap").arg("--version").output().is_ok();
    if !there {
        not_run("bubblewrap is not installed");
    }
    there
}

#[test]
fn the_workspace_is_writable_and_the_rest_is_not() {
    if !has_bubblewrap() {
        return;
    }
    let yard = Yard::new();
    let output = yard.run("echo hello > note && cat note && pwd && touch /usr/x; touch /etc/x; echo $?");
    assert!(output.text.starts_with("hello\n"), "{}", output.text);
    assert!(output.text.contains("Read-only file system"), "{}", output.text);
    assert_eq!(std::fs::read_to_string(yard.workspace().join("note")).unwrap(), "hello\n");
}

#[test]
fn the_daemons_data_cannot_be_seen() {
    if !has_bubblewrap() {
        return;
    }
    let yard = Yard::new();
    let soul = yard.folder.path().join("agents/main/SOUL.md");
    let output =
        yard.run(&format!("cat {}; ls {}", soul.display(), yard.folder.path().join("agents/main").display()));
    assert!(!output.text.contains("private soul"), "{}", output.text);
    assert!(!output.text.contains("SOUL.md\n"), "{}", output.text);
}

#[test]
fn there_is_no_network_and_no_other_process() {
    if !has_bubblewrap() {
        return;
    }
    let output = Yard::new().run("cat /proc/net/dev | tail -n +3 | cut -d: -f1; ls /proc | grep -c '^[0-9]'");
    let lines: Vec<_> = output.text.split_whitespace().collect();
    assert_eq!(lines[0], "lo", "{}", output.text);
    assert!(lines[1].parse::<u32>().unwrap() < 10, "{}", output.text);
}

#[test]
fn the_environment_is_new_and_loaders_cannot_be_steered() {
    if !has_bubblewrap() {
        return;
    }
    let yard = Yard::new();
    let output = yard.run("env");
    assert!(output.text.contains("CI=true") && !output.text.contains("CARGO"), "{}", output.text);
    let mut steered = command("true");
    steered.variables = vec![("ld_preload".to_owned(), "x".to_owned())];
    let refused = run(&yard.sandbox(&open()), &steered, &Cancel::new());
    assert!(matches!(refused, Err(ExecError::Refused(_))), "{refused:?}");
    let mut outside = command("true");
    outside.folder = PathBuf::from("../..");
    assert!(matches!(run(&yard.sandbox(&open()), &outside, &Cancel::new()), Err(ExecError::Refused(_))));
}

#[test]
fn endless_output_is_bounded_and_ends_with_the_time() {
    let yard = Yard::new();
    let mut endless = command("yes");
    endless.timeout = Duration::from_millis(300);
    let output = run(&yard.sandbox(&open()), &endless, &Cancel::new()).unwrap();
    assert!(output.timed_out && output.dropped > 0 && output.text.len() <= MAX_OUTPUT_BYTES);
}

#[test]
fn background_children_end_with_the_command() {
    for (config, name) in [(open(), "open"), (SandboxConfig::default(), "walled")] {
        if config.mode == SandboxMode::Enabled && !has_bubblewrap() {
            continue;
        }
        let yard = Yard::new();
        let seconds = format!("2000.{}{}", std::process::id(), name.len());
        let started = Instant::now();
        let shell = format!("sleep {seconds} & setsid sleep {seconds} & echo started");
        let output = run(&yard.sandbox(&config), &command(&shell), &Cancel::new()).unwrap();
        assert_eq!((output.code, output.text.as_str()), (Some(0), "started\n"), "{name}");
        assert!(started.elapsed() < Duration::from_secs(5), "{name}: it waited for its background children");
        eventually("nothing is left", Duration::from_secs(2), || processes_with(&seconds).is_empty());
    }
}

#[test]
fn cancel_ends_everything_within_250_ms() {
    for (config, name) in [(open(), "open"), (SandboxConfig::default(), "walled")] {
        if config.mode == SandboxMode::Enabled && !has_bubblewrap() {
            continue;
        }
        let yard = Yard::new();
        let seconds = format!("3000.{}{}", std::process::id(), name.len());
        let cancel = Cancel::new();
        let (sandbox, stop) = (yard.sandbox(&config), cancel.clone());
        // A shell that ignores polite requests, with a child that does too.
        let shell = format!("trap '' TERM; sleep {seconds} & sleep {seconds}");
        let running = thread::spawn("runner", move || run(&sandbox, &command(&shell), &stop)).unwrap();
        eventually("it runs", Duration::from_secs(10), || processes_with(&seconds).len() >= 2);
        let asked = Instant::now();
        cancel.cancel();
        let outcome = running.join().unwrap();
        let took = asked.elapsed();
        assert_eq!(outcome, Err(ExecError::Cancelled), "{name}");
        assert!(took < Duration::from_millis(250), "{name}: {took:?}");
        eventually("nothing is left", Duration::from_secs(2), || processes_with(&seconds).is_empty());
    }
}

#[test]
fn a_child_starts_with_open_signals() {
    // As in the daemon, where every thread has them blocked.
    let blocked = thread::spawn("blocked", || {
        nix::sys::signal::SigSet::from_iter([nix::sys::signal::Signal::SIGTERM]).thread_block().unwrap();
        let yard = Yard::new();
        run(&yard.sandbox(&open()), &command("grep SigBlk /proc/self/status"), &Cancel::new()).unwrap().text
    });
    assert_eq!(blocked.unwrap().join().unwrap().trim(), "SigBlk:\t0000000000000000");
}

#[test]
fn without_bubblewrap_nothing_runs() {
    let yard = Yard::new();
    // A writable path that holds the daemon's data would open the walls.
    let config = SandboxConfig {
        writable_paths: vec![yard.folder.path().parent().unwrap().to_owned()],
        ..SandboxConfig::default()
    };
    let refused = run(&yard.sandbox(&config), &command("true"), &Cancel::new());
    assert!(matches!(refused, Err(ExecError::Unavailable(_))), "{refused:?}");
    assert!(Path::new("/proc/self").exists());
}
