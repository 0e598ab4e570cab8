//! `[…routing]` of an agent or the defaults.

use super::super::section::Section;
use super::super::{LlmConfig, OFFLINE_MODEL, RoutingConfig, ThinkingConfig};
use super::seconds;

pub(super) fn routing(section: &Section<'_, '_>, base: &RoutingConfig, llm: &LlmConfig) -> RoutingConfig {
    let check = |key: &'static str, model: &str| {
        let provider =
            model.split_once('/').filter(|(provider, name)| !provider.is_empty() && !name.is_empty());
        match provider {
            None => section.refuse(key, format!("{model:?} must be provider/model")),
            Some(_) if model == OFFLINE_MODEL => {}
            Some((provider, _)) if llm.providers.iter().any(|known| known.id == provider) => {}
            Some((provider, _)) => {
                section.refuse(key, format!("the provider {provider:?} has no key or address in [llm]"))
            }
        }
    };
    let model = |key: &'static str, base: &String| match section.name(key) {
        Some(model) => {
            check(key, &model);
            model
        }
        None => base.clone(),
    };
    let fallbacks = section.texts("fallbacks");
    fallbacks.iter().flatten().for_each(|model| check("fallbacks", model));
    let compactor = section.name("compactor").inspect(|model| check("compactor", model));
    let cortex = section.name("cortex").inspect(|model| check("cortex", model));
    let routing = RoutingConfig {
        channel: model("channel", &base.channel),
        branch: model("branch", &base.branch),
        worker: model("worker", &base.worker),
        compactor: compactor.or_else(|| base.compactor.clone()),
        cortex: cortex.or_else(|| base.cortex.clone()),
        fallbacks: fallbacks.unwrap_or_else(|| base.fallbacks.clone()),
        rate_limit_cooldown: seconds(section, "rate_limit_cooldown_secs", 1, 3600)
            .unwrap_or(base.rate_limit_cooldown),
        thinking: ThinkingConfig::read(section, &base.thinking),
    };
    section.finish();
    routing
}
