//! The operator's files change while the whole binary runs: what is good takes effect for the next
//! turn, what is wrong leaves the old one in force and is told.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use daemon::{Client, DEADLINE, Daemon, Home, eventually, not_run};
use llm_double::{Answer, Body, Double, Request, Say, ToolCall, WireFormat};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

fn provider(double: &Double) -> String {
    let url = double.base_url("p", WireFormat::OpenAi);
    format!(
        "[llm.provider.double]\napi_type = \"openai_chat_completions\"\nbase_url = \"{url}\"\napi_key = \"k\"\n"
    )
}

fn routing(model: &str) -> String {
    format!("[defaults.routing]\nchannel = \"{model}\"\nbranch = \"{model}\"\nworker = \"{model}\"\n")
}

fn home(double: &Double) -> Home {
    Home::new(&format!("{}{}", provider(double), routing("double/m")))
}

fn reply(text: &str) -> Say {
    call("reply", json!({ "content": text }))
}

fn call(name: &str, arguments: Value) -> Say {
    let call = ToolCall { id: "call_0".to_owned(), name: name.to_owned(), arguments: arguments.to_string() };
    Say::new(Body::Answer(Answer { calls: vec![call], ..Answer::default() }))
}

/// The stable prefix of a request.
fn system(request: &Request) -> String {
    let messages = request.json["messages"].as_array().unwrap();
    messages.iter().find(|message| message["role"] == "system").unwrap()["content"].to_string()
}

/// A daemon under what it takes for systemd.
struct Running<'a> {
    daemon: Daemon<'a>,
    systemd: UnixDatagram,
}

impl<'a> Running<'a> {
    fn start(home: &'a Home) -> Self {
        Self::start_by(home, &[])
    }

    fn start_by(home: &'a Home, program: &[&str]) -> Self {
        let path = home.folder().join("notify");
        fs::remove_file(&path).ok(); // of the start before
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_read_timeout(Some(DEADLINE)).unwrap();
        let running = Self { daemon: home.start_by(program, &path), systemd };
        assert_eq!(running.heard_until_ready(), Vec::<String>::new());
        running
    }

    fn heard_until_ready(&self) -> Vec<String> {
        let (mut heard, mut bytes) = (Vec::new(), [0; 512]);
        loop {
            let length = self.systemd.recv(&mut bytes).expect("a word for systemd");
            let word = String::from_utf8_lossy(&bytes[..length]).trim().to_owned();
            if word == "READY=1" {
                return heard;
            }
            heard.push(word);
        }
    }

    /// Sends SIGHUP and waits until the files have been looked at.
    fn hang_up(&self) -> Value {
        kill(self.daemon.pid(), Signal::SIGHUP).unwrap();
        let heard = self.heard_until_ready();
        let begins = |word: &String| word.starts_with("RELOADING=1\nMONOTONIC_USEC=");
        assert!(heard.iter().any(begins), "{heard:?}");
        self.told()
    }

    fn told(&self) -> Value {
        self.daemon.status()["config"].clone()
    }

    fn reloads(&self) -> u64 {
        self.told()["reloads"].as_u64().unwrap()
    }

    fn client(&self, conversation: &str) -> Client {
        self.daemon.client(conversation)
    }

