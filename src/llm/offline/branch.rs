//! The responder in a branch: it writes, searches and deletes memories, and its last text is the
//! conclusion that the person reads.

use serde_json::{Value, json};

use super::answer::{Answer, Call, lists};
use super::memories::{self, Meant, Memory, Topic};
use super::order;
use super::pattern::Words;
use super::phrases::{Table, fill};
use super::request::{Request, Step};
use crate::text::{one_line, shorten};

/// How many memories are asked for: enough to judge which one is meant.
const MAX_FOUND: usize = 10;
/// How many are asked for and shown where somebody wants them all.
const MAX_LISTED: usize = 20;
/// How many answer a question.
const MAX_SHOWN: usize = 5;
/// How many are shown when none fits well.
const MAX_UNSURE: usize = 3;
/// Most copies of one memory deleted at once.
const MAX_DELETED: usize = 5;

/// Longest search; a description written by a language model may be a page.
const MAX_QUERY_BYTES: usize = 400;
/// Longest piece of an order that is repeated in a conclusion.
const MAX_REPEATED_BYTES: usize = 600;

pub(super) fn answer(table: &Table, request: &Request<'_>) -> Answer {
    let description = request.newest().plain();
    let orders = [
        (order::REMEMBER, remember as fn(&Table, &Request<'_>, &str) -> Answer),
        (order::RECALL, recall),
        (order::FORGET, forget),
    ];
    for (verb, obey) in orders {
        if let Some(what) = order::read(verb, &description) {
            return obey(table, request, what);
        }
    }
    without_model(table, request, &description)
}

fn remember(table: &Table, request: &Request<'_>, what: &str) -> Answer {
    let words = &table.branch;
    if what.is_empty() {
        return Answer::Text(words.nothing_to_note.clone());
    }
    let rule = table.kind_of(what);
    let Some(saved) = request.newest().own_calls("memory_save").last() else {
        let mut arguments = json!({ "content": what });
        let kind = rule.map(|rule| rule.kind.as_str());
        let known = |kind: &&str| {
            request.tool("memory_save").is_some_and(|t| lists(t, "memory_type", kind) != Some(false))
        };
        if let Some(kind) = kind.filter(known) {
            arguments["memory_type"] = json!(kind);
        }
        return call(request, "memory_save", arguments)
            .unwrap_or_else(|| not(&words.not_noted, &table.other.no_tool));
    };
    match saved.failure(&table.words.refusals) {
        Some(reason) => not(&words.not_noted, &reason),
        None => {
            let sentence = rule.and_then(|rule| rule.says.as_ref()).unwrap_or(&words.noted);
            Answer::Text(fill(sentence, &[("what", &shorten(what, MAX_REPEATED_BYTES))]))
        }
    }
}

fn recall(table: &Table, request: &Request<'_>, question: &str) -> Answer {
    let words = &table.branch;
    let all = question.is_empty() || is_everything(table, question);
    let Some(step) = request.newest().own_calls("memory_recall").last() else {
        let found = if all { list(request) } else { search(request, question) };
        return found.unwrap_or_else(|| Answer::Text(words.unknown.clone()));
    };
    let found = match found_by(table, step) {
        Ok(found) => found,
        Err(reason) => return not(&words.not_searched, &reason),
    };
    if all {
        // An empty search is no proof that there is nothing; an empty list is.
        let empty = if step.arguments.contains_key("mode") { &words.nothing_at_all } else { &words.unknown };
        return Answer::Text(found_text(table, &found, MAX_LISTED).unwrap_or_else(|| empty.clone()));
    }
    let about = memories::about(table, &Topic::of(table, question), found.clone());
    let text = found_text(table, &about, MAX_SHOWN).or_else(|| {
        let lines = lines(table, &found, MAX_UNSURE)?;
        Some(fill(&words.unsure, &[("memories", &lines)]))
    });
    Answer::Text(text.unwrap_or_else(|| words.unknown.clone()))
}

fn forget(table: &Table, request: &Request<'_>, what: &str) -> Answer {
    let words = &table.branch;
    let topic = Topic::of(table, what);
    if topic.is_empty() || is_everything(table, what) {
        return Answer::Text(words.vague.clone());
    }
    let repeated = shorten(what, MAX_REPEATED_BYTES);
    let Some(step) = request.newest().own_calls("memory_recall").last() else {
        return search(request, what).unwrap_or_else(|| not(&words.not_forgotten, &table.other.no_tool));
    };
    let found = match found_by(table, step) {
        Ok(found) => found,
        Err(reason) => return not(&words.not_searched, &reason),
    };
    let mut these = match memories::meant(table, &topic, found) {
        Meant::Nothing => return Answer::Text(fill(&words.not_found, &[("what", &repeated)])),
        Meant::Unclear(several) => {
            let lines = lines(table, &several, MAX_SHOWN).unwrap_or_default();
            return Answer::Text(fill(&words.which, &[("memories", &lines)]));
        }
        Meant::These(these) => these,
    };
    these.truncate(MAX_DELETED);
    let mut deleted = request.newest().own_calls("memory_delete").peekable();
    if deleted.peek().is_none() {
        return delete(table, request, &these)
            .unwrap_or_else(|| not(&words.not_forgotten, &table.other.no_tool));
    }
    if let Some(reason) = deleted.find_map(|step| not_deleted(table, step)) {
        return not(&words.not_forgotten, &reason);
    }
    let sentence = if these.len() > 1 { &words.forgotten_several } else { &words.forgotten };
    let content = these.first().map_or("", |memory| &memory.content);
    Answer::Text(fill(sentence, &[("what", &shorten(content, MAX_REPEATED_BYTES))]))
}

/// A task that only a language model could do: an honest word, and what is known about it.
fn without_model(table: &Table, request: &Request<'_>, task: &str) -> Answer {
    let words = &table.branch;
    let query = one_line(task, MAX_QUERY_BYTES);
    let task = one_line(task, MAX_REPEATED_BYTES);
    let nothing = || Answer::Text(fill(&words.no_model_nothing, &[("task", &task)]));
    let Some(step) = request.newest().own_calls("memory_recall").last() else {
        let worth_it = !Topic::of(table, &query).is_empty();
        return search(request, &query).filter(|_| worth_it).unwrap_or_else(nothing);
    };
    let found = found_by(table, step).unwrap_or_default();
    let about = memories::about(table, &Topic::of(table, &query), found);
    match lines(table, &about, MAX_SHOWN) {
        Some(lines) => Answer::Text(fill(&words.no_model, &[("task", &task), ("memories", &lines)])),
        None => nothing(),
    }
}

fn call(request: &Request<'_>, tool: &'static str, arguments: Value) -> Option<Answer> {
    Some(Answer::Calls(vec![Call::of(request, tool, arguments)?]))
}

fn search(request: &Request<'_>, query: &str) -> Option<Answer> {
    let query = one_line(query, MAX_QUERY_BYTES);
    call(request, "memory_recall", json!({ "query": query, "max_results": MAX_FOUND }))
}

/// The newest memories, whatever they are about, where the tool has a mode for that.
fn list(request: &Request<'_>) -> Option<Answer> {
    let tool = request.tool("memory_recall")?;
    let mut arguments = json!({ "max_results": MAX_LISTED });
    let has_mode = lists(tool, "mode", RECENT) == Some(true);
    if has_mode {
        arguments["mode"] = json!(RECENT);
    }
    let required = tool.parameters.get("required").and_then(Value::as_array);
    if !has_mode || required.is_some_and(|names| names.iter().any(|name| name == "query")) {
        arguments["query"] = json!(order::EVERYTHING);
    }
    call(request, "memory_recall", arguments)
}

/// The mode of `memory_recall` that needs no words to look for.
const RECENT: &str = "recent";

fn delete(table: &Table, request: &Request<'_>, these: &[Memory]) -> Option<Answer> {
    let tool = request.tool("memory_delete")?;
    let calls = these.iter().map(|memory| {
        let arguments =
            json!({ "memory_id": memory.id_argument(tool), "reason": table.branch.delete_reason });
        Call::of(request, "memory_delete", arguments)
    });
    Some(Answer::Calls(calls.collect::<Option<_>>()?))
}

/// Why a memory is still there: the tool failed, or answered `{"forgotten": false, "why": ..}`.
fn not_deleted(table: &Table, step: &Step<'_>) -> Option<String> {
    let value = step.outcome.as_ref().and_then(|outcome| outcome.value.as_ref());
    let refused = value.filter(|value| value.get("forgotten").and_then(Value::as_bool) == Some(false));
    let why =
        refused.map(|value| value.get("why").and_then(Value::as_str).unwrap_or_default().replace('_', " "));
    step.failure(&table.words.refusals).or(why)
}

fn found_by(table: &Table, step: &Step<'_>) -> Result<Vec<Memory>, String> {
    match step.failure(&table.words.refusals) {
        Some(reason) => Err(reason),
        None => Ok(memories::read(step.outcome.as_ref().and_then(|outcome| outcome.value.as_ref()))),
    }
}

fn is_everything(table: &Table, what: &str) -> bool {
    let words = Words::of(what);
    table.words.everything.iter().any(|phrase| phrase.is(&words))
}

/// One memory in a sentence, several as a list; none when there are none.
fn found_text(table: &Table, memories: &[Memory], most: usize) -> Option<String> {
    let words = &table.branch;
    match memories {
        [only] => Some(fill(&words.found_one, &[("memories", &only.sentence(words))])),
        several => Some(fill(&words.found_many, &[("memories", &lines(table, several, most)?)])),
    }
}

fn lines(table: &Table, memories: &[Memory], most: usize) -> Option<String> {
    let words = &table.branch;
    let shown =
        memories.iter().take(most).map(|memory| fill(&words.line, &[("memory", &memory.sentence(words))]));
    let hidden = memories.len().saturating_sub(most);
    let more = (hidden > 0).then(|| fill(&words.more, &[("more", &hidden.to_string())]));
    let lines: Vec<String> = shown.chain(more).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn not(sentence: &str, reason: &str) -> Answer {
    Answer::Text(fill(sentence, &[("reason", reason)]))
}
