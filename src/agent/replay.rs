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
use super::rebuild::{Rebuilt, rebuild};
use super::resume::Onward;
use super::worker::{Next, Worker, take_up};
use super::{Pulse, Stage, branch, channel, compactor, cortex, digest, reading};
use crate::clock::SystemClock;
use crate::config::{LoopGuardConfig, LoopLimits};
use crate::conversation::{Conversations, JOURNAL_VERSION, Record, Step};
use crate::cortex::CortexStore;
use crate::db::DbError;
use crate::error::{Fault, Kind};
use crate::event::{Origin, What};
use crate::hooks::LoopGuard;
use crate::id::{ConversationId, ProcessKind};
use crate::llm::attached;
use crate::message::Attachment;
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
    /// Every step is as recorded, and the last of them is a model that failed.
    Failed { error: Value },
    /// Every step is as recorded, and the last of them is that it was told to stop.
    Stopped { reason: String },
    /// Every step is as recorded, and it waits for input.
    Waits,
    /// Every step is as recorded, and there is no end: it runs still, or was cut off.
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
    /// Files that its model was shown and that are not kept any more. A replay needs their hashes only.
    pub gone: Vec<Attachment>,
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
        Some(history) => lives(&records, version, &kind, &history, speech)?,
        None => {
            let what = "what it saw of its conversation is not there any more as it was".to_owned();
            (Verdict::Differs { step: 0, what }, 0)
        }
    };
    let folder = conversations.attachments();
    let shown = records.iter().flat_map(|record| player::attachments(&record.payload));
    let gone = shown.filter(|file| !folder.has(file)).collect();
    Ok(Replayed { kind, version, records, replayed, verdict, gone })
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
    let past = Past::read(start);
    let history = match start["thread"].as_str() {
        Some(thread) => {
            let store = CortexStore::new(conversations.db().clone(), conversations.clock().clone());
            cortex::chat::seen(&store, thread, past.lines)?
        }
        None => {
            let conversation = ConversationId::new(start["conversation"].as_str().unwrap_or_default());
            past.messages(conversations, &conversation)?
        }
    };
    Ok((digest::of_messages(&history) == recorded).then_some(history))
}

/// Drives the run, and again from each place where it was cut off and went on.
fn lives(
    records: &[Record],
    version: u64,
    kind: &str,
    history: &[Message],
    speech: &Speech,
) -> Result<(Verdict, usize), ReplayError> {
    let start = &records[0].payload;
    let words = |key: &str| start[key].as_str().unwrap_or_default();
    let mut player = Player::new(records, version);
    again(&player, &Run { kind, records, version, from: 0 }, history.to_vec(), speech)?;
    while let Some(next) = player.resumed() {
        player = next;
        let from = player.replayed();
        let mut before = history.to_vec();
        before.extend(branch::new_words(words("words")));
        let prompt = if kind == "worker" { words("task") } else { words("description") };
        match rebuild(before, Message::user(prompt), &records[..from]) {
            Ok(cut) => go_on(&player, &Run { kind, records, version, from }, cut)?,
            Err(error) => player.differs(from, format!("it could not go on: {error}")),
        }
    }
    player.verdict()
}

/// A run from one of its records on: its first, or one that says that it goes on.
struct Run<'a> {
    kind: &'a str,
    records: &'a [Record],
    version: u64,
    from: usize,
}

impl Run<'_> {
    /// What it goes by from there on.
    fn term(&self, key: &str) -> &Value {
        let start = &self.records[0].payload;
        self.records[self.from].payload.get(key).unwrap_or(&start[key])
    }

    fn number(&self, key: &str) -> Option<usize> {
        self.term(key).as_u64().and_then(|number| usize::try_from(number).ok())
    }

    fn driver<'a>(&self, player: &'a &'a Player<'a>, link: &'a Link<'a>) -> Driver<'a> {
        let calls = match self.version {
            0 => older::calls(self.records),
            _ => self.number("calls").unwrap_or_default(),
        };
        let turns = self.number("turns").unwrap_or(calls.saturating_add(1));
        let (run, next) = (self.records[0].run, self.records[self.from].number);
        Driver {
            link,
            model: Box::new(*player),
            toolbox: Box::new(*player),
            desk: ProcessDesk::new(link, Origin::default()),
            journal: RunJournal::after(player, run, next.max(1)),
            spec: RunSpec { max_turns: Some(turns), ..RunSpec::new() },
            counts: Counts { max_model_calls: calls, ..Counts::default() },
            guard: LoopGuard::new(guard(self.term("guard"), self.kind)),
        }
    }

    /// Of a worker.
    fn budget(&self) -> usize {
        self.number("budget").unwrap_or(OLD_WORKER_CALLS)
    }

    fn is_interactive(&self) -> bool {
        self.records[0].payload["interactive"] == true
    }
}