    fn stop(self) -> (ExitStatus, String) {
        self.daemon.stop()
    }
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

fn own(home: &Home, name: &str) -> PathBuf {
    home.folder().join("agents/main").join(name)
}

/// What has to be in the config besides `more`.
fn configure(home: &Home, double: &Double, more: &str) {
    fs::write(home.config(), home.text(&format!("{}{more}", provider(double)))).unwrap();
}

#[test]
fn a_turn_keeps_its_prompt_and_the_next_one_has_the_new_role() {
    // The data folder is reached through a link: its name in the prompt must not change by a reload.
    let temporary = tempfile::tempdir().unwrap();
    fs::create_dir(temporary.path().join("real")).unwrap();
    symlink("real", temporary.path().join("link")).unwrap();
    let (asked, asking) = crossbeam_channel::bounded::<()>(1);
    let (changed, changing) = crossbeam_channel::bounded::<()>(1);
    let double = Double::recording(move |request| {
        let last = request.json["messages"].as_array().unwrap().last().unwrap().to_string();
        if last.contains("first question") {
            asked.send(()).unwrap();
            changing.recv_timeout(DEADLINE).unwrap();
            // Refused, which the turn reads before it goes on.
            return call("cancel", json!({ "process_type": "worker", "process_id": "worker:99" }));
        }
        reply("yes")
    });
    let home =
        Home::at(&temporary.path().join("link"), &format!("{}{}", provider(&double), routing("double/m")));
    let daemon = Running::start(&home);
    let mut client = daemon.client("c");
    client.ask("0", "before");
    client.send("1", "first question");
    asking.recv_timeout(DEADLINE).unwrap();
    let old = fs::read_to_string(own(&home, "ROLE.md")).unwrap();
    fs::write(own(&home, "ROLE.md"), "Water the flowers.").unwrap();
    daemon.hang_up();
    changed.send(()).unwrap();
    client.answer("1");
    client.ask("2", "second question");
    // A change that no prompt shows changes no byte of one.
    configure(&home, &double, &format!("[defaults]\nmax_turns = 7\n{}", routing("double/m")));
    assert_eq!(words(&daemon.hang_up()["mistakes"]), Vec::<&str>::new());
    client.ask("3", "third question");
    drop(daemon);
    let prefixes: Vec<_> = double.requests().iter().map(system).collect();
    assert_eq!(prefixes.len(), 5, "{prefixes:?}");
    assert!(prefixes[0].contains(&quoted(&old)) && !prefixes[0].contains("flowers"));
    assert_eq!(prefixes[1], prefixes[0]);
    assert_eq!(prefixes[2], prefixes[0], "the same turn after the change");
    assert_eq!(prefixes[3], prefixes[0].replace(&quoted(&old), "Water the flowers."), "the next turn");
    assert_eq!(prefixes[4], prefixes[3]);
}

/// As it stands in a JSON text.
fn quoted(text: &str) -> String {
    let text = json!(text.trim()).to_string();
    text[1..text.len() - 1].to_owned()
}

#[test]
fn a_bad_file_leaves_the_old_one_in_force_and_says_so_until_it_is_mended() {
    let double = Double::answering(|request| reply(request.json["model"].as_str().unwrap()));
    let home = home(&double);
    let daemon = Running::start(&home);
    let mut client = daemon.client("c");
    assert_eq!(client.ask("1", "hello"), "m");
    fs::write(home.config(), "[defaults]\nmax_turn = 7\nkeep_days = 0\nbroken").unwrap();
    assert_eq!(words(&daemon.hang_up()["mistakes"]).len(), 1, "no TOML");
    configure(&home, &double, &format!("[defaults]\nmax_turn = 7\nkeep_days = 0\n{}", routing("double/n")));
    // A bad file does not keep a good one from taking effect.
    fs::write(own(&home, "SOUL.md"), "Brave.").unwrap();
    fs::remove_file(own(&home, "ROLE.md")).unwrap();
    fs::create_dir(own(&home, "prompts")).unwrap();
    fs::write(own(&home, "prompts/channel.md.j2"), "{{ nobody }}").unwrap();
    let state = daemon.hang_up();
    let mistakes = words(&state["mistakes"]);
    let expected = [
        "defaults.max_turn: unknown key",
        "defaults.keep_days: must be",
        "ROLE.md: ",
        "channel.md.j2: prompt template: undefined value",
    ];
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.contains(expected), "{mistakes:?}");
    }
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
    assert!(mistakes[0].contains("config.toml:6: ") && mistakes[0].contains("did you mean `max_turns`?"));
    assert_eq!(client.ask("2", "hello"), "m", "the old routing");
    // Mended without SIGHUP: by a file that takes the place of the bad one.
    let (new, before) = (home.folder().join("config.new"), daemon.reloads());
    fs::write(&new, home.text(&format!("{}{}", provider(&double), routing("double/n")))).unwrap();
    fs::write(own(&home, "prompts/channel.md.j2"), "Be {{ name }}. {{ soul }}").unwrap();
    fs::write(own(&home, "ROLE.md"), "Nothing.").unwrap();
    fs::rename(&new, home.config()).unwrap();
    eventually("the mended files are read", DEADLINE, || daemon.reloads() > before);
    assert_eq!(words(&daemon.told()["mistakes"]), Vec::<&str>::new());
    assert_eq!(client.ask("3", "hello"), "n");
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    for line in [
        "the old one stays in force: ",
        "(did you mean `max_turns`?)",
        "ROLE.md: No such file or directory",
        "in force from now on: agents.main.routing.branch, agents.main.routing.channel, agents.main.routing.worker",
        "all mistakes are mended",
    ] {
        assert!(log.contains(line), "{line:?} is missing in:\n{log}");
    }
}

