//! Histories by hand and at random, judged by Rig's own rules and by ours.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use rig_core::message::{Api, Message, Origin, ToolName};
use rig_core::transcript::validate_canonical;
use serde_json::json;

use super::*;

#[path = "../../../tests/support/random.rs"]
mod random;

use random::Random;

const SEEDS: u64 = 3_000;

fn call(id: &str, arguments: &Value) -> ToolCall {
    ToolCall::from_wire(id, ToolFunction::new(ToolName::new("tool").unwrap(), arguments.clone()))
}

fn calls(ids: &[&str]) -> Message {
    let block = |id: &&str| AssistantContent::ToolCall(call(id, &json!({"x": 1})));
    Message::Assistant(AssistantMessage::new(ids.iter().map(block).collect()))
}

fn result(id: &str, text: &str) -> UserContent {
    UserContent::ToolResult(call(id, &json!({})).result(vec![ToolResultContent::text(text)]))
}

fn results(ids: &[&str]) -> Message {
    Message::User { content: ids.iter().map(|id| result(id, "done")).collect() }
}

fn text(message: &Message) -> String {
    serde_json::to_string(message).unwrap()
}

/// Written without the code under test: what a provider refuses.
fn refused(messages: &[Message]) -> Option<String> {
    if let Err(error) = validate_canonical(messages) {
        return Some(error.to_string());
    }
    if !messages.iter().any(|message| !matches!(message, Message::System { .. })) {
        return Some("no message".to_owned());
    }
    for pair in messages.windows(2) {
        if matches!(pair, [Message::User { .. }, Message::User { .. }]) {
            return Some("two messages of the user in a row".to_owned());
        }
    }
    for message in messages {
        let json = serde_json::to_value(message).unwrap();
        let content = json["content"].as_array().cloned().unwrap_or_default();
        if !matches!(message, Message::System { .. }) && content.is_empty() {
            return Some("an empty message".to_owned());
        }
        if json["content"].as_str().is_some_and(|text| text.trim().is_empty() || text.len() > PART_BYTES_MAX)
        {
            return Some("system text that is empty or too long".to_owned());
        }
        let made: Vec<&Value> =
            content.iter().filter(|part| part.get("function").is_some()).map(|part| &part["id"]).collect();
        if made.iter().enumerate().any(|(at, id)| made[..at].contains(id)) {
            return Some("the same call twice".to_owned());
        }
        let is_result = |part: &Value| part.get("call").is_some();
        let results = content.iter().rposition(is_result).map_or(0, |last| last + 1);
        if content[..results].iter().any(|part| !is_result(part)) {
            return Some("a result behind a text".to_owned());
        }
        let texts = content
            .iter()
            .chain(content.iter().flat_map(|part| part["content"].as_array().into_iter().flatten()));
        for text in texts.filter_map(|part| part["text"].as_str()) {
            if text.trim().is_empty() || text.len() > PART_BYTES_MAX {
                return Some(format!("a text of {} bytes", text.len()));
            }
        }
        for part in content.iter().filter(|part| part.get("function").is_some()) {
            if part["function"].to_string().len() > PART_BYTES_MAX * 2 {
                return Some("a call that is too long".to_owned());
            }
            let raw = part["function"]["invalid_arguments"].as_str().unwrap_or_default();
            if raw.contains("\\ud8") {
                return Some("half a character".to_owned());
            }
        }
    }
    None
}

#[test]
fn what_providers_take_is_left_as_it_is() {
    let system = Message::System { content: "Be kind.".to_owned() };
    let sound = [
        vec![Message::user("hello")],
        vec![system.clone(), Message::user("hello"), Message::assistant("well"), Message::user("good")],
        vec![Message::user("do"), calls(&["a", "b"]), results(&["b", "a"]), Message::assistant("done")],
        vec![Message::user("do"), calls(&["a"]), results(&["a"]), calls(&["a"]), results(&["a"])],
        vec![Message::user("do"), calls(&["a"]), system, results(&["a"])],
        vec![
            Message::user("do"),
            calls(&["a"]),
            Message::User { content: vec![result("a", "done"), UserContent::text("and more")] },
        ],
        vec![Message::user("x".repeat(PART_BYTES_MAX))],
    ];
    for history in sound {
        assert_eq!(repair(&history), None, "{history:?}");
        assert_eq!(refused(&history), None);
        let mut request = CompletionRequest::new("");
        request.chat_history = history;
        assert!(matches!(repaired(&request), Cow::Borrowed(_)));
    }
}

