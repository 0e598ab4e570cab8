//! What the API tells of the cortexes, and by what.

use std::sync::Arc;

use spacebot::api::Cortexes;

use super::Ground;

pub(super) fn of(ground: &Ground) -> Cortexes {
    let embedder = ground.search.embedder.clone();
    let stores = ground.agents.iter().map(|(id, agent)| (id.clone(), agent.cortex())).collect();
    let embedding = move || match &embedder {
        Some(embedder) if embedder.is_loaded() => "loaded",
        Some(_) => "not loaded",
        None => "off",
    };
    Cortexes { stores, embedding: Arc::new(embedding) }
}
