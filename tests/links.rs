//! Agents that give tasks to each other, with the whole binary and a model double: what comes back, what is
//! refused, and what a kill between two databases leaves behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::path::PathBuf;

use crossbeam_channel::bounded;
use daemon::{Client, DEADLINE, HeldDatabase, Home, eventually};
use llm_double::script::{calls, config, last_message, messages, offers};
use llm_double::{Double, Request, Say};
use serde_json::{Value, json};
use spacebot::db::rusqlite::{Connection, OpenFlags};

/// `main` answers everywhere but in the conversation `d`, which is den's.
fn home(double: &Double, more: &str) -> Home {
    Home::new(&format!(
        "{}\n[[agents]]\nid = \"main\"\ndefault = true\ndisplay_name = \"Main\"\n[[agents]]\nid = \"den\"\ndisplay_name = \"Den\"\n\
         [[agents]]\nid = \"hut\"\n[[bindings]]\nagent_id = \"den\"\nchannel = \"webhook\"\nchannel_ids = [\"d\"]\n{more}",
        // A worker that a kill finds at work is tried again at once.
        config(double, "task_retry_secs = 0")
    ))
}

const ONE_WAY: &str =
    "[[links]]\nfrom = \"main\"\nto = \"den\"\ndirection = \"one_way\"\nkind = \"hierarchical\"\n";
const TWO_WAY: &str = "[[links]]\nfrom = \"main\"\nto = \"den\"\n";

fn reply(text: &str) -> Say {
    calls(&[("reply", json!({ "content": text }))])
}

fn send(target: &str, message: &str) -> (&'static str, Value) {
    ("send_agent_message", json!({ "target": target, "message": message }))
}

fn is_channel(request: &Request) -> bool {
    offers(request, "spawn_worker")
}

fn system(request: &Request) -> String {
    match &messages(request)[0]["content"] {
        Value::String(text) => text.clone(),
        parts => parts.as_array().unwrap().iter().filter_map(|part| part["text"].as_str()).collect(),
    }
}

/// What a worker of den says: its outcome, then its result.
fn counts_sheep(request: &Request) -> Say {
    if last_message(request).contains("Task #") {
        calls(&[("set_status", json!({ "status": "counted", "kind": "outcome" }))])
    } else {
        Say::text("there are 12 sheep")
    }
}

/// Main asks den, and tells what came of it.
fn asks_den(request: &Request) -> Say {
    let last = last_message(request);
    match () {
        () if !is_channel(request) => counts_sheep(request),
        () if last.contains("12 sheep") => reply("Den counts 12 sheep."),
        () => calls(&[send("den", "count the sheep"), ("reply", json!({ "content": "I asked Den." }))]),
    }
}

fn database(home: &Home, agent: &str) -> PathBuf {
    home.folder().join(format!("agents/{agent}/data/spacebot.db"))
}

/// One value as text; empty where there is no row.
fn value(home: &Home, agent: &str, sql: &str) -> String {
    let connection =
        Connection::open_with_flags(database(home, agent), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap_or_default()
}

fn state(home: &Home) -> String {
    value(home, "main", "SELECT group_concat(state) FROM link_requests")
}

fn board(home: &Home) -> String {
    value(home, "den", "SELECT group_concat(status) FROM tasks")
}

fn returned(home: &Home) -> String {
    value(home, "den", "SELECT group_concat(returned) FROM tasks")
}

fn times_told(client: &mut Client, text: &str) -> usize {
    client.poll(2);
    client.said.iter().filter(|said| said.contains(text)).count()
}

#[test]
fn what_one_agent_asks_of_another_is_done_there_and_told_once() {
    let double = Double::recording(asks_den);
    let home = home(&double, ONE_WAY);
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "how many sheep are there?");
    client.hear("I asked Den.");
    client.hear("Den counts 12 sheep.");
    assert_eq!(times_told(&mut client, "12 sheep"), 1, "{:?}", client.said);
    assert!(client.answers["1"].iter().any(|said| said.contains("12 sheep")), "it answers who asked");
    let output = home.command(&["task", "--json", "show", "1", "--agent", "den"]).output().unwrap();
    let task = serde_json::from_slice::<Value>(&output.stdout).unwrap()["task"].clone();
    assert_eq!((&task["status"], &task["created_by"]), (&json!("done"), &json!("agent:main")), "{task}");
    let delegated = json!({ "agent": "main", "conversation": "webhook:c", "messages": ["c/1"] });
    assert_eq!(task["metadata"]["delegated_by"], delegated);
    let channel = double.requests().into_iter().find(is_channel).unwrap();
    let prompt = system(&channel);
    assert!(prompt.contains("Den (`den`), works for you: you may give tasks to it"), "{prompt}");
    eventually("the task is marked", DEADLINE, || returned(&home) == "1");
    // Nothing is left for a further start.
    drop(daemon);
    let before = double.requests().len();
    let daemon = home.start();
    daemon.client("c").ask("2", "/status");
    let told = "SELECT CAST(count(*) AS TEXT) FROM outbox WHERE content LIKE '%12 sheep%'";
    assert_eq!(value(&home, "main", told), "1");
    assert_eq!(double.requests().len(), before);
}

