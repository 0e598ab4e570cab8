//! The channel: one turn of a conversation, from unanswered messages and waiting results to one
//! commit that answers them.

mod run;

use std::sync::OnceLock;

use rig_agent::run::RunSpec;
use rig_core::completion::ToolDefinition;
use serde_json::json;

use super::driver::{Conduct, Counts, Driver, Ended};
use super::job::{Job, Turn};
use super::journal::RunJournal;
use super::link::{Link, ProcessDesk};
use super::past::Past;
use super::toolbox::Toolbox;
use super::{AgentParts, compactor, happening, prompt, recent, status};
use crate::clock::Timestamp;
use crate::conversation::{NewLine, Role, TurnCommit, WaitingResult};
use crate::cron::{Target, store};
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::effect::Effect;
use crate::error::{Fault, Kind};
use crate::event::{Fork, How, Origin, Received};
use crate::hooks::LoopGuard;
use crate::id::{InboxId, ProcessKind};
use crate::message::Content;
use crate::prompts;
use crate::tools::speech::Speech;
use crate::tools::{self, Tool};
use crate::turn::{self, Part};
use crate::working_memory::NewEvent;

pub(super) use run::{About, talk};

/// Messages that one turn in company takes; the rest waits for the next turn.
const MAX_MESSAGES: usize = 32;
/// Results that one turn relays.
const MAX_RESULTS: usize = 16;
/// Times that a turn is told that its text is not for a person.
const MAX_CORRECTIONS: usize = 2;

pub(super) fn turn(parts: &AgentParts, job: &Job, turn: &Turn, link: &Link<'_>) -> How {
    let mut input = match Input::read(parts, job, turn.single) {
        Ok(input) => input,
        Err(error) => return failed(&error),
    };
    if input.is_empty() {
        return How::Turned { covered: None, more: false, outbox: Vec::new() };
    }
    match parts.settings(&job.place) {
        Ok(settings)
            if settings.response_mode.answers(input.messages.iter().map(|received| &received.message)) => {}
        Ok(_) => {
            let kept = keep_unanswered(parts, job, &mut input);
            if input.is_empty() || !matches!(kept, How::Turned { .. }) {
                return kept;
            }
        }
        Err(error) => return failed(&error),
    }
    if turn.absorb && input.messages.is_empty() {
        return commit(parts, job, &input, Vec::new(), TurnCommit::default(), None);
    }
    match answer(parts, job, turn, &input, link) {
        Ok(answered) => answered,
        Err(error) => failed(error.as_ref()),
    }
}

/// What nobody wants an answer to goes into the history; results that wait are told all the same.
fn keep_unanswered(parts: &AgentParts, job: &Job, input: &mut Input) -> How {
    if input.messages.is_empty() {
        return How::Turned { covered: None, more: false, outbox: Vec::new() };
    }
    let results = std::mem::take(&mut input.results);
    let kept = commit(parts, job, input, Vec::new(), TurnCommit::default(), None);
    input.covered = input.messages.last().map(|received| received.id);
    input.messages.clear();
    input.results = results;
    kept
}

/// Answers with a plain sentence what a turn could not answer.
pub(super) fn apologise(parts: &AgentParts, job: &Job, kind: Kind, single: bool) -> How {
    let input = match Input::read(parts, job, single) {
        Ok(input) => input,
        Err(error) => return failed(&error),
    };
    if input.is_empty() {
        return How::Turned { covered: None, more: false, outbox: Vec::new() };
    }
    let message = input.messages.last().map(|received| received.message.platform_id.as_str());
    let event = happening::turn_failed(parts, job, kind, message);
    commit(
        parts,
        job,
        &input,
        vec![text(prompts::notice(kind.notice()))],
        TurnCommit::default(),
        event.map(Aside::Event),
    )
}

fn failed(error: &dyn Fault) -> How {
    How::Failed(error.kind(), error.to_string())
}

fn text(text: &str) -> Content {
    Content::Text { text: text.to_owned() }
}

/// What a turn is about.
struct Input {
    messages: Vec<Received>,
    results: Vec<WaitingResult>,
    more: bool,
    /// The newest message that this turn has dealt with before.
    covered: Option<InboxId>,
}

impl Input {
    fn read(parts: &AgentParts, job: &Job, single: bool) -> Result<Self, DbError> {
        let limit = if single { 1 } else { MAX_MESSAGES };
        let conversation = &job.place.conversation;
        let mut messages = parts.conversations.unanswered(conversation, limit + 1)?;
        let more = messages.len() > limit;
        messages.truncate(limit);
        let results = parts.conversations.waiting_results(conversation, MAX_RESULTS)?;
        Ok(Self { messages, results, more, covered: None })
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.results.is_empty()
    }

