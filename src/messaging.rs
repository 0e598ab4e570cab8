//! Chat platforms: one file or folder per adapter. Each takes messages in through `Intake` and sends
//! what stands in the `Outbox`; none knows who answers.

pub mod drafts;
pub mod irc;
pub mod mailbox;
pub mod progress;
pub mod webhook;
