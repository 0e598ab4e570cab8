//! The operator's conversation with the cortex: one run of a model with the tools of branches and workers over a
//! thread of its own. Every message gets an answer in the thread, also when nothing came of it.

mod about;

use rig_agent::run::RunSpec;
use rig_core::completion::{CompletionRequest, Message, ProviderCapabilities};
use serde_json::json;

use crate::agent::compactor::Silent;
use crate::agent::driver::{Conduct, Counts, Driver, Ended};
use crate::agent::job::{Chat, Job, Running};
use crate::agent::journal::RunJournal;
use crate::agent::link::{Link, ProcessDesk};
use crate::agent::outside::Answers;
use crate::agent::past::Past;
use crate::agent::toolbox::{Definitions, Toolbox};
use crate::agent::{AgentParts, branch, persist, worker};
use crate::config::MemoryMode;
use crate::conversation::{self, Started, WaitingResult};
use crate::cortex::{CHAT_CONTEXT, ChatMessage, ChatRole, CortexStore};
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::error::Fault;
use crate::event::{How, Origin, StopReason};
use crate::hooks::LoopGuard;
use crate::id::{ProcessId, ProcessKind};
use crate::llm::{Delta, LlmError, Reply, SpacebotModel};
use crate::message::Saying;
use crate::prompts::{self, Template};
use crate::text;
use crate::thread::Cancel;
use crate::tools::cancel::CancelProcess;
use crate::tools::{Tool, memory_proposals, set_status, spawn_worker};
use crate::turn::{self, Part};

/// Tokens of a thread that an answer sees, and the part of the model's window that they may take: the rest is for
/// what tools return.
const THREAD_TOKENS: usize = 24_000;
const THREAD_SHARE: usize = 4;
/// Model calls for one message.
const MODEL_CALLS: usize = 50;
/// Longest task and longest status of a process that runs, in bytes.
const RUNNING_BYTES: usize = 160;
/// Results that one answer tells; the rest waits for the next one.
const RESULTS_MAX: usize = 16;

/// What an answer is about, besides what the operator has written.
struct Told {
    results: Vec<WaitingResult>,
    /// More results wait.
    more: bool,
}

/// What is written down of an answer.
#[derive(Default)]
struct Given {
    words: String,
    tools: Vec<String>,
    started: Vec<Started>,
    /// A model has seen the results and said this.
    by_model: bool,
}

impl Given {
    fn plain(words: impl Into<String>) -> Self {
        Self { words: words.into(), ..Self::default() }
    }
}

pub(in crate::agent) fn run(parts: &AgentParts, job: &Job, chat: &Chat, link: &Link<'_>) -> How {
    let told = match waiting(parts, job) {
        Ok(told) => told,
        Err(error) => return How::Failed(error.kind(), error.to_string()),
    };
    if chat.message.is_none() && told.results.is_empty() {
        return turned(false);
    }
    if chat.absorb {
        return say(parts, job, chat, Given::default(), &told, link);
    }
    let given = answer(parts, job, chat, &told, link).unwrap_or_else(|error| {
        log::error!("the cortex could not answer: {error}");
        Given::plain(prompts::notice(error.kind().notice()))
    });
    if !given.by_model {
        (link.show)(Saying::Failed);
    }
    // A stop of the daemon leaves results for the next start.
    let stopped = link.cancel.is_cancelled() && link.stop_reason() == StopReason::Shutdown;
    match chat.message {
        None if stopped && !given.by_model => How::Cancelled,
        Some(_) if stopped && !given.by_model => say(parts, job, chat, given, &Told::nothing(), link),
        _ => say(parts, job, chat, given, &told, link),
    }
}

/// After a panic.
pub(in crate::agent) fn close(
    parts: &AgentParts,
    job: &Job,
    chat: &Chat,
    sentence: &str,
    link: &Link<'_>,
) -> How {
    match waiting(parts, job) {
        Ok(told) => say(parts, job, chat, Given::plain(sentence), &told, link),
        Err(error) => How::Failed(error.kind(), error.to_string()),
    }
}

