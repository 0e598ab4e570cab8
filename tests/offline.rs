//! The offline responder in Rig's own loop: fixtures that say what was asked, what the tools answered
//! and what the responder must do, and random texts and tool results that it must survive.
//!
//! `UPDATE=1 cargo test --test offline` writes what it does into the fixtures; read the difference.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use pollster::block_on;
use rig_agent::run::{AgentRun, AgentRunStep, ModelTurn, RetryRequest, RunSpec, prepare_request};
use rig_core::DynModel;
use rig_core::completion::{CompletionRequest, CompletionResponse, Message, ToolDefinition};
use rig_core::message::{AssistantContent, AssistantMessage, ToolCall, ToolChoice, ToolFunction, ToolName};
use rig_core::message::{ToolResultContent, UserContent};
use rig_core::operation::Completion;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use spacebot::clock::{SimulatedClock, Timestamp};
use spacebot::id::{ProcessId, ProcessKind};
use spacebot::llm::offline;
use spacebot::turn::{self, Part};

/// 2026-11-21T10:00:00Z.
const NOW: Timestamp = Timestamp(1_795_255_200_000);

/// No run of the responder is longer; a longer one goes in circles.
const MAX_MODEL_CALLS: usize = 12;

/// Fewer fixtures than this means that the folder was not found as a whole.
const LEAST_FIXTURES: usize = 30;

fn responder() -> DynModel<Completion> {
    offline::model(SimulatedClock::starting_at(NOW))
}

// --- One conversation with the responder -----------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    about: String,
    process: Asking,
    /// Tools that are not offered this time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    without: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    history: Vec<Line>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    turn: Vec<TurnPart>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    prompt: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Asking {
    Channel,
    Job,
    Branch,
    Worker,
    Ingestion,
    None,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    User(String),
    Assistant(String),
    /// A call that another model has made, and its result.
    Called {
        tool: String,
        arguments: Map<String, Value>,
        result: ToolAnswer,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum TurnPart {
    Said { said: String },
    Result { result: String, process: String, task: String },
    Status { status: String },
}

/// What the responder does, and what it hears then.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    calls: Vec<(String, Value)>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    text: String,
    /// The answers of the tools; `noted` for those without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    results: Vec<ToolAnswer>,
    /// A message that comes after this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    then: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum ToolAnswer {
    Text(String),
    /// An error where there is an `error` in it.
    Json(Map<String, Value>),
}

impl ToolAnswer {
    fn words(&self) -> (String, bool) {
        match self {
            ToolAnswer::Text(text) => (text.clone(), false),
            ToolAnswer::Json(object) => (json!(object).to_string(), object.contains_key("error")),
        }
    }
}

impl Fixture {
    /// The history and the newest message, which is the last of the history where there is no other.
    fn messages(&self) -> (Vec<Message>, Message) {
        let mut messages = Vec::new();
        for (index, line) in self.history.iter().enumerate() {
            match line {
                Line::User(text) => messages.push(Message::user(text)),
                Line::Assistant(text) => messages.push(Message::assistant(text)),
                Line::Called { tool, arguments, result } => {
                    let function = ToolFunction::new(ToolName::new(tool).unwrap(), json!(arguments));
                    let call = ToolCall::from_wire(format!("call_{index}"), function);
                    let answer = answer_of(&call, result);
                    let said = AssistantMessage::new(vec![AssistantContent::ToolCall(call)]);
                    messages.push(Message::Assistant(said));
                    messages.push(Message::User { content: vec![answer] });
                }
            }
        }
        if !self.turn.is_empty() {
            let parts: Vec<Part> = self.turn.iter().map(part).collect();
            return (messages, Message::user(turn::write(&parts)));
        }
        if !self.prompt.is_empty() {
            return (messages, Message::user(&self.prompt));
        }
        let newest = messages.pop().expect("a prompt, a turn or a history");
        (messages, newest)
    }
}

fn part(part: &TurnPart) -> Part {
    match part {
        TurnPart::Said { said } => Part::Said { sender: "alice".to_owned(), at: NOW, text: said.clone() },
        TurnPart::Status { status } => Part::Status(status.clone()),
        TurnPart::Result { result, process, task } => {
            let kind = if process.starts_with("worker") { ProcessKind::Worker } else { ProcessKind::Branch };
            let process = ProcessId::parse(kind, process).unwrap();
            Part::Result { process, task: task.clone(), text: result.clone() }
        }
    }
}

