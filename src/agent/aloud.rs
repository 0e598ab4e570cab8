//! A channel's model that is listened to while it answers: the words of a `reply` reach who looks on while
//! their JSON still arrives.
//!
//! Only whole words are shown, and only while what stands there so far may be said to a person
//! ([`Speech`]). Text without a tool is not shown: it is judged as a whole first.

use std::time::Duration;

use rig_core::completion::{CompletionRequest, ProviderCapabilities};
use rig_core::streaming::parse_partial_arguments;

use super::link::Link;
use super::outside::Answers;
use crate::clock::SharedClock;
use crate::llm::{Delta, LlmError, Reply, SpacebotModel};
use crate::message::Saying;
use crate::thread::Cancel;
use crate::tools::speech::Speech;

/// The tool whose words are for a person.
const REPLY: &str = "reply";
/// The argument that holds them.
const CONTENT: &str = "content";
/// Bytes of arguments that are looked at with every piece; each look reads them all.
const SHORT: usize = 4 << 10;
/// Between two looks at longer ones: nobody reads faster.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// Bytes that may be looked at in that time. Behind so many the looks come less often, or sixteen long
/// replies at once would take the whole processor.
const LOOKED_AT: usize = 16 << 10;

pub(super) struct Aloud<'a> {
    pub(super) model: SpacebotModel,
    pub(super) link: &'a Link<'a>,
    pub(super) speech: Speech,
    pub(super) clock: SharedClock,
}

impl Answers for Aloud<'_> {
    fn capabilities(&self) -> ProviderCapabilities {
        self.model.capabilities()
    }

    fn answer(
        &mut self,
        request: &CompletionRequest,
        patient: bool,
        cancel: &Cancel,
        on_delta: &mut dyn FnMut(&Delta<'_>),
    ) -> Result<Reply, LlmError> {
        if patient {
            return Answers::answer(&mut self.model, request, patient, cancel, on_delta);
        }
        let mut words = Words { speech: &self.speech, show: self.link.show, call: None };
        let clock = &self.clock;
        self.model.call(request, cancel, &mut |delta| {
            on_delta(&delta);
            words.hear(&delta, clock.monotonic());
        })
    }
}

/// Until the next look, when so many bytes have been looked at.
fn pause_behind(bytes: usize) -> Duration {
    LOOK_EVERY * u32::try_from(bytes / LOOKED_AT).unwrap_or(u32::MAX).max(1)
}

/// The words of the reply that is being written.
struct Words<'a> {
    speech: &'a Speech,
    show: &'a dyn Fn(Saying<'_>),
    call: Option<Writing>,
}

struct Writing {
    call: usize,
    json: String,
    shown: usize,
    /// Monotonic.
    look_at: Duration,
}

