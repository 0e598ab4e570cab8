//! What is to be done about a window, from its weights alone: no clock, no database, no model.

use crate::config::CompactionConfig;
use crate::conversation::{Role, Summary, Weight, Window};

/// Share of the window that leaves it: of its lines, and of their tokens if these are more lines.
const BACKGROUND_SHARE: f64 = 0.30;
const AGGRESSIVE_SHARE: f64 = 0.50;
const EMERGENCY_SHARE: f64 = 0.50;
/// Lines that a summary never covers: the exchange that is going on.
pub(super) const KEPT_MIN: usize = 4;
/// Summaries of one tier that make the oldest of them one of the next tier, and how many do.
pub(super) const ROLL_AT: usize = 12;
pub(super) const ROLL_BATCH: usize = 8;
/// The part of the window, as one in so many, that summaries may take before they are rolled up.
const SUMMARIES_PART: usize = 8;
/// The part of the window that one summary may take, and the bounds of that in tokens.
const SUMMARY_PART: usize = 40;
const SUMMARY_TOKENS_MIN: usize = 80;
const SUMMARY_TOKENS_MAX: usize = 1_500;
/// The part of the window that one summary may be made from: the model needs room for it and its answer.
const INPUT_PART: usize = 2;

/// What a decision depends on besides the window.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// Tokens of the model's window.
    pub(super) context_window: usize,
    pub(super) max_lines: usize,
    pub(super) config: CompactionConfig,
    /// By how much estimates are to be multiplied.
    pub(super) factor: f64,
    /// There is a model that can summarise.
    pub(super) has_model: bool,
    /// Tries that have failed: each halves what one summary is made from.
    pub(super) tries: u32,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The oldest lines leave at once.
    Drop { lines: usize },
    /// The oldest lines leave when their summary is there.
    Summarise { lines: usize },
    /// A marker gets the summary that it waits for.
    Fill { summary: i64 },
    /// Several summaries become one.
    Roll { several: Vec<i64> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Background,
    Aggressive,
}

/// The most urgent step, if there is any.
pub(super) fn step(window: &Window, bounds: &Bounds) -> Option<Step> {
    let summaries = window.summaries.iter().map(Summary::tokens).sum();
    let fill = bounds.fill(window.lines.len(), summaries + tokens_of(&window.lines));
    if fill >= bounds.config.emergency && !window.lines.is_empty() {
        return Some(Step::Drop { lines: emergency_cut(&window.lines, summaries, bounds) });
    }
    if !bounds.has_model {
        return None;
    }
    let level = match fill {
        fill if fill >= bounds.config.aggressive => Some(Level::Aggressive),
        fill if fill >= bounds.config.background => Some(Level::Background),
        _ => None,
    };
    if let Some(lines) = level.map(|level| cut(&window.lines, level, bounds)).filter(|lines| *lines > 0) {
        return Some(Step::Summarise { lines });
    }
    let waiting = window.summaries.iter().find(|summary| summary.awaited);
    if let Some(marker) = waiting {
        return Some(Step::Fill { summary: marker.id });
    }
    roll(&window.summaries, bounds).map(|several| Step::Roll { several })
}

impl Bounds {
    /// How full a window is, where 1 is full.
    #[allow(clippy::cast_precision_loss)] // counts are far below 2^52
    fn fill(&self, lines: usize, tokens: usize) -> f64 {
        let tokens = tokens as f64 * self.factor / self.context_window.max(1) as f64;
        tokens.max(lines as f64 / self.max_lines.max(1) as f64)
    }

    pub(super) fn is_emergency(&self, lines: usize, tokens: usize) -> bool {
        self.fill(lines, tokens) >= self.config.emergency
    }

    /// Estimated tokens that one summary may be made from.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive, small
    pub(super) fn input_tokens(&self) -> usize {
        let most = (self.context_window / INPUT_PART) >> self.tries.min(16);
        (most as f64 / self.factor) as usize
    }

    /// Tokens that one summary may have.
    pub(super) fn summary_tokens(&self) -> usize {
        (self.context_window / SUMMARY_PART).clamp(SUMMARY_TOKENS_MIN, SUMMARY_TOKENS_MAX)
    }
}

fn tokens_of(lines: &[Weight]) -> usize {
    lines.iter().map(|line| line.tokens).sum()
}

/// How many of the oldest lines a summary is made of; zero when too few would be left.
fn cut(lines: &[Weight], level: Level, bounds: &Bounds) -> usize {
    let share = match level {
        Level::Background => BACKGROUND_SHARE,
        Level::Aggressive => AGGRESSIVE_SHARE,
    };
    let most = lines.len().saturating_sub(KEPT_MIN).min(fitting(lines, bounds.input_tokens()));
    let count = share_of(lines, share).min(most);
    align(lines, count, most)
}

/// As [`cut`] without a model: at least half, and then again half of the rest, until it is no emergency.
fn emergency_cut(lines: &[Weight], summaries: usize, bounds: &Bounds) -> usize {
    let mut count = share_of(lines, EMERGENCY_SHARE);
    while count < lines.len()
        && bounds.is_emergency(lines.len() - count, summaries + tokens_of(&lines[count..]))
    {
        count += (lines.len() - count).div_ceil(2);
    }
    if count == lines.len() { count } else { align(lines, count, lines.len() - 1) }
}

/// So many lines that they are this share of all, by number and by tokens.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive, small
fn share_of(lines: &[Weight], share: f64) -> usize {
    let by_number = (lines.len() as f64 * share).ceil() as usize;
    let wanted = tokens_of(lines) as f64 * share;
    let mut sum = 0;
    let by_tokens = lines.iter().take_while(|line| {
        let before = sum;
        sum += line.tokens;
        (before as f64) < wanted
    });
    by_number.max(by_tokens.count())
}

/// How many of the oldest lines have room in so many tokens; the first always has, it is shortened.
fn fitting(lines: &[Weight], tokens: usize) -> usize {
    let mut sum = 0;
    let fit = lines.iter().take_while(|line| {
        sum += line.tokens;
        sum <= tokens
    });
    fit.count().max(1)
}

/// Moves a cut to where a person begins to speak, so that no answer and no result is parted from what it
/// belongs to: to the next such place, else to the one before.
fn align(lines: &[Weight], count: usize, most: usize) -> usize {
    let begins = |at: &usize| lines.get(*at).is_some_and(|line| line.role == Role::User);
    (count..=most).find(begins).or_else(|| (1..count).rev().find(begins)).unwrap_or(count)
}

/// The oldest summaries of a tier that has too many, or of the largest one when all of them are too long.
fn roll(summaries: &[Summary], bounds: &Bounds) -> Option<Vec<i64>> {
    let highest = summaries.iter().map(|summary| summary.tier).max()?;
    let tiers: Vec<Vec<i64>> = (1..=highest)
        .map(|tier| summaries.iter().filter(|one| one.tier == tier).map(|one| one.id).collect())
        .collect();
    if let Some(tier) = tiers.iter().find(|tier| tier.len() >= ROLL_AT) {
        return Some(tier[..ROLL_BATCH].to_vec());
    }
    let tokens: usize = summaries.iter().map(Summary::tokens).sum();
    let most = tiers.into_iter().max_by_key(Vec::len).filter(|tier| tier.len() > 1)?;
    let half = most.len().div_ceil(2).max(2);
    (tokens > bounds.context_window / SUMMARIES_PART).then(|| most[..half].to_vec())
}

#[cfg(test)]
mod tests;
