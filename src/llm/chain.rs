//! One call along a chain of models.
//!
//! Every model is asked up to [`RETRIES_MAX`] times more while its failure may pass by itself, then the
//! next one. An answer counts only when it is complete, so a broken one may be asked for again without
//! anything being done twice; the deltas of the broken one were for display and start over.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rig_core::DynModel;
use rig_core::completion::{CompletionRequest, CompletionResponse, ProviderCapabilities, Reasoning};
use rig_core::operation::Completion;

use super::again::{self, After, RETRIES_MAX};
use super::attached;
use super::attempt;
use super::classify::{Classified, Reporter};
use super::delta::Delta;
use super::error::LlmError;
use super::gates::Gates;
use super::health::{Admission, Health};
use super::lines::Lines;
use super::link::Link;
use super::media::Takes;
use super::metered::Account;
use super::provider::Providers;
use super::repair::repaired;
use super::reported::tokens_in;
use super::sessions::Sessions;
use super::tokens::Calibration;
use super::{Tuning, thinking};
use crate::billing::{Exhausted, Payer};
use crate::clock::SharedClock;
use crate::config::{OFFLINE_MODEL, ThinkingEffort};
use crate::error::{Fault, Kind, log_line};
use crate::message::attachment::Files;
use crate::secrets::Scrubber;
use crate::thread::{Cancel, lock};

/// Times that a patient caller asks the whole chain again.
const PATIENT_RETRIES: u32 = 5;
/// The first wait of a patient caller, in first waits of an impatient one: 5 s; it doubles.
const PATIENCE: u32 = 10;
/// What all models of the program use together.
pub(super) struct Shared {
    pub(super) providers: Providers,
    pub(super) lines: Lines,
    pub(super) gates: Gates,
    pub(super) health: Health,
    pub(super) sessions: Sessions,
    pub(super) scrubber: Arc<Scrubber>,
    pub(super) clock: SharedClock,
    pub(super) offline: DynModel<Completion>,
    pub(super) tuning: Tuning,
    /// Models that answered a request for an event stream with something whole, and one without well; from the
    /// configuration, so few.
    pub(super) never_streams: Mutex<HashSet<String>>,
    pub(super) calibration: Calibration,
    /// Models of conversations that nobody provides, each told once.
    pub(super) told_unknown: Mutex<HashSet<String>>,
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub response: CompletionResponse,
    /// `provider/model` that gave it.
    pub model: String,
    /// Requests made for it, over all models.
    pub attempts: u32,
    /// Another model than the first of the chain gave it.
    pub fell_back: bool,
}

/// The chain of models of one process.
#[derive(Clone)]
pub struct SpacebotModel {
    shared: Arc<Shared>,
    links: Arc<[Link]>,
    capabilities: ProviderCapabilities,
    rate_limit_cooldown: Duration,
    /// The offline responder is the last link.
    ends_offline: bool,
    /// It stands in only for models that are away, not for those that somebody has to mend.
    only_while_away: bool,
    account: Account,
    /// None: what the provider does by itself.
    reasoning: Option<Reasoning>,
    /// Where the files of the conversation are; without it none is shown.
    files: Option<Arc<dyn Files>>,
}

/// What one call carries from link to link.
struct Call<'a> {
    request: &'a CompletionRequest,
    cancel: &'a Cancel,
    on_delta: &'a mut dyn FnMut(Delta<'_>),
    attempts: u32,
    /// No other model of the chain comes behind the one that is asked.
    is_last: bool,
    /// The model that is asked has rejected the request with its files; it gets it without.
    without_files: bool,
    /// The session of the latest request, if it was there before.
    session: Option<u64>,
    /// A ceiling left no room for a model; what the config says then.
    exhausted: Option<Exhausted>,
}

impl SpacebotModel {
    pub(super) fn new(
        shared: Arc<Shared>,
        links: Vec<Link>,
        rate_limit_cooldown: Duration,
        account: Account,
    ) -> Self {
        let first = links.first().and_then(|link| Some((link, link.provider.as_ref()?)));
        let capabilities = match first {
            Some((link, provider)) => shared.lines.describe(provider, &link.full_name, &link.name),
            None => shared.offline.capabilities().completion,
        };
        Self {
            shared,
            links: links.into(),
            capabilities,
            rate_limit_cooldown,
            ends_offline: true,
            only_while_away: false,
            reasoning: None,
            files: None,
            account,
        }
    }

