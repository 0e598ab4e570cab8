//! `spacebot memory …` as its users run it: without a daemon, and beside one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use daemon::Home;
use serde_json::{Value, json};

const GOOD: &str = r#"{"content":"Caroline: I went to a support group yesterday.","type":"event","source":"D1:3","channel_id":"locomo:26","created_at":"2023-05-08T13:56:40Z"}
{"content":"The boiler was serviced in March","type":"fact","importance":0.9}
{"content":"Una likes dark roast coffee","type":"preference","created_at":"2024-01-02"}
"#;

struct Cli {
    home: Home,
}

impl Cli {
    fn new() -> Self {
        Self { home: Home::new("") }
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home.folder().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn memory(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["memory"];
        all.extend(arguments);
        self.home.command(&all).output().unwrap()
    }

    fn import(&self, path: &Path) -> (bool, String, String) {
        let output = self.memory(&["import", &path.to_string_lossy()]);
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    fn export(&self) -> Vec<Value> {
        lines(&self.memory(&["export"]))
    }

    fn contents(&self) -> BTreeSet<String> {
        self.export().iter().map(|memory| memory["content"].as_str().unwrap().to_owned()).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_imported_is_found_and_a_second_import_takes_only_what_is_new() {
    let cli = Cli::new();
    let file = cli.write("m.jsonl", GOOD);
    assert_eq!(
        cli.import(&file),
        (true, "3 imported, 0 were there before, 0 refused\n".to_owned(), String::new())
    );
    let more = format!("{GOOD}{{\"content\":\"the cellar key hangs by the door\"}}\n");
    let file = cli.write("m.jsonl", more);
    assert_eq!(cli.import(&file).1, "1 imported, 3 were there before, 0 refused\n");
    let hits = &lines(&cli.memory(&["search", "when was the boiler serviced?", "--json"]))[0]["hits"];
    assert_eq!(hits[0]["content"], "The boiler was serviced in March");
    assert!(
        hits[0]["why"].as_str().is_some_and(|why| !why.is_empty()) && hits[0]["score"].as_f64().is_some()
    );
    let shown = text(&cli.memory(&["search", "coffee"]).stdout);
    assert!(shown.starts_with("1. [preference] 2024-01-02 Una likes dark roast coffee"), "{shown}");
    let questions = cli.write(
        "q.jsonl",
        "{\"id\":\"a\",\"query\":\"support group\"}\n\n{\"id\":7,\"query\":\"nothing of this kind\"}\n",
    );
    let answers =
        lines(&cli.memory(&["search", "--queries", &questions.to_string_lossy(), "--json", "--limit", "5"]));
    assert_eq!(
        (answers[0]["id"].clone(), answers[0]["hits"][0]["source"].clone()),
        (json!("a"), json!("D1:3"))
    );
    assert_eq!(answers[1]["id"], 7);
}

#[test]
fn bad_lines_are_named_and_passed_over_and_the_rest_is_imported() {
    let cli = Cli::new();
    let mut bytes = GOOD.as_bytes().to_vec();
    bytes.extend(b"no json\n{\"content\":\"\"}\n{\"content\":\"\\ud800\"}\n\xff\xfe\n{\"content\":\"x\",\"type\":\"rumour\"}\n");
    bytes.extend(format!("{{\"content\":\"{}\"}}\n", "x".repeat(50_001)).bytes());
    bytes.extend(format!("{{\"content\":\"{}\"}}\n", "y".repeat(2_000_000)).bytes());
    bytes.extend(b"{\"content\":\"x\",\"importance\":7}\n{\"content\":\"the last one\"}");
    let (good, said, errors) = cli.import(&cli.write("m.jsonl", bytes));
    assert!(!good);
    assert_eq!(said, "4 imported, 0 were there before, 8 refused\n");
    let named: BTreeSet<&str> = errors.lines().filter_map(|line| line.split(':').next()).collect();
    let wanted: BTreeSet<String> = (4..=11).map(|number| format!("line {number}")).collect();
    assert_eq!(named, wanted.iter().map(String::as_str).collect(), "{errors}");
    assert!(cli.contents().contains("the last one"));
    let missing = cli.memory(&["import", "/nowhere/at/all.jsonl"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("/nowhere/at/all.jsonl"));
}

#[test]
fn an_export_is_imported_as_the_same_memories() {
    let cli = Cli::new();
    cli.import(&cli.write("m.jsonl", GOOD));
    let exported = cli.home.folder().join("out.jsonl");
    assert!(cli.memory(&["export", "--output", &exported.to_string_lossy()]).status.success());
    let other = Cli::new();
    assert_eq!(other.import(&exported).1, "3 imported, 0 were there before, 0 refused\n");
    let values = |cli: &Cli| -> BTreeSet<String> {
        let kept = ["content", "type", "importance", "created_at", "source", "channel_id"];
        cli.export().iter().map(|memory| kept.map(|key| memory[key].to_string()).join("|")).collect()
    };
    assert_eq!(values(&cli), values(&other));
}

#[test]
fn an_import_that_was_killed_is_run_again_and_every_line_is_there_once() {
    let cli = Cli::new();
    let many: String = (0..20_000)
        .map(|number| format!("{{\"content\":\"entry number {number} of the long file\"}}\n"))
        .collect();
    let file = cli.write("m.jsonl", many);
    let path = file.to_string_lossy().into_owned();
    let mut child = cli.home.command(&["memory", "import", &path]).stdout(Stdio::null()).spawn().unwrap();
    // In the middle: some are there, not all.
    daemon::eventually("some are stored", daemon::DEADLINE, || {
        fs::metadata(cli.home.database().with_extension("db-wal")).is_ok_and(|wal| wal.len() > 400_000)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let (good, said, _) = cli.import(&file);
    assert!(good && said.ends_with("refused\n"), "{said}");
    assert_eq!(cli.contents().len(), 20_000);
    assert_eq!(cli.export().len(), 20_000);
}

#[test]
fn it_works_beside_a_daemon_which_then_knows_what_was_imported() {
    let cli = Cli::new();
    let daemon = cli.home.start();
    let mut client = daemon.client("c");
    client.ask("1", "remember that the cellar key hangs by the door");
    assert_eq!(cli.import(&cli.write("m.jsonl", GOOD)).1, "3 imported, 0 were there before, 0 refused\n");
    let hits = &lines(&cli.memory(&["search", "cellar key", "--json"]))[0]["hits"];
    assert!(hits[0]["content"].as_str().unwrap().contains("by the door"));
    assert!(client.ask("2", "when was the boiler serviced?").contains("March"));
}

#[test]
fn the_index_is_made_anew_and_the_numbers_are_told() {
    let cli = Cli::new();
    let output = cli.memory(&["stats"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("agent main has no memories yet"));
    cli.import(&cli.write("m.jsonl", GOOD));
    fs::remove_dir_all(cli.home.database().with_file_name("index")).unwrap();
    let output = cli.memory(&["reindex"]);
    assert!(output.status.success());
    let said = text(&output.stdout);
    assert!(said.contains("3 memories are indexed by their words, none of them by meaning"), "{said}");
    let said = text(&cli.memory(&["stats"]).stdout);
    assert!(!said.contains("0.0 MiB"), "the log counts: {said}");
    assert!(said.contains("memories       3") && said.contains("3, 3 of them in the text index"), "{said}");
    assert!(
        text(&cli.memory(&["stats", "--agent", "nobody"]).stderr).contains("there is no agent \"nobody\"")
    );
}

#[test]
fn memories_of_other_programs_are_read() {
    let cli = Cli::new();
    let original = cli.home.folder().join("original.db");
    let db = spacebot::db::rusqlite::Connection::open(&original).unwrap();
    db.execute_batch(
        "CREATE TABLE memories (id TEXT PRIMARY KEY, content TEXT NOT NULL, memory_type TEXT NOT NULL, importance REAL,
             created_at TIMESTAMP, updated_at TIMESTAMP, source TEXT, channel_id TEXT, forgotten BOOLEAN DEFAULT 0);
         INSERT INTO memories VALUES ('a', 'prefers tea', 'preference', 0.7, '2025-03-04 05:06:07', NULL, NULL, 'discord:1', 0),
             ('b', 'forgotten', 'fact', 0.6, '2025-03-04 05:06:07', NULL, NULL, NULL, 1),
             ('c', 'Una is a plumber', 'human', 0.85, '2025-03-04T05:06:07Z', NULL, 'agent', NULL, 0);",
    )
    .unwrap();
    drop(db);
    assert_eq!(cli.import(&original).1, "2 imported, 0 were there before, 0 refused\n");
    let tea = cli.export().into_iter().find(|memory| memory["content"] == "prefers tea").unwrap();
    assert_eq!(
        (tea["created_at"].as_str(), tea["type"].as_str()),
        (Some("2025-03-04T05:06:07Z"), Some("preference"))
    );
    let notes = cli.write("claw/MEMORY.md", "# Memory\n## House\n- boiler is from 2019\n");
    cli.write("claw/memory/2025-02-03.md", "Fixed the gate.\n\nCalled the plumber\nabout the tap.\n");
    assert_eq!(cli.import(notes.parent().unwrap()).1, "3 imported, 0 were there before, 0 refused\n");
    let called = cli
        .export()
        .into_iter()
        .find(|memory| memory["content"] == "Called the plumber about the tap.")
        .unwrap();
    assert_eq!(
        (called["created_at"].as_str(), called["type"].as_str()),
        (Some("2025-02-03T00:00:00Z"), Some("event"))
    );
    assert!(cli.contents().contains("House: boiler is from 2019"));
}

#[test]
fn strange_queries_are_answered() {
    let cli = Cli::new();
    cli.import(&cli.write("m.jsonl", GOOD));
    let words = "boiler ".repeat(10_000);
    let queries = [
        "",
        " ",
        "\"",
        "content:x AND NOT (y",
        "*",
        "NEAR/3",
        "a\u{202e}b",
        "🙂👩‍👩‍👧‍👦",
        "العربية مرحبا",
        "\u{0}",
        &words,
        &" ".repeat(100_000),
        "'; DROP TABLE memories; --",
        "%_",
        "who am I?",
    ];
    let file: String = queries
        .iter()
        .enumerate()
        .map(|(id, query)| json!({ "id": id, "query": query }).to_string() + "\n")
        .collect();
    let file = cli.write("q.jsonl", file);
    let output = cli.memory(&["search", "--queries", &file.to_string_lossy(), "--json"]);
    // An empty question is refused with its line; everything else is answered.
    let (answers, refused) = (text(&output.stdout).lines().count(), text(&output.stderr).lines().count());
    assert_eq!(answers + refused, queries.len(), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).lines().all(|line| line.contains("needs a query")),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(cli.export().len(), 3);
}
