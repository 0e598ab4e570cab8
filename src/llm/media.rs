//! What a model takes besides text. What the operator says wins: of the model, then of its provider. Then comes
//! what is known of the model: the table that comes with the program, then Rig's catalogue. A model that
//! nobody knows takes what nearly all models of its provider take.

use std::sync::OnceLock;

use rig_core::catalog::Catalog;
use serde::Deserialize;

use super::provider::vendor;
use crate::config::{Media, ModelConfig, ProviderConfig};
use crate::text::is_snapshot;

/// The table of the program, with the day and the source of each row.
const TABLE: &str = include_str!("media.toml");

/// What a model takes besides text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Takes {
    pub images: bool,
    pub documents: bool,
}

impl Takes {
    /// In words, as docs/MODELS.md has them.
    pub fn as_str(self) -> &'static str {
        match (self.images, self.documents) {
            (false, false) => "text only",
            (true, false) => "images",
            (false, true) => "PDF",
            (true, true) => "images, PDF",
        }
    }
}

/// What a model takes, and who says so of its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub takes: Takes,
    pub source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    api_type: String,
    model: String,
    images: bool,
    as_of: String,
    source: String,
}

impl Row {
    fn is_of(&self, model: &str) -> bool {
        match self.model.strip_suffix('*') {
            Some(beginning) => model.starts_with(beginning),
            None => self.model == model,
        }
    }
}

fn table() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| match toml::from_str::<File>(TABLE) {
        Ok(file) => file.model,
        Err(error) => {
            // The tests read the same text.
            log::error!("the table of models cannot be read: {error}");
            Vec::new()
        }
    })
}

/// Of `model` of `provider`, of which the config says `said`.
pub fn taken(provider: &ProviderConfig, model: &str, said: Option<&ModelConfig>) -> Taken {
    let kind = provider.api.kind();
    let known = known(provider, model);
    let most = Takes { images: kind.media != Media::Text, documents: kind.media == Media::Documents };
    let own = |of: fn(&ModelConfig) -> Option<bool>| said.and_then(of);
    let (images, source) = if let Some(images) = own(|said| said.images) {
        (images, "the config".to_owned())
    } else if let Some(images) = provider.images {
        (images, "the config of its provider".to_owned())
    } else if let Some((images, source)) = &known {
        (*images, source.clone())
    } else {
        (most.images, "most models of its provider".to_owned())
    };
    // Providers read documents with the eyes of the model: one without takes none. What else a catalogue says of
    // documents is about the model, not about what this provider lets through.
    let sees = known.as_ref().is_none_or(|(images, _)| *images);
    let documents = own(|said| said.documents).or(provider.documents).unwrap_or(most.documents && sees);
    Taken { takes: Takes { images, documents }, source }
}

