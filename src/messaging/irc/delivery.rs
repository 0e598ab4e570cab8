//! Answers under way on one connection: the pace of their lines, and how we learn that they arrived.
//!
//! With `labeled-response` every line carries a label and the server's response names it. With
//! `echo-message` alone the echoes come in the order of our lines. With neither, a PING after the
//! last line is answered only when the server has worked through the lines before it.

use std::collections::VecDeque;
use std::time::Duration;

use super::flood::Bucket;
use super::grammar::line;
use super::isupport::Server;
use super::protocol::{Action, Progress};
use crate::id::{ConversationId, OutboxId};
use crate::message::Delivery;

/// Answers begun and not confirmed; more wait in the outbox.
pub(super) const MAX_UNCONFIRMED: usize = 8;
/// How long after its last line an answer may stay unconfirmed.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);
/// How long the server may take to say who uses an account.
const WHOIS_WITHIN: Duration = Duration::from_secs(15);
/// Notices that wait; further ones are not said.
const MAX_NOTICES: usize = 16;
/// Begins our PING tokens that stand behind an answer.
const BARRIER: &str = "answer-";

/// How the server tells us what became of a line; fixed when the answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Label,
    Echo,
    Ping,
}

#[derive(Debug)]
pub(super) struct Deliveries {
    answers: VecDeque<Answer>,
    notices: VecDeque<(String, String)>,
    bucket: Bucket,
    serial: u64,
}

#[derive(Debug)]
struct Answer {
    serial: u64,
    id: OutboxId,
    conversation: ConversationId,
    /// The nick or channel that the lines go to.
    target: String,
    /// Set while the server is asked whether `target` is logged in as this (folded) account.
    account: Option<String>,
    proof: Proof,
    lines: Vec<Line>,
    /// Lines that went out.
    written: usize,
    platform_id: Option<String>,
    /// End of patience with the state it is in; none while lines wait for their turn.
    until: Option<Duration>,
}

#[derive(Debug)]
struct Line {
    text: String,
    confirmed: bool,
}

/// What an answer is made of, once its target and its lines are known.
pub(super) struct Begun {
    pub(super) id: OutboxId,
    pub(super) conversation: ConversationId,
    pub(super) target: String,
    /// The account that `target` must be proven to use first.
    pub(super) account: Option<String>,
    pub(super) proof: Proof,
    pub(super) lines: Vec<String>,
}

impl Deliveries {
    pub(super) fn new(now: Duration) -> Self {
        Self { answers: VecDeque::new(), notices: VecDeque::new(), bucket: Bucket::new(now), serial: 0 }
    }

    /// True when a further answer would go out at once.
    pub(super) fn is_free(&mut self, now: Duration) -> bool {
        let busy = self.answers.iter().any(|answer| answer.is_writing());
        !busy && self.answers.len() < MAX_UNCONFIRMED && self.bucket.ready(now)
    }

    pub(super) fn begin(&mut self, begun: Begun, now: Duration, actions: &mut Vec<Action>) {
        self.serial += 1;
        if begun.account.is_some() {
            actions.push(Action::Write(line(&["WHOIS", &begun.target], None)));
        }
        let confirmed = false;
        self.answers.push_back(Answer {
            serial: self.serial,
            id: begun.id,
            conversation: begun.conversation,
            target: begun.target,
            until: begun.account.is_some().then(|| now + WHOIS_WITHIN),
            account: begun.account,
            proof: begun.proof,
            lines: begun.lines.into_iter().map(|text| Line { text, confirmed }).collect(),
            written: 0,
            platform_id: None,
        });
    }

    /// Says something that is no answer, when there is time. NOTICE, because nobody answers those.
    pub(super) fn notice(&mut self, target: &str, text: &str) {
        if self.notices.len() < MAX_NOTICES {
            self.notices.push_back((target.to_owned(), text.to_owned()));
        }
    }

