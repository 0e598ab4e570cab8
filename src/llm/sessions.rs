//! Session tokens of GitHub Copilot. Where the key of such a provider is a token of a GitHub account, it is
//! exchanged for the token that Copilot takes, which lives for half an hour. One call at a time makes the
//! exchange, on its own line, and the others wait for it; each wait ends with its own stop.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use http::{Request, Response};
use rig_core::operation::Completion;
use rig_core::{DynModel, ProviderResponseError};
use serde::Deserialize;

use super::classify::{Classified, Reporter};
use super::error::LlmError;
use super::lines::Lease;
use super::link::Link;
use crate::clock::SharedClock;
use crate::config::{ApiType, ProviderConfig, Secret};
use crate::http::transport::HttpTransport;
use crate::thread::Cancel;

/// What the tokens of a GitHub account begin with. A session token has none of these: such a key goes out as it is.
const GITHUB_TOKENS: [&str; 6] = ["gho_", "ghu_", "ghp_", "ghs_", "ghr_", "github_pat_"];
const GITHUB_URL: &str = "https://api.github.com";
const PATH: &str = "/copilot_internal/v2/token";
/// Bytes of an answer that are read: a token has some hundred, and what it allows stands beside it.
const BODY_BYTES_MAX: usize = 64 << 10;
/// So long before its end a token is not used any more, where GitHub does not say when to renew it.
const MARGIN: Duration = Duration::from_secs(60);
/// A token is used for so long at least, or a clock that runs ahead would ask GitHub before each call,
const LIFE_MIN: Duration = Duration::from_secs(60);
/// and so long at most, or one that is behind would never ask again.
const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Where Copilot's addresses end.
const COPILOT_HOSTS: &str = ".githubcopilot.com";

/// A token that Copilot takes.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) token: Secret,
    /// Tells sessions of one provider apart.
    pub(super) number: u64,
    /// Where it holds, if GitHub says so.
    address: Option<String>,
    renewed_at: Duration,
}

impl Session {
    /// The model, as it is asked in this session.
    pub(super) fn model(
        &self,
        lease: &mut Lease<'_>,
        link: &Link,
        provider: &ProviderConfig,
    ) -> DynModel<Completion> {
        let base_url = provider.base_url.clone().or_else(|| self.address.clone());
        let provider = ProviderConfig { api_key: Some(self.token.clone()), base_url, ..provider.clone() };
        lease.model(&format!("{} {}", link.full_name, self.number), &provider, &link.name)
    }
}

#[derive(Default)]
struct Kept {
    session: Option<Session>,
    exchanges: u64,
}

/// What is kept of one provider; who has taken it out has it alone.
type Slot = (Sender<Kept>, Receiver<Kept>);

/// The turn of one call, which puts back what it has taken, whatever becomes of it.
struct Turn<'a> {
    slot: &'a Slot,
    kept: Kept,
}

impl<'a> Turn<'a> {
    /// Waits for it; none when the stop came first.
    fn take(slot: &'a Slot, cancel: &Cancel) -> Option<Self> {
        select! {
            recv(slot.1) -> kept => Some(Self { slot, kept: kept.ok()? }),
            recv(cancel.receiver()) -> _ => None,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // There is room: it was taken from there, and nobody else has anything to put in.
        self.slot.0.try_send(std::mem::take(&mut self.kept)).ok();
    }
}

pub(super) struct Sessions {
    clock: SharedClock,
    /// By the provider's id.
    slots: HashMap<String, Slot>,
}

impl Sessions {
    pub(super) fn new(providers: &[ProviderConfig], clock: SharedClock) -> Self {
        let slot = || {
            let slot = bounded(1);
            slot.0.try_send(Kept::default()).ok(); // it is empty
            slot
        };
        let needed = providers.iter().filter(|provider| github_token(provider).is_some());
        Self { clock, slots: needed.map(|provider| (provider.id.clone(), slot())).collect() }
    }

