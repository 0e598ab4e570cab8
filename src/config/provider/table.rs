//! Every provider that is known: the one table from which the config, docs/MODELS.md and `spacebot models` are
//! made.
//!
//! Addresses and paths are those of Rig's own dialects where it has them (a test in `llm::provider`
//! compares), and otherwise of the provider's documentation.

/// What a request to a provider looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderWire {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Gemini's GenerateContent.
    Gemini,
}

impl ProviderWire {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat completions",
            Self::Responses => "Responses",
            Self::Messages => "Messages",
            Self::Gemini => "GenerateContent",
        }
    }
}

/// Where a request carries the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPlace {
    /// `Authorization: Bearer`.
    Bearer,
    /// A header of this name.
    Header(&'static str),
    /// A parameter of this name in the address.
    Parameter(&'static str),
}

impl KeyPlace {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Header(name) | Self::Parameter(name) => name,
        }
    }
}

/// A row of [`PROVIDERS`], and what `api_type` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiType {
    Anthropic,
    OpenAi,
    OpenAiResponses,
    OpenRouter,
    Gemini,
    Groq,
    DeepSeek,
    Xai,
    Fireworks,
    Together,
    Mistral,
    Nvidia,
    MiniMax,
    MiniMaxChina,
    Moonshot,
    Zai,
    ZaiCoding,
    Azure,
    Copilot,
    Kilo,
    OpenCodeZen,
    OpenCodeGo,
    Ollama,
    LlamaCpp,
    /// Any server with `/chat/completions`.
    OpenAiCompatible,
}

/// What the models of a provider take besides text, as far as it goes for nearly all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Text,
    Images,
    /// Images, and documents in PDF.
    Documents,
}

impl Media {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "–",
            Self::Images => "images",
            Self::Documents => "images, PDF",
        }
    }
}

/// What is known about a provider.
#[derive(Debug, Clone, Copy)]
pub struct ProviderKind {
    pub api: ApiType,
    /// Its `api_type`, and the id of the provider that a key alone makes.
    pub name: &'static str,
    pub wire: ProviderWire,
    /// None: the config has to say it.
    pub base_url: Option<&'static str>,
    /// Below the base URL; `{model}` stands in it where the body does not name the model.
    pub path: &'static str,
    /// What can be read below the base URL without using a model, if anything: the list of models, or what
    /// the key is good for where that list is open to all.
    pub check: Option<&'static str>,
    pub key: KeyPlace,
    pub media: Media,
    /// Without a key it refuses every request.
    pub key_needed: bool,
    /// The key under `[llm]` that is all it needs, and the variable that stands in for it.
    pub short: Option<(&'static str, &'static str)>,
}

/// A provider like most: chat completions, a bearer key, a list of models.
const fn chat(
    api: ApiType,
    name: &'static str,
    base_url: &'static str,
    short: (&'static str, &'static str),
) -> ProviderKind {
    ProviderKind {
        api,
        name,
        wire: ProviderWire::Chat,
        base_url: Some(base_url),
        path: "/chat/completions",
        check: Some("/models"),
        key: KeyPlace::Bearer,
        media: Media::Text,
        key_needed: true,
        short: Some(short),
    }
}

const OPENAI: ProviderKind = ProviderKind {
    media: Media::Documents,
    ..chat(ApiType::OpenAi, "openai", "https://api.openai.com/v1", ("openai_key", "OPENAI_API_KEY"))
};

