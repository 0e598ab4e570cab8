//! From a configured provider and a model's name to Rig's model on one of our lines.

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use rig_core::DynModel;
use rig_core::operation::Completion;
use rig_core::providers::anthropic::{AnthropicConfig, MaxTokens, Quirks as MessagesQuirks};
use rig_core::providers::gemini::GeminiConfig;
use rig_core::providers::openai::wire::{
    AZURE, Auth, DEEPSEEK, Dialect, GROQ, LLAMACPP, MINIMAX, MINIMAX_CHINA, MISTRAL, MOONSHOT, OLLAMA,
    OPENAI, OPENROUTER, TOGETHER, ZAI, ZAI_CODING,
};
use rig_core::providers::openai::{OpenAIConfig, Route};
use rig_core::providers::{copilot, xai};

use super::cache_marks::MarksHistory;
use crate::config::{ApiType, LlmConfig, ModelConfig, ProviderConfig, ProviderHeader, ProviderWire};
use crate::http::transport::HttpTransport;

/// A server with `/chat/completions` that is none of the known ones: OpenAI's format, plain.
const COMPATIBLE: Dialect = Dialect::gateway("openai-compatible", "", "");
/// Output tokens that a Messages server is asked for when neither the caller nor Rig's catalogue says
/// how many; the format demands a number.
const UNKNOWN_MAX_TOKENS: u64 = 8192;

/// The configured providers by id, and what the config says of single models, by `provider/model`.
pub(super) struct Providers {
    by_id: HashMap<String, ProviderConfig>,
    models: HashMap<String, ModelConfig>,
}

impl Providers {
    pub(super) fn new(config: &LlmConfig) -> Self {
        let (providers, models) = (config.providers.iter(), config.models.iter());
        Self {
            by_id: providers.map(|provider| (provider.id.clone(), provider.clone())).collect(),
            models: models.map(|model| (model.model.clone(), model.clone())).collect(),
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&ProviderConfig> {
        self.by_id.get(id)
    }

    pub(super) fn said_of(&self, full_name: &str) -> Option<&ModelConfig> {
        self.models.get(full_name)
    }
}

/// Rig's model for `model` of `provider`, sending through `transport`.
pub(super) fn build(
    provider: &ProviderConfig,
    model: &str,
    transport: HttpTransport,
) -> DynModel<Completion> {
    let key = provider.api_key.as_ref().map(|key| key.reveal()).unwrap_or_default();
    let transport = transport.with_headers(headers(provider));
    match provider.api.kind().wire {
        ProviderWire::Messages => messages(provider, key, model, transport),
        ProviderWire::Gemini => {
            let config = GeminiConfig::new(key).with_base_url(root(provider.address(), "/v1beta"));
            config.connect(transport).completion(model).erase()
        }
        ProviderWire::Chat | ProviderWire::Responses => openai(provider, key, model, transport),
    }
}

/// What the config adds to every request.
pub(super) fn headers(provider: &ProviderConfig) -> HeaderMap {
    let pair = |header: &ProviderHeader| {
        let mut value = HeaderValue::from_str(header.value.reveal()).ok()?;
        value.set_sensitive(header.is_secret);
        Some((HeaderName::from_bytes(header.name.as_bytes()).ok()?, value))
    };
    // The config has refused what is no header.
    provider.headers.iter().filter_map(pair).collect()
}

/// An address without the version that the path below it has itself.
pub(super) fn root<'a>(address: &'a str, version: &str) -> &'a str {
    address.strip_suffix(version).unwrap_or(address)
}

fn messages(
    provider: &ProviderConfig,
    key: &str,
    model: &str,
    transport: HttpTransport,
) -> DynModel<Completion> {
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

/// Under which name Rig's catalogue has the models of a provider, if it has any.
pub(super) fn vendor(api: ApiType) -> Option<&'static str> {
    match api {
        ApiType::Anthropic => Some("anthropic"),
        ApiType::Gemini => Some("gcp.gemini"),
        api => Some(dialect(api).name).filter(|name| *name != COMPATIBLE.name),
    }
}

