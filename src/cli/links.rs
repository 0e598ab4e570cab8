//! `spacebot links`: what an agent and others have asked of each other and what came back, with times. It is read
//! from the rows that carry it: this agent's own requests, and the tasks on its board that others asked for.

use std::io::{self, BufWriter, Write};

use serde_json::{Value, json};

use super::chat::printable;
use super::database::{self, AgentDatabaseError};
use crate::clock::{SystemClock, Timestamp};
use crate::config::{AgentConfig, Config};
use crate::conversation::{Conversations, Request};
use crate::db::DbError;
use crate::error::{Fault, Kind};
use crate::id::AgentId;
use crate::tasks::{Status, Task, Tasks};
use crate::text;

/// Bytes of a text that are shown in one line; JSON has all of it.
const SHOWN_BYTES: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    #[error("{0}")]
    Agent(#[from] AgentDatabaseError),
    #[error("{0}")]
    Database(#[from] DbError),
    #[error("the output could not be written: {0}")]
    Output(#[from] io::Error),
}

impl Fault for LinksError {
    fn kind(&self) -> Kind {
        match self {
            LinksError::Agent(error) => error.kind(),
            LinksError::Database(error) => error.kind(),
            LinksError::Output(_) => Kind::Invalid,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            LinksError::Agent(error) => error.hint(),
            LinksError::Database(error) => error.hint(),
            _ => None,
        }
    }
}

/// One thing that was said between two agents.
struct Said {
    at: Timestamp,
    from: AgentId,
    to: AgentId,
    /// `request 3`, or `task 5` where the other agent asked.
    about: String,
    /// An answer, not a question.
    answers: bool,
    /// How far it is.
    state: String,
    text: String,
}

/// Prints what was said between `agent` and `with`, or all others; of either direction the newest `limit`.
///
/// # Errors
/// It cannot be read.
pub fn run(
    config: &Config,
    agent: Option<&str>,
    with: Option<&str>,
    limit: usize,
    as_json: bool,
) -> Result<(), LinksError> {
    let ((agent, db), with) = (database::open(config, agent)?, with.map(AgentId::new));
    let conversations = Conversations::new(db.clone(), SystemClock::shared());
    let board = Tasks::new(db, SystemClock::shared());
    let own = conversations.requests(with.as_ref(), limit)?;
    let mut said: Vec<Said> = own.into_iter().flat_map(|request| of_request(&agent.id, request)).collect();
    let others = board.asked_by_others(with.as_ref(), limit)?;
    said.extend(others.into_iter().flat_map(|task| of_task(&agent.id, task)));
    said.sort_by_key(|said| said.at);
    let mut out = BufWriter::new(io::stdout().lock());
    for said in &said {
        if as_json {
            writeln!(out, "{}", said.json())?;
        } else {
            writeln!(out, "{}", said.line(agent))?;
        }
    }
    if said.is_empty() && !as_json {
        writeln!(out, "nothing has been said")?;
    }
    Ok(out.flush()?)
}

fn of_request(agent: &AgentId, request: Request) -> Vec<Said> {
    let Request { id, target, message, state, result, created_at, answered_at, .. } = request;
    let about = format!("request {id}");
    let asked = Said {
        at: created_at,
        from: agent.clone(),
        to: target.clone(),
        about: about.clone(),
        answers: false,
        state: state.clone(),
        text: message,
    };
    let answered = result.zip(answered_at).map(|(text, at)| Said {
        at,
        from: target,
        to: agent.clone(),
        about,
        answers: true,
        state,
        text,
    });
    [Some(asked), answered].into_iter().flatten().collect()
}

fn of_task(agent: &AgentId, task: Task) -> Vec<Said> {
    let Some(asked) = task.asked else { return Vec::new() };
    let (about, state) = (format!("task {}", task.number), task.status.as_str().to_owned());
    let over = matches!(task.status, Status::Done | Status::Failed);
    let answered = task.completed_at.unwrap_or(task.updated_at);
    let question = Said {
        at: task.created_at,
        from: asked.by.clone(),
        to: agent.clone(),
        about: about.clone(),
        answers: false,
        state: state.clone(),
        text: task.description,
    };
    let answer = over.then(|| Said {
        at: answered,
        from: agent.clone(),
        to: asked.by,
        about,
        answers: true,
        state,
        text: task.result.unwrap_or_default(),
    });
    [Some(question), answer].into_iter().flatten().collect()
}

impl Said {
    fn line(&self, agent: &AgentConfig) -> String {
        let at = agent.timezone.format(self.at, "%Y-%m-%d %H:%M:%S");
        let verb = if self.answers { "answers" } else { "asks" };
        let text = printable(&text::one_line(&self.text, SHOWN_BYTES));
        let (from, to) = (printable(self.from.as_str()), printable(self.to.as_str()));
        format!("{at}  {from} -> {to}  {verb} ({}, {}): {text}", self.about, printable(&self.state))
    }

    fn json(&self) -> Value {
        json!({
            "at": self.at.to_rfc3339_milliseconds(), "from": self.from.as_str(), "to": self.to.as_str(),
            "kind": if self.answers { "answer" } else { "question" }, "about": self.about,
            "state": self.state, "text": self.text,
        })
    }
}