    /// Platform ids that an answer of this turn answers: those that asked for the results, and the messages.
    fn answers(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        let said = self.messages.iter().map(|received| &received.message.platform_id);
        for id in self.results.iter().flat_map(|result| &result.answers).chain(said) {
            if !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        ids
    }

    /// Platform ids that ask for what this turn starts: the messages, else those that asked for the results.
    fn askers(&self) -> Vec<String> {
        if self.messages.is_empty() {
            return self.answers();
        }
        self.messages.iter().map(|received| received.message.platform_id.clone()).collect()
    }

    fn parts(&self) -> Vec<Part> {
        let result = |result: &WaitingResult| Part::Result {
            process: result.process,
            task: result.task.clone(),
            text: result.text.clone(),
        };
        let said = |received: &Received| Part::Said {
            sender: received.message.sender_name.clone(),
            at: received.message.sent_at,
            text: received.message.content.clone(),
        };
        self.results.iter().map(result).chain(self.messages.iter().map(said)).collect()
    }
}

fn answer(
    parts: &AgentParts,
    job: &Job,
    turn: &Turn,
    input: &Input,
    link: &Link<'_>,
) -> Result<How, Box<dyn Fault>> {
    let limits = &parts.config.limits;
    let conversation = &job.place.conversation;
    let history = compactor::history(parts, &job.place).map_err(boxed)?;
    let mut words = input.parts();
    let first = history.lines.first().map(|line| line.id);
    let summaries: Vec<i64> = history.summaries.iter().map(|summary| summary.id).collect();
    let fork = Fork {
        summaries: summaries.as_slice().into(),
        lines: first.zip(history.lines.last().map(|line| line.id)),
        words: turn::write(&words).into(),
    };
    words.extend(recent::text(parts, job, history.lines.first().map(|line| line.at)).map(Part::Recent));
    words.push(Part::Status(
        status::render(&turn.running, parts.conversations.now(), &parts.config.timezone).map_err(boxed)?,
    ));
    let past = Past::of(&history.summaries, fork.lines);
    let origin = Origin { answers: input.askers(), fork };
    let words = turn::write(&words);
    let about = About::of(input, job.place.direct, turn.execution.is_some());
    let start = json!({
        "kind": "channel",
        "conversation": conversation.as_str(),
        "messages": input.messages.iter().map(|received| &received.message.platform_id).collect::<Vec<_>>(),
        "results": input.results.iter().map(|result| result.process.to_string()).collect::<Vec<_>>(),
        "direct": about.direct,
        "visit": about.visit,
        "prompt": words,
    });
    let mut driver = Driver {
        link,
        model: Box::new(parts.llm.model_for(&parts.config.routing, ProcessKind::Channel)),
        toolbox: Box::new(match turn.execution {
            Some(_) => Toolbox::new(job_tools(parts), &JOB_DEFINITIONS),
            None => Toolbox::new(channel_tools(parts, job), &DEFINITIONS),
        }),
        desk: ProcessDesk::new(link, origin),
        journal: RunJournal::new(&parts.conversations, job.process.number),
        spec: RunSpec {
            preamble: Some(match turn.execution {
                Some(_) => parts.prompts.scheduled(),
                None => parts.prompts.channel(&job.place).map_err(boxed)?,
            }),
            max_turns: Some(limits.max_turns + 1),
            ..RunSpec::new()
        },
        counts: Counts { max_model_calls: limits.max_turns, ..Counts::default() },
        guard: LoopGuard::new(parts.config.loop_guard.of(ProcessKind::Channel)),
    };
    let summaries = history.summaries.iter().map(prompt::summary);
    let history = summaries.chain(history.lines.iter().map(prompt::line)).collect::<Vec<_>>();
    driver.begin(start, &past, &history);
    let speech = speech(parts);
    let mut talking = Talking::new(&speech, &about);
    let (say, outcome) = match talk(&mut driver, words, history, &about, &speech, &mut talking) {
        Ok(talked) => talked,
        Err(how) => return Ok(how),
    };
    let outcome = turn.execution.map(|execution| Aside::Outcome((execution, outcome)));
    let base = TurnCommit { journal: driver.journal.take(), ..TurnCommit::default() };
    Ok(commit(parts, job, input, say, base, outcome))
}

fn boxed(fault: impl Fault + 'static) -> Box<dyn Fault> {
    Box::new(fault)
}

/// What is written with the end of a turn besides its own rows.
enum Aside {
    Event(NewEvent),
    /// What a job has to say, if anything.
    Outcome((i64, Option<String>)),
}

impl Aside {
    fn write(self, connection: &Connection, now: Timestamp) -> Result<(), DbError> {
        match self {
            Aside::Event(event) => event.insert(connection, now),
            Aside::Outcome((_, None)) => Ok(()),
            Aside::Outcome((execution, Some(outcome))) => store::set_outcome(connection, execution, &outcome),
        }
    }
}

/// A turn ends with the first reply or skip, that of a job with its outcome if nothing was started.
pub(super) struct Talking<'a> {
    speech: &'a Speech,
    corrections: usize,
    /// Text reaches a person.
    heard: bool,
}

