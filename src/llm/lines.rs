//! The pool of lines. A line is one transport with the models that were built on it; a call has it
//! for itself, so that a stop can cut exactly this call. Given back, it keeps its connections for the
//! next turn; cut, it is thrown away.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use rig_core::DynModel;
use rig_core::completion::ProviderCapabilities;
use rig_core::operation::Completion;

use super::provider;
use crate::config::ProviderConfig;
use crate::http::transport::{HttpTransport, Network};
use crate::thread::{Cancel, lock};

/// Calls at once in the whole program, which also bounds the sockets. As many as the largest
/// `max_concurrent_turns`; whoever comes later waits for a line.
const LINES_MAX: usize = 64;
/// Lines kept while nobody calls; the rest of a burst is closed.
const IDLE_LINES_MAX: usize = 16;
/// Models kept on one line; more than the configuration names in practice.
const MODELS_MAX: usize = 16;

/// Stands in for the models of all providers, by `provider/model`.
pub(super) type Cast = Box<dyn Fn(&str) -> DynModel<Completion> + Send + Sync>;

struct Line {
    transport: HttpTransport,
    /// By `provider/model`.
    models: HashMap<String, DynModel<Completion>>,
}

pub(super) struct Lines {
    network: Network,
    read_wait_max: Duration,
    /// Last in, first out: the warmest connection is used next.
    idle: Mutex<Vec<Line>>,
    /// By `provider/model`; only what the configuration names is asked for.
    described: Mutex<HashMap<String, ProviderCapabilities>>,
    permits: (Sender<()>, Receiver<()>),
    cast: Option<Cast>,
}

impl Lines {
    pub(super) fn new(network: Network, read_wait_max: Duration, cast: Option<Cast>) -> Self {
        let (idle, described) = (Mutex::default(), Mutex::default());
        Self { network, read_wait_max, idle, described, permits: bounded(LINES_MAX), cast }
    }

    /// Waits for a line; none when the stop came first.
    pub(super) fn take(&self, cancel: &Cancel) -> Option<Lease<'_>> {
        if self.permits.0.try_send(()).is_err() {
            select! {
                send(self.permits.0, ()) -> _ => {}
                recv(cancel.receiver()) -> _ => return None,
            }
        }
        let line = lock(&self.idle).pop().unwrap_or_else(|| Line {
            transport: HttpTransport::new(&self.network, self.read_wait_max),
            models: HashMap::new(),
        });
        Some(Lease { lines: self, line })
    }

    /// What requests to this model may ask for. Sends nothing.
    pub(super) fn describe(
        &self,
        provider: &ProviderConfig,
        full_name: &str,
        name: &str,
    ) -> ProviderCapabilities {
        if let Some(known) = lock(&self.described).get(full_name) {
            return *known;
        }
        let model = match &self.cast {
            Some(cast) => cast(full_name),
            None => provider::build(provider, name, HttpTransport::new(&self.network, self.read_wait_max)),
        };
        let capabilities = model.capabilities().completion;
        lock(&self.described).insert(full_name.to_owned(), capabilities);
        capabilities
    }

    fn give_back(&self, line: Line) {
        let mut idle = lock(&self.idle);
        if !line.transport.is_stopped() && idle.len() < IDLE_LINES_MAX {
            idle.push(line);
        }
    }
}

/// A line while a call has it.
pub(super) struct Lease<'a> {
    lines: &'a Lines,
    line: Line,
}

impl Lease<'_> {
    pub(super) fn transport(&self) -> &HttpTransport {
        &self.line.transport
    }

    /// The model called `full_name`, built at its first use.
    pub(super) fn model(
        &mut self,
        full_name: &str,
        provider: &ProviderConfig,
        name: &str,
    ) -> DynModel<Completion> {
        let Line { transport, models } = &mut self.line;
        if let Some(model) = models.get(full_name) {
            return model.clone();
        }
        if models.len() >= MODELS_MAX {
            models.clear();
        }
        let model = match &self.lines.cast {
            Some(cast) => cast(full_name),
            None => provider::build(provider, name, transport.clone()),
        };
        models.insert(full_name.to_owned(), model.clone());
        model
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let models = std::mem::take(&mut self.line.models);
        self.lines.give_back(Line { transport: self.line.transport.clone(), models });
        // The permit that `take` put in is still there.
        self.lines.permits.1.try_recv().ok();
    }
}
