//! From a configured provider and a model's name to Rig's model on one of our lines.

use std::collections::HashMap;

use rig_core::DynModel;
use rig_core::operation::Completion;
use rig_core::providers::anthropic::{AnthropicConfig, MaxTokens, Quirks as MessagesQuirks};
use rig_core::providers::ollama::OllamaConfig;
use rig_core::providers::openai::wire::{Auth, Dialect, OPENAI, OPENROUTER};
use rig_core::providers::openai::{OpenAIConfig, Route};

use super::cache_marks::MarksHistory;
use crate::config::{ApiType, ProviderConfig};
use crate::http::transport::HttpTransport;

/// A server with `/chat/completions` that is none of the known ones: OpenAI's format, plain.
const COMPATIBLE: Dialect = Dialect::gateway("openai-compatible", "", "");
/// Output tokens that a Messages server is asked for when neither the caller nor Rig's catalogue says
/// how many; the format demands a number.
const UNKNOWN_MAX_TOKENS: u64 = 8192;

/// The configured providers by id.
pub(super) struct Providers(HashMap<String, ProviderConfig>);

impl Providers {
    pub(super) fn new(providers: &[ProviderConfig]) -> Self {
        Self(providers.iter().map(|provider| (provider.id.clone(), provider.clone())).collect())
    }

    pub(super) fn get(&self, id: &str) -> Option<&ProviderConfig> {
        self.0.get(id)
    }
}

/// Rig's model for `model` of `provider`, sending through `transport`.
pub(super) fn build(
    provider: &ProviderConfig,
    model: &str,
    transport: HttpTransport,
) -> DynModel<Completion> {
    let key = provider.api_key.as_ref().map(|key| key.reveal()).unwrap_or_default();
    match provider.api {
        ApiType::Anthropic => {
            let mut config = AnthropicConfig::new(key);
            if let Some(base_url) = &provider.base_url {
                config = config.with_base_url(base_url);
            }
            if config.base_url != AnthropicConfig::new("").base_url {
                // Other servers of this format need not know constrained tool schemas.
                let mut quirks = MessagesQuirks::gateway();
                quirks.max_tokens = MaxTokens::ByModel;
                config.dialect.quirks = quirks;
            }
            let mut model = config.connect(MarksHistory(transport)).completion(model);
            let max_tokens = model.wire.default_max_tokens.unwrap_or(UNKNOWN_MAX_TOKENS);
            model.wire = model.wire.with_prompt_caching().with_default_max_tokens(max_tokens);
            model.erase()
        }
        ApiType::Ollama => {
            let mut config = OllamaConfig::new().with_api_key(key);
            if let Some(base_url) = &provider.base_url {
                let root = base_url.trim_end_matches('/');
                config = config.with_base_url(root.strip_suffix("/v1").unwrap_or(root));
            }
            config.connect(transport).completion(model).erase()
        }
        ApiType::OpenAi => chat(provider, &OPENAI, key, model, transport),
        ApiType::OpenRouter => chat(provider, &OPENROUTER, key, model, transport),
        ApiType::OpenAiCompatible => chat(provider, &COMPATIBLE, key, model, transport),
    }
}

fn chat(
    provider: &ProviderConfig,
    dialect: &Dialect,
    key: &str,
    model: &str,
    transport: HttpTransport,
) -> DynModel<Completion> {
    let mut config = OpenAIConfig::with_key(dialect, key).with_route(Route::Chat);
    // A local server that takes no key rejects an empty one.
    config.auth = Auth::OptionalBearer;
    if let Some(base_url) = &provider.base_url {
        config = config.with_base_url(base_url);
    }
    config.connect(transport).completion(model).erase()
}
