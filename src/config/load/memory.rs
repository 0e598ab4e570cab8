//! `[memory]` and `[memory.embedding]`.

use std::path::PathBuf;

use super::super::section::Section;
use super::super::{EmbeddingConfig, Language, MemoryConfig, VectorIndexKind};
use super::seconds;

pub(super) fn memory(section: &Section<'_, '_>) -> MemoryConfig {
    let config = MemoryConfig {
        index: section.choice("index", &VectorIndexKind::ALL).unwrap_or_default(),
        language: section.choice("language", &Language::ALL).unwrap_or_default(),
        embedding: embedding(&section.table("embedding")),
    };
    section.finish();
    config
}

fn embedding(section: &Section<'_, '_>) -> EmbeddingConfig {
    let base = EmbeddingConfig::default();
    let path = |key| section.name(key).map(PathBuf::from);
    let (model, onnxruntime) = (path("model"), path("onnxruntime"));
    let config = EmbeddingConfig {
        enabled: section.switch("enabled").unwrap_or(base.enabled),
        idle_unload: seconds(section, "idle_unload_secs", 5, 86_400).unwrap_or(base.idle_unload),
        model,
        onnxruntime,
    };
    section.finish();
    config
}
