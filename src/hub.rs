//! The only owner of live state: which conversations have work, which processes run, what is due.
//!
//! [`state::Hub`] decides and does nothing; [`performer`] does and decides nothing.

pub mod bindings;
mod clock_watch;
mod intake;
mod outbox;
mod performer;
mod places;
mod post;
pub mod state;
mod timers;

pub use clock_watch::watch_clock;
pub use intake::AgentIntake;
pub use outbox::{AgentOutbox, MAX_AGENTS};
pub use performer::{
    Agents, Ends, HubParts, Inputs, QUEUE_COMMANDS, QUEUE_CONTROL, QUEUE_INBOUND, QUEUE_RELOADS, QUEUE_UP,
    events_of, ready_tasks, run, unremembered,
};
pub use places::places;
pub use post::post_waits;
