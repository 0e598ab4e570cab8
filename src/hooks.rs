//! What watches a run between two of its steps: plain calls that the driver makes, no objects of Rig.

mod cortex;
mod loop_guard;

pub use cortex::CortexHook;
pub use loop_guard::{Call, Finding, LoopGuard, Rule, Verdict};

use crate::prompts;

/// What the model reads behind the result of a call that it repeats.
pub fn warning(finding: Finding) -> &'static str {
    match finding.rule {
        Rule::SameCall => prompts::notice("loop_same_call"),
        Rule::SameResult => prompts::notice("loop_same_result"),
        Rule::Alternation => prompts::notice("loop_alternation"),
    }
}

/// What the model reads in place of the result of a call that was refused.
pub fn refusal(finding: Finding) -> &'static str {
    match finding.rule {
        Rule::SameCall => prompts::notice("loop_refused_call"),
        Rule::SameResult => prompts::notice("loop_refused_result"),
        Rule::Alternation => prompts::notice("loop_refused_alternation"),
    }
}
