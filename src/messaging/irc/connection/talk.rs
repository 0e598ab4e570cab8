//! One connection from its first line to its last.

use std::time::Duration;

use super::super::dial::wait;
use super::super::grammar::Framer;
use super::super::protocol::{Action, Closing, Moment, Report, Session};
use super::super::socket::{Behind, Socket};
use super::{After, Connection, OUTBOX_WAIT};
use crate::error::{Fault, log_line};
use crate::id::{ConversationId, OutboxId};
use crate::message::{Delivery, Outbound};

/// Answers read from the outbox at once.
const ANSWERS: usize = 8;
/// Rows of the outbox that cannot be begun and are passed over; the oldest is tried again.
const MAX_PASSED_OVER: usize = 4;
/// Longest wait of one poll, so that a clock that jumps does no harm.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long we listen after QUIT for the confirmation of what was said last.
const GOODBYE: Duration = Duration::from_millis(150);

pub(super) struct Talk {
    session: Session,
    socket: Socket,
    framer: Framer,
    behind: Behind,
    registered: Option<Duration>,
    /// The outbox may hold something, as far as we know; and when to look there.
    look: bool,
    look_at: Duration,
    passed_over: Vec<(OutboxId, ConversationId)>,
    /// The first lines, until they are written.
    first: Vec<Action>,
}

impl Talk {
    pub(super) fn new(connection: &Connection, socket: Socket) -> Self {
        let now = connection.now();
        let id = uuid::Uuid::now_v7().simple().to_string();
        let (session, first) = Session::open(connection.parts.settings.clone(), id, now);
        Self {
            session,
            socket,
            framer: Framer::default(),
            behind: Behind::Nothing,
            registered: None,
            look: true,
            look_at: Duration::ZERO,
            passed_over: Vec::new(),
            first,
        }
    }

    /// How long the server has known us.
    pub(super) fn age(&self, now: Moment) -> Option<Duration> {
        self.registered.map(|since| now.steady.saturating_sub(since))
    }

    pub(super) fn run(&mut self, connection: &mut Connection) -> Closing {
        let first = std::mem::take(&mut self.first);
        let mut going = self.perform(first, connection);
        loop {
            if let Err(closing) = going {
                return closing;
            }
            if connection.parts.cancel.is_cancelled() {
                self.say_goodbye(connection);
                return Closing::Lost("stopped".to_owned());
            }
            going = self.turn(connection);
        }
    }

    fn turn(&mut self, connection: &mut Connection) -> Result<(), Closing> {
        let now = connection.now();
        connection.catch_up(now);
        if let Some(after) = connection.store_held(now) {
            self.after(&after, connection)?;
        }
        if connection.held.is_some() {
            self.session.heard(now);
        }
        let due = self.session.tick(now);
        self.perform(due, connection)?;
        self.read_lines(connection)?;
        self.take_answers(connection)?;
        if connection.held.is_none() && self.behind == Behind::End {
            return Err(Closing::Lost("the server closed the connection".to_owned()));
        }
        let listen = connection.held.is_none();
        let again = listen && self.behind == Behind::More;
        let longest = if again { Duration::ZERO } else { self.longest_wait(connection) };
        self.look |= wait(&self.socket, listen, &connection.parts.bell, longest);
        self.flush()?;
        if listen {
            let mut bytes = Vec::new();
            let read = self.socket.read(&mut bytes);
            self.framer.push(&bytes);
            self.behind = read.map_err(|error| Closing::Lost(error.to_string()))?;
            self.read_lines(connection)?;
        }
        Ok(())
    }

    /// Handles whole lines until one of them brings a message that has to be held.
    fn read_lines(&mut self, connection: &mut Connection) -> Result<(), Closing> {
        while connection.held.is_none()
            && let Some(line) = self.framer.next_line()
        {
            let actions = self.session.handle(&line, connection.now());
            self.perform(actions, connection)?;
        }
        Ok(())
    }

    fn longest_wait(&mut self, connection: &Connection) -> Duration {
        let now = connection.now();
        let held = connection.held.as_ref().map(|held| held.next);
        let record = (!connection.unrecorded.is_empty()).then_some(connection.record_at);
        let look = self.look.then(|| self.session.free_at(now)).flatten();
        let look_again = (self.look && self.look_at > now.steady).then_some(self.look_at);
        let others = [held, record, look, look_again];
        let next = others.into_iter().flatten().fold(self.session.deadline(now), Duration::min);
        next.saturating_sub(now.steady).min(LONGEST_WAIT)
    }

    fn perform(&mut self, actions: Vec<Action>, connection: &mut Connection) -> Result<(), Closing> {
        for action in actions {
            match action {
                Action::Write(line) => {
                    self.socket.push(&line).map_err(|error| Closing::Lost(error.to_string()))?;
                }
                Action::Deliver(arrival) => {
                    if let Some(after) = connection.receive(arrival) {
                        self.after(&after, connection)?;
                    }
                }
                Action::Progress(progress) => connection.conclude(progress),
                Action::Report(report) => {
                    self.report(&report, connection);
                    if let Report::Joined { channel } = &report {
                        let beginning = connection.beginning(&self.session.conversation(channel));
                        let more = self.session.enter(channel, beginning, connection.now());
                        self.perform(more, connection)?;
                    }
                }
                Action::Close(closing) => {
                    // Best effort: the last lines say why, and the connection is over either way.
                    self.socket.flush().ok();
                    return Err(closing);
                }
            }
        }
        self.flush()
    }

