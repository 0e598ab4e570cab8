//! `spacebot cortex`: one message to the cortex of an agent, and its answer, over the running daemon.

use std::io::Write;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::chat::{ApiClient, ChatError, printable};
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
    let Begun { after } = client.post("cortex-chat/send", &body)?;
    let agent = agent.map(|agent| format!("&agent_id={}", client.encoded(agent))).unwrap_or_default();
    let path = format!("cortex-chat/messages?thread_id={}&after={after}{agent}", client.encoded(thread));
    let (deadline, pause) = (Instant::now() + timeout + PATIENCE, Cancel::new());
    loop {
        let Messages { messages } = client.get(&path)?;
        // What stands before it tells a result that came meanwhile.
        let answered = messages.iter().skip_while(|message| message.role != "user");
        if let Some(answer) = answered.skip(1).find(|message| message.role == "assistant") {
            let mut out = std::io::stdout().lock();
            return writeln!(out, "{}", printable(&answer.content)).map_err(ChatError::Output);
        }
        if Instant::now() >= deadline {
            return Err(ChatError::NoAnswer);
        }
        pause.wait(POLL_PAUSE);
    }
}
