//! `spacebot watch`: what goes on in the running daemon, as it goes on: pieces of answers, reasoning, calls
//! and ends of tools.

use std::io::{self, BufRead, Write};

use serde_json::Value;

use super::chat::{ApiClient, ChatError};
use crate::config::Config;

/// Longest line of the daemon that is read; its own are far below.
const LINE_BYTES_MAX: u64 = 64 << 10;

pub struct Options {
    pub agent: Option<String>,
    pub conversation: Option<String>,
    pub json: bool,
}

/// Prints until the daemon stops or nobody reads what is printed.
///
/// # Errors
/// The daemon cannot be reached, refuses, or goes away in the middle.
pub fn run(config: &Config, options: &Options) -> Result<(), ChatError> {
    let client = ApiClient::new(&config.api)?;
    let wishes = [("agent", &options.agent), ("conversation", &options.conversation)];
    let wishes = wishes
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={}", client.encoded(value))));
    let query: Vec<String> = wishes.collect();
    let events = io::BufReader::new(client.stream(&format!("events?{}", query.join("&")))?);
    let printer = Printer { out: io::stdout().lock(), json: options.json, open: None };
    match printed(events, printer) {
        // As `head` does when it has enough.
        Err(ChatError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

fn printed(mut events: impl BufRead, mut printer: Printer<impl Write>) -> Result<(), ChatError> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut events, LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if read.map_err(|_| ChatError::Gone)? == 0 {
            return printer.close().map_err(ChatError::Output);
        }
        let Some(data) = line.strip_prefix(b"data: ") else { continue };
        // Nothing else comes from this daemon; what a later one adds is passed over.
        let Ok(event) = serde_json::from_slice::<Value>(data) else { continue };
        printer.print(&event).map_err(ChatError::Output)?;
    }
}

/// One line for each event; pieces of one text stand behind each other.
struct Printer<W> {
    out: W,
    json: bool,
    /// Whose text the last line is, if it may go on.
    open: Option<String>,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, event: &Value) -> io::Result<()> {
        if self.json {
            writeln!(self.out, "{event}")?;
            return self.out.flush();
        }
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        let who = format!(
            "{} {}:{} {}",
            text("agent"),
            text("process"),
            event["number"].as_u64().unwrap_or_default(),
            text("conversation")
        );
        let tool = text("tool");
        let (title, words) = match text("what") {
            "text" => ("says".to_owned(), Some(text("text"))),
            "reasoning" => ("thinks".to_owned(), Some(text("text"))),
            "arguments" => (format!("calls {tool}"), Some(text("text"))),
            "call" => (format!("calls {tool}"), Some("")),
            "answering" => ("a model answers".to_owned(), None),
            "tool_started" => (format!("{tool} begins"), None),
            "tool_finished" if event["failed"] == true => (format!("{tool} failed"), None),
            "tool_finished" => (format!("{tool} is done"), None),
            "ended" => (format!("ended: {}", text("how")), None),
            "lost" => {
                let count = event["count"].as_u64().unwrap_or_default();
                return self.line(&format!("({count} events were lost: this terminal is too slow)"));
            }
            "budget" => return self.line(&escaped(&format!("budget: {}", text("text")))),
            other => (other.to_owned(), None),
        };
        let head = escaped(&format!("{who}  {title}"));
        let Some(words) = words else { return self.line(&head) };
        let key = format!("{head} {}", event["call"]);
        if self.open.as_ref() != Some(&key) {
            self.close()?;
            write!(self.out, "{head}: ")?;
            self.open = Some(key);
        }
        write!(self.out, "{}", escaped(words))?;
        self.out.flush()
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        self.close()?;
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    fn close(&mut self) -> io::Result<()> {
        if self.open.take().is_some() {
            writeln!(self.out)?;
        }
        self.out.flush()
    }
}

/// A line break is seen as one, and a terminal gets no escape sequences.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        // Marks that turn the direction of writing around are no control characters, and hide as much.
        if character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn shown(events: &str, json: bool) -> String {
        let mut out = Vec::new();
        printed(events.as_bytes(), Printer { out: &mut out, json, open: None }).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn event(rest: &str) -> String {
        format!(
            "data: {{\"agent\":\"main\",\"conversation\":\"c\",\"process\":\"channel\",\"number\":7,{rest}}}\n\n"
        )
    }

    #[test]
    fn pieces_are_joined_and_control_characters_are_shown_as_such() {
        let events = [
            ":\n\n",
            &event("\"what\":\"started\""),
            &event("\"what\":\"reasoning\",\"text\":\"hm \""),
            &event("\"what\":\"reasoning\",\"text\":\"yes\\n\\u001b[31m\""),
            &event("\"what\":\"call\",\"call\":1,\"tool\":\"shell\""),
            &event("\"what\":\"arguments\",\"call\":1,\"tool\":\"shell\",\"text\":\"{\\\"a\\\":\""),
            &event("\"what\":\"arguments\",\"call\":1,\"tool\":\"shell\",\"text\":\"1}\""),
            "data: {\"what\":\"lost\",\"count\":3}\n\n",
            "data: {\"what\":\"budget\",\"text\":\"low\\u001b\"}\n\n",
            &event("\"what\":\"tool_finished\",\"tool\":\"shell\",\"failed\":true"),
            &event("\"what\":\"text\",\"text\":\"end\""),
        ]
        .concat();
        let expected = "main channel:7 c  started\nmain channel:7 c  thinks: hm yes\\n\\u{1b}[31m\n\
            main channel:7 c  calls shell: {\"a\":1}\n(3 events were lost: this terminal is too slow)\n\
            budget: low\\u{1b}\n\
            main channel:7 c  shell failed\nmain channel:7 c  says: end\n";
        assert_eq!(shown(&events, false), expected);
        assert_eq!(shown(&events, true).lines().count(), 10);
    }
}
