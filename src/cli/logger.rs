//! Log lines on stderr: level, thread, text. Under systemd with the priority that journald reads and
//! without a time, which journald adds.

use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::clock::{SharedClock, SystemClock};

struct Logger {
    journald: bool,
    clock: SharedClock,
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
        let line = if self.journald {
            format!("<{}>[{name}] {}\n", priority(record.level()), record.args())
        } else {
            format!("{} {:5} [{name}] {}\n", self.clock.now().to_rfc3339(), record.level(), record.args())
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
