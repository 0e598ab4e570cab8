//! The thread of one instance: connects, moves bytes, hands messages to the intake and answers to the
//! server, and begins again when the connection is lost.

mod talk;

use std::sync::Arc;
use std::time::Duration;

use super::backoff::{Backoff, Pace};
use super::dial::Dialer;
use super::protocol::{Arrival, Closing, Moment, Progress};
use super::settings::Settings;
use super::{Bell, State};
use crate::clock::SharedClock;
use crate::error::{Fault, log_line};
use crate::id::{ConversationId, OutboxId};
use crate::message::{Accepted, Beginning, Delivery, Intake, IntakeError, Lane, Outbox};
use crate::thread::Cancel;
use talk::Talk;

/// Tries to store one message before its writer is told that it is not kept: about a minute.
const STORE_TRIES: u32 = 12;
/// Wait after the first of them; doubled up to the longest.
const FIRST_STORE_WAIT: Duration = Duration::from_millis(250);
const LONGEST_STORE_WAIT: Duration = Duration::from_secs(8);
/// Wait after the outbox could not be read or written.
const OUTBOX_WAIT: Duration = Duration::from_secs(5);
/// A connection that lived this long was a good one: the next wait is short again.
const GOOD_CONNECTION: Duration = Duration::from_secs(60);

pub(super) struct Connection {
    parts: ConnectionParts,
    dialer: Dialer,
    backoff: Backoff,
    /// Recorded as `Sending`, and nothing else yet.
    begun: Vec<(OutboxId, ConversationId)>,
    /// What the disk did not take yet. Nothing is begun while something stands here, so it holds at
    /// most what was begun before.
    unrecorded: Vec<Progress>,
    record_at: Duration,
    held: Option<Held>,
    /// The last message was given up: the next gets one try, so that a full disk does not cost a
    /// minute for each.
    storage_is_down: bool,
}

pub(super) struct ConnectionParts {
    pub(super) settings: Arc<Settings>,
    pub(super) intake: Arc<dyn Intake>,
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) clock: SharedClock,
    pub(super) cancel: Cancel,
    pub(super) bell: Bell,
    pub(super) state: State,
}

/// What became of a message that somebody has to hear of: the channel or nick that it came from.
enum After {
    /// It is on disk.
    Kept(String),
    /// It is not kept.
    Lost(String),
}

/// The one message that could not be stored yet. Nothing is read from the server meanwhile.
struct Held {
    arrival: Arrival,
    tries: u32,
    wait: Duration,
    next: Duration,
}

impl Connection {
    pub(super) fn new(parts: ConnectionParts, dialer: Dialer, pace: Pace) -> Self {
        let seed = parts.clock.now().0.unsigned_abs();
        Self {
            parts,
            dialer,
            backoff: Backoff::new(pace, seed),
            begun: Vec::new(),
            unrecorded: Vec::new(),
            record_at: Duration::ZERO,
            held: None,
            storage_is_down: false,
        }
    }

    /// Until the cancel. May be called again after a panic.
    pub(super) fn run(&mut self) {
        let bell = self.parts.bell.clone();
        let _guard = self.parts.cancel.on_cancel(move || bell.ring());
        self.give_up_begun("the adapter broke while it was being sent");
        while !self.parts.cancel.is_cancelled() {
            let ended = match self.dialer.dial(&self.parts.bell, &self.parts.cancel, &self.parts.clock) {
                Ok(Some(socket)) => {
                    let mut talk = Talk::new(self, socket);
                    let ended = talk.run(self);
                    if talk.age(self.now()).is_some_and(|age| age >= GOOD_CONNECTION) {
                        self.backoff.reset();
                    }
                    ended
                }
                Ok(None) => return,
                Err(error) => Closing::Lost(error.to_string()),
            };
            if self.parts.cancel.is_cancelled() {
                self.give_up_begun("the daemon stopped before the server confirmed it");
                return;
            }
            self.give_up_begun("the connection was lost before the server confirmed it");
            self.pause(ended);
        }
    }