fn answer_of(call: &ToolCall, answer: &ToolAnswer) -> UserContent {
    let (text, is_error) = answer.words();
    let content = vec![ToolResultContent::text(text)];
    UserContent::ToolResult(if is_error { call.error_result(content) } else { call.result(content) })
}

// --- The loop --------------------------------------------------------------------------------------

/// What the tools answer to the calls of a step, and a message that comes after it.
type World<'a> = dyn FnMut(usize, &[ToolCall]) -> (Vec<ToolAnswer>, Option<String>) + 'a;

/// Runs the responder as a process does, and says what it did. `world` answers the tools of a step
/// and may have a message for the process after it.
fn drive(
    process: Asking,
    without: &[String],
    history: Vec<Message>,
    prompt: Message,
    streamed: bool,
    world: &mut World<'_>,
) -> Vec<Step> {
    let model = responder();
    let definitions: Vec<_> =
        tools_of(process).into_iter().filter(|t| !without.iter().any(|w| t.name == *w)).collect();
    let spec = RunSpec {
        preamble: Some("You are a bot.".to_owned()),
        max_turns: Some(MAX_MODEL_CALLS),
        ..RunSpec::new()
    };
    let mut run = AgentRun::from_spec(&spec, prompt, Some(history));
    let mut done: Vec<Step> = Vec::new();
    let mut ids = BTreeSet::new();
    loop {
        match run.next_step().expect("the run goes on") {
            AgentRunStep::CallModel { prompt, history, turn } => {
                assert!(done.len() < MAX_MODEL_CALLS, "no end: {done:?}");
                let capabilities = model.capabilities().completion;
                let tools = definitions.clone();
                let prepared =
                    prepare_request(&spec, &capabilities, &history, tools, run.output_tool_name(), None)
                        .unwrap();
                run.advertise_tools(turn, prepared.tools.clone());
                let response = ask(&model, prepared.clone().apply(CompletionRequest::new(prompt)), streamed);
                check_calls(&definitions, &response, &mut ids);
                run.model_response(ModelTurn::from_response(&response, &prepared)).unwrap();
                let calls =
                    response.tool_calls().map(|c| (c.function.name.to_string(), json!(c.function.arguments)));
                done.push(Step { calls: calls.collect(), text: response.text(), ..Step::default() });
                if response.tool_calls().next().is_none() {
                    let (_, then) = world(done.len() - 1, &[]);
                    let Some(words) = then else { return done };
                    run.retry_model_turn(RetryRequest::Feedback(words)).unwrap();
                }
            }
            AgentRunStep::CallTools { calls } => {
                let calls: Vec<ToolCall> = calls.into_iter().map(|call| call.tool_call).collect();
                let (answers, then) = world(done.len() - 1, &calls);
                let noted = ToolAnswer::Text("noted".to_owned());
                let answers: Vec<_> =
                    (0..calls.len()).map(|at| answers.get(at).unwrap_or(&noted).clone()).collect();
                let results: Vec<_> =
                    calls.iter().zip(&answers).map(|(call, answer)| answer_of(call, answer)).collect();
                run.tool_results(results).unwrap();
                let ends = |(call, answer): (&ToolCall, &ToolAnswer)| {
                    let name = call.function.name.as_str();
                    matches!(name, "reply" | "skip" | "set_outcome" | "memory_persistence_complete")
                        && !answer.words().1
                };
                if calls.iter().zip(&answers).any(ends) {
                    return done;
                }
                if let Some(words) = then {
                    run = AgentRun::from_spec(&spec, Message::user(words), Some(run.full_history()));
                }
            }
            AgentRunStep::Done(_) => return done,
        }
    }
}

fn ask(model: &DynModel<Completion>, request: CompletionRequest, streamed: bool) -> CompletionResponse {
    if !streamed {
        return block_on(model.call(request)).expect("an answer");
    }
    let mut stream = model.stream(request).expect("a stream");
    while let Some(item) = block_on(stream.next()) {
        item.expect("a piece");
    }
    block_on(stream.finish()).expect("an answer")
}

