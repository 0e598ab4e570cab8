//! A recorded run once more (P10): the same driver and the same rules, with the journal in the place of
//! models and tools. Nothing is asked, done or written, and it must come to the same.

mod older;
mod player;

use rig_agent::run::RunSpec;
use rig_core::completion::Message;
use serde_json::Value;

use super::channel::About;
use super::driver::{Counts, Driver};
use super::journal::RunJournal;
use super::link::{Link, ProcessDesk};
use super::past::Past;
use super::worker::Worker;
use super::{branch, channel, compactor, digest, ingestion};
use crate::config::{LoopGuardConfig, LoopLimits};
use crate::conversation::{Conversations, JOURNAL_VERSION, Record, Step};
use crate::db::DbError;
use crate::error::{Fault, Kind};
use crate::event::{Origin, What};
use crate::hooks::LoopGuard;
use crate::id::{ConversationId, ProcessKind};
use crate::tools::speech::Speech;
use player::{Again, Player, ids};

/// Model calls of one worker's input where its journal does not say.
const OLD_WORKER_CALLS: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("{0}")]
    Database(#[from] DbError),
    #[error("there is no run {0}; runs are deleted after `keep_days`")]
    NoRun(u64),
    #[error(
        "the journal of run {run} has no step {step}: it was deleted after `keep_days`, or never written"
    )]
    Gap { run: u64, step: u32 },
    #[error("step {step} was too long for the journal")]
    TooLong { step: u32 },
    #[error("step {step} cannot be read: {reason}")]
    Unreadable { step: u32, reason: String },
    #[error("the journal is of version {0}, and this program knows versions up to {JOURNAL_VERSION}")]
    Newer(u64),
    #[error("{0:?} is no kind of run that can be replayed")]
    Unknown(String),
}

impl Fault for ReplayError {
    fn kind(&self) -> Kind {
        match self {
            ReplayError::Database(error) => error.kind(),
            ReplayError::NoRun(_) | ReplayError::Gap { .. } => Kind::NotFound,
            ReplayError::TooLong { .. }
            | ReplayError::Unreadable { .. }
            | ReplayError::Newer(_)
            | ReplayError::Unknown(_) => Kind::Invalid,
        }
    }
}

/// What a replay came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every step and the hash of the end are as recorded.
    Same { hash: String },
    /// Every step is as recorded; journals of version 0 have no hash.
    NoHash,
    /// Every step is as recorded, and there is no end: it runs still, failed, or was cut off.
    CutOff,
    /// The first difference.
    Differs { step: u32, what: String },
}

/// A run that was replayed.
#[derive(Debug, Clone)]
pub struct Replayed {
    pub kind: String,
    /// Of the journal.
    pub version: u64,
    pub records: Vec<Record>,
    /// So many of the records were replayed.
    pub replayed: usize,
    pub verdict: Verdict,
}

/// Replays one run of an agent. `speech` judges what may be said as it did in the daemon: it has to know the
/// same keys.
///
/// # Errors
/// There is nothing that could be replayed.
pub fn replay(conversations: &Conversations, speech: &Speech, run: u64) -> Result<Replayed, ReplayError> {
    let records = conversations.records(run)?;
    let start = records.first().ok_or(ReplayError::NoRun(run))?;
    for (number, record) in (0..).zip(&records) {
        if record.number != number || (number == 0) != (record.step == Step::Start) {
            return Err(ReplayError::Gap { run, step: number });
        }
        if record.payload.get("too_long").is_some() {
            return Err(ReplayError::TooLong { step: number });
        }
    }
    let version = start.payload["version"].as_u64().unwrap_or_default();
    if version > JOURNAL_VERSION {
        return Err(ReplayError::Newer(version));
    }
    let kind = start.payload["kind"].as_str().unwrap_or_default().to_owned();
    let (verdict, replayed) = match history(conversations, &start.payload, version)? {
        Some(history) => {
            let player = Player::new(&records, version);
            again(&player, &kind, &records, history, speech)?;
            player.verdict()
        }
        None => {
            let what = "what it saw of its conversation is not there any more as it was".to_owned();
            (Ok(Verdict::Differs { step: 0, what }), 0)
        }
    };
    let verdict = verdict?;
    Ok(Replayed { kind, version, records, replayed, verdict })
}

/// What stood in front of the prompt. None: it is not what it was. Version 0 does not tell all of it.
fn history(
    conversations: &Conversations,
    start: &Value,
    version: u64,
) -> Result<Option<Vec<Message>>, DbError> {
    let Some(recorded) = start["history"].as_str().filter(|_| version > 0) else {
        return Ok(Some(Vec::new()));
    };
    let conversation = ConversationId::new(start["conversation"].as_str().unwrap_or_default());
    let history = Past::read(start).messages(conversations, &conversation)?;
    Ok((digest::of_messages(&history) == recorded).then_some(history))
}