impl Told {
    fn nothing() -> Self {
        Self { results: Vec::new(), more: false }
    }
}

/// Results of workers that were started in this thread.
fn waiting(parts: &AgentParts, job: &Job) -> Result<Told, DbError> {
    let mut results = parts.conversations.waiting_results(&job.place.conversation, RESULTS_MAX + 1)?;
    let more = results.len() > RESULTS_MAX;
    results.truncate(RESULTS_MAX);
    Ok(Told { results, more })
}

fn turned(more: bool) -> How {
    How::Turned { covered: None, more, outbox: Vec::new() }
}

/// Writes the answer, what it has started and which results are told by it, in one transaction. Results that no model
/// has told stand in it as they are.
fn say(parts: &AgentParts, job: &Job, chat: &Chat, given: Given, told: &Told, link: &Link<'_>) -> How {
    let mut words = given.words;
    if !given.by_model && !told.results.is_empty() {
        let result = |result: &WaitingResult| json!({ "process": result.process.to_string(), "task": result.task, "text": result.text });
        let results: Vec<_> = told.results.iter().map(result).collect();
        match prompts::render(Template::CortexResults, &json!({ "results": results })) {
            Ok(results) if words.is_empty() => words = results,
            Ok(results) => words = format!("{words}\n\n{results}"),
            Err(error) => return How::Failed(error.kind(), error.to_string()),
        }
    }
    let message =
        ChatMessage { tools: given.tools, ..ChatMessage::new(&chat.thread, ChatRole::Assistant, words) };
    let relayed: Vec<ProcessId> = told.results.iter().map(|result| result.process).collect();
    let written = persist(link.cancel, || {
        let (relayed, started) = (relayed.clone(), given.started.clone());
        let conversation = job.place.conversation.clone();
        let also = move |connection: &Connection, now| {
            relayed.iter().try_for_each(|process| conversation::relay(connection, *process))?;
            started.iter().try_for_each(|run| conversation::announce(connection, &conversation, run, now))
        };
        parts.cortex().say(message.clone(), also).map(drop)
    });
    match written {
        How::Finished => turned(told.more),
        how => how,
    }
}

fn answer(
    parts: &AgentParts,
    job: &Job,
    chat: &Chat,
    told: &Told,
    link: &Link<'_>,
) -> Result<Given, Box<dyn Fault>> {
    let thread = chat.thread.as_str();
    let budget = THREAD_TOKENS.min(parts.config.limits.context_window / THREAD_SHARE);
    let history = within(parts.cortex().chat(thread, CHAT_CONTEXT).map_err(boxed)?, budget);
    if let Some(message) = &chat.message {
        let asked = ChatMessage::new(thread, ChatRole::User, message);
        parts.cortex().say(asked, |_, _| Ok(())).map_err(boxed)?;
    }
    let about = match &chat.channel {
        Some(channel) => match about::channel(parts, channel).map_err(boxed)? {
            Some(about) => format!("{about}\n"),
            None => return Ok(Given::plain(prompts::notice("cortex_no_channel"))),
        },
        None => String::new(),
    };
    let mut driver = driver(parts, job, link)?;
    if !told.results.is_empty() {
        // What workers bring comes from files and commands.
        driver.toolbox.remember(&mut std::iter::once("shell"));
    }
    let lines = history.first().zip(history.last()).map(|(first, last)| (first.id, last.id));
    let history = as_read(&history);
    let words = words(chat, &about, told, &status(parts, chat));
    let start = json!({ "kind": "cortex", "thread": thread, "prompt": words });
    driver.begin(start, &Past { lines, ..Past::default() }, &history);
    let (words, by_model) = conclude(&mut driver, &words, history, &mut Silent);
    driver.journal.flush().map_err(boxed)?;
    let by_model = by_model && !driver.counts.offline;
    Ok(Given { words, tools: driver.counts.called, started: driver.desk.runs, by_model })
}

