//! What a run gets from outside, and from nowhere else: the replies of a model and the results of tools.
//! A live run has them from the network and the toolbox, a replayed one from its journal.

use rig_core::completion::{CompletionRequest, ProviderCapabilities, ToolDefinition};
use serde_json::Value;

use super::link::ProcessDesk;
use super::toolbox::Toolbox;
use crate::llm::{Delta, LlmError, Reply, SpacebotModel};
use crate::thread::Cancel;

/// Who answers a run.
pub(super) trait Answers {
    fn capabilities(&self) -> ProviderCapabilities;

    /// `patient`: the run has come far, and nobody waits for it. `on_delta` gets the answer as it arrives, for
    /// display.
    fn answer(
        &mut self,
        request: &CompletionRequest,
        patient: bool,
        cancel: &Cancel,
        on_delta: &mut dyn FnMut(&Delta<'_>),
    ) -> Result<Reply, LlmError>;
}

/// Who does what a run asks for.
pub(super) trait Acts {
    fn definitions(&self) -> &[ToolDefinition];

    /// The call changes something that cannot be changed back.
    fn is_external(&self, name: &str) -> bool;

    /// The call changes something in the agent's own database.
    fn changes(&self, name: &str) -> bool;

    /// For a run that goes on: these calls were made before.
    fn remember(&mut self, called: &mut dyn Iterator<Item = &str>);

    /// The run reads words from outside before it calls anything.
    fn read_outside(&mut self) {}

    /// What the model reads of it, either way. What the call tells goes to the desk.
    fn act(
        &mut self,
        name: &str,
        arguments: Value,
        cancel: &Cancel,
        desk: &mut ProcessDesk<'_>,
    ) -> Result<String, String>;
}

impl Answers for SpacebotModel {
    fn capabilities(&self) -> ProviderCapabilities {
        SpacebotModel::capabilities(self)
    }

    fn answer(
        &mut self,
        request: &CompletionRequest,
        patient: bool,
        cancel: &Cancel,
        on_delta: &mut dyn FnMut(&Delta<'_>),
    ) -> Result<Reply, LlmError> {
        let mut on_delta = |delta: Delta<'_>| on_delta(&delta);
        match patient {
            true => self.call_patiently(request, cancel, &mut on_delta),
            false => self.call(request, cancel, &mut on_delta),
        }
    }
}

impl Acts for Toolbox {
    fn definitions(&self) -> &[ToolDefinition] {
        Toolbox::definitions(self)
    }

    fn is_external(&self, name: &str) -> bool {
        Toolbox::is_external(self, name)
    }

    fn changes(&self, name: &str) -> bool {
        Toolbox::changes(self, name)
    }

    fn remember(&mut self, called: &mut dyn Iterator<Item = &str>) {
        Toolbox::remember(self, called);
    }

    fn read_outside(&mut self) {
        Toolbox::read_outside(self);
    }

    fn act(
        &mut self,
        name: &str,
        arguments: Value,
        cancel: &Cancel,
        desk: &mut ProcessDesk<'_>,
    ) -> Result<String, String> {
        self.call(name, arguments, cancel, desk).map_err(|error| error.to_result())
    }
}
