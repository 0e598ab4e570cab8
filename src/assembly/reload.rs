//! Reads the operator's files again while the daemon runs: on the thread `reload`, when the kernel says
//! that one has changed or SIGHUP came. What is good replaces what is in force; what is wrong is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, select};
use sd_notify::NotifyState;
use spacebot::agent::{AgentParts, AgentPrompts};
use spacebot::api::{ConfigFacts, Facts};
use spacebot::cli::logger;
use spacebot::clock::SharedClock;
use spacebot::config::{self, AgentConfig, Config};
use spacebot::error::log_line;
use spacebot::exec::Sandbox;
use spacebot::hub::Agents;
use spacebot::hub::bindings::Bindings;
use spacebot::id::AgentId;
use spacebot::identity::Identity;
use spacebot::prompts::Overrides;
use spacebot::skills::{self, Place, SKILLS_MAX, Shelf, SkillError, Skills};
use spacebot::thread::{self, Cancel, Current};
use spacebot::usage::{Ledger, Rules};
use spacebot::watch::{Bell, Fingerprint, Watched, Watcher, Woken};

use super::ingestion::{Switches, make_folder_of};
use super::{StartError, accounts, facts, humans};

/// What the command line says beside the config.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The file that was named, if one was.
    pub(crate) config: Option<PathBuf>,
    /// A chat stands on the terminal, between whose lines the log would stand.
    pub(crate) chat: bool,
}

/// Folder of an agent's own prompts.
const PROMPTS: &str = "prompts";

/// The files of one agent as they are in force.
#[derive(Clone)]
pub(super) struct Files {
    pub(super) home: PathBuf,
    pub(super) identity: Identity,
    pub(super) overrides: Overrides,
    /// Those in its workspace, where they are offered.
    pub(super) skills: Shelf,
}

impl Files {
    /// At the start: every mistake counts.
    pub(super) fn load(home: PathBuf, config: &AgentConfig, workspace: &str) -> Result<Self, StartError> {
        let fault =
            |error: &dyn spacebot::error::Fault| StartError::of(format!("agent {}", config.id), error);
        let identity = Identity::load_or_seed(&home).map_err(|error| fault(&error))?;
        let (folder, none) = (home.join(PROMPTS), Overrides::default());
        let (overrides, mistakes) = AgentPrompts::overrides(config, &identity, workspace, &folder, &none);
        match mistakes.first() {
            Some(mistake) => Err(fault(mistake)),
            None => {
                let skills = skills_of(config, workspace, &Shelf::default()).0;
                Ok(Self { home, identity, overrides, skills })
            }
        }
    }

    fn watched(&self) -> impl Iterator<Item = Watched> {
        let files = Identity::files(&self.home).into_iter().map(Watched::File);
        files.chain([Watched::Folder(self.home.join(PROMPTS))])
    }
}

/// The skills in a workspace; none where they are not to be offered.
fn skills_of(config: &AgentConfig, workspace: &str, old: &Shelf) -> (Shelf, Vec<SkillError>) {
    if config.skills.workspace {
        old.read_again(&Place::workspace(Path::new(workspace)))
    } else {
        Default::default()
    }
}

/// The folder of skills and what is in it.
fn watched_skills(place: &Place) -> impl Iterator<Item = Watched> + use<> {
    let files = skills::files(place).into_iter().map(Watched::File);
    [Watched::Folder(place.path())].into_iter().chain(files)
}

/// Whom a reload reaches.
pub(super) struct Readers {
    pub(super) hub: Sender<Agents>,
    pub(super) bindings: Arc<Current<Bindings>>,
    pub(super) ingest: Switches,
    pub(super) facts: Arc<Current<Facts>>,
    pub(super) ledger: Ledger,
}

/// What is in force now.
pub(super) struct InForce {
    pub(super) config: Config,
    pub(super) agents: Agents,
    pub(super) files: BTreeMap<AgentId, Files>,
    pub(super) skills: Shelf,
}

/// The running thread.
pub(super) struct Reload {
    bell: Bell,
    cancel: Cancel,
    handle: JoinHandle<()>,
}

