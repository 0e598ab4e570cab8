//! Who may import whom (docs/ARCHITECTURE.md, floors). A module imports lower floors and its own
//! subtree; floors 0 and 1 may also look sideways, but nowhere in a circle.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/floors.rs"]
mod floors;
#[path = "support/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use floors::{FLOORS, floor_of, graph, imports, knots, module_of};
use source::{code_of, files, text_of};

/// Below this, modules of one floor may use each other.
const SIDEWAYS_BELOW: usize = 2;
/// The binary is one piece.
const TOP: usize = FLOORS.len() - 1;

fn breaches(path: &Path, source: &str) -> Vec<String> {
    let module = module_of(path);
    let code = code_of(source);
    let here = path.display();
    if module == "lib" {
        // A name that the root hands on would have no floor.
        let other = |line: &&str| !line.trim().is_empty() && !line.starts_with("pub mod ");
        return code.lines().filter(other).map(|line| format!("{here}: more than modules: {line}")).collect();
    }
    let Some(floor) = floor_of(&module) else {
        return vec![format!("{here}: module {module} is on no floor")];
    };
    let mut found = Vec::new();
    for import in imports(path, &code) {
        let Some(other) = floor_of(&import) else {
            found.push(format!("{here}: imports {import}, which is on no floor"));
            continue;
        };
        let sideways = other == floor && import != module && (SIDEWAYS_BELOW..TOP).contains(&floor);
        if other > floor || sideways {
            found.push(format!("{here}: {module} (floor {floor}) imports {import} (floor {other})"));
        }
    }
    found
}

fn knots_of(sources: &[(PathBuf, String)]) -> BTreeSet<Vec<String>> {
    let code: Vec<_> = sources.iter().map(|(path, source)| (path.as_path(), code_of(source))).collect();
    knots(&graph(code.iter().map(|(path, code)| (*path, code.as_str()))))
}

/// Rows of the table in the architecture that do not say what FLOORS says about these modules.
fn misplaced(document: &str, modules: &BTreeSet<String>) -> Vec<String> {
    let told = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let floor: usize = cells.next()?.split_whitespace().next()?.parse().ok()?;
        Some((floor, cells.next()?.trim_matches('`').to_owned()))
    };
    let rows: Vec<_> = document.lines().filter_map(told).collect();
    let place = |module: &str| rows.iter().find(|(_, row)| row.split(' ').any(|name| name == module));
    modules.iter().filter(|module| place(module).map(|row| row.0) != floor_of(module)).cloned().collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    files("src", "rs").into_iter().map(|path| (path.clone(), text_of(&path))).collect()
}

#[test]
fn imports_go_down() {
    let sources = sources();
    let found: Vec<_> = sources.iter().flat_map(|(path, source)| breaches(path, source)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_modules_know_each_other_in_a_circle() {
    assert_eq!(knots_of(&sources()), BTreeSet::new());
}

#[test]
fn the_architecture_tells_the_same_floors() {
    let modules: BTreeSet<_> = sources().iter().map(|(path, _)| module_of(path)).collect();
    let modules = modules.into_iter().filter(|module| module != "lib").collect();
    let document = text_of(Path::new("docs/ARCHITECTURE.md"));
    assert_eq!(misplaced(&document, &modules), Vec::<String>::new());
}

#[test]
fn module_roots_stand_beside_their_folders() {
    let all = ["src", "tests", "benches"].into_iter().flat_map(|folder| files(folder, "rs"));
    let wrong: Vec<_> = all.filter(|path| path.ends_with("mod.rs")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_breach_is_noticed() {
    let cases: &[(usize, &str, &str, &str)] = &[
        (0, "down", "src/db.rs", "use crate::error::Kind;"),
        (0, "own subtree", "src/llm/chain.rs", "use crate::llm::error::LlmError;"),
        (0, "sideways below", "src/effect.rs", "use crate::message::Inbound;"),
        (0, "comments and texts", "src/llm.rs", "// crate::hub\nlet x = \"crate::hub\";"),
        (0, "the binary", "src/main.rs", "use spacebot::hub;"),
        (1, "up", "src/db.rs", "use crate::hub::Hub;"),
        (1, "in a group", "src/db.rs", "use crate::{error::Kind, hub::{a, b}};"),
        (2, "in a group over lines", "src/db.rs", "use crate::{\n    agent,\n    api::x,\n};"),
        (1, "in code", "src/db/writer.rs", "fn f() { crate::agent::run() }"),
        (1, "in a test of the file", "src/db.rs", "#[cfg(test)]\nmod tests { use crate::agent; }"),
        (1, "sideways", "src/llm/chain.rs", "use crate::memory::Memory;"),
        (1, "sideways over the binary's name", "src/llm.rs", "use spacebot::memory;"),
        (0, "the parent", "src/llm/chain.rs", "use super::error;"),
        (1, "out by super", "src/llm/chain.rs", "use super::super::memory;"),
        (1, "out by super, in a group", "src/llm.rs", "use super::{memory::X, llm::Y};"),
        (0, "the file, from its tests", "src/llm.rs", "mod tests { use super::memory; }"),
        (1, "out of the tests of a file", "src/llm.rs", "mod tests { use super::super::memory; }"),
        (1, "everything", "src/llm.rs", "use crate::*;"),
        (1, "an unlisted module", "src/stray.rs", ""),
        (1, "an unlisted import", "src/db.rs", "use crate::stray;"),
        (0, "the root", "src/lib.rs", "//! About.\npub mod a;\n"),
        (1, "the root hands a name on", "src/lib.rs", "pub mod db;\npub use db::Db;\n"),
    ];
    for (wanted, case, path, source) in cases {
        let found = breaches(Path::new(path), source);
        assert_eq!(found.len(), *wanted, "{case}: {found:?}");
    }
}

#[test]
fn a_circle_is_noticed() {
    let file = |path: &str, source: &str| (PathBuf::from(path), source.to_owned());
    let mut sources = vec![
        file("src/event.rs", "use crate::effect::Ask;"),
        file("src/effect.rs", "use crate::message::Inbound;"),
        file("src/message.rs", "use crate::{id, text};"),
    ];
    assert_eq!(knots_of(&sources), BTreeSet::new());
    sources.push(file("src/message/part.rs", "fn f(event: crate::event::Event) {}"));
    assert_eq!(knots_of(&sources).into_iter().collect::<Vec<_>>(), [["effect", "event", "message"]]);
}

#[test]
fn a_misplaced_row_is_noticed() {
    let modules = ["db", "hub"].map(str::to_owned).into();
    assert!(misplaced("| 3 leaves | `db http` | x |\n| 7 | `hub` | y |", &modules).is_empty());
    assert_eq!(misplaced("| 4 | `db http` | x |", &modules), ["db", "hub"]);
}