    /// What follows from a message that was given to the intake.
    fn after(&mut self, after: &After, connection: &mut Connection) -> Result<(), Closing> {
        let now = connection.now();
        match after {
            After::Kept(channel) => {
                self.session.begun(channel, now);
                Ok(())
            }
            After::Lost(reply_to) => {
                let actions = self.session.apologise(reply_to, now);
                self.perform(actions, connection)
            }
        }
    }

    fn flush(&mut self) -> Result<(), Closing> {
        self.socket.flush().map_err(|error| Closing::Lost(error.to_string()))
    }

    fn report(&mut self, report: &Report, connection: &Connection) {
        let instance = connection.instance();
        match report {
            Report::Registered { nick } => {
                self.registered = Some(connection.now().steady);
                connection.parts.state.up(nick);
                log::info!("{instance}: {report}");
            }
            Report::Renamed { nick } => {
                connection.parts.state.up(nick);
                log::info!("{instance}: {report}");
            }
            Report::LoggedIn { .. } | Report::Joined { .. } | Report::Refused { .. } => {
                log::info!("{instance}: {report}");
            }
            Report::NotInChannel { .. } | Report::Warning { .. } => log::warn!("{instance}: {report}"),
        }
    }

    /// Takes answers from the outbox while they would go out at once, each noted as begun before its
    /// first byte (P2).
    fn take_answers(&mut self, connection: &mut Connection) -> Result<(), Closing> {
        let now = connection.now();
        let ready = self.look && now.steady >= self.look_at && connection.unrecorded.is_empty();
        if !ready || !self.session.is_free(now) {
            return Ok(());
        }
        let instance = connection.instance().clone();
        let limit = ANSWERS + MAX_PASSED_OVER;
        let pending = match connection.parts.outbox.pending(&instance, None, OutboxId(0), limit) {
            Ok(pending) => pending,
            Err(error) => {
                log::error!("{instance}: {}", log_line(&error));
                self.look_at = now.steady + OUTBOX_WAIT;
                return Ok(());
            }
        };
        self.look = pending.len() >= limit;
        for outbound in pending {
            if self.is_passed_over(&outbound) {
                continue;
            }
            if !self.session.is_free(connection.now()) {
                self.look = true;
                return Ok(());
            }
            if self.begin(&outbound, connection) {
                let actions = self.session.say(outbound, connection.now());
                self.perform(actions, connection)?;
            }
        }
        Ok(())
    }

    /// Notes that an answer is begun; false when it must not go out.
    fn begin(&mut self, outbound: &Outbound, connection: &mut Connection) -> bool {
        let (id, conversation) = (outbound.id, &outbound.conversation);
        let Err(error) = connection.parts.outbox.record(&[id], conversation, Delivery::Sending) else {
            connection.begun.push((id, conversation.clone()));
            return true;
        };
        log::error!("{}: answer {id} waits: {}", connection.instance(), log_line(&error));
        if error.kind().is_retryable() {
            self.look = true;
            self.look_at = connection.parts.clock.monotonic() + OUTBOX_WAIT;
        } else {
            self.passed_over.push((id, conversation.clone()));
            if self.passed_over.len() > MAX_PASSED_OVER {
                self.passed_over.remove(0);
            }
        }
        false
    }

    fn is_passed_over(&self, outbound: &Outbound) -> bool {
        self.passed_over
            .iter()
            .any(|(id, conversation)| (*id, conversation) == (outbound.id, &outbound.conversation))
    }

    /// Says QUIT and listens for a moment: what was said last is then known to have arrived.
    fn say_goodbye(&mut self, connection: &mut Connection) {
        let unstored = connection.held.take().map(|held| held.arrival.reply_to);
        for action in self.session.goodbye(unstored.as_deref()) {
            if let Action::Write(line) = action {
                // The server notices the closed socket in any case.
                self.socket.push(&line).ok();
            }
        }
        if self.socket.finish().is_err() {
            return;
        }
        let until = connection.now().steady + GOODBYE;
        while self.behind != Behind::End && !connection.begun.is_empty() {
            let left = until.saturating_sub(connection.now().steady);
            if left.is_zero() {
                return;
            }
            wait(&self.socket, true, &connection.parts.bell, left);
            let mut bytes = Vec::new();
            let Ok(behind) = self.socket.read(&mut bytes) else { return };
            self.behind = behind;
            self.framer.push(&bytes);
            while let Some(line) = self.framer.next_line() {
                for action in self.session.handle(&line, connection.now()) {
                    if let Action::Progress(progress) = action {
                        connection.conclude(progress);
                    }
                }
            }
        }
    }
}