/// Known tools, arguments that fit their schemas, distinct ids, something to say, counts and no price.
fn check_calls(definitions: &[ToolDefinition], response: &CompletionResponse, ids: &mut BTreeSet<String>) {
    for call in response.tool_calls() {
        let definition = definitions.iter().find(|definition| definition.name == call.function.name);
        let definition = definition.unwrap_or_else(|| panic!("no tool {}", call.function.name));
        assert_eq!(call.function.invalid_arguments, None);
        check_arguments(&definition.parameters, &call.function.arguments);
        assert!(
            call.id.to_string().starts_with("offline-") && ids.insert(call.id.to_string()),
            "{:?}",
            call.id
        );
    }
    let says = !response.text().trim().is_empty();
    assert_ne!(says, response.tool_calls().next().is_some(), "a text or calls: {response:?}");
    assert_eq!(response.provider(), "offline");
    let usage = response.usage;
    assert_eq!(usage.total_tokens, Some(usage.input_tokens.unwrap() + usage.output_tokens.unwrap()));
    assert!(usage.output_tokens.unwrap() > 0);
    assert_eq!(usage.cost.map(|cost| cost.total), Some(0.0));
}

fn check_arguments(schema: &Value, arguments: &Map<String, Value>) {
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(arguments.contains_key(name.as_str().unwrap()), "{name} is missing in {arguments:?}");
    }
    for (name, value) in arguments {
        let mut property = &schema["properties"][name];
        if let Some(target) = property["$ref"].as_str() {
            property = schema.pointer(target.trim_start_matches('#')).unwrap();
        }
        let fits = match property["type"].as_str() {
            Some("string") => value.is_string(),
            Some("integer") => value.is_u64(),
            Some("boolean") => value.is_boolean(),
            Some("number") => value.is_number(),
            Some("array") => value.as_array().is_some_and(|items| !items.is_empty()),
            other => panic!("unknown argument {name} of type {other:?}"),
        };
        assert!(fits, "{name}: {value} does not fit {property}");
        assert!(value.as_str().is_none_or(|text| !text.trim().is_empty()), "{name} is empty");
        if let Some(values) = property["enum"].as_array() {
            assert!(values.contains(value), "{value} is not in {values:?}");
        }
    }
}

fn tools_of(process: Asking) -> Vec<ToolDefinition> {
    let text = json!({ "type": "string" });
    let tools = match process {
        Asking::Channel => json!({
            "reply": { "required": ["content"], "properties": { "content": text } },
            "branch": { "required": ["description"], "properties": { "description": text } },
            "spawn_worker": { "required": ["task"], "properties": { "task": text, "interactive": { "type": "boolean" } } },
            "route": { "required": ["worker_id", "message"], "properties": { "worker_id": text, "message": text } },
            "cancel": {
                "required": ["process_type", "process_id"],
                "properties": { "process_type": { "$ref": "#/$defs/Stoppable" }, "process_id": text, "reason": text },
                "$defs": { "Stoppable": { "type": "string", "enum": ["branch", "worker"] } },
            },
            "skip": { "properties": { "reason": text } },
            "react": { "required": ["emoji"], "properties": { "emoji": text } },
            "cron": {
                "required": ["action"],
                "properties": { "action": { "$ref": "#/$defs/Action" }, "id": text, "prompt": text, "cron_expr": text,
                    "interval_secs": { "type": "integer" }, "run_once": { "type": "boolean" } },
                "$defs": { "Action": { "type": "string", "enum": ["create", "list", "delete"] } },
            },
        }),
        Asking::Job => json!({
            "set_outcome": { "required": ["content"], "properties": { "content": text } },
            "branch": { "required": ["description"], "properties": { "description": text } },
            "spawn_worker": { "required": ["task"], "properties": { "task": text, "interactive": { "type": "boolean" } } },
            "skip": { "properties": { "reason": text } },
        }),
        Asking::Branch => json!({
            "memory_save": {
                "required": ["content"],
                "properties": { "content": text, "memory_type": { "$ref": "#/$defs/MemoryType" }, "source": text },
                "$defs": { "MemoryType": { "type": "string", "enum":
                    ["fact", "preference", "decision", "identity", "event", "observation", "goal", "todo"] } },
            },
            "memory_recall": {
                "properties": { "query": text, "max_results": { "type": "integer" }, "mode": { "$ref": "#/$defs/Mode" } },
                "$defs": { "Mode": { "type": "string", "enum": ["hybrid", "recent", "important", "typed"] } },
            },
            "memory_delete": { "required": ["memory_id"], "properties": { "memory_id": text, "reason": text } },
            "channel_recall": { "properties": { "query": text } },
        }),
        Asking::Ingestion => json!({
            "memory_save": {
                "required": ["content"],
                "properties": { "content": text, "memory_type": text, "importance": { "type": "number" } },
            },
            "memory_recall": { "properties": { "query": text } },
            "memory_persistence_complete": {
                "required": ["outcome", "reason"],
                "properties": { "outcome": text, "saved_memory_ids": { "type": "array" }, "reason": text },
            },
        }),
        Asking::Worker => json!({
            "shell": { "required": ["command"], "properties": { "command": text } },
            "set_status": {
                "required": ["status"],
                "properties": { "status": text, "kind": { "type": "string", "enum": ["progress", "outcome"] } },
            },
            "file_read": { "required": ["path"], "properties": { "path": text } },
        }),
        Asking::None => json!({}),
    };
    let definition = |(name, parameters): (&String, &Value)| {
        let mut parameters = parameters.clone();
        parameters["type"] = json!("object");
        ToolDefinition::new(ToolName::new(name).unwrap(), format!("{name}."), parameters)
    };
    tools.as_object().unwrap().iter().map(definition).collect()
}

