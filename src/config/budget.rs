//! `[budget]` of the daemon, `[defaults.budget]` / `[agents.budget]`, and `[llm.prices."provider/model"]`.
//!
//! Money is whole numbers: billionths of a US dollar, and for the price of one token a thousandth of that.

use std::fmt::Write;

use super::describe::{name, text};
use super::section::Section;
use super::{ApiType, LlmConfig, OFFLINE_MODEL};
use crate::billing::Exhausted;

/// Decimal places of a dollar in an amount.
pub const NANO_PLACES: u32 = 9;
/// Decimal places of "US dollars per million tokens": what is left are picodollars per token.
pub const PRICE_PLACES: u32 = 6;
/// Largest amount and price, in whole dollars: a slip of the keyboard is beyond it, and sums cannot overflow.
const DOLLARS_MOST: u64 = 1_000_000;
/// Most tokens of a ceiling.
const TOKENS_MOST: u64 = 1_000_000_000_000;
/// Output tokens of one request where a ceiling holds.
const OUTPUT_TOKENS: u64 = 8192;

/// Ceilings of the daemon or of one agent; none: no such ceiling.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetConfig {
    /// In billionths of a US dollar (`day_usd`, `month_usd`).
    pub day_nano: Option<u64>,
    pub month_nano: Option<u64>,
    pub day_tokens: Option<u64>,
    pub month_tokens: Option<u64>,
    /// The operator is told once when this share of a ceiling is used (0 to 1).
    pub warn_at: f64,
    /// Share of each ceiling that work nobody waits for may use (0 to 1).
    pub background_share: f64,
    pub when_exhausted: Exhausted,
    /// The limit that a request carries which has none, where a ceiling holds (`max_output_tokens`).
    pub output_most: u64,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            day_nano: None,
            month_nano: None,
            day_tokens: None,
            month_tokens: None,
            warn_at: 0.75,
            background_share: 0.25,
            when_exhausted: Exhausted::Refuse,
            output_most: OUTPUT_TOKENS,
        }
    }
}

impl BudgetConfig {
    /// There is a ceiling at all.
    pub fn binds(&self) -> bool {
        self.in_money() || self.in_tokens()
    }

    pub fn in_money(&self) -> bool {
        self.day_nano.is_some() || self.month_nano.is_some()
    }

    pub fn in_tokens(&self) -> bool {
        self.day_tokens.is_some() || self.month_tokens.is_some()
    }

    /// Resolved over `base`.
    pub(super) fn read(section: &Section<'_, '_>, base: &Self, llm: &LlmConfig) -> Self {
        let money = |key| section.decimal(key, NANO_PLACES, DOLLARS_MOST);
        let config = Self {
            day_nano: money("day_usd").or(base.day_nano),
            month_nano: money("month_usd").or(base.month_nano),
            day_tokens: section.number("day_tokens", 0, TOKENS_MOST).or(base.day_tokens),
            month_tokens: section.number("month_tokens", 0, TOKENS_MOST).or(base.month_tokens),
            warn_at: section.fraction("warn_at").unwrap_or(base.warn_at),
            background_share: section.fraction("background_share").unwrap_or(base.background_share),
            when_exhausted: exhausted(section, llm).unwrap_or_else(|| base.when_exhausted.clone()),
            output_most: section.number("max_output_tokens", 256, 1_000_000).unwrap_or(base.output_most),
        };
        section.finish();
        config
    }

    pub(super) fn write(&self, out: &mut String, table: &str) -> std::fmt::Result {
        writeln!(out, "[{table}]")?;
        for (key, value) in [("day_usd", self.day_nano), ("month_usd", self.month_nano)] {
            value.map_or(Ok(()), |value| writeln!(out, "{key} = {}", decimal_text(value, NANO_PLACES)))?;
        }
        for (key, value) in [("day_tokens", self.day_tokens), ("month_tokens", self.month_tokens)] {
            value.map_or(Ok(()), |value| writeln!(out, "{key} = {value}"))?;
        }
        writeln!(out, "warn_at = {:?}\nbackground_share = {:?}", self.warn_at, self.background_share)?;
        let then = match &self.when_exhausted {
            Exhausted::Refuse => "refuse",
            Exhausted::Offline => "offline",
            Exhausted::Model(model) => model,
        };
        writeln!(out, "when_exhausted = {}\nmax_output_tokens = {}", text(then), self.output_most)
    }
}

