//! `/api/cortex…`: what the cortex of an agent has noted, and its conversation with the operator.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, hub_is_gone};
use crate::command::{Command, CortexReport};
use crate::cortex::{CHAT_CONTEXT, CortexStore};
use crate::db::DbError;
use crate::effect::{Answer, Refusal};
use crate::error::{Fault, Kind};
use crate::http::server::{Request, Response};
use crate::id::{AgentId, ConversationId};
use crate::message::Place;
use crate::messaging::progress::Progress;

/// Events that one answer has, unless asked for fewer.
const EVENTS_DEFAULT: usize = 50;
/// Longest message to the cortex and longest name of a thread, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
const THREAD_BYTES_MAX: usize = 100;
/// Of who names none.
const DEFAULT_THREAD: &str = "default";

/// What the API knows of all cortexes.
#[derive(Clone)]
pub struct Cortexes {
    pub stores: BTreeMap<AgentId, CortexStore>,
    /// What is going on in their threads.
    pub progress: BTreeMap<AgentId, Arc<Progress>>,
    /// Whether the model for search by meaning is in memory: `loaded`, `not loaded`, `off`.
    pub embedding: Arc<dyn Fn() -> &'static str + Send + Sync>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sending {
    agent_id: Option<String>,
    #[serde(default = "default_thread")]
    thread_id: String,
    /// A conversation whose last lines the cortex is to see.
    channel_id: Option<String>,
    message: String,
}

fn default_thread() -> String {
    DEFAULT_THREAD.to_owned()
}

impl Api {
    /// One object for each agent.
    pub(super) fn about_cortexes(&self, reports: Vec<CortexReport>) -> Vec<Value> {
        reports.into_iter().map(|report| self.about_cortex(report)).collect()
    }

    fn about_cortex(&self, report: CortexReport) -> Value {
        let store = self.cortexes.stores.get(&AgentId::new(&report.agent));
        // A status without them is better than none.
        let profile = store.and_then(|store| store.profile().ok()).flatten();
        let bulletin = store.and_then(|store| store.bulletin().ok()).flatten().map(|bulletin| {
            json!({
                "words": bulletin.text().split_whitespace().count(),
                "smoothed": bulletin.smoothed.is_some(),
                "changed_at": bulletin.changed_at.to_rfc3339(),
            })
        });
        let mut about = json!(report);
        about["embedding"] = json!((self.cortexes.embedding)());
        about["profile"] = json!(profile);
        about["bulletin"] = json!(bulletin);
        about
    }

    pub(super) fn cortex_events(&self, request: &Request<'_>) -> Response {
        let (mut agent, mut limit) = (None, EVENTS_DEFAULT);
        let parameters = match request.parameters() {
            Ok(parameters) => parameters,
            Err(error) => return Response::error(400, Kind::Invalid, error),
        };
        for (name, value) in parameters {
            match (name.as_ref(), value.parse()) {
                ("agent_id", _) => agent = Some(value.to_string()),
                ("limit", Ok(number)) => limit = number,
                _ => return Response::error(400, Kind::Invalid, "agent_id and limit can be given"),
            }
        }
        match self.cortex_store(agent.as_deref()).map(|(_, store)| store.events(limit)) {
            Ok(Ok(events)) => Response::json(200, &json!({ "events": events })),
            Ok(Err(error)) => unreadable(&error),
            Err(refusal) => refusal,
        }
    }

    /// 202 when the answer is on its way; it is a message of the thread behind `after`.
    pub(super) fn cortex_send(&self, request: &Request<'_>) -> Response {
        let Sending { agent_id, thread_id, channel_id, message } = match serde_json::from_slice(request.body)
        {
            Ok(wanted) => wanted,
            Err(error) => return Response::error(400, Kind::Invalid, error),
        };
        let (agent, store) = match self.cortex_store(agent_id.as_deref()) {
            Ok(found) => found,
            Err(refusal) => return refusal,
        };
        let fits = |text: &str, most| (1..=most).contains(&text.trim().len());
        if !fits(&message, MESSAGE_BYTES_MAX) || !fits(&thread_id, THREAD_BYTES_MAX) {
            return Response::error(400, Kind::Invalid, "message or thread_id is empty or too long");
        }
        let after = match store.chat(&thread_id, 1) {
            Ok(last) => last.last().map_or(0, |message| message.id),
            Err(error) => return unreadable(&error),
        };
        let (agent, message) = (agent.clone(), message.trim().to_owned());
        let channel = channel_id.map(ConversationId::new);
        let begun =
            self.ask(|answer| Command::CortexChat { agent, thread: thread_id, channel, message, answer });
        match begun {
            Some(Answer::Started(process)) => {
                Response::json(202, &json!({ "after": after, "process": process.to_string() }))
            }
            Some(Answer::Refused(Refusal::Busy(_))) => {
                Response::error(409, Kind::Transient, "the cortex is answering another message")
            }
            Some(Answer::Refused(refusal)) => Response::error(503, Kind::Transient, refusal),
            _ => hub_is_gone(),
        }
    }