#[test]
fn an_answer_is_explained_with_what_the_other_agent_did_for_it() {
    let double = Double::answering(asks_den);
    let home = home(&double, ONE_WAY);
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "how many sheep are there?");
    client.hear("Den counts 12 sheep.");
    drop(daemon);
    let why = |more: &[&str]| {
        let output = home.command(&[&["why", "1"], more].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let said = why(&[]);
    let order = [
        "how many sheep",
        "\nchannel ",
        "\nchannel ",
        "\ndelegation 1 to den: count the sheep",
        "\n  task #1 of den: done",
        "\n    worker ",
        "\n      2 model calls, ",
        "\n      asked ",
        "\n      set_status",
        "\n      ended: success",
        "\n  came back after ",
        "there are 12 sheep",
        "\nin all: 4 model calls",
        "Den counts 12 sheep.",
    ];
    let mut rest = said.as_str();
    for part in order {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is not where it should be in\n{said}"));
        rest = &rest[at + 1..];
    }
    let json: Value = serde_json::from_str(&why(&["--json"])).unwrap();
    let delegation = &json["delegations"][0];
    assert_eq!((&delegation["agent"], &delegation["task"]["number"]), (&json!("den"), &json!(1)), "{json}");
    assert_eq!(delegation["sum"]["model_calls"], 2);
    // Without the other agent's database, what is here is told all the same.
    std::fs::remove_dir_all(home.folder().join("agents/den")).unwrap();
    let said = why(&[]);
    assert!(said.contains("the database of den cannot be looked at: it is not there"), "{said}");
    assert!(said.contains("there are 12 sheep") && said.contains("in all: 2 model calls"), "{said}");
}

#[test]
fn what_agents_have_said_to_each_other_is_listed_for_both() {
    let double = Double::answering(asks_den);
    let home = home(&double, ONE_WAY);
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "how many sheep are there?");
    client.hear("Den counts 12 sheep.");
    let links = |arguments: &[&str]| {
        let output = home.command(&[&["links"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for (agent, about, state) in [("main", "request 1", "answered"), ("den", "task 1", "done")] {
        let said = links(&["--agent", agent]);
        let [question, answer] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
        let asks = format!("main -> den  asks ({about}, {state}): count the sheep");
        let answers = format!("den -> main  answers ({about}, {state}): there are 12 sheep");
        assert!(question.ends_with(&asks) && answer.ends_with(&answers), "{said}");
        let json =
            links(&["--agent", agent, "--json", "--with", if agent == "main" { "den" } else { "main" }]);
        let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[1]["text"]), (2, &json!("there are 12 sheep")), "{json}");
        assert!(lines[0]["at"].as_str() <= lines[1]["at"].as_str(), "{json}");
        assert_eq!(links(&["--agent", agent, "--json", "--with", "hut"]), "");
    }
    assert_eq!(links(&["--agent", "hut"]), "nothing has been said\n");
    drop(daemon);
}

#[test]
fn a_link_refuses_the_way_that_it_does_not_go() {
    let double = Double::answering(|request| {
        let last = last_message(request);
        match () {
            () if !is_channel(request) => counts_sheep(request),
            () if last.contains("12 sheep") => reply("Hut counts 12 sheep."),
            () if last.contains("goes one way") => calls(&[send("nobody", "hello")]),
            () if last.contains("you may give tasks to: hut") => calls(&[send("hut", " ")]),
            () if last.contains("1 to 8192 fit") => {
                calls(&[send("HUT", "count the sheep"), ("reply", json!({ "content": "I asked Hut." }))])
            }
            () => {
                assert!(system(request).contains("Main (`main`), your superior: it may give tasks to you"));
                calls(&[send("main", "count the sheep")])
            }
        }
    });
    let home = home(&double, &format!("{ONE_WAY}[[links]]\nfrom = \"den\"\nto = \"hut\"\n"));
    let daemon = home.start();
    let mut client = daemon.client("d");
    client.send("1", "ask main");
    client.hear("Hut counts 12 sheep.");
    assert_eq!(value(&home, "main", "SELECT CAST(count(*) AS TEXT) FROM tasks"), "0");
    assert_eq!(value(&home, "den", "SELECT group_concat(target) FROM link_requests"), "hut");
}

#[test]
fn who_may_ask_nobody_has_no_tool_for_it_and_who_has_no_link_has_the_plain_prompt() {
    let double = Double::recording(|_| reply("hello"));
    let linked = home(&double, ONE_WAY);
    let plain = home(&double, "");
    let prompts = [&linked, &plain].map(|home| {
        let daemon = home.start();
        for conversation in ["c", "d"] {
            daemon.client(conversation).ask("1", "hello");
        }
        double
            .requests()
            .into_iter()
            .map(|request| (system(&request), offers(&request, "send_agent_message")))
            .collect::<Vec<_>>()
    });
    let [main, den, plain_main, plain_den] = &prompts[1][..] else { panic!("{}", prompts[1].len()) };
    assert!(main.1 && !den.1 && !plain_main.1 && !plain_den.1, "only who may ask is offered the tool");
    assert!(main.0.contains("send_agent_message") && !den.0.contains("send_agent_message"));
    let without = |prompt: &str| {
        let (start, rest) = prompt.split_once("\n\n# Linked agents").expect("the linked agents are named");
        let (_, end) = rest.split_once("\n\n# This conversation").expect("and then the conversation");
        format!("{start}\n\n# This conversation{end}")
    };
    let of = |home: &Home, prompt: &str| prompt.replace(&*home.folder().to_string_lossy(), "HOME");
    assert_eq!(of(&linked, &without(&main.0)), of(&plain, &plain_main.0));
    assert_eq!(of(&linked, &without(&den.0)), of(&plain, &plain_den.0));
}

#[test]
fn two_agents_that_ask_on_and_on_are_stopped() {
    // Main asks again for each answer; only a refusal lets it rest.
    let double = Double::answering(|request| {
        let last = last_message(request);
        match () {
            () if !is_channel(request) => counts_sheep(request),
            () if last.contains("have followed from one another") => reply("I stop: too deep."),
            () if last.contains("within the last hour") => reply("I stop: too many."),
            () if last.contains("delegated_to") => Say::text("Asked."),
            () => calls(&[send("den", "count the sheep again")]),
        }
    });
    let home = home(&double, &format!("{TWO_WAY}max_messages_per_hour = 5\n"));
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "ask for ever");
    client.hear("I stop: too deep.");
    assert_eq!(state(&home), "answered,answered,answered");
    // What a person says begins anew, until the hour's messages are used up, in any conversation.
    let mut other = daemon.client("e");
    other.send("2", "ask for ever");
    other.hear("I stop: too many.");
    assert_eq!(state(&home), "answered,answered,answered,answered,answered");
    assert_eq!(board(&home), "done,done,done,done,done");
}

/// Kills the daemon where `until` has brought it, between two commits, and starts it again. What `until`
/// returns is held until after the kill; what it is given lets a worker go on.
fn killed(until: fn(&Home, &mut Client, &dyn Fn()) -> Vec<HeldDatabase>, stands: fn(&Home) -> bool) {
    let (open, gate) = bounded::<()>(16);
    let double = Double::answering(move |request| {
        if last_message(request).contains("Task #") {
            gate.recv().unwrap();
        }
        asks_den(request)
    });
    let home = home(&double, TWO_WAY);
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "how many sheep are there?");
    let held = until(&home, &mut client, &|| open.send(()).unwrap());
    daemon.kill();
    held.into_iter().for_each(HeldDatabase::release);
    assert!(stands(&home), "killed elsewhere: {} {}", state(&home), board(&home));
    for _ in 0..8 {
        open.send(()).unwrap();
    }
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.hear("Den counts 12 sheep.");
    assert_eq!(times_told(&mut client, "12 sheep"), 1, "{:?}", client.said);
    eventually("all is marked", DEADLINE, || returned(&home) == "1" && state(&home) == "answered");
    assert_eq!(board(&home), "done", "it is one task");
}

