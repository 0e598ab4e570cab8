//! Messages that wait for a model, where that is wished ([`OfflineConfig::defer`]): a turn whose models
//! cannot be asked tells once that the messages are kept, and leaves them. What has waited too long is
//! not answered any more.
//!
//! [`OfflineConfig::defer`]: crate::config::OfflineConfig::defer

use std::time::Duration;

use super::input::Input;
use super::{commit, failed, text};
use crate::agent::AgentParts;
use crate::agent::job::{Job, Turn};
use crate::clock::Timestamp;
use crate::conversation::TurnCommit;
use crate::db::DbError;
use crate::error::Kind;
use crate::event::{How, Received};
use crate::id::{InboxId, ProcessKind};
use crate::prompts;
use crate::turn::Part;

/// Messages that are looked at; a turn takes fewer.
const LOOKED_AT: usize = 64;
/// Until a turn is tried again whose models failed without being given a rest.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// A rest that ends while another call tries the model.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// Messages of this turn wait for a model if none can be asked.
pub(super) fn is_on(parts: &AgentParts, job: &Job, turn: &Turn) -> Result<bool, DbError> {
    Ok(parts.config.offline.defer
        && turn.execution.is_none()
        && parts.llm.has_model(&*parts.routing(&job.place)?, ProcessKind::Channel))
}

/// For how long no model of the conversation may be asked.
fn rests(parts: &AgentParts, job: &Job) -> Result<Option<Duration>, DbError> {
    Ok(parts.llm.rests(&*parts.routing(&job.place)?, ProcessKind::Channel))
}

/// What the turn comes to before a model is asked, if it comes to something.
pub(super) fn before(parts: &AgentParts, job: &Job, input: &Input) -> Option<How> {
    let deferred = match parts.conversations.deferred(&job.place.conversation, LOOKED_AT) {
        Ok(deferred) => deferred,
        Err(error) => return Some(failed(&error)),
    };
    let oldest = parts.conversations.now().minus(parts.config.offline.max_age);
    let is_stale =
        |received: &&Received| deferred.iter().any(|(id, since)| *id == received.id && *since < oldest);
    let stale: Vec<Received> = input.messages.iter().take_while(is_stale).cloned().collect();
    if !stale.is_empty() {
        return Some(give_up(parts, job, input, stale));
    }
    match rests(parts, job) {
        Ok(rest) => Some(keep(parts, job, input, Some(rest?))),
        Err(error) => Some(failed(&error)),
    }
}

/// They stand in the history without an answer; the rest is for another turn.
fn give_up(parts: &AgentParts, job: &Job, input: &Input, stale: Vec<Received>) -> How {
    let more = input.has_more() || stale.len() < input.messages.len() || !input.results.is_empty();
    let given_up = Input::of(stale, more);
    let say = if is_waited_for(job, &given_up) { vec![text(prompts::notice("stale"))] } else { Vec::new() };
    log::warn!(
        "{} messages have waited too long for a model, {}",
        given_up.messages.len(),
        job.place.conversation
    );
    commit(parts, job, &given_up, say, TurnCommit::default(), None)
}

/// A failure that may pass when the models, or their operator, are back.
pub(super) fn is_for(kind: Kind) -> bool {
    matches!(kind, Kind::Transient | Kind::RateLimited | Kind::Auth | Kind::NotFound)
}

/// Leaves the messages, and tells that the first time. `rest`: until a model may be asked again.
pub(super) fn keep(parts: &AgentParts, job: &Job, input: &Input, rest: Option<Duration>) -> How {
    let rest = rest.map_or_else(|| rests(parts, job), |rest| Ok(Some(rest)));
    match rest.and_then(|rest| Ok((rest, mark(parts, job, input)?))) {
        Ok((rest, told)) => {
            let outbox = if told { vec![job.place.instance.clone()] } else { Vec::new() };
            How::Deferred { wait: rest.unwrap_or(TRY_AGAIN).max(WAIT_MIN), outbox }
        }
        Err(error) => failed(&error),
    }
}

fn mark(parts: &AgentParts, job: &Job, input: &Input) -> Result<bool, DbError> {
    let (known, new) = parts.conversations.deferral(&job.place.conversation)?;
    if !new {
        return Ok(false);
    }
    let tells = !known && is_waited_for(job, input);
    parts.conversations.defer(&job.place, tells.then(|| text(prompts::notice("deferred"))))?;
    Ok(tells)
}

fn is_waited_for(job: &Job, input: &Input) -> bool {
    job.place.direct || input.messages.iter().any(|received| received.message.addressed)
}

/// A word to the model about messages that had to wait.
pub(super) fn note(parts: &AgentParts, job: &Job, input: &Input) -> Result<Option<Part>, DbError> {
    let waited: Vec<(InboxId, Timestamp)> =
        parts.conversations.deferred(&job.place.conversation, LOOKED_AT)?;
    let has = |received: &Received| waited.iter().any(|(id, _)| *id == received.id);
    Ok(input.messages.iter().any(has).then(|| Part::Note(prompts::notice("waited").to_owned())))
}