impl<'a> Talking<'a> {
    pub(super) fn new(speech: &'a Speech, about: &About) -> Self {
        Self { speech, corrections: 0, heard: !about.visit }
    }
}

impl Conduct for Talking<'_> {
    fn on_text(&mut self, text: &str, _desk: &mut ProcessDesk<'_>) -> Option<String> {
        let unfit = self.speech.of_text(text).filter(|_| self.heard && self.corrections < MAX_CORRECTIONS)?;
        self.corrections += 1;
        Some(unfit.correction().to_owned())
    }

    fn on_tools(&mut self, desk: &mut ProcessDesk<'_>) -> bool {
        let started = desk.started > 0;
        desk.effects.iter().any(|effect| match effect {
            Effect::Reply { .. } | Effect::Skip { .. } => true,
            Effect::Deliver { .. } => !started,
            _ => false,
        })
    }
}

fn speech(parts: &AgentParts) -> Speech {
    Speech::new(parts.llm.scrubber().clone())
}

/// See [`Toolbox::new`].
static DEFINITIONS: OnceLock<Vec<ToolDefinition>> = OnceLock::new();

fn channel_tools(parts: &AgentParts, job: &Job) -> Vec<Box<dyn Tool>> {
    let here = Target {
        conversation: job.place.conversation.clone(),
        instance: job.place.instance.clone(),
        direct: job.place.direct,
        name: job.place.name.clone(),
    };
    let (clock, timeout) = (parts.conversations.clone(), parts.config.schedule.timeout);
    vec![
        Box::new(tools::reply::Reply::new(speech(parts))),
        Box::new(tools::branch::Branch),
        Box::new(tools::spawn_worker::SpawnWorker),
        Box::new(tools::route::Route),
        Box::new(tools::cancel::CancelProcess),
        Box::new(tools::skip::Skip),
        Box::new(tools::react::React),
        Box::new(tools::cron::CronTool::new(parts.cron(), clock, here, timeout)),
    ]
}

static JOB_DEFINITIONS: OnceLock<Vec<ToolDefinition>> = OnceLock::new();

/// No reply, because nobody is there, and no jobs that make jobs.
fn job_tools(parts: &AgentParts) -> Vec<Box<dyn Tool>> {
    vec![
        Box::new(tools::set_outcome::SetOutcome::new(speech(parts))),
        Box::new(tools::branch::Branch),
        Box::new(tools::spawn_worker::SpawnWorker),
        Box::new(tools::route::Route),
        Box::new(tools::cancel::CancelProcess),
        Box::new(tools::skip::Skip),
    ]
}

/// The last call wins.
fn outcome(desk: &ProcessDesk<'_>) -> Option<String> {
    desk.effects.iter().rev().find_map(|effect| match effect {
        Effect::Deliver { content } => Some(content.clone()),
        _ => None,
    })
}

/// Of a job's turn, nothing but its outcome reaches anybody.
fn heard_by_nobody(ended: Ended, has_outcome: bool) -> Result<Vec<Content>, How> {
    match ended {
        Ended::Cancelled => Err(How::Cancelled),
        Ended::Failed(kind, reason) => Err(How::Failed(kind, reason)),
        Ended::Limit | Ended::Repeating if !has_outcome => {
            Err(How::Failed(Kind::Invalid, prompts::notice("job_turn_limit").to_owned()))
        }
        Ended::Limit | Ended::Repeating | Ended::Tools | Ended::Text(_) => Ok(Vec::new()),
    }
}

