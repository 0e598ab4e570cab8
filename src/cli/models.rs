//! `spacebot models`: which models each kind of process asks, and the providers behind them. Nobody is asked
//! anything without `--check`, and no key is ever shown.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Write};

use serde_json::{Value, json};

use super::chat::printable;
use crate::clock::SystemClock;
use crate::config::{AgentConfig, Config, OFFLINE_MODEL, ProviderConfig};
use crate::error::{Fault, Kind};
use crate::id::ProcessKind;
use crate::llm::chain_of;
use crate::llm::media::{Taken, taken};
use crate::llm::reach::{CHECK_WAIT_MAX, Reach, check_all};

/// What asks models.
const KINDS: [ProcessKind; 6] = [
    ProcessKind::Channel,
    ProcessKind::Branch,
    ProcessKind::Worker,
    ProcessKind::Compactor,
    ProcessKind::Ingestion,
    ProcessKind::Cortex,
];

#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    #[error("there is no agent {0:?} in the config")]
    UnknownAgent(String),
    #[error("the output could not be written: {0}")]
    Output(#[from] io::Error),
}

impl Fault for ModelsError {
    fn kind(&self) -> Kind {
        match self {
            Self::UnknownAgent(_) => Kind::NotFound,
            Self::Output(_) => Kind::Invalid,
        }
    }
}

/// One provider, and what came of asking it.
struct Line<'a> {
    provider: &'a ProviderConfig,
    /// A model of it stands in a chain of the agent.
    is_used: bool,
    reach: Option<Reach>,
}

impl Line<'_> {
    fn key(&self) -> &'static str {
        match (&self.provider.api_key, self.provider.api.kind().key_needed) {
            (Some(_), _) => "key present",
            (None, true) => "key missing",
            (None, false) => "no key",
        }
    }

    fn address(&self) -> String {
        printable(&crate::secrets::Scrubber::default().scrub(self.provider.address()))
    }
}

/// Whether all providers that the agent's models are of can be asked, as far as that was tried.
///
/// # Errors
/// There is no such agent, or nothing can be written.
pub fn run(config: &Config, agent: Option<&str>, json: bool, check: bool) -> Result<bool, ModelsError> {
    let unknown = || ModelsError::UnknownAgent(agent.unwrap_or_default().to_owned());
    let agent = config.agent(agent).ok_or_else(unknown)?;
    let providers = &config.llm.providers;
    let mut reached = match check {
        true => {
            let found = check_all(providers, &SystemClock::shared(), CHECK_WAIT_MAX);
            found.into_iter().map(Some).collect()
        }
        false => vec![None; providers.len()],
    };
    let used = |id: &str| {
        let bound = agent.bindings.iter().flat_map(|binding| binding.settings.models.set());
        let names = KINDS.iter().flat_map(|kind| chain_of(&agent.routing, *kind));
        names
            .chain(bound.map(|(_, model)| model))
            .filter_map(|name| name.split_once('/'))
            .any(|(provider, _)| provider == id)
    };
    let lines: Vec<Line<'_>> = providers
        .iter()
        .zip(reached.drain(..))
        .map(|(provider, reach)| Line { provider, is_used: used(&provider.id), reach })
        .collect();
    let shown = shown(config, agent);
    let mut out = BufWriter::new(io::stdout().lock());
    if json {
        writeln!(out, "{}", as_json(agent, &shown, &lines))?;
    } else {
        tell(agent, &shown, &lines, &mut out)?;
    }
    out.flush()?;
    let is_well = |line: &Line<'_>| !line.is_used || line.reach.as_ref().is_none_or(Reach::is_well);
    Ok(lines.iter().all(is_well))
}

/// The models in their order, with the offline responder at the end.
fn chain(agent: &AgentConfig, kind: ProcessKind) -> Vec<&str> {
    chain_of(&agent.routing, kind).into_iter().chain([OFFLINE_MODEL]).collect()
}

/// What each model of the chains is shown besides text, by its name.
fn shown<'a>(config: &'a Config, agent: &'a AgentConfig) -> BTreeMap<&'a str, Taken> {
    let names: BTreeSet<&str> = KINDS.iter().flat_map(|kind| chain_of(&agent.routing, *kind)).collect();
    let one = |full_name: &'a str| {
        let (id, model) = full_name.split_once('/')?;
        let provider = config.llm.providers.iter().find(|provider| provider.id == id)?;
        let said = config.llm.models.iter().find(|said| said.model == full_name);
        Some((full_name, taken(provider, model, said)))
    };
    names.into_iter().filter_map(one).collect()
}

fn tell(
    agent: &AgentConfig,
    shown: &BTreeMap<&str, Taken>,
    lines: &[Line<'_>],
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "models of {}", agent.id)?;
    for kind in KINDS {
        writeln!(out, "  {:<12} {}", kind.as_str(), printable(&chain(agent, kind).join(", then ")))?;
    }
    if !shown.is_empty() {
        writeln!(out, "shown to them")?;
    }
    for (name, taken) in shown {
        writeln!(out, "  {:<32} {:<12} says {}", printable(name), taken.takes.as_str(), taken.source)?;
    }
    writeln!(out, "providers")?;
    for line in lines {
        let kind = line.provider.api.kind();
        let used = if line.is_used { "used" } else { "not used" };
        write!(
            out,
            "  {:<16} {:<16} {:<11} {:<8} {}",
            printable(&line.provider.id),
            kind.wire.as_str(),
            line.key(),
            used,
            line.address()
        )?;
        match line.reach.as_ref().map(|reach| (reach.as_str(), reach.detail())) {
            None => writeln!(out)?,
            Some((state, None)) => writeln!(out, "  {state}")?,
            Some((state, Some(detail))) => writeln!(out, "  {state}: {}", printable(detail))?,
        }
    }
    if lines.is_empty() {
        writeln!(out, "  none: the offline responder answers")?;
    }
    writeln!(out, "which of them rest is known to the running daemon: lost_models in GET /api/status")
}

fn as_json(agent: &AgentConfig, shown: &BTreeMap<&str, Taken>, lines: &[Line<'_>]) -> Value {
    let chains: serde_json::Map<String, Value> =
        KINDS.iter().map(|kind| (kind.as_str().to_owned(), json!(chain(agent, *kind)))).collect();
    let provider = |line: &Line<'_>| {
        let kind = line.provider.api.kind();
        json!({
            "id": line.provider.id,
            "api_type": kind.name,
            "wire": kind.wire.as_str(),
            "base_url": line.address(),
            "key": line.provider.api_key.is_some(),
            "key_needed": kind.key_needed,
            "headers": line.provider.headers.iter().map(|header| header.name.as_str()).collect::<Vec<_>>(),
            "used": line.is_used,
            "reach": line.reach.as_ref().map(Reach::as_str),
            "detail": line.reach.as_ref().and_then(Reach::detail),
        })
    };
    let providers: Vec<Value> = lines.iter().map(provider).collect();
    let shown = shown.iter().map(|(name, taken)| {
        let takes = taken.takes;
        (
            (*name).to_owned(),
            json!({"images": takes.images, "documents": takes.documents, "source": taken.source}),
        )
    });
    let shown: serde_json::Map<String, Value> = shown.collect();
    json!({"agent": agent.id.as_str(), "models": chains, "shown": shown, "providers": providers})
}
