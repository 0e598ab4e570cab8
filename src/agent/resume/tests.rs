//! A run that is cut off behind any of its records, and goes on, ends as one that was not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rig_agent::run::RunSpec;
use rig_core::completion::{CompletionRequest, ToolDefinition};
use serde_json::json;

use super::*;
use crate::agent::AgentPrompts;
use crate::agent::driver::tests::local_model::{Say, local_model};
use crate::agent::driver::{Conduct, Counts};
use crate::agent::journal::RunJournal;
use crate::agent::link::ProcessDesk;
use crate::agent::room::Trim;
use crate::agent::toolbox::Toolbox;
use crate::agent::{Pulse, Stage, branch, worker};
use crate::clock::{SimulatedClock, SystemClock, Timestamp};
use crate::config::{Environment, LlmConfig, LoopGuardConfig, RoutingConfig, load};
use crate::conversation::{Conversations, Place};
use crate::db::Db;
use crate::event::{Origin, What};
use crate::exec::Sandbox;
use crate::hooks::LoopGuard;
use crate::id::{ConversationId, InstanceId, ProcessId};
use crate::identity::Identity;
use crate::llm::LlmManager;
use crate::memory::MemoryStore;
use crate::thread::Cancel;
use crate::tools::workspace::Workspace;
use crate::tools::{Tool, ToolContext, ToolError};

/// Gives the same result to the same call; every third is an error.
struct Reading;

impl Tool for Reading {
    fn name(&self) -> &'static str {
        "file_read"
    }

    fn parameters(&self) -> Value {
        json!({ "type": "object" })
    }

    fn call(&mut self, arguments: Value, _context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        match arguments["path"].as_u64().unwrap() {
            path if path.is_multiple_of(3) => Err(ToolError::Denied(format!("{path} is closed"))),
            path => Ok(format!("{path} holds {}", path * 7)),
        }
    }
}

/// Decides by the request alone, so that it says the same again.
fn decide(request: &CompletionRequest, seed: u64) -> Vec<Say> {
    let words = format!("{:?}", request.chat_history);
    let hash = words.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let roll = hash >> 40;
    let call = |number: u64| {
        let arguments = json!({ "path": roll.wrapping_add(number) % 1000 }).to_string();
        Say::Call(format!("c{hash:x}{number}"), "file_read".to_owned(), arguments)
    };
    match roll % 10 {
        0 => vec![Say::Text("the end".to_owned())],
        1 => vec![Say::Text(format!("more {roll}"))],
        2 => {
            // Other arguments each time: the guard against loops begins anew with a run that goes on.
            let arguments = json!({ "of": roll }).to_string();
            vec![call(0), call(1), Say::Call(format!("n{hash:x}"), "no_such_tool".to_owned(), arguments)]
        }
        3 => vec![Say::Text("look".to_owned()), call(0)],
        _ => vec![call(0)],
    }
}

/// Without a memory of its own, so that it does the same again.
struct Stateless;

impl Conduct for Stateless {
    fn on_text(&mut self, text: &str, _desk: &mut ProcessDesk<'_>) -> Option<String> {
        text.starts_with("more").then(|| "go on".to_owned())
    }

    fn before_model(&mut self, messages: &[&Message]) -> Option<Trim> {
        let trim = Trim { task: 1, drop: 5, recap: Some(format!("there were {}", messages.len())) };
        // Behind five come a reply and its results, or words: whole pairs.
        let whole = matches!(messages.get(6), Some(Message::Assistant(_)));
        (messages.len() > 9 && whole).then_some(trim)
    }
}

struct Bench {
    _folder: tempfile::TempDir,
    conversations: Conversations,
    llm: LlmManager,
}

static DEFINITIONS: OnceLock<Vec<ToolDefinition>> = OnceLock::new();
const CALLS: usize = 14;

impl Bench {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open_inline(&folder.path().join("t.db"), None).unwrap();
        let clock = SimulatedClock::starting_at(Timestamp(1000));
        let conversations = Conversations::new(db, clock.clone());
        let model = local_model(move |request| Ok(decide(request, seed)));
        let llm = LlmManager::new(&LlmConfig::default(), clock, model);
        Self { _folder: folder, conversations, llm }
    }

    /// From the start, or from where `cut` has left it.
    fn run(&self, number: u64, cut: Option<Rebuilt>) -> (String, Vec<Message>, [usize; 2], Vec<Record>) {
        let (cancel, reason) = (Cancel::new(), OnceLock::new());
        let rings = crossbeam_channel::never();
        let up = |_: What| {};
        let pulse = Pulse::new(SystemClock::shared());
        let link = Link {
            show: &|_| {},
            stage: &Stage::hidden(),
            pulse: &pulse,
            up: &up,
            cancel: &cancel,
            reason: &reason,
            rings: &rings,
        };
        let counts = cut.as_ref().map_or([0, 0], |run| [run.counts.model_calls, run.counts.tool_calls]);
        let mut driver = Driver {
            link: &link,
            model: Box::new(self.llm.model_for(&RoutingConfig::default(), ProcessKind::Branch)),
            toolbox: Box::new(Toolbox::new(vec![Box::new(Reading)], &DEFINITIONS)),
            desk: ProcessDesk::new(&link, Origin::default()),
            journal: RunJournal::new(&self.conversations, number),
            spec: RunSpec { max_turns: Some(CALLS + 1), ..RunSpec::new() },
            counts: Counts {
                max_model_calls: CALLS,
                model_calls: counts[0],
                tool_calls: counts[1],
                ..Counts::default()
            },
            guard: LoopGuard::new(LoopGuardConfig::default().worker),
        };
        driver.journal.add(Step::Start, json!({ "kind": "branch" }));
        let (history, onward) = match cut {
            None => (before(), Onward { prompt: Message::user("p"), recorded: None }),
            Some(mut run) => {
                let onward = Onward::of(&mut run).unwrap();
                (run.history, onward)
            }
        };
        let (ended, run) = driver.drive_on(onward.prompt, history, onward.recorded, &mut Stateless);
        let mut records = self.conversations.records(number).unwrap();
        records.extend(driver.journal.take());
        let counts = [driver.counts.model_calls, driver.counts.tool_calls];
        (format!("{ended:?}"), run.full_history(), counts, records)
    }
}

