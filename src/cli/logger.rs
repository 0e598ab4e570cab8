//! Log lines on stderr: level, thread, text. Under systemd with the priority that journald reads and
//! without a time, which journald adds.

use std::io::Write;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::clock::{SharedClock, SystemClock};
use crate::config::Secrets;
use crate::secrets::Scrubber;
use crate::thread::Current;

struct Logger {
    journald: bool,
    clock: SharedClock,
}

/// What no line may hold. Of the process, as the logger is.
static SECRETS: OnceLock<Current<Scrubber>> = OnceLock::new();

/// Keeps the secrets of this config, and keys of known makers, out of every line from now on.
pub fn hide(secrets: &Secrets) {
    let scrubber = Scrubber::new(secrets.iter());
    SECRETS.get_or_init(Current::default).set(scrubber);
}

fn hidden(text: String) -> String {
    match SECRETS.get() {
        Some(secrets) => secrets.get().hide_keys(&text),
        None => text,
    }
}

/// Installs the logger.
pub fn install(level: LevelFilter) {
    set_level(level);
    let logger =
        Logger { journald: std::env::var_os("JOURNAL_STREAM").is_some(), clock: SystemClock::shared() };
    // The only error is that a logger is there already, which is then ours.
    log::set_boxed_logger(Box::new(logger)).ok();
}

pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries speak only when something is wrong.
        metadata.target().starts_with("spacebot") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("-");
        let text = hidden(record.args().to_string());
        let line = if self.journald {
            format!("<{}>[{name}] {text}\n", priority(record.level()))
        } else {
            format!("{} {:5} [{name}] {text}\n", self.clock.now().to_rfc3339(), record.level())
        };
        // A closed stderr is no reason to stop working.
        std::io::stderr().lock().write_all(line.as_bytes()).ok();
    }

    fn flush(&self) {}
}

/// syslog(3) priorities.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use crate::config::Environment;

    struct Nothing;

    impl Environment for Nothing {
        fn variable(&self, _name: &str) -> Option<String> {
            None
        }
    }

    #[test]
    fn no_line_holds_a_secret_of_the_config() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("c.toml");
        std::fs::write(&file, "[api]\nauth_token = \"the-token-0123\"\n").expect("a file");
        let secrets = crate::config::load(Some(&file), &Nothing).expect("a config").config.secrets;
        let line = "connected with the-token-0123 to irc";
        hide(&secrets);
        assert_eq!(hidden(line.to_owned()), "connected with [hidden] to irc");
    }
}
