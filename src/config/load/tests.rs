//! What the fixtures of `tests/config.rs` do not show: the document and the reader know the same keys.

use super::super::OFFLINE_MODEL;
use super::*;

struct Variables(&'static [(&'static str, &'static str)]);

impl Environment for Variables {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }
}

fn parsed(text: &str) -> Result<Loaded, Vec<String>> {
    let variables = Variables(&[("KEY", "k-secret")]);
    parse(text, Some(PathBuf::from("c.toml")), PathBuf::from("/data"), &variables)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// One of each kind of table, so that every key is asked for.
const EVERY_TABLE: &str = r#"
[llm.provider.p]
[llm.prices."p/m"]
[[agents]]
[[bindings]]
[[links]]
[[humans]]
[[messaging.irc.instances]]
"#;

/// Keys that stand in the document as tables of their own, not as rows.
const TABLES: [&str; 32] = [
    "models",
    "budget",
    "prices",
    "offline",
    "memory_persistence",
    "memory_upkeep",
    "participant_context",
    "channel",
    "cortex",
    "schedule",
    "llm",
    "provider",
    "defaults",
    "routing",
    "sandbox",
    "ingestion",
    "skills",
    "agents",
    "bindings",
    "links",
    "humans",
    "messaging",
    "webhook",
    "irc",
    "api",
    "instances",
    "memory",
    "embedding",
    "working_memory",
    "compaction",
    "coalescing",
    "loop_guard",
];

#[test]
fn the_document_names_every_key_that_is_read_with_its_range_and_no_other() {
    let variables = Variables(&[]);
    let source = Source::new(PathBuf::from("c.toml"), EVERY_TABLE, &variables);
    let table = DeTable::parse(EVERY_TABLE).expect("TOML");
    resolve(&Section::root(&source, table.get_ref()), None, PathBuf::new(), &variables);
    let known = source.known.take();
    let document = include_str!("../../../docs/CONFIG.md");
    let named = |key: &str| document.contains(&format!("`{key}`"));
    for (key, range) in &known {
        assert!(TABLES.contains(&key.as_str()) || named(key), "docs/CONFIG.md does not name `{key}`");
        let Some((least, most)) = range else { continue };
        let range = format!("{least} to {most}");
        let rows = document.lines().filter(|line| line.contains(&format!("`{key}`")));
        let plain = |line: &str| line.replace(',', "");
        assert!(rows.clone().any(|row| plain(row).contains(&range)), "`{key}` is from {range}");
    }
    for row in document.lines().filter(|line| line.starts_with("| `")) {
        let keys = row.split('|').nth(1).unwrap_or_default();
        for key in keys.split('`').skip(1).step_by(2) {
            assert!(known.contains_key(key), "docs/CONFIG.md names `{key}`, which nobody reads");
        }
    }
}

#[test]
fn defaults_need_no_file() {
    let config = parsed("").expect("valid").config;
    assert_eq!(config.agents.len(), 1);
    assert_eq!(config.agents[0].routing.channel, OFFLINE_MODEL);
    assert!(config.webhook.enabled && config.api.enabled && config.irc.is_empty());
    assert_eq!((config.webhook.port, config.api.port), (18789, 19898));
}

#[test]
fn an_agent_has_the_defaults_and_what_it_says_itself() {
    let text = "[defaults]\ntimezone = \"Asia/Tokyo\"\n[defaults.working_memory]\ncontext_token_budget = 900\n\
                min_importance_under_pressure = 1\n[[agents]]\nid = \"a\"\n[[agents]]\nid = \"b\"\n\
                timezone = \"Europe/Berlin\"\n[agents.working_memory]\nmin_importance_under_pressure = 0.2_5\n";
    let agents = parsed(text).expect("valid").config.agents;
    let said = |agent: &AgentConfig| {
        let memory = &agent.working_memory;
        (agent.timezone.name().to_owned(), memory.token_budget, format!("{:?}", memory.min_importance))
    };
    let expected = |zone: &str, least: &str| (zone.to_owned(), 900, least.to_owned());
    assert_eq!(
        [said(&agents[0]), said(&agents[1])],
        [expected("Asia/Tokyo", "1.0"), expected("Europe/Berlin", "0.25")]
    );
}

#[test]
fn without_a_word_the_time_zone_is_that_of_the_system() {
    let variables = Variables(&[("TZ", "Asia/Kathmandu")]);
    let loaded = parse("", None, PathBuf::new(), &variables).expect("valid");
    assert_eq!(loaded.config.agents[0].timezone.name(), "Asia/Kathmandu");
}

#[test]
fn an_explicit_file_must_exist_and_the_data_folder_follows_the_environment() {
    let variables = Variables(&[("SPACEBOT_DIR", "/nowhere/at/all")]);
    assert!(load(Some(Path::new("/nowhere/c.toml")), &variables).is_err());
    let loaded = load(None, &variables).expect("defaults");
    assert_eq!(loaded.config.data_folder, PathBuf::from("/nowhere/at/all"));
}
