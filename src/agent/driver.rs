//! The loop between model and tools, for every kind of process: Rig's `AgentRun` is the state
//! machine, this drives it on the process's own thread. Cancel, nudges, routed messages, limits and
//! the journal are plain code between two steps.

mod conduct;
mod observed;
mod single;

use std::collections::BTreeSet;
use std::time::Instant;

use rig_agent::run::{
    AgentRun, AgentRunStep, ModelTurn, PendingToolCall, PreparedRequest, PromptError, RetryRequest, RunSpec,
    prepare_request,
};
use rig_core::completion::{CompletionRequest, CompletionResponse, Message};
use rig_core::message::{AssistantContent, ToolCall, ToolResultContent, UserContent};
use serde_json::{Value, json};

use super::journal::RunJournal;
use super::link::{Link, ProcessDesk};
use super::outside::{Acts, Answers};
use super::room::Trim;
use super::{digest, past::Past};
use crate::conversation::{JOURNAL_VERSION, Step};
use crate::error::{Fault, Kind};
use crate::event::StopReason;
use crate::hooks::{self, Call, CortexHook, Finding, LoopGuard, Verdict};
use crate::llm::{LlmError, attached};
use crate::message::Saying;
use crate::thread::contained;
use crate::tools::ToolError;

pub(super) use conduct::{Conduct, Heard};

/// How a drive ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The model's last words.
    Text(String),
    /// [`Conduct::on_tools`] ended it.
    Tools,
    /// The limit of model calls came first.
    Limit,
    /// It repeated itself, was told so, and went on.
    Repeating,
    Cancelled,
    Failed(Kind, String),
}

pub(super) struct Driver<'a> {
    pub(super) link: &'a Link<'a>,
    pub(super) model: Box<dyn Answers + 'a>,
    pub(super) toolbox: Box<dyn Acts + 'a>,
    pub(super) desk: ProcessDesk<'a>,
    pub(super) journal: RunJournal<'a>,
    pub(super) spec: RunSpec,
    pub(super) counts: Counts,
    pub(super) guard: LoopGuard,
}

/// Of the tools that can run, and of those that may be called.
type ToolNames = (BTreeSet<String>, BTreeSet<String>);

/// What a drive has used and may use.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) model_calls: usize,
    pub(super) max_model_calls: usize,
    pub(super) tool_calls: usize,
    pub(super) hook: CortexHook,
    /// The latest answer was that of the offline responder.
    pub(super) offline: bool,
    /// Names of the tools that were called, each once.
    pub(super) called: Vec<String>,
    /// The limit of model calls only parts the run: it goes on behind it.
    pub(super) goes_on: bool,
}

