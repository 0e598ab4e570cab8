//! How the daemon of a simulation starts: its agents, their models, and what they find in their databases.

#![allow(unreachable_pub)] // one of the parts of one test

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rig_core::DynModel;
use rig_core::operation::Completion;
use spacebot::agent::{self, AgentParts, AgentPrompts};
use spacebot::clock::{Clock, SharedClock, SimulatedClock, Zone};
use spacebot::config::{
    AgentConfig, ApiType, LimitsConfig, LinkedAgent, LlmConfig, OFFLINE_MODEL, OfflineConfig, ProviderConfig,
    Relation, RoutingConfig,
};
use spacebot::conversation::{Conversations, Place};
use spacebot::db::{Db, Schema};
use spacebot::exec::Sandbox;
use spacebot::hub;
use spacebot::hub::state::{Event, Hub};
use spacebot::id::{AgentId, ConversationId, InstanceId};
use spacebot::identity::Identity;
use spacebot::llm::{LlmManager, Tuning};
use spacebot::memory::MemoryStore;
use spacebot::tools::workspace::Workspace;

use crate::accounts::Accounts;
use crate::breaker::COOLDOWN;
use crate::disk::Disk;
use crate::life::Life;
use crate::local_model::faulty_model;
use crate::model::{Models, decide, meanwhile};
use crate::random::Random;
use crate::variant::Variant;
use crate::watch::Watch;
use crate::{CONVERSATIONS, INSTANCE};

/// What stays when the daemon crashes.
#[derive(Clone)]
pub struct Ground {
    pub folder: PathBuf,
    pub clock: Arc<SimulatedClock>,
    /// No further faults of models.
    pub calm: Arc<AtomicBool>,
    pub model_random: Arc<Mutex<Random>>,
    pub models: Arc<Models>,
    pub accounts: Arc<Accounts>,
    pub variant: Variant,
    pub watch: Arc<Watch>,
}

/// How long messages wait for a model at most.
pub const MAX_AGE: Duration = Duration::from_secs(3600);

pub fn main_agent() -> AgentId {
    AgentId::new("main")
}

pub fn other_agent() -> AgentId {
    AgentId::new("den")
}

/// The last conversation is the other agent's.
pub fn agent_of(conversation: &ConversationId) -> AgentId {
    if *conversation == place_of(CONVERSATIONS).conversation { other_agent() } else { main_agent() }
}

pub fn place_of(conversation: u64) -> Place {
    Place {
        conversation: ConversationId::new(format!("{INSTANCE}:{conversation}")),
        instance: InstanceId::new(INSTANCE),
        direct: conversation != 0,
        name: "sim".to_owned(),
    }
}

pub fn limits() -> LimitsConfig {
    LimitsConfig {
        max_concurrent_turns: 2,
        max_concurrent_branches: 2,
        max_concurrent_workers: 2,
        // So small that conversations are compacted again and again.
        history_messages: 8,
        ..LimitsConfig::default()
    }
}

fn config_of(id: &AgentId, variant: Variant) -> AgentConfig {
    let mut config = AgentConfig { limits: limits(), ..AgentConfig::new(id.clone(), "Sim", Zone::utc()) };
    if variant.chained {
        let model = || "sim/a".to_owned();
        let fallbacks = vec!["sim/b".to_owned()];
        let base = RoutingConfig { rate_limit_cooldown: COOLDOWN, ..RoutingConfig::default() };
        config.routing =
            RoutingConfig { channel: model(), branch: model(), worker: model(), fallbacks, ..base };
    }
    config.routing.cortex = variant.cortex.then(|| config.routing.channel.clone());
    config.offline = OfflineConfig { defer: variant.defers, max_age: MAX_AGE };
    if variant.linked {
        let other = if *id == main_agent() { other_agent() } else { main_agent() };
        config.links = vec![LinkedAgent {
            display_name: other.to_string(),
            agent: other,
            relation: Relation::Peer,
            may_ask: true,
            may_be_asked: true,
            messages_per_hour: 20,
        }];
    }
    config
}

impl Ground {
    /// Language models, and what stands behind them; each says what the simulation decides.
    fn llm(&self, disk: &Arc<Disk>) -> LlmManager {
        let clock: SharedClock = self.clock.clone();
        let providers = vec![ProviderConfig::new("sim", ApiType::OpenAi)];
        let config = LlmConfig { providers, ..LlmConfig::default() };
        let tuning = Tuning {
            retry_delay: Duration::ZERO,
            offline_is_a_model: !self.variant.chained,
            jitter: 0.0,
            ..Tuning::default()
        };
        let ground = self.clone();
        let llm = LlmManager::simulated(&config, clock, self.model(OFFLINE_MODEL), tuning, move |name| {
            ground.model(name)
        });
        if self.variant.budget { llm.metered(self.accounts.begin(self, disk)) } else { llm }
    }

