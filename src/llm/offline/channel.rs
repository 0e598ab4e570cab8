//! The responder in a channel: what each message asks for becomes a branch, a worker or a sentence.
//!
//! A turn takes two steps where work is needed: first all work is started, then one reply says what
//! could not be started together with all other sentences. Without anything to say the turn is
//! skipped, because the result of the work comes back as a turn of its own.

use jiff::civil::Date;
use serde_json::{Value, json};

use super::answer::{Answer, Call, process_argument};
use super::phrases::{ChannelSentences, Does, Heard, Table, fill};
use super::request::{Episode, Request, Step};
use super::{order, reminder};
use crate::clock::Clock;
use crate::id::{ProcessId, ProcessKind};
use crate::text::{one_line, shorten};
use crate::turn::{self, Part};

/// Most calls of one turn: what a few people ask at once. The rest is refused in words.
const MAX_WORK: usize = 16;

/// Longest reply; adapters cut it into messages, so this is a few screens.
const MAX_REPLY_BYTES: usize = 16_000;

/// Longest status block repeated to a person.
const MAX_STATUS_BYTES: usize = 2_000;

/// Longest piece of a task that is repeated in a sentence.
const MAX_TASK_BYTES: usize = 120;

/// How often a reply that a tool has refused is put into other words.
const MAX_REPLIES: usize = 2;

/// Calls that settle a turn when another model has made them before it went away.
const SETTLING: [&str; 7] = ["reply", "skip", "branch", "spawn_worker", "route", "cancel", "cron"];

/// One consequence of a turn.
enum Item {
    Say(String),
    Work { call: Call, aim: Aim },
}

/// What a call is for, to tell its failure or success in words.
enum Aim {
    Start { task: String },
    Stop { process: ProcessId },
    PassOn { process: ProcessId },
    Remind { what: String, again: bool },
    Reminders,
    Unremind { id: String },
}

pub(super) fn answer(table: &Table, request: &Request<'_>, clock: &dyn Clock) -> Answer {
    let episode = request.newest();
    if episode.own().next().is_none() && is_settled(table, episode) {
        return skip(request, &table.channel.done_reason);
    }
    let items = Plan::of(table, request, clock, &episode.prompt).items;
    let calls: Vec<Call> = items.iter().filter_map(Item::call).cloned().collect();
    if !calls.is_empty() && episode.own().next().is_none() {
        return Answer::Calls(calls);
    }
    let replies: Vec<&Step<'_>> = episode.own_calls("reply").collect();
    match replies.last().map(|last| last.failure(&[])) {
        None => {}
        Some(Some(reason)) if replies.len() < MAX_REPLIES => {
            return reply(table, request, fill(&table.channel.reply_failed, &[("reason", &reason)]));
        }
        Some(_) => return skip(request, &table.channel.done_reason),
    }
    let mut said = earlier(table, request, clock);
    let newest = sentences(table, episode, &items);
    said.extend(newest.into_iter().filter(|sentence| !said.contains(sentence)).collect::<Vec<_>>());
    match said {
        sentences if sentences.is_empty() => skip(request, &table.channel.skip_reason),
        sentences => reply(table, request, sentences.join("\n\n")),
    }
}

fn is_settled(table: &Table, episode: &Episode<'_>) -> bool {
    episode
        .steps
        .iter()
        .any(|step| SETTLING.contains(&step.name) && step.failure(&table.words.refusals).is_none())
}

/// What is left to say about what was asked before a newer message reached this turn: only such texts have
/// calls behind them, because the history holds none.
fn earlier(table: &Table, request: &Request<'_>, clock: &dyn Clock) -> Vec<String> {
    let Some((_, before)) = request.episodes.split_last() else { return Vec::new() };
    let open = |episode: &&Episode<'_>| {
        !episode.steps.is_empty() && (episode.own().next().is_some() || !is_settled(table, episode))
    };
    let said = before.iter().filter(open).flat_map(|episode| {
        sentences(table, episode, &Plan::of(table, request, clock, &episode.prompt).items)
    });
    said.collect()
}

/// What is to be said, in the order of what was asked, each thing once.
fn sentences(table: &Table, episode: &Episode<'_>, items: &[Item]) -> Vec<String> {
    let mut steps = episode.own().filter(|step| !matches!(step.name, "reply" | "skip"));
    let mut sentences: Vec<String> = Vec::new();
    for item in items {
        let sentence = match item {
            Item::Say(text) => Some(text.clone()),
            Item::Work { aim, .. } => {
                let step = steps.next();
                let failure = step.map_or(Some(String::new()), |step| step.failure(&table.words.refusals));
                let answer = step.and_then(|step| step.outcome.as_ref()?.value.as_ref());
                aim.sentence(table, failure, answer.unwrap_or(&Value::Null))
            }
        };
        sentences.extend(sentence.filter(|sentence| !sentences.contains(sentence)));
    }
    sentences
}