impl Driver<'_> {
    /// Writes what the run is started with: `start`, and what the driver itself goes by.
    pub(super) fn begin(&mut self, mut start: Value, past: &Past, history: &[Message]) {
        start["version"] = json!(JOURNAL_VERSION);
        self.write_terms(&mut start);
        past.write(&mut start);
        if !history.is_empty() {
            start["history"] = json!(digest::of_messages(history));
        }
        self.journal.add(Step::Start, start);
    }

    /// Writes that the run goes on after it was cut off, and what it goes by from here on.
    pub(super) fn go_on(&mut self, mut terms: Value) {
        self.write_terms(&mut terms);
        self.journal.add(Step::Resume, terms);
    }

    fn write_terms(&self, into: &mut Value) {
        into["calls"] = json!(self.counts.max_model_calls);
        into["turns"] = json!(self.spec.max_turns);
        into["guard"] = json!(self.guard.limits().to_numbers());
        into["preamble"] = json!(digest::of_text(self.spec.preamble.as_deref().unwrap_or_default()));
    }

    /// Writes how the run ended, with the hash of what is behind it and of what it `came_to`.
    pub(super) fn end(&mut self, mut end: Value, came_to: &Value, history: &[Message]) {
        end["model_calls"] = json!(self.counts.model_calls);
        end["state"] = json!(digest::state(history, &self.desk.effects, came_to));
        self.journal.add(Step::End, end);
    }

    /// The run comes to no end; what is recorded of it stays.
    pub(super) fn give_up(&mut self) {
        if let Err(error) = self.journal.flush() {
            log::warn!("the last steps of a run are not in the journal: {error}");
        }
    }

    /// Writes why somebody wants it to stop, where it noticed.
    pub(super) fn note_stop(&mut self, waiting: bool) {
        let (reason, words) = match self.link.stop_reason() {
            StopReason::Asked(words) => ("asked", words),
            StopReason::Timeout => ("timeout", String::new()),
            StopReason::Shutdown => ("shutdown", String::new()),
        };
        self.journal.add(Step::Stop, json!({ "reason": reason, "words": words, "waiting": waiting }));
    }

    /// Starts from `prompt` after `history` and goes on until something ends it. The run that is
    /// returned has every tool call answered.
    pub(super) fn drive(
        &mut self,
        prompt: Message,
        history: Vec<Message>,
        conduct: &mut dyn Conduct,
    ) -> (Ended, AgentRun) {
        self.drive_on(prompt, history, None, conduct)
    }

    /// As [`Driver::drive`] for a run that was cut off: the first reply of the model is `recorded`.
    pub(super) fn drive_on(
        &mut self,
        prompt: Message,
        history: Vec<Message>,
        recorded: Option<CompletionResponse>,
        conduct: &mut dyn Conduct,
    ) -> (Ended, AgentRun) {
        let mut run = AgentRun::from_spec(&self.spec, prompt, Some(history));
        let ended = match self.steps(&mut run, recorded, conduct) {
            Ok(ended) => ended,
            Err(error) => Ended::Failed(Kind::Bug, format!("the run broke a rule of its own: {error}")),
        };
        let ended = if self.link.cancel.is_cancelled() {
            self.note_stop(false);
            Ended::Cancelled
        } else {
            ended
        };
        if !(self.counts.goes_on && matches!(ended, Ended::Limit)) {
            self.tell_cortex(&ended);
        }
        (ended, run)
    }

    fn steps(
        &mut self,
        run: &mut AgentRun,
        mut recorded: Option<CompletionResponse>,
        conduct: &mut dyn Conduct,
    ) -> Result<Ended, PromptError> {
        loop {
            // Words that are there are kept, whoever wants the run to stop.
            let has_words = recorded.is_some() || parked_text(run).is_some();
            if self.link.cancel.is_cancelled() && !has_words {
                return Ok(Ended::Cancelled);
            }
            match run.next_step()? {
                AgentRunStep::CallModel { prompt, history, .. } => {
                    if let Some(reply) = recorded.take() {
                        let (executable, allowed) = self.tools_for(run, &history)?.1;
                        hear(run, &reply, executable, allowed)?;
                    } else if self.counts.model_calls >= self.counts.max_model_calls {
                        return Ok(Ended::Limit);
                    } else if let Some(ended) = self.model_step(run, prompt, history, conduct)? {
                        return Ok(ended);
                    }
                    self.after_text(run, conduct)?;
                }
                AgentRunStep::CallTools { calls } => {
                    let (results, repeating) = match self.tool_step(&calls) {
                        Ok(done) => done,
                        Err(ended) => return Ok(ended),
                    };
                    run.tool_results(results)?;
                    if conduct.on_tools(&mut self.desk) {
                        return Ok(Ended::Tools);
                    }
                    if repeating {
                        log::warn!("ended: it repeats itself and did not stop when it was told so");
                        return Ok(Ended::Repeating);
                    }
                    self.take_messages(run, conduct);
                }
                AgentRunStep::Done(response) => return Ok(Ended::Text(response.output())),
            }
        }
    }

    /// `None`: a reply is there, or the history was made shorter and the step comes again.
    fn model_step(
        &mut self,
        run: &mut AgentRun,
        prompt: Message,
        history: Vec<Message>,
        conduct: &mut dyn Conduct,
    ) -> Result<Option<Ended>, PromptError> {
        if let Some(trim) = conduct.before_model(&all(&history, &prompt)) {
            self.shorten(run, &trim, history, prompt);
            return Ok(None);
        }
        // Everything before this call is in the journal's queue before the call is made.
        if let Err(error) = self.journal.flush() {
            return Ok(Some(Ended::Failed(error.kind(), error.to_string())));
        }
        let read = digest::of_messages(all(&history, &prompt));
        let (prepared, (executable, allowed)) = self.tools_for(run, &history)?;
        let request = prepared.apply(CompletionRequest::new(prompt.clone()));
        let started = Instant::now();
        let reply = match self.ask(&request, conduct) {
            Ok(reply) => reply,
            Err(error) => {
                let failed =
                    json!({ "milliseconds": milliseconds(started), "request": read, "error": &error });
                self.journal.add(Step::Failed, failed);
                let too_long = matches!(error, LlmError::TooLong(_));
                let trim = too_long.then(|| conduct.too_long(&all(&history, &prompt))).flatten();
                let Some(trim) = trim else {
                    if !self.link.cancel.is_cancelled() {
                        self.counts.hook.model_failed(error.kind());
                    }
                    return Ok(Some(Ended::Failed(error.kind(), error.to_string())));
                };
                log::info!("a run is too long for its model; {} messages leave it", trim.drop);
                self.shorten(run, &trim, history, prompt);
                return Ok(None);
            }
        };
        self.counts.model_calls += 1;
        let mut response = reply.response;
        response.raw = Value::Null;
        self.journal.add(
            Step::Model,
            json!({
                "model": reply.model,
                "attempts": reply.attempts,
                "milliseconds": milliseconds(started),
                "request": read,
                "response": response,
            }),
        );
        hear(run, &response, executable, allowed)?;
        Ok(None)
    }

    /// The request for this history but for its prompt, and the names of the tools that may be called.
    fn tools_for(
        &self,
        run: &AgentRun,
        history: &[Message],
    ) -> Result<(PreparedRequest, ToolNames), PromptError> {
        let definitions = self.toolbox.definitions().to_vec();
        let capabilities = self.model.capabilities();
        let prepared =
            prepare_request(&self.spec, &capabilities, history, definitions, run.output_tool_name(), None)
                .map_err(|error| PromptError::from(rig_core::error::ProviderError::from(error)))?;
        let names = (prepared.executable_tool_names.clone(), prepared.allowed_tool_names.clone());
        Ok((prepared, names))
    }

    /// The run begins anew with what `trim` leaves.
    fn shorten(&mut self, run: &mut AgentRun, trim: &Trim, mut history: Vec<Message>, prompt: Message) {
        self.journal.add(Step::Trim, json!(trim));
        history.push(prompt);
        let mut left = trim.apply(history);
        // The newest message always stays.
        let Some(prompt) = left.pop() else { return };
        *run = AgentRun::from_spec(&self.spec, prompt, Some(left));
    }

    /// A reply without tool calls is parked in the run: it can still be sent back.
    fn after_text(&mut self, run: &mut AgentRun, conduct: &mut dyn Conduct) -> Result<(), PromptError> {
        let Some(text) = parked_text(run) else { return Ok(()) };
        let heard = if conduct.hears_after_text() { self.hear(conduct) } else { None };
        let words = match heard {
            Some(heard) => heard.text,
            None => match conduct.on_text(&text, &mut self.desk) {
                Some(nudge) => self.journal.nudge(nudge),
                None => return Ok(()),
            },
        };
        run.retry_model_turn(RetryRequest::Feedback(words))
    }

    /// Messages for the process continue the run behind the tool results.
    fn take_messages(&mut self, run: &mut AgentRun, conduct: &mut dyn Conduct) {
        while let Some(heard) = self.hear(conduct) {
            let message = attached::message(&heard.text, &heard.shown);
            *run = AgentRun::from_spec(&self.spec, message, Some(run.full_history()));
        }
    }

    fn hear(&mut self, conduct: &mut dyn Conduct) -> Option<Heard> {
        let left = self.counts.max_model_calls.saturating_sub(self.counts.model_calls);
        let heard = conduct.next_message(&mut self.desk, left)?;
        self.journal.add(Step::Route, heard.record());
        // Whoever is spoken to may do again what was done before.
        self.guard.forget();
        if heard.outside {
            self.toolbox.read_outside();
        }
        Some(heard)
    }

    /// Answers every call, in order; what cannot run gets an error that the model can read. True when the
    /// run repeats itself and has to end.
    fn tool_step(&mut self, calls: &[PendingToolCall]) -> Result<(Vec<UserContent>, bool), Ended> {
        let external =
            calls.iter().any(|call| self.toolbox.is_external(call.tool_call.function.name.as_str()));
        // What is queued now is on disk before what a tool writes to the same database: whoever finds a
        // call without its result does not know whether it was made.
        let changes = calls.iter().any(|call| self.toolbox.changes(call.tool_call.function.name.as_str()));
        let flushed = match (external, changes) {
            (true, _) => self.journal.flush_durably(),
            (false, true) => self.journal.flush(),
            (false, false) => Ok(()),
        };
        if let Err(error) = flushed {
            return Err(Ended::Failed(error.kind(), error.to_string()));
        }
        let mut results = Vec::with_capacity(calls.len());
        let mut stopped = None;
        for call in calls {
            if let Some(resolved) = &call.preresolved_result {
                results.push(resolved.clone());
                continue;
            }
            let before = (Instant::now(), self.desk.effects.len(), self.desk.started);
            let name = call.tool_call.function.name.as_str();
            self.link.stage.tool_started(name);
            let called = self.guarded_call(&call.tool_call, &mut stopped);
            self.note_call(&call.tool_call, before, &called);
            self.tell_of_call(name, called.failed);
            let content = vec![ToolResultContent::text(called.result)];
            results.push(UserContent::ToolResult(match called.failed {
                false => call.tool_call.result(content),
                true => call.tool_call.error_result(content),
            }));
        }
        Ok((results, stopped.is_some()))
    }

    /// The result, and what the call has told and started since `before`.
    fn note_call(&mut self, call: &ToolCall, before: (Instant, usize, usize), called: &Called) {
        let (started_at, effects, started) = before;
        let mut payload = json!({
            "tool": call.function.name.as_str(),
            "milliseconds": milliseconds(started_at),
            "result": called.result,
            "error": called.failed,
        });
        if let Some(own) = called.own {
            payload["own_bytes"] = json!(own);
        }
        if self.desk.effects.len() > effects {
            payload["effects"] = json!(self.desk.effects[effects..]);
        }
        if self.desk.started > started {
            payload["started"] = json!(self.desk.started - started);
        }
        self.journal.add(Step::Tool, payload);
    }

    /// What the model reads of the call, which is made unless it is one of too many. `stopped` is set by
    /// the one that ends the run; none behind it is made.
    fn guarded_call(&mut self, call: &ToolCall, stopped: &mut Option<Finding>) -> Called {
        if let Some(finding) = *stopped {
            return self.refuse(call, finding, "stopped");
        }
        let written = call.function.invalid_arguments.clone().map(Value::String);
        let arguments = written.unwrap_or_else(|| call.function.arguments_value());
        let seen = Call::of(call.function.name.as_str(), &arguments);
        let finding = match self.guard.before(seen) {
            Verdict::Go => None,
            Verdict::Warn(finding) => Some(finding),
            Verdict::Block(finding) => return self.refuse(call, finding, "refused"),
            Verdict::Stop(finding) => {
                *stopped = Some(finding);
                return self.refuse(call, finding, "stopped");
            }
        };
        let (result, failed) = match self.call_tool(call) {
            Ok(result) => (result, false),
            Err(result) => (result, true),
        };
        let Some(finding) = finding.or(self.guard.after(seen, &result)) else {
            return Called { result, failed, own: None };
        };
        self.note_guard(call, finding, "warned");
        let own = Some(result.len());
        let warning = self.journal.wording(hooks::warning(finding).to_string());
        Called { result: format!("{result}\n\n{warning}"), failed, own }
    }

    fn refuse(&mut self, call: &ToolCall, finding: Finding, verdict: &str) -> Called {
        self.note_guard(call, finding, verdict);
        let result = self.journal.wording(ToolError::Repeated(hooks::refusal(finding)).to_result());
        Called { result, failed: true, own: None }
    }

    fn note_guard(&mut self, call: &ToolCall, finding: Finding, verdict: &str) {
        self.counts.hook.repeated();
        let (tool, rule) = (call.function.name.as_str(), finding.rule.as_str());
        log::debug!("{tool} {verdict}: {rule}, {} times", finding.count);
        self.journal.add(
            Step::Guard,
            json!({ "tool": tool, "verdict": verdict, "rule": rule, "count": finding.count }),
        );
    }

    fn call_tool(&mut self, call: &ToolCall) -> Result<String, String> {
        self.counts.tool_calls += 1;
        let name = call.function.name.as_str();
        if self.link.cancel.is_cancelled() {
            return Err(ToolError::Cancelled.to_result());
        }
        if call.function.invalid_arguments.is_some() {
            return Err(ToolError::Invalid("the arguments are not a JSON object".to_owned()).to_result());
        }
        let arguments = call.function.arguments_value();
        let (toolbox, desk, cancel) = (&mut self.toolbox, &mut self.desk, self.link.cancel);
        self.link.pulse.beat();
        (self.link.show)(Saying::Tool { tool: name, outcome: None });
        let called = contained(|| self.link.stage.hide(toolbox.act(name, arguments, cancel, desk)));
        (self.link.show)(Saying::Tool { tool: name, outcome: Some(matches!(called, Ok(Ok(_)))) });
        self.link.pulse.beat();
        called.unwrap_or_else(|panic| {
            log::error!("tool {name} panicked: {panic}");
            let broke = format!("the tool {name} broke; it may not be used again for this");
            Err(ToolError::Failed(broke).to_result())
        })
    }
}

