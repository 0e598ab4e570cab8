//! `spacebot replay`: recorded runs come to the same once more, whatever ended them and in whatever version
//! of the journal; what was changed, deleted or cut off is noticed. `support/replay.rs` replays the runs of
//! all other tests that start the daemon.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::path::{Path, PathBuf};

use daemon::{DEADLINE, Home, eventually};
use llm_double::script::{calls, config, last_message, offers};
use llm_double::{At, Double, Say};
use serde_json::{Value, json};
use spacebot::agent::{self, Replayed, Verdict};
use spacebot::clock::{SystemClock, Timestamp};
use spacebot::conversation::{Conversations, JOURNAL_VERSION};
use spacebot::db::rusqlite::types::Value as Cell;
use spacebot::db::rusqlite::{Connection, params_from_iter};
use spacebot::db::{Db, DbError};
use spacebot::tools::speech::Speech;

fn open(path: &Path) -> (Db, Conversations) {
    let db = Db::open_inline(path, None).unwrap();
    (db.clone(), Conversations::new(db, SystemClock::shared()))
}

fn all(conversations: &Conversations) -> Vec<Replayed> {
    let runs = conversations.runs_begun(Timestamp(i64::MIN), 1_000).unwrap();
    runs.iter()
        .map(|(run, _)| {
            agent::replay(conversations, &Speech::default(), *run)
                .unwrap_or_else(|error| panic!("run {run}: {error}"))
        })
        .collect()
}

/// A database with the rows of one fixture.
fn stored(fixture: &Path) -> (tempfile::TempDir, Db, Conversations) {
    let folder = tempfile::tempdir().unwrap();
    let (db, conversations) = open(&folder.path().join("spacebot.db"));
    let lines = std::fs::read_to_string(fixture).unwrap();
    db.write(move |connection| {
        for line in lines.lines() {
            insert(connection, &serde_json::from_str(line).unwrap())?;
        }
        Ok(())
    })
    .unwrap();
    (folder, db, conversations)
}

fn insert(connection: &Connection, line: &Value) -> Result<(), DbError> {
    let row = line["row"].as_object().unwrap();
    let names: Vec<&str> = row.keys().map(String::as_str).collect();
    let places = vec!["?"; names.len()].join(", ");
    let sql =
        format!("INSERT INTO {} ({}) VALUES ({places})", line["table"].as_str().unwrap(), names.join(", "));
    let cells = row.values().map(|value| match value {
        Value::Number(number) => Cell::Integer(number.as_i64().unwrap()),
        Value::String(text) => Cell::Text(text.clone()),
        _ => Cell::Null,
    });
    connection.execute(&sql, params_from_iter(cells))?;
    Ok(())
}

