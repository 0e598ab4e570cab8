//! `spacebot cortex`: one message to the cortex of an agent, and its answer, over the running daemon.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::chat::{ApiClient, ChatError, Piece, Typing, printable};
use crate::config::Config;
use crate::thread::Cancel;

/// Between two looks for the answer.
const POLL_PAUSE: Duration = Duration::from_millis(300);
/// Beside what the daemon gives to one answer.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Begun {
    after: i64,
}

/// What is going on, as the daemon tells it.
#[derive(Deserialize)]
struct News {
    seen: u64,
    steps: Vec<Step>,
    draft: Option<Piece>,
}

#[derive(Deserialize)]
struct Step {
    event: String,
    #[serde(default)]
    tool: String,
    #[serde(default)]
    failed: bool,
}

/// What a terminal shows until the answer is there: steps on standard error, words as they come.
#[derive(Default)]
struct Watch {
    seen: u64,
    typing: Typing,
}

impl Watch {
    /// Where to look for what is new.
    fn query(&self) -> String {
        let (draft, from) = self.typing.seen();
        format!("&seen={}&draft={draft}&from={from}", self.seen)
    }

    fn show(&mut self, news: News, out: &mut impl Write, log: &mut impl Write) -> Result<(), ChatError> {
        self.seen = news.seen;
        for step in news.steps {
            let tool = printable(&step.tool);
            let line = match step.event.as_str() {
                "thinking" => "thinking".to_owned(),
                "tool_started" => format!("{tool} …"),
                "tool_completed" if step.failed => format!("{tool} failed"),
                "tool_completed" => format!("{tool} done"),
                "error" => "nothing came of it".to_owned(),
                _ => continue,
            };
            self.typing.leave(out)?;
            writeln!(log, "[{line}]").map_err(ChatError::Output)?;
        }
        news.draft.map_or(Ok(()), |piece| self.typing.grow(out, &piece))
    }
}

#[derive(Deserialize)]
struct Messages {
    messages: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    role: String,
    content: String,
}

/// Sends `message` to a thread and prints the answer; with a `channel`, the cortex sees its last lines.
///
/// # Errors
/// The daemon cannot be reached, is busy with another message, or does not answer in time.
pub fn run(
    config: &Config,
    agent: Option<&str>,
    thread: &str,
    channel: Option<&str>,
    message: &str,
) -> Result<(), ChatError> {
    let client = ApiClient::new(&config.api)?;
    // The daemon gives an answer as long as a worker, and at least a minute.
    let timeout = config.agent(agent).map(|agent| agent.limits.worker_timeout).unwrap_or_default();
    let mut body = json!({ "thread_id": thread, "message": message });
    if let Some(agent) = agent {
        body["agent_id"] = Value::from(agent);
    }
    if let Some(channel) = channel {
        body["channel_id"] = Value::from(channel);
    }
    let grows = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    let mut watch = Watch::default();
    let of_agent = agent.map(|agent| format!("&agent_id={}", client.encoded(agent))).unwrap_or_default();
    let progress = format!("cortex-chat/progress?thread_id={}{of_agent}", client.encoded(thread));
    if grows {
        // What went on before is not ours.
        let before: News = client.get(&progress)?;
        watch.seen = before.seen;
    }
    let Begun { after } = client.post("cortex-chat/send", &body)?;
    let path = format!("cortex-chat/messages?thread_id={}&after={after}{of_agent}", client.encoded(thread));
    let (deadline, pause) = (Instant::now() + timeout + PATIENCE, Cancel::new());
    loop {
        if grows {
            let news = client.get(&format!("{progress}{}", watch.query()))?;
            watch.show(news, &mut std::io::stdout(), &mut std::io::stderr())?;
        }
        let Messages { messages } = client.get(&path)?;
        // What stands before it tells a result that came meanwhile.
        let answered = messages.iter().skip_while(|message| message.role != "user");
        if let Some(answer) = answered.skip(1).find(|message| message.role == "assistant") {
            return watch.typing.end(&mut std::io::stdout().lock(), &answer.content);
        }
        if Instant::now() >= deadline {
            return Err(ChatError::NoAnswer);
        }
        pause.wait(POLL_PAUSE);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_shows_what_goes_on_and_the_answer_once() {
        let (mut watch, mut out, mut log) = (Watch::default(), Vec::new(), Vec::new());
        for news in [
            json!({ "seen": 2, "steps": [{ "event": "thinking" }, { "event": "tool_started", "tool": "shell" }], "draft": null }),
            json!({ "seen": 3, "steps": [{ "event": "tool_completed", "tool": "shell", "failed": true }],
                "draft": { "number": 9, "from": 0, "content": "I see " } }),
            json!({ "seen": 4, "steps": [{ "event": "done" }], "draft": null }),
        ] {
            watch.show(serde_json::from_value(news).unwrap(), &mut out, &mut log).unwrap();
        }
        assert_eq!(watch.query(), "&seen=4&draft=9&from=6");
        watch.typing.end(&mut out, "I see twelve").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "I see twelve\n");
        assert_eq!(String::from_utf8(log).unwrap(), "[thinking]\n[shell …]\n[shell failed]\n");
    }
}
