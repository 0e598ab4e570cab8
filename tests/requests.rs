//! What is sent to each provider, kept as fixtures (`tests/fixtures/llm/requests/*.json`), so that an
//! upgrade of Rig shows what it changes. Each provider of the table makes a tool round trip with the
//! double, streamed and whole; the fixture is the second request, which holds everything: system text,
//! tools, a call that is replayed and its result. `UPDATE=1` writes anew what is sent.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/llm.rs"]
mod llm_double;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use llm_double::{Double, Request, Say, stand_in};
use rig_core::completion::{CompletionRequest, ToolDefinition};
use rig_core::message::{
    AssistantContent, AssistantMessage, Message, ToolCall, ToolFunction, ToolName, ToolResultContent,
    UserContent,
};
use serde_json::{Value, json};
use spacebot::clock::SystemClock;
use spacebot::config::{
    ApiType, KeyPlace, LlmConfig, PROVIDERS, ProviderConfig, ProviderHeader, RoutingConfig, Secret,
};
use spacebot::id::ProcessKind;
use spacebot::llm::{LlmManager, Tuning, attached};
use spacebot::message::attachment::Files;
use spacebot::message::{Attachment, FileKind};
use spacebot::thread::Cancel;

const KEY: &str = "key-that-must-not-be-seen";
const HEADER: &str = "header-that-must-not-be-seen";
/// Headers whose values differ from run to run; that they are there is kept.
const CHANGING: [&str; 2] = ["x-request-id", "content-length"];

/// The name of the fixture, the provider, its model.
fn cases() -> Vec<(String, ProviderConfig, &'static str)> {
    let provider = |api: ApiType| ProviderConfig {
        api_key: Some(Secret::new(KEY)),
        headers: vec![
            ProviderHeader { name: "X-Title".to_owned(), value: Secret::new("Spacebot"), is_secret: false },
            ProviderHeader { name: "X-Tenant".to_owned(), value: Secret::new(HEADER), is_secret: true },
        ],
        ..ProviderConfig::new("p", api)
    };
    let rows = PROVIDERS.iter().map(|kind| (kind.name.to_owned(), provider(kind.api), "model-1"));
    let mut cases: Vec<_> = rows.collect();
    let azure = ProviderConfig {
        api_version: Some("2025-01-01-preview".to_owned()),
        deployment: Some("my-deployment".to_owned()),
        ..provider(ApiType::Azure)
    };
    cases.push(("azure-deployment".to_owned(), azure, "gpt-5"));
    cases.push(("github-copilot-codex".to_owned(), provider(ApiType::Copilot), "gpt-5-codex"));
    // A local server without a key.
    let local = ProviderConfig { api_key: None, headers: Vec::new(), ..provider(ApiType::OpenAiCompatible) };
    cases.push(("openai_chat_completions-no-key".to_owned(), local, "model-1"));
    cases.push(("openai-reasoning".to_owned(), provider(ApiType::OpenAi), "gpt-5"));
    cases
}

/// The second request of a tool round trip, after an answer that arrived.
fn round_trip(provider: &ProviderConfig, model: &str, streamed: bool) -> Request {
    let turn = AtomicUsize::new(0);
    let double = Double::recording(move |_| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => Say::call("call_1", "add", &json!({"x": 2, "y": 3})),
        _ => Say::text("The sum is 5."),
    });
    let own = provider.api.kind().base_url.unwrap_or("https://host/v1");
    let path = own.splitn(4, '/').nth(3).map_or(String::new(), |path| format!("/{path}"));
    let provider =
        ProviderConfig { base_url: Some(format!("{}{path}", double.origin())), ..provider.clone() };
    let config = LlmConfig { providers: vec![provider], ..LlmConfig::default() };
    let offline = stand_in(|_| Err("not to be asked".to_owned()));
    let tuning = Tuning { streamed, ..Tuning::default() };
    let manager = LlmManager::tuned(&config, SystemClock::shared(), offline, tuning);
    let routing = RoutingConfig { channel: format!("p/{model}"), ..RoutingConfig::default() };
    let model = manager.model_for(&routing, ProcessKind::Channel);

    let mut request = CompletionRequest::new("What is 2 + 3?");
    request.chat_history.insert(0, Message::System { content: "You can add.".to_owned() });
    let parameters = json!({"type": "object", "required": ["x", "y"],
        "properties": {"x": {"type": "number"}, "y": {"type": "number"}}});
    request.tools = vec![ToolDefinition::new(ToolName::new("add").unwrap(), "Adds two numbers.", parameters)];
    let reply = model.call(&request, &Cancel::new(), &mut |_| {}).unwrap();
    request.chat_history.extend(reply.response.message());
    let result = |call: &ToolCall| {
        assert_eq!(json!(call.function.arguments), json!({"x": 2, "y": 3}));
        UserContent::ToolResult(call.result(vec![ToolResultContent::text("5")]))
    };
    let results: Vec<_> = reply.response.tool_calls().map(result).collect();
    assert_eq!(results.len(), 1);
    request.chat_history.push(Message::User { content: results });
    let reply = model.call(&request, &Cancel::new(), &mut |_| {}).unwrap();
    assert_eq!((reply.response.text().as_str(), reply.attempts), ("The sum is 5.", 1));
    let sent = double.requests().pop().unwrap();
    double.finish();
    sent
}

