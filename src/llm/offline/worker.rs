//! The responder in a worker: it runs the one command that it was given, reports the outcome, and
//! its last text is the output.

use serde_json::{Value, json};

use super::answer::{Answer, Call};
use super::order;
use super::phrases::{Does, Table, fill};
use super::request::{Episode, Outcome, Request, Step};
use crate::text::{one_line, shorten};

/// Longest command repeated in a sentence.
const MAX_COMMAND_BYTES: usize = 120;
/// Longest output in the final text: it is read in a chat. The whole of it stays in the transcript.
const MAX_OUTPUT_BYTES: usize = 3_000;
/// Longest outcome that `set_status` takes.
const MAX_STATUS_BYTES: usize = 250;
/// How often an outcome that was refused is reported again.
const MAX_OUTCOMES: usize = 2;

/// What the worker has to do, and its own calls for it so far.
struct Job<'a> {
    command: Option<String>,
    steps: Vec<&'a Step<'a>>,
}

pub(super) fn answer(table: &Table, request: &Request<'_>) -> Answer {
    let words = &table.worker;
    let job = Job::of(table, request);
    let Some(command) = job.command.as_deref() else {
        return conclude(request, &job, &words.cannot, words.cannot.clone());
    };
    if command.is_empty() {
        return conclude(request, &job, &words.nothing, words.nothing.clone());
    }
    let Some(ran) = job.calls("shell").last() else {
        return match Call::of(request, "shell", json!({ "command": command })) {
            Some(call) => Answer::Calls(vec![call]),
            None => conclude(request, &job, &words.no_shell, words.no_shell.clone()),
        };
    };
    let named = one_line(command, MAX_COMMAND_BYTES);
    let summary = match failure(ran) {
        Some(reason) => fill(&words.failed, &[("command", &named), ("reason", &reason)]),
        None => fill(&words.ran, &[("command", &named)]),
    };
    let output = ran.outcome.as_ref().map(output).unwrap_or_default();
    let text = if output.is_empty() {
        fill(&words.no_output, &[("summary", &summary)])
    } else {
        let output = shorten(&output, MAX_OUTPUT_BYTES);
        fill(&words.output, &[("summary", &summary), ("output", &output)])
    };
    conclude(request, &job, &summary, text)
}

/// Reports the outcome once it has not been taken yet, then says the final text.
fn conclude(request: &Request<'_>, job: &Job<'_>, outcome: &str, text: String) -> Answer {
    let reported: Vec<_> = job.calls("set_status").collect();
    if !is_reported(&reported) && reported.len() < MAX_OUTCOMES {
        let status = one_line(outcome, MAX_STATUS_BYTES);
        if let Some(call) = Call::of(request, "set_status", json!({ "status": status, "kind": "outcome" })) {
            return Answer::Calls(vec![call]);
        }
    }
    Answer::Text(text)
}

fn is_reported(steps: &[&Step<'_>]) -> bool {
    steps.iter().any(|step| step.failure(&[]).is_none())
}

impl<'a> Job<'a> {
    /// The newest text is a new order, unless the work before it was never reported: then it is the
    /// reminder to do so, and must not be taken for a command.
    fn of(table: &Table, request: &'a Request<'a>) -> Self {
        let mut steps: Vec<&Step<'_>> = Vec::new();
        let episodes = &request.episodes;
        for (index, episode) in episodes.iter().enumerate().rev() {
            steps.splice(0..0, episode.own());
            let text = episode.plain();
            let earlier = &episodes[..index];
            let explicit = spelled_out(table, &text, earlier.is_empty());
            if explicit.is_none() && earlier.last().is_some_and(is_unreported) {
                continue;
            }
            // A worker that was started for a command takes a follow-up for the next one.
            let follows = earlier.iter().any(|episode| episode.own_calls("shell").next().is_some());
            return Self { command: explicit.or_else(|| follows.then_some(text)), steps };
        }
        Self { command: None, steps }
    }

    fn calls(&self, tool: &str) -> impl Iterator<Item = &'a Step<'a>> {
        self.steps.iter().copied().filter(move |step| step.name == tool)
    }
}

/// The command of `run: ls`, and in a follow-up also of `run ls` or `$ ls`. A first task in prose is
/// the work of a language model and may well begin with "run".
fn spelled_out(table: &Table, text: &str, is_task: bool) -> Option<String> {
    let heard = || {
        let heard = table.hear(text).filter(|heard| heard.intent.does == Does::Run && !is_task)?;
        Some(heard.caught.text)
    };
    order::read(order::RUN, text).or_else(heard).map(str::to_owned)
}

fn is_unreported(episode: &Episode<'_>) -> bool {
    let reports: Vec<_> = episode.own_calls("set_status").collect();
    episode.own().next().is_some() && !is_reported(&reports)
}

/// Why the command did not work. What it printed may hold any word, so only the tool's own marks count.
fn failure(step: &Step<'_>) -> Option<String> {
    step.failure(&[]).or_else(|| {
        let outcome = step.outcome.as_ref()?;
        let code = exit_code(outcome)?;
        (code != 0).then(|| format!("exit code {code}"))
    })
}

/// From the tool's JSON, or from its first or last line; what stands between is the command's.
fn exit_code(outcome: &Outcome) -> Option<i64> {
    if let Some(value) = &outcome.value {
        return value.get("exit_code").and_then(Value::as_i64);
    }
    let mut lines = outcome.text.trim().lines();
    [lines.next(), lines.next_back()].into_iter().flatten().find_map(|line| {
        let lower = line.to_lowercase();
        let (_, after) = lower.split_once("exit code")?;
        let number =
            after.trim_start_matches([':', ' ', '=']).split(|c: char| c != '-' && !c.is_ascii_digit());
        number.into_iter().next()?.parse().ok()
    })
}

/// What the command printed, as the tool gives it.
fn output(outcome: &Outcome) -> String {
    let Some(value) = &outcome.value else {
        return outcome.text.trim().to_owned();
    };
    if value.get("error").is_some() {
        return String::new();
    }
    let printed = ["output", "stdout", "stderr"].into_iter().filter_map(|name| value.get(name)?.as_str());
    let printed: Vec<&str> = printed.map(str::trim).filter(|text| !text.is_empty()).collect();
    if printed.is_empty() && value.get("exit_code").is_none() {
        return outcome.text.trim().to_owned();
    }
    printed.join("\n")
}
