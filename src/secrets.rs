//! Keys and passwords, and how they are kept from where they must not be: logs, prompts, people.

mod leak;
mod scrub;
mod veil;

pub use scrub::{HIDDEN, Scrubber};
pub use veil::Veil;
