//! `/api/cortex…`: what the cortex of an agent has noted, and its conversation with the operator.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Api;
use crate::command::CortexReport;
use crate::cortex::CortexStore;
use crate::db::DbError;
use crate::error::{Fault, Kind};
use crate::http::server::{Request, Response};
use crate::id::AgentId;

/// Events that one answer has, unless asked for fewer.
const EVENTS_DEFAULT: usize = 50;

/// What the API knows of all cortexes.
#[derive(Clone)]
pub struct Cortexes {
    pub stores: BTreeMap<AgentId, CortexStore>,
    /// Whether the model for search by meaning is in memory: `loaded`, `not loaded`, `off`.
    pub embedding: Arc<dyn Fn() -> &'static str + Send + Sync>,
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
