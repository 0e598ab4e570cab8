//! The terminal: the command line, the log lines, the chat, memories, files, skills and tasks.

pub mod arguments;
pub mod channel;
pub mod chat;
pub mod cortex;
pub mod cron;
mod database;
pub mod ingest;
pub mod links;
pub mod logger;
pub mod memory;
pub mod models;
pub mod skills;
pub mod task;
pub mod usage;
pub mod watch;
pub mod why;