    pub(super) fn cortex_messages(&self, request: &Request<'_>) -> Response {
        let (mut agent, mut thread, mut after, mut limit) = (None, None, 0, CHAT_CONTEXT);
        let parameters = match request.parameters() {
            Ok(parameters) => parameters,
            Err(error) => return Response::error(400, Kind::Invalid, error),
        };
        for (name, value) in parameters {
            match (name.as_ref(), value.parse::<i64>()) {
                ("agent_id", _) => agent = Some(value.to_string()),
                ("thread_id", _) => thread = Some(value.to_string()),
                ("after", Ok(number)) => after = number,
                ("limit", Ok(number)) => limit = usize::try_from(number).unwrap_or(CHAT_CONTEXT),
                _ => {
                    let known = "agent_id, thread_id, after and limit can be given";
                    return Response::error(400, Kind::Invalid, known);
                }
            }
        }
        let Some(thread) = thread else { return Response::error(400, Kind::Invalid, "thread_id is needed") };
        match self.cortex_store(agent.as_deref()).map(|(_, store)| store.chat(&thread, limit)) {
            Ok(Ok(mut messages)) => {
                messages.retain(|message| message.id > after);
                Response::json(200, &json!({ "messages": messages }))
            }
            Ok(Err(error)) => unreadable(&error),
            Err(refusal) => refusal,
        }
    }

    /// What is going on in a thread and was not seen: steps behind `seen`, words behind byte `from` of `draft`.
    pub(super) fn cortex_progress(&self, request: &Request<'_>) -> Response {
        let (mut agent, mut thread, mut seen, mut draft) = (None, None, 0, (0, 0));
        for (name, value) in request.parameters().unwrap_or_default() {
            match (name.as_ref(), value.parse::<u64>()) {
                ("agent_id", _) => agent = Some(value.to_string()),
                ("thread_id", _) => thread = Some(value.to_string()),
                ("seen", Ok(number)) => seen = number,
                ("draft", Ok(number)) => draft.0 = number,
                ("from", Ok(number)) => draft.1 = usize::try_from(number).unwrap_or(usize::MAX),
                _ => {
                    let known = "agent_id, thread_id, seen, draft and from can be given";
                    return Response::error(400, Kind::Invalid, known);
                }
            }
        }
        let Some(thread) = thread else { return Response::error(400, Kind::Invalid, "thread_id is needed") };
        let conversation = Place::of_thread(&thread).conversation;
        match self.cortex_store(agent.as_deref()).map(|(id, _)| self.cortexes.progress.get(id)) {
            Ok(Some(progress)) => Response::json(200, &json!(progress.look(&conversation, seen, draft))),
            Ok(None) => Response::error(404, Kind::NotFound, "nothing is known of this agent's progress"),
            Err(refusal) => refusal,
        }
    }

    pub(super) fn cortex_threads(&self, request: &Request<'_>) -> Response {
        let parameters = request.parameters().unwrap_or_default();
        let agent = parameters.iter().find(|(name, _)| name == "agent_id").map(|(_, value)| value.as_ref());
        match self.cortex_store(agent).map(|(_, store)| store.threads()) {
            Ok(Ok(threads)) => {
                let threads: Vec<_> = threads
                    .into_iter()
                    .map(|(thread, messages)| json!({ "thread_id": thread, "messages": messages }))
                    .collect();
                Response::json(200, &json!({ "threads": threads }))
            }
            Ok(Err(error)) => unreadable(&error),
            Err(refusal) => refusal,
        }
    }

    pub(super) fn cortex_store(&self, agent: Option<&str>) -> Result<(&AgentId, &CortexStore), Response> {
        let id = agent.map_or_else(|| self.facts.get().default_agent.clone(), AgentId::new);
        let found = self.cortexes.stores.get_key_value(&id);
        found.ok_or_else(|| Response::error(404, Kind::NotFound, "there is no such agent"))
    }
}

pub(super) fn unreadable(error: &DbError) -> Response {
    log::warn!("{}", crate::error::log_line(error));
    Response::error(503, error.kind(), error)
}