impl Reload {
    pub(super) fn start(
        options: Options,
        clock: SharedClock,
        now: InForce,
        readers: Readers,
    ) -> Result<Self, StartError> {
        let failed = |error: std::io::Error| StartError::io("reload thread", &error);
        let bell = Bell::new().map_err(|error| failed(error.into()))?;
        let cancel = Cancel::new();
        let mut reloader = Reloader {
            watcher: Watcher::new(clock.clone(), bell.clone()),
            options,
            clock,
            now,
            readers,
            cancel: cancel.clone(),
            seen: None,
        };
        // Before anything can change: what was read at the start is what the fingerprint is of.
        reloader.look();
        let body = move || reloader.run();
        let handle = thread::spawn("reload", body).map_err(failed)?;
        Ok(Self { bell, cancel, handle })
    }

    /// SIGHUP came.
    pub(super) fn ask(&self) {
        self.bell.ring();
    }

    /// The thread ends soon after.
    pub(super) fn stop(self) -> JoinHandle<()> {
        self.cancel.cancel();
        self.handle
    }
}

struct Reloader {
    watcher: Watcher,
    options: Options,
    clock: SharedClock,
    now: InForce,
    readers: Readers,
    cancel: Cancel,
    /// The files as they were read last.
    seen: Option<Fingerprint>,
}

/// What came of reading the files again.
#[derive(Default)]
struct Outcome {
    /// Keys and files that are new in force.
    taken: Vec<String>,
    mistakes: Vec<String>,
    warnings: Vec<String>,
    /// None: the config could not be read, so what waits is what waited.
    waiting: Option<Vec<String>>,
}

impl Outcome {
    fn take_skills(&mut self, new: &Shelf, old: &Shelf, mistakes: &[SkillError]) {
        self.mistakes.extend(mistakes.iter().map(|mistake| log_line(mistake)));
        self.taken.extend(new.changed_from(old).iter().map(|path| path.display().to_string()));
    }

    fn is_nothing(&self) -> bool {
        self.taken.is_empty() && self.mistakes.is_empty() && self.waiting.iter().all(Vec::is_empty)
    }
}

impl Reloader {
    fn run(&mut self) {
        // A file may have changed between its first reading and the first watch.
        let file = self.now.config.file.as_deref();
        if file.is_none_or(std::path::Path::is_file) {
            let outcome = self.read_again();
            if !outcome.is_nothing() {
                self.tell(outcome);
            }
        }
        loop {
            match self.watcher.wait(&self.cancel) {
                Woken::Cancelled => return,
                Woken::Changed => {
                    if self.look() {
                        self.read_and_tell();
                    }
                }
                Woken::Rung => self.asked(),
            }
        }
    }

    /// On SIGHUP: systemd waits for the end of it.
    fn asked(&mut self) {
        let mut begins = vec![NotifyState::Reloading];
        begins.extend(NotifyState::monotonic_usec_now());
        sd_notify::notify(&begins).ok(); // not under systemd: nobody to tell
        if self.look() || !self.mistakes().is_empty() {
            self.read_and_tell();
        } else {
            log::info!("SIGHUP: nothing has changed");
        }
        sd_notify::notify(&[NotifyState::Ready]).ok(); // the same
    }

    fn read_and_tell(&mut self) {
        let watched = self.watched();
        let outcome = self.read_again();
        self.tell(outcome);
        // What is named since then may hold something already.
        if self.watched() != watched && self.look() {
            let outcome = self.read_again();
            if !outcome.is_nothing() {
                self.tell(outcome);
            }
        }
    }

    fn mistakes(&self) -> Vec<String> {
        self.readers.facts.get().config.mistakes.clone()
    }

    /// Watches the files where they are now; true when they hold something new.
    fn look(&mut self) -> bool {
        let list = self.watched();
        let not_watched = self.watcher.watch(&list).err().map(|error| log_line(&error));
        let seen = Fingerprint::of(&list);
        let is_new = self.seen.replace(seen) != Some(seen);
        let mut facts = (*self.readers.facts.get()).clone();
        if facts.config.not_watched != not_watched {
            if let Some(reason) = &not_watched {
                log::warn!("{reason}");
            }
            facts.config.not_watched = not_watched;
        }
        facts.config.hash = seen.to_string();
        self.readers.facts.set(facts);
        is_new
    }

