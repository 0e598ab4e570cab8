//! A silent run that reads something and keeps what is worth remembering of it: a part of a file, or of a
//! conversation. It ends by naming exactly what it saved, and with nothing else. Nothing of it is stored
//! before that; whoever began it stores all of it together with the note that this is done.

use std::sync::OnceLock;

use rig_agent::run::RunSpec;
use rig_core::completion::{Message, ToolDefinition};
use serde_json::{Value, json};

use super::AgentParts;
use super::driver::{Conduct, Counts, Driver, Ended};
use super::job::Job;
use super::journal::RunJournal;
use super::link::{Link, ProcessDesk};
use super::past::Past;
use super::toolbox::Toolbox;
use crate::conversation::Record;
use crate::effect::Effect;
use crate::event::Origin;
use crate::hooks::LoopGuard;
use crate::id::ProcessKind;
use crate::llm::SpacebotModel;
use crate::memory::{Draft, DraftEnd, Origin as MemoryOrigin};
use crate::prompts;
use crate::tools::Tool;
use crate::tools::memory_delete::MemoryDelete;
use crate::tools::memory_persistence_complete::MemoryPersistenceComplete;
use crate::tools::memory_recall::MemoryRecall;
use crate::tools::memory_save::MemorySave;

/// Times in a row that a model is told to end properly.
const MAX_NUDGES: usize = 2;

/// What is read, by whom and how.
pub(super) struct Reading {
    /// Of which the loop guard and the model are.
    pub(super) kind: ProcessKind,
    pub(super) model: SpacebotModel,
    pub(super) preamble: String,
    pub(super) words: String,
    /// Model calls.
    pub(super) turns: usize,
    /// The first record of its journal, but for the words.
    pub(super) start: Value,
    /// What was known before may be forgotten too.
    pub(super) may_forget: bool,
    pub(super) draft: Draft,
}

/// What it came to: what is to be stored if it came to its end, and its last records.
pub(super) struct Read {
    pub(super) ended: Ended,
    pub(super) drafted: Option<DraftEnd>,
    pub(super) records: Vec<Record>,
}

impl Reading {
    pub(super) fn run(self, parts: &AgentParts, job: &Job, link: &Link<'_>) -> Read {
        let definitions = if self.may_forget { &WITH_DELETE } else { &DEFINITIONS };
        let mut driver = Driver {
            link,
            model: Box::new(self.model.clone()),
            toolbox: Box::new(Toolbox::new(self.tools(parts, job), definitions)),
            desk: ProcessDesk::new(link, Origin::default()),
            journal: RunJournal::new(&parts.conversations, job.process.number),
            spec: RunSpec {
                preamble: Some(self.preamble.clone()),
                max_turns: Some(self.turns + 1),
                ..RunSpec::new()
            },
            counts: Counts { max_model_calls: self.turns, ..Counts::default() },
            guard: LoopGuard::new(parts.config.loop_guard.of(self.kind)),
        };
        let mut start = self.start.clone();
        start["prompt"] = json!(self.words);
        driver.begin(start, &Past::default(), &[]);
        let ended = take_in(&mut driver, &self.words, &mut UntilComplete::of(self.kind));
        Read { ended, drafted: self.draft.take(), records: driver.journal.take() }
    }

    fn tools(&self, parts: &AgentParts, job: &Job) -> Vec<Box<dyn Tool>> {
        let origin = MemoryOrigin { conversation: job.place.conversation.clone(), process: job.process };
        let (memory, draft) = (&parts.memory, &self.draft);
        let mut tools: Vec<Box<dyn Tool>> = vec![
            Box::new(MemorySave::drafting(draft.clone(), origin.clone())),
            Box::new(MemoryRecall::new(memory.clone())),
        ];
        if self.may_forget {
            tools.push(Box::new(MemoryDelete::drafting(memory.clone(), origin, draft.clone())));
        }
        tools.push(Box::new(MemoryPersistenceComplete::new(draft.clone())));
        tools
    }
}

/// Why nothing is to be stored, in words for the operator.
pub(super) fn why(ended: Ended, turns: usize) -> String {
    match ended {
        Ended::Text(_) | Ended::Tools => "the model did not say what it saved".to_owned(),
        Ended::Repeating => "the model kept repeating the same call".to_owned(),
        Ended::Limit => format!("not read within {turns} model calls"),
        Ended::Cancelled => "it took too long".to_owned(),
        Ended::Failed(_, reason) => reason,
    }
}

/// The run of a reading, from its words to its end; live or from its journal.
pub(super) fn take_in(driver: &mut Driver<'_>, words: &str, conduct: &mut dyn Conduct) -> Ended {
    let (ended, run) = driver.drive(Message::user(words), Vec::new(), conduct);
    let status = if is_complete(&driver.desk) { "done" } else { "failed" };
    let end = json!({ "status": status });
    driver.end(end.clone(), &end, &run.full_history());
    ended
}

fn is_complete(desk: &ProcessDesk<'_>) -> bool {
    desk.effects.contains(&Effect::Persisted)
}

pub(super) struct UntilComplete {
    nudges: usize,
    /// The notice for a model that answers with text.
    nudge: &'static str,
}

impl UntilComplete {
    /// For a reader of this kind: of files, or of what was said.
    pub(super) fn of(kind: ProcessKind) -> Self {
        let nudge = if kind == ProcessKind::Ingestion { "ingestion_nudge" } else { "persistence_nudge" };
        Self { nudges: 0, nudge }
    }
}

impl Conduct for UntilComplete {
    fn on_text(&mut self, _text: &str, _desk: &mut ProcessDesk<'_>) -> Option<String> {
        self.nudges += 1;
        (self.nudges <= MAX_NUDGES).then(|| prompts::notice(self.nudge).to_owned())
    }

    fn on_tools(&mut self, desk: &mut ProcessDesk<'_>) -> bool {
        self.nudges = 0;
        is_complete(desk)
    }
}

/// See [`Toolbox::new`].
static DEFINITIONS: OnceLock<Vec<ToolDefinition>> = OnceLock::new();
static WITH_DELETE: OnceLock<Vec<ToolDefinition>> = OnceLock::new();