fn exhausted(section: &Section<'_, '_>, llm: &LlmConfig) -> Option<Exhausted> {
    const KEY: &str = "when_exhausted";
    let then = section.name(KEY)?;
    Some(match then.as_str() {
        "refuse" => Exhausted::Refuse,
        "offline" | OFFLINE_MODEL => Exhausted::Offline,
        model => {
            let provider = model.split_once('/').filter(|(_, name)| !name.is_empty());
            match provider {
                None => section.refuse(KEY, "must be \"refuse\", \"offline\" or a provider/model"),
                Some((provider, _)) if llm.providers.iter().any(|known| known.id == provider) => {}
                Some((provider, _)) => {
                    section.refuse(KEY, format!("the provider {provider:?} has no key or address in [llm]"));
                }
            }
            Exhausted::Model(then)
        }
    })
}

/// Prices of one model, in picodollars per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    pub input: u64,
    pub output: u64,
    /// None: as input.
    pub cache_read: Option<u64>,
    pub cache_write: Option<u64>,
}

/// `[llm.prices."provider/model"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceConfig {
    /// `provider/model`.
    pub model: String,
    pub price: Price,
}

impl PriceConfig {
    pub(super) fn read_all(section: &Section<'_, '_>, llm: &LlmConfig) -> Vec<Self> {
        let named = section.named_tables();
        named.iter().filter_map(|(model, table)| Self::read(model, table, llm)).collect()
    }

    fn read(model: &str, section: &Section<'_, '_>, llm: &LlmConfig) -> Option<Self> {
        let price = |key| section.decimal(key, PRICE_PLACES, DOLLARS_MOST);
        let (input, output) = (price("input"), price("output"));
        let (cache_read, cache_write) = (price("cache_read"), price("cache_write"));
        for (key, value) in [("input", input), ("output", output)] {
            if value.is_none() {
                section.refuse(key, "is needed, in US dollars per million tokens");
            }
        }
        let (provider, name) = model.split_once('/').unwrap_or((model, ""));
        if provider.is_empty() || name.is_empty() {
            section.refuse("input", format!("{model:?} must be provider/model"));
        }
        let messages =
            |known: &&super::ProviderConfig| known.id == provider && known.api == ApiType::Anthropic;
        if cache_write.is_none() && input != Some(0) && llm.providers.iter().any(|known| messages(&known)) {
            section.refuse("cache_write", "is needed for a provider of this api_type, which bills it apart");
        }
        section.finish();
        let price = Price { input: input?, output: output?, cache_read, cache_write };
        Some(Self { model: model.to_owned(), price })
    }

    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n[llm.prices.{}]", name(&self.model))?;
        let price = &self.price;
        let values = [
            ("input", Some(price.input)),
            ("output", Some(price.output)),
            ("cache_read", price.cache_read),
            ("cache_write", price.cache_write),
        ];
        values
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .try_for_each(|(key, value)| writeln!(out, "{key} = {}", decimal_text(value, PRICE_PLACES)))
    }
}

/// `1.25` with two places is 125; none: no such number, or it has more places that are not zero.
pub fn decimal(text: &str, places: u32) -> Option<u64> {
    let text = text.replace('_', "");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let left = places.checked_sub(u32::try_from(fraction.len()).ok()?)?;
    let fraction: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let whole = whole.parse::<u64>().ok()?.checked_mul(10_u64.checked_pow(places)?)?;
    whole.checked_add(fraction.checked_mul(10_u64.checked_pow(left)?)?)
}

/// The other way round; at least one place, so that TOML takes it for a number with places.
pub fn decimal_text(value: u64, places: u32) -> String {
    let unit = 10_u64.pow(places);
    let fraction = format!("{:0width$}", value % unit, width = places as usize);
    let fraction = fraction.trim_end_matches('0');
    format!("{}.{}", value / unit, if fraction.is_empty() { "0" } else { fraction })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_come_back_as_they_were() {
        let cases = [
            ("1", Some(1_000_000)),
            ("0.075", Some(75_000)),
            ("1_000.5", Some(1_000_500_000)),
            ("0.000001", Some(1)),
            ("0.0000010", Some(1)),
            ("0.0000001", None),
            ("-1", None),
            ("1e3", None),
            ("inf", None),
            (".5", None),
            ("", None),
            ("99999999999999999999", None),
            ("18446744073709", Some(18_446_744_073_709_000_000)),
        ];
        for (text, wanted) in cases {
            assert_eq!(decimal(text, 6), wanted, "{text:?}");
            if let Some(value) = wanted {
                assert_eq!(decimal(&decimal_text(value, 6), 6), Some(value), "{text:?}");
            }
        }
        assert_eq!(decimal_text(1_250_000_000, 9), "1.25");
        assert_eq!(decimal_text(0, 9), "0.0");
    }
}