/// The time, what runs in the whole agent, and what waits for somebody's decision.
fn status(parts: &AgentParts, chat: &Chat) -> String {
    let mut now = parts.conversations.now().to_rfc3339();
    for (place, Running { process, what, status, seconds, .. }) in &chat.running {
        let what = text::one_line(what, RUNNING_BYTES);
        now = format!("{now}\n{process}, {place}, {seconds} s: {what}");
        if !status.is_empty() {
            now = format!("{now} ({})", text::one_line(status, RUNNING_BYTES));
        }
    }
    // An answer without it is better than none.
    let open = parts.memory.proposals_open().unwrap_or_default();
    match open {
        0 => now,
        open => format!("{now}\n{} {open}", prompts::notice("open_proposals")),
    }
}

/// What the model reads: results first, then the operator.
fn words(chat: &Chat, about: &str, told: &Told, status: &str) -> String {
    let result = |result: &WaitingResult| Part::Result {
        process: result.process,
        task: result.task.clone(),
        text: result.text.clone(),
    };
    let results: Vec<Part> = told.results.iter().map(result).collect();
    let message = chat.message.as_deref();
    let parts = [(!results.is_empty()).then(|| turn::write(&results)), message.map(str::to_owned)];
    let words: String = parts.into_iter().flatten().map(|part| format!("{part}\n")).collect();
    format!("{about}{words}{}", turn::write(&[Part::Status(status.to_owned())]))
}

/// A model whose words the operator sees while they come.
struct Shown<'a> {
    model: SpacebotModel,
    link: &'a Link<'a>,
}

impl Answers for Shown<'_> {
    fn capabilities(&self) -> ProviderCapabilities {
        self.model.capabilities()
    }

    fn answer(
        &mut self,
        request: &CompletionRequest,
        patient: bool,
        cancel: &Cancel,
        on_delta: &mut dyn FnMut(&Delta<'_>),
    ) -> Result<Reply, LlmError> {
        let show = self.link.show;
        Answers::answer(&mut self.model, request, patient, cancel, &mut |delta| {
            on_delta(delta);
            match delta {
                // A patient call may be made again and again.
                _ if patient => {}
                Delta::Begins => show(Saying::Begins),
                Delta::Text(text) => show(Saying::More(text)),
                _ => {}
            }
        })
    }
}

fn driver<'a>(parts: &'a AgentParts, job: &Job, link: &'a Link<'a>) -> Result<Driver<'a>, Box<dyn Fault>> {
    let context = json!({
        "name": parts.config.display_name, "identity": parts.prompts.identity_texts().join("\n\n"),
        "workspace": parts.workspace.path().to_string_lossy(),
    });
    let rendered = prompts::render(Template::CortexChat, &context);
    let preamble =
        rendered.map_err(|error| Box::new(error) as Box<dyn Fault>)? + parts.prompts.skills_of_cortex();
    let model = parts.llm.model_for(&parts.config.routing, ProcessKind::Cortex);
    Ok(Driver {
        link,
        model: Box::new(Shown { model: model.paid_by(job.payer(&parts.config.id)), link }),
        toolbox: Box::new(Toolbox::new(tools(parts, job), DEFINITIONS.of(parts))),
        desk: ProcessDesk::new(link, Origin::default()),
        journal: RunJournal::new(&parts.conversations, job.process.number),
        spec: RunSpec { preamble: Some(preamble), max_turns: Some(MODEL_CALLS + 1), ..RunSpec::new() },
        counts: Counts { max_model_calls: MODEL_CALLS, ..Counts::default() },
        guard: LoopGuard::new(parts.config.loop_guard.of(ProcessKind::Cortex)),
    })
}

/// The run of an answer, from the words to what the operator reads; from its journal.
pub(in crate::agent) fn talk(
    driver: &mut Driver<'_>,
    words: &str,
    history: Vec<Message>,
    conduct: &mut dyn Conduct,
) {
    conclude(driver, words, history, conduct);
}

