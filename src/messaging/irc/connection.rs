//! The thread of one instance: connects, moves bytes, hands messages to the intake and answers to the
//! server, and begins again when the connection is lost.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::backoff::{Backoff, Pace};
use super::grammar::{Framer, Message};
use super::protocol::{Action, Closing, Progress, Report, Session};
use super::settings::Settings;
use super::socket::Socket;
use super::{Bell, State};
use crate::clock::SharedClock;
use crate::error::Fault;
use crate::id::OutboxId;
use crate::message::{Accepted, Delivery, Inbound, Intake, Outbox};
use crate::thread::Cancel;

/// Tries to store one message before its writer is told that it is not kept.
const STORE_TRIES: u32 = 5;
const STORE_WAIT: Duration = Duration::from_secs(1);
/// Answers read from the outbox at once.
const ANSWERS: usize = 8;
/// Notes about answers that the disk did not take yet; more are written after the next start.
const MAX_UNRECORDED: usize = 64;
/// Longest wait of one poll, so that a clock that jumps does no harm.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

pub(super) struct Connection {
    settings: Arc<Settings>,
    intake: Arc<dyn Intake>,
    outbox: Arc<dyn Outbox>,
    clock: SharedClock,
    cancel: Cancel,
    bell: Bell,
    state: State,
    unrecorded: Vec<Progress>,
}

impl Connection {
    pub(super) fn new(
        settings: Arc<Settings>,
        intake: Arc<dyn Intake>,
        outbox: Arc<dyn Outbox>,
        clock: SharedClock,
        cancel: Cancel,
        (bell, state): (Bell, State),
    ) -> Self {
        Self { settings, intake, outbox, clock, cancel, bell, state, unrecorded: Vec::new() }
    }

    /// Until the cancel.
    pub(super) fn run(&mut self, pace: Pace) {
        let bell = self.bell.clone();
        let _guard = self.cancel.on_cancel(move || bell.ring());
        let seed = self.clock.now().0.unsigned_abs();
        let mut backoff = Backoff::new(pace, seed);
        while !self.cancel.is_cancelled() {
            let closing = match Socket::connect(&self.settings.config) {
                Ok(socket) => self.serve(socket, &mut backoff),
                Err(error) => Closing::Lost(error.to_string()),
            };
            if self.cancel.is_cancelled() {
                return;
            }
            let (wait, reason) = match closing {
                Closing::Credentials(reason) => (backoff.refused_wait(), reason),
                Closing::Lost(reason) => (backoff.next_wait(), reason),
            };
            self.state.down(&reason);
            log::warn!("{}: {reason}; next try in {} s", self.settings.config.instance, wait.as_secs());
            self.cancel.wait(wait);
        }
    }

    /// One connection from its first line to its end.
    fn serve(&mut self, mut socket: Socket, backoff: &mut Backoff) -> Closing {
        let stamp = format!("{}-{}", self.settings.config.instance, self.clock.now().0);
        let (mut session, first) = Session::begin(self.settings.clone(), self.clock.monotonic(), stamp);
        let mut framer = Framer::default();
        let mut closing = self.perform(first, &mut session, &mut socket, backoff);
        while closing.is_none() {
            if self.cancel.is_cancelled() {
                let quit = super::grammar::line(&["QUIT"], Some(&self.settings.texts.quit));
                // Best effort: the server notices the closed socket anyway.
                socket.push(&quit).and_then(|()| socket.flush()).ok();
                closing = Some(Closing::Lost("stopped".to_owned()));
                break;
            }
            closing = self.turn(&mut session, &mut socket, &mut framer, backoff);
        }
        for action in session.abandon() {
            if let Action::Progress(progress) = action {
                self.record(progress);
            }
        }
        closing.unwrap_or_else(|| Closing::Lost("closed".to_owned()))
    }

    fn turn(
        &mut self,
        session: &mut Session,
        socket: &mut Socket,
        framer: &mut Framer,
        backoff: &mut Backoff,
    ) -> Option<Closing> {
        self.take_answers(session);
        let due = session.tick(self.clock.monotonic());
        if let Some(closing) = self.perform(due, session, socket, backoff) {
            return Some(closing);
        }
        self.wait(session, socket);
        let mut bytes = Vec::new();
        let open = match socket.read(&mut bytes) {
            Ok(open) => open,
            Err(error) => return Some(Closing::Lost(error.to_string())),
        };
        framer.push(&bytes);
        while let Some(line) = framer.next_line() {
            let Some(message) = Message::parse(&line) else { continue };
            let actions = session.handle(&message, self.clock.monotonic(), self.clock.now());
            if let Some(closing) = self.perform(actions, session, socket, backoff) {
                return Some(closing);
            }
        }
        (!open).then(|| Closing::Lost("the server closed the connection".to_owned()))
    }