    /// Gives up what waited too long and writes what may go now.
    pub(super) fn pump(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while let Some(place) = self.answers.iter().position(|answer| answer.is_overdue(now)) {
            // Nothing was sent to somebody whose account was not proven.
            let delivery = match &self.answers[place].account {
                Some(account) => {
                    let reason = format!("the server did not say who is logged in as {account}");
                    Delivery::Refused { reason }
                }
                None => Delivery::Unknown { reason: "the server did not confirm it in time".to_owned() },
            };
            self.finish(place, delivery, actions);
        }
        loop {
            let next = self.answers.iter_mut().find(|answer| answer.is_writing());
            if next.is_none() && self.notices.is_empty() || !self.bucket.take(now) {
                return;
            }
            match next {
                Some(answer) => answer.write_next(now, actions),
                None => {
                    if let Some((target, text)) = self.notices.pop_front() {
                        actions.push(Action::Write(line(&["NOTICE", &target], Some(&text))));
                    }
                }
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let waiting = self.answers.iter().any(Answer::is_writing) || !self.notices.is_empty();
        let line = waiting.then(|| self.bucket.next());
        self.answers.iter().filter_map(|answer| answer.until).chain(line).min()
    }

    /// When an answer could go out again; `None` when it can now or something else has to happen first.
    pub(super) fn free_at(&mut self, now: Duration) -> Option<Duration> {
        (!self.bucket.ready(now)).then(|| self.bucket.next())
    }

    /// The server showed us our own line.
    pub(super) fn echoed(
        &mut self,
        target: &str,
        label: Option<&str>,
        message_id: Option<&str>,
        server: &Server,
        actions: &mut Vec<Action>,
    ) {
        if let Some(label) = label {
            self.labelled(label, message_id, actions);
            return;
        }
        let Some(place) = self.waiting(target, Proof::Echo, server) else { return };
        let answer = &self.answers[place];
        let next = answer.lines.iter().position(|line| !line.confirmed);
        self.confirm(place, next.unwrap_or(0), message_id, actions);
    }

    /// The server acknowledged the labelled line.
    pub(super) fn labelled(&mut self, label: &str, message_id: Option<&str>, actions: &mut Vec<Action>) {
        let Some((place, index)) = self.labelled_line(label) else { return };
        self.confirm(place, index, message_id, actions);
    }

    /// A PONG came, perhaps the one behind an answer.
    pub(super) fn pong(&mut self, token: &str, actions: &mut Vec<Action>) {
        let Some(serial) = token.strip_prefix(BARRIER).and_then(|serial| serial.parse::<u64>().ok()) else {
            return;
        };
        if let Some(place) = self.answers.iter().position(|answer| answer.serial == serial) {
            self.finish(place, Delivery::Sent { platform_id: None }, actions);
        }
    }

    /// The server refused a line: the labelled one, else the oldest that went to `target`.
    pub(super) fn refused(
        &mut self,
        target: &str,
        label: Option<&str>,
        reason: &str,
        server: &Server,
        actions: &mut Vec<Action>,
    ) {
        let place = match label {
            Some(label) => self.labelled_line(label).map(|(place, _)| place),
            None => self
                .waiting(target, Proof::Echo, server)
                .or_else(|| self.waiting(target, Proof::Ping, server)),
        };
        if let Some(place) = place {
            self.finish(place, Delivery::Refused { reason: reason.to_owned() }, actions);
        }
    }

    /// WHOIS: this nick is logged in as this account.
    pub(super) fn is_logged_in(&mut self, nick: &str, account: &str, server: &Server) {
        for answer in &mut self.answers {
            let asked = answer.account.as_ref().is_some_and(|asked| *asked == server.fold(account));
            if asked && server.same(&answer.target, nick) {
                answer.account = None;
                answer.until = None;
            }
        }
    }

    /// WHOIS ended; whoever is not proven by now will not be.
    pub(super) fn whois_ended(&mut self, nick: &str, server: &Server, actions: &mut Vec<Action>) {
        let asked = |answer: &Answer| answer.account.is_some() && server.same(&answer.target, nick);
        while let Some(place) = self.answers.iter().position(asked) {
            let account = self.answers[place].account.clone().unwrap_or_default();
            let reason = format!("nobody is seen under a nick that is logged in as {account}");
            self.finish(place, Delivery::Refused { reason }, actions);
        }
    }

    fn labelled_line(&self, label: &str) -> Option<(usize, usize)> {
        let (serial, index) = label.split_once('-')?;
        let serial: u64 = serial.parse().ok()?;
        let place = self.answers.iter().position(|answer| answer.serial == serial)?;
        let index: usize = index.parse().ok()?;
        (index < self.answers[place].written).then_some((place, index))
    }

    /// The oldest answer with a line to `target` that went out and is not confirmed.
    fn waiting(&self, target: &str, proof: Proof, server: &Server) -> Option<usize> {
        self.answers.iter().position(|answer| {
            answer.proof == proof
                && answer.lines[..answer.written].iter().any(|line| !line.confirmed)
                && server.same(&answer.target, target)
        })
    }

    fn confirm(&mut self, place: usize, index: usize, message_id: Option<&str>, actions: &mut Vec<Action>) {
        let answer = &mut self.answers[place];
        let Some(line) = answer.lines.get_mut(index) else { return };
        line.confirmed = true;
        if answer.platform_id.is_none() {
            answer.platform_id = message_id.map(str::to_owned);
        }
        if answer.lines.iter().all(|line| line.confirmed) {
            let platform_id = answer.platform_id.take();
            self.finish(place, Delivery::Sent { platform_id }, actions);
        }
    }

    fn finish(&mut self, place: usize, delivery: Delivery, actions: &mut Vec<Action>) {
        if let Some(answer) = self.answers.remove(place) {
            let Answer { id, conversation, .. } = answer;
            actions.push(Action::Progress(Progress { id, conversation, delivery }));
        }
    }
}

impl Answer {
    fn is_writing(&self) -> bool {
        self.account.is_none() && self.written < self.lines.len()
    }

    fn is_overdue(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    fn write_next(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(next) = self.lines.get(self.written) else { return };
        let label = format!("@label={}-{}", self.serial, self.written);
        let words: &[&str] = match self.proof {
            Proof::Label => &[&label, "PRIVMSG", &self.target],
            Proof::Echo | Proof::Ping => &["PRIVMSG", &self.target],
        };
        actions.push(Action::Write(line(words, Some(&next.text))));
        self.written += 1;
        if self.written < self.lines.len() {
            return;
        }
        self.until = Some(now + CONFIRM_WITHIN);
        if self.proof == Proof::Ping {
            let token = format!("{BARRIER}{}", self.serial);
            actions.push(Action::Write(line(&["PING"], Some(&token))));
        }
    }
}