    fn model(&self, name: &str) -> DynModel<Completion> {
        let (ground, name) = (self.clone(), name.to_owned());
        faulty_model(move |request| {
            let asked = ground.models.asked(&ground, &name, request);
            meanwhile();
            if let Some(fault) = ground.models.fault(&name) {
                return asked.says(Err(fault));
            }
            let mut random = ground.model_random.lock().unwrap_or_else(PoisonError::into_inner);
            // Rules do not fail.
            let rules = ground.variant.chained && name == OFFLINE_MODEL;
            let calm = rules || ground.calm.load(Ordering::SeqCst);
            asked.says(decide(request, &mut random, calm))
        })
    }

    pub fn agents(&self) -> Vec<AgentId> {
        let other = self.variant.linked.then(other_agent);
        std::iter::once(main_agent()).chain(other).collect()
    }

    /// The databases of a daemon that has never run, which are the same in all worlds: to make them anew takes an eighth
    /// of the time of a world.
    pub fn furnish(&self) {
        static EMPTY: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
        let [agent, instance] = EMPTY.get_or_init(|| [Schema::Agent, Schema::Instance].map(empty));
        for id in self.agents() {
            let folder = self.folder.join(id.as_str());
            make(&folder);
            std::fs::write(folder.join("spacebot.db"), agent).expect("a database");
        }
        std::fs::write(self.folder.join("global.db"), instance).expect("a database");
    }

    pub fn begin(&self, disk: &Arc<Disk>) -> Rc<Life> {
        self.watch.begin();
        let llm = Arc::new(self.llm(disk));
        let (mut agents, mut found, mut limits_of) = (hub::Agents::new(), Vec::new(), Vec::new());
        for id in self.agents() {
            let parts = self.add(&id, disk, &llm, &mut found);
            let next = parts.conversations.next_process_number().expect("number");
            limits_of.push((id.clone(), limits(), next));
            agents.insert(id, Arc::new(parts));
        }
        let life = Rc::new(Life {
            parts: agents[&main_agent()].clone(),
            agents,
            hub: RefCell::new(Hub::new(limits_of)),
            jobs: RefCell::default(),
            carries: RefCell::default(),
            running: RefCell::default(),
            rescan: RefCell::default(),
            unrecorded: RefCell::default(),
            failing: RefCell::default(),
            watch: self.watch.clone(),
        });
        if self.variant.cortex {
            found.insert(0, Event::ClockChanged);
        }
        for event in found {
            life.handle(event, self.clock.monotonic());
        }
        life
    }

    fn add(
        &self,
        id: &AgentId,
        disk: &Arc<Disk>,
        llm: &Arc<LlmManager>,
        found: &mut Vec<Event>,
    ) -> AgentParts {
        let (folder, clock) = (self.folder.join(id.as_str()), self.clock.clone());
        let shared: SharedClock = clock;
        make(&folder);
        let db = Db::open_inline(&folder.join("spacebot.db"), Some(disk.clone()))
            .expect("the database opens after every crash");
        let conversations = Conversations::new(db.clone(), shared.clone());
        let config = config_of(id, self.variant);
        let recovered =
            agent::recover(&conversations, &config.limits, &config.working_memory).expect("recovery");
        let identity = Identity::load_or_seed(&folder).expect("identity");
        let parts = AgentParts {
            prompts: AgentPrompts::new(&config, &identity, "/workspace").expect("prompts"),
            memory: MemoryStore::open(db, folder.join("index"), shared).expect("memory"),
            llm: llm.clone(),
            workspace: Arc::new(Workspace::open(&folder).expect("workspace")),
            sandbox: Arc::new(Sandbox::new(&config.sandbox, &folder, &folder)),
            config,
            conversations,
        };
        agent::introduce(&parts).expect("a profile");
        found.extend(recovered.resumed.into_iter().map(|run| Event::Resumed { agent: id.clone(), run }));
        found.extend(hub::events_of(id, recovered.unfinished));
        found.extend(hub::ready_tasks(id, &parts).expect("tasks"));
        found.extend(hub::unremembered(id, &parts).expect("memories"));
        found.extend(hub::post_waits(id, &parts).expect("links"));
        parts
    }
}

fn empty(schema: Schema) -> Vec<u8> {
    let folder = crate::folder();
    let file = folder.path().join("empty.db");
    drop(Db::open_inline_as(&file, schema, None).expect("a database"));
    assert!(!folder.path().join("empty.db-wal").exists(), "all of it is in the file");
    std::fs::read(file).expect("a database")
}

fn make(folder: &Path) {
    std::fs::create_dir_all(folder).expect("folder");
}
