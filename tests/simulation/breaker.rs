//! What is expected of the rests of models: which may be asked when. Kept by itself, from what the models are
//! asked and what they say, and compared with what the daemon does.

#![allow(unreachable_pub)] // one of the parts of one test

use std::collections::BTreeMap;
use std::time::Duration;

/// A call asks a model so often before it gives it up.
const TRIES: u32 = 4;
/// A call waits no longer for a model that says how long to leave it alone.
const PATIENCE: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_secs(10);
/// Of one that somebody has to mend.
const REST_REFUSED: Duration = Duration::from_secs(60);
const REST_MAX: Duration = Duration::from_secs(600);
/// Of one that limits us and does not say for how long; as configured.
pub const COOLDOWN: Duration = Duration::from_secs(90);

/// One process of one agent.
pub type Caller = String;

/// What the end of a request says about the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Well,
    Lost,
    /// To be left alone for so long.
    Wants(Duration),
    Limited,
    Refused,
    /// What is wrong with the request says nothing about the next one.
    Odd,
    /// It came to no end.
    Nothing,
}

#[derive(Default)]
pub struct Breaker {
    /// Since when it may be tried, and rests so far.
    open: Option<(Duration, u32)>,
    probe: Option<Caller>,
    /// Calls that were let through while all was well, with their failures.
    under_way: BTreeMap<Caller, u32>,
    pub probes: usize,
    /// Rests because its provider said so, and because somebody has to mend it.
    pub limited: usize,
    pub refused: usize,
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

    pub fn told(&mut self, caller: &Caller, said: Said, now: Duration) {
        let probed = self.probe.take_if(|probe| probe == caller).is_some();
        let failures = self.under_way.remove(caller).unwrap_or_default() + 1;
        let tries_again = match said {
            Said::Nothing | Said::Odd => return,
            Said::Well => {
                self.open = None;
                return;
            }
            Said::Lost => true,
            Said::Wants(wait) => wait <= PATIENCE,
            Said::Limited | Said::Refused => false,
        };
        if tries_again && !probed && failures < TRIES {
            self.under_way.insert(caller.clone(), failures);
        } else {
            self.rests(said, now);
        }
    }

    /// Calls that fail together count once; what a provider says last holds.
    fn rests(&mut self, said: Said, now: Duration) {
        let (until, rests) = self.open.unwrap_or((now, 0));
        let together = until > now;
        let doubled = |rest: Duration| (rest * 2_u32.pow(rests.min(16))).min(REST_MAX);
        let wait = match said {
            Said::Wants(wait) => wait,
            Said::Limited => COOLDOWN,
            _ if together => return,
            Said::Refused => doubled(REST_REFUSED),
            _ => doubled(REST),
        };
        self.limited += usize::from(matches!(said, Said::Wants(_) | Said::Limited));
        self.refused += usize::from(said == Said::Refused);
        self.open = Some((now + wait, if together { rests } else { rests + 1 }));
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}
