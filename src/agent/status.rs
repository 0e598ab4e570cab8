//! The status block: the volatile tail of a channel prompt (clock, what runs), rendered per turn.

use serde::Serialize;

use super::job::Running;
use crate::clock::{Timestamp, Zone};
use crate::id::ProcessKind;
use crate::prompts::{self, PromptError, Template};
use crate::text;

/// Branches younger than this are not worth a line.
const HIDE_BRANCH_SECONDS: u64 = 3;
/// Longest description or status in a line, in bytes.
const LINE_BYTES: usize = 160;

#[derive(Serialize)]
struct Line {
    process: String,
    what: String,
    status: String,
    seconds: u64,
    waiting: bool,
}

/// The wall clock is for people who say "at nine", and for jobs.
pub(super) fn render(running: &[Running], now: Timestamp, zone: &Zone) -> Result<String, PromptError> {
    let line = |running: &Running| Line {
        process: running.process.to_string(),
        what: text::one_line(&running.what, LINE_BYTES),
        status: text::one_line(&running.status, LINE_BYTES),
        seconds: running.seconds,
        waiting: running.waiting,
    };
    let shown = |running: &&Running| {
        running.process.kind != ProcessKind::Branch || running.seconds > HIDE_BRANCH_SECONDS
    };
    let lines: Vec<Line> = running.iter().filter(shown).map(line).collect();
    let local = zone.format(now, "%A %Y-%m-%d %H:%M");
    let context = serde_json::json!({
        "now": now.to_rfc3339(), "local": local, "zone": zone.name(), "running": lines,
    });
    prompts::render(Template::Status, &context)
}
