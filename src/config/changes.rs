//! What a new config changes in a running daemon: which values it takes over, and which keys differ.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::describe::written;
use super::{AgentConfig, Config, LinkConfig};

/// The values in force once a daemon that was started with `running` has read `new`. Everything may
/// change but what is opened once, at the start: the agents with their databases, listeners,
/// connections and the indexes of the memory.
pub fn in_force(running: &Config, new: &Config) -> Config {
    let runs = |config: &&AgentConfig| running.agents.iter().any(|agent| agent.id == config.id);
    // The default agent of the new config, if it runs.
    let default = new.agents.iter().find(|agent| agent.is_default).filter(runs);
    let agent = |old: &AgentConfig| {
        let taken = new.agents.iter().find(|agent| agent.id == old.id).unwrap_or(old);
        let is_default = default.map_or(old.is_default, |default| default.id == old.id);
        AgentConfig { is_default, ..taken.clone() }
    };
    // Half of the bindings would send messages to the wrong agent.
    let bound = |agent| running.agents.iter().any(|known| known.id == agent);
    let bindings =
        if new.bindings.iter().all(|binding| bound(binding.agent.clone())) { new } else { running };
    let linked = |link: &LinkConfig| bound(link.from.clone()) && bound(link.to.clone());
    let linked = if new.links.iter().all(linked) { new } else { running };
    Config {
        file: new.file.clone(),
        log_level: new.log_level,
        llm: new.llm.clone(),
        agents: running.agents.iter().map(agent).collect(),
        bindings: bindings.bindings.clone(),
        links: linked.links.clone(),
        humans: new.humans.clone(),
        data_folder: running.data_folder.clone(),
        webhook: running.webhook.clone(),
        irc: running.irc.clone(),
        api: running.api.clone(),
        memory: running.memory.clone(),
        budget: new.budget.clone(),
        prices: new.prices.clone(),
        secrets: new.secrets.and(&running.secrets),
    }
    .bound()
}

/// Paths of the keys whose values differ, such as `agents.main.routing.channel`; of a table that only
/// one side has, the table's.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut paths = Vec::new();
    differ("", Some(&tree(old)), Some(&tree(new)), &mut paths);
    paths
}

fn tree(config: &Config) -> Value {
    let text = written(config, |secret| secret.reveal().to_owned());
    // What `describe` writes is TOML; should it not be, the whole text is one value.
    text.parse::<Table>().map_or(Value::String(text), Value::Table)
}

fn differ(path: &str, old: Option<&Value>, new: Option<&Value>, paths: &mut Vec<String>) {
    if old == new {
        return;
    }
    match (old.and_then(members), new.and_then(members)) {
        (Some(old), Some(new)) => {
            let keys: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
            for key in keys {
                let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                differ(&path, old.get(key).copied(), new.get(key).copied(), paths);
            }
        }
        _ => paths.push(if path.is_empty() { "everything".to_owned() } else { path.to_owned() }),
    }
}

/// What stands in a table, or in a list whose tables have names.
fn members(value: &Value) -> Option<BTreeMap<&str, &Value>> {
    match value {
        Value::Table(table) => Some(table.iter().map(|(key, value)| (key.as_str(), value)).collect()),
        Value::Array(list) => list.iter().map(|item| Some((name_of(item)?, item))).collect(),
        _ => None,
    }
}

