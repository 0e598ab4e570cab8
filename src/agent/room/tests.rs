//! What leaves a history, over many histories: no result without its call, no task lost.

#![allow(clippy::expect_used)]

use rig_core::message::{ToolCall, ToolFunction, ToolName};
use serde_json::json;

use super::*;

fn call(id: usize) -> ToolCall {
    let name = ToolName::new("shell").expect("a name");
    ToolCall::from_wire(id.to_string(), ToolFunction::new(name, json!({ "command": format!("run {id}") })))
}

/// `t` the task, `u` words, `a` an answer, `c` a call, `r` its result.
fn history(shape: &str) -> Vec<Message> {
    let message = |(index, what): (usize, char)| match what {
        'a' => Message::assistant("thought"),
        'c' => Message::from(AssistantContent::ToolCall(call(index))),
        'r' => {
            let words = vec![ToolResultContent::text("y".repeat(300))];
            Message::from(UserContent::ToolResult(call(index - 1).result(words)))
        }
        'u' => Message::user(format!("words {index}")),
        _ => Message::user("the task"),
    };
    shape.chars().enumerate().map(message).collect()
}

fn holds_call(message: &Message) -> bool {
    let is_call = |content: &AssistantContent| matches!(content, AssistantContent::ToolCall(_));
    matches!(message, Message::Assistant(said) if said.content.iter().any(is_call))
}

fn check(left: &[Message], task: usize) {
    assert_eq!(left.get(task), Some(&Message::user("the task")), "{left:?}");
    for (index, message) in left.iter().enumerate() {
        if holds_results(message) {
            assert!(index > 0 && holds_call(&left[index - 1]), "a result without its call: {left:?}");
        }
    }
}

#[test]
fn no_cut_parts_a_result_from_its_call_or_takes_the_task_or_the_newest() {
    let shapes = ["tcrcrcr", "uauat", "uauatcrcr", "tcracrcrau", "t", "tu", "tcr", "uatcrucracr", "ut"];
    for shape in shapes {
        let messages = history(shape);
        let all: Vec<&Message> = messages.iter().collect();
        let task = shape.find('t').expect("a task");
        for wanted in 0..=messages.len() + 2 {
            let drop = cut(&all, task, wanted);
            for recap in [None, Some("recap".to_owned())] {
                let trim = Trim { task, drop, recap: recap.clone() };
                let left = trim.apply(messages.clone());
                assert_eq!(left.len(), messages.len() - drop + usize::from(recap.is_some()));
                check(&left, trim.next_task());
                assert_eq!(left.last(), messages.last(), "{shape} {wanted}: the newest stays");
            }
        }
    }
}

#[test]
fn a_preflight_halves_until_it_fits_and_leaves_four() {
    let messages = history("uauauauauauauauat");
    let all: Vec<&Message> = messages.iter().collect();
    let task = messages.len() - 1;
    assert_eq!(preflight(&all, task, |_| true), 0);
    assert_eq!(preflight(&all, task, |left| left.len() <= 9), 8, "16 become 8");
    assert_eq!(preflight(&all, task, |_| false), 12, "never fewer than four");
    let short = history("uat");
    assert_eq!(preflight(&short.iter().collect::<Vec<_>>(), 2, |_| false), 0);
}

#[test]
fn a_recap_tells_calls_and_results_cut_short_and_keeps_an_earlier_one() {
    let messages = history("cracru");
    let all: Vec<&Message> = messages.iter().collect();
    let first = recap(&all, 8_000);
    let lines: Vec<&str> = first.lines().collect();
    assert_eq!(lines[0], prompts::notice("worker_recap"));
    assert_eq!(lines[1], "- shell {\"command\":\"run 0\"}");
    assert!(lines[2].starts_with("  -> yyy") && lines[2].len() <= RECAP_PART_BYTES + 5, "{}", lines[2]);
    assert_eq!((lines[3], lines.len()), ("- said: thought", 7), "{first}");
    let again = Message::user(&first);
    let second = recap(&[&again, &messages[0], &messages[1]], 8_000);
    assert!(second.starts_with(&first) && second.lines().count() == 9, "{second}");
    let cut = recap(&[&again, &messages[0], &messages[1]], 700);
    assert!(cut.len() <= 700 && cut.starts_with(lines[0]) && cut.ends_with(lines[2]), "{cut}");
}