fn fixtures(version: u64) -> Vec<PathBuf> {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/replay/version-{version}"));
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs the command; its exit code and what it said.
fn replay(home: &Home, arguments: &[&str]) -> (bool, String) {
    let output = home.command(&[&["replay"], arguments].concat()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn journals_of_every_version_are_replayed() {
    for version in 0..=JOURNAL_VERSION {
        let (mut kinds, mut steps): (Vec<String>, Vec<&str>) = Default::default();
        for fixture in fixtures(version) {
            let (_folder, _db, conversations) = stored(&fixture);
            for replayed in all(&conversations) {
                let good = match version {
                    0 => replayed.verdict == Verdict::NoHash,
                    _ => matches!(replayed.verdict, Verdict::Same { .. }),
                };
                assert!(good && replayed.version == version, "{}: {replayed:#?}", fixture.display());
                assert_eq!(replayed.replayed, replayed.records.len(), "every step of it");
                kinds.push(replayed.kind);
                steps.extend(replayed.records.iter().map(|record| record.step.as_str()));
            }
        }
        kinds.sort();
        kinds.dedup();
        let mut expected =
            vec!["branch", "channel", "compactor", "extraction", "ingestion", "memory_persistence", "worker"];
        if version > 0 {
            expected.insert(3, "cortex");
        }
        assert_eq!(kinds, expected, "version {version}");
        assert!(["trim", "wait", "resume"].iter().all(|step| steps.contains(step)), "version {version}");
    }
}

#[test]
fn a_journal_of_a_later_version_is_left_alone() {
    let (_folder, db, conversations) = stored(&fixtures(JOURNAL_VERSION)[0]);
    let sql = "UPDATE run_journal SET payload = json_set(payload, '$.version', ?1) WHERE kind = 'start'";
    db.write(move |connection| Ok(connection.execute(sql, [JOURNAL_VERSION + 1])?)).unwrap();
    let error = agent::replay(&conversations, &Speech::default(), 1).unwrap_err().to_string();
    assert!(error.contains("is of version"), "{error}");
}

/// Every byte of every recorded result counts, and so does every other step.
#[test]
fn a_changed_byte_is_noticed_wherever_it_is() {
    let mut changed = 0;
    for fixture in fixtures(JOURNAL_VERSION) {
        let (_folder, db, conversations) = stored(&fixture);
        for replayed in all(&conversations) {
            for record in replayed.records.iter().filter(|record| record.step.as_str() == "tool") {
                let result = record.payload["result"].as_str().unwrap();
                let mut payload = record.payload.clone();
                payload["result"] = json!(format!("{}#", &result[..result.len() - 1]));
                let id = i64::try_from(record.run).unwrap() * 65_536 + i64::from(record.number);
                let put = |payload: String| {
                    let sql = "UPDATE run_journal SET payload = ?1 WHERE id = ?2";
                    db.write(move |connection| Ok(connection.execute(sql, (payload, id))?)).unwrap();
                };
                put(payload.to_string());
                let verdict = agent::replay(&conversations, &Speech::default(), record.run).unwrap().verdict;
                let Verdict::Differs { step, .. } = verdict else { panic!("{verdict:?}: {record:?}") };
                assert!(step > record.number, "step {step} is the first that depends on {record:?}");
                put(record.payload.to_string());
                changed += 1;
            }
        }
    }
    assert!(changed > 20, "{changed}");
}

#[test]
fn the_command_says_whether_a_run_comes_to_the_same_and_changes_nothing() {
    let double = Double::recording(|request| match last_message(request) {
        last if last.contains("what is in the cellar") => {
            calls(&[("react", json!({ "emoji": "eyes" })), ("no_such_tool", json!({}))])
        }
        _ => calls(&[("reply", json!({ "content": "wine" }))]),
    });
    let home = Home::new(&config(&double, ""));
    let daemon = home.start();
    daemon.client("c").ask("1", "what is in the cellar?");
    let (good, said) = replay(&home, &[]);
    assert!(good && said.contains("channel 1, journal of version 1"), "beside the daemon: {said}");
    for step in
        ["0 start", "1 model  double/m", "2 tool   react", "no_such_tool", "5 tool   reply: sent", "same: "]
    {
        assert!(said.contains(step), "{step:?} is not in\n{said}");
    }
    assert!(daemon.stop().0.success());
    let asked = double.requests().len();
    let dump = |conversations: &Conversations| format!("{:?}", conversations.records(1).unwrap());
    let (db, conversations) = open(&home.database());
    let before = dump(&conversations);
    assert_eq!(replay(&home, &["channel:1"]), (true, said));
    let (good, said) = replay(&home, &["--all"]);
    assert!(good && said.starts_with("1: channel, same: "), "{said}");
    assert_eq!((dump(&conversations), double.requests().len()), (before, asked));

    let change = |sql: &'static str| db.write(move |connection| Ok(connection.execute(sql, [])?)).unwrap();
    change("CREATE TABLE kept AS SELECT * FROM run_journal");
    let broken = [
        (
            "UPDATE run_journal SET payload = replace(payload, '\"reacted', '\"redacted') WHERE kind = 'tool'",
            "differs at step",
        ),
        ("DELETE FROM run_journal WHERE kind = 'end'", "it runs still, or was cut off there"),
        ("DELETE FROM run_journal WHERE kind IN ('start', 'model')", "has no step 0: it was deleted after"),
        ("UPDATE run_journal SET payload = '{\"too_long\": 1048577}' WHERE kind = 'model'", "too long"),
        ("DELETE FROM run_journal", "there is no run 1"),
    ];
    for (sql, expected) in broken {
        assert!(change(sql) > 0, "{sql}");
        let (good, said) = replay(&home, &["1"]);
        assert!(!good && said.contains(expected), "{expected:?}: {said}");
        if sql.contains("'end'") {
            // Among all, what a kill leaves behind is told and is no difference.
            let (good, said) = replay(&home, &["--all"]);
            assert!(good && said.contains(expected), "{said}");
        }
        change("DELETE FROM run_journal");
        change("INSERT INTO run_journal SELECT * FROM kept");
    }
    assert!(!replay(&home, &["kitchen"]).0);
}

/// What a run saw of its conversation is read again by its ids.
#[test]
fn a_history_that_is_no_longer_what_it_was_is_noticed() {
    let double = Double::answering(|_| calls(&[("reply", json!({ "content": "yes" }))]));
    let home = Home::new(&config(&double, ""));
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.ask("1", "is it warm?");
    client.ask("2", "is it dry?");
    assert!(daemon.stop().0.success());
    let (db, conversations) = open(&home.database());
    let change = |sql: &'static str| db.write(move |connection| Ok(connection.execute(sql, [])?)).unwrap();
    change("UPDATE conversation_messages SET content = 'is it cold?' WHERE content = 'is it warm?'");
    let verdict = agent::replay(&conversations, &Speech::default(), 2).unwrap().verdict;
    assert!(matches!(&verdict, Verdict::Differs { step: 0, .. }), "{verdict:?}");
    change("UPDATE conversation_messages SET content = 'is it warm?' WHERE content = 'is it cold?'");
}

/// A stop in the middle of a call, a model that fails, a stop while waiting: each is replayed by the
/// journal, and the end of the test replays all of them.
#[test]
fn runs_that_were_stopped_or_failed_are_replayed_as_such() {
    let double = Double::answering(|request| {
        let last = last_message(request);
        if !offers(request, "spawn_worker") {
            return match () {
                () if last.contains("hang there") => Say::text("never").hang(At::Start),
                () if last.contains("fail there") => {
                    Say::error(400, "context_length_exceeded", "maximum context length is 8 tokens")
                }
                () if last.contains("noted") => Say::text("I wait"),
                () => calls(&[("set_status", json!({ "status": "ready", "kind": "outcome" }))]),
            };
        }
        // The status block stands at the very end.
        let worker = || {
            let rest = last.rsplit("worker:").next().unwrap();
            let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
            format!("worker:{number}")
        };
        let asked = ["hang there", "fail there", "wait there"]
            .into_iter()
            .find(|task| last.contains(&format!(">{task}</message>")));
        match () {
            () if last.contains("<result") => calls(&[("reply", json!({ "content": "told" }))]),
            () if last.contains(">stop it</message>") => calls(&[(
                "cancel",
                json!({ "process_type": "worker", "process_id": worker(), "reason": "enough" }),
            )]),
            () if asked.is_some() => {
                let task = asked.unwrap();
                calls(&[("spawn_worker", json!({ "task": task, "interactive": task == "wait there" }))])
            }
            () => calls(&[("skip", json!({}))]),
        }
    });
    let home = Home::new(&config(&double, ""));
    let daemon = home.start();
    let (db, _) = open(&home.database());
    let steps = |kind: &'static str| {
        let sql = "SELECT count(*) FROM run_journal WHERE kind = ?1";
        db.read(|connection| Ok(connection.query_row(sql, [kind], |row| row.get::<_, i64>(0))?)).unwrap()
    };
    // Each in a conversation of its own: no result comes together with the next message.
    let mut client = daemon.client("failing");
    client.send("1", "fail there");
    assert_eq!(client.answer("1"), "told");
    assert_eq!(steps("failed"), 1);
    let client = daemon.client("hanging");
    client.send("2", "hang there");
    double.wait_until_hanging(1, DEADLINE);
    client.send("3", "stop it");
    eventually("it is stopped", DEADLINE, || steps("stop") == 1);
    let mut client = daemon.client("waiting");
    client.send("4", "wait there");
    assert_eq!(client.answer("4"), "told");
    assert!(daemon.stop().0.success());
    let daemon = home.start();
    daemon.client("waiting").send("5", "stop it");
    let runs = || daemon.status()["processes"].as_array().is_some_and(|processes| !processes.is_empty());
    eventually("it is stopped", DEADLINE, || steps("stop") == 2 && !runs());
    assert_eq!(steps("resume"), 1);
    assert!(daemon.stop().0.success());
    let (_, conversations) = open(&home.database());
    let workers: Vec<_> =
        all(&conversations).into_iter().filter(|replayed| replayed.kind == "worker").collect();
    assert_eq!(workers.len(), 3);
    assert!(workers.iter().all(|worker| matches!(worker.verdict, Verdict::Same { .. })), "{workers:#?}");
}

/// Neither comes to an end that could be the same, and the journal says why.
#[test]
fn a_turn_that_failed_or_was_stopped_is_replayed_as_such() {
    let double = Double::answering(|request| match last_message(request).contains(">too much</message>") {
        true => Say::error(400, "context_length_exceeded", "maximum context length is 8 tokens"),
        false => Say::text("never").hang(At::Start),
    });
    let home = Home::new(&config(&double, ""));
    let daemon = home.start();
    daemon.client("failing").ask("1", "too much");
    daemon.client("hanging").send("2", "think");
    double.wait_until_hanging(1, DEADLINE);
    assert!(daemon.stop().0.success());
    let (_, conversations) = open(&home.database());
    let verdicts: Vec<Verdict> = all(&conversations).into_iter().map(|replayed| replayed.verdict).collect();
    let [Verdict::Failed { error }, Verdict::Stopped { reason }] = &verdicts[..] else {
        panic!("{verdicts:#?}")
    };
    assert!(error.to_string().contains("too_long") && reason == "shutdown", "{verdicts:#?}");
    let (good, said) = replay(&home, &["--all"]);
    assert!(good && said.contains("its model failed") && said.contains("told to stop: shutdown"), "{said}");
}