/// Whether the model takes images, and who says so.
fn known(provider: &ProviderConfig, model: &str) -> Option<(bool, String)> {
    let rows = table().iter().filter(|row| row.api_type == provider.api.kind().name && row.is_of(model));
    if let Some(row) = rows.max_by_key(|row| row.model.len()) {
        return Some((row.images, format!("{} as of {}", row.source, row.as_of)));
    }
    let vendor = vendor(provider.api)?;
    let listed = |name: &str| Catalog::builtin().resolve(&format!("{vendor}/{name}"));
    let snapshot_of = || {
        let borders = model.match_indices('-').filter(|(at, _)| is_snapshot(&model[at + 1..]));
        borders.map(|(at, _)| &model[..at]).find_map(listed)
    };
    let spec = listed(model).or_else(snapshot_of)?;
    Some((spec.input.image, "Rig's catalogue".to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{ApiType, PROVIDERS};

    fn provider(api: ApiType) -> ProviderConfig {
        ProviderConfig::new("p", api)
    }

    fn takes(api: ApiType, model: &str) -> &'static str {
        taken(&provider(api), model, None).takes.as_str()
    }

    #[test]
    fn every_row_has_a_provider_a_day_and_a_source_and_says_something_of_its_own() {
        let rows = toml::from_str::<File>(TABLE).unwrap().model;
        assert!(rows.len() >= 10);
        for row in &rows {
            assert!(PROVIDERS.iter().any(|kind| kind.name == row.api_type), "{row:?}");
            assert!(row.as_of.len() == 10 && is_snapshot(&row.as_of) && row.as_of.contains('-'), "{row:?}");
            assert!(row.source.starts_with("https://"), "{row:?}");
            let same = |other: &&Row| other.api_type == row.api_type && other.model == row.model;
            assert_eq!(rows.iter().filter(same).count(), 1, "{row:?}");
        }
        assert_eq!(table().len(), rows.len());
    }

    #[test]
    fn a_model_takes_what_is_known_of_it_and_an_unknown_one_what_its_provider_takes() {
        let cases = [
            (ApiType::Anthropic, "claude-haiku-4-5", "images, PDF"),
            (ApiType::Anthropic, "claude-haiku-4-5-20251001", "images, PDF"),
            (ApiType::Anthropic, "claude-of-tomorrow", "images, PDF"),
            (ApiType::OpenAi, "gpt-4o", "images, PDF"),
            (ApiType::OpenAi, "gpt-4o-2024-08-06", "images, PDF"),
            (ApiType::OpenAi, "gpt-3.5-turbo", "text only"),
            (ApiType::OpenAi, "o3-mini", "text only"),
            (ApiType::OpenAiResponses, "o3-mini", "text only"),
            (ApiType::OpenAi, "my-deployment", "images, PDF"),
            (ApiType::Azure, "gpt-4o", "images"),
            (ApiType::Azure, "gpt-3.5-turbo", "text only"),
            (ApiType::Copilot, "o3-mini", "text only"),
            (ApiType::Copilot, "gpt-4o", "images"),
            (ApiType::OpenRouter, "deepseek/deepseek-r1", "text only"),
            (ApiType::OpenRouter, "openai/gpt-4o", "images"),
            (ApiType::Gemini, "gemini-2.5-flash", "images, PDF"),
            (ApiType::Gemini, "text-embedding-004", "text only"),
            (ApiType::Xai, "grok-3", "text only"),
            (ApiType::Mistral, "pixtral-12b-latest", "images"),
            (ApiType::Mistral, "devstral-2512", "text only"),
            (ApiType::Groq, "llama-3.3-70b-versatile", "text only"),
            (ApiType::Ollama, "llava:13b", "images"),
            (ApiType::Ollama, "gemma3:12b-it-q4_K_M", "images"),
            (ApiType::Ollama, "gemma3:1b", "text only"),
            (ApiType::Ollama, "qwen3:4b", "text only"),
            (ApiType::LlamaCpp, "whatever", "text only"),
            (ApiType::OpenAiCompatible, "gpt-4o", "text only"),
        ];
        for (api, model, wanted) in cases {
            assert_eq!(takes(api, model), wanted, "{api:?} {model}");
        }
    }

    #[test]
    fn the_operator_wins_first_of_the_model_then_of_its_provider() {
        let said = |images, documents| ModelConfig { model: "p/m".to_owned(), images, documents };
        let of = |images: Option<bool>, model: &str, said: Option<ModelConfig>| {
            let provider = ProviderConfig { images, ..provider(ApiType::OpenAi) };
            let taken = taken(&provider, model, said.as_ref());
            (taken.takes.as_str(), taken.source)
        };
        let told = |takes: &'static str, source: &str| (takes, source.to_owned());
        assert_eq!(of(None, "o3-mini", None), told("text only", "Rig's catalogue"));
        assert_eq!(of(Some(true), "o3-mini", None), told("images", "the config of its provider"));
        assert_eq!(of(Some(true), "gpt-4o", Some(said(Some(false), None))), told("PDF", "the config"));
        assert_eq!(
            of(None, "o3-mini", Some(said(Some(true), Some(true)))),
            told("images, PDF", "the config")
        );
        assert_eq!(of(None, "gpt-4o", Some(said(None, Some(false)))), told("images", "Rig's catalogue"));
        assert_eq!(of(None, "nobody-knows", None), told("images, PDF", "most models of its provider"));
    }
}