/// What the turn says, from its effects and its last words. A person who wrote directly always gets
/// an answer, unless the model chose silence or something is on its way.
fn said(ended: Ended, desk: &ProcessDesk<'_>, about: &About, speech: &Speech) -> Result<Vec<Content>, How> {
    let mut say: Vec<Content> = Vec::new();
    let mut silent = false;
    for effect in &desk.effects {
        match effect {
            Effect::Reply { content } => say.push(text(content)),
            Effect::React { emoji } => {
                say.extend(
                    about.target.clone().map(|target| Content::Reaction { emoji: emoji.clone(), target }),
                );
            }
            Effect::Skip { .. } => silent = true,
            Effect::Status { .. }
            | Effect::Outcome { .. }
            | Effect::Deliver { .. }
            | Effect::Persisted
            | Effect::Scheduled
            | Effect::Task(_) => {}
        }
    }
    // A run that did not come to its end has answered only if it said something.
    let repeating = matches!(ended, Ended::Repeating);
    let cut_short = repeating || matches!(ended, Ended::Limit);
    let notice = match ended {
        Ended::Cancelled => return Err(How::Cancelled),
        Ended::Failed(kind, reason) => return Err(How::Failed(kind, reason)),
        Ended::Tools => None,
        Ended::Text(words) if speech.of_text(&words).is_some() => Some("unfit"),
        Ended::Text(words) if !words.trim().is_empty() => {
            say.push(text(words.trim()));
            None
        }
        Ended::Text(_) => Some("empty"),
        Ended::Limit => Some("turn_limit"),
        Ended::Repeating => Some("turn_loop"),
    };
    if let Some(notice) = notice
        && !say.iter().any(|content| !cut_short || matches!(content, Content::Text { .. }))
        && !silent
        && desk.started == 0
        && (about.direct || repeating)
    {
        say.push(text(prompts::notice(notice)));
    }
    Ok(say)
}

fn commit(
    parts: &AgentParts,
    job: &Job,
    input: &Input,
    say: Vec<Content>,
    base: TurnCommit,
    aside: Option<Aside>,
) -> How {
    let mut lines: Vec<NewLine> = Vec::with_capacity(input.results.len() + input.messages.len() + 1);
    for result in &input.results {
        let part =
            Part::Result { process: result.process, task: result.task.clone(), text: result.text.clone() };
        let content = turn::write(&[part]);
        lines.push(NewLine {
            role: Role::Event,
            sender_id: None,
            sender_name: None,
            content,
            at: parts.conversations.now(),
        });
    }
    for Received { message, .. } in &input.messages {
        lines.push(NewLine {
            role: Role::User,
            sender_id: Some(message.sender_id.clone()),
            sender_name: Some(message.sender_name.clone()),
            content: message.content.clone(),
            at: message.sent_at,
        });
    }
    let words: Vec<_> = say
        .iter()
        .filter_map(|content| match content {
            Content::Text { text } => Some(text.as_str()),
            Content::Reaction { .. } => None,
        })
        .collect();
    if !words.is_empty() {
        let content = words.join("\n\n");
        lines.push(NewLine {
            role: Role::Assistant,
            sender_id: None,
            sender_name: None,
            content,
            at: parts.conversations.now(),
        });
    }
    let outbox = if say.is_empty() { Vec::new() } else { vec![job.place.instance.clone()] };
    let commit = TurnCommit {
        answered: input.messages.iter().map(|received| received.id).collect(),
        relayed: input.results.iter().map(|result| result.process).collect(),
        lines,
        say,
        answers: input.answers(),
        ..base
    };
    match parts.conversations.commit_turn_and(&job.place, commit, move |connection, now| match aside {
        Some(aside) => aside.write(connection, now),
        None => Ok(()),
    }) {
        Ok(()) => How::Turned {
            covered: input.messages.last().map(|received| received.id).or(input.covered),
            more: input.more,
            outbox,
        },
        Err(error) => failed(&error),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::{ConversationId, InboxId, InstanceId, ProcessId};
    use crate::message::Inbound;

    fn said(id: i64) -> Received {
        let message = Inbound {
            instance: InstanceId::new("webhook"),
            platform_id: format!("m{id}"),
            conversation: ConversationId::new("webhook:c"),
            agent: None,
            sender_id: "u".to_owned(),
            sender_name: "u".to_owned(),
            content: "x".to_owned(),
            sent_at: Timestamp(0),
            direct: true,
            addressed: true,
            place: String::new(),
        };
        Received { id: InboxId(id), message }
    }

    fn result(answers: &[&str]) -> WaitingResult {
        WaitingResult {
            process: ProcessId::parse(ProcessKind::Branch, "1").expect("a branch"),
            task: String::new(),
            text: String::new(),
            answers: answers.iter().map(|answer| (*answer).to_owned()).collect(),
        }
    }

    #[test]
    fn a_turn_with_results_and_messages_answers_both_and_asks_for_the_messages() {
        let results = || vec![result(&["m1", "m2"]), result(&["m2"])];
        let mixed =
            Input { messages: vec![said(2), said(3)], results: results(), more: false, covered: None };
        assert_eq!(mixed.answers(), ["m1", "m2", "m3"]);
        assert_eq!(mixed.askers(), ["m2", "m3"]);
        let relayed = Input { messages: Vec::new(), results: results(), more: false, covered: None };
        assert_eq!(relayed.answers(), ["m1", "m2"]);
        assert_eq!(relayed.askers(), ["m1", "m2"]);
    }
}
