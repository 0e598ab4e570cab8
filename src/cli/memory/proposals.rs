//! `memory proposals` and `memory decide`: pairs that may contradict each other, for the operator.

use std::io::{self, Write};

use super::CommandError;
use crate::memory::{Decision, MemoryStore};
use crate::text;

/// Proposals that are shown at a time.
const SHOWN: usize = 50;
/// Bytes of a memory that are shown.
const SHOWN_BYTES: usize = 200;

pub(super) fn list(store: &MemoryStore) -> Result<bool, CommandError> {
    let proposals = store.proposals(SHOWN)?;
    let mut out = io::stdout().lock();
    for proposal in &proposals {
        writeln!(out, "{}. alike by {:.2}", proposal.id, proposal.cosine).map_err(CommandError::Output)?;
        for memory in [&proposal.older, &proposal.newer] {
            let (day, content) =
                (memory.created_at.to_rfc3339(), text::one_line(&memory.content, SHOWN_BYTES));
            let day = &day[..day.len().min(10)];
            writeln!(out, "   {day} {content}").map_err(CommandError::Output)?;
        }
    }
    if proposals.is_empty() {
        writeln!(out, "nothing to decide").map_err(CommandError::Output)?;
    }
    Ok(true)
}

pub(super) fn decide(store: &MemoryStore, proposal: i64, decision: &str) -> Result<bool, CommandError> {
    let decision = Decision::ALL.iter().find(|(name, _)| *name == decision).map(|(_, decision)| *decision);
    let decision = decision
        .ok_or_else(|| CommandError::Invalid("decide: contradicts, updates or unrelated".to_owned()))?;
    match store.decide(proposal, decision)? {
        true => Ok(true),
        false => Err(CommandError::Invalid(format!("there is no open proposal {proposal}"))),
    }
}