/// Drives the run; what comes of it stands in the player.
fn again(
    player: &Player<'_>,
    kind: &str,
    records: &[Record],
    mut history: Vec<Message>,
    speech: &Speech,
) -> Result<(), ReplayError> {
    let start = &records[0].payload;
    let version = start["version"].as_u64().unwrap_or_default();
    let words = |key: &str| start[key].as_str().unwrap_or_default().to_owned();
    let (messages, rings) = (crossbeam_channel::never(), crossbeam_channel::never());
    let up = |_: What| {};
    let (cancel, reason) = (&player.cancel, &player.reason);
    let link = Link { up: &up, cancel, reason, messages: &messages, rings: &rings };
    let calls = if version == 0 { older::calls(records) } else { number(start, "calls").unwrap_or_default() };
    let mut driver = Driver {
        link: &link,
        model: Box::new(player),
        toolbox: Box::new(player),
        desk: ProcessDesk::new(&link, Origin::default()),
        journal: RunJournal::new(&player, records[0].run),
        spec: RunSpec {
            max_turns: Some(number(start, "turns").unwrap_or(calls.saturating_add(1))),
            ..RunSpec::new()
        },
        counts: Counts { max_model_calls: calls, ..Counts::default() },
        guard: LoopGuard::new(guard(start, kind)),
    };
    // What comes of it stands in the player.
    match kind {
        "channel" => {
            let about = about(records, version);
            let mut conduct = Again { player, conduct: channel::Closing::new(speech, !about.visit) };
            let (ended, run) = driver.drive(Message::user(words("prompt")), history, &mut conduct);
            channel::conclude(&mut driver, ended, &run, &about, speech).ok();
        }
        "branch" => {
            history.extend(branch::new_words(&words("words")));
            let mut conduct = Again { player, conduct: branch::Thinking };
            branch::think(&mut driver, &words("description"), history, &mut conduct);
        }
        "worker" => {
            let budget = number(start, "budget").unwrap_or(OLD_WORKER_CALLS);
            let mut berth = player;
            Worker::new(driver, budget).work(words("task"), start["interactive"] == true, &mut berth).ok();
        }
        "compactor" => {
            let most = number(start, "bytes").unwrap_or(usize::MAX);
            let mut conduct = Again { player, conduct: compactor::Silent };
            compactor::summary(&mut driver, &words("prompt"), most, &mut conduct).ok();
        }
        "extraction" => {
            let mut conduct = Again { player, conduct: compactor::Silent };
            compactor::read_archive(&mut driver, words("prompt"), &mut conduct).ok();
        }
        "ingestion" => {
            let mut conduct = Again { player, conduct: ingestion::UntilComplete::default() };
            ingestion::take_in(&mut driver, words("prompt"), &mut conduct);
        }
        other => return Err(ReplayError::Unknown(other.to_owned())),
    }
    Ok(())
}

/// What a turn was about, from its first record, the messages that came while it ran, and its end.
fn about(records: &[Record], version: u64) -> About {
    let start = &records[0].payload;
    let conversation = start["conversation"].as_str().unwrap_or_default();
    let mut about = About {
        direct: version == 0 || start["direct"] == true,
        visit: start["visit"] == true || version == 0 && conversation.starts_with("cron:"),
        addressed: records.last().is_some_and(|end| end.payload["addressed"] == true),
        newest: ids(start).pop(),
        heard: Vec::new(),
    };
    let mut effects = 0;
    for record in records {
        effects += record.payload["effects"].as_array().map_or(0, Vec::len);
        if record.step == Step::Route
            && let Some(newest) = ids(&record.payload).pop()
        {
            let before = about.newest.replace(newest);
            about.heard.push((effects, before.unwrap_or_default()));
        }
    }
    about
}

fn number(start: &Value, key: &str) -> Option<usize> {
    start[key].as_u64().and_then(|number| usize::try_from(number).ok())
}

/// As recorded, else the defaults of this program.
fn guard(start: &Value, kind: &str) -> LoopLimits {
    let recorded = serde_json::from_value(start["guard"].clone()).map(LoopLimits::from_numbers);
    recorded.unwrap_or_else(|_| {
        LoopGuardConfig::default().of(match kind {
            "channel" | "compactor" => ProcessKind::Channel,
            "worker" => ProcessKind::Worker,
            _ => ProcessKind::Branch,
        })
    })
}
