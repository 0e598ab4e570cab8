//! Whether a call fits below the ceilings: plain arithmetic on whole numbers.

use super::period::Period;
use crate::billing::Exhausted;
use crate::config::{BudgetConfig, NANO_PLACES, decimal_text};
use crate::id::AgentId;

/// A share is counted in millionths: money is never a float.
const MILLION: u128 = 1_000_000;

/// What ceilings count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Tokens,
    Money,
}

impl Unit {
    pub(super) const ALL: [Unit; 2] = [Unit::Tokens, Unit::Money];

    pub(super) fn name(self) -> &'static str {
        match self {
            Unit::Tokens => "tokens",
            Unit::Money => "USD",
        }
    }

    pub fn shown(self, amount: u64) -> String {
        match self {
            Unit::Tokens => format!("{amount} tokens"),
            Unit::Money => format!("{} USD", decimal_text(amount, NANO_PLACES)),
        }
    }
}

/// Tokens and billionths of a dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Amount {
    pub(super) tokens: u64,
    /// None: unknown, and only tokens count.
    pub(super) nano: Option<u64>,
}

impl Amount {
    fn of(self, unit: Unit) -> Option<u64> {
        match unit {
            Unit::Tokens => Some(self.tokens),
            Unit::Money => self.nano,
        }
    }
}

/// What is spent or reserved in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spent {
    pub(super) all: Amount,
    /// The part of it that nobody waited for.
    pub(super) background: Amount,
}

/// The ceilings of one owner.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    /// None: the daemon.
    pub(super) owner: Option<AgentId>,
    pub(super) config: BudgetConfig,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) then: Exhausted,
}

impl Budget {
    pub(super) fn name(&self) -> String {
        self.owner.as_ref().map_or("the daemon".to_owned(), |agent| format!("agent {agent}"))
    }

    /// It cannot see what is spent by a model without a price.
    pub(super) fn is_blind(&self) -> bool {
        self.config.in_money() && !self.config.in_tokens()
    }

    pub(super) fn ceiling(&self, period: Period, unit: Unit) -> Option<u64> {
        match (period, unit) {
            (Period::Day, Unit::Tokens) => self.config.day_tokens,
            (Period::Month, Unit::Tokens) => self.config.month_tokens,
            (Period::Day, Unit::Money) => self.config.day_nano,
            (Period::Month, Unit::Money) => self.config.month_nano,
        }
    }

    /// Why a call that may come to `worst` does not fit; none: it does.
    pub(super) fn refuses(
        &self,
        period: Period,
        spent: &Spent,
        worst: Amount,
        background: bool,
    ) -> Option<Refusal> {
        for unit in Unit::ALL {
            let (Some(ceiling), Some(worst)) = (self.ceiling(period, unit), worst.of(unit)) else { continue };
            let part = share(ceiling, self.config.background_share);
            let whole = (spent.all.of(unit), ceiling, "");
            let behind = (spent.background.of(unit), part, " for background work");
            for (spent, ceiling, what) in std::iter::once(whole).chain(background.then_some(behind)) {
                let spent = spent.unwrap_or(0);
                if spent.checked_add(worst).is_none_or(|sum| sum > ceiling) {
                    let reason = format!(
                        "the {} of {}{what} allows {}: {} are spent or reserved, and this call may come to {}",
                        period.name(),
                        self.name(),
                        unit.shown(ceiling),
                        unit.shown(spent),
                        unit.shown(worst),
                    );
                    return Some(Refusal { reason, then: self.config.when_exhausted.clone() });
                }
            }
        }
        None
    }

    /// So much of a ceiling is used that the operator is warned.
    pub(super) fn strains(&self, spent: u64, ceiling: u64) -> bool {
        spent > 0 && spent >= share(ceiling, self.config.warn_at)
    }