/// Rig's description of a server that speaks OpenAI's formats.
fn dialect(api: ApiType) -> &'static Dialect {
    match api {
        ApiType::OpenAi | ApiType::OpenAiResponses => &OPENAI,
        ApiType::OpenRouter => &OPENROUTER,
        ApiType::Groq => &GROQ,
        ApiType::DeepSeek => &DEEPSEEK,
        ApiType::Xai => &xai::DIALECT,
        ApiType::Together => &TOGETHER,
        ApiType::Mistral => &MISTRAL,
        ApiType::MiniMax => &MINIMAX,
        ApiType::MiniMaxChina => &MINIMAX_CHINA,
        ApiType::Moonshot => &MOONSHOT,
        ApiType::Zai => &ZAI,
        ApiType::ZaiCoding => &ZAI_CODING,
        ApiType::Azure => &AZURE,
        ApiType::Copilot => &copilot::wire::DIALECT,
        ApiType::Ollama => &OLLAMA,
        ApiType::LlamaCpp => &LLAMACPP,
        ApiType::Anthropic
        | ApiType::Gemini
        | ApiType::Fireworks
        | ApiType::Nvidia
        | ApiType::Kilo
        | ApiType::OpenCodeZen
        | ApiType::OpenCodeGo
        | ApiType::OpenAiCompatible => &COMPATIBLE,
    }
}

fn openai(
    provider: &ProviderConfig,
    key: &str,
    model: &str,
    transport: HttpTransport,
) -> DynModel<Completion> {
    let (kind, dialect) = (provider.api.kind(), dialect(provider.api));
    let mut config = OpenAIConfig::with_key(dialect, key);
    // Copilot has both: its model decides.
    if provider.api != ApiType::Copilot {
        config = config.with_route(match kind.wire {
            ProviderWire::Responses => Route::Responses,
            _ => Route::Chat,
        });
    }
    if dialect.quirks.auth == Auth::Bearer {
        // A local server that takes no key rejects an empty one.
        config.auth = Auth::OptionalBearer;
    }
    let address = match provider.api {
        // The address that its key names.
        ApiType::Copilot if provider.base_url.is_none() => None,
        ApiType::Ollama => Some(format!("{}/v1", root(provider.address(), "/v1"))),
        _ if kind.path.starts_with("/v1/") => Some(root(provider.address(), "/v1").to_owned()),
        _ => Some(provider.address().to_owned()),
    };
    if let Some(address) = address {
        config = config.with_base_url(address);
    }
    if let Some(version) = &provider.api_version {
        config = config.with_api_version(version);
    }
    let model = provider.deployment.as_deref().unwrap_or(model);
    config.connect(transport).completion(model).erase()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::config::PROVIDERS;

    /// What the table says of a provider that Rig knows is what Rig does.
    #[test]
    fn the_table_agrees_with_rig() {
        let mut compared = 0;
        for kind in &PROVIDERS {
            let dialect = dialect(kind.api);
            if dialect.name == COMPATIBLE.name || kind.api == ApiType::Azure {
                continue;
            }
            compared += 1;
            let path = match kind.wire {
                ProviderWire::Responses => dialect.quirks.responses.path,
                _ => dialect.quirks.completion_path,
            };
            let rigs = format!("{}{path}", dialect.base_url);
            assert_eq!(format!("{}{}", kind.base_url.unwrap(), kind.path), rigs, "{}", kind.name);
        }
        assert_eq!(compared, 16);
        let base_url = |api: ApiType| api.kind().base_url.unwrap();
        assert_eq!(base_url(ApiType::Anthropic), AnthropicConfig::new("").base_url);
        assert_eq!(base_url(ApiType::Gemini), GeminiConfig::new("").base_url);
    }
}