#[test]
fn each_fault_has_its_repair() {
    let user = |parts: Vec<UserContent>| Message::User { content: parts };
    let lost = || {
        UserContent::ToolResult(
            call("a", &json!({})).error_result(vec![ToolResultContent::text(notice("history_no_answer"))]),
        )
    };
    let both = |first: &str, second: &str| user(vec![UserContent::text(first), UserContent::text(second)]);
    let cases: [(&str, Vec<Message>, Vec<Message>); 10] = [
        (
            "a call at the end",
            vec![Message::user("do"), calls(&["a"])],
            vec![Message::user("do"), calls(&["a"]), user(vec![lost()])],
        ),
        (
            "a call that was passed over",
            vec![Message::user("do"), calls(&["a"]), Message::user("well?")],
            vec![Message::user("do"), calls(&["a"]), user(vec![lost(), UserContent::text("well?")])],
        ),
        (
            "one of two answered",
            vec![Message::user("do"), calls(&["b", "a"]), results(&["b"])],
            vec![Message::user("do"), calls(&["b", "a"]), user(vec![result("b", "done"), lost()])],
        ),
        (
            "a result without a call",
            vec![Message::user("do"), results(&["a"]), Message::assistant("done")],
            vec![Message::user("do"), Message::assistant("done")],
        ),
        (
            "the same result twice",
            vec![Message::user("do"), calls(&["a"]), results(&["a", "a"])],
            vec![Message::user("do"), calls(&["a"]), results(&["a"])],
        ),
        (
            "the same call twice",
            vec![Message::user("do"), calls(&["a", "a"]), results(&["a"])],
            vec![Message::user("do"), calls(&["a"]), results(&["a"])],
        ),
        ("two of the user", vec![Message::user("one"), Message::user("two")], vec![both("one", "two")]),
        (
            "nothing said in between",
            vec![Message::user("one"), Message::assistant(" \n"), Message::user("two"), Message::user("")],
            vec![both("one", "two")],
        ),
        (
            "results behind a text, and in two messages",
            vec![
                Message::user("do"),
                calls(&["a", "b"]),
                user(vec![UserContent::text("meanwhile"), result("a", "done")]),
                results(&["b"]),
            ],
            vec![
                Message::user("do"),
                calls(&["a", "b"]),
                user(vec![result("a", "done"), result("b", "done"), UserContent::text("meanwhile")]),
            ],
        ),
        ("nothing at all", vec![Message::user("  ")], vec![Message::user(notice("history_empty"))]),
    ];
    for (name, broken, expected) in cases {
        assert!(refused(&broken).is_some(), "{name} is no fault");
        assert_eq!(repair(&broken), Some(expected), "{name}");
    }
}

#[test]
fn what_is_too_long_is_cut_with_a_word_about_it() {
    let long = "é".repeat(PART_BYTES_MAX);
    let long_json = json!({"list": vec!["x".repeat(1000); 2000]});
    let part = |content| Message::User {
        content: vec![UserContent::ToolResult(call("a", &json!({})).result(content))],
    };
    for content in [
        vec![ToolResultContent::text(long.clone())],
        vec![ToolResultContent::Json { value: long_json }],
        vec![ToolResultContent::text("x".repeat(PART_BYTES_MAX - 3)), ToolResultContent::text("yyyy")],
    ] {
        let fixed = repair(&[Message::user("do"), calls(&["a"]), part(content)]).unwrap();
        assert_eq!(refused(&fixed), None);
        assert!(text(&fixed[2]).contains(notice("history_cut")));
        assert_eq!(repair(&fixed), None);
    }
    for message in [Message::user(long.clone()), Message::System { content: long.clone() }] {
        let fixed = repair(&[message, Message::assistant(long.clone()), Message::user("go on")]).unwrap();
        assert_eq!((fixed.len(), refused(&fixed), repair(&fixed)), (3, None, None));
        assert!(fixed[..2].iter().all(|message| text(message).contains(notice("history_cut"))));
    }
    let arguments =
        json!({"text": "é".repeat(PART_BYTES_MAX), "deep": [{"text": "y".repeat(20_000)}], "x": 1});
    let turn = AssistantMessage::new(vec![AssistantContent::ToolCall(call("a", &arguments))]);
    let fixed = repair(&[Message::user("do"), Message::Assistant(turn), results(&["a"])]).unwrap();
    let Message::Assistant(turn) = &fixed[1] else { panic!("{fixed:?}") };
    let function = &turn.tool_calls().next().unwrap().function;
    assert_eq!(function.arguments["x"], 1);
    for text in [&function.arguments["text"], &function.arguments["deep"][0]["text"]] {
        assert!(text.as_str().unwrap().ends_with(notice("history_cut")));
    }
    assert_eq!((refused(&fixed), repair(&fixed)), (None, None));
}

