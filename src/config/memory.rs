//! `[memory]` and `[memory.embedding]`: how memories are found again.

use std::path::PathBuf;
use std::time::Duration;

/// `[memory]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryConfig {
    pub embedding: EmbeddingConfig,
    pub index: VectorIndexKind,
    pub language: Language,
}

/// How vectors near a question are found (`memory.index`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VectorIndexKind {
    /// What measured best for the number of vectors (docs/MEMORY.md); today that is always
    /// [`VectorIndexKind::Sketch`].
    #[default]
    Auto,
    Sketch,
    /// A graph of neighbours (`hnsw_rs`) beside the sketches.
    Hnsw,
}

impl VectorIndexKind {
    /// Every kind with its name in the config.
    pub const ALL: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("sketch", Self::Sketch), ("hnsw", Self::Hnsw)];
}

/// Whose words the text index knows the stems of (`memory.language`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    Arabic,
    Danish,
    Dutch,
    #[default]
    English,
    Finnish,
    French,
    German,
    Greek,
    Hungarian,
    Italian,
    Norwegian,
    Portuguese,
    Romanian,
    Russian,
    Spanish,
    Swedish,
    Tamil,
    Turkish,
    /// No stems: words are found as they are written.
    None,
}

impl Language {
    /// Every language with its name in the config.
    pub const ALL: [(&'static str, Self); 19] = [
        ("english", Self::English),
        ("arabic", Self::Arabic),
        ("danish", Self::Danish),
        ("dutch", Self::Dutch),
        ("finnish", Self::Finnish),
        ("french", Self::French),
        ("german", Self::German),
        ("greek", Self::Greek),
        ("hungarian", Self::Hungarian),
        ("italian", Self::Italian),
        ("norwegian", Self::Norwegian),
        ("portuguese", Self::Portuguese),
        ("romanian", Self::Romanian),
        ("russian", Self::Russian),
        ("spanish", Self::Spanish),
        ("swedish", Self::Swedish),
        ("tamil", Self::Tamil),
        ("turkish", Self::Turkish),
        ("none", Self::None),
    ];
}

/// `[memory.embedding]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingConfig {
    pub enabled: bool,
    /// Folder of the model; none: the usual places.
    pub model: Option<PathBuf>,
    /// The library of onnxruntime; none: the usual places, else the built-in runtime.
    pub onnxruntime: Option<PathBuf>,
    /// The model is put away after this time without a text (`idle_unload_secs`, 5 to 86,400).
    pub idle_unload: Duration,
}

impl Default for EmbeddingConfig {
    fn default() -> Self {
        Self { enabled: true, model: None, onnxruntime: None, idle_unload: Duration::from_secs(300) }
    }
}
