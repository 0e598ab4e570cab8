//! Who may import whom (docs/ARCHITECTURE.md, floors). A module imports lower floors and its own
//! subtree; floors 0 and 1 may also look sideways.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/source.rs"]
mod source;

use std::path::Path;

use source::{code_of, files, text_of};

const FLOORS: [&[&str]; 9] = [
    &["error", "id", "clock", "text", "thread"],
    &["message", "event", "effect", "command", "turn"],
    &["config"],
    &["db", "http", "exec", "prompts", "secrets"],
    &[
        "llm",
        "memory",
        "conversation",
        "tasks",
        "cron",
        "identity",
        "skills",
        "wiki",
        "settings",
        "usage",
        "messaging",
    ],
    &["hooks", "tools", "api", "cli"],
    &["agent"],
    &["hub"],
    &["main", "assembly"],
];
/// Below this, modules of one floor may use each other.
const SIDEWAYS_BELOW: usize = 2;

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The module that a file belongs to: `src/llm/chain.rs` is `llm`.
fn module_of(path: &Path) -> String {
    path.components().nth(1).unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// First segments of all paths that begin with `crate::` or `spacebot::`, groups included.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "spacebot::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before
                .is_some_and(|character| character.is_alphanumeric() || matches!(character, '_' | ':' | '$'))
            {
                continue;
            }
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_heads(group)),
                None => found.push(word(rest)),
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn word(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect()
}

/// The heads of `a::x, b::{c, d}, e}`.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut head) = (0, Vec::new(), true);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => head = true,
            _ if head && depth == 0 && !character.is_whitespace() => {
                heads.push(word(&group[at..]));
                head = false;
            }
            _ => {}
        }
    }
    heads
}

fn breaches(path: &Path, source: &str) -> Vec<String> {
    let module = module_of(path);
    if module == "lib" {
        return Vec::new();
    }
    let Some(floor) = floor_of(&module) else {
        return vec![format!("{}: module {module} is on no floor", path.display())];
    };
    let mut found = Vec::new();
    for import in imports(&code_of(source)) {
        // Capitals are macros' or re-exported names, which the crate root has none of.
        let Some(other) = floor_of(&import) else {
            found.push(format!("{}: imports {import}, which is on no floor", path.display()));
            continue;
        };
        let sideways = other == floor && import != module && (SIDEWAYS_BELOW..8).contains(&floor);
        if other > floor || sideways {
            found.push(format!(
                "{}: {module} (floor {floor}) imports {import} (floor {other})",
                path.display()
            ));
        }
    }
    found
}

#[test]
fn imports_go_down() {
    let found: Vec<_> = files("src", "rs").iter().flat_map(|path| breaches(path, &text_of(path))).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn module_roots_stand_beside_their_folders() {
    let wrong: Vec<_> = files("src", "rs").into_iter().filter(|path| path.ends_with("mod.rs")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_breach_is_noticed() {
    let at = |path: &str, source: &str| breaches(Path::new(path), source).len();
    assert_eq!(at("src/db.rs", "use crate::error::Kind;"), 0);
    assert_eq!(at("src/db.rs", "use crate::{error::Kind, hub::{a, b}};"), 1, "in a group");
    assert_eq!(at("src/db/writer.rs", "fn f() { crate::agent::run() }"), 1, "in code");
    assert_eq!(at("src/llm/chain.rs", "use crate::memory::Memory;"), 1, "sideways");
    assert_eq!(at("src/llm/chain.rs", "use crate::llm::error::LlmError;"), 0, "own subtree");
    assert_eq!(at("src/llm.rs", "// crate::hub\nlet x = \"crate::hub\";"), 0, "comments and texts");
    assert_eq!(at("src/stray.rs", ""), 1, "an unlisted module");
    assert_eq!(at("src/main.rs", "use spacebot::hub;"), 0);
}
