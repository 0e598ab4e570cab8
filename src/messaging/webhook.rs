//! The webhook: `POST /send`, `GET /poll/{conversation_id}`, `GET /health`.

use crate::config::Secret;
use crate::error::Kind;
use crate::http::server::{
    Handler, Outcome, Request, Response, authorized, is_from_foreign_page, percent_decode,
};
use crate::messaging::mailbox::Mailbox;

pub struct Webhook {
    mailbox: Mailbox,
    token: Option<Secret>,
}

impl Webhook {
    /// Without a token everybody who reaches the port may write, except web pages; `config` allows
    /// that on the loopback address only.
    pub fn new(mailbox: Mailbox, token: Option<Secret>) -> Self {
        Self { mailbox, token }
    }

    /// Why this request may not go on.
    fn refusal(&self, request: &Request<'_>) -> Option<Response> {
        let token = self.token.as_ref().map(Secret::reveal);
        if !authorized(request, token) {
            let refused = Response::error(401, Kind::Auth, "A valid bearer token is needed here.");
            return Some(refused.with_header("WWW-Authenticate", "Bearer"));
        }
        if token.is_none() && is_from_foreign_page(request) {
            let message = "Requests from web pages need a bearer token, set messaging.webhook.auth_token.";
            return Some(Response::error(403, Kind::Auth, message));
        }
        None
    }
}

impl Handler for Webhook {
    fn handle(&self, request: &Request<'_>) -> Outcome {
        if request.path == "/health" {
            return Outcome::Respond(match request.method {
                "GET" | "HEAD" => self.mailbox.health(),
                _ => wrong_method("GET, HEAD"),
            });
        }
        if let Some(refusal) = self.refusal(request) {
            return Outcome::Respond(refusal);
        }
        let poll = request.path.strip_prefix("/poll/").filter(|id| !id.contains('/'));
        match (request.path, poll, request.method) {
            ("/send", _, "POST") => self.mailbox.send(request),
            ("/send", _, _) => Outcome::Respond(wrong_method("POST")),
            (_, Some(id), "GET") => match percent_decode(id) {
                Some(id) => self.mailbox.poll(&id, request),
                None => {
                    let message = "The conversation in the path is not valid percent-encoded UTF-8.";
                    Outcome::Respond(Response::error(400, Kind::Invalid, message))
                }
            },
            // Not HEAD: it would fetch answers and throw them away.
            (_, Some(_), _) => Outcome::Respond(wrong_method("GET")),
            _ => {
                let message =
                    "There is nothing here. The paths are /send, /poll/{conversation_id} and /health.";
                Outcome::Respond(Response::error(404, Kind::NotFound, message))
            }
        }
    }
}

fn wrong_method(allowed: &'static str) -> Response {
    Response::error(405, Kind::Invalid, format_args!("Only {allowed} is possible here."))
        .with_header("Allow", allowed)
}

#[cfg(test)]
mod tests;
