//! The terminal: the command line, the log lines, the chat.

pub mod arguments;
pub mod chat;
pub mod cron;
pub mod ingest;
pub mod logger;
pub mod memory;