#[test]
fn the_daemon_notices_by_itself_what_is_renamed_swapped_or_written() {
    let double = Double::answering(|request| reply(&system(request)));
    let home = home(&double);
    // As tools that manage configurations do: the file is a link, and so is the folder that it leads to.
    for release in ["1", "2"] {
        let folder = home.folder().join("releases").join(release);
        fs::create_dir_all(&folder).unwrap();
        let text = format!(
            "{}{}[[agents]]\nid = \"main\"\ndisplay_name = \"Number {release}\"\n",
            provider(&double),
            routing("double/m")
        );
        fs::write(folder.join("config.toml"), home.text(&text)).unwrap();
    }
    fs::create_dir_all(own(&home, "prompts")).unwrap();
    let current = home.folder().join("current");
    symlink("releases/1", &current).unwrap();
    fs::remove_file(home.config()).unwrap();
    symlink("current/config.toml", home.config()).unwrap();
    let daemon = Running::start(&home);
    let mut client = daemon.client("c");
    let mut number = 0;
    let mut prompt = |change: &dyn Fn()| {
        let before = daemon.reloads();
        change();
        if number > 0 {
            eventually("the change is noticed", DEADLINE, || daemon.reloads() > before);
        }
        number += 1;
        client.ask(&number.to_string(), "who are you?")
    };
    assert!(prompt(&|| {}).contains("Number 1"));
    let swapped = prompt(&|| {
        symlink("releases/2", home.folder().join("next")).unwrap();
        fs::rename(home.folder().join("next"), &current).unwrap();
    });
    assert!(swapped.contains("Number 2"), "{swapped}");
    let written = prompt(&|| fs::write(own(&home, "IDENTITY.md"), "A gardener.").unwrap());
    assert!(written.contains("A gardener."), "{written}");
    let text = "I am {{ name }}: {{ identity }}";
    let own_prompt = prompt(&|| fs::write(own(&home, "prompts/channel.md.j2"), text).unwrap());
    assert!(own_prompt.contains("\"I am Number 2: A gardener.\n\n# This"), "{own_prompt}");
    let built_in = prompt(&|| fs::remove_file(own(&home, "prompts/channel.md.j2")).unwrap());
    assert_eq!(built_in, written, "without it, the built-in prompt, to the byte");
}

#[test]
fn a_change_of_routing_and_of_bindings_is_for_the_next_turn_and_ports_wait() {
    let double = Double::answering(|request| {
        let name = if system(request).contains("Your name is Ops") { "ops" } else { "main" };
        reply(&format!("{name} by {}", request.json["model"].as_str().unwrap()))
    });
    let agents = "[[agents]]\nid = \"main\"\n[[agents]]\nid = \"ops\"\ndisplay_name = \"Ops\"\n";
    let home = Home::new(&format!("{}{agents}", provider(&double)));
    let daemon = Running::start(&home);
    let mut client = daemon.client("c");
    assert!(client.ask("1", "hello").len() > 10, "the offline responder");
    configure(&home, &double, &format!("{}{agents}", routing("double/m")));
    daemon.hang_up();
    assert_eq!(daemon.daemon.status()["models"], json!(["double/m", "double/m"]));
    assert_eq!(client.ask("2", "hello"), "main by m");
    // Another model for one agent, which from now on answers here, and a port that only a start opens.
    let more = format!(
        "{}[[agents]]\nid = \"main\"\n[[agents]]\nid = \"ops\"\ndisplay_name = \"Ops\"\n[agents.routing]\nchannel = \"double/n\"\n\
         [[bindings]]\nagent_id = \"ops\"\nchannel = \"webhook\"\n",
        routing("double/m")
    );
    let text = home.text(&format!("{}{more}", provider(&double)));
    let other_port = text.replace(&format!("port = {}", home.webhook), "port = 14999");
    assert_ne!(text, other_port);
    fs::write(home.config(), other_port).unwrap();
    let state = daemon.hang_up();
    assert_eq!(words(&state["waits_for_restart"]), ["messaging.webhook.port"]);
    assert_eq!(daemon.client("d").ask("3", "hello"), "ops by n");
    // An agent that is new waits, and so do bindings that name it.
    let new =
        format!("{more}[[agents]]\nid = \"new\"\n[[bindings]]\nagent_id = \"new\"\nchannel = \"portal\"\n");
    configure(&home, &double, &new);
    assert_eq!(words(&daemon.hang_up()["waits_for_restart"]), ["agents.new", "bindings"]);
    assert_eq!(daemon.client("e").ask("4", "hello"), "ops by n", "the bindings that were in force");
    let (_, log) = daemon.stop();
    assert!(log.contains("waits for a restart: messaging.webhook.port"), "{log}");
    assert!(log.contains("in force from now on: agents.ops.routing.channel, bindings"), "{log}");
    // The next start has it all.
    let daemon = Running::start(&home);
    assert_eq!(daemon.daemon.status()["agents"].as_array().unwrap().len(), 3);
    assert_eq!(words(&daemon.told()["waits_for_restart"]), Vec::<&str>::new());
}