    /// The same chain with so much thinking.
    pub(super) fn thinking(self, effort: ThinkingEffort) -> Self {
        Self { reasoning: thinking::wanted(effort), ..self }
    }

    /// On whose account the calls go.
    #[must_use]
    pub fn paid_by(self, payer: Payer) -> Self {
        Self { account: Account { payer, ..self.account }, ..self }
    }

    /// The same chain, whose models are shown these files as far as they take them.
    #[must_use]
    pub fn with_files(self, files: Arc<dyn Files>) -> Self {
        Self { files: Some(files), ..self }
    }

    /// The same chain without the offline responder at its end: for what only a language model can do.
    #[must_use]
    pub fn without_offline(self) -> Self {
        let ends_offline = self.links.is_empty() && self.shared.tuning.offline_is_a_model;
        Self { ends_offline, ..self }
    }

    /// For how long none of the links may be asked.
    pub(super) fn rests(&self) -> Option<Duration> {
        let rests: Option<Vec<Duration>> =
            self.links.iter().map(|link| self.shared.health.rests(&link.full_name)).collect();
        rests?.into_iter().min()
    }

    /// The same chain, in which the offline responder takes the place of models that are away, and not of those that
    /// refuse: for what nobody looks at.
    #[must_use]
    pub fn offline_only_while_away(self) -> Self {
        Self { only_while_away: true, ..self }
    }

    /// `provider/model` of the first link.
    pub fn name(&self) -> &str {
        self.links.first().map_or(OFFLINE_MODEL, |link| &link.full_name)
    }

    /// What a request to the first link may ask for. An option that a later link lacks is left out
    /// there.
    pub fn capabilities(&self) -> ProviderCapabilities {
        self.capabilities
    }

