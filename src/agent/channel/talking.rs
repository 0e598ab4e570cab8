//! How a channel's turn goes on and ends, and how messages reach it that come while it runs.

use super::super::AgentParts;
use super::super::driver::{Conduct, Heard};
use super::super::job::Job;
use super::super::link::{Link, ProcessDesk};
use super::input::Input;
use crate::effect::Effect;
use crate::tools::speech::Speech;

/// Times that a turn is told that its text is not for a person.
const MAX_CORRECTIONS: usize = 2;

/// A turn ends with the first reply, skip or plain words, that of a job with its outcome if nothing was
/// started.
pub(in crate::agent) struct Closing<'a> {
    speech: &'a Speech,
    corrections: usize,
    /// People write to this conversation and read what it says.
    heard: bool,
}

impl<'a> Closing<'a> {
    pub(in crate::agent) fn new(speech: &'a Speech, heard: bool) -> Self {
        Self { speech, corrections: 0, heard }
    }
}

/// [`Closing`], with ears for what comes to the inbox.
pub(super) struct Talking<'a> {
    parts: &'a AgentParts,
    job: &'a Job,
    link: &'a Link<'a>,
    input: &'a mut Input,
    closing: Closing<'a>,
    /// Branches and workers that were started when it last heard something.
    started: usize,
}

impl<'a> Talking<'a> {
    pub(super) fn new(
        parts: &'a AgentParts,
        job: &'a Job,
        link: &'a Link<'a>,
        input: &'a mut Input,
        closing: Closing<'a>,
    ) -> Self {
        Self { parts, job, link, input, closing, started: 0 }
    }
}

impl Conduct for Closing<'_> {
    fn on_text(&mut self, text: &str, _desk: &mut ProcessDesk<'_>) -> Option<String> {
        let unfit = self.speech.of_text(text).filter(|_| self.heard && self.corrections < MAX_CORRECTIONS)?;
        self.corrections += 1;
        Some(unfit.correction().to_owned())
    }

    fn on_tools(&mut self, desk: &mut ProcessDesk<'_>) -> bool {
        let started = desk.started > 0;
        desk.effects.iter().any(|effect| match effect {
            Effect::Reply { .. } | Effect::Skip { .. } => true,
            Effect::Deliver { .. } => !started,
            _ => false,
        })
    }

    /// Words without a call are the answer, and go out; what has come meanwhile gets its own.
    fn hears_after_text(&self) -> bool {
        false
    }
}

impl Conduct for Talking<'_> {
    fn on_text(&mut self, text: &str, desk: &mut ProcessDesk<'_>) -> Option<String> {
        self.closing.on_text(text, desk)
    }

    fn on_tools(&mut self, desk: &mut ProcessDesk<'_>) -> bool {
        self.closing.on_tools(desk)
    }

    /// The inbox is read only behind a ring. Without a call left to read it the message waits for the next
    /// turn, and so it does when the inbox cannot be read.
    fn next_message(&mut self, desk: &mut ProcessDesk<'_>, left: usize) -> Option<Heard> {
        if !self.closing.heard || left == 0 || self.link.rings.try_recv().is_err() {
            return None;
        }
        let has = self.input.messages.len();
        let heard = self.input.hear(self.parts, self.job, desk.effects.len());
        let newer = heard
            .inspect_err(|error| {
                log::warn!("{} hears nothing of what came meanwhile: {error}", self.job.process)
            })
            .ok()??;
        if desk.started > self.started {
            self.started = desk.started;
            self.input.hand_over(has);
        }
        let new = &self.input.messages[has..];
        let messages = new.iter().map(|received| received.message.platform_id.clone()).collect();
        // What is started from here on is for these, too, and forks from the words as they stand now.
        desk.origin.answers = self.input.askers();
        desk.origin.fork.words = format!("{}\n{}", desk.origin.fork.words, newer.words).into();
        desk.origin.fork.outside |= newer.has_files;
        Some(Heard { text: newer.words, messages, shown: newer.shown, outside: newer.has_files })
    }

    fn hears_after_text(&self) -> bool {
        self.closing.hears_after_text()
    }
}
