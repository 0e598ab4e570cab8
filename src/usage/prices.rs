//! What a token of a model costs: the config first, then the table that comes with the program. A model
//! that stands in neither has no price.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::{PRICE_PLACES, Price, PriceConfig, decimal};
use crate::text::is_snapshot;

/// The table of the program, with the day and the source of each price.
const TABLE: &str = include_str!("prices.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    price: Vec<Row>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    provider: String,
    model: String,
    #[serde(default)]
    dated: bool,
    input: String,
    output: String,
    cache_read: Option<String>,
    cache_write: Option<String>,
    as_of: String,
    source: String,
}

impl Row {
    fn price(&self) -> Option<Price> {
        let amount = |text: &str| decimal(text, PRICE_PLACES);
        let optional =
            |text: &Option<String>| text.as_deref().map(amount).map_or(Some(None), |one| one.map(Some));
        Some(Price {
            input: amount(&self.input)?,
            output: amount(&self.output)?,
            cache_read: optional(&self.cache_read)?,
            cache_write: optional(&self.cache_write)?,
        })
    }

    fn is_of(&self, provider: &str, model: &str) -> bool {
        let Some(rest) = model.strip_prefix(&self.model).filter(|_| provider == self.provider) else {
            return false;
        };
        rest.is_empty() || self.dated && rest.strip_prefix('-').is_some_and(is_snapshot)
    }
}

/// The prices in force.
#[derive(Debug, Clone, Default)]
pub struct Prices {
    own: BTreeMap<String, Price>,
    table: Vec<(Row, Price)>,
}

impl Prices {
    pub fn new(own: &[PriceConfig]) -> Self {
        let rows = toml::from_str::<File>(TABLE).map_or_else(
            |error| {
                // The tests read the same text.
                log::error!("the price table cannot be read: {error}");
                Vec::new()
            },
            |file| file.price,
        );
        let table = rows.into_iter().filter_map(|row| row.price().map(|price| (row, price))).collect();
        Self { own: own.iter().map(|known| (known.model.clone(), known.price)).collect(), table }
    }

    /// Of `provider/model`.
    pub fn of(&self, full_name: &str) -> Option<Price> {
        if let Some(price) = self.own.get(full_name) {
            return Some(*price);
        }
        let (provider, model) = full_name.split_once('/')?;
        self.table.iter().find(|(row, _)| row.is_of(provider, model)).map(|(_, price)| *price)
    }

    /// Where a price comes from: its day and its source.
    pub fn source(&self, full_name: &str) -> Option<String> {
        if self.own.contains_key(full_name) {
            return Some("the config".to_owned());
        }
        let (provider, model) = full_name.split_once('/')?;
        let (row, _) = self.table.iter().find(|(row, _)| row.is_of(provider, model))?;
        Some(format!("{} as of {}", row.source, row.as_of))
    }
}

/// Tokens that are charged, by what they cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    /// Without those from and to a cache.
    pub(super) input: u64,
    pub(super) cache_read: u64,
    pub(super) cache_write: u64,
    pub(super) output: u64,
}

/// Billionths of a dollar, rounded up.
pub(super) fn cost(price: &Price, amounts: &Amounts) -> u64 {
    let of = |tokens: u64, each: u64| u128::from(tokens) * u128::from(each);
    let pico = of(amounts.input, price.input)
        + of(amounts.output, price.output)
        + of(amounts.cache_read, price.cache_read.unwrap_or(price.input))
        + of(amounts.cache_write, price.cache_write.unwrap_or(price.input));
    u64::try_from(pico.div_ceil(1000)).unwrap_or(u64::MAX)
}

/// The most that so many tokens can cost, wherever the input comes from or goes.
pub(super) fn worst(price: &Price, input: u64, output: u64) -> u64 {
    let dearest = price.input.max(price.cache_write.unwrap_or(0)).max(price.cache_read.unwrap_or(0));
    cost(&Price { input: dearest, ..*price }, &Amounts { input, output, ..Amounts::default() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_price_a_day_and_a_source_and_no_two_speak_of_one_model() {
        let file: File = toml::from_str(TABLE).unwrap();
        assert!(file.price.len() >= 10);
        for (number, row) in file.price.iter().enumerate() {
            let price = row.price().unwrap();
            assert!(price.input > 0 && price.output >= price.input, "{row:?}");
            assert!(price.cache_read.is_none_or(|read| read <= price.input), "{row:?}");
            assert!(row.provider != "anthropic" || price.cache_write > Some(price.input), "{row:?}");
            assert!(row.source.starts_with("https://"), "{row:?}");
            assert!(row.as_of.len() == 10 && is_snapshot(&row.as_of) && row.as_of.contains('-'), "{row:?}");
            let others = file.price.iter().enumerate().filter(|(other, _)| *other != number);
            for (_, other) in others {
                assert!(!other.is_of(&row.provider, &row.model), "{row:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_name_is_the_exact_one_or_a_dated_snapshot_of_it_and_the_config_wins() {
        let own = PriceConfig {
            model: "openai/gpt-4o".to_owned(),
            price: Price { input: 1, output: 2, cache_read: None, cache_write: None },
        };
        let prices = Prices::new(&[own]);
        let input = |name: &str| prices.of(name).map(|price| price.input);
        let cases = [
            ("anthropic/claude-sonnet-4-5", Some(3_000_000)),
            ("anthropic/claude-sonnet-4-5-20250929", Some(3_000_000)),
            ("anthropic/claude-sonnet-4-5-latest", Some(3_000_000)),
            ("anthropic/claude-sonnet-4-5-fast", None),
            ("anthropic/claude-sonnet-4", None),
            ("anthropic/claude-opus-4-6-20260101", None),
            ("openai/gpt-4o", Some(1)),
            ("openai/gpt-4o-2024-08-06", Some(2_500_000)),
            ("openai/gpt-4o-mini", Some(150_000)),
            ("openai/gpt-4o-audio-preview", None),
            ("openrouter/gpt-4o", None),
            ("gpt-4o", None),
            ("", None),
        ];
        for (name, wanted) in cases {
            assert_eq!(input(name), wanted, "{name}");
        }
        assert_eq!(prices.source("openai/gpt-4o").unwrap(), "the config");
        assert!(prices.source("openai/gpt-5").unwrap().contains("as of"));
    }

    #[test]
    fn costs_are_exact_rounded_up_and_do_not_overflow() {
        let price = Price {
            input: 3_000_000,
            output: 15_000_000,
            cache_read: Some(300_000),
            cache_write: Some(3_750_000),
        };
        let amounts = Amounts { input: 1_000_000, cache_read: 0, cache_write: 0, output: 0 };
        assert_eq!(cost(&price, &amounts), 3_000_000_000);
        let amounts = Amounts { input: 10, cache_read: 100, cache_write: 20, output: 7 };
        assert_eq!(cost(&price, &amounts), 30_000 + 30_000 + 75_000 + 105_000);
        let cheap = Price { input: 1, output: 0, cache_read: None, cache_write: None };
        assert_eq!(cost(&cheap, &Amounts { input: 1, ..Amounts::default() }), 1, "rounded up");
        assert_eq!(cost(&price, &Amounts { output: u64::MAX, ..Amounts::default() }), u64::MAX);
        assert_eq!(worst(&price, 10, 2), 37_500 + 30_000, "all of the input is written to the cache");
    }
}
