//! One life of the daemon of a simulation with jobs: its clock, its model, and how it starts.

#![allow(unreachable_pub)] // one of the parts of one test

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rig_core::completion::{CompletionRequest, Message};
use rig_core::message::UserContent;
use serde_json::json;
use spacebot::agent::{self, AgentParts, AgentPrompts, Job};
use spacebot::clock::{Clock, SharedClock, Timestamp, Zone};
use spacebot::config::{AgentConfig, LimitsConfig, LlmConfig};
use spacebot::conversation::Conversations;
use spacebot::cron::Target;
use spacebot::db::Db;
use spacebot::event::StopReason;
use spacebot::exec::Sandbox;
use spacebot::hub::state::Hub;
use spacebot::id::{AgentId, ConversationId, InstanceId, ProcessId};
use spacebot::identity::Identity;
use spacebot::llm::{LlmManager, Tuning};
use spacebot::memory::MemoryStore;
use spacebot::thread::Cancel;
use spacebot::tools::workspace::Workspace;
use spacebot::turn::{self, Part};

use crate::INSTANCE;
use crate::disk::Disk;
use crate::local_model::{Say, local_model};
use crate::random::Random;

/// A wall clock that can be set, and one that cannot.
pub struct Clocks {
    pub wall: AtomicI64,
    pub monotonic: AtomicI64,
}

impl Clocks {
    pub fn pass(&self, milliseconds: i64) {
        self.wall.fetch_add(milliseconds, Ordering::SeqCst);
        self.monotonic.fetch_add(milliseconds, Ordering::SeqCst);
    }

    pub fn set(&self, wall: i64) {
        self.wall.store(wall, Ordering::SeqCst);
    }
}

impl Clock for Clocks {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.monotonic.load(Ordering::SeqCst)).unwrap())
    }
}

/// What the message of a job says: its name and its slot.
fn slot_of(request: &CompletionRequest) -> Option<String> {
    let texts = request.chat_history.iter().filter_map(|message| match message {
        Message::User { content } => Some(content),
        _ => None,
    });
    let parts = texts.flatten().filter_map(|content| match content {
        UserContent::Text(text) => Some(turn::read(&text.text)),
        _ => None,
    });
    parts.flatten().find_map(|part| match part {
        Part::Said { sender, at, .. } => Some(format!("{sender}@{}", at.0)),
        _ => None,
    })
}

fn decide(request: &CompletionRequest, random: &mut Random, calm: bool) -> Result<Vec<Say>, String> {
    let call = |tool: &str, arguments: serde_json::Value| {
        Say::Call("c1".to_owned(), tool.to_owned(), arguments.to_string())
    };
    let has = |tool: &str| request.tools.iter().any(|definition| definition.name.as_str() == tool);
    let roll = if calm { 99 } else { random.below(100) };
    if roll == 0 {
        panic!("simulated panic");
    }
    if has("set_outcome") {
        let outcome = call("set_outcome", json!({ "content": slot_of(request).unwrap_or_default() }));
        return Ok(match roll {
            1..=9 => vec![call("no_such_tool", json!({}))],
            10..=19 => vec![Say::Text("nothing to say".to_owned())],
            20..=34 => vec![outcome, call("branch", json!({ "description": "think" }))],
            35..=44 => vec![call("spawn_worker", json!({ "task": "work" }))],
            _ => vec![outcome],
        });
    }
    if has("set_status") && random.chance(50) {
        return Ok(vec![call("set_status", json!({ "status": "done", "kind": "outcome" }))]);
    }
    Ok(vec![Say::Text("concluded".to_owned())])
}

pub struct Pending {
    pub job: Job,
    pub cancel: Cancel,
    pub reason: Arc<OnceLock<StopReason>>,
}

pub type Stop = (Cancel, Arc<OnceLock<StopReason>>);

/// One life of the daemon.
pub struct Life {
    pub parts: AgentParts,
    pub hub: RefCell<Hub>,
    pub jobs: RefCell<Vec<Pending>>,
    /// Stop requests for the job that runs right now.
    pub running: RefCell<BTreeMap<ProcessId, Stop>>,
    pub looks: RefCell<usize>,
}

pub fn agent_id() -> AgentId {
    AgentId::new("main")
}

pub fn target() -> Target {
    Target {
        conversation: ConversationId::new("sim:c"),
        instance: InstanceId::new(INSTANCE),
        direct: true,
        name: "sim".to_owned(),
    }
}

/// What stays when the daemon crashes.
#[derive(Clone)]
pub struct Ground {
    pub folder: PathBuf,
    pub clock: Arc<Clocks>,
    /// No further faults of the model.
    pub calm: Arc<AtomicBool>,
    /// It fails, again and again.
    pub away: Arc<AtomicBool>,
    pub random: Arc<Mutex<Random>>,
}

pub fn begin(ground: &Ground, disk: &Arc<Disk>) -> Life {
    let (folder, shared): (_, SharedClock) = (ground.folder.as_path(), ground.clock.clone());
    let db = Db::open_inline(&folder.join("spacebot.db"), Some(disk.clone())).expect("the database opens");
    let conversations = Conversations::new(db.clone(), shared.clone());
    let unfinished = conversations.recover("interrupted").expect("recovery").unfinished;
    assert!(unfinished.is_empty(), "a run is not taken up by the inbox: {unfinished:?}");
    let mind = ground.clone();
    let model = local_model(move |request| {
        if mind.away.load(Ordering::SeqCst) {
            return Err("the simulated provider is away".to_owned());
        }
        let mut random = mind.random.lock().unwrap_or_else(PoisonError::into_inner);
        decide(request, &mut random, mind.calm.load(Ordering::SeqCst))
    });
    let limits = LimitsConfig { max_concurrent_turns: 2, max_turns: 2, ..LimitsConfig::default() };
    let zone = "Europe/Berlin".parse::<Zone>().expect("a zone");
    let config = AgentConfig { limits: limits.clone(), ..AgentConfig::new(agent_id(), "Sim", zone) };
    let identity = Identity::load_or_seed(folder).expect("identity");
    let next = conversations.next_process_number().expect("number");
    let tuning = Tuning { retry_delay: Duration::ZERO, ..Tuning::default() };
    let parts = AgentParts {
        prompts: AgentPrompts::new(&config, &identity, "/workspace").expect("prompts"),
        memory: MemoryStore::open(db, folder.join("index"), shared.clone()).expect("memory"),
        llm: Arc::new(LlmManager::tuned(&LlmConfig::default(), shared, model, tuning)),
        workspace: Arc::new(Workspace::open(folder).expect("workspace")),
        sandbox: Arc::new(Sandbox::new(&config.sandbox, folder, folder)),
        config,
        conversations,
    };
    agent::end_cut_off_runs(&parts).expect("recovery of jobs");
    Life {
        parts,
        hub: RefCell::new(Hub::new([(agent_id(), limits, next)])),
        jobs: RefCell::default(),
        running: RefCell::default(),
        looks: RefCell::default(),
    }
}
