//! `spacebot chat`: a conversation with the running daemon over its local API.

mod attach;
mod client;
mod error;
mod lines;
mod typing;

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub use error::ChatError;

use crate::config::ApiConfig;
use crate::error::log_line;
use crate::thread;
pub(super) use client::{ApiClient, Piece};
use client::{Client, Incoming, News};
use lines::Line;
pub(super) use typing::Typing;

/// Seconds that one poll waits at the daemon.
const POLL_WAIT_SECONDS: u64 = 20;
/// The same where the input is no terminal: its end is noticed after one poll.
const PIPE_POLL_WAIT_SECONDS: u64 = 1;
/// How long `--once`, and the end of a pipe, wait for the answer.
const ONCE_TIMEOUT: Duration = Duration::from_secs(300);
/// Pause after a daemon that did not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// One terminal's end of a conversation.
#[derive(Clone)]
pub struct Chat {
    client: Client,
    /// What the ids of this run's messages begin with.
    run: String,
}

/// What the reading and the listening thread know of each other.
#[derive(Default)]
struct Shared {
    sent: AtomicUsize,
    input_is_over: AtomicBool,
}

impl Chat {
    /// # Errors
    /// The config switches the API off.
    pub fn new(api: &ApiConfig, agent: Option<String>, session: &str) -> Result<Self, ChatError> {
        Ok(Self { client: Client::new(api, agent, session)?, run: uuid::Uuid::now_v7().to_string() })
    }

    /// Sends one message with these files and prints what answers it, until nothing runs for it any more. Answers to
    /// earlier messages, which nobody fetched, go to standard error.
    ///
    /// # Errors
    /// A file cannot be read; the daemon cannot be reached, refuses, or does not answer in time.
    pub fn once(&self, text: &str, files: &[PathBuf], out: &mut impl Write) -> Result<(), ChatError> {
        let id = self.message_id(0);
        self.client.send(&id, text, &attach::read(files)?)?;
        let (deadline, mut after, mut answered) = (Instant::now() + ONCE_TIMEOUT, 0, false);
        let mut show = |messages: &[Incoming], after: &mut i64, answered: &mut bool| {
            for message in messages {
                *after = message.id.max(*after);
                let is_answer = message.in_reply_to.contains(&id);
                *answered |= is_answer;
                if is_answer {
                    print(out, &message.content)?;
                } else {
                    eprintln!("to an earlier message: {}", printable(&message.content));
                }
            }
            Ok(())
        };
        while Instant::now() < deadline {
            let messages = self.client.poll(after, POLL_WAIT_SECONDS).map_err(lost)?;
            show(&messages, &mut after, &mut answered)?;
            if answered && !self.client.is_busy().unwrap_or(false) {
                // What came between the two looks, and the acknowledgement of the rest. A daemon that
                // is gone by now has answered.
                let rest = self.client.poll(after, 0).unwrap_or_default();
                show(&rest, &mut after, &mut answered)?;
                if !rest.is_empty() {
                    self.client.poll(after, 0).ok();
                }
                return Ok(());
            }
        }
        if answered { Ok(()) } else { Err(ChatError::NoAnswer) }
    }

