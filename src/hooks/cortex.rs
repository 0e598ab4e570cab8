//! What the cortex hears of a run: tools and their failures, tokens, what the loop guard found, how it ended.
//! Counted beside the run, told once at its end.

use crate::error::Kind;
use crate::event::{DriveEnd, Observation, ToolUse};

/// Tools of one run that are told apart; a toolbox has fewer.
const TOOLS_MAX: usize = 64;

#[derive(Debug, Default)]
pub struct CortexHook {
    seen: Observation,
}

impl CortexHook {
    /// A model has answered; `tokens` went both ways.
    pub fn model_answered(&mut self, tokens: u64) {
        self.seen.model_calls += 1;
        self.seen.tokens += tokens;
    }

    /// The offline responder stood in.
    pub fn stood_in(&mut self) {
        self.seen.offline = true;
    }

    /// No model has. Where a ceiling of the operator's left no room, nobody was asked.
    pub fn model_failed(&mut self, kind: Kind) {
        if kind != Kind::Budget {
            self.seen.provider_error = Some(kind);
        }
    }

    pub fn tool_called(&mut self, name: &str, failed: bool) {
        let tools = &mut self.seen.tools;
        let at = match tools.iter().position(|tool| tool.name == name) {
            Some(at) => at,
            None if tools.len() < TOOLS_MAX => {
                tools.push(ToolUse { name: name.to_owned(), ..ToolUse::default() });
                tools.len() - 1
            }
            None => return,
        };
        let tool = &mut tools[at];
        tool.calls += 1;
        if !failed {
            tool.trailing = 0;
            return;
        }
        tool.failures += 1;
        tool.trailing += 1;
        tool.longest = tool.longest.max(tool.trailing);
        if tool.failures == tool.calls {
            tool.leading = tool.failures;
        }
    }

    /// The loop guard has warned or refused.
    pub fn repeated(&mut self) {
        self.seen.repeated += 1;
    }

    /// What there is to tell; what comes after it is told the next time.
    pub fn end(&mut self, end: DriveEnd) -> Observation {
        Observation { end, ..std::mem::take(&mut self.seen) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_counted_at_the_beginning_the_end_and_at_most() {
        let mut hook = CortexHook::default();
        for failed in [true, true, false, true, true, true, false, true] {
            hook.tool_called("shell", failed);
        }
        hook.tool_called("reply", false);
        hook.model_answered(7);
        let seen = hook.end(DriveEnd::Done);
        let shell =
            ToolUse { name: "shell".to_owned(), calls: 8, failures: 6, leading: 2, longest: 3, trailing: 1 };
        assert_eq!(seen.tools[0], shell);
        assert_eq!((seen.tools[1].calls, seen.tools[1].failures), (1, 0));
        assert_eq!((seen.model_calls, seen.tokens), (1, 7));
        assert_eq!(hook.end(DriveEnd::Done).tools, [], "told once");
    }
}
