//! One call on its way through the accounts: what it may come to, and what it came to.

use std::sync::Arc;

use super::Inner;
use super::ceiling::Amount;
use super::prices::{self, Amounts};
use crate::billing::{Outcome, Payer, Permit, Tokens, Wanted};
use crate::config::Price;

/// Most tokens of one call that are counted: more is no number of tokens, and sums must not overflow.
pub(super) const TOKENS_MOST: u64 = 1_000_000_000_000;
/// Most that one call is charged, in billionths of a dollar, for the same reason.
const NANO_MOST: u64 = 1_000_000_000_000_000;

/// What is known before the call.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) payer: Payer,
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) price: Option<Price>,
    input_most: u64,
    input_least: u64,
    output_most: u64,
}

impl Entry {
    pub(super) fn new(wanted: &Wanted<'_>, price: Option<Price>, output_most: u64) -> Self {
        let (provider, model) = wanted.model.split_once('/').unwrap_or((wanted.model, ""));
        Self {
            payer: wanted.payer.clone(),
            provider: provider.to_owned(),
            model: model.to_owned(),
            price,
            input_most: wanted.input_most.min(TOKENS_MOST),
            input_least: wanted.input_least,
            output_most: output_most.min(TOKENS_MOST),
        }
    }

    /// The most that it can come to.
    pub(super) fn worst(&self) -> Amount {
        self.amount(
            self.input_most + self.output_most,
            self.price.map(|price| prices::worst(&price, self.input_most, self.output_most)),
        )
    }

    fn amount(&self, tokens: u64, nano: Option<u64>) -> Amount {
        Amount { tokens: tokens.min(TOKENS_MOST), nano: nano.map(|nano| nano.min(NANO_MOST)) }
    }

    /// What is charged for a report. A side that is missing or not believed is charged in full.
    fn charge(&self, tokens: &Tokens, output_least: u64) -> Amount {
        let input =
            tokens.input.filter(|input| *input >= self.input_least).map(|input| input.min(TOKENS_MOST));
        let output = tokens.output.filter(|output| *output >= output_least).unwrap_or(self.output_most);
        let output = output.min(TOKENS_MOST);
        let amounts = match input {
            Some(input) => {
                let cache_read = tokens.cache_read.unwrap_or(0).min(input);
                let cache_write = tokens.cache_write.unwrap_or(0).min(input - cache_read);
                Amounts { input: input - cache_read - cache_write, cache_read, cache_write, output }
            }
            None => Amounts { output, ..Amounts::default() },
        };
        let unsaid = if input.is_none() { self.input_most } else { 0 };
        let nano = self
            .price
            .map(|price| prices::cost(&price, &amounts).saturating_add(prices::worst(&price, unsaid, 0)));
        self.amount(input.unwrap_or(self.input_most) + output, nano)
    }
}

/// What is written at the end.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    /// The reservation; none: there is no row yet.
    pub(super) row: Option<i64>,
    pub(super) entry: Entry,
    pub(super) state: &'static str,
    pub(super) tokens: Tokens,
    pub(super) charged: Amount,
}

/// Leave to send one request.
pub(super) struct Slip {
    ledger: Arc<Inner>,
    /// None: settled.
    entry: Option<Entry>,
    row: Option<i64>,
    output_most: Option<u64>,
}

impl Slip {
    pub(super) fn reserved(ledger: Arc<Inner>, entry: Entry, row: i64, output_most: u64) -> Self {
        Self { ledger, entry: Some(entry), row: Some(row), output_most: Some(output_most) }
    }

    pub(super) fn unreserved(ledger: Arc<Inner>, entry: Entry) -> Self {
        Self { ledger, entry: Some(entry), row: None, output_most: None }
    }

    fn end(&mut self, outcome: Outcome) {
        let Some(entry) = self.entry.take() else { return };
        let (state, tokens, charged) = match outcome {
            Outcome::Billed { tokens, output_least } => {
                let charged = entry.charge(&tokens, output_least);
                tell(&entry, &tokens, output_least);
                ("billed", tokens, charged)
            }
            Outcome::Unknown(reported) => ("unknown", reported, entry.worst()),
            Outcome::Free => {
                let nothing = Amount { tokens: 0, nano: entry.price.map(|_| 0) };
                ("free", Tokens::default(), nothing)
            }
        };
        let settled = Settled { row: self.row, entry, state, tokens, charged };
        self.ledger.write_lazily(settled);
    }
}

/// What is odd about a report.
fn tell(entry: &Entry, tokens: &Tokens, output_least: u64) {
    let name = format!("{}/{}", entry.provider, entry.model);
    let sides = [
        ("input", tokens.input, entry.input_least, entry.input_most),
        ("output", tokens.output, output_least, entry.output_most),
    ];
    for (side, reported, least, most) in sides {
        match reported {
            Some(reported) if reported > most => log::error!(
                "{name} reports {reported} {side} tokens where {most} are the most that there can be; all of them count"
            ),
            Some(reported) if reported < least => log::warn!(
                "{name} reports {reported} {side} tokens where there must be more than {least}; {most} are charged"
            ),
            _ => {}
        }
    }
}

impl Permit for Slip {
    fn output_most(&self) -> Option<u64> {
        self.output_most
    }

    fn settle(mut self: Box<Self>, outcome: Outcome) {
        self.end(outcome);
    }
}

impl Drop for Slip {
    fn drop(&mut self) {
        self.end(Outcome::Unknown(Tokens::default()));
    }
}
