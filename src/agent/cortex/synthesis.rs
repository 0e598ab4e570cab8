//! What happened, put together by a model: paragraphs of a day while it goes on, and a summary of each day
//! that is over, so that the end of a channel's prompt holds more of it in the same room. What is due is
//! decided by plain code from what is stored, at the moment of the call too: a timer that was set by another
//! clock only looks too early.

use serde_json::json;

use super::{Wants, failed};
use crate::agent::AgentParts;
use crate::agent::job::Job;
use crate::agent::link::Link;
use crate::error::Kind;
use crate::event::{Errand, How};
use crate::prompts::Template;
use crate::working_memory::{self, Batch, Days, Pending, Waits};

/// Words of a paragraph.
const PARAGRAPH_WORDS: [usize; 2] = [50, 100];
/// What has more than so many times the words was not written to what was asked: it is no synthesis.
const EXCESS: usize = 3;

/// Which of the two are worth a call, and when.
pub(super) fn wants(parts: &AgentParts) -> Result<Wants, How> {
    let (_, waits, _) = look(parts)?;
    let of = |errand, wait: Option<_>| wait.map(|wait| (errand, wait));
    Ok([of(Errand::Intraday, waits.intraday), of(Errand::Daily, waits.daily)].into_iter().flatten().collect())
}

fn look(parts: &AgentParts) -> Result<(Pending, Waits, Days), How> {
    let (config, now) = (&parts.config.working_memory, parts.conversations.now());
    let days = Days::of(now, &parts.config.timezone);
    if !config.enabled || !parts.cortex_has_model() {
        return Ok((Pending::default(), Waits::default(), days));
    }
    let pending = parts.working_memory().pending(&days).map_err(|error| failed(&error))?;
    let waits = working_memory::waits(&pending, now, &days, config);
    Ok((pending, waits, days))
}

/// One call, if it is due; and what is worth a call next.
pub(super) fn write(parts: &AgentParts, job: &Job, errand: Errand, link: &Link<'_>) -> Result<Wants, How> {
    let (pending, waits, days) = look(parts)?;
    let memory = parts.working_memory();
    let batch = match errand {
        Errand::Intraday if waits.intraday.is_some_and(|wait| wait.is_zero()) => memory.unread(&days),
        Errand::Daily => pending.days.first().map_or(Ok(None), |ago| memory.past(&days, *ago)),
        _ => Ok(None),
    };
    if let Some(batch) = batch.map_err(|error| failed(&error))? {
        put_together(parts, job, link, batch)?;
    }
    wants(parts)
}

fn put_together(parts: &AgentParts, job: &Job, link: &Link<'_>, batch: Batch) -> Result<(), How> {
    let config = &parts.config.working_memory;
    let [least, paragraph] = PARAGRAPH_WORDS;
    let (what, template, words) = match batch.daily {
        true => ("summary of a day", Template::CortexDaily, config.daily_max_words),
        false => ("paragraph of the day", Template::CortexIntraday, paragraph),
    };
    let context = json!({ "name": parts.config.display_name, "least": least, "words": words });
    let asked = working_memory::words(&batch, &parts.config.timezone).map_err(|error| failed(&error))?;
    let answer = super::ask(parts, job, link, what, (template, context), &asked)?;
    let hidden = parts.llm.scrubber().hide_keys(&answer);
    let text = within(&hidden, words)
        .ok_or_else(|| How::Failed(Kind::Transient, format!("the model gave no {what}")))?;
    let stored = parts.working_memory().put_together(batch, text, parts.conversations.now());
    if !stored.map_err(|error| failed(&error))? {
        log::debug!("the {what} was made already");
    }
    Ok(())
}

/// One line of at most `words` words, without what would look like a heading or a fence; none where there are
/// no words, or far too many.
fn within(answer: &str, words: usize) -> Option<String> {
    let lines = answer.lines().map(|line| line.trim().trim_start_matches(['#', '`']));
    let all: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let good = !all.is_empty() && all.len() <= words * EXCESS;
    good.then(|| all[..all.len().min(words)].join(" "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_says_is_one_line_within_its_words_or_nothing() {
        assert_eq!(within("## Today\nTwo  eggs.\n", 100).unwrap(), "Today Two eggs.");
        assert_eq!(within(" \n#\n``` \n", 100), None);
        assert_eq!(within(&"egg ".repeat(150), 100).unwrap().split(' ').count(), 100);
        assert_eq!(within(&"egg ".repeat(301), 100), None);
    }
}
