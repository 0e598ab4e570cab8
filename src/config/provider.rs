//! What the config says about a provider of models. Those that are known are a table of their own.

mod table;

use std::fmt::Write;
use std::ops::Range;

use super::Secret;
use super::load::Environment;
use super::section::Section;

pub use table::{ApiType, KeyPlace, Media, PROVIDERS, ProviderKind, ProviderWire};

/// Most extra headers of one provider; the header block of a request stays small.
const HEADERS_MAX: usize = 16;
/// What the transport and the wire format set themselves. Set twice, they would let one request be read
/// as two, or as something else than it is.
const FORBIDDEN_HEADERS: [&str; 17] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// A header that goes with every request to a provider.
#[derive(Debug, Clone, Eq)]
pub struct ProviderHeader {
    pub name: String,
    pub value: Secret,
    /// From the environment, or called like a key: hidden wherever it would be read.
    pub is_secret: bool,
}

/// Where a value was read makes no other request of it.
impl PartialEq for ProviderHeader {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.value == other.value
    }
}

/// `[llm.provider.<id>]`, or what a key under `[llm]` makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConfig {
    /// The part before the slash in `provider/model`.
    pub id: String,
    pub api: ApiType,
    /// None: the provider's own address.
    pub base_url: Option<String>,
    pub api_key: Option<Secret>,
    pub headers: Vec<ProviderHeader>,
    /// Azure's `api-version`; None: the one that Rig was made for.
    pub api_version: Option<String>,
    /// What Azure's address names instead of the model.
    pub deployment: Option<String>,
    /// Where Copilot's sessions come from (`github_url`); None: GitHub itself.
    pub github_url: Option<String>,
    /// Requests at once (`max_concurrent`, 1 to 64).
    pub max_concurrent: usize,
    /// Requests that begin within any minute (`requests_per_minute`, 1 to 100,000); None: no limit of ours.
    pub requests_per_minute: Option<usize>,
    /// Whether its models take images and documents; None: as is known of each of them.
    pub images: Option<bool>,
    pub documents: Option<bool>,
}

/// What a provider gets at once where the config does not say: fewer than there are lines, so that one
/// that hangs leaves some to the others.
const MAX_CONCURRENT: usize = 16;

impl ProviderConfig {
    pub fn new(id: impl Into<String>, api: ApiType) -> Self {
        let (base_url, api_key, headers) = (None, None, Vec::new());
        Self {
            id: id.into(),
            api,
            base_url,
            api_key,
            headers,
            api_version: None,
            deployment: None,
            github_url: None,
            max_concurrent: MAX_CONCURRENT,
            requests_per_minute: None,
            images: None,
            documents: None,
        }
    }

