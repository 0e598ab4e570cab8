//! Whether a provider can be reached and takes its key: one request that uses no model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{RecvTimeoutError, bounded};
use http::{HeaderMap, Request};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rig_core::providers::openai::wire::AZURE_DEFAULT_API_VERSION;

use super::provider::{headers, root};
use super::sessions;
use crate::clock::SharedClock;
use crate::config::{ApiType, KeyPlace, ProviderConfig, ProviderWire};
use crate::error::log_line;
use crate::http::transport::{HttpTransport, Network};
use crate::secrets::Scrubber;
use crate::text::one_line;
use crate::thread::spawn;

/// The longest that all checks together may take; they run side by side.
pub const CHECK_WAIT_MAX: Duration = Duration::from_secs(15);
/// The longest silence within one.
const READ_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer that are looked at: an error says in them what is wrong.
const BODY_BYTES_MAX: usize = 16 << 10;
/// Bytes of what a provider says that are told.
const DETAIL_BYTES_MAX: usize = 200;
/// The version of the Messages format that is spoken.
const MESSAGES_VERSION: &str = "2023-06-01";

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It answers, and does not mind the key.
    Reachable,
    /// It answers, and does not take the key.
    KeyRefused(String),
    /// It answers with something else than what was asked for: this is all that is known.
    Answers(String),
    Unreachable(String),
}

impl Reach {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Reachable => "reachable",
            Self::KeyRefused(_) => "key refused",
            Self::Answers(_) => "answers",
            Self::Unreachable(_) => "unreachable",
        }
    }

    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Reachable => None,
            Self::KeyRefused(detail) | Self::Answers(detail) | Self::Unreachable(detail) => Some(detail),
        }
    }

    /// Models there can be asked, as far as one can tell.
    pub fn is_well(&self) -> bool {
        matches!(self, Self::Reachable | Self::Answers(_))
    }
}

/// Asks all of them at once, for at most `wait`; the answers are in their order.
pub fn check_all(providers: &[ProviderConfig], clock: &SharedClock, wait: Duration) -> Vec<Reach> {
    let network = Network::new(clock.clone());
    // A gateway may quote the key of another.
    let scrubber = Arc::new(Scrubber::new(providers.iter().flat_map(ProviderConfig::secrets)));
    let (sender, receiver) = bounded(providers.len());
    let mut found: Vec<Option<Reach>> = vec![None; providers.len()];
    let mut lines = Vec::new();
    for (index, provider) in providers.iter().enumerate() {
        let line = HttpTransport::new(&network, READ_WAIT_MAX);
        lines.push(line.clone());
        let (sender, provider, scrubber) = (sender.clone(), provider.clone(), scrubber.clone());
        let started = spawn("models-check", move || {
            // Nobody listens any more when this one was too late.
            sender.send((index, check(&provider, &line, &scrubber))).ok();
        });
        if let Err(error) = started {
            found[index] = Some(Reach::Unreachable(error.to_string()));
        }
    }
    drop(sender);
    let until = Instant::now() + wait;
    loop {
        match receiver.recv_deadline(until) {
            Ok((index, reach)) => found[index] = Some(reach),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                lines.iter().for_each(HttpTransport::stop);
                break;
            }
        }
    }
    let late = || Reach::Unreachable(format!("no answer within {} ms", wait.as_millis()));
    found.into_iter().map(|reach| reach.unwrap_or_else(late)).collect()
}