#[test]
fn the_calls_that_may_be_made_again_are_those_that_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (parts, job) = parts_and_job(folder.path());
    let named = |tools: Vec<Box<dyn Tool>>| Toolbox::new(tools, &DEFINITIONS).repeatable();
    let mut repeatable: Vec<&str> = named(branch::tools(&parts, &job, crate::config::MemoryMode::Full));
    repeatable.extend(named(worker::worker_tools(&parts)));
    repeatable.sort_unstable();
    repeatable.dedup();
    let mut known = REPEATABLE;
    known.sort_unstable();
    assert_eq!(repeatable, known);
}

fn parts_and_job(folder: &Path) -> (AgentParts, Job) {
    let clock = SimulatedClock::starting_at(Timestamp(1000));
    let db = Db::open_inline(&folder.join("t.db"), None).unwrap();
    let config = load(Some(&empty(folder)), &Nothing).unwrap().config.agents.remove(0);
    let identity = Identity::load_or_seed(folder).unwrap();
    let parts = AgentParts {
        prompts: AgentPrompts::new(&config, &identity, "/workspace").unwrap(),
        memory: MemoryStore::open(db.clone(), folder.join("index"), clock.clone()).unwrap(),
        llm: Arc::new(LlmManager::new(&LlmConfig::default(), clock.clone(), local_model(|_| Ok(Vec::new())))),
        workspace: Arc::new(Workspace::open(folder).unwrap()),
        sandbox: Arc::new(Sandbox::new(&config.sandbox, folder, folder)),
        conversations: Conversations::new(db, clock),
        config,
    };
    let place = Place {
        conversation: ConversationId::new("webhook:c"),
        instance: InstanceId::new("webhook"),
        direct: true,
        name: "c".to_owned(),
    };
    let process = ProcessId::new(ProcessKind::Branch, 1);
    (parts, Job { process, place, work: Work::Extraction })
}

/// No variables.
struct Nothing;

impl Environment for Nothing {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }
}

fn empty(folder: &Path) -> PathBuf {
    let file = folder.join("config.toml");
    std::fs::write(&file, "").unwrap();
    file
}

fn before() -> Vec<Message> {
    vec![Message::user("what was said before")]
}

#[test]
fn a_run_that_is_cut_off_anywhere_and_goes_on_ends_as_if_it_had_not_been() {
    let (mut cuts, mut steps, mut endings) = (0, BTreeSet::new(), BTreeSet::new());
    for seed in 0..20 {
        let bench = Bench::new(seed);
        let (ended, history, counts, records) = bench.run(1, None);
        let rebuilt = rebuild(before(), Message::user("p"), &records).unwrap();
        assert_eq!([rebuilt.counts.model_calls, rebuilt.counts.tool_calls], counts, "seed {seed}");
        let said = rebuilt.pending_text().filter(|text| !text.is_empty()).map(Message::assistant);
        assert_eq!(rebuilt.history.len() + usize::from(said.is_some()), history.len(), "seed {seed}");
        assert_eq!(rebuilt.history[..], history[..rebuilt.history.len()], "seed {seed}");
        steps.extend(records.iter().map(|record| record.step.as_str()));
        endings.insert(ended.split('(').next().unwrap().to_owned());
        for length in 1..=records.len() {
            let cut = rebuild(before(), Message::user("p"), &records[..length]).unwrap();
            if !can_go_on(&cut, false) {
                let within = cut.results.is_empty() && cut.unanswered().count() > 0;
                assert!(!cut.results.is_empty() || within, "seed {seed}, {length}: why not?");
                continue;
            }
            cuts += 1;
            let number = 1 + length as u64;
            let (again, left, used, _) = bench.run(number, Some(cut));
            assert_eq!((&again, used), (&ended, counts), "seed {seed}, cut behind {length}");
            assert_eq!(left, history, "seed {seed}, cut behind {length}");
        }
    }
    assert!(cuts > 100, "{cuts}");
    assert_eq!(steps, BTreeSet::from(["start", "model", "tool", "nudge", "trim"]));
    assert_eq!(endings, BTreeSet::from(["Limit".to_owned(), "Text".to_owned()]));
}
