//! Builds the daemon from its config, once, and takes it down in order. Concrete handles exist here
//! and nowhere else; everybody below gets exactly what it uses.

mod accounts;
mod cortexes;
mod folders;
mod humans;
mod ingestion;
mod polls;
mod reload;
pub(crate) mod replay;
mod stop;
mod watchdog;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use folders::{lock_folder, make_folder};
use ingestion::Ingest;
use nix::fcntl::Flock;
use reload::{Files, InForce, Readers, Reload};
use spacebot::agent::{self, AgentParts, AgentPrompts};
use spacebot::api::{Api, Boards, ConfigFacts, Facts, Gallery};
use spacebot::clock::{SharedClock, SystemClock};
use spacebot::config::{AgentConfig, Config};
use spacebot::conversation::{Conversations, Recovered};
use spacebot::db::Db;
use spacebot::error::{Fault, Kind};
use spacebot::exec::{self, Sandbox};
use spacebot::http::server::{Handler, Limits, Server, ServerHandle, ServerOptions};
use spacebot::hub::bindings::Bindings;
use spacebot::hub::state::{Event, Hub};
use spacebot::hub::{self, AgentIntake, AgentOutbox, Ends, HubParts, Inputs};
use spacebot::id::{AgentId, ConversationId, InstanceId};
use spacebot::llm::LlmManager;
use spacebot::memory::{MemoryStore, SearchOptions};
use spacebot::message::{Bell, Intake, Outbox};
use spacebot::messaging::drafts::Drafts;
use spacebot::messaging::irc;
use spacebot::messaging::mailbox::Mailbox;
use spacebot::messaging::webhook::Webhook;
use spacebot::onlookers::Onlookers;
use spacebot::skills::{Place, Shelf, Skills};
use spacebot::thread::{self, Cancel, Current};
use spacebot::tools::workspace::Workspace;
use spacebot::usage::Ledger;
use stop::{flush, join};
use watchdog::Watchdog;

pub(crate) use reload::Options;

/// How long a thread that was told to stop may take before it is left behind.
const JOIN_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub(crate) struct StartError {
    what: String,
    reason: String,
    kind: Kind,
    hint: Option<String>,
}

impl StartError {
    pub(crate) fn of(what: impl Into<String>, fault: &dyn Fault) -> Self {
        Self {
            what: what.into(),
            reason: fault.to_string(),
            kind: fault.kind(),
            hint: fault.hint().map(str::to_owned),
        }
    }

    pub(crate) fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        Self { what: what.into(), reason: error.to_string(), kind: Kind::Invalid, hint: None }
    }
}