/// What came of it, and whether those are a model's words.
fn conclude(
    driver: &mut Driver<'_>,
    words: &str,
    history: Vec<Message>,
    conduct: &mut dyn Conduct,
) -> (String, bool) {
    let (ended, run) = driver.drive(Message::user(words), history, conduct);
    let (words, by_model) = conclusion(ended, driver.link);
    driver.end(json!({ "bytes": words.len() }), &json!({ "answer": words }), &run.full_history());
    (words, by_model)
}

/// What an answer saw of its thread, for its replay.
pub(in crate::agent) fn seen(
    store: &CortexStore,
    thread: &str,
    lines: Option<(i64, i64)>,
) -> Result<Vec<Message>, DbError> {
    let Some((first, last)) = lines else { return Ok(Vec::new()) };
    Ok(as_read(&store.chat_between(thread, first, last)?))
}

/// The newest messages that fit, from one of the operator's on.
fn within(mut history: Vec<ChatMessage>, tokens: usize) -> Vec<ChatMessage> {
    let mut left = tokens;
    let fits = |message: &&ChatMessage| {
        let rest = left.checked_sub(text::estimate_tokens(&message.content));
        rest.inspect(|rest| left = *rest).is_some()
    };
    let first = history.len() - history.iter().rev().take_while(fits).count();
    let kept = history.split_off(first);
    kept.into_iter().skip_while(|message| first > 0 && message.role == ChatRole::Assistant).collect()
}

fn as_read(messages: &[ChatMessage]) -> Vec<Message> {
    let read = |message: &ChatMessage| match message.role {
        ChatRole::User => Message::user(&message.content),
        ChatRole::Assistant => Message::assistant(&message.content),
    };
    messages.iter().map(read).collect()
}

fn boxed(error: DbError) -> Box<dyn Fault> {
    Box::new(error)
}

fn conclusion(ended: Ended, link: &Link<'_>) -> (String, bool) {
    let notice = match ended {
        Ended::Text(text) if !text.trim().is_empty() => return (text.trim().to_owned(), true),
        Ended::Text(_) | Ended::Tools => "empty",
        Ended::Limit => "turn_limit",
        Ended::Repeating => "turn_loop",
        Ended::Cancelled => match link.stop_reason() {
            StopReason::Timeout => "cortex_chat_timeout",
            StopReason::Asked(_) => "process_cancelled",
            StopReason::Shutdown => "interrupted",
        },
        Ended::Failed(kind, reason) => {
            log::error!("the cortex could not answer: {reason}");
            kind.notice()
        }
    };
    (prompts::notice(notice).to_owned(), false)
}

static DEFINITIONS: Definitions = Definitions::new();

/// What branches and workers have, but for what only their channel understands.
fn tools(parts: &AgentParts, job: &Job) -> Vec<Box<dyn Tool>> {
    let mut tools = branch::tools(parts, job, MemoryMode::Full);
    let acting = worker::worker_tools(parts);
    let known: Vec<_> = tools.iter().map(|tool| tool.name()).chain([set_status::SetStatus.name()]).collect();
    tools.extend(acting.into_iter().filter(|tool| !known.contains(&tool.name())));
    tools.push(Box::new(spawn_worker::SpawnDetached));
    tools.push(Box::new(CancelProcess));
    tools.push(Box::new(memory_proposals::MemoryProposals::new(parts.memory.clone())));
    tools.push(Box::new(memory_proposals::MemoryDecide::new(parts.memory.clone())));
    tools
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_messages_leave_first_and_the_operator_begins() {
        let said = |id: i64, role, length: usize| ChatMessage {
            id,
            ..ChatMessage::new("t", role, "x".repeat(length))
        };
        let (user, assistant) = (ChatRole::User, ChatRole::Assistant);
        let thread =
            || vec![said(1, user, 400), said(2, assistant, 400), said(3, user, 400), said(4, assistant, 40)];
        let ids = |tokens| within(thread(), tokens).iter().map(|message| message.id).collect::<Vec<_>>();
        assert_eq!(ids(400), [1, 2, 3, 4]);
        assert_eq!(ids(300), [3, 4], "an answer without its question leaves too");
        assert_eq!(ids(100), [0_i64; 0]);
    }
}