    /// Blocks until a model of the chain has answered completely, every one has failed, or `cancel`
    /// comes. `on_delta` gets the answer as it arrives, for display: [`Delta::Begins`] voids what came before.
    ///
    /// # Errors
    /// The failure of the first model that was asked. [`LlmError::TooLong`] and
    /// [`LlmError::Filtered`] come before an answer of the offline responder: they are for the caller
    /// to deal with.
    pub fn call(
        &self,
        request: &CompletionRequest,
        cancel: &Cancel,
        on_delta: &mut dyn FnMut(Delta<'_>),
    ) -> Result<Reply, LlmError> {
        let request = &*repaired(request);
        let mut call = Call {
            request,
            cancel,
            on_delta,
            attempts: 0,
            without_files: false,
            is_last: true,
            session: None,
            exhausted: None,
        };
        let mut first_failure = None;
        for (index, link) in self.links.iter().enumerate() {
            call.is_last = index + 1 == self.links.len();
            match self.ask_unless_resting(link, &mut call) {
                Ok(response) => {
                    // What files are taken for says nothing about words.
                    let counted = response.usage.input_tokens.filter(|_| !attached::has_files(request));
                    self.shared.calibration.learn(&link.full_name, request, counted);
                    let model = link.full_name.clone();
                    return Ok(Reply { response, model, attempts: call.attempts, fell_back: index > 0 });
                }
                Err(LlmError::Cancelled) => return Err(LlmError::Cancelled),
                Err(error) => {
                    report(&error);
                    let replaces = error.is_for_the_caller()
                        && !first_failure.as_ref().is_some_and(LlmError::is_for_the_caller);
                    if first_failure.is_none() || replaces {
                        first_failure = Some(error);
                    }
                }
            }
        }
        if !first_failure.as_ref().is_some_and(LlmError::is_for_the_caller)
            && let Some(done) = self.ask_cheaper(&mut call)
        {
            return done;
        }
        match first_failure {
            // Nobody is there to read the refusal of what runs by itself, and a reminder costs nothing.
            Some(error @ LlmError::OverBudget(_))
                if call.exhausted == Some(Exhausted::Refuse) && !self.only_while_away =>
            {
                Err(error)
            }
            Some(error) if error.is_for_the_caller() || !self.ends_offline => Err(error),
            Some(error) if self.only_while_away && !error.is_passing() => Err(error),
            None if !self.ends_offline => {
                let failure = self.reporter(OFFLINE_MODEL).failure(None, "no language model is configured");
                Err(LlmError::NotConfigured(failure))
            }
            failure => self.ask_offline(call, failure),
        }
    }

    /// As [`SpacebotModel::call`] for a run that has come far and that nobody waits for: a failure that may
    /// pass is waited for, longer each time, and the offline responder does not answer in the model's place.
    ///
    /// # Errors
    /// As there, and when it has not passed.
    pub fn call_patiently(
        &self,
        request: &CompletionRequest,
        cancel: &Cancel,
        on_delta: &mut dyn FnMut(Delta<'_>),
    ) -> Result<Reply, LlmError> {
        if self.links.is_empty() {
            return self.call(request, cancel, on_delta);
        }
        let model = self.clone().without_offline();
        let mut wait = self.shared.tuning.retry_delay * PATIENCE;
        for _ in 0..PATIENT_RETRIES {
            match model.call(request, cancel, on_delta) {
                Err(error) if matches!(error.kind(), Kind::Transient | Kind::RateLimited) => {
                    log::info!("again in {} s: {error}", wait.as_secs());
                }
                done => return done,
            }
            if cancel.wait(wait) {
                return Err(LlmError::Cancelled);
            }
            wait *= 2;
        }
        model.call(request, cancel, on_delta)
    }

    /// Where a ceiling left no room: the model that the config names for this, if it is none of the chain.
    fn ask_cheaper(&self, call: &mut Call<'_>) -> Option<Result<Reply, LlmError>> {
        let Some(Exhausted::Model(name)) = call.exhausted.clone() else { return None };
        if self.links.iter().any(|link| link.full_name == name) {
            return None;
        }
        let link = Link::new(&name, &self.shared.providers);
        match self.ask_unless_resting(&link, call) {
            Ok(response) => {
                Some(Ok(Reply { response, model: name, attempts: call.attempts, fell_back: true }))
            }
            Err(LlmError::Cancelled) => Some(Err(LlmError::Cancelled)),
            Err(error) => {
                report(&error);
                None
            }
        }
    }

    fn ask_offline(&self, mut call: Call<'_>, failure: Option<LlmError>) -> Result<Reply, LlmError> {
        if call.cancel.is_cancelled() {
            return Err(LlmError::Cancelled);
        }
        call.attempts += 1;
        let mut request = call.request.clone();
        attached::describe(&mut request, Takes::default());
        let answer = attempt::streamed(&self.shared.offline, request, call.cancel, &mut call.on_delta);
        let reporter = self.reporter(OFFLINE_MODEL);
        let answer = answer.map_err(|broken| reporter.classify(&broken).error);
        match answer.and_then(|response| reporter.check(response)) {
            Ok(response) => Ok(Reply {
                response,
                model: OFFLINE_MODEL.to_owned(),
                attempts: call.attempts,
                fell_back: !self.links.is_empty(),
            }),
            Err(LlmError::Cancelled) => Err(LlmError::Cancelled),
            // What the operator can mend is the model that should have answered.
            Err(error) => Err(failure.unwrap_or(error)),
        }
    }

    /// One link, unless it is lost and it is not time to try it.
    fn ask_unless_resting(&self, link: &Link, call: &mut Call<'_>) -> Result<CompletionResponse, LlmError> {
        let health = &self.shared.health;
        let probe = match health.admit(&link.full_name) {
            Admission::Open => None,
            Admission::Probe(probe) => Some(probe),
            Admission::Rests(left) => {
                log::debug!("{} rests for another {} s", link.full_name, left.as_secs());
                return Err(LlmError::Resting(self.reporter(&link.full_name).failure(None, "")));
            }
        };
        let response = self.ask(link, call, probe.is_some())?;
        health.answered(&link.full_name);
        Ok(response)
    }

    /// One link with its retries; a probe has none.
    fn ask(&self, link: &Link, call: &mut Call<'_>, is_probe: bool) -> Result<CompletionResponse, LlmError> {
        let mut retries = if is_probe { RETRIES_MAX } else { 0 };
        let (mut is_whole, mut is_renewed) = (!self.streams(link), false);
        call.without_files = false;
        loop {
            let failed = match self.ask_once(link, call, is_whole) {
                Ok(response) => {
                    if is_whole && self.shared.tuning.streamed {
                        lock(&self.shared.never_streams).insert(link.full_name.clone());
                    }
                    return Ok(response);
                }
                Err(failed) => failed,
            };
            // What came in place of a stream may have been anybody's: only an answer to this shows that the
            // model does not stream.
            let is_no_stream = !is_whole && failed.not_a_stream;
            is_whole = is_no_stream || !self.streams(link);
            if is_no_stream {
                continue;
            }
            let used = link.provider.as_ref().zip(call.session.take());
            if self.shared.sessions.is_stale(used, &failed.error, call.cancel) && !is_renewed {
                is_renewed = true;
                continue;
            }
            let is_rejected = matches!(failed.error, LlmError::Rejected(_));
            if is_rejected && !call.without_files && link.takes(call.request) != Takes::default() {
                log::warn!("{}; it is asked without the files of the conversation", failed.error);
                call.without_files = true;
                continue;
            }
            let delay = self.shared.tuning.retry_delay;
            let Some(wait) = again::wait_before(retries, &failed, call.is_last, delay) else {
                self.rest_if_lost(link, &failed);
                return Err(failed.error);
            };
            log::debug!("again in {} ms: {}", wait.as_millis(), failed.error);
            if call.cancel.wait(wait) {
                return Err(LlmError::Cancelled);
            }
            retries += 1;
        }
    }

    fn rest_if_lost(&self, link: &Link, failed: &Classified) {
        match After::of(failed, self.rate_limit_cooldown) {
            After::Rests(why) => self.shared.health.rest(&link.full_name, why),
            After::Answered => self.shared.health.answered(&link.full_name),
            After::Nothing => {}
        }
    }

    fn ask_once(
        &self,
        link: &Link,
        call: &mut Call<'_>,
        is_whole: bool,
    ) -> Result<CompletionResponse, Classified> {
        let reporter = self.reporter(&link.full_name);
        let Some(provider) = &link.provider else {
            return Err(LlmError::NotConfigured(reporter.failure(None, "")).into());
        };
        // In this order: whoever waits for a provider holds no line that another could use.
        let _pass = self.shared.gates.enter(&provider.id, call.cancel).ok_or(LlmError::Cancelled)?;
        let mut lease = self.shared.lines.take(call.cancel).ok_or(LlmError::Cancelled)?;
        let transport = lease.transport().clone();
        let session = self.shared.sessions.of(provider, &transport, call.cancel, &reporter);
        if call.cancel.is_cancelled() {
            transport.stop();
            return Err(LlmError::Cancelled.into());
        }
        let session = session?;
        call.session = session.as_ref().filter(|(_, is_old)| *is_old).map(|(session, _)| session.number);
        let (model, scrubber) = match &session {
            None => (lease.model(&link.full_name, provider, &link.name), None),
            Some((session, _)) => {
                let scrubber = self.shared.scrubber.and(session.token.reveal());
                (session.model(&mut lease, link, provider), Some(scrubber))
            }
        };
        let reporter = Reporter { scrubber: scrubber.as_ref().unwrap_or(reporter.scrubber), ..reporter };
        let mut request = attempt::portable(call.request, self.reasoning);
        let takes = if call.without_files { Takes::default() } else { link.takes(call.request) };
        attached::describe(&mut request, takes);
        let paid = self.account.authorise(&link.full_name, &mut request).map_err(|refused| {
            call.exhausted.get_or_insert(refused.then);
            LlmError::OverBudget(reporter.failure(None, &refused.reason))
        })?;
        thinking::fit(&mut request, provider.api.kind().wire, &link.name);
        attached::fill(&mut request, self.files.as_deref());
        let closer = call.cancel.on_cancel(move || transport.stop());
        call.attempts += 1;
        (call.on_delta)(Delta::Begins);
        let answer = if is_whole {
            attempt::whole(&model, request, &mut call.on_delta)
        } else {
            attempt::streamed(&model, request, call.cancel, &mut call.on_delta)
        };
        paid.settle(&answer, &reporter, || tokens_in(&lease.transport().overheard()));
        // In this order: a stop that comes between the two still finds the closer, or is seen here.
        // A line that was stopped late would otherwise be given to the next call.
        drop(closer);
        if call.cancel.is_cancelled() {
            lease.transport().stop();
            return Err(LlmError::Cancelled.into());
        }
        match answer {
            Ok(response) => Ok(reporter.check(response)?),
            Err(broken) => Err(reporter.classify(&broken)),
        }
    }

    fn streams(&self, link: &Link) -> bool {
        self.shared.tuning.streamed && !lock(&self.shared.never_streams).contains(&link.full_name)
    }

    fn reporter<'a>(&'a self, model: &'a str) -> Reporter<'a> {
        Reporter { model, scrubber: &self.shared.scrubber, now: self.shared.clock.now() }
    }
}

/// For the operator: a refused key stays refused until somebody acts.
fn report(error: &LlmError) {
    let level = match error {
        // It was told when it was lost.
        LlmError::Resting(_) => return,
        _ if error.kind() == Kind::Auth => log::Level::Error,
        _ => log::Level::Warn,
    };
    log::log!(level, "{}", log_line(error));
}
