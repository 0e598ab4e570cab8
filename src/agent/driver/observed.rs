//! What the cortex hears of a run: counted beside it, told once at its end, and nothing that it computes by.

use rig_core::completion::CompletionRequest;

use super::{Conduct, Driver, Ended};
use crate::config::OFFLINE_MODEL;
use crate::error::Kind;
use crate::event::{DriveEnd, What};
use crate::llm::{Delta, LlmError, Reply};
use crate::message::Saying;

/// What the cortex hears of tools that do not exist: a model may make up any name.
const UNKNOWN_TOOL: &str = "unknown tools";

impl Driver<'_> {
    /// What was out of the ordinary is noted here too: the hub writes nothing.
    pub(super) fn tell_cortex(&mut self, ended: &Ended) {
        let end = match ended {
            Ended::Text(_) | Ended::Tools => DriveEnd::Done,
            Ended::Limit => DriveEnd::Limit,
            Ended::Repeating => DriveEnd::Repeating,
            Ended::Cancelled => DriveEnd::Cancelled,
            // A ceiling of the operator's own.
            Ended::Failed(Kind::Budget, _) => DriveEnd::Cancelled,
            Ended::Failed(..) => DriveEnd::Failed,
        };
        let observation = self.counts.hook.end(end);
        self.journal.note(&observation);
        (self.link.up)(What::Observed(Box::new(observation)));
    }

    /// A call of the model is a sign of life as long as it lasts, and the cortex hears what it took.
    pub(super) fn ask(
        &mut self,
        request: &CompletionRequest,
        conduct: &dyn Conduct,
    ) -> Result<Reply, LlmError> {
        self.link.pulse.model_call(true);
        let link = self.link;
        (link.show)(Saying::Thinking);
        let mut show = |delta: &Delta<'_>| link.stage.hear(delta);
        let answer = self.model.answer(request, conduct.is_patient(), link.cancel, &mut show);
        link.stage.answered();
        self.link.pulse.model_call(false);
        if let Ok(reply) = &answer {
            self.counts.offline = reply.model == OFFLINE_MODEL;
            if reply.fell_back && reply.model == OFFLINE_MODEL {
                self.counts.hook.stood_in();
            }
            let usage = &reply.response.usage;
            let sent = usage.input_tokens.unwrap_or_default();
            self.counts.hook.model_answered(sent.saturating_add(usage.output_tokens.unwrap_or_default()));
        }
        answer
    }

    /// Who looks on hears of each, the cortex not of those that were stopped: these say nothing about the tools.
    pub(super) fn tell_of_call(&mut self, tool: &str, failed: bool) {
        self.link.stage.tool_finished(tool, failed);
        if self.link.cancel.is_cancelled() {
            return;
        }
        let known = self.toolbox.definitions().iter().any(|definition| definition.name.as_str() == tool);
        self.counts.hook.tool_called(if known { tool } else { UNKNOWN_TOOL }, failed);
        if known && !self.counts.called.iter().any(|called| called == tool) {
            self.counts.called.push(tool.to_owned());
        }
    }
}