fn check(provider: &ProviderConfig, line: &HttpTransport, scrubber: &Scrubber) -> Reach {
    let told = |text: &str| one_line(&scrubber.scrub(text), DETAIL_BYTES_MAX);
    let request = match request(provider) {
        Ok(request) => request,
        Err(error) => return Reach::Unreachable(told(&error.to_string())),
    };
    // What asks for a session goes to somebody else than the provider.
    let headers = if sessions::request(provider).is_some() { HeaderMap::new() } else { headers(provider) };
    match line.with_headers(headers).fetch(request, BODY_BYTES_MAX) {
        Err(error) => Reach::Unreachable(told(&log_line(&error))),
        Ok(response) => {
            let body = String::from_utf8_lossy(response.body()).into_owned();
            let detail = told(&format!("HTTP {}: {}", response.status().as_u16(), said(&body)));
            match response.status().as_u16() {
                200..=299 => Reach::Reachable,
                401..=403 => Reach::KeyRefused(detail),
                400 if body.contains("API_KEY_INVALID") => Reach::KeyRefused(detail),
                500..=599 => Reach::Unreachable(detail),
                _ => Reach::Answers(detail),
            }
        }
    }
}

/// The words of an error, out of the envelopes that are in use.
fn said(body: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let message =
        json.pointer("/error/message").or_else(|| json.get("message")).or_else(|| json.get("error"));
    message.and_then(|message| message.as_str()).unwrap_or(body).to_owned()
}

fn request(provider: &ProviderConfig) -> Result<Request<Bytes>, http::Error> {
    if let Some(request) = sessions::request(provider) {
        return request;
    }
    let kind = provider.api.kind();
    let path = kind.check.unwrap_or_default();
    let version = path.split('/').nth(1).filter(|part| part.starts_with('v'));
    let address = match version {
        Some(version) => root(provider.address(), &format!("/{version}")),
        None => provider.address(),
    };
    let key = provider.api_key.as_ref().map(|key| key.reveal());
    let mut parameters = Vec::new();
    if provider.api == ApiType::Azure {
        parameters.push(format!(
            "api-version={}",
            provider.api_version.as_deref().unwrap_or(AZURE_DEFAULT_API_VERSION)
        ));
    }
    if let (KeyPlace::Parameter(name), Some(key)) = (kind.key, key) {
        parameters.push(format!("{name}={}", utf8_percent_encode(key, NON_ALPHANUMERIC)));
    }
    let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
    let mut request = Request::get(format!("{address}{path}{query}"));
    match (kind.key, key) {
        (KeyPlace::Bearer, Some(key)) => request = request.header("authorization", format!("Bearer {key}")),
        (KeyPlace::Header(name), Some(key)) => request = request.header(name, key),
        _ => {}
    }
    if kind.wire == ProviderWire::Messages {
        request = request.header("anthropic-version", MESSAGES_VERSION);
    }
    request.body(Bytes::new())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::net::TcpListener;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::PROVIDERS;

    #[test]
    fn who_says_nothing_is_given_up_in_time() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = Some(format!("http://{}", silent.local_addr().unwrap()));
        let provider = ProviderConfig { base_url, ..ProviderConfig::new("p", ApiType::Groq) };
        let started = Instant::now();
        let found =
            check_all(&[provider.clone(), provider], &SystemClock::shared(), Duration::from_millis(100));
        assert!(started.elapsed() < READ_WAIT_MAX, "{:?}", started.elapsed());
        let late = Reach::Unreachable("no answer within 100 ms".to_owned());
        assert_eq!(found, [late.clone(), late]);
    }

    #[test]
    fn every_provider_has_a_request_that_holds_its_key_once() {
        for kind in &PROVIDERS {
            let key = Some(crate::config::Secret::new("k-1/2"));
            let base_url = kind.base_url.or(Some("https://host/v1")).map(str::to_owned);
            let provider = ProviderConfig { api_key: key, base_url, ..ProviderConfig::new("p", kind.api) };
            let request = request(&provider).unwrap();
            let (uri, headers) = (request.uri().to_string(), format!("{:?}", request.headers()));
            let held = headers.matches("k-1/2").count() + uri.matches("key=k%2D1%2F2").count();
            assert_eq!(held, 1, "{}: {uri} {headers}", kind.name);
            assert!(!uri.contains("/v1/v1"), "{uri}");
        }
    }
}