impl Fault for StartError {
    fn kind(&self) -> Kind {
        self.kind
    }
    fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// The running daemon.
pub(crate) struct Daemon {
    control: Sender<Event>,
    hub: JoinHandle<()>,
    agents: BTreeMap<AgentId, Arc<AgentParts>>,
    databases: Vec<JoinHandle<()>>,
    ledger: Ledger,
    server: Option<RunningServer>,
    adapters: Vec<Adapter>,
    ingest: Ingest,
    reload: Reload,
    clock_watch: (Cancel, Option<JoinHandle<()>>),
    /// Held as long as the daemon lives, so that a second one refuses the same data folder.
    _lock: Flock<File>,
}

/// A chat adapter with a connection of its own.
struct Adapter {
    instance: InstanceId,
    cancel: Cancel,
    irc: irc::Adapter,
}

/// What stands before the hub is built.
struct Ground {
    clock: SharedClock,
    agents: hub::Agents,
    files: BTreeMap<AgentId, Files>,
    /// Those of the whole daemon.
    skills: Shelf,
    databases: Vec<JoinHandle<()>>,
    ledger: Ledger,
    /// Of the agents in the ids of answers.
    places: BTreeMap<AgentId, i64>,
    /// What the databases hold for the hub.
    found: Vec<Event>,
    search: SearchOptions,
    progress: cortexes::Progresses,
    onlookers: Arc<Onlookers>,
}

impl Daemon {
    pub(crate) fn start(config: &Config, options: Options) -> Result<Self, StartError> {
        make_folder(&config.data_folder)?;
        let lock = lock_folder(&config.data_folder)?;
        let (config, mistakes) = humans::with_profiles(config.clone(), &[]);
        if let Some(mistake) = mistakes.first() {
            return Err(StartError::of("humans", mistake));
        }
        let config = &config;
        let ground = Ground::lay(config)?;
        let (control, control_in) = bounded(hub::QUEUE_CONTROL);
        let (up, up_in) = bounded(hub::QUEUE_UP);
        let (inbound, inbound_in) = bounded(hub::QUEUE_INBOUND);
        let (commands, commands_in) = bounded(hub::QUEUE_COMMANDS);
        let stopping = Arc::new(AtomicBool::new(false));
        let bindings = Arc::new(Current::new(Bindings::of(config)));
        let facts = Arc::new(Current::new(facts(config, ConfigFacts::default(), &ground.agents)));
        let intake = intake(bindings.clone(), &ground, inbound.clone(), stopping.clone());
        let adapters = start_irc(config, &ground, &intake)?;
        let server = start_server(config, &ground, &intake, (commands, facts.clone()), &adapters)?;
        let ingest = Ingest::start(&ground, inbound.clone())?;
        let mut bells = bells(&adapters, server.as_ref());
        bells.extend(cortexes::bells(&ground).chain([ingest.bell()]));
        let (reloads, reloads_in) = bounded(hub::QUEUE_RELOADS);
        let ledger = ground.ledger.clone();
        let readers = Readers { hub: reloads, bindings, ingest: ingest.switches(), facts, ledger };
        let parts = HubParts {
            agents: ground.agents.clone(),
            bells,
            clock: ground.clock.clone(),
            inputs: Inputs {
                control: control_in,
                up: up_in,
                inbound: inbound_in,
                commands: commands_in,
                reloads: reloads_in,
            },
            ends: Ends { up, inbound: inbound.clone(), onlookers: ground.onlookers.clone() },
            stopping,
        };
        let hub = start_hub(parts, &ground.ledger)?;
        // Both ends of this exist, and the hub is the receiver: what is due is looked for now.
        inbound.send(Event::ClockChanged).ok();
        let clock_watch = watch_clock(&inbound);
        for event in ground.found {
            // The hub is the receiver and has just been started.
            inbound.send(event).ok();
        }
        let Ground { agents, databases, files, skills, clock, ledger, .. } = ground;
        let now = InForce { config: config.clone(), agents: agents.clone(), files, skills };
        let reload = Reload::start(options, clock, now, readers)?;
        Ok(Self {
            control,
            hub,
            agents,
            databases,
            ledger,
            server,
            adapters,
            ingest,
            reload,
            clock_watch,
            _lock: lock,
        })
    }

    /// Reads the operator's files again, soon.
    pub(crate) fn reload(&self) {
        self.reload.ask();
    }