    /// What must not be read in a log.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let headers = self.headers.iter().filter(|header| header.is_secret).map(|header| &header.value);
        let login = self.base_url.as_deref().and_then(|url| Some(&url[login(url)?]));
        let password = login.and_then(|login| Some(login.split_once(':')?.1));
        self.api_key.iter().chain(headers).map(Secret::reveal).chain(login).chain(password)
    }

    /// Where its requests go, without a slash at the end.
    pub fn address(&self) -> &str {
        self.base_url.as_deref().or(self.api.kind().base_url).unwrap_or_default().trim_end_matches('/')
    }

    /// All that `[llm]` and the environment name.
    pub(super) fn read_all(section: &Section<'_, '_>, environment: &dyn Environment) -> Vec<Self> {
        let mut providers = Vec::new();
        let named = section.table("provider").named_tables();
        let is_named = |id: &str| named.iter().any(|(name, _)| name == id);
        for kind in &PROVIDERS {
            let Some((key, variable)) = kind.short else { continue };
            let key = section.secret_or(key, variable);
            if key.is_some() && !is_named(kind.name) {
                providers.push(Self { api_key: key, ..Self::new(kind.name, kind.api) });
            }
        }
        let ollama = section.text("ollama_base_url").or_else(|| environment.variable("OLLAMA_BASE_URL"));
        let key = section.secret_or("ollama_key", "OLLAMA_API_KEY");
        if ollama.is_some() && !is_named("ollama") {
            let new = Self::new("ollama", ApiType::Ollama);
            providers.push(Self { base_url: ollama, api_key: key, ..new });
        }
        providers.extend(named.iter().filter_map(|(id, table)| Self::read(id, table)));
        providers
    }

    fn read(id: &str, section: &Section<'_, '_>) -> Option<Self> {
        let names = PROVIDERS.map(|kind| (kind.name, kind.api));
        let api = section.choice("api_type", &names);
        let (base_url, api_key) = (section.name("base_url"), section.secret("api_key"));
        let (api_version, deployment) = (section.name("api_version"), section.name("deployment"));
        if api.is_none() {
            section.refuse("api_type", "is needed");
        }
        let github_url = section.name("github_url");
        for address in base_url.iter().chain(&github_url) {
            password_in(address).map(|password| section.keep(password.to_owned()));
        }
        for (key, value) in [("base_url", &base_url), ("github_url", &github_url)] {
            let begins = |url: &str| url.starts_with("http://") || url.starts_with("https://");
            if value.as_deref().is_some_and(|url| !begins(url)) {
                section.refuse(key, "must begin with http:// or https://");
            }
        }
        if github_url.is_some() && api != Some(ApiType::Copilot) {
            section.refuse("github_url", "is for api_type \"github-copilot\" only");
        }
        if api.is_some_and(|api| api.kind().base_url.is_none()) && base_url.is_none() {
            section.refuse("base_url", "is needed for this api_type");
        }
        for (key, value) in [("api_version", &api_version), ("deployment", &deployment)] {
            if let Some(value) = value {
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
                if api != Some(ApiType::Azure) {
                    section.refuse(key, "is for api_type \"azure\" only");
                } else if !value.bytes().all(is_plain) {
                    section.refuse(key, "may have letters, digits, `-`, `_` and `.`");
                }
            }
        }
        let headers = headers(&section.table("headers"));
        let count = |key, most| section.number(key, 1, most).and_then(|number| usize::try_from(number).ok());
        let max_concurrent = count("max_concurrent", 64).unwrap_or(MAX_CONCURRENT);
        let requests_per_minute = count("requests_per_minute", 100_000);
        let (images, documents) = (section.switch("images"), section.switch("documents"));
        section.finish();
        let new = Self::new(id, api?);
        Some(Self {
            base_url,
            api_key,
            headers,
            api_version,
            deployment,
            github_url,
            max_concurrent,
            requests_per_minute,
            images,
            documents,
            ..new
        })
    }

    pub(super) fn write(
        &self,
        out: &mut String,
        text: fn(&str) -> String,
        shown: fn(&Secret) -> String,
    ) -> std::fmt::Result {
        writeln!(out, "api_type = {}", text(self.api.kind().name))?;
        let hiding = |url: &String| match login(url) {
            Some(place) => {
                let hidden = shown(&Secret::new(&url[place.clone()]));
                format!("{}{hidden}{}", &url[..place.start], &url[place.end..])
            }
            None => url.clone(),
        };
        let [base_url, github_url] = [&self.base_url, &self.github_url].map(|url| url.as_ref().map(hiding));
        let plain = [
            ("base_url", &base_url),
            ("api_version", &self.api_version),
            ("deployment", &self.deployment),
            ("github_url", &github_url),
        ];
        for (key, value) in plain {
            if let Some(value) = value {
                writeln!(out, "{key} = {}", text(value))?;
            }
        }
        if let Some(key) = &self.api_key {
            writeln!(out, "api_key = {}", text(&shown(key)))?;
        }
        writeln!(out, "max_concurrent = {}", self.max_concurrent)?;
        if let Some(most) = self.requests_per_minute {
            writeln!(out, "requests_per_minute = {most}")?;
        }
        for (key, value) in [("images", self.images), ("documents", self.documents)] {
            if let Some(value) = value {
                writeln!(out, "{key} = {value}")?;
            }
        }
        if self.headers.is_empty() {
            return Ok(());
        }
        let value = |header: &ProviderHeader| match header.is_secret {
            true => shown(&header.value),
            false => header.value.reveal().to_owned(),
        };
        let pairs = self.headers.iter();
        let pairs = pairs.map(|header| format!("{} = {}", text(&header.name), text(&value(header))));
        writeln!(out, "headers = {{ {} }}", pairs.collect::<Vec<_>>().join(", "))
    }
}

/// Of `scheme://user:password@host`.
fn password_in(address: &str) -> Option<&str> {
    let authority = address.split_once("://")?.1.split(['/', '?', '#']).next()?;
    Some(authority.rsplit_once('@')?.0.split_once(':')?.1)
}

/// Where user and password stand in an address that has them; they go with every request.
fn login(address: &str) -> Option<Range<usize>> {
    let start = address.find("://")? + "://".len();
    let end = address[start..].find(['/', '?', '#']).map_or(address.len(), |length| start + length);
    let length = address[start..end].rfind('@')?;
    Some(start..start + length)
}

fn headers(section: &Section<'_, '_>) -> Vec<ProviderHeader> {
    let mut headers: Vec<ProviderHeader> = Vec::new();
    for (name, value, from_environment) in section.named_texts() {
        let lower = name.to_ascii_lowercase();
        let names_a_key = ["authorization", "key", "token", "secret"].iter().any(|end| lower.ends_with(end));
        let problem = if FORBIDDEN_HEADERS.contains(&lower.as_str()) {
            "is set by the connection itself"
        } else if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            "is no name of a header"
        } else if http::HeaderValue::from_str(&value).is_err() {
            "is no value of a header"
        } else if headers.iter().any(|known| known.name.eq_ignore_ascii_case(&name)) {
            "is there twice"
        } else if headers.len() == HEADERS_MAX {
            "is one header more than 16"
        } else {
            if names_a_key && !from_environment {
                section.literal_secret(&name);
            }
            let is_secret = from_environment || names_a_key;
            let value = if is_secret { section.keep(value) } else { Secret::new(value) };
            headers.push(ProviderHeader { name, value, is_secret });
            continue;
        };
        section.refuse_named(&name, problem);
    }
    headers
}
