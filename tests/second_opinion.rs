//! The wire formats against a far side that we have not written: aimock (`tests/aimock.sh`), which speaks those of OpenAI,
//! Anthropic and Gemini, streamed and whole. It differs from the real Gemini in one place: behind a call it would
//! name a reason to stop that Google's documentation does not have (`FUNCTION_CALL`), so its answers name `STOP`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use daemon::{DEADLINE, Home, eventually, free_port, not_run};
use llm_double::stand_in;
use rig_core::completion::{CompletionRequest, ToolDefinition};
use rig_core::message::{Message, ToolName, ToolResultContent, UserContent};
use serde_json::json;
use spacebot::clock::SystemClock;
use spacebot::config::{ApiType, LlmConfig, ProviderConfig, RoutingConfig, Secret};
use spacebot::error::{Fault, Kind};
use spacebot::id::ProcessKind;
use spacebot::llm::{Delta, LlmError, LlmManager, Reply, SpacebotModel, Tuning};
use spacebot::thread::Cancel;

/// The wire formats, each with what follows the address in `base_url`, and a model that its provider has.
const WIRES: [(ApiType, &str, &str); 4] = [
    (ApiType::OpenAi, "/v1", "gpt-4o"),
    (ApiType::OpenAiResponses, "/v1", "gpt-4o"),
    (ApiType::Anthropic, "", "claude-sonnet-4-5"),
    (ApiType::Gemini, "", "gemini-2.5-flash"),
];

struct Aimock {
    child: Child,
    port: u16,
}

impl Aimock {
    /// None where it could not be fetched; that is told.
    fn start() -> Option<Self> {
        // The folder of the build, where `make test` has put it.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let folder: PathBuf = target.join("aimock");
        if !folder.join("ready").is_file() {
            not_run("aimock is not there; `make install-test-needs` fetches it");
            return None;
        }
        let port = free_port();
        let answers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/aimock/answers.json");
        let child = Command::new(folder.join("node"))
            .arg(folder.join("node_modules/@copilotkit/aimock/dist/cli.js"))
            .args(["--port", &port.to_string(), "--log-level", "silent", "--fixtures"])
            .arg(answers)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let aimock = Self { child, port };
        eventually("aimock answers", DEADLINE, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(aimock)
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn model(&self, (api, base, name): (ApiType, &str, &str), streamed: bool) -> SpacebotModel {
        let provider = ProviderConfig {
            base_url: Some(format!("{}{base}", self.address())),
            api_key: Some(Secret::new("k-123456789")),
            ..ProviderConfig::new("p", api)
        };
        let config = LlmConfig {
            providers: vec![provider],
            read_timeout: Some(Duration::from_secs(10)),
            ..LlmConfig::default()
        };
        let tuning = Tuning { retry_delay: Duration::from_millis(1), streamed, ..Tuning::default() };
        let offline = stand_in(|_| Ok("offline stand-in".to_owned()));
        let routing = RoutingConfig { channel: format!("p/{name}"), ..RoutingConfig::default() };
        LlmManager::tuned(&config, SystemClock::shared(), offline, tuning)
            .model_for(&routing, ProcessKind::Channel)
            .without_offline()
    }
}

impl Drop for Aimock {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may have ended by itself
        self.child.wait().ok();
    }
}

fn request(words: &str) -> CompletionRequest {
    let mut request = CompletionRequest::new(words);
    let parameters =
        json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
    let name = ToolName::new("get_weather").unwrap();
    request.tools = vec![ToolDefinition::new(name, "The weather of a city.", parameters)];
    request
}

/// The answer, and its text as it was shown.
fn ask(model: &SpacebotModel, request: &CompletionRequest) -> (Result<Reply, LlmError>, String) {
    let mut shown = String::new();
    let answer = model.call(request, &Cancel::new(), &mut |delta| match delta {
        Delta::Begins => shown.clear(),
        Delta::Text(text) => shown.push_str(text),
        _ => {}
    });
    (answer, shown)
}

#[test]
fn others_think_the_same_of_the_wire_formats() {
    let Some(aimock) = Aimock::start() else { return };
    for wire in WIRES {
        for streamed in [true, false] {
            let case = format!("{:?}, streamed {streamed}", wire.0);
            let model = aimock.model(wire, streamed);
            let (answer, shown) = ask(&model, &request("hello"));
            let answer = answer.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(
                (answer.response.text().as_str(), shown.as_str()),
                ("Hi there!", "Hi there!"),
                "{case}"
            );
            let usage = &answer.response.usage;
            assert_eq!((usage.input_tokens, usage.output_tokens), (Some(21), Some(4)), "{case}");

            let (answer, shown) = ask(&model, &request("think"));
            assert_eq!(answer.unwrap().response.text(), "42", "{case}");
            assert_eq!(shown, "42", "thoughts are no words: {case}");

            let mut weather = request("weather");
            let first = ask(&model, &weather).0.unwrap_or_else(|error| panic!("{case}: {error}"));
            let call =
                first.response.tool_calls().next().unwrap_or_else(|| panic!("no call: {case}")).clone();
            assert_eq!(call.function.name.as_str(), "get_weather", "{case}");
            assert_eq!(call.function.arguments_value(), json!({ "city": "Paris" }), "{case}");
            weather.chat_history.extend(first.response.message());
            let result = UserContent::ToolResult(call.result(vec![ToolResultContent::text("sunny")]));
            weather.chat_history.push(Message::User { content: vec![result] });
            let second = ask(&model, &weather).0.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(second.response.text(), "It is sunny in Paris.", "{case}");
        }
    }
}

#[test]
fn the_errors_of_others_are_understood_and_no_cut_answer_is_taken_for_one() {
    let Some(aimock) = Aimock::start() else { return };
    // At once: it asks for a second before each further try of what is limited.
    std::thread::scope(|scope| {
        for (wire, streamed) in WIRES.into_iter().flat_map(|wire| [(wire, true), (wire, false)]) {
            let aimock = &aimock;
            scope.spawn(move || errors(aimock, wire, streamed));
        }
    });
}

fn errors(aimock: &Aimock, wire: (ApiType, &str, &str), streamed: bool) {
    let failures = [
        ("limited", Kind::RateLimited),
        ("overloaded", Kind::Transient),
        ("no key", Kind::Auth),
        ("malformed", Kind::Transient),
    ];
    let cuts = [("truncated", Kind::Transient), ("disconnected", Kind::Transient)];
    let cuts = if streamed { &cuts[..] } else { &[] };
    for (words, kind) in failures.iter().chain(cuts) {
        // A model of its own: it rests after each.
        let (answer, _) = ask(&aimock.model(wire, streamed), &request(words));
        let case = format!("{words}, {:?}, streamed {streamed}", wire.0);
        let error = answer.map(|reply| reply.response.text()).expect_err(&case);
        assert_eq!(error.kind(), *kind, "{case}: {error}");
        assert!(!error.to_string().contains("k-123456789"), "{case}: {error}");
    }
}

#[test]
fn the_whole_daemon_talks_through_it() {
    let Some(aimock) = Aimock::start() else { return };
    for (api, base, name) in WIRES {
        let home = Home::new(&format!(
            "[llm.provider.mock]\napi_type = {:?}\nbase_url = \"{}{base}\"\napi_key = \"k-123456789\"\n\
             [defaults.routing]\nchannel = \"mock/{name}\"\n",
            api.kind().name,
            aimock.address(),
        ));
        let daemon = home.start();
        assert_eq!(daemon.client("c").ask("1", "hello"), "Hi there!", "{api:?}");
        let (status, log) = daemon.stop();
        assert!(status.success(), "{log}");
    }
}
