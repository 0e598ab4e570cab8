//! What other agents did for a message: the task that a request became there, and its runs, from the databases of
//! those agents.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::{Sum, run_json, shown, tell_run};
use crate::clock::SystemClock;
use crate::conversation::{Conversations, Request, Run};
use crate::db::{Db, DbError};
use crate::id::AgentId;
use crate::tasks::{Task, Tasks};

/// A request and what was found of it.
pub(super) struct Elsewhere {
    pub(super) request: Request,
    found: Found,
}

enum Found {
    Task(Box<Task>, Vec<Run>),
    /// It is on no board (yet), or not any more.
    NoTask,
    /// The other agent has no database here, or one that cannot be read.
    NoDatabase(String),
}

impl Elsewhere {
    /// `file`: the database of the agent that was asked.
    pub(super) fn look(asker: &AgentId, request: Request, file: &Path) -> Self {
        let found = if file.exists() {
            find(asker, &request, file).unwrap_or_else(|error| Found::NoDatabase(error.to_string()))
        } else {
            Found::NoDatabase("it is not there".to_owned())
        };
        Self { request, found }
    }

    pub(super) fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        if let Found::Task(_, runs) = &self.found {
            runs.iter().for_each(|run| sum.add(&Sum::of(&run.records)));
        }
        sum
    }

    pub(super) fn tell(&self, out: &mut impl Write) -> io::Result<()> {
        let Request { id, target, message, state, result, created_at, answered_at, .. } = &self.request;
        writeln!(out, "delegation {id} to {}: {}", shown(target.as_str()), shown(message))?;
        match &self.found {
            Found::Task(task, runs) => {
                let (number, status) = (task.number, task.status.as_str());
                writeln!(out, "  task #{number} of {}: {status}", shown(target.as_str()))?;
                let mut lines = Vec::new();
                for run in runs {
                    tell_run(run, &Sum::of(&run.records), &mut lines)?;
                }
                for line in String::from_utf8_lossy(&lines).lines() {
                    writeln!(out, "    {line}")?;
                }
            }
            Found::NoTask => writeln!(out, "  on the board of {}: nothing of it", shown(target.as_str()))?,
            Found::NoDatabase(why) => {
                writeln!(
                    out,
                    "  the database of {} cannot be looked at: {}",
                    shown(target.as_str()),
                    shown(why)
                )?;
            }
        }
        match (result, answered_at) {
            (Some(result), Some(at)) => {
                let after = at.since(*created_at).as_secs_f64();
                writeln!(out, "  came back after {after:.2} s: {}", shown(result))
            }
            _ => writeln!(out, "  nothing has come back yet ({state})"),
        }
    }

    pub(super) fn json(&self) -> Value {
        let Request { id, target, message, state, result, created_at, answered_at, .. } = &self.request;
        let (task, runs, why) = match &self.found {
            Found::Task(task, runs) => (json!(task), runs.iter().map(run_json).collect(), None),
            Found::NoTask => (Value::Null, Vec::new(), None),
            Found::NoDatabase(why) => (Value::Null, Vec::new(), Some(why)),
        };
        json!({
            "request": id, "agent": target.as_str(), "message": message, "state": state, "result": result,
            "asked_at": created_at.to_rfc3339_milliseconds(),
            "answered_at": answered_at.map(|at| at.to_rfc3339_milliseconds()),
            "task": task, "runs": runs, "sum": self.sum().json(), "no_database": why,
        })
    }
}

fn find(asker: &AgentId, request: &Request, file: &Path) -> Result<Found, DbError> {
    let (db, clock) = (Db::open_inline(file, None)?, SystemClock::shared());
    let board = Tasks::new(db.clone(), clock.clone());
    let Some(task) = board.asked_for(asker, &request.key())? else { return Ok(Found::NoTask) };
    let conversations = Conversations::new(db, clock);
    let mut runs = Vec::new();
    for attempt in board.attempts(task.number)? {
        runs.push(Run { number: attempt.worker, records: conversations.records(attempt.worker)? });
    }
    Ok(Found::Task(Box::new(task), runs))
}
