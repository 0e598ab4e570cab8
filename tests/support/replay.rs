//! All runs that a daemon has recorded, replayed.

#![allow(dead_code, unreachable_pub)] // every test file uses a part of this

use std::path::Path;
use std::sync::Arc;

use spacebot::agent::{self, Verdict};
use spacebot::clock::{SystemClock, Timestamp};
use spacebot::config::{self, ProcessEnvironment, Secret};
use spacebot::conversation::Conversations;
use spacebot::db::Db;
use spacebot::secrets::Scrubber;
use spacebot::tools::speech::Speech;

const RUNS_MAX: usize = 1_000_000;

/// Replays every run of every agent below this folder. Each must come to its recorded hash; one without
/// an end must come as far as its journal.
pub(super) fn every_run(folder: &Path) -> usize {
    let mut runs = 0;
    let config = folder.join("config.toml");
    let loaded = config::load(Some(&config), &ProcessEnvironment);
    // A test may leave a config behind that cannot be read.
    let keys: Vec<Secret> = loaded
        .into_iter()
        .flat_map(|loaded| loaded.config.llm.providers)
        .filter_map(|one| one.api_key)
        .collect();
    let speech = Speech::new(Arc::new(Scrubber::new(keys.iter().map(Secret::reveal))));
    let Ok(agents) = std::fs::read_dir(folder.join("agents")) else { return runs };
    for agent in agents.flatten() {
        let path = agent.path().join("data/spacebot.db");
        if !path.exists() {
            continue;
        }
        let conversations = Conversations::new(Db::open_inline(&path, None).unwrap(), SystemClock::shared());
        runs += of_agent(&conversations, &speech).unwrap_or_else(|difference| panic!("{difference}"));
    }
    runs
}

/// The same for the runs of one agent.
pub fn of_agent(conversations: &Conversations, speech: &Speech) -> Result<usize, String> {
    // A run of no kind is a row that the test has put there itself.
    let begun = conversations.runs_begun(Timestamp(i64::MIN), RUNS_MAX).unwrap();
    let mut runs = 0;
    for (run, start) in begun.into_iter().filter(|(_, start)| start["kind"].is_string()) {
        let replayed =
            agent::replay(conversations, speech, run).map_err(|error| format!("run {run}: {error}"))?;
        if let Verdict::Differs { .. } | Verdict::NoHash = replayed.verdict {
            return Err(format!("run {run}, {start}: {:?}\n{:#?}", replayed.verdict, replayed.records));
        }
        runs += 1;
    }
    Ok(runs)
}
