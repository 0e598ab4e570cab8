//! Carries requests and results between agents, on a thread of its own: it waits for two disks.

use std::thread::JoinHandle;

use super::performer::HubParts;
use super::state::Event;
use crate::agent::{self, AgentParts, PostNews};
use crate::db::DbError;
use crate::id::AgentId;
use crate::message::Lane;
use crate::thread::{self, contained};

/// An event if a start has something to carry.
///
/// # Errors
/// The database cannot be read.
pub fn post_waits(agent: &AgentId, parts: &AgentParts) -> Result<Option<Event>, DbError> {
    Ok(agent::has_post(parts)?.then(|| Event::Post { agent: agent.clone() }))
}

pub(super) fn carry(parts: &HubParts, agent: AgentId, threads: &mut Vec<JoinHandle<()>>) {
    let (agents, inbound, failed) =
        (parts.agents.clone(), parts.ends.inbound.clone(), parts.ends.inbound.clone());
    let (name, id) = (format!("links:{agent}"), agent.clone());
    let body = move || {
        // A hub that is gone finds in the databases what it was not told.
        let mut tell = |news| drop(inbound.send(event_of(news)));
        let more = match contained(|| agent::carry(&agents, &agent, &mut tell)) {
            Ok(Ok(more)) => Some(more),
            Ok(Err(error)) => {
                log::warn!("what {agent} has for other agents could not be carried: {error}");
                None
            }
            Err(panic) => {
                log::error!("carrying what {agent} has for other agents panicked: {panic}");
                None
            }
        };
        inbound.send(Event::Carried { agent, more }).ok();
    };
    match thread::spawn(name, body) {
        Ok(handle) => threads.push(handle),
        Err(error) => {
            log::error!("no thread to carry what agents have for each other: {error}");
            if failed.try_send(Event::Carried { agent: id, more: None }).is_err() {
                log::error!("nothing is carried until the next start: no thread and no room for the news");
            }
        }
    }
}

fn event_of(news: PostNews) -> Event {
    match news {
        PostNews::Task(agent, news) => Event::Task { agent, news },
        PostNews::Result(agent, place) => {
            Event::Unfinished { agent, place, lane: Lane::Talk, newest: None, results: true }
        }
    }
}