fn name_of(item: &Value) -> Option<&str> {
    let table = item.as_table()?;
    // A binding has neither: their order counts, and they are one value.
    table.get("id").or_else(|| table.get("name"))?.as_str()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use crate::config::load::parse;

    struct Nothing;

    impl Environment for Nothing {
        fn variable(&self, _name: &str) -> Option<String> {
            None
        }
    }

    fn config(text: &str) -> Config {
        parse(text, None, "/data".into(), &Nothing).unwrap().config
    }

    /// What a daemon with `old` takes over of `new`, and what waits for its next start.
    fn taken_and_waiting(old: &Config, new: &Config) -> (Vec<String>, Vec<String>) {
        let now = in_force(old, new);
        assert_eq!(
            changes(&now, &in_force(&now, new)),
            Vec::<String>::new(),
            "the second time nothing is new"
        );
        assert_eq!(in_force(&now, old), *old, "and the old file brings the old values back");
        (changes(old, &now), changes(&now, new))
    }

    /// Before, after, what takes effect at once, what waits.
    type Case = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

    const CASES: &[Case] = &[
        ("", "", &[], &[]),
        ("# a\n[defaults]\nmax_turns = 5", "[defaults]\n# b\n", &[], &[]),
        ("", "log_level = \"debug\"", &["log_level"], &[]),
        ("", "[defaults]\nmax_turns = 6", &["agents.main.max_turns"], &[]),
        ("", "[defaults]\ntimezone = \"Asia/Tokyo\"", &["agents.main.timezone"], &[]),
        ("", "[messaging.webhook]\nport = 1", &[], &["messaging.webhook.port"]),
        ("[api]\nport = 1", "[api]\nport = 1\nauth_token = \"t\"", &[], &["api.auth_token"]),
        ("[api]\nauth_token = \"t\"", "[api]\nauth_token = \"u\"", &[], &["api.auth_token"]),
        ("", "[memory]\nlanguage = \"german\"", &[], &["memory.language"]),
        ("", "[messaging.irc]\nserver = \"s\"\nnick = \"n\"", &[], &["messaging.irc"]),
        (
            "[messaging.irc]\nserver = \"s\"\nnick = \"n\"\n[[messaging.irc.instances]]\nname = \"x\"\nserver = \"s\"\nnick = \"n\"",
            "[messaging.irc]\nserver = \"t\"\nnick = \"n\"\n[[messaging.irc.instances]]\nname = \"x\"\nserver = \"s\"\nnick = \"m\"",
            &[],
            &["messaging.irc.instances.x.nick", "messaging.irc.server"],
        ),
        (
            "[llm]\nopenai_key = \"k\"",
            "[llm]\nopenai_key = \"l\"\nread_timeout_secs = 5\n[defaults.routing]\nworker = \"openai/m\"",
            &["agents.main.routing.worker", "llm.provider.openai.api_key", "llm.read_timeout_secs"],
            &[],
        ),
        ("", "[llm.provider.\"a b\"]\napi_type = \"ollama\"", &["llm.provider"], &[]),
        // Agents come and go with the next start; those that stay take what is new.
        (
            "[[agents]]\nid = \"a\"\n[[agents]]\nid = \"b\"",
            "[[agents]]\nid = \"a\"\nmax_turns = 7\n[[agents]]\nid = \"c\"",
            &["agents.a.max_turns"],
            &["agents.b", "agents.c"],
        ),
        (
            "[[agents]]\nid = \"a\"\n[[agents]]\nid = \"b\"",
            "[[agents]]\nid = \"b\"\n[[agents]]\nid = \"a\"",
            &["agents.a.default", "agents.b.default"],
            &[],
        ),
        (
            "[[agents]]\nid = \"a\"",
            "[[agents]]\nid = \"a\"\n[[agents]]\nid = \"b\"\ndefault = true",
            &[],
            &["agents.a.default", "agents.b"],
        ),
        (
            "[[agents]]\nid = \"a\"\n[[agents]]\nid = \"b\"",
            "[[agents]]\nid = \"a\"\n[[agents]]\nid = \"b\"\n[[bindings]]\nagent_id = \"b\"\nchannel = \"irc\"",
            &["bindings"],
            &[],
        ),
        (
            "[[agents]]\nid = \"a\"",
            "[[agents]]\nid = \"a\"\n[[agents]]\nid = \"b\"\n[[bindings]]\nagent_id = \"b\"\nchannel = \"irc\"",
            &[],
            &["agents.b", "bindings"],
        ),
        (
            "[[agents]]\nid = \"a\"\n[[agents]]\nid = \"b\"",
            "[[agents]]\nid = \"a\"\n[[agents]]\nid = \"b\"\n[[links]]\nfrom = \"a\"\nto = \"b\"",
            &["links"],
            &[],
        ),
        (
            "[[agents]]\nid = \"a\"",
            "[[agents]]\nid = \"a\"\n[[agents]]\nid = \"b\"\n[[links]]\nfrom = \"a\"\nto = \"b\"",
            &[],
            &["agents.b", "links"],
        ),
    ];

    #[test]
    fn each_change_takes_effect_at_once_or_waits() {
        for (old, new, taken, waiting) in CASES {
            let found = taken_and_waiting(&config(old), &config(new));
            assert_eq!((found.0, found.1), (told(taken), told(waiting)), "{old:?} -> {new:?}");
        }
    }

    fn told(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    /// Two configs that have no value in common.
    const THIS: &str = include_str!("../../tests/fixtures/reload/this.toml");
    const THAT: &str = include_str!("../../tests/fixtures/reload/that.toml");
    /// What of it takes effect at once, and what waits.
    const EXPECTED: &str = include_str!("../../tests/fixtures/reload/expected.txt");

    #[test]
    fn every_key_takes_effect_at_once_or_waits() {
        let (this, that) = (config(THIS), config(THAT));
        let (taken, waiting) = taken_and_waiting(&this, &that);
        let listed = |keys: &[String]| keys.iter().map(|key| format!("{key}\n")).collect::<String>();
        let found = format!("at once:\n{}\nat the next start:\n{}", listed(&taken), listed(&waiting));
        assert_eq!(found, EXPECTED);
        // A key that is not in the two files would not be judged.
        let judged = |key: &str| taken.iter().chain(&waiting).any(|other| other == key);
        let mut keys = Vec::new();
        leaves("", &tree(&this), &mut keys);
        let is_name =
            |key: &str| key.ends_with(".id") || key.ends_with(".name") || key.starts_with("agents.b.");
        let missing: Vec<_> = keys.iter().filter(|key| !is_name(key) && !judged(key)).collect();
        assert!(keys.len() > 60 && missing.is_empty(), "not in the two files: {missing:?}");
    }

    fn leaves(path: &str, value: &Value, keys: &mut Vec<String>) {
        let Some(members) = members(value) else { return keys.push(path.to_owned()) };
        for (key, value) in members {
            leaves(&if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }, value, keys);
        }
    }

    #[test]
    fn the_document_says_what_waits() {
        let document = include_str!("../../docs/CONFIG.md");
        let section =
            |title: &str| document.split(title).nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
        let (taken, waiting) = EXPECTED.split_once("at the next start:\n").unwrap();
        let named = |text: &str, key: &str| {
            let table = match key.split('.').collect::<Vec<_>>()[..] {
                ["agents", _, ref rest @ ..] if rest.len() > 1 => format!("[agents.{}]", rest[0]),
                ["agents", ..] => "[[agents]]".to_owned(),
                ["messaging", platform, ..] => format!("[messaging.{platform}]"),
                ["memory", "embedding", ..] => "[memory.embedding]".to_owned(),
                ["llm", table @ ("prices" | "models"), ..] => format!("[llm.{table}]"),
                ["bindings" | "links" | "humans", ..] => format!("[[{}]]", key.split('.').next().unwrap()),
                [table, ..] if key.contains('.') => format!("[{table}]"),
                _ => key.to_owned(),
            };
            assert!(text.contains(&format!("`{table}`")), "{table} of {key} is not in: {text}");
        };
        taken.lines().skip(1).filter(|key| !key.is_empty()).for_each(|key| named(&section("At once: "), key));
        waiting.lines().for_each(|key| named(&section("At the next start: "), key));
    }
}
