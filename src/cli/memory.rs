//! `spacebot memory …`: works on the database of an agent directly, beside a daemon or without one.

mod events;
mod export;
mod import;
mod originals;
mod proposals;
mod search;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use super::arguments::MemoryAction;
use crate::clock::SystemClock;
use crate::config::{AgentConfig, Config};
use crate::db::Db;
use crate::error::{Fault, Kind};
use crate::ingest::IngestError;
use crate::memory::{MemoryError, MemoryStore, SearchOptions};
use crate::working_memory::WorkingMemory;

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{0}")]
    Memory(#[from] MemoryError),
    #[error("{file}: {error}")]
    File { file: PathBuf, error: io::Error },
    #[error("the output could not be written: {0}")]
    Output(io::Error),
    #[error("{0}")]
    Ingest(#[from] IngestError),
    #[error("{0}")]
    Invalid(String),
    #[error("agent {0} has no memories yet")]
    NoMemories(String),
}

impl Fault for CommandError {
    fn kind(&self) -> Kind {
        match self {
            CommandError::Memory(error) => error.kind(),
            CommandError::Ingest(error) => error.kind(),
            CommandError::File { .. } | CommandError::Output(_) | CommandError::Invalid(_) => Kind::Invalid,
            CommandError::NoMemories(_) => Kind::NotFound,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            CommandError::Memory(error) => error.hint(),
            CommandError::Ingest(error) => error.hint(),
            CommandError::NoMemories(_) => Some("start the daemon once, or import some"),
            _ => None,
        }
    }
}

/// Does what the command line asks. False when something of it was refused, which was said on standard
/// error by then.
///
/// # Errors
/// It could not be done.
pub fn run(config: &Config, agent: Option<&str>, action: MemoryAction) -> Result<bool, CommandError> {
    let owner = owner(config, agent)?;
    let folder = config.data_folder.join("agents").join(owner.id.as_str()).join("data");
    let imports = matches!(action, MemoryAction::Import { .. });
    if imports {
        fs::create_dir_all(&folder).map_err(|error| CommandError::File { file: folder.clone(), error })?;
    } else if !folder.join("spacebot.db").exists() {
        return Err(CommandError::NoMemories(owner.id.to_string()));
    }
    let db = Db::open_inline(&folder.join("spacebot.db"), None).map_err(MemoryError::from)?;
    let needs_vectors = !matches!(action, MemoryAction::Export { .. } | MemoryAction::Events { .. });
    let happened = WorkingMemory::new(db.clone());
    let mut options = SearchOptions::new(&config.memory, &config.data_folder);
    options.embedder.take_if(|_| !needs_vectors);
    let store = MemoryStore::open_with(db, folder.join("index"), SystemClock::shared(), options)?;
    store.set_upkeep(owner.memory_upkeep);
    let done = match action {
        MemoryAction::Import { file } => import::run(&store, &file),
        MemoryAction::Export { output, forgotten } => export::run(&store, output.as_deref(), forgotten),
        MemoryAction::Search { query, mode, memory_type, limit, queries, json, parts } => {
            // One question and the end: there is no later.
            if let Err(error) = store.await_indexes() {
                eprintln!("spacebot: {}", crate::error::log_line(&error));
            }
            let options = search::Options::new(&mode, memory_type.as_deref(), limit, parts.as_deref())?;
            match queries {
                Some(file) => search::many(&store, &options, &file),
                None => search::one(&store, &options, query.as_deref(), json),
            }
        }
        MemoryAction::Events { limit, json } => events::run(&happened, owner, limit.into(), json),
        MemoryAction::Reindex => {
            store.reindex().map_err(CommandError::from).and_then(|()| import::fill(&store)).and_then(|done| {
                reindexed(&store)?;
                Ok(done)
            })
        }
        MemoryAction::Proposals => proposals::list(&store),
        MemoryAction::Decide { proposal, decision } => proposals::decide(&store, proposal, &decision),
        MemoryAction::Stats => statistics(&store, &folder),
    };
    // What was saved may wait for its index; a failure there costs nothing but time later.
    if imports && let Err(error) = store.flush() {
        eprintln!("spacebot: {}", crate::error::log_line(&error));
    }
    done
}

/// The agent that is named, else the default one.
pub(super) fn owner<'a>(config: &'a Config, agent: Option<&str>) -> Result<&'a AgentConfig, CommandError> {
    let missing = || format!("there is no agent {:?} in the config", agent.unwrap_or_default());
    config.agent(agent).ok_or_else(|| CommandError::Invalid(missing()))
}

fn reindexed(store: &MemoryStore) -> Result<(), CommandError> {
    let statistics = store.statistics()?;
    let memories: u64 = statistics.by_type.iter().map(|(_, count)| count).sum();
    let vectors = match statistics.without_vector {
        Some(count) => format!("{} of them by meaning", memories.saturating_sub(count)),
        None => "none of them by meaning: there is no embedding model".to_owned(),
    };
    writeln!(io::stdout(), "{memories} memories are indexed by their words, {vectors}")
        .map_err(CommandError::Output)
}

fn statistics(store: &MemoryStore, folder: &std::path::Path) -> Result<bool, CommandError> {
    let statistics = store.statistics()?;
    let total: u64 = statistics.by_type.iter().map(|(_, count)| count).sum();
    let mut out = io::stdout().lock();
    let mut line =
        |name: &str, value: String| writeln!(out, "{name:<14} {value}").map_err(CommandError::Output);
    line("memories", total.to_string())?;
    for (memory_type, count) in &statistics.by_type {
        line(&format!("  {memory_type}"), count.to_string())?;
    }
    line("forgotten", statistics.forgotten.to_string())?;
    line("associations", statistics.associations.to_string())?;
    line("changes", format!("{}, {} of them in the text index", statistics.changes, statistics.indexed))?;
    match statistics.without_vector {
        Some(count) => line("without vector", count.to_string())?,
        None => line("vectors", "none: there is no embedding model".to_owned())?,
    }
    if let Some(health) = statistics.vector_index {
        line("vector index", health.to_string())?;
    }
    // What was written last stands in the log until it is moved into the file.
    let size = |name| fs::metadata(folder.join(name)).map_or(0, |file| file.len());
    line("database", bytes(size("spacebot.db") + size("spacebot.db-wal")))?;
    Ok(true)
}

fn bytes(count: u64) -> String {
    format!("{:.1} MiB", count as f64 / f64::from(1 << 20))
}
