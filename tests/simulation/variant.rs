//! What a world has beside the plain daemon, drawn from its seed.

#![allow(unreachable_pub)] // one of the parts of one test

use crate::random::Random;

#[derive(Debug, Clone, Copy, Default)]
pub struct Variant {
    /// A second agent, which may be asked by the first and ask it.
    pub linked: bool,
    /// The cortex has a model, and the operator talks with it.
    pub cortex: bool,
    /// Messages wait for a model.
    pub defers: bool,
    /// Two models of a provider, and the offline responder behind them.
    pub chained: bool,
    /// What they may bill has ceilings.
    pub budget: bool,
}

impl Variant {
    pub fn of(seed: u64) -> Self {
        let mut random = Random(seed ^ 0xaaaa);
        let mut chance = |percent| random.chance(percent);
        let [linked, cortex, defers, chained, budget] = [40, 40, 35, 40, 60].map(&mut chance);
        Self { linked, cortex, defers, chained, budget: chained && budget }
    }

    /// Models go away for a time, and come back.
    pub fn loses_models(self) -> bool {
        self.cortex || self.defers || self.chained
    }
}