    /// The session with which this provider is asked, and whether it was there before; none: its key is what it takes.
    pub(super) fn of(
        &self,
        provider: &ProviderConfig,
        transport: &HttpTransport,
        cancel: &Cancel,
        reporter: &Reporter<'_>,
    ) -> Result<Option<(Session, bool)>, Classified> {
        let Some(slot) = self.slots.get(&provider.id) else { return Ok(None) };
        let mut turn = Turn::take(slot, cancel).ok_or(LlmError::Cancelled)?;
        let now = self.clock.monotonic();
        if let Some(session) = turn.kept.session.as_ref().filter(|session| now < session.renewed_at) {
            return Ok(Some((session.clone(), true)));
        }
        turn.kept.session = None;
        let closer = {
            let transport = transport.clone();
            cancel.on_cancel(move || transport.stop())
        };
        let granted = exchange(provider, transport, reporter)?;
        drop(closer);
        turn.kept.exchanges += 1;
        let session = Session {
            number: turn.kept.exchanges,
            renewed_at: now + granted.life(self.clock.now().0 / 1000),
            address: granted.address(),
            token: Secret::new(granted.token),
        };
        turn.kept.session = Some(session.clone());
        Ok(Some((session, false)))
    }

    /// Whether the session that was used, and was there before, has ended before its time. It is forgotten then.
    pub(super) fn is_stale(
        &self,
        used: Option<(&ProviderConfig, u64)>,
        error: &LlmError,
        cancel: &Cancel,
    ) -> bool {
        let is_refused = matches!(error, LlmError::Unauthorized(failure) if failure.status == Some(401));
        let Some((provider, number)) = used.filter(|_| is_refused) else { return false };
        self.forget(provider, number, cancel);
        true
    }

    /// A newer one stays.
    fn forget(&self, provider: &ProviderConfig, number: u64, cancel: &Cancel) {
        let Some(slot) = self.slots.get(&provider.id) else { return };
        let Some(mut turn) = Turn::take(slot, cancel) else { return };
        turn.kept.session = turn.kept.session.take().filter(|session| session.number != number);
    }
}

/// The key, if it is a token of a GitHub account.
fn github_token(provider: &ProviderConfig) -> Option<&str> {
    let key = provider.api_key.as_ref().filter(|_| provider.api == ApiType::Copilot)?.reveal().trim();
    GITHUB_TOKENS.iter().any(|beginning| key.starts_with(beginning)).then_some(key)
}

/// What asks for a session, if this provider needs one. The headers of the provider do not belong to it.
pub(super) fn request(provider: &ProviderConfig) -> Option<http::Result<Request<Bytes>>> {
    let token = github_token(provider)?;
    let address = provider.github_url.as_deref().unwrap_or(GITHUB_URL).trim_end_matches('/');
    let request = Request::get(format!("{address}{PATH}"));
    let request = request.header("authorization", format!("token {token}"));
    Some(request.header("accept", "application/json").body(Bytes::new()))
}

#[derive(Deserialize)]
struct Granted {
    token: String,
    /// In seconds since 1970.
    expires_at: Option<i64>,
    /// In seconds from now, by whatever clock.
    refresh_in: Option<u64>,
    endpoints: Option<Endpoints>,
}

#[derive(Deserialize)]
struct Endpoints {
    api: Option<String>,
}

impl Granted {
    fn life(&self, now: i64) -> Duration {
        let left = |at: i64| Duration::from_secs(u64::try_from(at.saturating_sub(now)).unwrap_or(0));
        let expires = self.expires_at.map(|at| left(at).saturating_sub(MARGIN));
        let said = self.refresh_in.map(Duration::from_secs).or(expires);
        said.unwrap_or(LIFE_MIN).clamp(LIFE_MIN, LIFE_MAX)
    }