#[test]
fn a_request_that_is_on_no_board_yet_gets_there_after_a_kill() {
    killed(
        |home, client, _| {
            let den = HeldDatabase::hold(&database(home, "den"));
            client.hear("I asked Den.");
            vec![den]
        },
        |home| state(home) == "pending" && board(home).is_empty(),
    );
}

#[test]
fn a_request_whose_delivery_is_not_marked_becomes_no_second_task() {
    killed(
        |home, client, _| {
            let den = HeldDatabase::hold(&database(home, "den"));
            client.hear("I asked Den.");
            let main = HeldDatabase::hold(&database(home, "main"));
            den.release();
            eventually("the task is there", DEADLINE, || !board(home).is_empty());
            vec![main]
        },
        |home| state(home) == "pending" && !board(home).is_empty(),
    );
}

#[test]
fn a_result_that_has_not_come_back_does_so_after_a_kill() {
    killed(
        |home, client, go_on| {
            client.hear("I asked Den.");
            eventually("it is delivered", DEADLINE, || state(home) == "delivered");
            let main = HeldDatabase::hold(&database(home, "main"));
            go_on();
            eventually("the task is done", DEADLINE, || board(home) == "done");
            vec![main]
        },
        |home| state(home) == "delivered" && returned(home) == "0",
    );
}