    /// What the operator is to hear about this period, with a key that makes it once.
    pub(super) fn warnings(&self, period: Period, spent: &Spent) -> Vec<(String, String)> {
        let warning = |unit: Unit| {
            let ceiling = self.ceiling(period, unit)?;
            let spent = spent.all.of(unit).unwrap_or(0);
            self.strains(spent, ceiling).then(|| {
                let key = format!("{} {} of {}", self.name(), unit.name(), unit.shown(ceiling));
                let text = format!(
                    "{} of the {} that {} may use in a {} are used",
                    unit.shown(spent),
                    unit.shown(ceiling),
                    self.name(),
                    period.name()
                );
                (key, text)
            })
        };
        Unit::ALL.into_iter().filter_map(warning).collect()
    }
}

/// Rounded down; more than a hundred where a ceiling was lowered.
pub(super) fn percent(spent: u64, ceiling: u64) -> u64 {
    let percent = (u128::from(spent) * 100).checked_div(u128::from(ceiling)).unwrap_or(100);
    u64::try_from(percent).unwrap_or(u64::MAX)
}

/// Rounded down.
fn share(of: u64, part: f64) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to 1
    let millionths = (part * 1e6).round() as u128;
    u64::try_from(u128::from(of) * millionths / MILLION).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(config: BudgetConfig) -> Budget {
        Budget { owner: None, config }
    }

    fn amount(tokens: u64, nano: u64) -> Amount {
        Amount { tokens, nano: Some(nano) }
    }

    #[test]
    fn a_call_fits_up_to_the_ceiling_and_not_beyond() {
        let tokens = budget(BudgetConfig { day_tokens: Some(100), ..BudgetConfig::default() });
        let money = budget(BudgetConfig { month_nano: Some(100), ..BudgetConfig::default() });
        let spent = Spent { all: amount(60, 60), background: amount(20, 20) };
        // budget, period, worst tokens, worst nano, background, fits
        let cases: [(&Budget, Period, u64, u64, bool, bool); 9] = [
            (&tokens, Period::Day, 40, 0, false, true),
            (&tokens, Period::Day, 41, 0, false, false),
            (&tokens, Period::Day, u64::MAX, 0, false, false),
            (&tokens, Period::Month, 41, 0, false, true),
            (&tokens, Period::Day, 5, 0, true, true),
            (&tokens, Period::Day, 6, 0, true, false),
            (&money, Period::Month, 9999, 40, false, true),
            (&money, Period::Month, 0, 41, false, false),
            (&money, Period::Month, 0, 6, true, false),
        ];
        for (budget, period, tokens, nano, background, fits) in cases {
            let refused = budget.refuses(period, &spent, amount(tokens, nano), background);
            assert_eq!(
                refused.is_none(),
                fits,
                "{budget:?} {period:?} {tokens} {nano} {background} {refused:?}"
            );
        }
        let unpriced = Amount { tokens: 40, nano: None };
        assert!(money.refuses(Period::Month, &spent, unpriced, false).is_none(), "tokens alone bind it");
        assert!(money.is_blind() && !tokens.is_blind());
    }

    #[test]
    fn a_share_is_rounded_down_and_exact() {
        assert_eq!(share(10, 0.25), 2);
        assert_eq!(share(1_000_000_000_000_000, 0.1), 100_000_000_000_000);
        let percents = [(750, 1000), (1, 1000), (3, 0), (u64::MAX, 1)].map(|(spent, of)| percent(spent, of));
        assert_eq!(percents, [75, 0, 100, u64::MAX]);
        assert_eq!((share(7, 0.0), share(7, 1.0), share(u64::MAX, 1.0)), (0, 7, u64::MAX));
    }

    #[test]
    fn the_warning_comes_at_its_share() {
        let budget =
            budget(BudgetConfig { day_tokens: Some(100), month_nano: Some(100), ..BudgetConfig::default() });
        let told = |period, tokens, nano| {
            budget.warnings(period, &Spent { all: amount(tokens, nano), ..Spent::default() }).len()
        };
        assert_eq!((told(Period::Day, 74, 100), told(Period::Day, 75, 0)), (0, 1));
        assert_eq!((told(Period::Month, 100, 74), told(Period::Month, 0, 75)), (0, 1));
    }
}
