//! A configured model in a chain.

use rig_core::completion::CompletionRequest;

use super::attached;
use super::media::{self, Takes};
use super::provider::Providers;
use crate::config::{ModelConfig, ProviderConfig};

pub(super) struct Link {
    /// `provider/model`.
    pub(super) full_name: String,
    /// The provider's own name of the model.
    pub(super) name: String,
    /// None: the provider is not in the configuration.
    pub(super) provider: Option<ProviderConfig>,
    said: Option<ModelConfig>,
}

impl Link {
    pub(super) fn new(full_name: &str, providers: &Providers) -> Self {
        let (provider, name) = full_name.split_once('/').unwrap_or((full_name, ""));
        Self {
            full_name: full_name.to_owned(),
            name: name.to_owned(),
            provider: providers.get(provider).cloned(),
            said: providers.said_of(full_name).cloned(),
        }
    }

    /// What of the files in this request the model takes; where there are none, nobody looks it up.
    pub(super) fn takes(&self, request: &CompletionRequest) -> Takes {
        match &self.provider {
            Some(provider) if attached::has_files(request) => {
                media::taken(provider, &self.name, self.said.as_ref()).takes
            }
            _ => Takes::default(),
        }
    }
}
