//! `spacebot models` as its users run it: what is configured, and with `--check` what providers say to it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use spacebot::thread::{lock, spawn};

const KEY: &str = "key-that-must-not-be-seen";

/// Answers by the first part of the path, and keeps the heads of the requests. It lives as long as the test.
struct Providers {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Providers {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = heads.clone();
        let serve = move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &kept);
            }
        };
        spawn("providers", serve).unwrap();
        Self { address, heads }
    }
}

fn answer(mut stream: TcpStream, heads: &Mutex<Vec<String>>) {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let head: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
    let path = head[0].split(' ').nth(1).unwrap().to_owned();
    lock(heads).push(head.join("\n"));
    let (status, body) = match path.split('/').nth(1).unwrap() {
        "well" => (200, json!({"data": []})),
        "refused" => (401, json!({"error": {"message": format!("bad key {KEY}")}})),
        "invalid" => (
            400,
            json!({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "API key not valid",
            "details": [{"reason": "API_KEY_INVALID"}]}}),
        ),
        "github" => (200, json!({"token": "tid=1", "refresh_in": 1500})),
        "moved" => (302, json!({})),
        "broken" => (503, json!({"error": "later"})),
        _ => (404, json!({"message": "no list"})),
    };
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nlocation: http://127.0.0.1:9/elsewhere\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}

fn models(config: &str, arguments: &[&str]) -> (Output, String) {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("c.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_spacebot"));
    command.env_clear().env("HOME", home.path()).env("KEY", KEY).arg("models").args(arguments);
    // Nobody is there. A key must not go where the environment happens to point.
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(name, "http://127.0.0.1:1");
    }
    let output = command.arg("--config").arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!all.contains(KEY), "the key is shown: {all}");
    (output, said)
}

fn provider(id: &str, api_type: &str, base_url: &str) -> String {
    format!(
        "[llm.provider.{id}]\napi_type = \"{api_type}\"\nbase_url = \"{base_url}\"\napi_key = \"env:KEY\"\n\
         headers = {{ \"X-Tenant\" = \"env:KEY\" }}\n"
    )
}

#[test]
fn what_is_configured_is_listed_and_nobody_is_asked() {
    let providers = Providers::start();
    let config = format!(
        "[llm]\ngroq_key = \"env:KEY\"\n[llm.provider.local]\napi_type = \"llama.cpp\"\n{}\
         [defaults.routing]\nchannel = \"p/a\"\nworker = \"groq/b\"\nfallbacks = [\"local/c\", \"p/a\"]\n\
         [llm.models.\"local/c\"]\nimages = true\n",
        provider("p", "anthropic", &format!("http://user:{KEY}@{}/well", providers.address))
    );
    let (output, said) = models(&config, &[]);
    assert!(output.status.success(), "{said}");
    for line in [
        "  channel      p/a, then local/c, then offline/responder",
        "  branch       offline/responder",
        "  worker       groq/b, then local/c, then p/a, then offline/responder",
        "  groq/b                           text only    says most models of its provider",
        "  local/c                          images       says the config",
        "  p/a                              images, PDF  says most models of its provider",
    ] {
        assert!(said.contains(line), "{line}\nis not in\n{said}");
    }
    let (output, said) = models(&config, &["--json"]);
    assert!(output.status.success());
    let told: Value = serde_json::from_str(&said).unwrap();
    let rows: Vec<Value> = ["id", "api_type", "key", "used", "reach"]
        .iter()
        .map(|field| told["providers"].as_array().unwrap().iter().map(|row| row[field].clone()).collect())
        .collect();
    assert_eq!(
        json!(rows),
        json!([
            ["groq", "local", "p"],
            ["groq", "llama.cpp", "anthropic"],
            [true, false, true],
            [true, true, true],
            [null, null, null]
        ])
    );
    assert_eq!(told["shown"]["local/c"], json!({"images": true, "documents": false, "source": "the config"}));
    assert_eq!(lock(&providers.heads).len(), 0);
}