    /// Until the socket, the bell or the next deadline.
    fn wait(&self, session: &mut Session, socket: &Socket) {
        let now = self.clock.monotonic();
        let wait = session.deadline(now).saturating_sub(now).min(LONGEST_WAIT);
        let timeout = PollTimeout::try_from(wait.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let write = if socket.wants_write() { PollFlags::POLLOUT } else { PollFlags::empty() };
        let mut watched = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN | write),
            PollFd::new(self.bell.0.as_fd(), PollFlags::POLLIN),
        ];
        // Interrupted or not: the loop looks at everything again.
        poll(&mut watched, timeout).ok();
        self.bell.0.read().ok(); // nothing to read when it did not ring
    }

    fn perform(
        &mut self,
        actions: Vec<Action>,
        session: &mut Session,
        socket: &mut Socket,
        backoff: &mut Backoff,
    ) -> Option<Closing> {
        let mut closing = None;
        for action in actions {
            match action {
                Action::Write(line) => {
                    if let Err(error) = socket.push(&line) {
                        closing = Some(Closing::Lost(error.to_string()));
                    }
                }
                Action::Receive(inbound) => self.receive(*inbound, session),
                Action::Progress(progress) => self.record(progress),
                Action::Report(report) => self.report(&report, backoff),
                Action::Close(reason) => closing = closing.or(Some(reason)),
            }
        }
        match socket.flush() {
            Ok(()) => closing,
            Err(error) => closing.or(Some(Closing::Lost(error.to_string()))),
        }
    }

    /// Hands answers to the session while it can send them; each is noted as begun first (P2).
    fn take_answers(&mut self, session: &mut Session) {
        for progress in std::mem::take(&mut self.unrecorded) {
            self.record(progress);
        }
        let now = self.clock.monotonic();
        if !session.takes_answers(now) {
            return;
        }
        let pending = match self.outbox.pending(&self.settings.config.instance, None, OutboxId(0), ANSWERS) {
            Ok(pending) => pending,
            Err(error) => return log::warn!("{}: {error}", self.settings.config.instance),
        };
        for outbound in pending {
            if !session.takes_answers(now) {
                return;
            }
            if let Err(error) = self.outbox.record(&[outbound.id], &outbound.conversation, Delivery::Sending)
            {
                return log::warn!("{}: an answer waits: {error}", self.settings.config.instance);
            }
            if let Err(reason) = session.say(&outbound, now) {
                let (id, conversation) = (outbound.id, outbound.conversation);
                self.record(Progress { id, conversation, delivery: Delivery::Refused { reason } });
            }
        }
    }

    fn record(&mut self, progress: Progress) {
        match &progress.delivery {
            Delivery::Unknown { reason } => log::warn!(
                "{}: answer {} may not have arrived: {reason}",
                self.settings.config.instance,
                progress.id
            ),
            Delivery::Refused { reason } => {
                log::warn!("{}: answer {} was refused: {reason}", self.settings.config.instance, progress.id)
            }
            Delivery::Sending | Delivery::Sent { .. } => {}
        }
        if let Err(error) =
            self.outbox.record(&[progress.id], &progress.conversation, progress.delivery.clone())
        {
            log::warn!("{}: {error}", self.settings.config.instance);
            if self.unrecorded.len() < MAX_UNRECORDED {
                self.unrecorded.push(progress);
            }
        }
    }

    /// Stores a message. Nothing more is read from the socket meanwhile.
    fn receive(&self, inbound: Inbound, session: &mut Session) {
        let mut wait = STORE_WAIT;
        for attempt in 1..=STORE_TRIES {
            match self.intake.accept(inbound.clone()) {
                Ok(Accepted::New(_) | Accepted::Duplicate) => return,
                Ok(Accepted::Refused(reason)) => {
                    return log::debug!("{}: {reason}", self.settings.config.instance);
                }
                Err(error) => {
                    log::error!("{}: a message is not stored: {error}", self.settings.config.instance);
                    if attempt == STORE_TRIES || !error.kind().is_retryable() || self.cancel.wait(wait) {
                        break;
                    }
                    wait *= 2;
                }
            }
        }
        session.not_stored(&inbound.sender_name);
    }

    fn report(&self, report: &Report, backoff: &mut Backoff) {
        let instance = &self.settings.config.instance;
        match report {
            Report::Welcome { nick } => {
                backoff.reset();
                self.state.up(nick);
                log::info!("{instance}: connected as {nick}");
            }
            Report::LoggedIn { account } => log::info!("{instance}: logged in as {account}"),
            Report::Joined { channel } => log::info!("{instance}: in {channel}"),
            Report::NotInChannel { channel, reason, again } => match again {
                Some(wait) => {
                    log::warn!("{instance}: not in {channel}: {reason}; next try in {} s", wait.as_secs())
                }
                None => {
                    log::warn!("{instance}: not in {channel}: {reason}; given up until the next connection")
                }
            },
        }
    }
}
