//! `spacebot why`: the answer to one message is explained from the journal, beside a daemon and after it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;

use daemon::Home;
use serde_json::Value;

fn why(home: &Home, arguments: &[&str]) -> (bool, String) {
    let output = home.command(&[&["why"], arguments].concat()).output().unwrap();
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn an_answer_is_explained_with_every_process_memory_and_tool() {
    let home = Home::new("");
    let daemon = home.start();
    let mut client = daemon.client("kitchen");
    client.ask("m1", "remember that the cellar key hangs by the door");
    let answer = client.ask("m2", "where is the cellar key?");
    assert!(answer.contains("by the door"), "{answer}");
    let (good, said) = why(&home, &["m2"]);
    assert!(good, "{said}");
    let order = [
        "where is the cellar key?",
        "channel ",
        "branch: {\"started\":\"branch:",
        "branch ",
        "memory_recall: 1 memories",
        "the cellar key hangs by the door [agent:branch:",
        "ended: done",
        "reply: sent",
        "in all: 5 model calls",
        "answered after",
    ];
    let mut rest = said.as_str();
    for part in order {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is not where it should be in\n{said}"));
        rest = &rest[at..];
    }
    assert!(!said.contains("remember that"), "nothing of the other message: {said}");
    let (status, _) = daemon.stop();
    assert!(status.success());
    let (good, json) = why(&home, &["m1", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(good && json["runs"].as_array().unwrap().len() == 3, "{json}");
    assert_eq!(json["runs"][0]["sum"]["model_calls"], 2);
    assert_eq!(json["answers"].as_array().unwrap().len(), 1);
    let (good, said) = why(&home, &["nothing-of-this-kind"]);
    assert!(!good && said.contains("there is no message"), "{said}");
}