#[test]
fn a_result_whose_return_is_not_marked_is_not_told_twice() {
    killed(
        |home, client, go_on| {
            client.hear("I asked Den.");
            eventually("it is delivered", DEADLINE, || state(home) == "delivered");
            let main = HeldDatabase::hold(&database(home, "main"));
            go_on();
            eventually("the task is done", DEADLINE, || board(home) == "done");
            let den = HeldDatabase::hold(&database(home, "den"));
            main.release();
            eventually("the result is there", DEADLINE, || state(home) == "answered");
            vec![den]
        },
        |home| state(home) == "answered" && returned(home) == "0",
    );
}

#[test]
fn people_of_the_config_are_in_the_prompt_and_have_their_names() {
    let double = Double::recording(|_| reply("hello"));
    let humans = format!(
        "[[humans]]\nid = \"una\"\nname = \"Una Maria\"\nrole = \"owner\"\ndescription = \"Has {}\"\nplatform_ids = [\"irc:una\", \"webhook:una\"]\n",
        "sheep ".repeat(1000)
    );
    let home = home(&double, &humans);
    std::fs::create_dir(home.folder().join("humans")).unwrap();
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.ask("1", "hello");
    let request = &double.requests()[0];
    assert!(last_message(request).contains("from=\\\"Una Maria\\\""), "{}", last_message(request));
    let prompt = system(request);
    let about = prompt
        .split("# People you know\n\n## Una Maria\n\nRole: owner\n\n")
        .nth(1)
        .expect("she is described");
    let about = about.split("\n\n# This conversation").next().unwrap();
    assert!(
        about.starts_with("Has sheep") && about.chars().count() <= 4000,
        "{} characters",
        about.chars().count()
    );
    let words = client.ask("w", "/whoami");
    assert!(words.ends_with("I know you as Una Maria, owner."), "{words}");
    // A file about her, noticed while it runs; with it alone she is described by it.
    let short = "[[humans]]\nid = \"una\"\nplatform_ids = [\"webhook:una\"]\n";
    std::fs::write(home.folder().join("humans/una.md"), "Keeps bees.").unwrap();
    std::fs::write(home.config(), std::fs::read_to_string(home.config()).unwrap().replace(&humans, short))
        .unwrap();
    nix::sys::signal::kill(daemon.pid(), nix::sys::signal::Signal::SIGHUP).unwrap();
    let mut asked = 1;
    eventually("both are read again", DEADLINE, || {
        asked += 1;
        client.ask(&asked.to_string(), "hello");
        let requests = double.requests();
        let last = requests.last().unwrap();
        system(last).contains("## una\n\nKeeps bees.\n\n# This conversation")
            && last_message(last).contains("from=\\\"una\\\"")
    });
}