/// As it is kept: without keys, and without what differs from run to run.
fn shown(request: &Request, has_key: bool) -> Value {
    let own_agent = concat!("spacebot/", env!("CARGO_PKG_VERSION"));
    let headers: BTreeMap<&str, String> = request
        .headers
        .iter()
        .filter(|(name, _)| name != "host")
        .map(|(name, value)| {
            let value = if CHANGING.contains(&name.as_str()) { "<any>" } else { value };
            let value = value.replace(KEY, "<key>").replace(HEADER, "<secret>");
            (name.as_str(), value.replace(own_agent, "spacebot/<version>"))
        })
        .collect();
    let query = request.query.replace(KEY, "<key>");
    let shown = json!({"method": request.method, "path": request.path, "query": query, "headers": headers,
        "body": request.json});
    let text = shown.to_string();
    assert_eq!(text.matches("<key>").count(), usize::from(has_key), "the key goes once: {text}");
    shown
}

/// Every file is where it should be.
struct Kept;

impl Files for Kept {
    fn read(&self, file: &Attachment) -> Option<Vec<u8>> {
        Some(file.name.as_bytes().to_vec())
    }
}

/// A request with a picture and a document, as it is sent over each wire.
fn files_over(api: ApiType, streamed: bool) -> Request {
    let double = Double::recording(|_| Say::text("A cat, on paper."));
    let url = format!("{}/v1", double.origin());
    let provider = ProviderConfig {
        base_url: Some(url),
        api_key: Some(Secret::new(KEY)),
        ..ProviderConfig::new("p", api)
    };
    let config = LlmConfig { providers: vec![provider], ..LlmConfig::default() };
    let tuning = Tuning { streamed, ..Tuning::default() };
    let offline = stand_in(|_| Err("not to be asked".to_owned()));
    let manager = LlmManager::tuned(&config, SystemClock::shared(), offline, tuning);
    let routing = RoutingConfig { channel: "p/model-1".to_owned(), ..RoutingConfig::default() };
    let model = manager.model_for(&routing, ProcessKind::Channel).with_files(Arc::new(Kept));
    let file = |name: &str, kind| Attachment {
        name: name.to_owned(),
        media_type: "text/plain".to_owned(),
        kind,
        bytes: 7,
        hash: "0".repeat(64),
    };
    let files = [file("cat.jpg", FileKind::Jpeg), file("cat.pdf", FileKind::Pdf)];
    let mut request = CompletionRequest::new("Good day.");
    request.chat_history.push(Message::assistant("Good day to you."));
    request.chat_history.push(attached::message("What is that?", &files));
    model.call(&request, &Cancel::new(), &mut |_| {}).unwrap();
    let sent = double.requests().pop().unwrap();
    double.finish();
    sent
}

#[test]
fn every_provider_makes_a_tool_round_trip_and_its_requests_are_those_of_the_fixtures() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llm/requests"));
    let update = std::env::var_os("UPDATE").is_some();
    let mut kept: Vec<(String, String)> = Vec::new();
    for (name, provider, model) in cases() {
        let has_key = provider.api_key.is_some();
        let [streamed, whole] = [true, false].map(|streamed| {
            let request = round_trip(&provider, model, streamed);
            check_key(&request, &provider);
            check_path(&request, &provider, model, streamed);
            shown(&request, has_key)
        });
        kept.push((name, format!("{:#}\n", json!({"streamed": streamed, "whole": whole}))));
    }
    for api in [ApiType::OpenAi, ApiType::OpenAiResponses, ApiType::Anthropic, ApiType::Gemini] {
        let [streamed, whole] = [true, false].map(|streamed| shown(&files_over(api, streamed), true));
        let name = format!("{}-files", api.kind().name);
        kept.push((name, format!("{:#}\n", json!({"streamed": streamed, "whole": whole}))));
    }
    let (mut wrong, mut known) = (Vec::new(), Vec::new());
    for (name, found) in kept {
        let file = folder.join(format!("{name}.json"));
        if update {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &found).unwrap();
        } else if std::fs::read_to_string(&file).ok().as_ref() != Some(&found) {
            wrong.push(format!("{}:\n{found}", file.display()));
        }
        known.push(file);
    }
    for entry in std::fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        assert!(known.contains(&file), "{} belongs to no provider", file.display());
    }
    assert!(wrong.is_empty(), "sent otherwise than kept (UPDATE=1 keeps it):\n{}", wrong.join("\n"));
}

/// The path is the one of the table, behind that of the address.
fn check_path(request: &Request, provider: &ProviderConfig, model: &str, streamed: bool) {
    let kind = provider.api.kind();
    let path = kind.path.replace("{model}", provider.deployment.as_deref().unwrap_or(model));
    let path = if streamed { path.replace(":generateContent", ":streamGenerateContent") } else { path };
    // Copilot serves these models elsewhere.
    let path = if model.contains("codex") { "/responses".to_owned() } else { path };
    assert!(request.path.ends_with(&path), "{}: {}", kind.name, request.path);
}

