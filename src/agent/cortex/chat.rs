//! The operator's conversation with the cortex: one run of a model with the tools of branches and workers over a
//! thread of its own. Every message gets an answer in the thread, also when nothing came of it.

mod about;

use rig_agent::run::RunSpec;
use rig_core::completion::Message;
use serde_json::json;

use crate::agent::compactor::Silent;
use crate::agent::driver::{Conduct, Counts, Driver, Ended};
use crate::agent::job::Job;
use crate::agent::journal::RunJournal;
use crate::agent::link::{Link, ProcessDesk};
use crate::agent::past::Past;
use crate::agent::toolbox::{Definitions, Toolbox};
use crate::agent::{AgentParts, branch, persist, worker};
use crate::config::MemoryMode;
use crate::cortex::{CHAT_CONTEXT, ChatMessage, ChatRole, CortexStore};
use crate::db::DbError;
use crate::error::Fault;
use crate::event::{How, Origin, StopReason};
use crate::hooks::LoopGuard;
use crate::id::{ConversationId, ProcessKind};
use crate::prompts::{self, Template};
use crate::text;
use crate::tools::{Tool, set_status};
use crate::turn::{self, Part};

/// Tokens of a thread that an answer sees, and the part of the model's window that they may take: the rest is for
/// what tools return.
const THREAD_TOKENS: usize = 24_000;
const THREAD_SHARE: usize = 4;
/// Model calls for one message.
const MODEL_CALLS: usize = 50;

pub(in crate::agent) fn run(
    parts: &AgentParts,
    job: &Job,
    (thread, channel, message): (&str, Option<&ConversationId>, &str),
    link: &Link<'_>,
) -> How {
    let (answer, tools) = match answer(parts, job, (thread, channel, message), link) {
        Ok(answered) => answered,
        Err(error) => {
            log::error!("the cortex could not answer: {error}");
            (prompts::notice(error.kind().notice()).to_owned(), Vec::new())
        }
    };
    say(parts, thread, answer, tools, link)
}

/// After a panic.
pub(in crate::agent) fn close(parts: &AgentParts, thread: &str, sentence: &str, link: &Link<'_>) -> How {
    say(parts, thread, sentence.to_owned(), Vec::new(), link)
}

fn say(parts: &AgentParts, thread: &str, content: String, tools: Vec<String>, link: &Link<'_>) -> How {
    let message = ChatMessage { tools, ..ChatMessage::new(thread, ChatRole::Assistant, content) };
    match persist(link.cancel, || parts.cortex().say(message.clone(), |_, _| Ok(())).map(drop)) {
        How::Finished => How::Tended(Vec::new()),
        how => how,
    }
}

fn answer(
    parts: &AgentParts,
    job: &Job,
    (thread, channel, message): (&str, Option<&ConversationId>, &str),
    link: &Link<'_>,
) -> Result<(String, Vec<String>), Box<dyn Fault>> {
    let budget = THREAD_TOKENS.min(parts.config.limits.context_window / THREAD_SHARE);
    let history = within(parts.cortex().chat(thread, CHAT_CONTEXT).map_err(boxed)?, budget);
    let asked = ChatMessage::new(thread, ChatRole::User, message);
    parts.cortex().say(asked, |_, _| Ok(())).map_err(boxed)?;
    let about = match channel {
        Some(channel) => match about::channel(parts, channel).map_err(boxed)? {
            Some(about) => format!("{about}\n"),
            None => return Ok((prompts::notice("cortex_no_channel").to_owned(), Vec::new())),
        },
        None => String::new(),
    };
    let context = json!({
        "name": parts.config.display_name, "identity": parts.prompts.identity_texts().join("\n\n"),
        "workspace": parts.workspace.path().to_string_lossy(),
    });
    let rendered = prompts::render(Template::CortexChat, &context);
    let preamble =
        rendered.map_err(|error| Box::new(error) as Box<dyn Fault>)? + parts.prompts.skills_of_cortex();
    let mut driver = Driver {
        link,
        model: Box::new(
            parts
                .llm
                .model_for(&parts.config.routing, ProcessKind::Cortex)
                .paid_by(job.payer(&parts.config.id)),
        ),
        toolbox: Box::new(Toolbox::new(tools(parts, job), DEFINITIONS.of(parts))),
        desk: ProcessDesk::new(link, Origin::default()),
        journal: RunJournal::new(&parts.conversations, job.process.number),
        spec: RunSpec { preamble: Some(preamble), max_turns: Some(MODEL_CALLS + 1), ..RunSpec::new() },
        counts: Counts { max_model_calls: MODEL_CALLS, ..Counts::default() },
        guard: LoopGuard::new(parts.config.loop_guard.of(ProcessKind::Cortex)),
    };
    let lines = history.first().zip(history.last()).map(|(first, last)| (first.id, last.id));
    let history = as_read(&history);
    let now = Part::Status(parts.conversations.now().to_rfc3339());
    let words = format!("{about}{message}\n{}", turn::write(&[now]));
    let start = json!({ "kind": "cortex", "thread": thread, "prompt": words });
    driver.begin(start, &Past { lines, ..Past::default() }, &history);
    let words = talk(&mut driver, &words, history, &mut Silent);
    driver.journal.flush().map_err(boxed)?;
    Ok((words, driver.counts.called))
}

/// The run of an answer, from the words to what the operator reads; live or from its journal.
pub(in crate::agent) fn talk(
    driver: &mut Driver<'_>,
    words: &str,
    history: Vec<Message>,
    conduct: &mut dyn Conduct,
) -> String {
    let (ended, run) = driver.drive(Message::user(words), history, conduct);
    let words = conclusion(ended, driver.link);
    driver.end(json!({ "bytes": words.len() }), &json!({ "answer": words }), &run.full_history());
    words
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

fn conclusion(ended: Ended, link: &Link<'_>) -> String {
    let notice = match ended {
        Ended::Text(text) if !text.trim().is_empty() => return text.trim().to_owned(),
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
    prompts::notice(notice).to_owned()
}

static DEFINITIONS: Definitions = Definitions::new();

/// What branches and workers have, but for what only their channel understands.
fn tools(parts: &AgentParts, job: &Job) -> Vec<Box<dyn Tool>> {
    let mut tools = branch::tools(parts, job, MemoryMode::Full);
    let acting = worker::worker_tools(parts);
    let known: Vec<_> = tools.iter().map(|tool| tool.name()).chain([set_status::SetStatus.name()]).collect();
    tools.extend(acting.into_iter().filter(|tool| !known.contains(&tool.name())));
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