fn reply(table: &Table, request: &Request<'_>, content: String) -> Answer {
    let content = shorten(&content, MAX_REPLY_BYTES).into_owned();
    match Call::of(request, "reply", json!({ "content": content })) {
        Some(call) => Answer::Calls(vec![call]),
        None => Answer::Text(table.other.no_tools.clone()),
    }
}

fn skip(request: &Request<'_>, reason: &str) -> Answer {
    match Call::of(request, "skip", json!({ "reason": reason })) {
        Some(call) => Answer::Calls(vec![call]),
        None => Answer::Text(reason.to_owned()),
    }
}

impl Item {
    fn call(&self) -> Option<&Call> {
        match self {
            Item::Work { call, .. } => Some(call),
            Item::Say(_) => None,
        }
    }
}

impl Aim {
    /// What a person has to know about how the call went. Work that was started speaks for itself later.
    fn sentence(&self, table: &Table, failure: Option<String>, answer: &Value) -> Option<String> {
        let words = &table.channel;
        match (self, failure) {
            (Aim::Start { .. }, None) => None,
            (Aim::Start { task }, Some(reason)) => {
                Some(fill(&words.not_started, &[("task", task), ("reason", &reason)]))
            }
            (Aim::Stop { process }, None) => Some(fill(&words.stopped, &[("process", &process.to_string())])),
            (Aim::Stop { process }, Some(reason)) => {
                Some(fill(&words.not_stopped, &[("process", &process.to_string()), ("reason", &reason)]))
            }
            (Aim::PassOn { process }, None) => {
                Some(fill(&words.routed, &[("process", &process.to_string())]))
            }
            (Aim::PassOn { process }, Some(reason)) => {
                Some(fill(&words.not_routed, &[("process", &process.to_string()), ("reason", &reason)]))
            }
            (Aim::Remind { what, again }, None) => {
                let sentence = if *again { &words.reminded_again } else { &words.reminded };
                let when = answer["created"]["next_run"].as_str().unwrap_or_default();
                Some(fill(sentence, &[("when", when), ("what", what)]))
            }
            (Aim::Remind { what, .. }, Some(reason)) => {
                Some(fill(&words.not_reminded, &[("what", what), ("reason", &reason)]))
            }
            (Aim::Reminders, None) => Some(reminders(words, answer)),
            (Aim::Unremind { id }, None) => Some(fill(&words.unreminded, &[("id", id)])),
            (Aim::Reminders | Aim::Unremind { .. }, Some(reason)) => {
                Some(fill(&table.job.failed, &[("reason", &reason)]))
            }
        }
    }
}

/// What the `cron` tool lists, a line each.
fn reminders(words: &ChannelSentences, answer: &Value) -> String {
    let line = |job: &Value| {
        let text = |name: &str| job[name].as_str().unwrap_or_default().to_owned();
        let prompt = text("prompt");
        let what = order::read(order::REMIND, &prompt).unwrap_or(&prompt);
        let sentence = if job["next_run"].is_string() { &words.reminder_line } else { &words.reminder_off };
        fill(sentence, &[("id", &text("id")), ("what", what), ("when", &text("next_run"))])
    };
    let lines: Vec<_> = answer["jobs"].as_array().into_iter().flatten().map(line).collect();
    if lines.is_empty() {
        return words.no_reminders.clone();
    }
    fill(&words.reminders, &[("jobs", &lines.join("\n"))])
}

/// Turns the parts of a turn into items, always the same ones for the same turn.
struct Plan<'a> {
    table: &'a Table,
    request: &'a Request<'a>,
    clock: &'a dyn Clock,
    status: String,
    items: Vec<Item>,
    work: usize,
}