impl Words<'_> {
    fn hear(&mut self, delta: &Delta<'_>, now: Duration) {
        match delta {
            Delta::Begins => {
                if self.call.take().is_some() {
                    (self.show)(Saying::Over);
                }
            }
            Delta::Call { call, tool: REPLY } => {
                self.call = Some(Writing { call: *call, json: String::new(), shown: 0, look_at: now });
                (self.show)(Saying::Begins);
            }
            Delta::Arguments { call, json } => {
                let Some(writing) = self.call.as_mut().filter(|writing| writing.call == *call) else {
                    return;
                };
                writing.json.push_str(json);
                if now >= writing.look_at || writing.json.len() <= SHORT {
                    writing.look_at = now + pause_behind(writing.json.len());
                    self.look(false);
                }
            }
            Delta::Called { call } if self.call.as_ref().is_some_and(|writing| writing.call == *call) => {
                self.look(true);
            }
            Delta::Text(_) | Delta::Reasoning(_) | Delta::Call { .. } | Delta::Called { .. } => {}
        }
    }

    /// Shows what is new. The last word may still grow, into a key for instance.
    fn look(&mut self, whole: bool) {
        let Some(writing) = &mut self.call else { return };
        let arguments = parse_partial_arguments(&writing.json);
        let text = arguments.get(CONTENT).and_then(|content| content.as_str()).unwrap_or_default();
        let end = if whole { text.len() } else { text.rfind(char::is_whitespace).map_or(0, |at| at + 1) };
        let Some(new) = text.get(writing.shown..end).filter(|new| !new.is_empty()) else { return };
        if self.speech.of_tool(&text[..end]).is_err() {
            self.call = None;
            return (self.show)(Saying::Over);
        }
        (self.show)(Saying::More(new));
        writing.shown = end;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;

    use super::*;
    use crate::secrets::Scrubber;

    /// What is shown of an answer whose pieces come 50 ms apart; `|` where a draft begins, `#` where it is
    /// void.
    fn shown(deltas: &[Delta<'_>]) -> String {
        let out = RefCell::new(String::new());
        let show = |saying: Saying<'_>| match saying {
            Saying::Begins => out.borrow_mut().push('|'),
            Saying::More(text) => out.borrow_mut().push_str(&format!("[{text}]")),
            Saying::Over => out.borrow_mut().push('#'),
            Saying::Thinking | Saying::Tool { .. } | Saying::Failed => out.borrow_mut().push('?'),
        };
        let speech = Speech::new(Arc::new(Scrubber::new(["k3y-of-the-house"])));
        let mut words = Words { speech: &speech, show: &show, call: None };
        for (number, delta) in deltas.iter().enumerate() {
            words.hear(delta, Duration::from_millis(50 * number as u64));
        }
        out.into_inner()
    }

    fn arguments(json: &str) -> Delta<'_> {
        Delta::Arguments { call: 1, json }
    }

    const REPLIES: Delta<'static> = Delta::Call { call: 1, tool: "reply" };

    #[test]
    fn whole_words_are_shown_while_their_json_still_arrives() {
        let deltas = [
            Delta::Begins,
            Delta::Reasoning("hm "),
            Delta::Text("I will answer "),
            REPLIES,
            arguments("{\"cont"),
            arguments("ent\": \"Gr\\u00fc"),
            arguments("\\u00dfe aus "),
            arguments("W\\"),
            arguments("n und \\\"hier"),
            arguments("\\\"\"}"),
            Delta::Called { call: 1 },
        ];
        assert_eq!(shown(&deltas), "|[Grüße aus ][W\n und ][\"hier\"]");
    }

    #[test]
    fn other_tools_are_not_shown_and_a_broken_answer_is_void() {
        let other = Delta::Arguments { call: 2, json: "{\"content\": \"rm -rf \"}" };
        let deltas = [
            Delta::Begins,
            REPLIES,
            arguments("{\"content\": \"one two"),
            Delta::Call { call: 2, tool: "shell" },
            other,
            Delta::Begins,
            REPLIES,
            arguments("{\"content\": \"three\"}"),
            Delta::Called { call: 1 },
        ];
        assert_eq!(shown(&deltas), "|[one ]#|[three]");
    }

    #[test]
    fn the_longer_a_reply_is_the_less_often_it_is_looked_at() {
        const PIECES: usize = 8 << 10;
        let (looks, text) = (RefCell::new(0), RefCell::new(String::new()));
        let show = |saying: Saying<'_>| {
            if let Saying::More(more) = saying {
                *looks.borrow_mut() += 1;
                text.borrow_mut().push_str(more);
            }
        };
        let speech = Speech::new(Arc::new(Scrubber::new(["k3y-of-the-house"])));
        let mut words = Words { speech: &speech, show: &show, call: None };
        let piece = format!("{} ", "x".repeat(31));
        let first = "{\"content\": \"";
        words.hear(&REPLIES, Duration::ZERO);
        words.hear(&arguments(first), Duration::ZERO);
        for number in 0..PIECES {
            words.hear(&arguments(&piece), Duration::from_millis(number as u64));
        }
        words.hear(&arguments("\"}"), Duration::from_secs(9));
        words.hear(&Delta::Called { call: 1 }, Duration::from_secs(9));
        assert_eq!(*text.borrow(), piece.repeat(PIECES));
        // 128 of them while it is short; one every 40 ms would be 200 more.
        assert!((140..200).contains(&*looks.borrow()), "{}", looks.borrow());
    }

    #[test]
    fn a_key_or_a_tool_call_ends_what_is_shown() {
        let key = [
            REPLIES,
            arguments("{\"content\": \"it is k3y-of-"),
            arguments("the-house you "),
            arguments("know "),
        ];
        assert_eq!(shown(&key), "|[it is ]#");
        let call = [REPLIES, arguments("{\"content\": \"look: "), arguments("<tool_call> now ")];
        assert_eq!(shown(&call), "|[look: ]#");
    }
}
