//! What holds in a conversation, in the whole binary: set for it, else by its binding, else by the agent.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use daemon::{Home, eventually};
use llm_double::script::{calls, config, last_message, offers};
use llm_double::{Double, Request, Say};
use serde_json::{Value, json};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
const BINDING: &str = "[[bindings]]\nagent_id = \"main\"\nchannel = \"webhook\"\nchannel_ids = [\"bound\"]\nmemory_mode = \"ambient\"\n";

/// What stands in `spacebot channel list --json` for this conversation.
fn listed(home: &Home, conversation: &str) -> Value {
    let output = home.command(&["channel", "list", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut all = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.find(|line| line["conversation"] == conversation)
        .unwrap_or_else(|| panic!("{conversation} in {lines}"))
}

fn set(home: &Home, arguments: &[&str]) -> (bool, String) {
    let output = home.command(&[&["channel", "set"], arguments].concat()).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn the_nearest_place_decides_what_a_branch_may_do_with_the_memory() {
    // Each branch tells which tools it has.
    let double = Double::answering(|request| {
        let last = last_message(request);
        if offers(request, "branch") {
            return match last.contains("<result") {
                false => calls(&[
                    ("branch", json!({ "description": "look" })),
                    ("reply", json!({ "content": "begun" })),
                ]),
                true => {
                    let has = |word: &'static str| if last.contains(word) { word } else { "" };
                    let words = format!("{} {}", has("saves"), has("recalls"));
                    calls(&[("reply", json!({ "content": format!("It {words}.") }))])
                }
            };
        }
        let can = |tool, word| if offers(request, tool) { word } else { "" };
        Say::text(format!(
            "it {} and {} and looks",
            can("memory_save", "saves"),
            can("memory_recall", "recalls")
        ))
    });
    let agent = "[defaults.channel]\nmemory_mode = \"off\"\n";
    let home = Home::new(&format!("{}{agent}{BINDING}", config(&double, "")));
    let daemon = home.start();
    let tells = |conversation: &str, id: &str| {
        let mut client = daemon.client(conversation);
        client.send(id, "look");
        eventually("the branch is told", PATIENCE, || {
            client.poll(1);
            client.answers.get(id).is_some_and(|answers| answers.len() > 1)
        });
        client.answers[id][1].split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(tells("free", "1"), "It .", "the agent says off");
    assert_eq!(tells("bound", "2"), "It recalls.", "the binding says ambient");
    assert_eq!(listed(&home, "webhook:bound")["memory_mode"], "ambient");
    let (done, said) = set(&home, &["webhook:bound", "--memory-mode", "full"]);
    assert!(done && said.contains("full*"), "{said}");
    assert_eq!(
        tells("bound", "3"),
        "It saves recalls.",
        "the conversation says full, beside a running daemon"
    );
    assert_eq!(listed(&home, "webhook:bound")["set"]["memory_mode"], "full");
    let (done, said) = set(&home, &["webhook:bound", "--memory-mode", "default"]);
    assert!(done && said.contains("ambient") && !said.contains('*'), "{said}");
    assert_eq!(tells("bound", "4"), "It recalls.", "and nothing any more");
    let (status, _) = daemon.stop();
    assert!(status.success());
}

#[test]
fn what_cannot_be_set_is_told_and_changes_nothing() {
    let double = Double::answering(|_| calls(&[("reply", json!({ "content": "hello" }))]));
    let home = Home::new(&config(&double, ""));
    assert!(!set(&home, &["webhook:c", "--memory-mode", "off"]).0, "there is no database yet");
    let daemon = home.start();
    daemon.client("c").ask("1", "hi");
    for (arguments, reason) in [
        (&["webhook:c", "--memory-mode", "half"][..], "full, ambient, off, default"),
        (&["webhook:nowhere", "--memory-mode", "off"], "no conversation"),
        (&["webhook:c"], "required"),
        (&["webhook:c", "--worker-context", "all"], "none, fork, default"),
        (&["webhook:c", "--branch-model", "m"], "must be provider/model"),
        (
            &["webhook:c", "--channel-model", "nobody/m", "--memory-mode", "off"],
            "the provider \"nobody\" has no key",
        ),
    ] {
        let (done, said) = set(&home, arguments);
        assert!(!done && said.contains(reason), "{said}");
    }
    assert_eq!(
        listed(&home, "webhook:c")["set"],
        json!({
            "response_mode": null, "delegation": null, "memory_mode": null, "worker_context": null, "models": {}
        })
    );
    let (status, _) = daemon.stop();
    assert!(status.success());
}

#[test]
fn a_channel_that_acts_itself_does_simple_work_in_its_turn() {
    let double = Double::answering(|request| {
        let tools = request.json["messages"].to_string().matches("\"role\":\"tool\"").count();
        if !offers(request, "shell") {
            assert_eq!(tools, 0);
            return calls(&[("reply", json!({ "content": "I would have to send a worker." }))]);
        }
        assert!(
            offers(request, "reply") && offers(request, "spawn_worker") && !offers(request, "set_status")
        );
        match tools {
            0 => calls(&[("shell", json!({ "command": "echo $((4000 + 711)) > eggs; cat eggs" }))]),
            1 => calls(&[("memory_save", json!({ "content": "there are eggs", "source": "user" }))]),
            _ => {
                let said = request.json["messages"].to_string();
                assert!(said.contains("4711"), "{said}");
                calls(&[("reply", json!({ "content": "There are 4711." }))])
            }
        }
    });
    let binding =
        BINDING.replace("bound", "hands").replace("memory_mode = \"ambient\"", "delegation = \"direct\"");
    let sandbox = "[defaults.sandbox]\nmode = \"disabled\"\n";
    let home = Home::new(&format!("{}{sandbox}{binding}", config(&double, "")));
    let daemon = home.start();
    assert_eq!(daemon.client("hands").ask("1", "how many eggs?"), "There are 4711.");
    assert_eq!(daemon.client("other").ask("2", "how many eggs?"), "I would have to send a worker.");
    let connection = rusqlite::Connection::open(home.database()).unwrap();
    let one = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(one("SELECT CAST(count(*) AS TEXT) FROM worker_runs"), "0");
    let source = one("SELECT source FROM memories");
    assert!(source.starts_with("tool:channel:"), "what a command said is not the agent's word: {source}");
    let (status, _) = daemon.stop();
    assert!(status.success());
}

#[test]
fn a_channel_that_was_killed_behind_a_command_knows_of_it_and_does_not_do_it_again() {
    let (killed, again) =
        (std::sync::Arc::new(std::sync::Barrier::new(2)), std::sync::atomic::AtomicUsize::new(0));
    let reached = killed.clone();
    let double = Double::answering(move |request| {
        let tools = request.json["messages"].to_string().matches("\"role\":\"tool\"").count();
        let last = last_message(request);
        if last.contains("cut off") {
            assert!(last.contains("- shell") && last.contains(": done"), "{last}");
            return calls(&[("reply", json!({ "content": "One egg was laid before." }))]);
        }
        match tools {
            0 => {
                assert_eq!(
                    again.fetch_add(1, std::sync::atomic::Ordering::SeqCst),
                    0,
                    "it begins anew without a word"
                );
                calls(&[("shell", json!({ "command": "echo egg >> eggs" }))])
            }
            _ => {
                // The command is done; the daemon is killed while the model thinks.
                reached.wait();
                reached.wait();
                Say::text("never heard")
            }
        }
    });
    let more = "[defaults.channel]\ndelegation = \"direct\"\n[defaults.sandbox]\nmode = \"disabled\"\n";
    let home = Home::new(&format!("{}{more}", config(&double, "")));
    let daemon = home.start();
    daemon.client("c").send("1", "lay an egg");
    killed.wait();
    // The model may hear the result before it is on disk.
    let connection = rusqlite::Connection::open(home.database()).unwrap();
    let ended = "SELECT count(*) FROM run_journal WHERE kind = 'tool'";
    eventually("the end of the command", PATIENCE, || {
        connection.query_row(ended, [], |row| row.get::<_, u32>(0)).unwrap() == 1
    });
    drop(connection);
    daemon.kill();
    killed.wait();
    let daemon = home.start();
    assert_eq!(daemon.client("c").answer("1"), "One egg was laid before.");
    let eggs = std::fs::read_to_string(home.folder().join("agents/main/workspace/eggs")).unwrap();
    assert_eq!(eggs, "egg\n");
    let (status, _) = daemon.stop();
    assert!(status.success());
}

const MODELS: &str = "[[bindings]]\nagent_id = \"main\"\nchannel = \"webhook\"\nchannel_ids = [\"bound\"]\n\
    models = { channel = \"double/bound\", worker = \"double/bound-worker\" }\n";

/// What the process that asks is, by its tools.
fn asks(request: &Request) -> &'static str {
    match () {
        () if offers(request, "reply") => "channel",
        () if offers(request, "set_status") => "worker",
        () if offers(request, "channel_recall") => "branch",
        () if offers(request, "memory_save") => "memories",
        () => "summary",
    }
}

/// Starts what it is told to, says which model it is, and relays.
fn plays(request: &Request) -> Say {
    let (last, model) = (last_message(request), request.json["model"].as_str().unwrap().to_owned());
    let reply = |words: String| calls(&[("reply", json!({ "content": words }))]);
    match asks(request) {
        "channel" if last.contains("<result") => {
            let task = last.split("task=\\\"").nth(1).unwrap().split('\\').next().unwrap();
            reply(format!("told of {task}"))
        }
        "channel" if last.contains(">think") => calls(&[("branch", json!({ "description": "think" }))]),
        "channel" if last.contains(">work") => calls(&[("spawn_worker", json!({ "task": "work" }))]),
        "channel" if last.contains(">more") => calls(&[("spawn_worker", json!({ "task": "more" }))]),
        "channel" if last.contains(">code") => {
            calls(&[("spawn_worker", json!({ "task": "code", "task_type": "coding" }))])
        }
        "channel" => reply(format!("this is {model}")),
        "worker" if !last.contains("noted") => {
            calls(&[("set_status", json!({ "status": "finished", "kind": "outcome" }))])
        }
        "memories" => calls(&[(
            "memory_persistence_complete",
            json!({ "outcome": "no_memories", "reason": "nothing" }),
        )]),
        _ => Say::text("that is it"),
    }
}

#[test]
fn each_process_of_a_conversation_asks_the_model_that_is_set_nearest() {
    let double = Double::recording(plays);
    let agent = "task_overrides = { coding = \"double/coder\" }\n";
    let home = Home::new(&format!("{}{agent}{MODELS}", config(&double, "history_messages = 10\n")));
    let daemon = home.start();
    assert_eq!(daemon.client("free").ask("f1", "hello"), "this is m", "the agent's");
    let mut client = daemon.client("bound");
    assert_eq!(client.ask("1", "the cellar key is blue"), "this is bound", "the binding's");
    let models =
        ["channel", "branch", "compactor"].map(|process| format!("--{process}-model=double/{process}"));
    let arguments: Vec<&str> =
        std::iter::once("webhook:bound").chain(models.iter().map(String::as_str)).collect();
    let (done, said) = set(&home, &arguments);
    assert!(done && said.contains("channel=double/channel*"), "{said}");
    assert!(said.contains("worker=double/bound-worker") && !said.contains("bound-worker*"), "{said}");
    assert_eq!(client.ask("2", "hello"), "this is channel", "its own");
    assert!(client.ask("3", "/status").contains("double/channel"));
    client.send("4", "think");
    client.hear("told of think");
    let worker = |model: &str| {
        let mut asked = double.requests().into_iter().filter(|request| asks(request) == "worker");
        asked.find(|request| request.json["model"] == model).expect(model).json.to_string()
    };
    client.send("5", "work");
    client.hear("told of work");
    assert!(!worker("bound-worker").contains("this is channel"), "its task alone");
    assert!(set(&home, &["webhook:bound", "--worker-context", "fork", "--worker-model", "double/own"]).0);
    for (id, words, model) in [("6", "more", "own"), ("7", "code", "coder")] {
        client.send(id, words);
        client.hear(&format!("told of {words}"));
        assert!(worker(model).contains("this is channel"), "it forks: {}", worker(model));
    }
    // What leaves the window meanwhile is summarised and read by the models of the conversation, too.
    eventually("a summary is made and memories are taken", PATIENCE, || {
        let requests = double.requests();
        ["summary", "memories"].iter().all(|kind| requests.iter().any(|request| asks(request) == *kind))
    });
    let mut by_process: Vec<(&str, String)> = double
        .requests()
        .iter()
        .map(|request| (asks(request), request.json["model"].as_str().unwrap().to_owned()))
        .collect();
    by_process.sort();
    by_process.dedup();
    let expected = [
        ("branch", "branch"),
        ("channel", "bound"),
        ("channel", "channel"),
        ("channel", "m"),
        ("memories", "branch"),
        ("summary", "compactor"),
        ("worker", "bound-worker"),
        ("worker", "coder"),
        ("worker", "own"),
    ];
    assert_eq!(by_process, expected.map(|(process, model)| (process, model.to_owned())));
    let (status, _) = daemon.stop();
    assert!(status.success());
}

#[test]
fn a_model_that_has_lost_its_provider_is_passed_over_and_told_once() {
    let double = Double::recording(plays);
    let plain = format!("{}{MODELS}", config(&double, ""));
    let spare = plain.split("[defaults]").next().unwrap().replace("provider.double", "provider.spare");
    let mut home = Home::new(&format!("{spare}{plain}"));
    let daemon = home.start();
    let mut client = daemon.client("bound");
    client.ask("1", "hello");
    assert!(set(&home, &["webhook:bound", "--channel-model", "spare/own"]).0);
    assert_eq!(client.ask("2", "hello"), "this is own");
    let (status, log) = daemon.stop();
    assert!(status.success() && !log.contains("is passed over"), "{log}");
    home.configure(&plain);
    let daemon = home.start();
    let mut client = daemon.client("bound");
    for id in ["3", "4"] {
        assert_eq!(client.ask(id, "hello"), "this is bound", "the binding's");
    }
    let known = listed(&home, "webhook:bound");
    assert_eq!(
        (&known["models"]["channel"], &known["set"]["models"]["channel"]),
        (&json!("double/bound"), &json!("spare/own"))
    );
    let (status, log) = daemon.stop();
    assert!(status.success());
    assert_eq!(
        log.matches("\"spare/own\", which is set for webhook:bound, has no provider").count(),
        1,
        "{log}"
    );
}
