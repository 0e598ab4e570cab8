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
[llm.models."p/m"]
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

/// A value for every key that holds a secret. A key that is missing here makes the test below fail.
const EVERY_SECRET: &str = r#"
[llm]
anthropic_key = "s-anthropic"
openai_key = "s-openai"
openrouter_key = "s-openrouter"
gemini_key = "s-gemini"
groq_key = "s-groq"
deepseek_key = "s-deepseek"
xai_key = "s-xai"
fireworks_key = "s-fireworks"
together_key = "s-together"
mistral_key = "s-mistral"
nvidia_key = "s-nvidia"
minimax_key = "s-minimax"
minimax_cn_key = "s-minimax-cn"
moonshot_key = "s-moonshot"
zai_key = "s-zai"
zai_coding_plan_key = "s-zai-coding"
github_copilot_key = "s-copilot"
kilo_key = "s-kilo"
opencode_zen_key = "s-zen"
opencode_go_key = "s-go"
ollama_key = "s-ollama"
[llm.provider.p]
api_type = "openai"
base_url = "https://user:s-address@host/v1"
api_key = "s-provider"
headers = { "X-Token" = "s-header", "X-Tenant" = "env:KEY" }
[messaging.webhook]
auth_token = "s-webhook"
[messaging.irc]
enabled = false
server = "h"
nick = "n"
password = "s-irc"
sasl_username = "n"
sasl_password = "s-irc-sasl"
[[messaging.irc.instances]]
name = "other"
server = "h"
nick = "n"
password = "s-other"
sasl_username = "n"
sasl_password = "s-other-sasl"
[api]
auth_token = "s-api"
"#;

#[test]
fn every_secret_that_is_read_is_known_wherever_it_stands() {
    let variables = Variables(&[("KEY", "s-variable")]);
    let source = Source::new(PathBuf::from("c.toml"), EVERY_SECRET, &variables);
    let table = DeTable::parse(EVERY_SECRET).expect("TOML");
    resolve(&Section::root(&source, table.get_ref()), None, PathBuf::new(), &variables);
    let asked = source.asked_secrets.take();
    let missing: Vec<_> = asked.iter().filter(|(_, is_there)| !**is_there).collect();
    assert!(asked.len() > 25 && missing.is_empty(), "give them a value in EVERY_SECRET: {missing:?}");

    let config = parse(EVERY_SECRET, None, PathBuf::new(), &variables).expect("valid").config;
    let mut known: Vec<&str> = config.secrets.iter().collect();
    known.sort_unstable();
    let mut written: Vec<&str> = EVERY_SECRET
        .split(['"', ':', '@'])
        .filter(|word| word.starts_with("s-"))
        .chain(["s-variable"])
        .collect();
    written.sort_unstable();
    assert_eq!(known, written);
    // Nothing of it is shown, neither by `spacebot check` nor by who prints a config.
    let shown = format!("{}{config:?}", super::super::describe(&config).replace("s-address", ""));
    let leaked: Vec<_> =
        written.iter().filter(|secret| **secret != "s-address" && shown.contains(**secret)).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

#[test]
fn a_key_from_the_environment_is_a_secret_too() {
    let from_environment =
        crate::config::PROVIDERS.iter().filter_map(|kind| kind.short).map(|(_, variable)| variable);
    let mut variables: Vec<&'static str> = from_environment.chain(["OLLAMA_API_KEY"]).collect();
    let pairs: Vec<(&'static str, &'static str)> = variables.iter().map(|name| (*name, *name)).collect();
    let environment = Variables(Box::leak(pairs.into_boxed_slice()));
    let config = parse("", None, PathBuf::new(), &environment).expect("valid").config;
    let mut known: Vec<&str> = config.secrets.iter().collect();
    known.sort_unstable();
    variables.sort_unstable();
    assert_eq!(known, variables);
}

#[test]
fn a_secret_is_made_by_who_keeps_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config");
    let files = [vec![folder.join("../config.rs")], rust_files(&folder)].concat();
    assert!(files.len() > 20);
    for file in files.iter().filter(|file| !file.ends_with("load/tests.rs")) {
        let text = std::fs::read_to_string(file).expect("a source");
        let made = text.matches("Secret::new(").count();
        // `keep`; a header that is none, and a part of an address that is to be hidden.
        let allowed =
            usize::from(file.ends_with("section.rs")) + 2 * usize::from(file.ends_with("provider.rs"));
        assert_eq!(made, allowed, "{}: read it by Section::secret or Section::keep", file.display());
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

#[test]
fn secrets_of_an_earlier_config_stay_known() {
    let of = |text: &str| parse(text, None, PathBuf::new(), &Variables(&[])).expect("valid").config;
    let (old, new) = (of("[api]\nauth_token = \"old\""), of("[api]\nauth_token = \"new\""));
    let now = super::super::in_force(&old, &new);
    assert_eq!(now.secrets.iter().collect::<Vec<_>>(), ["new", "old"]);
    let again = super::super::in_force(&now, &new);
    assert_eq!(again.secrets.iter().count(), 2, "each is kept once");
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
