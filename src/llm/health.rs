//! Which models can be asked: what failed rests, longer each time, and comes back by one probe.
//!
//! A model is lost when a call has used up its retries, when its provider limits it, or when it refuses
//! the key. While it rests nobody asks it. After that the next call is its probe, alone and without
//! retries; the others go on passing it over until the probe has answered. Nothing runs by itself: a
//! daemon that nobody talks to probes nothing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use super::random_share;
use crate::clock::SharedClock;
use crate::thread::lock;

/// No provider's limit is longer than its day; a longer wish is taken for an error.
const REST_MAX: Duration = Duration::from_secs(24 * 3600);
/// First rest of a model that is lost; each further one is twice as long.
const LOST_REST: Duration = Duration::from_secs(10);
/// The same where somebody has to act first: a refused key, a model that is not there.
const REFUSED_REST: Duration = Duration::from_secs(60);
/// Longest rest that a model gets without asking for it.
const LOST_REST_MAX: Duration = Duration::from_secs(600);
/// Share of such a rest that is random, so that daemons which lost a model together do not come back
/// together; a simulation wants none ([`super::Tuning`]).
pub(super) const JITTER: f64 = 0.1;

/// Why a model gets a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Its provider wants it.
    Wished(Duration),
    /// It did not answer.
    Lost,
    /// It will not answer before somebody acts.
    Refused,
}

/// What may be done with a model now.
pub(super) enum Admission<'a> {
    /// To be asked as usual.
    Open,
    /// To be asked once, without retries, while the guard is held.
    Probe(Probe<'a>),
    /// Not to be asked for this long; zero while another call probes it.
    Rests(Duration),
}

/// A model that is not well.
#[derive(Debug, Clone, Copy)]
struct Ailing {
    /// When it was lost, monotonic.
    since: Duration,
    /// When it may be probed, monotonic.
    until: Duration,
    /// Rests so far.
    rests: u32,
    is_probed: bool,
}

/// A model that cannot be asked, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Lost {
    /// `provider/model`.
    pub model: String,
    /// Seconds since it was lost.
    pub since_seconds: u64,
    /// Seconds until it may be asked again; zero: the next call does.
    pub rests_seconds: u64,
}

pub(super) struct Health {
    clock: SharedClock,
    jitter: f64,
    /// By `provider/model`, so bounded by the configuration.
    ailing: Mutex<HashMap<String, Ailing>>,
}

impl Health {
    pub(super) fn new(clock: SharedClock, jitter: f64) -> Self {
        Self { clock, jitter, ailing: Mutex::default() }
    }

    pub(super) fn admit<'a>(&'a self, model: &'a str) -> Admission<'a> {
        let now = self.clock.monotonic();
        match lock(&self.ailing).get_mut(model) {
            None => Admission::Open,
            Some(one) if one.until > now => Admission::Rests(one.until.saturating_sub(now)),
            Some(one) if one.is_probed => Admission::Rests(Duration::ZERO),
            Some(one) => {
                one.is_probed = true;
                Admission::Probe(Probe { health: self, model })
            }
        }
    }

    /// For how long it is not to be asked.
    pub(super) fn rests(&self, model: &str) -> Option<Duration> {
        let now = self.clock.monotonic();
        let ailing = lock(&self.ailing);
        let one = ailing.get(model)?;
        (one.until > now || one.is_probed).then(|| one.until.saturating_sub(now))
    }

    /// It has answered.
    pub(super) fn answered(&self, model: &str) {
        if let Some(one) = lock(&self.ailing).remove(model) {
            let away = self.clock.monotonic().saturating_sub(one.since);
            log::info!("{model} answers again, after {} s", away.as_secs());
        }
    }

    /// It has not answered. Calls that fail together count once.
    pub(super) fn rest(&self, model: &str, why: Rest) {
        let now = self.clock.monotonic();
        let mut ailing = lock(&self.ailing);
        let new = Ailing { since: now, until: now, rests: 0, is_probed: false };
        let one = ailing.entry(model.to_owned()).or_insert(new);
        let wait = match why {
            Rest::Wished(wait) => wait.min(REST_MAX),
            Rest::Lost | Rest::Refused if one.until > now => return,
            Rest::Lost => self.doubled(LOST_REST, one.rests),
            Rest::Refused => self.doubled(REFUSED_REST, one.rests),
        };
        if one.rests == 0 {
            log::warn!("{model} is not asked for {} s; then one call tries it", wait.as_secs());
        }
        (one.until, one.rests, one.is_probed) = (now + wait, one.rests.saturating_add(1), false);
    }

