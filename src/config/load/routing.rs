//! `[…routing]` of an agent or the defaults.

use std::collections::BTreeMap;

use super::super::section::Section;
use super::super::{LlmConfig, RoutingConfig, ThinkingConfig};
use super::seconds;

/// Types of tasks, and bytes of the name of one: they stand in a prompt.
const TASK_TYPES_MAX: usize = 16;
const TASK_TYPE_BYTES_MAX: usize = 32;

pub(super) fn routing(section: &Section<'_, '_>, base: &RoutingConfig, llm: &LlmConfig) -> RoutingConfig {
    let check = |key: &'static str, model: &str| {
        if let Some(reason) = llm.refuses(model) {
            section.refuse(key, reason);
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
    let overrides = task_overrides(&section.table("task_overrides"), &check);
    let routing = RoutingConfig {
        task_overrides: overrides.unwrap_or_else(|| base.task_overrides.clone()),
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

/// `coding = "provider/model"`, and so on; none where there is no such table.
fn task_overrides(
    section: &Section<'_, '_>,
    check: &dyn Fn(&'static str, &str),
) -> Option<BTreeMap<String, String>> {
    let mut overrides = BTreeMap::new();
    for (name, model, _) in section.named_texts() {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if name.is_empty() || name.len() > TASK_TYPE_BYTES_MAX || !name.bytes().all(is_plain) {
            section.refuse_named(&name, "is no type of a task: up to 32 of a to z, 0 to 9, `-` and `_`");
        } else if overrides.len() == TASK_TYPES_MAX {
            section.refuse_named(&name, "is one type more than 16");
        } else {
            check("task_overrides", &model);
            overrides.insert(name, model);
        }
    }
    (!overrides.is_empty()).then_some(overrides)
}