/// Calls `with` with a link at whose other end nobody is.
fn linked<T>(player: &Player<'_>, with: impl FnOnce(&Link<'_>) -> T) -> T {
    let rings = crossbeam_channel::never();
    let up = |_: What| {};
    let (cancel, reason) = (&player.cancel, &player.reason);
    let pulse = Pulse::new(SystemClock::shared());
    with(&Link {
        up: &up,
        cancel,
        reason,
        rings: &rings,
        pulse: &pulse,
        show: &|_| {},
        stage: &Stage::hidden(),
    })
}

/// Drives the run from its start; what comes of it stands in the player.
fn again(
    player: &Player<'_>,
    run: &Run<'_>,
    mut history: Vec<Message>,
    speech: &Speech,
) -> Result<(), ReplayError> {
    let start = &run.records[0].payload;
    let words = |key: &str| start[key].as_str().unwrap_or_default();
    linked(player, |link| {
        let mut driver = run.driver(&player, link);
        match run.kind {
            "channel" => {
                let about = about(run.records, run.version);
                let mut conduct = Again { player, conduct: channel::Closing::new(speech, !about.visit) };
                let prompt = attached::message(words("prompt"), &player::attachments(start));
                let (ended, run) = driver.drive(prompt, history, &mut conduct);
                channel::conclude(&mut driver, ended, &run, &about, speech).ok();
            }
            "branch" => {
                history.extend(branch::new_words(words("words")));
                let onward = Onward { prompt: Message::user(words("description")), recorded: None };
                think(player, &mut driver, onward, history);
            }
            "worker" => {
                history.extend(branch::new_words(words("words")));
                let next = Next::Words(words("task").to_owned());
                let mut worker = Worker::new(driver, run.budget(), history);
                worker.work(next, run.is_interactive(), &mut { player }).ok();
            }
            "compactor" => {
                let most = run.number("bytes").unwrap_or(usize::MAX);
                let mut conduct = Again { player, conduct: compactor::Silent };
                compactor::summary(&mut driver, words("prompt"), most, &mut conduct).ok();
            }
            "cortex" => {
                let mut conduct = Again { player, conduct: compactor::Silent };
                if start["thread"].is_string() {
                    cortex::chat::talk(&mut driver, words("prompt"), history, &mut conduct);
                } else {
                    cortex::answer(&mut driver, words("errand"), words("prompt"), &mut conduct).ok();
                }
            }
            "extraction" if run.version == 0 && older::ends_freely(run.records) => {
                let mut conduct = Again { player, conduct: compactor::Silent };
                reading::take_in(&mut driver, words("prompt"), &mut conduct);
            }
            "extraction" | "memory_persistence" | "ingestion" => {
                let is_file = run.kind == "ingestion";
                let kind = if is_file { ProcessKind::Ingestion } else { ProcessKind::Branch };
                let mut conduct = Again { player, conduct: reading::UntilComplete::of(kind) };
                reading::take_in(&mut driver, words("prompt"), &mut conduct);
            }
            other => return Err(ReplayError::Unknown(other.to_owned())),
        }
        Ok(())
    })
}

/// The same from where it was cut off.
fn go_on(player: &Player<'_>, run: &Run<'_>, mut cut: Rebuilt) -> Result<(), ReplayError> {
    linked(player, |link| {
        let mut driver = run.driver(&player, link);
        match run.kind {
            "branch" => {
                if let Some(onward) = branch::take_up(&mut driver, &mut cut) {
                    think(player, &mut driver, onward, cut.history);
                }
            }
            "worker" => {
                if let Some((mut worker, next)) = take_up(driver, run.budget(), cut) {
                    worker.work(next, run.is_interactive(), &mut { player }).ok();
                }
            }
            other => return Err(ReplayError::Unknown(other.to_owned())),
        }
        Ok(())
    })
}

fn think(player: &Player<'_>, driver: &mut Driver<'_>, onward: Onward, history: Vec<Message>) {
    let mut conduct = Again { player, conduct: compactor::Silent };
    branch::think(driver, onward, history, &mut conduct, &|_| false).ok();
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

/// As recorded, else the defaults of this program.
fn guard(recorded: &Value, kind: &str) -> LoopLimits {
    let recorded = serde_json::from_value(recorded.clone()).map(LoopLimits::from_numbers);
    recorded.unwrap_or_else(|_| {
        LoopGuardConfig::default().of(match kind {
            "channel" | "compactor" => ProcessKind::Channel,
            "worker" => ProcessKind::Worker,
            "cortex" => ProcessKind::Cortex,
            _ => ProcessKind::Branch,
        })
    })
}
