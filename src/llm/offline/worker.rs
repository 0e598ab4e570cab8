//! The responder in a worker: it runs the command that it was given, reports the outcome, and its
//! last text is the output.

use serde_json::json;

use super::answer::{Answer, Call, lists};
use super::order;
use super::phrases::{Does, Table, fill};
use super::request::{Episode, Request, Step};
use crate::text::{one_line, shorten};

/// Longest command repeated in a sentence.
const MAX_COMMAND_BYTES: usize = 120;
/// Longest output in the final text: it is read in a chat. The whole of it stays in the transcript.
const MAX_OUTPUT_BYTES: usize = 3_000;
/// Longest outcome that `set_status` takes.
const MAX_STATUS_BYTES: usize = 250;
/// How often an outcome that was refused is reported again.
const MAX_OUTCOMES: usize = 2;

pub(super) fn answer(table: &Table, request: &Request<'_>) -> Answer {
    let words = &table.worker;
    let job = Job::of(table, request);
    let mut ran = job.steps.iter().filter(|step| step.name == "shell");
    let mut outcomes = Vec::new();
    let mut texts = Vec::new();
    let mut given_up = false;
    for order in &job.orders {
        let (outcome, text) = match order.as_deref() {
            None => {
                given_up = true;
                (words.cannot.clone(), words.cannot.clone())
            }
            Some("") => (words.nothing.clone(), words.nothing.clone()),
            Some(command) => match ran.next() {
                Some(step) => told(table, command, step),
                None => match Call::of(request, "shell", json!({ "command": command })) {
                    Some(call) => return Answer::Calls(vec![call]),
                    None => {
                        given_up = true;
                        (words.no_shell.clone(), words.no_shell.clone())
                    }
                },
            },
        };
        outcomes.push(outcome);
        texts.push(text);
    }
    let outcome = Outcome { given_up, text: outcomes.join(" ") };
    conclude(request, &job, &outcome, texts.join("\n\n"))
}

/// What is reported when the work is over.
struct Outcome {
    given_up: bool,
    text: String,
}

/// The outcome of a command, and the same with its output.
fn told(table: &Table, command: &str, step: &Step<'_>) -> (String, String) {
    let words = &table.worker;
    let named = one_line(command, MAX_COMMAND_BYTES);
    let report = Report::of(step);
    let summary = match &report.failure {
        Some(reason) => fill(&words.failed, &[("command", &named), ("reason", reason)]),
        None => fill(&words.ran, &[("command", &named)]),
    };
    let text = match (report.output.as_str(), &report.failure) {
        ("", Some(_)) => summary.clone(),
        ("", None) => fill(&words.no_output, &[("summary", &summary)]),
        (output, _) => {
            let output = shorten(output, MAX_OUTPUT_BYTES);
            fill(&words.output, &[("summary", &summary), ("output", &output)])
        }
    };
    (summary, text)
}

/// Reports the outcome once the work is done, then says the final text.
fn conclude(request: &Request<'_>, job: &Job<'_>, outcome: &Outcome, text: String) -> Answer {
    let is_report = |step: &&&Step<'_>| step.name == "set_status";
    let mut since_work = job.steps.iter().rev().take_while(|step| step.name != "shell").filter(is_report);
    // Counted anew behind each reminder; who reminds also counts.
    let attempts = request.newest().own_calls("set_status").count();
    if !since_work.any(|step| step.failure(&[]).is_none()) && attempts < MAX_OUTCOMES {
        let status = one_line(&outcome.text, MAX_STATUS_BYTES);
        let knows = |tool| lists(tool, "kind", "failure") == Some(true);
        let failed = outcome.given_up && request.tool("set_status").is_some_and(knows);
        let kind = if failed { "failure" } else { "outcome" };
        if let Some(call) = Call::of(request, "set_status", json!({ "status": status, "kind": kind })) {
            return Answer::Calls(vec![call]);
        }
    }
    Answer::Text(text)
}

/// What the worker has been told since it last came to an end, and its own calls since then.
struct Job<'a> {
    /// Commands; `None` stands for something that only a language model could do.
    orders: Vec<Option<String>>,
    steps: Vec<&'a Step<'a>>,
}

impl<'a> Job<'a> {
    fn of(table: &Table, request: &'a Request<'a>) -> Self {
        let episodes = &request.episodes;
        let newest = episodes.len().saturating_sub(1);
        let first =
            (0..newest).rev().find(|index| is_concluded(&episodes[*index])).map_or(0, |index| index + 1);
        let orders =
            (first..episodes.len()).filter_map(|index| order_of(table, &episodes[..=index], index > first));
        // What nobody can do here is said once.
        let mut orders: Vec<Option<String>> = orders.collect();
        orders.dedup_by(|one, other| one.is_none() && other.is_none());
        Self { orders, steps: episodes[first..].iter().flat_map(Episode::own).collect() }
    }
}

/// What the last of these episodes asks for; none when it asks for nothing new.
fn order_of(table: &Table, episodes: &[Episode<'_>], unfinished: bool) -> Option<Option<String>> {
    let (newest, earlier) = episodes.split_last()?;
    let text = newest.plain();
    if let Some(command) = spelled_out(table, &text, earlier.is_empty()) {
        return Some(Some(command));
    }
    // Behind a final text that came without an outcome stands the reminder to report it. It must not
    // be taken for a command.
    if unfinished && earlier.last().is_some_and(|before| before.spoke) {
        return None;
    }
    // A worker that was started for a command takes a follow-up for the next one.
    let follows = earlier.iter().any(|episode| episode.own_calls("shell").next().is_some());
    Some(follows.then_some(text))
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

/// The worker has said its last word on this, with an outcome before it.
fn is_concluded(episode: &Episode<'_>) -> bool {
    episode.spoke && episode.steps.iter().any(|step| step.name == "set_status" && step.failure(&[]).is_none())
}

/// What the shell tool has to say about a command. Its first line tells how the command ended, the
/// rest is what was printed and may hold any word, so nothing is concluded from that.
struct Report {
    failure: Option<String>,
    output: String,
}

impl Report {
    fn of(step: &Step<'_>) -> Self {
        let Some(outcome) = &step.outcome else {
            return Self { failure: Some(String::new()), output: String::new() };
        };
        if let Some(reason) = step.failure(&[]) {
            return Self { failure: Some(reason), output: String::new() };
        }
        let (first, rest) = outcome.text.split_once('\n').unwrap_or((&outcome.text, ""));
        let first = first.trim();
        let failure = match first.strip_prefix(EXIT_CODE).map(|code| code.trim() == "0") {
            Some(true) => None,
            Some(false) => Some(first.to_owned()),
            None if FAILED_ENDS.iter().any(|start| first.starts_with(start)) => Some(first.to_owned()),
            None => return Self { failure: None, output: outcome.text.trim().to_owned() },
        };
        Self { failure, output: rest.trim().to_owned() }
    }
}

/// How the first line of the shell tool begins: `exit code 0`.
const EXIT_CODE: &str = "exit code ";
/// `stopped after 60 seconds`, `ended by signal 9`.
const FAILED_ENDS: [&str; 2] = ["stopped after ", "ended by signal "];