impl<'a> Plan<'a> {
    fn of(table: &'a Table, request: &'a Request<'a>, clock: &'a dyn Clock, prompt: &str) -> Self {
        let parts = turn::read(prompt);
        // A message that came during the turn has none of its own.
        let mut turns = request.episodes.iter().rev().map(|episode| turn::read(&episode.prompt));
        let status = status_of(&parts).or_else(|| turns.find_map(|parts| status_of(&parts)));
        let status = status.unwrap_or_default();
        let mut plan = Self { table, request, clock, status, items: Vec::new(), work: 0 };
        for part in &parts {
            match part {
                Part::Said { text, .. } => plan.said(text),
                Part::Result { task, text, .. } if text.trim().is_empty() => {
                    let task = one_line(task, MAX_TASK_BYTES);
                    plan.say(fill(&table.channel.empty_result, &[("task", &task)]));
                }
                Part::Result { text, .. } => plan.say(text.trim().to_owned()),
                Part::File { .. }
                | Part::Summary { .. }
                | Part::Note(_)
                | Part::People(_)
                | Part::Earlier(_)
                | Part::Recent(_)
                | Part::Status(_) => {}
            }
        }
        if plan.items.is_empty() {
            plan.say(table.channel.wordless.clone());
        }
        plan
    }

    fn say(&mut self, text: String) {
        self.items.push(Item::Say(text));
    }

    fn said(&mut self, text: &str) {
        let words = &self.table.channel;
        match self.table.hear(text) {
            Some(heard) => self.heard(text, &heard),
            None if text.chars().any(char::is_alphanumeric) => self.say(words.offline.clone()),
            None => self.say(words.wordless.clone()),
        }
    }

    fn heard(&mut self, text: &str, heard: &Heard<'_, '_>) {
        let what = heard.caught.text;
        match heard.intent.does {
            Does::Remember => self.branch(order::REMEMBER, what),
            Does::Recall => self.branch(order::RECALL, what),
            Does::List => self.branch(order::RECALL, order::EVERYTHING),
            Does::Forget => self.branch(order::FORGET, what),
            Does::Run => {
                let task = order::write(order::RUN, what);
                self.start("spawn_worker", json!({ "task": task, "interactive": false }), &task);
            }
            Does::Route => self.route(heard.caught.number, what),
            Does::Cancel => self.cancel(text, heard.caught.number),
            Does::Stop => self.stop(),
            Does::Status => self.status(),
            Does::Time => self.time(),
            Does::Remind => self.remind(what),
            Does::Reminders => self.cron(json!({ "action": "list" }), Aim::Reminders),
            Does::Unremind => {
                let arguments = json!({ "action": "delete", "id": what });
                self.cron(arguments, Aim::Unremind { id: what.to_owned() });
            }
            Does::Say => self.say(heard.intent.says.trim().to_owned()),
        }
    }

    /// What says no time is remembered at least.
    fn remind(&mut self, text: &str) {
        let found = reminder::find(&self.table.when, text, self.today());
        let Some(found) = found.filter(|_| self.request.offers("cron")) else {
            return self.branch(order::REMEMBER, text);
        };
        let mut arguments = found.arguments;
        arguments.insert("action".to_owned(), json!("create"));
        arguments.insert("prompt".to_owned(), json!(order::write(order::REMIND, &found.what)));
        let what = one_line(&found.what, MAX_TASK_BYTES);
        self.cron(Value::Object(arguments), Aim::Remind { what, again: found.again });
    }

    fn cron(&mut self, arguments: Value, aim: Aim) {
        self.work(Call::of(self.request, "cron", arguments), aim);
    }

    /// The date on the wall, which the status block tells; else that of UTC.
    fn today(&self) -> Date {
        let told = self
            .status
            .lines()
            .next()
            .and_then(|line| line.split_once(" here ")?.1.split_whitespace().nth(1)?.parse().ok());
        let utc = || self.clock.now().to_rfc3339().get(..10)?.parse().ok();
        told.or_else(utc).unwrap_or_default()
    }

    fn branch(&mut self, verb: &str, what: &str) {
        let description = order::write(verb, what);
        self.start("branch", json!({ "description": description }), &description);
    }

    fn start(&mut self, tool: &'static str, arguments: serde_json::Value, task: &str) {
        let task = one_line(task, MAX_TASK_BYTES);
        self.work(Call::of(self.request, tool, arguments), Aim::Start { task });
    }

    fn route(&mut self, number: Option<u64>, message: &str) {
        let Some((tool, number)) = self.request.tool("route").zip(number) else {
            return self.work(None, Aim::Start { task: one_line(message, MAX_TASK_BYTES) });
        };
        let process = ProcessId::new(ProcessKind::Worker, number);
        let command = self.table.hear(message).filter(|heard| heard.intent.does == Does::Run);
        let message =
            command.map_or_else(|| message.to_owned(), |run| order::write(order::RUN, run.caught.text));
        let worker = process_argument(tool, "worker_id", process);
        let call = Call::of(self.request, "route", json!({ "worker_id": worker, "message": message }));
        self.work(call, Aim::PassOn { process });
    }

