//! How many requests a provider gets at once and in a minute, whoever makes them. What is too many waits
//! here and not at the provider, who would answer with a limit; a stop ends the wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::clock::SharedClock;
use crate::config::ProviderConfig;
use crate::thread::{Cancel, lock};

/// What `requests_per_minute` counts over.
const MINUTE: Duration = Duration::from_secs(60);

pub(super) struct Gates {
    clock: SharedClock,
    /// By the id of the provider.
    gates: HashMap<String, Gate>,
}

struct Gate {
    permits: (Sender<()>, Receiver<()>),
    /// When the last requests began, monotonic; as many as a minute may have.
    begun: Mutex<VecDeque<Duration>>,
    per_minute: Option<usize>,
}

/// One request that is under way.
pub(super) struct Pass<'a>(&'a Gate);

impl Gates {
    pub(super) fn new(providers: &[ProviderConfig], clock: SharedClock) -> Self {
        let gate = |provider: &ProviderConfig| Gate {
            permits: bounded(provider.max_concurrent),
            begun: Mutex::default(),
            per_minute: provider.requests_per_minute,
        };
        Self { clock, gates: providers.iter().map(|one| (one.id.clone(), gate(one))).collect() }
    }

    /// Waits until the provider may be asked; none when the stop came first.
    pub(super) fn enter(&self, provider: &str, cancel: &Cancel) -> Option<Option<Pass<'_>>> {
        let Some(gate) = self.gates.get(provider) else { return Some(None) };
        select! {
            send(gate.permits.0, ()) -> _ => {}
            recv(cancel.receiver()) -> _ => return None,
        }
        let pass = Pass(gate);
        while let Some(wait) = gate.wait(self.clock.monotonic()) {
            log::debug!(
                "{provider} has had its requests of this minute; the next goes in {} s",
                wait.as_secs()
            );
            if cancel.wait(wait) {
                return None;
            }
        }
        Some(Some(pass))
    }
}

impl Gate {
    /// How long the minute still has too many requests; none when one more may begin, which is counted.
    fn wait(&self, now: Duration) -> Option<Duration> {
        let most = self.per_minute?;
        let mut begun = lock(&self.begun);
        while begun.front().is_some_and(|first| *first + MINUTE <= now) {
            begun.pop_front();
        }
        match begun.front().filter(|_| begun.len() >= most) {
            Some(first) => Some((*first + MINUTE).saturating_sub(now)),
            None => {
                begun.push_back(now);
                None
            }
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        // The permit that `enter` put in is still there.
        self.0.permits.1.try_recv().ok();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock, SimulatedClock, Timestamp};
    use crate::config::ApiType;

    fn gates(max_concurrent: usize, requests_per_minute: Option<usize>) -> Gates {
        let provider = ProviderConfig::new("p", ApiType::OpenAi);
        let provider = ProviderConfig { max_concurrent, requests_per_minute, ..provider };
        Gates::new(&[provider], SimulatedClock::starting_at(Timestamp(0)))
    }

    #[test]
    fn no_more_requests_than_the_provider_takes_are_under_way_and_a_stop_ends_the_wait() {
        let gates = gates(2, None);
        let cancel = Cancel::new();
        let first = gates.enter("p", &cancel).unwrap();
        let second = gates.enter("p", &cancel).unwrap();
        assert!(first.is_some() && second.is_some());
        assert!(gates.enter("other", &cancel).unwrap().is_none(), "a provider that is not in the config");
        let stopped = Cancel::new();
        stopped.cancel();
        assert!(gates.enter("p", &stopped).is_none());
        drop(second);
        assert!(gates.enter("p", &cancel).unwrap().is_some());
    }

    /// Says the next of these milliseconds each time that it is asked.
    struct Steps(Mutex<VecDeque<u64>>);

    impl Clock for Steps {
        fn now(&self) -> Timestamp {
            Timestamp(0)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(lock(&self.0).pop_front().unwrap_or_default())
        }
    }

    #[test]
    fn who_comes_too_early_in_a_minute_waits_for_its_end() {
        let clock = Arc::new(Steps(Mutex::new([0, 59_999, 60_000].into())));
        let provider = ProviderConfig::new("p", ApiType::OpenAi);
        let provider = ProviderConfig { requests_per_minute: Some(1), ..provider };
        let gates = Gates::new(&[provider], clock.clone());
        for _ in 0..2 {
            drop(gates.enter("p", &Cancel::new()).unwrap());
        }
        assert!(lock(&clock.0).is_empty(), "it has looked again after its wait");
        assert_eq!(*lock(&gates.gates["p"].begun), [Duration::from_secs(60)]);
    }

    #[test]
    fn a_stop_ends_the_wait_for_the_end_of_a_minute() {
        let gates = gates(9, Some(1));
        drop(gates.enter("p", &Cancel::new()).unwrap());
        let stopped = Cancel::new();
        stopped.cancel();
        // Each of these is stopped at the one wait or at the other.
        for _ in 0..32 {
            assert!(gates.enter("p", &stopped).is_none());
        }
        assert!(gates.gates["p"].permits.1.is_empty(), "nobody has kept a place");
    }

    #[test]
    fn a_minute_has_no_more_requests_than_it_may_wherever_it_begins() {
        let gates = gates(9, Some(2));
        let gate = &gates.gates["p"];
        let at = |seconds| gate.wait(Duration::from_secs(seconds)).map(|wait| wait.as_secs());
        assert_eq!((at(0), at(50)), (None, None));
        assert_eq!((at(50), at(59)), (Some(10), Some(1)));
        assert_eq!((at(60), at(60)), (None, Some(50)));
        assert_eq!(at(500), None);
    }
}