    fn pause(&mut self, ended: Closing) {
        let (wait, reason) = match ended {
            Closing::Credentials(reason) | Closing::Rejected(reason) => (self.backoff.refused_wait(), reason),
            Closing::Lost(reason) => (self.backoff.next_wait(), reason),
        };
        self.parts.state.down(&reason);
        log::warn!("{}: {reason}; next try in {} s", self.instance(), wait.as_secs());
        self.parts.cancel.wait(wait);
    }

    fn instance(&self) -> &crate::id::InstanceId {
        &self.parts.settings.config.instance
    }

    fn now(&self) -> Moment {
        Moment { wall: self.parts.clock.now(), steady: self.parts.clock.monotonic() }
    }

    /// Nobody knows what became of these: they are not sent again (P2).
    fn give_up_begun(&mut self, reason: &str) {
        for (id, conversation) in std::mem::take(&mut self.begun) {
            let delivery = Delivery::Unknown { reason: reason.to_owned() };
            self.record(Progress { id, conversation, delivery });
        }
    }

    fn conclude(&mut self, progress: Progress) {
        self.begun.retain(|(id, conversation)| (*id, conversation) != (progress.id, &progress.conversation));
        self.record(progress);
    }

    fn record(&mut self, progress: Progress) {
        match &progress.delivery {
            Delivery::Unknown { reason } => {
                log::warn!("{}: answer {} may not have arrived: {reason}", self.instance(), progress.id);
            }
            Delivery::Refused { reason } => {
                log::warn!("{}: answer {} was refused: {reason}", self.instance(), progress.id);
            }
            Delivery::Sending | Delivery::Sent { .. } => {}
        }
        let Progress { id, conversation, delivery } = progress.clone();
        if let Err(error) = self.parts.outbox.record(&[id], &conversation, delivery) {
            log::error!("{}: answer {id}: {}", self.instance(), log_line(&error));
            if error.kind().is_retryable() {
                self.unrecorded.push(progress);
                self.record_at = self.parts.clock.monotonic() + OUTBOX_WAIT;
            }
        }
    }

    /// Writes down what the disk did not take before, when it is time.
    fn catch_up(&mut self, now: Moment) {
        if !self.unrecorded.is_empty() && now.steady >= self.record_at {
            for progress in std::mem::take(&mut self.unrecorded) {
                self.record(progress);
            }
        }
    }

    /// Whether the conversation of a channel has begun.
    fn beginning(&self, conversation: &ConversationId) -> Option<Beginning> {
        self.parts.intake.beginning(self.instance(), conversation)
    }

    /// Gives a message to the intake, or holds it.
    fn receive(&mut self, arrival: Arrival) -> Option<After> {
        let tries = if self.storage_is_down { 1 } else { STORE_TRIES };
        self.store(Held { arrival, tries, wait: FIRST_STORE_WAIT, next: Duration::ZERO })
    }

    /// Tries the held message again when it is time.
    fn store_held(&mut self, now: Moment) -> Option<After> {
        let held = self.held.take_if(|held| held.next <= now.steady)?;
        self.store(held)
    }

    fn store(&mut self, held: Held) -> Option<After> {
        let Arrival { inbound, earlier, .. } = held.arrival.clone();
        let talks = inbound.lane() == Lane::Talk;
        match self.parts.intake.accept_after(inbound, earlier) {
            Ok(accepted) => {
                self.storage_is_down = false;
                if let Accepted::Refused(reason) = accepted {
                    log::debug!("{}: a message was not taken: {reason}", self.instance());
                    return None;
                }
                talks.then_some(After::Kept(held.arrival.reply_to))
            }
            Err(error) if held.tries > 1 && error.kind().is_retryable() => {
                log::warn!("{}: a message waits to be stored: {}", self.instance(), log_line(&error));
                let next = self.parts.clock.monotonic() + held.wait;
                let wait = (held.wait * 2).min(LONGEST_STORE_WAIT);
                self.held = Some(Held { tries: held.tries - 1, wait, next, ..held });
                None
            }
            Err(error) => {
                let sender = &held.arrival.inbound.sender_name;
                log::error!("{}: a message of {sender} is lost: {}", self.instance(), log_line(&error));
                self.storage_is_down = matches!(error, IntakeError::Storage(..));
                Some(After::Lost(held.arrival.reply_to))
            }
        }
    }
}
