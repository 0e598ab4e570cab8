//! What was said in our channels before their conversations began: asked for where the server has it, kept
//! until the first message of each is on disk.

use super::super::format::{Spoken, spoken};
use super::super::grammar::{Message, Source};
use super::super::registration::HISTORY;
use super::incoming::{AHEAD, stamp};
use super::{Action, Moment, Session};
use crate::id::ConversationId;
use crate::message::{Beginning, Earlier};

/// Messages that are asked for in a channel whose conversation goes on: those that were missed.
const MISSED: usize = 50;
/// Channels of one connection that are asked about, so that the lines are no flood.
const HISTORIES_MAX: usize = 16;
impl Session {
    /// The conversation that a channel is.
    pub(in super::super) fn conversation(&self, channel: &str) -> ConversationId {
        ConversationId::new(self.settings.conversation(&self.server.fold(channel)))
    }

    /// We are in a channel now whose conversation has begun, or not yet. Where the server has a history and
    /// does not play it back by itself, it is asked for.
    pub(in super::super) fn enter(
        &mut self,
        channel: &str,
        beginning: Option<Beginning>,
        now: Moment,
    ) -> Vec<Action> {
        self.beginnings.enter(&self.server.fold(channel), beginning);
        let wanted = match beginning {
            Some(Beginning::New { lines }) => lines,
            Some(Beginning::Known { .. }) => MISSED,
            None => 0,
        };
        // Without batches nobody could tell a history from what is said now.
        let most = self.server.history.filter(|_| {
            self.registration.has(HISTORY) && self.registration.has("batch") && self.histories < HISTORIES_MAX
        });
        if let Some(most) = most.filter(|_| wanted > 0) {
            let count = if most == 0 { wanted } else { wanted.min(most) };
            self.histories += 1;
            self.write(&["CHATHISTORY", "LATEST", channel, "*", &count.to_string()], None);
        }
        self.finish(now)
    }

    /// A message of this channel is on disk: the conversation goes on from here.
    pub(in super::super) fn begun(&mut self, channel: &str, now: Moment) {
        self.beginnings.begin(&self.server.fold(channel), now.wall);
    }

    /// Keeps what was said in one of our channels for the beginning of its conversation.
    pub(super) fn keep(&mut self, message: &Message, source: &Source, now: Moment) {
        let channel = self.server.fold(message.param(0));
        let text = match spoken(message.param(1)) {
            Some(Spoken::Said(text)) => text,
            Some(Spoken::Acted(text)) => format!("* {} {text}", source.nick),
            None => return,
        };
        let history = self.batches.is_history(message.tag("batch"));
        let at = match stamp(message).filter(|time| time.since(now.wall) <= AHEAD) {
            None if history => None,
            stamp => Some(stamp.unwrap_or(now.wall)),
        };
        let own = self.is_me(&source.nick);
        let line = Earlier { sender_name: source.nick.clone(), at, text, own };
        self.beginnings.keep(&channel, message.tag("msgid"), line);
    }
}