/// Every provider that `api_type` knows, in the order of [`ApiType`].
pub const PROVIDERS: [ProviderKind; 25] = [
    ProviderKind {
        api: ApiType::Anthropic,
        name: "anthropic",
        wire: ProviderWire::Messages,
        path: "/v1/messages",
        check: Some("/v1/models"),
        key: KeyPlace::Header("x-api-key"),
        media: Media::Documents,
        ..chat(
            ApiType::Anthropic,
            "anthropic",
            "https://api.anthropic.com",
            ("anthropic_key", "ANTHROPIC_API_KEY"),
        )
    },
    OPENAI,
    ProviderKind {
        api: ApiType::OpenAiResponses,
        name: "openai_responses",
        wire: ProviderWire::Responses,
        path: "/responses",
        short: None,
        ..OPENAI
    },
    ProviderKind {
        check: Some("/key"),
        media: Media::Images,
        ..chat(
            ApiType::OpenRouter,
            "openrouter",
            "https://openrouter.ai/api/v1",
            ("openrouter_key", "OPENROUTER_API_KEY"),
        )
    },
    ProviderKind {
        wire: ProviderWire::Gemini,
        path: "/v1beta/models/{model}:generateContent",
        check: Some("/v1beta/models"),
        key: KeyPlace::Parameter("key"),
        media: Media::Documents,
        ..chat(
            ApiType::Gemini,
            "gemini",
            "https://generativelanguage.googleapis.com",
            ("gemini_key", "GEMINI_API_KEY"),
        )
    },
    chat(ApiType::Groq, "groq", "https://api.groq.com/openai/v1", ("groq_key", "GROQ_API_KEY")),
    chat(ApiType::DeepSeek, "deepseek", "https://api.deepseek.com", ("deepseek_key", "DEEPSEEK_API_KEY")),
    ProviderKind {
        wire: ProviderWire::Responses,
        path: "/v1/responses",
        check: Some("/v1/models"),
        media: Media::Images,
        ..chat(ApiType::Xai, "xai", "https://api.x.ai", ("xai_key", "XAI_API_KEY"))
    },
    chat(
        ApiType::Fireworks,
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        ("fireworks_key", "FIREWORKS_API_KEY"),
    ),
    ProviderKind {
        path: "/v1/chat/completions",
        check: Some("/v1/models"),
        ..chat(
            ApiType::Together,
            "together",
            "https://api.together.xyz",
            ("together_key", "TOGETHER_API_KEY"),
        )
    },
    ProviderKind {
        path: "/v1/chat/completions",
        check: Some("/v1/models"),
        ..chat(ApiType::Mistral, "mistral", "https://api.mistral.ai", ("mistral_key", "MISTRAL_API_KEY"))
    },
    chat(ApiType::Nvidia, "nvidia", "https://integrate.api.nvidia.com/v1", ("nvidia_key", "NVIDIA_API_KEY")),
    chat(ApiType::MiniMax, "minimax", "https://api.minimax.io/v1", ("minimax_key", "MINIMAX_API_KEY")),
    chat(
        ApiType::MiniMaxChina,
        "minimax-cn",
        "https://api.minimaxi.com/v1",
        ("minimax_cn_key", "MINIMAX_CN_API_KEY"),
    ),
    chat(ApiType::Moonshot, "moonshot", "https://api.moonshot.ai/v1", ("moonshot_key", "MOONSHOT_API_KEY")),
    chat(ApiType::Zai, "zai", "https://api.z.ai/api/paas/v4", ("zai_key", "ZAI_API_KEY")),
    chat(
        ApiType::ZaiCoding,
        "zai-coding-plan",
        "https://api.z.ai/api/coding/paas/v4",
        ("zai_coding_plan_key", "ZAI_CODING_PLAN_API_KEY"),
    ),
    ProviderKind {
        api: ApiType::Azure,
        name: "azure",
        base_url: None,
        path: "/openai/deployments/{model}/chat/completions",
        check: Some("/openai/models"),
        key: KeyPlace::Header("api-key"),
        media: Media::Images,
        short: None,
        ..OPENAI
    },
    ProviderKind {
        check: None,
        media: Media::Images,
        ..chat(
            ApiType::Copilot,
            "github-copilot",
            "https://api.githubcopilot.com",
            ("github_copilot_key", "GITHUB_COPILOT_API_KEY"),
        )
    },
    chat(ApiType::Kilo, "kilo", "https://api.kilo.ai/api/gateway", ("kilo_key", "KILO_API_KEY")),
    chat(
        ApiType::OpenCodeZen,
        "opencode-zen",
        "https://opencode.ai/zen/v1",
        ("opencode_zen_key", "OPENCODE_ZEN_API_KEY"),
    ),
    chat(
        ApiType::OpenCodeGo,
        "opencode-go",
        "https://opencode.ai/zen/go/v1",
        ("opencode_go_key", "OPENCODE_GO_API_KEY"),
    ),
    ProviderKind {
        api: ApiType::Ollama,
        name: "ollama",
        media: Media::Text,
        base_url: Some("http://localhost:11434"),
        path: "/v1/chat/completions",
        check: Some("/v1/models"),
        key_needed: false,
        short: None,
        ..OPENAI
    },
    ProviderKind {
        api: ApiType::LlamaCpp,
        name: "llama.cpp",
        media: Media::Text,
        base_url: Some("http://localhost:8080/v1"),
        key_needed: false,
        short: None,
        ..OPENAI
    },
    ProviderKind {
        api: ApiType::OpenAiCompatible,
        name: "openai_chat_completions",
        media: Media::Text,
        base_url: None,
        key_needed: false,
        short: None,
        ..OPENAI
    },
];

impl ApiType {
    /// Its row; the order is the same.
    pub fn kind(self) -> &'static ProviderKind {
        &PROVIDERS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/MODELS.md");

    /// The row of a provider in docs/MODELS.md, up to the column that says what was tried.
    fn row(kind: &ProviderKind) -> String {
        let key = match kind.key_needed {
            true => kind.key.as_str().to_owned(),
            false => format!("{}, if any", kind.key.as_str()),
        };
        let base_url = kind.base_url.map_or("`base_url` is needed".to_owned(), |url| format!("`{url}`"));
        let variable = kind.short.map_or("–".to_owned(), |(_, variable)| format!("`{variable}`"));
        format!(
            "| `{}` | {} | {base_url} | `{}` | {key} | {variable} | {} |",
            kind.name,
            kind.wire.as_str(),
            kind.path,
            kind.media.as_str()
        )
    }

    #[test]
    fn the_document_has_the_table_as_it_is() {
        let rows: Vec<&str> = DOCUMENT.lines().filter(|line| line.starts_with("| `")).collect();
        for kind in &PROVIDERS {
            let row = row(kind);
            assert!(rows.iter().any(|found| found.starts_with(&row)), "docs/MODELS.md lacks\n{row}");
        }
        assert_eq!(rows.len(), PROVIDERS.len() + 1, "its head, and no row for something else: {rows:#?}");
    }

    #[test]
    fn the_table_has_the_order_of_the_types_and_every_name_once() {
        for (index, kind) in PROVIDERS.iter().enumerate() {
            assert_eq!(kind.api as usize, index, "{}", kind.name);
            assert_eq!(kind.api.kind().name, kind.name);
            assert_eq!(PROVIDERS.iter().filter(|other| other.name == kind.name).count(), 1, "{}", kind.name);
            assert!(kind.path.starts_with('/') && kind.base_url.is_none_or(|url| !url.ends_with('/')));
            assert!(
                kind.short.is_none() || kind.base_url.is_some(),
                "{}: a key alone is not enough",
                kind.name
            );
        }
    }
}
