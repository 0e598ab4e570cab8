//! What a channel can do: talk and delegate, and where its conversation is set to `direct` also what
//! branches and workers can.

use super::super::branch::memory_tools;
use super::super::job::Job;
use super::super::toolbox::{Definitions, Toolbox};
use super::super::worker::worker_tools;
use super::AgentParts;
use crate::config::{ChannelSettings, Delegation, MemoryMode};
use crate::cron::Target;
use crate::tools::speech::Speech;
use crate::tools::{self, Tool};

/// See [`Toolbox::new`]. With tools of its own, one for each way to use the memory.
static DEFINITIONS: Definitions = Definitions::new();
static DIRECT_DEFINITIONS: [Definitions; 3] = [const { Definitions::new() }; 3];
/// The same where tasks may be given to other agents.
static LINKED_DEFINITIONS: [Definitions; 4] = [const { Definitions::new() }; 4];
static JOB_DEFINITIONS: Definitions = Definitions::new();

pub(super) fn speech(parts: &AgentParts) -> Speech {
    Speech::new(parts.llm.scrubber().clone())
}

/// For a turn with people. `depth`: questions to other agents that led to it.
pub(super) fn of_channel(parts: &AgentParts, job: &Job, settings: &ChannelSettings, depth: u32) -> Toolbox {
    let mut tools = talking(parts, job);
    let linked = parts.config.links.iter().any(|link| link.may_ask);
    if linked {
        let (conversations, links) = (parts.conversations.clone(), parts.config.links.clone());
        tools.push(Box::new(tools::send_agent_message::SendAgentMessage::new(conversations, links, depth)));
    }
    if settings.delegation == Delegation::Standard {
        let known = if linked { &LINKED_DEFINITIONS[3] } else { &DEFINITIONS };
        return Toolbox::new(tools, known.of(parts));
    }
    tools.extend(memory_tools(parts, job, settings.memory_mode));
    // Its status is told by what it says; an outcome is for workers.
    tools.extend(worker_tools(parts).into_iter().filter(|tool| tool.name() != "set_status"));
    let mode = match settings.memory_mode {
        MemoryMode::Full => 0,
        MemoryMode::Ambient => 1,
        MemoryMode::Off => 2,
    };
    let known = if linked { &LINKED_DEFINITIONS[mode] } else { &DIRECT_DEFINITIONS[mode] };
    Toolbox::new(tools, known.of(parts))
}

fn talking(parts: &AgentParts, job: &Job) -> Vec<Box<dyn Tool>> {
    let here = Target {
        conversation: job.place.conversation.clone(),
        instance: job.place.instance.clone(),
        direct: job.place.direct,
        name: job.place.name.clone(),
    };
    let (clock, timeout) = (parts.conversations.clone(), parts.config.schedule.timeout);
    let routes = parts.conversations.clone();
    vec![
        Box::new(tools::reply::Reply::new(speech(parts))),
        Box::new(tools::branch::Branch),
        Box::new(tools::spawn_worker::SpawnWorker::new(parts.prompts.skills().clone())),
        Box::new(tools::route::Route::new(routes)),
        Box::new(tools::cancel::CancelProcess),
        Box::new(tools::skip::Skip),
        Box::new(tools::react::React),
        Box::new(tools::cron::CronTool::new(parts.cron(), clock, here, timeout)),
    ]
}

/// For a job: no reply, because nobody is there, and no jobs that make jobs.
pub(super) fn of_job(parts: &AgentParts) -> Toolbox {
    let tools: Vec<Box<dyn Tool>> = vec![
        Box::new(tools::set_outcome::SetOutcome::new(speech(parts))),
        Box::new(tools::branch::Branch),
        Box::new(tools::spawn_worker::SpawnWorker::new(parts.prompts.skills().clone())),
        Box::new(tools::route::Route::new(parts.conversations.clone())),
        Box::new(tools::cancel::CancelProcess),
        Box::new(tools::skip::Skip),
    ];
    Toolbox::new(tools, JOB_DEFINITIONS.of(parts))
}
