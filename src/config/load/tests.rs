//! What the fixtures of `tests/config.rs` do not show: the document and the reader know the same keys.

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
[[agents]]
[[bindings]]
[[messaging.irc.instances]]
"#;

/// Keys that stand in the document as tables of their own, not as rows.
const TABLES: [&str; 14] = [
    "llm",
    "provider",
    "defaults",
    "routing",
    "sandbox",
    "agents",
    "bindings",
    "messaging",
    "webhook",
    "irc",
    "api",
    "instances",
    "memory",
    "embedding",
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
fn an_explicit_file_must_exist_and_the_data_folder_follows_the_environment() {
    let variables = Variables(&[("SPACEBOT_DIR", "/nowhere/at/all")]);
    assert!(load(Some(Path::new("/nowhere/c.toml")), &variables).is_err());
    let loaded = load(None, &variables).expect("defaults");
    assert_eq!(loaded.config.data_folder, PathBuf::from("/nowhere/at/all"));
}
