//! What a worker did, as a file that the operator can read (`worker_log_mode`). Bounded in size and number;
//! what cannot be written is only logged.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::AgentParts;
use super::job::Job;
use crate::config::WorkerLogMode;
use crate::conversation::{Outcome, WorkerEnd};
use crate::text;

/// Longest log of one worker, in bytes: its end, which says why.
const LOG_BYTES: usize = 256 << 10;
/// Logs that stay, where each worker has its own.
const LOGS_MAX: usize = 64;
/// From this size on the log of all workers becomes its own predecessor.
const COMBINED_BYTES: u64 = 1 << 20;
const COMBINED: &str = "workers.log";
const COMBINED_BEFORE: &str = "workers.log.1";

pub(super) fn write(parts: &AgentParts, job: &Job, task: &str, end: &WorkerEnd) {
    let mode = parts.config.limits.worker_log_mode;
    if mode == WorkerLogMode::ErrorsOnly && end.outcome == Outcome::Success {
        return;
    }
    let now = parts.conversations.now().to_rfc3339();
    let place = &job.place.conversation;
    let words = format!(
        "{now} {} in {place}: {}\ntask: {task}\n{}result: {}\n\n",
        job.process,
        end.outcome.as_str(),
        steps(&end.transcript),
        end.result
    );
    let folder = folder_of(parts.conversations.db().path());
    let number = job.process.number;
    if let Err(error) = store(&folder, mode, number, text::suffix(&words, LOG_BYTES)) {
        log::warn!("the log of {} was not written to {}: {error}", job.process, folder.display());
    }
}

/// Beside the agent's folder `data`; where there is none, beside the database.
fn folder_of(database: &Path) -> PathBuf {
    let data = database.parent().unwrap_or(Path::new("."));
    let home = data.parent().filter(|_| data.file_name().is_some_and(|name| name == "data"));
    home.unwrap_or(data).join("logs")
}

fn store(folder: &Path, mode: WorkerLogMode, number: u64, words: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if mode == WorkerLogMode::AllCombined {
        let file = folder.join(COMBINED);
        if fs::metadata(&file).is_ok_and(|file| file.len() >= COMBINED_BYTES) {
            fs::rename(&file, folder.join(COMBINED_BEFORE))?;
        }
        let open = OpenOptions::new().append(true).create(true).mode(0o600).open(&file);
        return open?.write_all(words.as_bytes());
    }
    let file = folder.join(format!("worker-{number}.log"));
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
    open?.write_all(words.as_bytes())?;
    forget_old(folder)
}

/// The newest stay.
fn forget_old(folder: &Path) -> io::Result<()> {
    let number = |name: &str| name.strip_prefix("worker-")?.strip_suffix(".log")?.parse::<u64>().ok();
    let mut numbers: Vec<u64> =
        fs::read_dir(folder)?.filter_map(|entry| number(entry.ok()?.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    let over = numbers.len().saturating_sub(LOGS_MAX);
    numbers[..over].iter().try_for_each(|number| fs::remove_file(folder.join(format!("worker-{number}.log"))))
}

/// A line for each step of a transcript.
fn steps(transcript: &str) -> String {
    let steps: Vec<Value> = serde_json::from_str(transcript).unwrap_or_default();
    let line = |step: &Value| {
        let said = |key: &str| step[key].as_str().map(str::to_owned);
        let words = said("call")
            .map(|call| format!("call {call} {}", said("arguments").unwrap_or_default()))
            .or_else(|| said("result").map(|result| format!("result: {result}")))
            .or_else(|| said("input").map(|input| format!("input: {input}")))
            .or_else(|| said("text").map(|text| format!("said: {text}")));
        words.map(|words| format!("{words}\n")).unwrap_or_default()
    };
    steps.iter().map(line).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_newest_logs_stay_and_the_one_of_all_has_one_predecessor() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        for number in 0..LOGS_MAX as u64 + 10 {
            store(&logs, WorkerLogMode::AllSeparate, number, "x").unwrap();
        }
        let left = names(&logs);
        assert_eq!(left.len(), LOGS_MAX);
        assert!(left.contains(&"worker-73.log".to_owned()) && !left.contains(&"worker-9.log".to_owned()));
        let words = "y".repeat(LOG_BYTES);
        for number in 0..20 {
            store(&logs, WorkerLogMode::AllCombined, number, &words).unwrap();
        }
        let size = |name: &str| fs::metadata(logs.join(name)).unwrap().len();
        let most = COMBINED_BYTES + LOG_BYTES as u64;
        assert!(size(COMBINED) <= most && size(COMBINED_BEFORE) <= most);
        assert_eq!(names(&logs).len(), LOGS_MAX + 2);
    }

    #[test]
    fn steps_are_lines_in_their_order() {
        let transcript =
            r#"[{"input":"do it"},{"call":"shell","arguments":"{}"},{"result":"ok"},{"text":"done"}]"#;
        assert_eq!(steps(transcript), "input: do it\ncall shell {}\nresult: ok\nsaid: done\n");
        assert_eq!(steps("broken"), "");
    }

    #[test]
    fn logs_lie_beside_the_data() {
        assert_eq!(folder_of(Path::new("/a/agents/m/data/s.db")), Path::new("/a/agents/m/logs"));
        assert_eq!(folder_of(Path::new("/tmp/s.db")), Path::new("/tmp/logs"));
    }
}