// --- Tests -----------------------------------------------------------------------------------------

fn fixtures() -> Vec<(PathBuf, Fixture)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/offline");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
        let fixture =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (file, fixture)
    };
    files.into_iter().map(read).collect()
}

fn perform(fixture: &Fixture, streamed: bool) -> Vec<Step> {
    let mut world = |at: usize, _: &[ToolCall]| {
        let step = fixture.steps.get(at).cloned().unwrap_or_default();
        (step.results, step.then)
    };
    let (history, prompt) = fixture.messages();
    let mut done = drive(fixture.process, &fixture.without, history, prompt, streamed, &mut world);
    for (step, given) in done.iter_mut().zip(&fixture.steps) {
        step.results.clone_from(&given.results);
        step.then.clone_from(&given.then);
    }
    done
}

#[test]
fn the_responder_does_what_the_fixtures_say() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    let all = fixtures();
    assert!(all.len() >= LEAST_FIXTURES, "only {} fixtures", all.len());
    for (file, mut fixture) in all {
        let unary = perform(&fixture, false);
        assert_eq!(unary, perform(&fixture, true), "{}: a stream says something else", file.display());
        if unary == fixture.steps {
            continue;
        }
        if update {
            fixture.steps = unary;
            std::fs::write(&file, serde_json::to_string_pretty(&fixture).unwrap() + "\n").unwrap();
        } else {
            wrong.push(format!("{}:\n  {unary:?}\ninstead of\n  {:?}", file.display(), fixture.steps));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_model_that_may_not_call_tools_says_an_honest_sentence() {
    let request = CompletionRequest::new("remember that I like tea")
        .tools(tools_of(Asking::Channel))
        .tool_choice(ToolChoice::None);
    let response = ask(&responder(), request, false);
    assert!(response.text().contains("No language model answers me"), "{}", response.text());
}

#[test]
fn options_meant_for_another_model_do_no_harm() {
    let request =
        CompletionRequest::new("hello").temperature(0.3).max_tokens(10).top_p(0.5).seed(7).stop(["x"]);
    assert!(!ask(&responder(), request.parallel_tool_calls(true), true).text().is_empty());
}

#[test]
fn the_name_is_offline_responder() {
    let response = ask(&responder(), CompletionRequest::new("hello"), false);
    assert_eq!((response.provider(), response.model()), (offline::PROVIDER, Some(offline::MODEL)));
}

/// What random texts are made of.
const PIECES: [&str; 74] = [
    "remember",
    "forget",
    "recall",
    "note",
    "run",
    "$",
    "ls -l",
    "`date`",
    "```",
    "`",
    "status",
    "help",
    "cancel",
    "stop",
    "worker",
    "branch",
    "worker:7",
    "7",
    "99999999999999999999",
    "what",
    "is",
    "do you know about",
    "?",
    "!",
    ".",
    ",",
    ":",
    ";",
    "-",
    "\"",
    "'",
    "don't",
    "please",
    "can you",
    "hey bot",
    "thanks",
    "tell",
    "to",
    "that",
    "I like tea",
    "my name is",
    "everything",
    "me",
    "the",
    "tomorrow",
    "todo",
    "remind me",
    "in 10 minutes",
    "every day at 9",
    "list",
    "notes",
    "memory",
    "from your",
    "{what}",
    "{",
    "}",
    "\n",
    "\t",
    "  ",
    "é",
    "漢字",
    "🦀",
    "İ",
    "ß",
    "\u{0}",
    "<message from=\"x\" at=\"0\">",
    "</message>",
    "<status>",
    "worker:1",
    "(",
    ")",
    "|",
    "exit code 1",
    "what time is it",
];

/// A small generator, so that a failing case can be printed and repeated.
struct Dice(u64);

impl Dice {
    fn of(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides).unwrap()).unwrap()
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }

    fn text(&mut self) -> String {
        let length = if self.roll(60) == 0 { 900 } else { self.roll(9) };
        let pieces = (0..length).map(|_| self.pick(&PIECES)).collect::<Vec<_>>();
        pieces.join(if self.roll(3) == 0 { "" } else { " " })
    }

    fn turn(&mut self) -> Vec<TurnPart> {
        let mut parts: Vec<TurnPart> = (0..self.roll(4))
            .map(|_| match self.roll(4) {
                0 => {
                    let process = format!("branch:{}", self.roll(9));
                    TurnPart::Result { result: self.text(), process, task: self.text() }
                }
                _ => TurnPart::Said { said: self.text() },
            })
            .collect();
        if self.roll(5) > 0 {
            let running = (0..self.roll(4)).map(|n| format!("\nworker:{n} running, 3 s: {}", self.text()));
            parts.push(TurnPart::Status { status: format!("Time: now{}", running.collect::<String>()) });
        }
        parts
    }

    fn answer(&mut self) -> ToolAnswer {
        match self.roll(7) {
            0 => object(json!({ "error": "denied", "message": self.text() })),
            1 => ToolAnswer::Text(format!("exit code {}\n{}", self.roll(3), self.text())),
            2 => ToolAnswer::Text(self.text()),
            3 => object(json!({ "started": "branch:1" })),
            4 => object(json!({ "memories": [1, null, { "content": 3 }, { "content": "" }] })),
            _ => {
                let memories: Vec<Value> = (0..self.roll(9))
                    .map(|id| json!({ "id": id.to_string(), "content": self.text(), "created_at": "2026-11-20T08:00:00Z" }))
                    .collect();
                object(json!({ "count": memories.len(), "memories": memories }))
            }
        }
    }
}

