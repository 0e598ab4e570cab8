//! The local API: health, status, cancel, the task board, what goes on, and the conversation surface of `spacebot chat`.

mod board;
mod cortex;
mod events;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use serde::Deserialize;
use serde_json::json;

pub use board::Boards;
pub use cortex::Cortexes;
pub use events::Gallery;

use crate::billing::Strained;
use crate::command::{Command, StatusReport};
use crate::config::Secret;
use crate::error::Kind;
use crate::http::server::{
    Handler, Outcome, Request, Response, authorized, is_from_foreign_page, percent_decode,
};
use crate::id::{AgentId, ProcessId, ProcessKind};
use crate::llm::Lost;
use crate::messaging::mailbox::Mailbox;
use crate::thread::Current;

/// The hub answers between two events; longer than this means that something is wrong.
const HUB_TIMEOUT: Duration = Duration::from_secs(2);

/// What `status` tells besides the hub's view.
#[derive(Clone)]
pub struct Facts {
    pub version: &'static str,
    pub agents: Vec<String>,
    /// Whose board is meant where none is named.
    pub default_agent: AgentId,
    pub models: Vec<String>,
    /// Models that cannot be asked at the moment.
    pub lost: Arc<dyn Fn() -> Vec<Lost> + Send + Sync>,
    /// Ceilings of which little is left.
    pub strained: Arc<dyn Fn() -> Vec<Strained> + Send + Sync>,
    pub config: ConfigFacts,
}

/// What is in force of the operator's files.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ConfigFacts {
    /// None: the built-in defaults.
    pub file: Option<String>,
    /// Of everything as it was read last.
    pub hash: String,
    /// Times that the files were read because they had changed, and when the last time was.
    pub reloads: u64,
    pub read_at: String,
    /// What is wrong with files whose old content is still in force; empty when all is well.
    pub mistakes: Vec<String>,
    /// Keys whose new values are not in force before the next start.
    pub waits_for_restart: Vec<String>,
    /// Why changes are not noticed without SIGHUP, if so.
    pub not_watched: Option<String>,
}

pub struct Api {
    pub mailbox: Mailbox,
    pub hub: Sender<Command>,
    pub token: Option<Secret>,
    pub facts: Arc<Current<Facts>>,
    pub boards: Boards,
    pub cortexes: Cortexes,
    pub gallery: Gallery,
    /// State of the adapters for `status`: name and a line.
    pub adapters: Arc<dyn Fn() -> Vec<(String, String)> + Send + Sync>,
}

impl Handler for Api {
    fn handle(&self, request: &Request<'_>) -> Outcome {
        let path = request.path.strip_prefix("/api/").unwrap_or_default();
        if path == "health" {
            return Outcome::Respond(get_only(request, || Response::json(200, &json!({ "status": "ok" }))));
        }
        if !authorized(request, self.token.as_ref().map(Secret::reveal)) {
            return Outcome::Respond(Response::error(
                401,
                Kind::Auth,
                "the bearer token is missing or wrong",
            ));
        }
        if self.token.is_none() && is_from_foreign_page(request) {
            return Outcome::Respond(Response::error(
                403,
                Kind::Auth,
                "web pages of other origins may not talk to this daemon",
            ));
        }
        match path {
            "status" => Outcome::Respond(get_only(request, || self.status())),
            "channels/cancel-process" => Outcome::Respond(post_only(request, || self.cancel(request))),
            "portal/send" if request.method == "POST" => self.mailbox.send(request),
            "portal/send" => Outcome::Respond(method_not_allowed()),
            "tasks" => self.tasks(request),
            "events" => self.events(request),
            "cortex-chat/send" => Outcome::Respond(post_only(request, || self.cortex_send(request))),
            "cortex-chat/messages" => Outcome::Respond(get_only(request, || self.cortex_messages(request))),
            "cortex-chat/progress" => Outcome::Respond(get_only(request, || self.cortex_progress(request))),
            "cortex-chat/threads" => Outcome::Respond(get_only(request, || self.cortex_threads(request))),
            "cortex/events" => Outcome::Respond(get_only(request, || self.cortex_events(request))),
            _ if path.starts_with("tasks/") => self.task(request, &path["tasks/".len()..]),
            _ => match path.strip_prefix("portal/poll/") {
                Some(conversation) if request.method == "GET" => match percent_decode(conversation) {
                    Some(conversation) => self.mailbox.poll(&conversation, request),
                    None => Outcome::Respond(Response::error(
                        400,
                        Kind::Invalid,
                        "the conversation id is not readable",
                    )),
                },
                Some(_) => Outcome::Respond(method_not_allowed()),
                None => {
                    Outcome::Respond(Response::error(404, Kind::NotFound, "there is nothing at this address"))
                }
            },
        }
    }
}

fn get_only(request: &Request<'_>, answer: impl FnOnce() -> Response) -> Response {
    if matches!(request.method, "GET" | "HEAD") { answer() } else { method_not_allowed() }
}

fn post_only(request: &Request<'_>, answer: impl FnOnce() -> Response) -> Response {
    if request.method == "POST" { answer() } else { method_not_allowed() }
}

fn method_not_allowed() -> Response {
    Response::error(405, Kind::Invalid, "this address does not take that method")
}

fn hub_is_gone() -> Response {
    Response::error(503, Kind::Transient, "the daemon is busy or stopping")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelRequest {
    agent_id: String,
    process_type: ProcessKind,
    process_id: String,
    #[serde(default)]
    reason: String,
}

impl Api {
    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = bounded(1);
        self.hub.send_timeout(command(answer), HUB_TIMEOUT).ok()?;
        answered.recv_timeout(HUB_TIMEOUT).ok()
    }

    fn status(&self) -> Response {
        let Some(report) = self.ask(|answer| Command::Status { answer }) else { return hub_is_gone() };
        let adapters: serde_json::Map<_, _> =
            (self.adapters)().into_iter().map(|(name, line)| (name, json!(line))).collect();
        let StatusReport { conversations, waiting_turns, processes, stopping, busy, cortex } = report;
        let facts = self.facts.get();
        Response::json(
            200,
            &json!({
                "version": facts.version, "agents": facts.agents, "models": facts.models, "lost_models": (facts.lost)(),
                "budget": (facts.strained)(),
                "config": facts.config, "adapters": adapters, "conversations": conversations, "waiting_turns": waiting_turns,
                "processes": processes, "stopping": stopping, "busy": busy, "cortex": self.about_cortexes(cortex),
                "onlookers": self.gallery.onlookers.count(),
            }),
        )
    }

    fn cancel(&self, request: &Request<'_>) -> Response {
        let wanted: CancelRequest = match serde_json::from_slice(request.body) {
            Ok(wanted) => wanted,
            Err(error) => return Response::error(400, Kind::Invalid, error),
        };
        let Some(process) = ProcessId::parse(wanted.process_type, &wanted.process_id) else {
            return Response::error(400, Kind::Invalid, "process_id names no process");
        };
        let agent = AgentId::new(&wanted.agent_id);
        match self.ask(|answer| Command::CancelProcess { agent, process, reason: wanted.reason, answer }) {
            Some(true) => Response::json(200, &json!({ "cancelled": process.to_string() })),
            Some(false) => Response::error(404, Kind::NotFound, "no such process is running"),
            None => hub_is_gone(),
        }
    }
}
