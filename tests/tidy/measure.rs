//! `make measure`: the figures of the source, beside what they should be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::floors::{floor_of, graph, knots};
use super::source::{
    code_of, files, functions, is_test_file, lines_with, production, production_lines, text_of,
};
use super::{
    FEWEST_INVARIANTS, HARD_FUNCTION, HARD_LINES, LOCKS, LONG_FUNCTIONS, MAIN_LINES, PARTS_FIELDS,
    SOFT_FUNCTION, SOFT_LINES, invariant_rows, structs_of_parts, test_names, unwrap_lines,
};

fn production_files() -> Vec<PathBuf> {
    files("src", "rs").into_iter().filter(|path| !is_test_file(path)).collect()
}

/// Path and name of each function, with its lines.
pub(crate) fn production_functions() -> Vec<(String, usize)> {
    let of = |path: &PathBuf| {
        let named = |(name, lines): (String, usize)| (format!("{}: {name}", path.display()), lines);
        functions(&production(&code_of(&text_of(path)))).into_iter().map(named).collect::<Vec<_>>()
    };
    production_files().iter().flat_map(of).collect()
}

pub(crate) fn unwraps_and_lines() -> (usize, usize) {
    let sources = production_files().into_iter().map(|path| text_of(&path));
    sources.fold((0, 0), |(unwraps, lines), source| {
        (unwraps + unwrap_lines(&source).len(), lines + production_lines(&source))
    })
}

/// Places in production code, over all files but those in `but`.
fn places(word: &str, but: &[&str]) -> usize {
    let others =
        production_files().into_iter().filter(|path| !but.iter().any(|file| path == Path::new(file)));
    others.map(|path| lines_with(&production(&code_of(&text_of(&path))), word).len()).sum()
}

/// Imports to the same or a higher floor are the business of tests/layering.rs; circles are counted here too.
fn circles() -> (usize, usize) {
    let code: Vec<_> = files("src", "rs").into_iter().map(|path| (code_of(&text_of(&path)), path)).collect();
    let graph = graph(code.iter().map(|(code, path)| (path.as_path(), code.as_str())));
    (knots(&graph).len(), graph.keys().filter(|module| floor_of(module).is_some()).count())
}

struct Row {
    number: usize,
    dimension: &'static str,
    now: String,
    should: String,
}

fn rows() -> Vec<Row> {
    let mut rows = structure();
    rows.extend(behaviour());
    rows.extend(habits());
    rows.sort_by_key(|row| row.number);
    rows
}

fn row(number: usize, dimension: &'static str, now: impl ToString, should: impl ToString) -> Row {
    Row { number, dimension, now: now.to_string(), should: should.to_string() }
}

fn structure() -> Vec<Row> {
    let mut sizes: Vec<_> =
        production_files().into_iter().map(|path| (production_lines(&text_of(&path)), path)).collect();
    sizes.sort();
    let total: usize = sizes.iter().map(|(lines, _)| lines).sum();
    let large: usize = sizes.iter().map(|(lines, _)| lines).filter(|lines| **lines > HARD_LINES).sum();
    let (largest, file) = sizes.last().unwrap();
    let functions = production_functions();
    let longer = |limit| functions.iter().filter(|(_, lines)| *lines > limit).count();
    let percent = longer(SOFT_FUNCTION) as f64 * 100.0 / functions.len() as f64;
    let parts = production_files().into_iter().flat_map(|path| structs_of_parts(&code_of(&text_of(&path))));
    let widest = parts.map(|(name, fields)| (fields.len(), name)).max().unwrap_or_default();
    let (circles, modules) = circles();
    let largest =
        format!("{largest} ({}), median {} of {}", file.display(), sizes[sizes.len() / 2].0, sizes.len());
    let long =
        format!("{percent:.1} % of {}, {} over {HARD_FUNCTION}", functions.len(), longer(HARD_FUNCTION));
    let main = text_of(Path::new("src/main.rs")).lines().count();
    vec![
        row(1, "Module circles", format!("{circles} among {modules} modules"), "0"),
        row(2, "Largest production file", largest, format!("{HARD_LINES}, soft {SOFT_LINES}")),
        row(3, "Lines in files over 1,000", format!("{} % of {total}", large * 100 / total), "0 %"),
        row(4, "Functions over 70 lines", long, format!("{LONG_FUNCTIONS} %, none")),
        row(5, "Widest *Parts struct", format!("{} ({})", widest.0, widest.1), PARTS_FIELDS),
        row(6, "main.rs", main, MAIN_LINES),
    ]
}

fn behaviour() -> Vec<Row> {
    let locks = format!("{} files, each with a reason", LOCKS.len());
    vec![
        row(
            7,
            "Event loop",
            "to be read: hub::state is pure, hub::performer acts",
            "closed enum, pure handle",
        ),
        row(8, "Queues without a bound", places("unbounded(", &[]) + places("mpsc::channel", &[]), 0),
        row(9, "Places that start a thread", places("thread::Builder", &[]), "1, src/thread.rs"),
        row(10, "Locks above floor 3", locks, 0),
        row(11, "Stop latency, p99", "make bench; held by tests/exec.rs and tests/llm.rs", "250 ms"),
        row(12, "A panic is contained", "held by the invariants", "for every process"),
    ]
}

fn habits() -> Vec<Row> {
    let fixtures = |folder: &str| files(folder, "").len();
    let all_tests: Vec<_> = ["src", "tests"].iter().flat_map(|folder| files(folder, "rs")).collect();
    let tests: usize = all_tests.iter().map(|path| test_names(&code_of(&text_of(path))).len()).sum();
    let binaries = files("tests", "rs").iter().filter(|path| path.components().count() == 2).count();
    let headed = all_tests.iter().filter(|path| text_of(path).starts_with("//!")).count();
    let (unwraps, lines) = unwraps_and_lines();
    let document = text_of(Path::new("docs/ARCHITECTURE.md"));
    let changelog = text_of(Path::new("CHANGELOG.md"));
    let packages = text_of(Path::new("Cargo.lock")).matches("[[package]]").count();
    let faults = places("Fault for", &[]);
    let model = format!("over HTTP, {} scripts; requests are compared", fixtures("tests/fixtures/llm"));
    let shape = format!("{tests} test functions, {} fixture files", fixtures("tests/fixtures"));
    let changes = changelog.lines().filter(|line| line.starts_with("- ")).count();
    vec![
        row(13, "Double of the model", model, "over HTTP, requests compared"),
        row(14, "Test programs in CI", format!("all {binaries}, no key"), "all, no key, under 60 s"),
        row(15, "Test shape", shape, "80 % data"),
        row(16, "Files that open with //!", format!("{headed} of {}", all_tests.len()), "all"),
        row(17, "Invariants with tests", invariant_rows(&document).count(), FEWEST_INVARIANTS),
        row(18, "unwrap and expect", format!("{unwraps} in {lines} lines"), "1 in 1,000, with a reason"),
        row(19, "Packages in Cargo.lock", packages, "80; see docs/DEPENDENCIES.md"),
        row(20, "Error types with kind and hint", faults, "one for each module that fails"),
        row(21, "Changelog lines", changes, "one for each change that users see"),
        row(22, "Benchmarks", format!("{} programs", files("benches", "rs").len()), "dated runs"),
        row(23, "Time of `make check`", "time make check", "2 min on a laptop"),
    ]
}

#[test]
fn measure() {
    let rows = rows();
    for Row { number, dimension, now, should } in &rows {
        println!("{number:>2}  {dimension:<32} {now:<62} {should}");
    }
    let numbers: BTreeSet<_> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=23).collect());
}