#[test]
fn a_hang_up_without_a_change_does_nothing() {
    let double = Double::recording(|_| reply("yes"));
    let home = home(&double);
    let daemon = Running::start(&home);
    let mut client = daemon.client("c");
    client.ask("1", "hello");
    let before = daemon.told();
    assert_eq!(daemon.hang_up(), before);
    client.ask("2", "hello");
    // The same content by another way.
    let copy = home.folder().join("copy");
    fs::copy(home.config(), &copy).unwrap();
    fs::rename(&copy, home.config()).unwrap();
    assert_eq!(daemon.hang_up(), before);
    client.ask("3", "hello");
    let (status, log) = daemon.stop();
    assert!(status.success() && !log.contains("read again"), "{log}");
    let prefixes: Vec<_> = double.requests().iter().map(system).collect();
    assert!(prefixes.len() == 3 && prefixes.iter().all(|prefix| *prefix == prefixes[0]));
}

#[test]
fn limits_sandbox_ingestion_and_the_log_level_change_while_it_runs() {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = turns.clone();
    let double = Double::answering(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        call("cancel", json!({ "process_type": "worker", "process_id": "worker:99" }))
    });
    let home = home(&double);
    configure(&home, &double, &format!("[defaults.ingestion]\nenabled = false\n{}", routing("double/m")));
    let daemon = Running::start(&home);
    let mut client = daemon.client("c");
    client.ask("1", "go round in circles");
    assert_eq!(turns.swap(0, Ordering::SeqCst), 5, "max_turns");
    let folder = own(&home, "workspace/ingest");
    assert!(!folder.exists());
    let more =
        "log_level = \"warn\"\n[defaults]\nmax_turns = 2\n[defaults.ingestion]\npoll_interval_secs = 1\n";
    let text =
        home.text(&format!("{more}{}{}", provider(&double), "[defaults.routing]\nchannel = \"double/m\"\n"));
    fs::write(home.config(), text).unwrap();
    daemon.hang_up();
    client.ask("2", "go round in circles");
    assert_eq!(turns.load(Ordering::SeqCst), 2);
    fs::write(folder.join("note.txt"), "The boiler was serviced in March.").unwrap();
    eventually("the file is taken and gone", DEADLINE, || !folder.join("note.txt").exists());
    let (status, log) = daemon.stop();
    assert!(status.success() && log.contains(" WARN ") && !log.contains(" INFO "), "{log}");
}

/// Where the kernel allows no watch, SIGHUP is left, and the log says so.
#[test]
fn without_watches_a_hang_up_still_works() {
    let double = Double::answering(|request| reply(request.json["model"].as_str().unwrap()));
    let home = home(&double);
    let none = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let prepare = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !prepare(Command::new("unshare").args(["-U", "-r", "sh", "-c", none, "sh", "true"])) {
        return not_run("no user namespace can be made");
    }
    let daemon = Running::start_by(&home, &["unshare", "-U", "-r", "sh", "-c", none, "sh"]);
    let mut client = daemon.client("c");
    assert_eq!(client.ask("1", "hello"), "m");
    let reason = daemon.told()["not_watched"].as_str().unwrap().to_owned();
    assert!(reason.contains("SIGHUP works without it"), "{reason}");
    configure(&home, &double, &routing("double/n"));
    daemon.hang_up();
    assert_eq!(client.ask("2", "hello"), "n");
    let (status, log) = daemon.stop();
    assert!(status.success() && log.contains(&reason), "{log}");
}

#[test]
fn the_thread_that_waits_for_changes_does_not_wake_without_one() {
    let home = Home::new("");
    let daemon = Running::start(&home);
    let mut client = daemon.client("c");
    client.ask("1", "help");
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.daemon.pid())).unwrap();
    let is_it = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "reload\n");
    let thread = tasks.map(|task| task.unwrap().path()).find(is_it).expect("the thread");
    let woken = || {
        let status = fs::read_to_string(thread.join("status")).unwrap();
        status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
    };
    // It has come to its wait when a second goes by without a wake-up.
    let mut before = woken();
    eventually("it waits", DEADLINE, || {
        let earlier = std::mem::replace(&mut before, woken());
        client.poll(1);
        earlier == before && woken() == before
    });
    client.poll(3);
    assert_eq!(woken(), before);
    daemon.hang_up();
    assert_ne!(woken(), before, "a ring is seen");
}