    /// Stops in the written order; true when everything ended in time.
    pub(crate) fn stop(self) -> bool {
        let mut threads = vec![self.reload.stop(), self.ingest.stop()];
        self.control.send(Event::Stop).ok(); // a hub that is gone has stopped
        let hub_ended = self.hub.join().is_ok();
        if !hub_ended {
            log::error!("the hub panicked");
        }
        let (watch, thread) = self.clock_watch;
        watch.cancel();
        threads.extend(thread);
        for adapter in self.adapters {
            flush(&adapter, &self.agents);
            adapter.cancel.cancel();
            threads.extend(adapter.irc.threads);
        }
        if let Some((server, _, workers)) = self.server {
            server.stop();
            threads.extend(workers);
        }
        threads.extend(self.agents.values().filter_map(|agent| agent.memory.stop()));
        let ended = join(threads, JOIN_TIMEOUT);
        for (id, agent) in &self.agents {
            if let Err(error) = agent.memory.flush() {
                log::warn!("the memory index of {id} was not written: {error}");
            }
            agent.conversations.db().close();
        }
        self.ledger.db().close();
        join(self.databases, JOIN_TIMEOUT) && ended && hub_ended
    }
}

impl Ground {
    fn lay(config: &Config) -> Result<Self, StartError> {
        let clock = SystemClock::shared();
        let (ledger, accounts) = accounts::open(config, clock.clone())?;
        let llm = accounts::models(config, &clock, &ledger);
        let ids: Vec<AgentId> = config.agents.iter().map(|agent| agent.id.clone()).collect();
        let places =
            hub::places(ledger.db(), &ids).map_err(|error| StartError::of("instance database", &error))?;
        // Of all agents: one model is loaded once.
        let search = SearchOptions::new(&config.memory, &config.data_folder);
        let mut ground = Self {
            progress: cortexes::progress(config, &*clock),
            clock,
            agents: BTreeMap::new(),
            files: BTreeMap::new(),
            // What is wrong with them the thread `reload` tells: it reads everything again at its start.
            skills: Shelf::default().read_again(&Place::instance(&config.data_folder)).0,
            databases: vec![accounts],
            onlookers: accounts::onlookers(&ledger),
            ledger,
            places,
            found: Vec::new(),
            search,
        };
        config.agents.iter().try_for_each(|agent| ground.add_agent(config, agent, &llm))?;
        Ok(ground)
    }

    fn add_agent(
        &mut self,
        config: &Config,
        agent: &AgentConfig,
        llm: &Arc<LlmManager>,
    ) -> Result<(), StartError> {
        let fault =
            |what: &str, error: &dyn Fault| StartError::of(format!("agent {}: {what}", agent.id), error);
        let home = config.data_folder.join("agents").join(agent.id.as_str());
        let (data, folder) = (home.join("data"), home.join("workspace"));
        make_folder(&data)?;
        make_folder(&folder)?;
        if agent.ingestion.enabled {
            ingestion::make_folder_of(&agent.id, &folder);
        }
        let (db, handle) = Db::open(&data.join("spacebot.db"), agent.id.as_str())
            .map_err(|error| fault("database", &error))?;
        self.databases.push(handle);
        let conversations = Conversations::new(db.clone(), self.clock.clone());
        let sandbox = Sandbox::new(&agent.sandbox, &folder, &config.data_folder);
        let recovered = agent::recover(&conversations, &agent.limits, &agent.working_memory)
            .map_err(|error| fault("recovery", &error))?;
        tell_recovered(&agent.id, &recovered, &sandbox);
        match conversations.sweep_attachments() {
            Ok(0) => {}
            Ok(swept) => {
                log::info!("agent {}: {swept} files that belong to no message were deleted", agent.id)
            }
            Err(error) => {
                log::warn!("agent {}: files of messages were not looked through: {error}", agent.id)
            }
        }
        let resumed = |run| Event::Resumed { agent: agent.id.clone(), run };
        self.found.extend(recovered.resumed.into_iter().map(resumed));
        self.found.extend(hub::events_of(&agent.id, recovered.unfinished));
        let memory = MemoryStore::open_with(db, data.join("index"), self.clock.clone(), self.search.clone())
            .map_err(|error| fault("memory", &error))?;
        memory.set_upkeep(agent.memory_upkeep);
        let workspace = Workspace::open(&folder).map_err(|error| fault("workspace", &error))?;
        // As the file tools know it, and as a reload will show it.
        let shown = workspace.path().to_string_lossy();
        let files = Files::load(home, agent, &shown)?;
        let skills = Skills::of(&self.skills, &files.skills);
        let prompts = AgentPrompts::with(agent, &files.identity, &shown, &files.overrides, skills)
            .map_err(|error| fault("prompts", &error))?;
        self.files.insert(agent.id.clone(), files);
        memory.catch_up();
        let parts = AgentParts {
            config: agent.clone(),
            prompts,
            conversations,
            memory,
            llm: llm.clone(),
            workspace: Arc::new(workspace),
            sandbox: Arc::new(sandbox),
        };
        let cut_off = agent::end_cut_off_runs(&parts).map_err(|error| fault("jobs", &error))?;
        if cut_off > 0 {
            log::warn!(
                "agent {}: {cut_off} jobs were running when the daemon stopped; they are not run again",
                agent.id
            );
        }
        agent::introduce(&parts).map_err(|error| fault("profile", &error))?;
        self.found.extend(hub::unremembered(&agent.id, &parts).map_err(|error| fault("memories", &error))?);
        self.found.extend(hub::ready_tasks(&agent.id, &parts).map_err(|error| fault("tasks", &error))?);
        self.found.extend(hub::post_waits(&agent.id, &parts).map_err(|error| fault("links", &error))?);
        self.agents.insert(agent.id.clone(), Arc::new(parts));
        Ok(())
    }

