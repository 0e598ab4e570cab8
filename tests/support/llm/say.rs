//! What the double hears and says, and how a script file spells it.

use std::time::Duration;

use serde_json::Value;

/// The format a request came in, known by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireFormat {
    OpenAi,
    Anthropic,
    Responses,
    Gemini,
}

impl WireFormat {
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Responses => "responses",
            Self::Gemini => "gemini",
        }
    }
}

/// What arrived.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// What stands behind the question mark.
    pub query: String,
    pub wire: WireFormat,
    /// The client wants an event stream.
    pub streamed: bool,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub json: Value,
    /// As it came.
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A model's answer in no format; the double writes it in the one that was asked for.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub text: String,
    pub calls: Vec<ToolCall>,
    /// `stop`, `length`, `tool_calls`, `content_filter` or any other word; by default what fits.
    pub finish: Option<String>,
}

#[derive(Debug, Clone)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// JSON text, or what a confused model takes for it.
    pub arguments: String,
}

#[derive(Debug, Clone)]
pub enum Body {
    Answer(Answer),
    /// An error object in the format's own envelope: its type or code, and its message.
    Error(String, String),
    /// Sent as it is, whatever was asked for.
    Raw(String),
    /// These events, whatever was asked for.
    Events(Vec<String>),
    /// By the name of the wire: events where they are asked for, and else a body.
    PerWire(Value),
}

/// A moment in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Before the first byte.
    Start,
    /// After the header.
    Headers,
    Events(usize),
    /// Of the body, so that an event can be cut in two.
    Bytes(usize),
}

/// One response.
#[derive(Debug, Clone)]
pub struct Say {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
    /// Answer in one piece even when a stream was asked for.
    pub whole: bool,
    /// Close the connection there.
    pub cut: Option<At>,
    /// Fall silent there, until the client leaves.
    pub hang: Option<At>,
    /// Send so many bytes of the body at a time.
    pub dribble: Option<usize>,
    /// Wait so long before the body and between its pieces.
    pub pause: Option<Duration>,
    /// What else is odd about it.
    pub odd: Odd,
}

/// What a good answer may have about it that nobody ordered.
#[derive(Debug, Clone, Default)]
pub struct Odd {
    /// The body is packed.
    pub gzip: bool,
    /// Wait so long between pieces of the header.
    pub head_pause: Option<Duration>,
    /// The first and the last event come twice.
    pub twice: bool,
    /// Between all events stand some that nobody knows.
    pub strange: bool,
    /// `negative`, `huge`, `missing` or `text`: the counts of tokens.
    pub usage: Option<String>,
}

impl Say {
    pub fn new(body: Body) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body,
            whole: false,
            cut: None,
            hang: None,
            dribble: None,
            pause: None,
            odd: Odd::default(),
        }
    }

    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Body::Answer(Answer { text: text.into(), ..Answer::default() }))
    }

    pub fn call(id: &str, name: &str, arguments: &Value) -> Self {
        let call = ToolCall { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_string() };
        Self::new(Body::Answer(Answer { calls: vec![call], ..Answer::default() }))
    }

    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        Self { status, ..Self::new(Body::Error(kind.to_owned(), message.to_owned())) }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn cut(mut self, at: At) -> Self {
        self.cut = Some(at);
        self
    }

    pub fn hang(mut self, at: At) -> Self {
        self.hang = Some(at);
        self
    }

    pub(super) fn from_json(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let body = if let Some(answer) = value.get("answer") {
            Body::Answer(Answer {
                text: answer["text"].as_str().unwrap_or_default().to_owned(),
                calls: array(&answer["calls"]).iter().map(tool_call).collect(),
                finish: answer["finish"].as_str().map(str::to_owned),
            })
        } else if let Some(error) = value.get("error") {
            let part = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
            Body::Error(part("type"), part("message"))
        } else if let Some(per_wire) = value.get("per_wire") {
            Body::PerWire(per_wire.clone())
        } else if let Some(raw) = text("raw") {
            Body::Raw(raw)
        } else if let Some(raw) = value.get("body") {
            Body::Raw(raw.to_string())
        } else if value.get("events").is_some() {
            Body::Events(array(&value["events"]).iter().map(event_text).collect())
        } else {
            panic!("a `say` without answer, error, raw, body or events: {value}");
        };
        let status = value["status"].as_u64().unwrap_or(200);
        let headers = value["headers"].as_object().into_iter().flatten();
        Self {
            status: u16::try_from(status).unwrap(),
            headers: headers
                .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
                .collect(),
            body,
            whole: value["whole"].as_bool().unwrap_or(false),
            cut: value.get("cut").map(moment),
            hang: value.get("hang").map(moment),
            dribble: value["dribble"].as_u64().map(|bytes| usize::try_from(bytes).unwrap()),
            pause: value["pause_ms"].as_u64().map(Duration::from_millis),
            odd: Odd {
                gzip: value["gzip"].as_bool().unwrap_or(false),
                head_pause: value["head_pause_ms"].as_u64().map(Duration::from_millis),
                twice: value["twice"].as_bool().unwrap_or(false),
                strange: value["strange"].as_bool().unwrap_or(false),
                usage: text("usage"),
            },
        }
    }
}

pub(super) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn tool_call(value: &Value) -> ToolCall {
    let arguments = match &value["arguments"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    ToolCall {
        id: value["id"].as_str().unwrap_or("call_1").to_owned(),
        name: value["name"].as_str().unwrap().to_owned(),
        arguments,
    }
}

fn moment(value: &Value) -> At {
    let count = |name: &str| value[name].as_u64().map(|count| usize::try_from(count).unwrap());
    match value.as_str() {
        Some("start") => At::Start,
        Some("headers") => At::Headers,
        _ => count("events")
            .map(At::Events)
            .or_else(|| count("bytes").map(At::Bytes))
            .unwrap_or_else(|| panic!("not a moment: {value}")),
    }
}

/// A string is the data of an event; an object is JSON data, its `type` also the event's name.
pub(super) fn event_text(value: &Value) -> String {
    match (value.as_str(), value["type"].as_str()) {
        (Some(data), _) => format!("data: {data}\n\n"),
        (None, Some(name)) => format!("event: {name}\ndata: {value}\n\n"),
        (None, None) => format!("data: {value}\n\n"),
    }
}