/// The key stands where the table says, and the headers of the config are there.
fn check_key(request: &Request, provider: &ProviderConfig) {
    let kind = provider.api.kind();
    let Some(key) = &provider.api_key else {
        assert_eq!(request.header("authorization"), None, "{}", kind.name);
        return;
    };
    let (bearer, parameter) = (format!("Bearer {}", key.reveal()), format!("key={}", key.reveal()));
    match kind.key {
        KeyPlace::Bearer => {
            assert_eq!(request.header("authorization"), Some(bearer.as_str()), "{}", kind.name)
        }
        KeyPlace::Header(name) => assert_eq!(request.header(name), Some(key.reveal()), "{}", kind.name),
        KeyPlace::Parameter(_) => assert!(request.query.contains(&parameter), "{}", kind.name),
    }
    assert_eq!(request.header("x-title"), Some("Spacebot"));
    assert_eq!(request.header("x-tenant"), Some(HEADER));
}

/// The limit that a budget reckons with reaches every provider: nowhere does it get lost on the way.
#[test]
fn a_limit_of_output_stands_in_every_request() {
    const LIMIT: u64 = 321;
    let places =
        ["/max_tokens", "/max_completion_tokens", "/max_output_tokens", "/generationConfig/maxOutputTokens"];
    for (name, provider, model) in cases() {
        for streamed in [true, false] {
            let double = Double::recording(|_| Say::text("well"));
            let provider = ProviderConfig { base_url: Some(double.origin()), ..provider.clone() };
            let config = LlmConfig { providers: vec![provider], ..LlmConfig::default() };
            let tuning = Tuning { streamed, ..Tuning::default() };
            let offline = stand_in(|_| Err("not to be asked".to_owned()));
            let manager = LlmManager::tuned(&config, SystemClock::shared(), offline, tuning);
            let routing = RoutingConfig { channel: format!("p/{model}"), ..RoutingConfig::default() };
            let mut request = CompletionRequest::new("Good day.");
            request.max_tokens = Some(LIMIT);
            let model = manager.model_for(&routing, ProcessKind::Channel);
            model.call(&request, &Cancel::new(), &mut |_| {}).unwrap();
            let sent = double.requests().pop().unwrap().json;
            let found: Vec<_> = places.iter().filter_map(|place| sent.pointer(place)?.as_u64()).collect();
            assert_eq!(found, [LIMIT], "{name}, streamed: {streamed}: {sent}");
            double.finish();
        }
    }
}

#[test]
fn a_broken_history_goes_out_so_that_a_provider_takes_it() {
    const LOST: &str = "What became of this call is not known";
    for api in [ApiType::OpenAi, ApiType::OpenAiResponses, ApiType::Anthropic, ApiType::Gemini] {
        let double = Double::recording(|_| Say::text("well"));
        let provider = ProviderConfig {
            base_url: Some(format!("{}/v1", double.origin())),
            api_key: Some(Secret::new(KEY)),
            headers: vec![ProviderHeader {
                name: "X-Tenant".to_owned(),
                value: Secret::new(HEADER),
                is_secret: true,
            }],
            ..ProviderConfig::new("p", api)
        };
        let config = LlmConfig { providers: vec![provider], ..LlmConfig::default() };
        let manager = LlmManager::new(&config, SystemClock::shared(), stand_in(|_| Err("no".to_owned())));
        let told = manager.scrubber().scrub(&format!("{HEADER} and {KEY}"));
        assert_eq!(told, "[hidden] and [hidden]");
        let routing = RoutingConfig { channel: "p/m".to_owned(), ..RoutingConfig::default() };
        let model = manager.model_for(&routing, ProcessKind::Channel);

        let mut request = CompletionRequest::new("What now?");
        let function = ToolFunction::parse(ToolName::new("add").unwrap(), r#"{"x":"\ud800"}"#);
        let call = ToolCall::from_wire("call_1", function);
        let turn = AssistantMessage::new(vec![AssistantContent::text(" "), AssistantContent::ToolCall(call)]);
        request.chat_history.insert(0, Message::Assistant(turn));
        request.chat_history.insert(0, Message::user("Add something."));
        let parameters = json!({"type": "object", "properties": {"x": {"type": "string"}}});
        request.tools = vec![ToolDefinition::new(ToolName::new("add").unwrap(), "Adds.", parameters)];
        let before = serde_json::to_string(&request).unwrap();
        model.call(&request, &Cancel::new(), &mut |_| {}).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), before, "what the caller has stays as it was");
        let sent = double.requests().pop().unwrap().body;
        assert_eq!(sent.matches(LOST).count(), 1, "{api:?}: {sent}");
        assert!(sent.contains('\u{fffd}') && !sent.contains("ud800"), "{api:?}: {sent}");
        assert!(!sent.contains("\"text\":\" \""), "{api:?}: {sent}");
        double.finish();
    }
}