#[test]
fn half_a_character_in_arguments_becomes_the_sign_for_one() {
    let cases = [
        (r#"{"x": "a\ud83db"}"#, Some("a\u{fffd}b")),
        (r#"{"x": "\udc00\ud83d\ude00\ud800"}"#, Some("\u{fffd}\u{1f600}\u{fffd}")),
        (r#"{"x": "\ud800"#, None),
    ];
    for (raw, expected) in cases {
        let function = ToolFunction::parse(ToolName::new("tool").unwrap(), raw);
        assert!(function.invalid_arguments.is_some(), "{raw} can be read");
        let turn =
            AssistantMessage::new(vec![AssistantContent::ToolCall(ToolCall::from_wire("a", function))]);
        let fixed = repair(&[Message::user("do"), Message::Assistant(turn), results(&["a"])]).unwrap();
        let Message::Assistant(turn) = &fixed[1] else { panic!("{fixed:?}") };
        let function = &turn.tool_calls().next().unwrap().function;
        if let Some(expected) = expected {
            assert_eq!(
                (function.arguments["x"].as_str(), &function.invalid_arguments),
                (Some(expected), &None)
            );
        }
        assert_eq!((refused(&fixed), repair(&fixed)), (None, None), "{raw}");
    }
    assert_eq!(lone_surrogate(r#"{"x": "\\ud800 \ud83d\ude00 \u00e9 \n"}"#, 0), None);
}

#[test]
fn what_a_provider_has_signed_does_not_stand_beside_anothers_words() {
    let turn = |provider: &str, text: &str| {
        let mut turn = AssistantMessage::new(vec![AssistantContent::text(text)]);
        turn.origin = Some(Origin::new(Api::from_static("openai.chat"), provider, "m"));
        Message::Assistant(turn)
    };
    for (second, kept) in [("one", true), ("two", false)] {
        let fixed = repair(&[Message::user("do"), turn("one", "a"), turn(second, "b")]).unwrap();
        let [_, Message::Assistant(joined)] = &fixed[..] else { panic!("{fixed:?}") };
        assert_eq!((joined.content.len(), joined.origin.is_some()), (2, kept));
    }
}

/// A history as a crash, a cut and a confused model may leave it.
fn random_history(random: &mut Random) -> Vec<Message> {
    let ids = ["a", "b", "c"];
    let texts = ["", " \n", "word", "more words"];
    let mut messages = Vec::new();
    for _ in 0..random.below(9) {
        let mut parts = Vec::new();
        let mut blocks = Vec::new();
        for _ in 0..random.below(4) {
            let id = ids[usize::try_from(random.below(3)).unwrap()];
            let text = match random.below(40) {
                0 => "x".repeat(PART_BYTES_MAX + 1),
                other => texts[usize::try_from(other % 4).unwrap()].to_owned(),
            };
            if random.chance(50) {
                parts.push(result(id, &text));
                let raw = if random.chance(10) { r#"{"x": "\ud800"}"# } else { "{}" };
                let function = ToolFunction::parse(ToolName::new("tool").unwrap(), raw);
                blocks.push(AssistantContent::ToolCall(ToolCall::from_wire(id, function)));
            } else {
                parts.push(UserContent::text(text.clone()));
                blocks.push(AssistantContent::text(text));
            }
        }
        messages.push(match random.below(7) {
            0 => Message::System { content: texts[usize::try_from(random.below(4)).unwrap()].to_owned() },
            1..=3 => Message::User { content: parts },
            _ => Message::Assistant(AssistantMessage::new(blocks)),
        });
    }
    messages
}

#[test]
fn any_history_comes_out_so_that_it_is_taken_and_stays_so() {
    let mut sound = 0;
    for seed in 0..SEEDS {
        let history = random_history(&mut Random(seed));
        let before = history.clone();
        let fixed = repair(&history);
        assert_eq!(history, before);
        let after = fixed.as_deref().unwrap_or(&history);
        assert_eq!(refused(after), None, "seed {seed}: {history:?} became {after:?}");
        assert_eq!(repair(after), None, "seed {seed}: the second time something is left to do");
        if fixed.is_none() {
            sound += 1;
        } else {
            assert!(refused(&history).is_some(), "seed {seed}: changed without need: {history:?}");
        }
        // Nothing that was said is lost.
        let words = |messages: &[Message]| {
            let all: String = messages
                .iter()
                .filter(|message| !matches!(message, Message::User { .. }))
                .map(text)
                .collect();
            all.matches("\"more words\"").count()
        };
        assert_eq!(words(after), words(&history), "seed {seed}");
    }
    assert!(sound > 0, "none of {SEEDS} was sound");
}

/// A history as it comes about when nothing goes wrong.
fn sound_history(random: &mut Random) -> Vec<Message> {
    let mut messages = vec![Message::System { content: "Be kind.".to_owned() }, Message::user("begin")];
    for _ in 0..random.below(8) {
        let ids = ["a", "b", "c"];
        let count = usize::try_from(random.below(4)).unwrap();
        if count == 0 {
            messages.extend([Message::assistant("well"), Message::user("go on")]);
            continue;
        }
        messages.push(calls(&ids[..count]));
        if random.chance(20) {
            messages.push(Message::System { content: "It is late.".to_owned() });
        }
        let mut parts: Vec<_> = ids[..count].iter().map(|id| result(id, "done")).collect();
        let turned = usize::try_from(random.below(4)).unwrap() % count;
        parts.rotate_left(turned);
        if random.chance(30) {
            parts.push(UserContent::text("meanwhile"));
        }
        messages.push(Message::User { content: parts });
    }
    messages
}

#[test]
fn a_history_to_which_nothing_has_happened_stays_as_it_is() {
    for seed in 0..SEEDS {
        let history = sound_history(&mut Random(seed));
        assert_eq!(refused(&history), None, "seed {seed}");
        assert_eq!(repair(&history), None, "seed {seed}: {history:?}");
    }
}
