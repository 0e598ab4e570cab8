//! What the API tells of the cortexes, and by what.

use std::collections::BTreeMap;
use std::sync::Arc;

use spacebot::api::Cortexes;
use spacebot::clock::Clock;
use spacebot::config::Config;
use spacebot::id::{AgentId, InstanceId};
use spacebot::message::{Bell, cortex_bell};
use spacebot::messaging::progress::Progress;

use super::Ground;

/// Of each agent.
pub(super) type Progresses = BTreeMap<AgentId, Arc<Progress>>;

pub(super) fn of(ground: &Ground) -> Cortexes {
    let embedder = ground.search.embedder.clone();
    let stores = ground.agents.iter().map(|(id, agent)| (id.clone(), agent.cortex())).collect();
    let embedding = move || match &embedder {
        Some(embedder) if embedder.is_loaded() => "loaded",
        Some(_) => "not loaded",
        None => "off",
    };
    Cortexes { stores, progress: ground.progress.clone(), embedding: Arc::new(embedding) }
}

/// Who hears what goes on in the threads of each agent.
pub(super) fn progress(config: &Config, clock: &dyn Clock) -> Progresses {
    config.agents.iter().map(|agent| (agent.id.clone(), Arc::new(Progress::new(clock)))).collect()
}

pub(super) fn bells(ground: &Ground) -> impl Iterator<Item = (InstanceId, Arc<dyn Bell>)> {
    let bell =
        |(id, progress): (&AgentId, &Arc<Progress>)| (cortex_bell(id), Arc::clone(progress) as Arc<dyn Bell>);
    ground.progress.iter().map(bell)
}
