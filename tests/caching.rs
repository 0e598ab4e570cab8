//! What a provider that caches prompts can read from its cache over a long conversation. The double counts
//! as providers say they do; what is asked is what the whole binary sends.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::collections::BTreeSet;

use daemon::Home;
use llm_double::script::{calls, offers};
use llm_double::{Double, Request, Say, WireFormat};
use serde_json::{Value, json};

const TURNS: usize = 50;
/// Of the tokens in front of a turn's own message.
const LEAST_SHARE: f64 = 0.9;
/// Blocks that Anthropic looks back from a mark.
const LOOK_BACK: usize = 20;
/// Tokens in which OpenAI caches, and the least that it does.
const CHUNK: usize = 128;
const CHUNKS_MIN: usize = 8;

/// Every fifth turn thinks first, so that turns of two model calls are among them.
fn double() -> Double {
    Double::recording(|request| {
        let last = request.json["messages"].as_array().and_then(|messages| messages.last().cloned());
        let last = last.unwrap_or_default().to_string();
        if !offers(request, "reply") {
            return Say::text("done");
        }
        match last.contains("message 5") && !last.contains("tool") {
            true => calls(&[("memory_recall", json!({ "query": "anything" }))]),
            false => calls(&[("reply", json!({ "content": "Yes, I see, and I have thought about it." }))]),
        }
    })
}

fn config(double: &Double, wire: WireFormat) -> String {
    let kind = match wire {
        WireFormat::Anthropic => "anthropic",
        _ => "openai_chat_completions",
    };
    let url = double.base_url("p", wire);
    format!(
        "[llm.provider.double]\napi_type = \"{kind}\"\nbase_url = \"{url}\"\napi_key = \"k-double\"\n\
         [defaults.memory_persistence]\nenabled = false\n[defaults.channel]\ndelegation = \"direct\"\n\
         [defaults.routing]\nchannel = \"double/m\"\nbranch = \"double/m\"\nworker = \"double/m\"\n"
    )
}

fn conversation(wire: WireFormat) -> Vec<Request> {
    let double = double();
    let home = Home::new(&config(&double, wire));
    let daemon = home.start();
    let mut client = daemon.client("c");
    for turn in 0..TURNS {
        client.ask(&format!("{turn}"), &format!("this is message {turn}, and it says one thing or another"));
    }
    drop(daemon);
    double.requests().into_iter().filter(|request| offers(request, "reply")).collect()
}

/// Tokens that were read, of those in front of the last message of a person.
#[derive(Default)]
struct Counted {
    read: usize,
    of: usize,
}

impl Counted {
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    fn share(&self) -> f64 {
        self.read as f64 / self.of as f64
    }
}

fn tokens(text: &str) -> usize {
    text.len() / 4
}

/// The blocks of a Messages request in the order of its cache, each without its mark, and whether it has one.
fn blocks(request: &Value) -> Vec<(String, bool)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let content = |message: &Value| {
        let role = message["role"].as_str().unwrap_or_default().to_owned();
        list(&message["content"]).into_iter().map(move |block| (role.clone(), block))
    };
    let tools = list(&request["tools"]).into_iter().map(|tool| ("tool".to_owned(), tool));
    let system = list(&request["system"]).into_iter().map(|block| ("system".to_owned(), block));
    let messages = list(&request["messages"]);
    let all = tools.chain(system).chain(messages.iter().flat_map(content));
    all.map(|(role, mut block)| {
        let mark = block.as_object_mut().and_then(|fields| fields.remove("cache_control"));
        (format!("{role} {block}"), mark.is_some())
    })
    .collect()
}

#[test]
fn nine_tenths_of_what_stands_before_a_turn_are_read_from_anthropics_cache() {
    let (mut kept, mut counted) = (BTreeSet::new(), Counted::default());
    for request in conversation(WireFormat::Anthropic) {
        let blocks = blocks(&request.json);
        let prefix = |end: usize| blocks[..=end].iter().map(|(block, _)| block.as_str()).collect::<String>();
        let marks: Vec<usize> =
            blocks.iter().enumerate().filter(|(_, (_, marked))| *marked).map(|(at, _)| at).collect();
        assert!((1..=4).contains(&marks.len()), "{} marks", marks.len());
        let hits = marks.iter().flat_map(|mark| mark.saturating_sub(LOOK_BACK)..=*mark);
        let longest = hits.filter(|end| kept.contains(&prefix(*end))).max();
        let own = blocks.iter().rposition(|(block, _)| block.contains("<status>")).unwrap();
        counted.of += tokens(&prefix(own - 1));
        counted.read += longest.map_or(0, |end| tokens(&prefix(end.min(own - 1))));
        kept.extend(marks.iter().map(|mark| prefix(*mark)));
    }
    assert!(counted.share() >= LEAST_SHARE, "{:.3}", counted.share());
    println!("read from the cache: {:.3} of {} tokens", counted.share(), counted.of);
}

#[test]
fn nine_tenths_of_what_stands_before_a_turn_are_read_from_a_cache_of_prefixes() {
    let (mut kept, mut counted) = (Vec::<String>::new(), Counted::default());
    for request in conversation(WireFormat::OpenAi) {
        let messages = request.json["messages"].as_array().unwrap();
        let own = messages.iter().rposition(|message| message.to_string().contains("<status>")).unwrap();
        let before = |count: usize| {
            let messages = messages[..count].iter().map(Value::to_string).collect::<String>();
            format!("{}{messages}", request.json["tools"])
        };
        let (stable, whole) = (before(own), before(messages.len()));
        let common = |other: &String| {
            whole.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count().min(stable.len())
        };
        let longest = kept.iter().map(common).max().unwrap_or_default() / 4 / CHUNK;
        counted.of += tokens(&stable);
        counted.read += if longest >= CHUNKS_MIN { longest * CHUNK } else { 0 };
        kept.push(whole);
    }
    assert!(counted.share() >= LEAST_SHARE, "{:.3}", counted.share());
    println!("read from the cache: {:.3} of {} tokens", counted.share(), counted.of);
}
