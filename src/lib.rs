//! Spacebot: a personal agent daemon for small boards, on OS threads.
//!
//! The modules stand on floors (docs/ARCHITECTURE.md); a module imports lower floors and its own
//! subtree only, which `tests/layering.rs` checks.

// Floor 0: ground.
pub mod allocator;
pub mod clock;
pub mod environment;
pub mod error;
pub mod id;
pub mod text;
pub mod thread;

// Floor 1: words.
pub mod billing;
pub mod command;
pub mod effect;
pub mod event;
pub mod message;
pub mod onlookers;
pub mod turn;

// Floor 2: the operator's file.
pub mod config;

// Floor 3: leaves.
pub mod db;
pub mod exec;
pub mod http;
pub mod prompts;
pub mod secrets;
pub mod watch;

// Floor 4: services.
pub mod conversation;
pub mod cortex;
pub mod cron;
pub mod identity;
pub mod ingest;
pub mod llm;
pub mod memory;
pub mod messaging;
pub mod skills;
pub mod tasks;
pub mod usage;
pub mod working_memory;

// Floor 5: work.
pub mod api;
pub mod cli;
pub mod hooks;
pub mod tools;

// Floor 6: the LLM processes.
pub mod agent;

// Floor 7: the owner of live state.
pub mod hub;
