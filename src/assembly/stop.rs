//! The end of adapters and threads: what is committed goes out, then everybody is waited for, by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use spacebot::agent::AgentParts;
use spacebot::id::{AgentId, OutboxId};
use spacebot::message::Outbox as _;

use super::Adapter;

/// What adapters get to send committed answers during a stop.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often that is looked at.
const FLUSH_LOOK: Duration = Duration::from_millis(20);

/// Gives the adapter time to send what is committed.
pub(super) fn flush(adapter: &Adapter, agents: &BTreeMap<AgentId, Arc<AgentParts>>) {
    let started = Instant::now();
    let waits = |agent: &AgentParts| {
        agent
            .conversations
            .pending(&adapter.instance, None, OutboxId(0), 1)
            .is_ok_and(|rows| !rows.is_empty())
    };
    while adapter.irc.state.is_connected()
        && started.elapsed() < FLUSH_TIMEOUT
        && agents.values().any(|agent| waits(agent))
    {
        std::thread::park_timeout(FLUSH_LOOK);
    }
}

/// Joins all by name; false when one is left behind.
pub(super) fn join(threads: Vec<JoinHandle<()>>, timeout: Duration) -> bool {
    let started = Instant::now();
    let mut all = true;
    for handle in threads {
        while !handle.is_finished() && started.elapsed() < timeout {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let name = handle.thread().name().unwrap_or("?").to_owned();
        if !handle.is_finished() {
            log::error!("thread {name} did not end and is left behind");
            all = false;
        } else if handle.join().is_err() {
            log::error!("thread {name} panicked");
            all = false;
        }
    }
    all
}