/// What came of a tool call.
struct Called {
    /// As the model reads it.
    result: String,
    failed: bool,
    /// Bytes of the result that are the tool's own; a warning follows.
    own: Option<usize>,
}

fn milliseconds(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// All messages of a request, oldest first.
fn all<'a>(history: &'a [Message], prompt: &'a Message) -> Vec<&'a Message> {
    history.iter().chain(std::iter::once(prompt)).collect()
}

fn hear(
    run: &mut AgentRun,
    reply: &CompletionResponse,
    executable: BTreeSet<String>,
    mut allowed: BTreeSet<String>,
) -> Result<(), PromptError> {
    // Unknown tools are answered by us, so that the valid calls beside them still run.
    allowed.extend(called_names(reply));
    run.model_response(ModelTurn::from_response_parts(reply, executable, allowed))?;
    Ok(())
}

fn called_names(response: &CompletionResponse) -> Vec<String> {
    response.tool_calls().map(|call| call.function.name.to_string()).collect()
}

/// The text of a parked reply that calls no tools.
fn parked_text(run: &AgentRun) -> Option<String> {
    let choice = run.accepted_turn_choice()?;
    if choice.iter().any(|content| matches!(content, AssistantContent::ToolCall(_))) {
        return None;
    }
    let text = |content: &AssistantContent| match content {
        AssistantContent::Text(text) => Some(text.text.clone()),
        _ => None,
    };
    Some(choice.iter().filter_map(text).collect())
}

#[cfg(test)]
pub(super) mod tests;