#[test]
fn a_check_tells_who_answers_who_refuses_the_key_and_who_is_away() {
    let providers = Providers::start();
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let at = |name: &str| format!("http://{}/{name}", providers.address);
    let cases = [
        ("a", "openai", at("well"), "reachable", "GET /well/models "),
        ("b", "anthropic", at("well"), "reachable", "GET /well/v1/models "),
        ("c", "azure", at("well"), "reachable", "GET /well/openai/models?api-version="),
        ("d", "openrouter", at("refused"), "key refused", "GET /refused/key "),
        ("e", "gemini", at("invalid"), "key refused", "GET /invalid/v1beta/models?key="),
        ("f", "groq", at("nothing"), "answers", "GET /nothing/models "),
        ("g", "openai_responses", at("moved/v1"), "answers", "GET /moved/v1/models "),
        ("h", "mistral", at("broken/v1"), "unreachable", "GET /broken/v1/models "),
        ("i", "ollama", format!("http://{closed}"), "unreachable", ""),
    ];
    let config: String = cases.iter().map(|(id, api, url, ..)| provider(id, api, url)).collect();
    let routing = "[defaults.routing]\nchannel = \"a/m\"\n";
    let (output, said) = models(&format!("{config}{routing}"), &["--check", "--json"]);
    assert!(output.status.success(), "only those that are used count: {said}");
    let told: Value = serde_json::from_str(&said).unwrap();
    let heads = lock(&providers.heads).clone();
    assert_eq!(heads.len(), 8, "one request each: {heads:#?}");
    for ((id, _, _, reach, asked), row) in cases.iter().zip(told["providers"].as_array().unwrap()) {
        assert_eq!((row["id"].as_str(), row["reach"].as_str()), (Some(*id), Some(*reach)), "{row}");
        let head = heads.iter().find(|head| head.starts_with(asked)).filter(|_| !asked.is_empty());
        assert_eq!(head.is_some(), !asked.is_empty(), "{id}: {asked} is not in {heads:#?}");
        if let Some(head) = head {
            assert!(head.contains(&format!("x-tenant: {KEY}")), "{id}: {head}");
            assert!(head.matches(KEY).count() == 2 || *id == "e", "{id}: {head}");
        }
    }
    let (output, said) = models(&format!("{config}[defaults.routing]\nchannel = \"d/m\"\n"), &["--check"]);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("key refused: HTTP 401: bad key [hidden]"), "{said}");
    // A gateway that has no key of its own quotes that of another.
    let open = format!("[llm.provider.j]\napi_type = \"llama.cpp\"\nbase_url = \"{}\"\n", at("refused/v1"));
    let (_, said) = models(&format!("{config}{open}{routing}"), &["--check"]);
    assert_eq!(said.matches("key refused: HTTP 401: bad key [hidden]").count(), 2, "{said}");
}

#[test]
fn a_check_of_copilot_asks_for_a_session_and_shows_the_token_to_nobody_else() {
    let providers = Providers::start();
    for (github, reach) in [("github", "reachable"), ("refused", "key refused")] {
        let config = format!(
            "{}github_url = \"http://{}/{github}\"\n",
            provider("p", "github-copilot", &format!("http://{}/well", providers.address))
                .replace("api_key = \"env:KEY\"", "api_key = \"ghu_0123456789\""),
            providers.address
        );
        let (_, said) = models(&config, &["--check", "--json"]);
        let told: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(told["providers"][0]["reach"], reach, "{said}");
        let heads = std::mem::take(&mut *lock(&providers.heads));
        assert_eq!(heads.len(), 1, "{heads:#?}");
        assert!(heads[0].starts_with(&format!("GET /{github}/copilot_internal/v2/token ")), "{heads:#?}");
        assert!(heads[0].contains("authorization: token ghu_0123456789"), "{heads:#?}");
        assert!(!heads[0].contains("x-tenant"), "that is for Copilot: {heads:#?}");
    }
}

#[test]
fn an_agent_that_is_not_there_is_said() {
    let (output, _) = models("", &["--agent", "nobody"]);
    assert!(!output.status.success());
    let (output, said) = models("", &["--check"]);
    assert!(output.status.success());
    assert!(said.contains("none: the offline responder answers"), "{said}");
}