    fn cancel(&mut self, text: &str, number: Option<u64>) {
        let lower = text.to_lowercase();
        let named =
            [ProcessKind::Branch, ProcessKind::Worker].into_iter().find(|kind| lower.contains(kind.as_str()));
        let fits = |process: &ProcessId| {
            named.is_none_or(|kind| process.kind == kind)
                && number.is_none_or(|number| process.number == number)
        };
        let found: Vec<ProcessId> = self.running().into_iter().filter(fits).collect();
        match (found.as_slice(), number) {
            // The block may not list it any more; the tool knows better.
            ([], Some(number)) => {
                self.cancel_one(ProcessId::new(named.unwrap_or(ProcessKind::Worker), number))
            }
            ([], None) => self.say(self.table.channel.nothing_runs.clone()),
            ([only], _) => self.cancel_one(*only),
            ([first, ..], _) => {
                let all = found.iter().map(ProcessId::to_string).collect::<Vec<_>>().join(", ");
                let first = first.to_string().replace(':', " ");
                self.say(fill(&self.table.channel.which, &[("running", &all), ("first", &first)]));
            }
        }
    }

    fn stop(&mut self) {
        let running = self.running();
        if running.is_empty() {
            self.say(self.table.channel.nothing_runs.clone());
        }
        running.into_iter().for_each(|process| self.cancel_one(process));
    }

    fn cancel_one(&mut self, process: ProcessId) {
        let call = self.request.tool("cancel").and_then(|tool| {
            let arguments = json!({
                "process_type": process.kind.as_str(),
                "process_id": process_argument(tool, "process_id", process),
                "reason": self.table.channel.cancel_reason,
            });
            Call::of(self.request, "cancel", arguments)
        });
        self.work(call, Aim::Stop { process });
    }

    /// Adds a call once; `None` stands for a tool that is not there.
    fn work(&mut self, call: Option<Call>, aim: Aim) {
        let words = &self.table.channel;
        match call {
            None => {
                let task = match aim {
                    Aim::Start { task } => task,
                    Aim::Stop { process } | Aim::PassOn { process } => process.to_string(),
                    Aim::Remind { what, .. } => what,
                    Aim::Reminders | Aim::Unremind { .. } => "cron".to_owned(),
                };
                self.say(fill(&words.no_tool, &[("task", &task)]));
            }
            Some(call) if self.items.iter().any(|item| item.call() == Some(&call)) => {}
            Some(_) if self.work == MAX_WORK => self.say(words.too_many.clone()),
            Some(call) => {
                self.work += 1;
                self.items.push(Item::Work { call, aim });
            }
        }
    }

    fn status(&mut self) {
        let lines = self.status.lines().map(|line| line.trim().trim_start_matches(['#', '*', ' ']));
        let lines = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
        let words = &self.table.channel;
        if lines.is_empty() {
            return self.say(words.status_empty.clone());
        }
        let status = shorten(&lines, MAX_STATUS_BYTES);
        self.say(fill(&words.status, &[("status", &status)]));
    }

    fn time(&mut self) {
        let now = self.clock.now().to_rfc3339();
        // 2026-11-21T10:00:00Z: the date, and hours and minutes.
        let time = match now.split_once('T').map(|(date, time)| (date, time.get(..5))) {
            Some((date, Some(time))) => format!("{date} {time}"),
            _ => now,
        };
        self.say(fill(&self.table.channel.time, &[("time", &time)]));
    }

    /// The workers and branches that the status block lists as running, one a line.
    fn running(&self) -> Vec<ProcessId> {
        let mut runs = true;
        let mut found = Vec::new();
        for line in self.status.lines().map(str::trim) {
            match process_in(line) {
                Some(process) if runs && !found.contains(&process) => found.push(process),
                Some(_) => {}
                None if line.starts_with('#') || line.ends_with(':') => {
                    let heading = line.to_lowercase();
                    runs = !self.table.words.finished.iter().any(|word| heading.contains(word.as_str()));
                }
                None => {}
            }
        }
        found
    }
}

fn status_of(parts: &[Part]) -> Option<String> {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Status(text) => Some(text.as_str()),
        _ => None,
    });
    let texts: Vec<_> = texts.collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

/// The first `worker:7` or `branch:3` of a line; a task behind it may name others.
fn process_in(line: &str) -> Option<ProcessId> {
    line.split(|c: char| !(c.is_alphanumeric() || c == ':')).find_map(|word| {
        let (kind, number) = word.trim_end_matches(':').split_once(':')?;
        let kind =
            [ProcessKind::Branch, ProcessKind::Worker].into_iter().find(|known| known.as_str() == kind)?;
        Some(ProcessId::new(kind, number.parse().ok()?))
    })
}
