//! What a store of memories is opened with, and what it says about itself.

use std::path::Path;

use super::embed::{Embedder, Settings};
use super::record::MemoryType;
use super::vector_index::{Health, IndexKind};
use crate::config::{Language, MemoryConfig};

/// How memories are found; the default is English words and no meaning.
#[derive(Clone, Default)]
pub struct SearchOptions {
    pub language: Language,
    pub index: IndexKind,
    /// None: no search by meaning.
    pub embedder: Option<Embedder>,
}

impl SearchOptions {
    /// `[memory]`, with an embedder of its own.
    pub fn new(config: &MemoryConfig, data_folder: &Path) -> Self {
        let MemoryConfig { embedding, index, language } = config;
        let embedder = embedding.enabled.then(|| Embedder::new(Settings::new(embedding, data_folder)));
        Self { language: *language, index: *index, embedder }
    }
}

/// What [`MemoryStore::statistics`] returns.
#[derive(Debug, Clone)]
pub struct Statistics {
    /// Without the forgotten ones and empty types.
    pub by_type: Vec<(MemoryType, u64)>,
    pub forgotten: u64,
    pub associations: u64,
    /// Number of the last change.
    pub changes: i64,
    /// The last change that the text index on disk holds.
    pub indexed: i64,
    /// Memories that still wait for their vector; none when there is no model to make one.
    pub without_vector: Option<u64>,
    /// The vector index, if there is a model.
    pub vector_index: Option<Health>,
}