    fn watched(&self) -> Vec<Watched> {
        let mut places = config::places(self.options.config.as_deref(), &config::ProcessEnvironment);
        // A file further down is not read as long as this one is there.
        if let Some(at) = places.iter().position(|place| Some(place) == self.now.config.file.as_ref()) {
            places.truncate(at + 1);
        }
        let agents = self.now.files.values().flat_map(Files::watched);
        let humans = humans::watched(&self.now.config);
        let of_workspace = |(id, agent): (&AgentId, &Arc<AgentParts>)| {
            let offered = agent.config.skills.workspace && self.now.files.contains_key(id);
            offered.then(|| watched_skills(&Place::workspace(agent.workspace.path())))
        };
        let skills = watched_skills(&Place::instance(&self.now.config.data_folder))
            .chain(self.now.agents.iter().filter_map(of_workspace).flatten());
        places.into_iter().map(Watched::File).chain(agents).chain(humans).chain(skills).collect()
    }

    fn read_again(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let config = self.config(&mut outcome);
        let (config, mistakes) = humans::with_profiles(config, &self.now.config.humans);
        outcome.mistakes.extend(mistakes.iter().map(|mistake| log_line(mistake)));
        outcome.taken.extend(humans::changed(&self.now.config, &config));
        let skills = self.skills(&mut outcome);
        let (agents, files) = self.agents(&config, &skills, &mut outcome);
        if !outcome.taken.is_empty() {
            self.put_in_force(InForce { config, agents, files, skills });
        }
        outcome
    }

    /// The config to go by: the new one, or what is in force.
    fn config(&self, outcome: &mut Outcome) -> Config {
        let old = &self.now.config;
        let config::Loaded { config: new, warnings } = match self.load() {
            Ok(new) => new,
            Err(mistakes) => {
                outcome.mistakes.extend(mistakes);
                return old.clone();
            }
        };
        let taken = config::in_force(old, &new);
        outcome.taken.extend(config::changes(old, &taken));
        outcome.warnings = warnings;
        outcome.waiting = Some(config::changes(&taken, &new));
        taken
    }

    fn load(&self) -> Result<config::Loaded, Vec<String>> {
        let explicit = self.options.config.as_deref();
        let places = config::places(explicit, &config::ProcessEnvironment);
        // A pipe would be waited for, and a file that has gone is no wish for the defaults.
        if let Some(old) = &self.now.config.file
            && !places.iter().any(|place| place.is_file())
        {
            let hint = "its values stay in force until the next start";
            return Err(vec![format!("{}: is no regular file (hint: {hint})", old.display())]);
        }
        let loaded = config::load(explicit, &config::ProcessEnvironment);
        loaded.map_err(|errors| errors.iter().map(|error| log_line(error)).collect())
    }

    /// Those of the whole daemon.
    fn skills(&self, outcome: &mut Outcome) -> Shelf {
        let old = &self.now.skills;
        let (new, mistakes) = old.read_again(&Place::instance(&self.now.config.data_folder));
        outcome.take_skills(&new, old, &mistakes);
        new
    }

    fn agents(
        &self,
        config: &Config,
        skills: &Shelf,
        outcome: &mut Outcome,
    ) -> (Agents, BTreeMap<AgentId, Files>) {
        let llm = (config.llm != self.now.config.llm).then(|| {
            // The old one goes with the last process that has it.
            accounts::models(config, &self.clock, &self.readers.ledger)
        });
        let (mut agents, mut files) = (Agents::new(), BTreeMap::new());
        for agent in &config.agents {
            let (Some(old), Some(known)) = (self.now.agents.get(&agent.id), self.now.files.get(&agent.id))
            else {
                continue;
            };
            let workspace = old.workspace.path().to_string_lossy().into_owned();
            let new = read_files(known, agent, &workspace, outcome);
            let skills = Skills::of(skills, &new.skills);
            if skills.left_out() > 0 {
                let (id, count) = (&agent.id, skills.left_out());
                outcome.warnings.push(format!(
                    "agent {id}: {count} skills of the workspace are left out, more than {SKILLS_MAX} are not offered"
                ));
            }
            let made = AgentPrompts::with(agent, &new.identity, &workspace, &new.overrides, skills);
            let prompts = match made {
                Ok(prompts) => prompts,
                Err(error) => {
                    outcome.mistakes.push(format!("agent {}: {}", agent.id, log_line(&error)));
                    old.prompts.clone()
                }
            };
            let sandbox = if agent.sandbox == old.config.sandbox {
                old.sandbox.clone()
            } else {
                Arc::new(Sandbox::new(&agent.sandbox, old.workspace.path(), &config.data_folder))
            };
            let parts = AgentParts {
                config: agent.clone(),
                prompts,
                conversations: old.conversations.clone(),
                memory: old.memory.clone(),
                llm: llm.clone().unwrap_or_else(|| old.llm.clone()),
                workspace: old.workspace.clone(),
                sandbox,
            };
            agents.insert(agent.id.clone(), Arc::new(parts));
            files.insert(agent.id.clone(), new);
        }
        (agents, files)
    }

