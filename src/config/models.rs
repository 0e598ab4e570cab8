//! `models = { channel = "…", … }` of a binding, and the same of one conversation: models in place of those of
//! the agent's routing.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::describe::text;
use super::section::Section;
use super::{LlmConfig, OFFLINE_MODEL, RoutingConfig};

/// Models by the process that asks them; what is not set is taken from the next place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelOverrides {
    pub channel: Option<String>,
    pub branch: Option<String>,
    pub worker: Option<String>,
    pub compactor: Option<String>,
}

impl ModelOverrides {
    /// The processes that one conversation can have a model of its own for.
    pub const PROCESSES: [&'static str; 4] = ["channel", "branch", "worker", "compactor"];

    pub(super) fn read(section: &Section<'_, '_>, llm: &LlmConfig) -> Self {
        let model = |key: &'static str| {
            let model = section.name(key)?;
            match llm.refuses(&model) {
                Some(reason) => {
                    section.refuse(key, reason);
                    None
                }
                None => Some(model),
            }
        };
        let models = Self {
            channel: model("channel"),
            branch: model("branch"),
            worker: model("worker"),
            compactor: model("compactor"),
        };
        section.finish();
        models
    }

    /// As a line of TOML, if anything is set.
    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        let set: Vec<String> = self.set().map(|(key, model)| format!("{key} = {}", text(model))).collect();
        if set.is_empty() { Ok(()) } else { writeln!(out, "models = {{ {} }}", set.join(", ")) }
    }

    /// What is set, by the process.
    pub fn set(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let values = [&self.channel, &self.branch, &self.worker, &self.compactor];
        Self::PROCESSES.into_iter().zip(values).filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }

    /// What is set here, else what is set there.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            channel: self.channel.or(other.channel),
            branch: self.branch.or(other.branch),
            worker: self.worker.or(other.worker),
            compactor: self.compactor.or(other.compactor),
        }
    }

    /// Without those that are unknown.
    #[must_use]
    pub fn only(self, is_known: impl Fn(&str) -> bool) -> Self {
        let known = |model: Option<String>| model.filter(|model| is_known(model));
        Self {
            channel: known(self.channel),
            branch: known(self.branch),
            worker: known(self.worker),
            compactor: known(self.compactor),
        }
    }
}

impl RoutingConfig {
    /// The same with these models. A type of task that has a model of its own keeps it.
    pub fn with(&self, models: &ModelOverrides) -> Cow<'_, Self> {
        if models.set().next().is_none() {
            return Cow::Borrowed(self);
        }
        let or = |model: &Option<String>, own: &String| model.as_ref().unwrap_or(own).clone();
        Cow::Owned(Self {
            channel: or(&models.channel, &self.channel),
            branch: or(&models.branch, &self.branch),
            worker: or(&models.worker, &self.worker),
            compactor: models.compactor.clone().or_else(|| self.compactor.clone()),
            ..self.clone()
        })
    }
}

impl LlmConfig {
    /// Why this is the name of no model that can be asked.
    pub fn refuses(&self, model: &str) -> Option<String> {
        let provider =
            model.split_once('/').filter(|(provider, name)| !provider.is_empty() && !name.is_empty());
        match provider {
            None => Some(format!("{model:?} must be provider/model")),
            Some(_) if model == OFFLINE_MODEL => None,
            Some((provider, _)) if self.providers.iter().any(|known| known.id == provider) => None,
            Some((provider, _)) => Some(format!("the provider {provider:?} has no key or address in [llm]")),
        }
    }
}
