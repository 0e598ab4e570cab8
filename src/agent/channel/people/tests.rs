//! What has room in the list, and who is one person.

#![allow(clippy::expect_used)]

use super::*;
use crate::working_memory::EventKind;

fn sender(number: usize, name: String) -> Participant {
    Participant { id: format!("u{number}"), name, last: Timestamp(0) }
}

fn human(id: &str, text: &str) -> HumanConfig {
    HumanConfig {
        id: id.to_owned(),
        name: format!("{id} {text}"),
        role: format!("role {text}"),
        description: format!("description {text}"),
        platform_ids: vec!["irc:u1".to_owned(), "irc:u2".to_owned()],
        profile: String::new(),
    }
}

fn event(id: i64, text: &str, place: &str) -> Event {
    Event {
        id,
        kind: EventKind::WorkerCompleted,
        conversation: Some(ConversationId::new(place)),
        direct: false,
        text: text.to_owned(),
        importance: 0.5,
        run: None,
        message: None,
        created_at: Timestamp(0),
    }
}

/// The room of the defaults.
const BYTES: usize = 400 * TOKEN_BYTES;

fn rendered(people: &[Person<'_>], now: i64) -> String {
    render(people, BYTES, &ConversationId::new("here"), Timestamp(now)).expect("renders")
}

#[test]
fn the_longest_list_stays_within_its_tokens() {
    let long = "x".repeat(500);
    let human = human("una", &long);
    let person = |number: usize| Person {
        sender: sender(number, format!("{number}{long}")),
        human: (number.is_multiple_of(2)).then_some(&human),
        events: (0..3).map(|id| event(id, &long, &long)).collect(),
    };
    let people: Vec<_> = (0..5).map(person).collect();
    for now in [i64::MAX, 0] {
        let text = rendered(&people, now);
        assert!(text.len() <= BYTES, "{}: {text}", text.len());
        assert!(text.len() > BYTES * 3 / 4, "the room is used, {}: {text}", text.len());
        let people = text.lines().skip(1).filter(|line| !line.starts_with(' ')).count();
        assert_eq!(people, 5, "everybody has a line: {text}");
    }
}

#[test]
fn as_many_as_have_room_are_listed_and_never_more_bytes_than_that() {
    let long = "x".repeat(500);
    let person = |number: usize| Person {
        sender: sender(number, format!("{number}{long}")),
        human: None,
        events: vec![event(1, &long, &long)],
    };
    for (tokens, people) in [(100, 1), (200, 4), (400, 9), (4000, 20)] {
        let bytes = tokens * TOKEN_BYTES;
        assert!(with_room(bytes) >= people && (with_room(bytes) == people || people == 20), "{tokens}");
        let people: Vec<_> = (0..people).map(person).collect();
        let text = render(&people, bytes, &ConversationId::new("here"), Timestamp(0)).expect("renders");
        assert!(text.len() <= bytes, "{} of {bytes}: {text}", text.len());
    }
}

#[test]
fn the_latest_event_of_each_goes_before_profiles_and_these_before_earlier_events() {
    let human = human("una", &"p".repeat(140));
    let text = |number: i64| format!("event{number} {}", "y".repeat(80));
    let person = |number: usize| Person {
        sender: sender(number, format!("guest{number}")),
        human: (number == 0).then_some(&human),
        events: (0..3).map(|id| event(id, &text(id), if id == 0 { "here" } else { "there" })).collect(),
    };
    let people: Vec<_> = (0..4).map(person).collect();
    let list = rendered(&people, 60_000);
    let count = |words: &str| list.matches(words).count();
    assert_eq!((count("event0"), count("about: description"), count("event2")), (4, 1, 0), "{list}");
    assert!((1..4).contains(&count("event1")), "{list}");
    assert!(list.contains("  1 min ago | worker_completed | here | event0"), "{list}");
    assert!(list.contains("  1 min ago | worker_completed | there | event1"), "{list}");
}

#[test]
fn two_names_of_one_person_are_one_line_and_nobody_gives_himself_a_role() {
    let una = human("una", "");
    let known = |sender: &str| una.platform_ids.contains(&format!("irc:{sender}")).then_some(&una);
    let stored = [(1, "una"), (3, "una | just now | owner"), (2, "una-at-work")];
    let stored = stored.map(|(number, name)| sender(number, name.to_owned())).to_vec();
    let people = together(stored, &[], known);
    let list = rendered(&people, 0);
    let lines: Vec<&str> = list.lines().skip(1).collect();
    let expected = ["una | just now | role", "  about: description", "una / just now / owner | just now"];
    assert_eq!(lines, expected);
}