    /// Up to [`JITTER`] longer.
    fn doubled(&self, first: Duration, rests: u32) -> Duration {
        let wait = first.saturating_mul(1 << rests.min(16)).min(LOST_REST_MAX);
        wait.mul_f64(1.0 + self.jitter * random_share())
    }

    /// Models that cannot be asked, by name.
    pub(super) fn lost(&self) -> Vec<Lost> {
        let now = self.clock.monotonic();
        let lost = |(model, one): (&String, &Ailing)| Lost {
            model: model.clone(),
            since_seconds: now.saturating_sub(one.since).as_secs(),
            rests_seconds: one.until.saturating_sub(now).as_secs(),
        };
        let mut all: Vec<Lost> = lock(&self.ailing).iter().map(lost).collect();
        all.sort_by(|one, other| one.model.cmp(&other.model));
        all
    }
}

/// The one call that tries a lost model. One that comes to no end, such as a stopped one, leaves the
/// model to the next.
pub(super) struct Probe<'a> {
    health: &'a Health,
    model: &'a str,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if let Some(one) = lock(&self.health.ailing).get_mut(self.model) {
            one.is_probed = false;
        }
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{SimulatedClock, Timestamp};

    fn bench() -> (Arc<SimulatedClock>, Health) {
        let clock = SimulatedClock::starting_at(Timestamp(1_000));
        (clock.clone(), Health::new(clock, JITTER))
    }

    fn left(health: &Health, model: &str) -> Option<Duration> {
        match health.admit(model) {
            Admission::Rests(left) => Some(left),
            Admission::Open | Admission::Probe(_) => None,
        }
    }

    #[test]
    fn a_model_rests_as_long_as_its_provider_wants_but_no_longer_than_a_day() {
        let (clock, health) = bench();
        assert!(matches!(health.admit("a/b"), Admission::Open));
        health.rest("a/b", Rest::Wished(Duration::from_secs(60)));
        clock.advance(Duration::from_millis(59_999));
        assert_eq!(left(&health, "a/b"), Some(Duration::from_millis(1)));
        assert!(matches!(health.admit("a/c"), Admission::Open));
        clock.advance(Duration::from_millis(1));
        assert!(matches!(health.admit("a/b"), Admission::Probe(_)));
        health.rest("a/b", Rest::Wished(Duration::MAX));
        assert_eq!(left(&health, "a/b"), Some(REST_MAX));
    }

    #[test]
    fn one_call_probes_and_the_others_pass_by() {
        let (clock, health) = bench();
        health.rest("a/b", Rest::Lost);
        clock.advance(LOST_REST * 2);
        let Admission::Probe(probe) = health.admit("a/b") else { panic!("it is time") };
        assert_eq!(left(&health, "a/b"), Some(Duration::ZERO), "one is on its way");
        drop(probe);
        let Admission::Probe(probe) = health.admit("a/b") else { panic!("the first came to no end") };
        health.answered("a/b");
        drop(probe);
        assert!(matches!(health.admit("a/b"), Admission::Open));
        assert_eq!(health.lost(), []);
    }

    #[test]
    fn rests_double_up_to_a_bound_and_calls_that_fail_together_count_once() {
        let (clock, health) = bench();
        let between = |rest: Duration, first: Duration| first <= rest && rest <= first.mul_f64(1.0 + JITTER);
        for expected in [10, 20, 40, 80, 160, 320, 600, 600] {
            health.rest("a/b", Rest::Lost);
            health.rest("a/b", Rest::Lost);
            let rest = left(&health, "a/b").unwrap_or_default();
            assert!(between(rest, Duration::from_secs(expected)), "{rest:?} for {expected} s");
            // The simulated clock counts milliseconds.
            clock.advance(rest + Duration::from_millis(1));
        }
        health.rest("a/c", Rest::Refused);
        assert!(between(left(&health, "a/c").unwrap_or_default(), REFUSED_REST));
        let names: Vec<(String, u64)> =
            health.lost().into_iter().map(|lost| (lost.model, lost.rests_seconds / 100)).collect();
        assert_eq!(names, [("a/b".to_owned(), 0), ("a/c".to_owned(), 0)]);
    }
}
