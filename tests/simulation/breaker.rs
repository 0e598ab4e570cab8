//! What is expected of the rests of models: which may be asked when. Kept by itself, from what the models are
//! asked and what they say, and compared with what the daemon does.

#![allow(unreachable_pub)] // one of the parts of one test

use std::collections::BTreeMap;
use std::time::Duration;

/// A call asks a model so often before it gives it up.
const TRIES: u32 = 4;
const REST: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(600);

/// One process of one agent.
pub type Caller = String;

#[derive(Default)]
pub struct Breaker {
    /// Since when it may be tried, and rests so far.
    open: Option<(Duration, u32)>,
    probe: Option<Caller>,
    /// Calls that were let through while all was well, with their failures.
    under_way: BTreeMap<Caller, u32>,
    pub probes: usize,
}

impl Breaker {
    pub fn asked(&mut self, caller: &Caller, now: Duration) -> Result<(), String> {
        if self.under_way.contains_key(caller) {
            return Ok(());
        }
        match self.open {
            None => {
                self.under_way.insert(caller.clone(), 0);
                Ok(())
            }
            Some((until, _)) if now < until => Err(format!("{caller} asks it {:?} too early", until - now)),
            Some(_) if self.probe.is_some() => Err(format!("{caller} asks it beside {:?}", self.probe)),
            Some(_) => {
                self.probes += 1;
                self.probe = Some(caller.clone());
                Ok(())
            }
        }
    }

    /// `well`: it has answered; none when that reached nobody.
    pub fn told(&mut self, caller: &Caller, well: Option<bool>, now: Duration) {
        let probed = self.probe.take_if(|probe| probe == caller).is_some();
        let failures = self.under_way.remove(caller);
        match (well, self.open) {
            (None, _) => {}
            (Some(true), _) => self.open = None,
            (Some(false), Some((_, rests))) if probed => {
                let rest = (REST * 2_u32.pow(rests.min(16))).min(REST_MAX);
                self.open = Some((now + rest, rests + 1));
            }
            (Some(false), open) => {
                let failures = failures.unwrap_or_default() + 1;
                if failures < TRIES {
                    self.under_way.insert(caller.clone(), failures);
                } else if open.is_none() {
                    self.open = Some((now + REST, 1));
                }
            }
        }
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}
