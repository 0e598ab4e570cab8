//! The webhook: `POST /send`, `GET /poll/{conversation_id}`, `GET /health`.

use serde_json::json;

use super::mailbox::Mailbox;
use crate::config::Secret;
use crate::error::Kind;
use crate::http::server::{Handler, Outcome, Request, Response, authorized, is_from_foreign_page};

pub struct Webhook {
    mailbox: Mailbox,
    token: Option<Secret>,
}

impl Webhook {
    pub fn new(mailbox: Mailbox, token: Option<Secret>) -> Self {
        Self { mailbox, token }
    }
}

impl Handler for Webhook {
    fn handle(&self, request: &Request<'_>) -> Outcome {
        let refuse = |status, kind, reason: &str| Outcome::Respond(Response::error(status, kind, reason));
        if request.path == "/health" {
            return Outcome::Respond(Response::json(200, &json!({ "status": "ok" })));
        }
        if !authorized(request, self.token.as_ref().map(Secret::reveal)) {
            return refuse(401, Kind::Auth, "the bearer token is missing or wrong");
        }
        if self.token.is_none() && is_from_foreign_page(request) {
            return refuse(403, Kind::Auth, "web pages of other origins may not talk to this daemon");
        }
        match (request.method, request.path, request.path.strip_prefix("/poll/")) {
            ("POST", "/send", _) => Outcome::Respond(self.mailbox.send(request)),
            ("GET", _, Some(conversation)) => self.mailbox.poll(request, conversation),
            (_, "/send", _) | (_, _, Some(_)) => {
                refuse(405, Kind::Invalid, "this address does not take that method")
            }
            _ => refuse(404, Kind::NotFound, "there are /send, /poll/{conversation_id} and /health"),
        }
    }
}