    fn put_in_force(&mut self, new: InForce) {
        let level = new.config.log_level;
        logger::hide(&new.config.secrets);
        logger::set_level(if self.options.chat { level.min(log::LevelFilter::Warn) } else { level });
        for (id, agent) in new.agents.iter().filter(|(_, agent)| agent.config.ingestion.enabled) {
            make_folder_of(id, agent.workspace.path());
        }
        let Readers { hub, bindings, ingest, ledger, .. } = &self.readers;
        select! {
            // A hub that is gone has stopped.
            send(hub, new.agents.clone()) -> _ => {}
            recv(self.cancel.receiver()) -> _ => return,
        }
        ledger.set_rules(Rules::of(&new.config));
        bindings.set(Bindings::of(&new.config));
        ingest.set(&new.agents);
        for agent in new.agents.values() {
            agent.memory.set_upkeep(agent.config.memory_upkeep);
        }
        self.now = new;
    }

    fn tell(&self, outcome: Outcome) {
        let Outcome { taken, mistakes, warnings, waiting } = outcome;
        let old = self.readers.facts.get().config.clone();
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
        for mistake in &mistakes {
            log::error!("the old one stays in force: {mistake}");
        }
        if mistakes.is_empty() && !old.mistakes.is_empty() {
            log::info!("read again, all mistakes are mended");
        }
        if !taken.is_empty() {
            log::info!("read again, in force from now on: {}", taken.join(", "));
        }
        let told = old.waits_for_restart.clone();
        let waits_for_restart = waiting.unwrap_or(old.waits_for_restart);
        if !waits_for_restart.is_empty() && waits_for_restart != told {
            log::warn!("read again, waits for a restart: {}", waits_for_restart.join(", "));
        }
        let words = match mistakes.len() {
            0 if waits_for_restart.is_empty() => String::new(),
            0 => format!("waits for a restart: {}", waits_for_restart.join(", ")),
            count => format!("the configuration has mistakes, see the log: {count}"),
        };
        sd_notify::notify(&[NotifyState::Status(&words)]).ok(); // not under systemd: nobody to tell
        let config = ConfigFacts {
            reloads: old.reloads + 1,
            read_at: self.clock.now().to_rfc3339(),
            mistakes,
            waits_for_restart,
            ..old
        };
        self.readers.facts.set(facts(&self.now.config, config, &self.now.agents));
    }
}

/// The files of an agent, where they are good; else what is in force.
fn read_files(known: &Files, config: &AgentConfig, workspace: &str, outcome: &mut Outcome) -> Files {
    let home = known.home.clone();
    let (identity, mistakes) = known.identity.read_again(&home);
    outcome.mistakes.extend(mistakes.iter().map(|mistake| log_line(mistake)));
    let folder = home.join(PROMPTS);
    let (overrides, mistakes) =
        AgentPrompts::overrides(config, &identity, workspace, &folder, &known.overrides);
    outcome.mistakes.extend(mistakes.iter().map(|mistake| log_line(mistake)));
    let texts =
        |identity: &Identity| [identity.soul.clone(), identity.identity.clone(), identity.role.clone()];
    let files = Identity::files(&home).into_iter().zip(texts(&identity)).zip(texts(&known.identity));
    let changed = files.filter(|((_, new), old)| new != old).map(|((file, _), _)| file);
    let own = overrides.changed_from(&known.overrides).map(|name| folder.join(name));
    outcome.taken.extend(changed.chain(own).map(|path| path.display().to_string()));
    let (skills, mistakes) = skills_of(config, workspace, &known.skills);
    outcome.take_skills(&skills, &known.skills, &mistakes);
    Files { home, identity, overrides, skills }
}
