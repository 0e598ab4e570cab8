//! The channel: one turn of a conversation, from unanswered messages and waiting results to one
//! commit that answers them.

mod attached;
mod deferral;
mod earlier;
mod input;
mod people;
mod run;
mod talking;
mod toolset;

use std::sync::Arc;

use rig_agent::run::RunSpec;
use serde_json::json;

use super::aloud::Aloud;
use super::driver::{Counts, Driver, Ended};
use super::job::{Job, Turn};
use super::journal::RunJournal;
use super::link::{Link, ProcessDesk};
use super::past::Past;
use super::{AgentParts, compactor, cortex, delegation, happening, prompt, recent, status};
use crate::clock::Timestamp;
use crate::config::Delegation;
use crate::conversation::{NewLine, Role, Routed, TurnCommit};
use crate::cron::store;
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::effect::Effect;
use crate::error::{Fault, Kind};
use crate::event::{Fork, How, Origin, Received, What};
use crate::hooks::LoopGuard;
use crate::id::{ProcessId, ProcessKind};
use crate::llm;
use crate::message::Content;
use crate::message::attachment::with_lines;
use crate::prompts;
use crate::tools::speech::Speech;
use crate::turn::{self, Part};
use crate::working_memory::NewEvent;
use input::Input;
use talking::Talking;