    /// Reads lines from `input` until it ends or says `/quit`, and prints answers as they come. On a
    /// terminal that is all; the end of a pipe waits for the answers to what was sent.
    ///
    /// # Errors
    /// The daemon cannot be reached at the start; the input cannot be read; from a pipe, a line was not
    /// sent or not answered.
    pub fn interactive(&self, mut input: impl BufRead, is_terminal: bool) -> Result<(), ChatError> {
        self.client.is_busy()?;
        let shared = Arc::new(Shared::default());
        let (chat, of_listener) = (self.clone(), shared.clone());
        let listener = thread::spawn("chat-listen", move || chat.listen(&of_listener, is_terminal))
            .map_err(ChatError::Thread)?;
        if is_terminal {
            println!("Write a message and press Enter; /quit or Ctrl-D leaves.");
        }
        let mut not_sent = 0;
        loop {
            let failed = match lines::read(&mut input).map_err(ChatError::Input)? {
                Line::End => break,
                Line::Text(line) if matches!(line.trim(), "/quit" | "/exit") => break,
                Line::Text(line) if line.trim().is_empty() => continue,
                Line::Text(line) => self.say(line.trim(), &shared).err(),
                Line::TooLong => Some(ChatError::TooLong),
                Line::NotUtf8 => Some(ChatError::NotUtf8),
            };
            if let Some(error) = failed {
                not_sent += 1;
                eprintln!("not sent: {}", log_line(&error));
            }
        }
        if is_terminal {
            println!();
            return Ok(());
        }
        shared.input_is_over.store(true, Ordering::SeqCst);
        match listener.join() {
            Ok(Ok(())) if not_sent > 0 => Err(ChatError::NotSent(not_sent)),
            Ok(outcome) => outcome,
            // The panic has been told by then.
            Err(_) => Err(ChatError::Lost),
        }
    }

    fn say(&self, text: &str, shared: &Shared) -> Result<(), ChatError> {
        self.client.send(&self.message_id(shared.sent.load(Ordering::SeqCst)), text, &[])?;
        shared.sent.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn message_id(&self, number: usize) -> String {
        format!("{}-{number}", self.run)
    }

    /// Prints what comes. On a terminal until the process ends, else until all is answered.
    fn listen(&self, shared: &Shared, is_terminal: bool) -> Result<(), ChatError> {
        let wait = if is_terminal { POLL_WAIT_SECONDS } else { PIPE_POLL_WAIT_SECONDS };
        let (mut after, mut answered, mut is_lost) = (0, BTreeSet::new(), false);
        let grows = is_terminal && std::io::stdout().is_terminal();
        let (mut deadline, mut typing, mut out) = (None, Typing::default(), std::io::stdout());
        loop {
            let is_over = shared.input_is_over.load(Ordering::SeqCst);
            let is_done =
                |answered: &BTreeSet<String>| is_over && answered.len() >= shared.sent.load(Ordering::SeqCst);
            let wait = if is_lost || is_done(&answered) { 0 } else { wait };
            let news = match grows {
                true => self.client.watch(after, wait, typing.seen()),
                false => self.client.poll(after, wait).map(|messages| News { messages, draft: None }),
            };
            match news {
                Ok(News { messages, draft }) => {
                    if std::mem::take(&mut is_lost) {
                        eprintln!("the daemon is back");
                    }
                    let nothing_came = messages.is_empty();
                    if let Some(piece) = draft {
                        typing.grow(&mut out, &piece)?;
                    }
                    for message in messages {
                        after = after.max(message.id);
                        typing.end(&mut out, &message.content)?;
                        let own = message.in_reply_to.into_iter().filter(|id| id.starts_with(&self.run));
                        answered.extend(own);
                    }
                    if is_done(&answered) && nothing_came && !self.client.is_busy().unwrap_or(false) {
                        return Ok(());
                    }
                }
                Err(error) if is_over => return Err(lost(error)),
                Err(error) => {
                    if !std::mem::replace(&mut is_lost, true) {
                        eprintln!("{}; trying again", log_line(&error));
                    }
                    std::thread::park_timeout(RETRY_PAUSE);
                }
            }
            if is_over && Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + ONCE_TIMEOUT) {
                return Err(ChatError::NoAnswer);
            }
        }
    }
}

/// A daemon that took the message and is gone.
fn lost(error: ChatError) -> ChatError {
    match error {
        ChatError::Unreachable { .. } => ChatError::Lost,
        error => error,
    }
}

fn print(out: &mut impl Write, text: &str) -> Result<(), ChatError> {
    writeln!(out, "{}", printable(text)).and_then(|()| out.flush()).map_err(ChatError::Output)
}

/// Text for a terminal: what would move the cursor or change colours is dropped.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control() || matches!(character, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_terminal_gets_no_escape_sequences() {
        assert_eq!(super::printable("a\u{1b}[31mb\nc\td\r\u{7}"), "a[31mb\nc\td");
    }
}
