//! Secrets of the config in the whole binary: wherever one comes from, it is seen by nobody who looks on, and stands
//! neither in the journal nor in a log.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::io::Read;
use std::process::Stdio;

use daemon::{DEADLINE, Home, eventually};
use llm_double::script::{calls, config, last_message, offers};
use llm_double::{Double, Say};
use serde_json::{Value, json};

/// One of each kind; the last ones stand in a section that is switched off.
const SECRETS: [&str; 5] = [
    "the-token-of-the-operator",
    "password-in-an-address",
    "secret-of-a-header-01",
    "password of the irc server",
    "sasl-password-0123",
];

fn home(double: &Double) -> Home {
    let [token, address, header, irc, sasl] = SECRETS;
    let more = format!(
        "{}[llm.provider.other]\napi_type = \"groq\"\nbase_url = \"http://me:{address}@127.0.0.1:9/v1\"\n\
         headers = {{ \"x-api-key\" = \"{header}\" }}\n\
         [messaging.irc]\nenabled = false\nserver = \"127.0.0.1\"\nnick = \"n\"\npassword = \"{irc}\"\n\
         sasl_username = \"n\"\nsasl_password = \"{sasl}\"\n",
        config(double, "")
    );
    let home = Home::new(&more);
    let text = home.text(&more) + &format!("auth_token = \"{token}\"\n");
    std::fs::write(home.config(), text).unwrap();
    home
}

fn onlookers(home: &Home) -> Value {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let url = format!("http://127.0.0.1:{}/api/status", home.api);
    let mut response =
        agent.get(&url).header("authorization", format!("Bearer {}", SECRETS[0])).call().unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["onlookers"].clone()
}

#[test]
fn no_secret_of_the_config_is_seen_logged_or_kept_in_a_journal() {
    let all = SECRETS.join(" and ");
    let said = all.clone();
    let double = Double::recording(move |request| {
        let last = last_message(request);
        if !offers(request, "spawn_worker") {
            return match last.contains("\"role\":\"tool\"") {
                false => calls(&[("file_read", json!({ "path": "notes.txt" }))]),
                true => Say::text("read"),
            };
        }
        match last.contains("<result") {
            false => calls(&[("spawn_worker", json!({ "task": "read the notes" }))]),
            // What it was told is no secret to it, and is one to those who look on.
            true => calls(&[("reply", json!({ "content": "done" })), ("skip", json!({ "reason": said }))]),
        }
    });
    let home = home(&double);
    let workspace = home.folder().join("agents/main/workspace");
    std::fs::create_dir_all(&workspace).unwrap();
    std::fs::write(workspace.join("notes.txt"), &all).unwrap();
    let daemon = home.start();
    let mut watch = home.command(&["watch"]).stdout(Stdio::piped()).spawn().unwrap();
    eventually("an onlooker", DEADLINE, || onlookers(&home) == 1);
    let mut client = daemon.client("c");
    client.send("1", "what stands in the notes?");
    client.hear("done");
    let (status, log) = daemon.stop();
    assert!(status.success());
    let mut seen = String::new();
    watch.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    watch.wait().unwrap();
    let connection = rusqlite::Connection::open(home.database()).unwrap();
    let tool: String = connection
        .query_row(
            r#"SELECT payload FROM run_journal WHERE payload LIKE '%"tool":"file_read"%'"#,
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(tool.matches("[hidden]").count(), SECRETS.len(), "{tool}");
    assert!(seen.contains("[hidden] and [hidden]"), "{seen}");
    let asked: Vec<String> = double.requests().iter().map(last_message).collect();
    let told = asked.iter().find(|message| message.contains("\"role\":\"tool\"")).unwrap();
    for secret in SECRETS {
        assert!(!tool.contains(secret), "in the journal: {secret}: {tool}");
        assert!(!told.contains(secret), "told to the model: {secret}: {told}");
        assert!(!seen.contains(secret), "seen: {secret}: {seen}");
        assert!(!log.contains(secret), "logged: {secret}: {log}");
    }
}