pub(super) use run::{About, conclude};
pub(super) use talking::Closing;

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
    let defers = match deferral::is_on(parts, job, turn) {
        Ok(defers) => defers,
        Err(error) => return failed(&error),
    };
    if defers && let Some(how) = deferral::before(parts, job, &input) {
        return how;
    }
    match answer(parts, job, turn, &mut input, link) {
        Ok(How::Failed(kind, reason)) if defers && deferral::is_for(kind) => {
            log::info!("messages of {} wait for a model: {reason}", job.place.conversation);
            deferral::keep(parts, job, &input, None)
        }
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
    let messages = input.messages.iter().map(|received| received.message.platform_id.clone()).collect();
    let event = happening::turn_failed(parts, job, kind, messages);
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

fn answer(
    parts: &AgentParts,
    job: &Job,
    turn: &Turn,
    input: &mut Input,
    link: &Link<'_>,
) -> Result<How, Box<dyn Fault>> {
    let conversation = &job.place.conversation;
    let settings = parts.settings(&job.place).map_err(boxed)?;
    let routing = parts.config.routing.with(&settings.models);
    let limits = &parts.config.limits;
    let max_turns = match settings.delegation {
        Delegation::Direct if turn.execution.is_none() => limits.worker_max_turns,
        _ => limits.max_turns,
    };
    let history = compactor::history(parts, &job.place).map_err(boxed)?;
    let mut words = input.parts(parts, job.place.direct).map_err(boxed)?;
    let first = history.lines.first().map(|line| line.id);
    let summaries: Vec<i64> = history.summaries.iter().map(|summary| summary.id).collect();
    let fork = Fork {
        summaries: summaries.as_slice().into(),
        lines: first.zip(history.lines.last().map(|line| line.id)),
        words: turn::write(&words).into(),
        outside: input.attached().any || history.holds_earlier(),
    };
    let defers = deferral::is_on(parts, job, turn).map_err(boxed)?;
    if defers {
        words.extend(deferral::note(parts, job, input).map_err(boxed)?);
    }
    words.extend(earlier::text(parts, job, input, settings.delegation == Delegation::Direct).map(Part::Note));
    words.extend(people::text(parts, job, settings.memory_mode, &input.messages).map(Part::People));
    words.extend(recent::text(parts, job, history.lines.first().map(|line| line.at)).map(Part::Recent));
    words.push(Part::Status(
        status::render(&turn.running, parts.conversations.now(), &parts.config.timezone).map_err(boxed)?,
    ));
    let past = Past::of(&history.summaries, fork.lines);
    let outside = fork.outside;
    let origin = Origin { answers: input.askers(), fork, turn: Some(job.process.number) };
    let words = turn::write(&words);
    let briefing = cortex::briefing(parts, &job.place);
    let mut start = json!({
        "kind": "channel",
        "conversation": conversation.as_str(),
        "messages": input.messages.iter().map(|received| &received.message.platform_id).collect::<Vec<_>>(),
        "results": input.results.iter().map(|result| result.process.to_string()).collect::<Vec<_>>(),
        "direct": job.place.direct,
        "visit": turn.execution.is_some(),
        "bulletin": briefing,
        "prompt": words,
    });
    let prompt = llm::attached::message(&words, &input.attached().shown);
    if !input.attached().shown.is_empty() {
        start["attachments"] = json!(input.attached().shown);
    }
    let speech = toolset::speech(parts);
    let model = parts.llm.model_for(&routing, ProcessKind::Channel);
    let model = model.paid_by(job.payer(&parts.config.id));
    let model = model.with_files(Arc::new(parts.conversations.attachments()));
    let mut driver = Driver {
        link,
        model: Box::new(Aloud {
            model: match turn.execution {
                // A job that fails again and again is to be noticed.
                Some(_) => model.offline_only_while_away(),
                None if defers => model.without_offline(),
                None => model,
            },
            link,
            speech: speech.clone(),
            clock: parts.conversations.clock().clone(),
        }),
        toolbox: Box::new(match turn.execution {
            Some(_) => toolset::of_job(parts),
            None => toolset::of_channel(parts, job, &settings, input.depth(parts).map_err(boxed)?),
        }),
        desk: ProcessDesk::new(link, origin),
        journal: RunJournal::new(&parts.conversations, job.process.number),
        spec: RunSpec {
            preamble: Some(match turn.execution {
                Some(_) => parts.prompts.scheduled(),
                None => parts
                    .prompts
                    .channel(&job.place, settings.delegation, briefing.as_deref())
                    .map_err(boxed)?,
            }),
            max_turns: Some(max_turns + 1),
            ..RunSpec::new()
        },
        counts: Counts { max_model_calls: max_turns, ..Counts::default() },
        guard: LoopGuard::new(parts.config.loop_guard.of(ProcessKind::Channel)),
    };
    let summaries = history.summaries.iter().map(prompt::summary);
    let history = summaries.chain(history.lines.iter().map(prompt::line)).collect::<Vec<_>>();
    if outside {
        driver.toolbox.read_outside();
    }
    driver.begin(start, &past, &history);
    let closing = Closing::new(&speech, turn.execution.is_none());
    let mut talking = Talking::new(parts, job, link, input, closing);
    let (ended, run) = driver.drive(prompt, history, &mut talking);
    let about = input.about(job.place.direct, turn.execution.is_some());
    let (say, outcome) = match conclude(&mut driver, ended, &run, &about, &speech) {
        Ok(talked) => talked,
        Err(how) => {
            driver.give_up();
            return Ok(how);
        }
    };
    let outcome = turn.execution.map(|execution| Aside::Outcome((execution, outcome)));
    let delegations = delegation::of(&driver.desk);
    let delegates = !delegations.is_empty();
    let routed = routed(&driver.desk);
    let mut workers: Vec<_> =
        routed.iter().map(|routed| ProcessId::new(ProcessKind::Worker, routed.worker)).collect();
    workers.dedup();
    let (journal, started) = (driver.journal.take(), std::mem::take(&mut driver.desk.runs));
    let base = TurnCommit { journal, delegations, routed, started, ..TurnCommit::default() };
    let how = commit(parts, job, input, say, base, outcome);
    if delegates && matches!(how, How::Turned { .. }) {
        (link.up)(What::Delegated);
    }
    if !workers.is_empty() && matches!(how, How::Turned { .. }) {
        (link.up)(What::Routed(workers));
    }
    Ok(how)
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

/// What the turn has for workers, for its commit.
fn routed(desk: &ProcessDesk<'_>) -> Vec<Routed> {
    let told = desk.effects.iter().filter_map(|effect| match effect {
        Effect::Route { worker, message } => Some(Routed { worker: *worker, message: message.clone() }),
        _ => None,
    });
    told.collect()
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

/// What the turn says, from its effects and its last words. A person who wrote directly or addressed the
/// agent always gets an answer, unless something is on its way, or the model chose silence for who wrote
/// directly.
fn said(ended: Ended, desk: &ProcessDesk<'_>, about: &About, speech: &Speech) -> Result<Vec<Content>, How> {
    let mut say: Vec<Content> = Vec::new();
    let mut silent = false;
    for (number, effect) in desk.effects.iter().enumerate() {
        match effect {
            Effect::Reply { content } => say.push(text(content)),
            Effect::React { emoji } => {
                say.extend(
                    about.newest_at(number).map(|target| Content::Reaction { emoji: emoji.clone(), target }),
                );
            }
            Effect::Skip { .. } => silent = true,
            Effect::Status { .. }
            | Effect::Outcome { .. }
            | Effect::Deliver { .. }
            | Effect::Delegate { .. }
            | Effect::Route { .. }
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
    let (direct, asked) = (about.direct, about.direct || about.addressed);
    let notice = match notice {
        // Who writes directly knows that silence is one; in company it looks like a deaf ear.
        _ if silent => (!direct && asked && say.is_empty()).then_some("silent"),
        notice => notice.filter(|_| asked || repeating),
    };
    if let Some(notice) = notice
        && !say.iter().any(|content| !cut_short || matches!(content, Content::Text { .. }))
        && desk.started == 0
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
    for Received { message, attachments, .. } in &input.messages {
        lines.push(NewLine {
            role: Role::User,
            sender_id: Some(message.sender_id.clone()),
            sender_name: Some(message.sender_name.clone()),
            content: with_lines(&message.content, attachments),
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
    let spawned: Vec<_> =
        commit.started.iter().filter_map(|run| happening::spawned(parts, job, run)).collect();
    match parts.conversations.commit_turn_and(&job.place, commit, move |connection, now| {
        spawned.iter().try_for_each(|event| event.insert_once(connection, now))?;
        aside.map_or(Ok(()), |aside| aside.write(connection, now))
    }) {
        Ok(()) => How::Turned {
            covered: input.messages.last().map(|received| received.id).or(input.covered),
            more: input.has_more(),
            outbox,
        },
        Err(error) => failed(&error),
    }
}