fn object(value: Value) -> ToolAnswer {
    ToolAnswer::Json(value.as_object().unwrap().clone())
}

/// Whatever is said and whatever the tools answer: every answer is valid, and the run ends.
#[test]
fn random_texts_and_tool_results_always_get_a_valid_answer() {
    for seed in 0..2_500 {
        let mut dice = Dice::of(seed);
        let (process, prompt) = match dice.roll(8) {
            7 => {
                let said = format!("{}{}", dice.pick(&["remind: ", "run: ", "$ ", ""]), dice.text());
                (Asking::Job, turn::write(&[part(&TurnPart::Said { said })]))
            }
            0..3 => {
                let parts: Vec<Part> = dice.turn().iter().map(part).collect();
                (Asking::Channel, turn::write(&parts))
            }
            3 => (Asking::Channel, dice.text()),
            4 => (
                Asking::Branch,
                format!("{}{}", dice.pick(&["remember: ", "recall: ", "forget: ", ""]), dice.text()),
            ),
            5 => (Asking::Worker, format!("{}{}", dice.pick(&["run: ", "run: ", "Run:", ""]), dice.text())),
            _ => (Asking::None, dice.text()),
        };
        // Rig refuses an empty prompt before any model sees it.
        let prompt = if prompt.trim().is_empty() { "?".to_owned() } else { prompt };
        let tools: Vec<String> = tools_of(process).iter().map(|tool| tool.name.to_string()).collect();
        let without: Vec<String> = tools.into_iter().filter(|_| dice.roll(12) == 0).collect();
        let history =
            (0..dice.roll(3)).map(|_| Message::user(format!("x{}", dice.text()))).collect::<Vec<_>>();
        let done = |streamed: bool| {
            let mut world = |at: usize, calls: &[ToolCall]| {
                let mut dice = Dice::of(seed * 1_000 + u64::try_from(at).unwrap());
                let then = (process == Asking::Worker && at < 3 && dice.roll(4) == 0)
                    .then(|| format!("and {}", dice.text()));
                (calls.iter().map(|_| dice.answer()).collect(), then)
            };
            drive(process, &without, history.clone(), Message::user(&prompt), streamed, &mut world)
        };
        let result = std::panic::catch_unwind(|| assert_eq!(done(false), done(true)));
        assert!(result.is_ok(), "seed {seed}: {prompt:?}");
    }
}
