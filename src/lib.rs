//! Spacebot: a personal agent daemon for small boards, on OS threads.
//!
//! The modules stand on floors (docs/ARCHITECTURE.md); a module imports lower floors and its own
//! subtree only, which `tests/layering.rs` checks.

// Floor 0: ground.
pub mod clock;
pub mod error;
pub mod id;
pub mod text;
pub mod thread;

// Floor 1: words.
pub mod command;
pub mod effect;
pub mod event;
pub mod message;

// Floor 2: the operator's file.
pub mod config;

// Floor 3: leaves.
pub mod db;

// Floor 4: services.
pub mod memory;

// Floor 5: work.
pub mod tools;
