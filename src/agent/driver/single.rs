//! A run of one model call without tools: a summary, a text of the cortex.

use std::sync::OnceLock;

use rig_agent::run::RunSpec;
use rig_core::completion::ToolDefinition;

use super::super::AgentParts;
use super::super::job::Job;
use super::super::journal::RunJournal;
use super::super::link::{Link, ProcessDesk};
use super::super::toolbox::Toolbox;
use super::{Counts, Driver};
use crate::config::RoutingConfig;
use crate::event::Origin;
use crate::hooks::LoopGuard;

static NO_DEFINITIONS: OnceLock<Vec<ToolDefinition>> = OnceLock::new();

impl<'a> Driver<'a> {
    /// The offline responder cannot do it, and is not asked. The job says which model is.
    pub(in crate::agent) fn of_one_call(
        parts: &'a AgentParts,
        job: &Job,
        link: &'a Link<'a>,
        preamble: String,
        routing: &RoutingConfig,
    ) -> Self {
        let kind = job.process.kind;
        let model = parts.llm.model_for(routing, kind);
        Driver {
            link,
            model: Box::new(model.paid_by(job.payer(&parts.config.id)).without_offline()),
            toolbox: Box::new(Toolbox::new(Vec::new(), &NO_DEFINITIONS)),
            desk: ProcessDesk::new(link, Origin::default()),
            journal: RunJournal::new(&parts.conversations, job.process.number),
            spec: RunSpec { preamble: Some(preamble), max_turns: Some(1), ..RunSpec::new() },
            counts: Counts { max_model_calls: 1, ..Counts::default() },
            guard: LoopGuard::new(parts.config.loop_guard.of(kind)),
        }
    }
}
