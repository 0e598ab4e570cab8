//! The terminal: the command line, the log lines, the chat, memories and tasks.

pub mod arguments;
pub mod chat;
pub mod logger;
pub mod memory;
pub mod task;