    /// The token is sent there, so not to anywhere.
    fn address(&self) -> Option<String> {
        let address = self.endpoints.as_ref()?.api.as_deref()?.trim_end_matches('/');
        let uri: http::Uri = address.parse().ok()?;
        let is_copilots = uri.scheme_str() == Some("https")
            && uri.authority().is_some_and(|authority| authority.as_str() == authority.host())
            && uri.host().is_some_and(|host| format!(".{host}").ends_with(COPILOT_HOSTS));
        is_copilots.then(|| address.to_owned())
    }
}

fn exchange(
    provider: &ProviderConfig,
    transport: &HttpTransport,
    reporter: &Reporter<'_>,
) -> Result<Granted, Classified> {
    let name = format!("{}, its session", reporter.model);
    let reporter = Reporter { model: &name, ..*reporter };
    let request = request(provider).and_then(Result::ok);
    let Some(request) = request else {
        return Err(LlmError::Rejected(reporter.failure(None, "the key or github_url is no HTTP")).into());
    };
    let answer = transport.fetch(request, BODY_BYTES_MAX);
    let answer = answer.map_err(|error| reporter.classify_transport(&error))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(refused(answer, &reporter));
    }
    let granted = serde_json::from_slice::<Granted>(answer.body()).ok();
    granted.filter(|granted| !granted.token.trim().is_empty()).ok_or_else(|| {
        LlmError::Malformed(reporter.failure(Some(status.as_u16()), "there is no token in it")).into()
    })
}

fn refused(answer: Response<Vec<u8>>, reporter: &Reporter<'_>) -> Classified {
    let (parts, body) = answer.into_parts();
    let mut reply = ProviderResponseError::new(parts.status, String::from_utf8_lossy(&body));
    reply.headers = Some(parts.headers);
    let classified = reporter.classify_reply(&reply);
    match classified.error {
        // GitHub's word to an account that has no Copilot.
        LlmError::UnknownModel(failure) => LlmError::Unauthorized(failure).into(),
        _ => classified,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn granted(text: &str) -> Granted {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_session_is_renewed_before_its_end_whatever_the_clock_says() {
        let cases = [
            (r#"{"token": "t", "expires_at": 2800, "refresh_in": 1500}"#, 1500),
            (r#"{"token": "t", "expires_at": 2800}"#, 1740),
            (r#"{"token": "t", "expires_at": 900}"#, 60),
            (r#"{"token": "t", "refresh_in": 0}"#, 60),
            (r#"{"token": "t", "refresh_in": 99999999999999}"#, 86_400),
            (r#"{"token": "t"}"#, 60),
        ];
        for (text, seconds) in cases {
            assert_eq!(granted(text).life(1000), Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn a_session_goes_to_copilot_and_nowhere_else() {
        let cases = [
            ("https://api.githubcopilot.com", true),
            ("https://api.business.githubcopilot.com/", true),
            ("https://githubcopilot.com", true),
            ("http://api.githubcopilot.com", false),
            ("https://api.githubcopilot.com.example.org", false),
            ("https://notgithubcopilot.com", false),
            ("https://api.githubcopilot.com:444", false),
            ("https://x@api.githubcopilot.com", false),
            ("https://127.0.0.1", false),
            ("", false),
        ];
        for (address, taken) in cases {
            let text = format!(r#"{{"token": "t", "endpoints": {{"api": "{address}"}}}}"#);
            let expected = taken.then(|| address.trim_end_matches('/').to_owned());
            assert_eq!(granted(&text).address(), expected, "{address}");
        }
    }

    #[test]
    fn only_tokens_of_an_account_are_exchanged_and_only_for_copilot() {
        let provider = |api, key: &str| {
            let api_key = Some(Secret::new(key));
            request(&ProviderConfig { api_key, ..ProviderConfig::new("p", api) })
        };
        for key in ["gho_1", "ghu_1", "github_pat_1"] {
            let request = provider(ApiType::Copilot, key).unwrap().unwrap();
            assert_eq!(request.uri(), "https://api.github.com/copilot_internal/v2/token");
            assert_eq!(request.headers()["authorization"], format!("token {key}"));
        }
        for (api, key) in [(ApiType::Copilot, "tid=1;exp=2"), (ApiType::OpenAi, "gho_1")] {
            assert!(provider(api, key).is_none(), "{api:?} {key}");
        }
    }
}
