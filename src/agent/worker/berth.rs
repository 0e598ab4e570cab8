//! What is around a worker while it runs: a live one has the database, the hub and the window of its model
//! there, a replayed one its journal.

use std::collections::VecDeque;

use crossbeam_channel::select;
use rig_core::completion::Message;

use super::WorkerState;
use crate::agent::driver::{Driver, Ended};
use crate::agent::job::Job;
use crate::agent::link::Link;
use crate::agent::room::{self, Room, Trim};
use crate::agent::{AgentParts, PERSIST_RETRY_BASE, persist, resume};
use crate::config::RoutingConfig;
use crate::conversation::Record;
use crate::db::DbError;
use crate::error::Kind;
use crate::event::{How, What};
use crate::id::ProcessKind;

pub(in crate::agent) trait Berth {
    /// It begins with something that it was told to do.
    fn begin(&mut self) {}

    /// Messages for it while it works.
    fn next_message(&mut self) -> Option<String>;

    /// What leaves its history before the model is asked with these messages.
    fn before_model(&mut self, messages: &[&Message]) -> Option<Trim>;

    /// What leaves these messages, which are too long.
    fn too_long(&mut self, messages: &[&Message]) -> Option<Trim>;

    /// It is cut off, and goes on after the next start.
    fn stays(&self, _ended: &Ended) -> bool {
        false
    }

    /// It has a result; `records` say so in its journal.
    fn begin_to_wait(&mut self, _result: &str, _records: Vec<Record>) -> Result<(), How> {
        Ok(())
    }

    /// A message for it while it waits. None: it was stopped.
    fn wait(&mut self) -> Result<Option<String>, How>;

    /// It works again; `records` say so in its journal.
    fn end_to_wait(&mut self, _records: Vec<Record>) -> Result<(), How> {
        Ok(())
    }
}

pub(super) struct Live<'a> {
    parts: &'a AgentParts,
    job: &'a Job,
    link: &'a Link<'a>,
    state: WorkerState,
    room: Room<'a>,
    /// Read and not heard yet.
    messages: VecDeque<String>,
    /// The row of the newest message that was read.
    newest: i64,
    /// There may be more messages in the database. So it is at the beginning, of one that was cut off.
    rung: bool,
}

impl<'a> Live<'a> {
    /// `task` is where the task stands in its history.
    pub(super) fn new(
        parts: &'a AgentParts,
        job: &'a Job,
        link: &'a Link<'a>,
        (driver, routing): (&Driver<'_>, RoutingConfig),
        task: usize,
        state: WorkerState,
    ) -> Self {
        let fixed = room::fixed_tokens(driver.spec.preamble.as_deref(), driver.toolbox.definitions());
        let room = Room::new(parts, (ProcessKind::Worker, routing), fixed, task);
        Self { parts, job, link, state, room, messages: VecDeque::new(), newest: 0, rung: true }
    }

    /// The next message, read from the database behind a ring.
    fn message(&mut self) -> Result<Option<String>, DbError> {
        self.rung |= self.link.rings.try_recv().is_ok();
        if self.messages.is_empty() && self.rung {
            let read = self.parts.conversations.routed(self.job.process.number, self.newest)?;
            self.rung = false;
            self.newest = read.last().map_or(self.newest, |(row, _)| *row);
            self.messages.extend(read.into_iter().map(|(_, message)| message));
        }
        Ok(self.messages.pop_front())
    }

    fn turn_to(&mut self, next: WorkerState, result: Option<&str>, records: &[Record]) -> Result<(), How> {
        let from = self.state;
        if !from.can_become(next) {
            return Err(How::Failed(Kind::Bug, format!("{} cannot become {}", from.as_str(), next.as_str())));
        }
        let (conversations, number) = (&self.parts.conversations, self.job.process.number);
        let moved = persist(self.link.cancel, || {
            let result = result.map(str::to_owned);
            conversations.move_worker(number, from.as_str(), next.as_str(), result, records.to_vec())
        });
        self.state = next;
        if moved == How::Finished { Ok(()) } else { Err(moved) }
    }
}

impl Berth for Live<'_> {
    fn begin(&mut self) {
        self.room.begin();
    }

    fn next_message(&mut self) -> Option<String> {
        // What cannot be read now is read before the next step.
        self.message()
            .inspect_err(|error| log::warn!("{} cannot read messages: {error}", self.job.process))
            .ok()?
    }

    fn before_model(&mut self, messages: &[&Message]) -> Option<Trim> {
        self.room.compact(messages)
    }

    fn too_long(&mut self, messages: &[&Message]) -> Option<Trim> {
        self.room.overflow(messages)
    }

    fn stays(&self, ended: &Ended) -> bool {
        resume::stays(self.job, ended, self.link)
    }

    /// Stores the result and tells the hub.
    fn begin_to_wait(&mut self, result: &str, records: Vec<Record>) -> Result<(), How> {
        let result = self.parts.llm.scrubber().hide_keys(result).to_string();
        self.turn_to(WorkerState::WaitingForInput, Some(&result), &records)?;
        (self.link.up)(What::Waiting);
        Ok(())
    }

    fn wait(&mut self) -> Result<Option<String>, How> {
        while !self.link.cancel.is_cancelled() {
            match self.message() {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => select! {
                    recv(self.link.rings) -> ring => match ring {
                        Ok(()) => self.rung = true,
                        Err(_) => return Ok(None),
                    },
                    recv(self.link.cancel.receiver()) -> _ => {}
                },
                Err(error) => {
                    log::warn!("{} cannot read messages: {error}", self.job.process);
                    self.link.cancel.wait(PERSIST_RETRY_BASE);
                }
            }
        }
        Ok(None)
    }

    fn end_to_wait(&mut self, records: Vec<Record>) -> Result<(), How> {
        self.turn_to(WorkerState::Running, None, &records)?;
        (self.link.up)(What::Works);
        Ok(())
    }
}
