//! The floors of the modules (docs/ARCHITECTURE.md) and who imports whom.

#![allow(dead_code, unreachable_pub)] // every check uses a part of this

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Lower floors first. Modules that are planned but not written yet have their place already.
pub const FLOORS: [&[&str]; 9] = [
    &["allocator", "environment", "error", "id", "clock", "text", "thread"],
    &["billing", "message", "onlookers", "event", "effect", "command", "turn"],
    &["config"],
    &["db", "http", "exec", "prompts", "secrets", "watch"],
    &[
        "llm",
        "memory",
        "conversation",
        "tasks",
        "cron",
        "cortex",
        "identity",
        "ingest",
        "skills",
        "wiki",
        "settings",
        "usage",
        "messaging",
        "working_memory",
    ],
    &["hooks", "tools", "api", "cli"],
    &["agent"],
    &["hub"],
    &["main", "assembly"],
];

pub fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The module that a file belongs to: `src/llm/chain.rs` is `llm`.
pub fn module_of(path: &Path) -> String {
    path.components().nth(1).unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The first segments after `crate::`, `spacebot::`, or as many `super::` as lead out of the module;
/// groups included, `*` for everything. `code` has neither comments nor texts.
pub fn imports(path: &Path, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "spacebot::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before
                .is_some_and(|character| character.is_alphanumeric() || matches!(character, '_' | ':' | '$'))
            {
                continue;
            }
            let mut rest = &code[at + root.len()..];
            let mut up = 1;
            while root == "super::"
                && let Some(more) = rest.strip_prefix("super::")
            {
                (rest, up) = (more, up + 1);
            }
            // From a module of depth n, n times up is the top of the crate.
            if root == "super::" && up < depth(path) + inline_depth(&code[..at]) {
                continue;
            }
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_heads(group)),
                None => found.push(head(rest)),
            }
        }
    }
    found.retain(|name| !name.is_empty() && name != "self");
    found
}

/// `src/llm.rs` is one below the top, `src/llm/chain.rs` two.
fn depth(path: &Path) -> usize {
    path.components().count() - 1
}

/// How many `mod x {` are open at the end of `code`.
fn inline_depth(code: &str) -> usize {
    let (mut open, mut statement) = (Vec::new(), String::new());
    for character in code.chars() {
        match character {
            '{' => open.push(statement.split_whitespace().any(|word| word == "mod")),
            '}' => drop(open.pop()),
            _ => {}
        }
        if matches!(character, '{' | '}' | ';') {
            statement.clear();
        } else {
            statement.push(character);
        }
    }
    open.into_iter().filter(|is_module| *is_module).count()
}

fn head(text: &str) -> String {
    let text = text.trim_start();
    if text.starts_with('*') {
        return "*".to_owned();
    }
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// The heads of `a::x, b::{c, d}, e}`.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut first) = (0, Vec::new(), true);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => first = true,
            _ if first && depth == 0 && !character.is_whitespace() => {
                heads.push(head(&group[at..]));
                first = false;
            }
            _ => {}
        }
    }
    heads
}

/// Which module imports which others; `sources` are paths with their code.
pub fn graph<'a>(sources: impl Iterator<Item = (&'a Path, &'a str)>) -> BTreeMap<String, BTreeSet<String>> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, code) in sources {
        let module = module_of(path);
        if module == "lib" {
            continue;
        }
        let others = imports(path, code).into_iter().filter(|other| *other != module);
        graph.entry(module.clone()).or_default().extend(others);
    }
    graph
}

/// Groups of modules that know each other in a circle, each sorted.
pub fn knots(graph: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<Vec<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> =
        graph.keys().map(|module| (module, reachable(graph, module))).collect();
    let circle = |module: &String| -> Vec<String> {
        let back = |other: &&&String| reach.get(**other).is_some_and(|from| from.contains(module));
        reach[module].iter().filter(back).map(|other| (*other).clone()).collect()
    };
    graph.keys().map(circle).filter(|circle| !circle.is_empty()).collect()
}

fn reachable<'a>(graph: &'a BTreeMap<String, BTreeSet<String>>, from: &'a String) -> BTreeSet<&'a String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        let next = graph.get(module).into_iter().flatten().filter(|other| !seen.contains(other));
        let next: Vec<_> = next.collect();
        seen.extend(next.iter().copied());
        open.extend(next);
    }
    seen
}
