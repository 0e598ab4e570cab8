//! Every kind of mistake is found in one run, with its line; what is printed can be read back.

use super::*;
use crate::config::describe;

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

const FULL: &str = r##"
log_level = "debug"
[llm]
anthropic_key = "env:KEY"
read_timeout_secs = 30
[llm.provider.local]
api_type = "openai_chat_completions"
base_url = "http://127.0.0.1:8080/v1"
[defaults]
max_turns = 7
[defaults.routing]
channel = "anthropic/claude-sonnet-4-5"
fallbacks = ["local/small"]
[[agents]]
id = "main"
worker_max_turns = 20
[agents.routing]
worker = "local/small"
[agents.sandbox]
network = true
writable_paths = ["/srv/data"]
[[agents]]
id = "ops"
default = true
[[bindings]]
agent_id = "ops"
channel = "irc"
adapter = "libera"
channel_ids = ["#ops"]
require_mention = false
[messaging.webhook]
port = 9000
auth_token = "literal"
[[messaging.irc.instances]]
name = "libera"
server = "irc.example.org"
nick = "bot"
sasl_username = "bot"
sasl_password = "env:KEY"
channels = ["#ops"]
dm_allowed_users = ["alice"]
[api]
enabled = false
"##;

#[test]
fn a_full_file_resolves_and_its_description_resolves_to_the_same() {
    let loaded = parsed(FULL).expect("valid");
    let config = &loaded.config;
    assert_eq!(loaded.warnings.len(), 1, "one literal secret: {:?}", loaded.warnings);
    assert_eq!((config.agents[0].limits.max_turns, config.agents[0].limits.worker_max_turns), (7, 20));
    assert_eq!(config.agents[0].routing.channel, "anthropic/claude-sonnet-4-5");
    assert_eq!(config.agents[0].routing.worker, "local/small");
    assert!(config.agents[1].is_default && !config.agents[0].is_default);
    assert_eq!(config.irc[0].port, 6697);
    let printed = describe(config);
    assert!(!printed.contains("k-secret") && !printed.contains("literal"), "{printed}");
    let again = parsed(&printed).expect("the description is a config");
    assert_eq!(describe(&again.config), printed);
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
fn mistakes_are_named_with_line_path_and_the_key_that_was_meant() {
    let cases = [
        (
            "[messaging.irc]\nserver = 'x'\nnick = 'n'\nprot = 1",
            "c.toml:4: messaging.irc.prot: unknown key (did you mean `port`?)",
        ),
        ("log_levle = 'info'", "c.toml:1: log_levle: unknown key (did you mean `log_level`?)"),
        ("[api]\nport = 'x'", "c.toml:2: api.port: must be a whole number, is string"),
        ("[api]\nport = 70000", "c.toml:2: api.port: must be from 1 to 65535"),
        (
            "[llm]\nopenai_key = 'env:NOPE'",
            "c.toml:2: llm.openai_key: the environment variable NOPE is not set",
        ),
        (
            "[api]\n\nbind = '0.0.0.0'",
            "c.toml:3: api.bind: an address that other machines reach needs auth_token",
        ),
        (
            "[defaults.routing]\nchannel = 'sonnet'",
            "c.toml:2: defaults.routing.channel: \"sonnet\" must be provider/model",
        ),
        (
            "[defaults.routing]\nchannel = 'anthropic/x'",
            "c.toml:2: defaults.routing.channel: the provider \"anthropic\" has no key or address in [llm]",
        ),
        ("[[agents]]\nid = 'a'\n[[agents]]\nid = 'a'", "c.toml:4: agents[1].id: is used by another agent"),
        ("[[agents]]\nid = '../x'", "c.toml:2: agents[0].id: must be 1 to 32 of a-z, 0-9, - and _"),
        (
            "[[bindings]]\nagent_id = 'b'\nchannel = 'irc'",
            "c.toml:2: bindings[0].agent_id: there is no agent \"b\"",
        ),
        ("[messaging.irc]\nserver = 'x'", "c.toml:1: messaging.irc.nick: is needed"),
        ("[llm.provider.x]\napi_type = 'soap'", "c.toml:2: llm.provider.x.api_type: must be one of"),
        ("[defaults]\nmax_turns = -1", "c.toml:2: defaults.max_turns: must be from 1 to 50"),
        ("x = [", "c.toml:1: "),
    ];
    for (text, expected) in cases {
        let errors = parsed(text).err().unwrap_or_default();
        assert!(
            errors.iter().any(|error| error.starts_with(expected)),
            "{text}\nexpected {expected}\nfound {errors:#?}"
        );
    }
}

#[test]
fn one_run_reports_every_error() {
    let errors = parsed("[api]\nport = 0\nbimd = 'x'\n[webhok]\nx = 1\n").expect_err("wrong");
    assert_eq!(errors.len(), 3, "{errors:#?}");
}

#[test]
fn an_explicit_file_must_exist_and_the_data_folder_follows_the_environment() {
    let variables = Variables(&[("SPACEBOT_DIR", "/nowhere/at/all")]);
    assert!(load(Some(Path::new("/nowhere/c.toml")), &variables).is_err());
    let loaded = load(None, &variables).expect("defaults");
    assert_eq!(loaded.config.data_folder, PathBuf::from("/nowhere/at/all"));
}