    fn outbox(&self) -> Arc<dyn Outbox> {
        let of = |(id, agent): (&AgentId, &Arc<AgentParts>)| {
            self.places.get(id).map(|place| (*place, agent.conversations.clone()))
        };
        Arc::new(AgentOutbox::new(self.agents.iter().filter_map(of).collect()))
    }
}

/// What the operator should know about a start after a crash; ends what it left running.
fn tell_recovered(agent: &AgentId, recovered: &Recovered, sandbox: &Sandbox) {
    let unknown = recovered.unknown_sends;
    if unknown > 0 {
        log::warn!(
            "agent {agent}: {unknown} answers were being sent when the daemon stopped; they are not sent again"
        );
    }
    let resumed = recovered.resumed.len();
    if resumed > 0 {
        log::info!("agent {agent}: {resumed} branches and workers that were cut off go on");
    }
    let left = if recovered.runs_cut_off { exec::end_leftovers(sandbox) } else { 0 };
    if left > 0 {
        log::warn!("agent {agent}: {left} processes of a command were still running and were ended");
    }
}

fn intake(
    bindings: Arc<Current<Bindings>>,
    ground: &Ground,
    hub: Sender<Event>,
    stopping: Arc<AtomicBool>,
) -> Arc<dyn Intake> {
    let conversations =
        ground.agents.iter().map(|(id, agent)| (id.clone(), agent.conversations.clone())).collect();
    Arc::new(AgentIntake::new(bindings, conversations, hub, stopping))
}

fn start_irc(config: &Config, ground: &Ground, intake: &Arc<dyn Intake>) -> Result<Vec<Adapter>, StartError> {
    let mut adapters = Vec::new();
    for irc in &config.irc {
        let cancel = Cancel::new();
        let started =
            irc::start(irc.clone(), intake.clone(), ground.outbox(), ground.clock.clone(), cancel.clone());
        let started = started.map_err(|error| StartError::of(irc.instance.as_str(), &error))?;
        adapters.push(Adapter { instance: irc.instance.clone(), cancel, irc: started });
    }
    Ok(adapters)
}

fn listen(what: &str, bind: std::net::IpAddr, port: u16) -> Result<TcpListener, StartError> {
    TcpListener::bind((bind, port))
        .map_err(|error| StartError::io(format!("{what} on {bind}:{port}"), &error))
}

type RunningServer = (ServerHandle, Arc<Drafts>, Vec<JoinHandle<()>>);

fn start_server(
    config: &Config,
    ground: &Ground,
    intake: &Arc<dyn Intake>,
    (commands, facts): (Sender<spacebot::command::Command>, Arc<Current<Facts>>),
    adapters: &[Adapter],
) -> Result<Option<RunningServer>, StartError> {
    let drafts = Arc::new(Drafts::new(&*ground.clock));
    let mailbox = |name: &str| {
        let (clock, instance) = (ground.clock.clone(), InstanceId::new(name));
        Mailbox::new(intake.clone(), ground.outbox(), drafts.clone(), clock, instance)
    };
    let mut listeners: Vec<(TcpListener, Arc<dyn Handler>)> = Vec::new();
    if config.webhook.enabled {
        let token = config.webhook.auth_token.clone();
        let listener = listen("webhook", config.webhook.bind, config.webhook.port)?;
        listeners.push((listener, Arc::new(Webhook::new(mailbox("webhook"), token))));
    }
    if config.api.enabled {
        let states: Vec<_> = adapters
            .iter()
            .map(|adapter| (adapter.instance.to_string(), adapter.irc.state.clone()))
            .collect();
        let api = Api {
            mailbox: mailbox("portal"),
            hub: commands,
            token: config.api.auth_token.clone(),
            facts,
            boards: boards(ground),
            cortexes: cortexes::of(ground),
            gallery: Gallery::new(ground.onlookers.clone()),
            adapters: Arc::new(move || {
                states.iter().map(|(name, state)| (name.clone(), state.describe())).collect()
            }),
        };
        listeners.push((listen("api", config.api.bind, config.api.port)?, Arc::new(api)));
    }
    if listeners.is_empty() {
        return Ok(None);
    }
    let options =
        ServerOptions { clock: ground.clock.clone(), cancel: Cancel::new(), limits: Limits::default() };
    let started = Server::start(listeners, options);
    let (server, threads) = started.map_err(|error| StartError::of("http server", &error))?;
    Ok(Some((server, drafts, threads)))
}

fn boards(ground: &Ground) -> Boards {
    ground.agents.iter().map(|(id, agent)| (id.clone(), agent.tasks())).collect()
}

fn facts(config: &Config, about: ConfigFacts, agents: &hub::Agents) -> Facts {
    let file = config.file.as_ref().map(|file| file.display().to_string());
    // All agents have the same.
    let llm = agents.values().next().map(|agent| agent.llm.clone());
    let accounts = llm.clone();
    Facts {
        strained: Arc::new(move || accounts.as_ref().map(|llm| llm.strained(None)).unwrap_or_default()),
        lost: Arc::new(move || llm.as_ref().map(|llm| llm.lost()).unwrap_or_default()),
        config: ConfigFacts { file, ..about },
        version: env!("CARGO_PKG_VERSION"),
        agents: config.agents.iter().map(|agent| agent.id.to_string()).collect(),
        default_agent: config.default_agent(),
        models: config.agents.iter().map(|agent| agent.routing.channel.clone()).collect(),
    }
}

/// How the hub tells each instance that something waits in the outbox.
fn bells(adapters: &[Adapter], server: Option<&RunningServer>) -> BTreeMap<InstanceId, Arc<dyn Bell>> {
    let mut bells: BTreeMap<InstanceId, Arc<dyn Bell>> = BTreeMap::new();
    for adapter in adapters {
        let bell = adapter.irc.bell.clone();
        bells.insert(adapter.instance.clone(), Arc::new(move |_: &ConversationId| bell.ring()));
    }
    if let Some((server, drafts, _)) = server {
        for name in ["webhook", "portal"] {
            let polls = polls::Polls { server: server.clone(), drafts: drafts.clone() };
            bells.insert(InstanceId::new(name), Arc::new(polls));
        }
    }
    bells
}

fn start_hub(parts: HubParts, ledger: &Ledger) -> Result<JoinHandle<()>, StartError> {
    let mut state = Vec::new();
    for (id, agent) in &parts.agents {
        let next = agent
            .conversations
            .next_process_number()
            .map_err(|error| StartError::of(format!("agent {id}"), &error))?;
        state.push((id.clone(), agent.config.limits.clone(), next));
    }
    let databases = parts.agents.values().map(|agent| agent.conversations.db().clone());
    let databases = databases.chain([ledger.db().clone()]).map(|db| (db.clone(), db.probe())).collect();
    let (every, mut watchdog) = (watchdog::interval(), Watchdog::new(databases));
    let body = move || hub::run(Hub::new(state), parts, every, || watchdog.tick());
    thread::spawn("hub", body).map_err(|error| StartError::io("hub thread", &error))
}

/// Without it, a clock that is set is noticed at the next slot by the old one.
fn watch_clock(hub: &Sender<Event>) -> (Cancel, Option<JoinHandle<()>>) {
    let cancel = Cancel::new();
    let watch = hub::watch_clock(hub.clone(), &cancel);
    let watch = watch.inspect_err(|error| log::warn!("changes of the clock will not be noticed: {error}"));
    (cancel, watch.ok())
}
