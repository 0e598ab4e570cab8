//! The house rules that a machine can check. Each rule is also tried on text that breaks it
//! (`tidy/broken.rs`), and `make measure` prints the figures behind them (`tidy/measure.rs`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "tidy/broken.rs"]
mod broken;
#[path = "support/floors.rs"]
mod floors;
#[path = "tidy/measure.rs"]
mod measure;
#[path = "support/source.rs"]
mod source;

use std::path::{Path, PathBuf};

use floors::{floor_of, module_of};
use source::{
    code_of, files, functions, is_test_file, lines_with, production, production_lines, text_of, words,
};

const SOFT_LINES: usize = 500;
const HARD_LINES: usize = 1000;
const SOFT_FUNCTION: usize = 70;
const HARD_FUNCTION: usize = 150;
/// Of all functions, in percent, may be longer than [`SOFT_FUNCTION`].
const LONG_FUNCTIONS: usize = 2;
const MAIN_LINES: usize = 250;
const PARTS_FIELDS: usize = 7;
/// Locks are for leaves: see docs/ARCHITECTURE.md.
const HIGHEST_FLOOR_WITH_LOCKS: usize = 3;
const FEWEST_INVARIANTS: usize = 15;

/// A file that may break a rule, and why.
type Exceptions = &'static [(&'static str, &'static str)];

/// Production files over the soft limit.
const LONG_FILES: Exceptions = &[];
/// Locks above floor 3.
const LOCKS: Exceptions = &[
    ("src/llm.rs", "providers that were found not to stream are remembered across calls"),
    ("src/llm/chain.rs", "the same"),
    ("src/llm/gates.rs", "when the last requests to a provider began"),
    ("src/llm/health.rs", "one table of lost models for all processes"),
    ("src/messaging/drafts.rs", "one table of drafts between the turns that write them and the polls"),
    ("src/messaging/progress.rs", "one list of steps between the answer that takes them and who looks on"),
    ("src/llm/lines.rs", "the pool of idle connections"),
    ("src/llm/tokens.rs", "one correction for each model, from all processes"),
    ("src/messaging/irc.rs", "one line of status, read by the API"),
    ("src/memory/text_index.rs", "one reader of the text index for all branches"),
    ("src/memory/embed.rs", "one model for all agents, and the vectors of recent queries"),
    ("src/memory/draft.rs", "what one process drafts, shared by two of its tools"),
    ("src/memory/vectors.rs", "one thread that makes vectors"),
    ("src/memory/vectors/indexed.rs", "one vector index for all branches of an agent"),
    ("src/memory/vector_index.rs", "searches go on while it changes and is written"),
    ("src/memory/vector_index/opening.rs", "makes those of the index"),
    ("src/memory/vector_index/graph.rs", "the same for its graph"),
];
/// Waiting by the clock; everybody else waits for an event with a deadline.
const SLEEPS: Exceptions = &[
    ("tests/support/llm.rs", "plays the pauses of a provider"),
    ("tests/support/llm/odd.rs", "plays a provider whose header comes slowly"),
    ("src/http/transport/tests.rs", "plays a server that is slow to end its answer"),
];
/// Futures, which Rig's interfaces are made of; they are driven to their end on the thread that made them.
const FUTURES: Exceptions = &[
    ("src/http/transport.rs", "Rig's seam for HTTP clients"),
    ("src/llm/attempt.rs", "the one place that drives them"),
];
/// Words that look unfinished or bound to one machine, where they are data.
const DATA: Exceptions = &[
    ("prompts/en/offline/phrases.toml", "a person may note something to do"),
    ("tests/tidy.rs", "names the words"),
    ("tests/tidy/broken.rs", "names the words"),
];

/// Not in production code: what, and what to do instead.
const FORBIDDEN: &[(&str, &str)] = &[
    ("todo!", "write it"),
    ("unimplemented!", "write it"),
    ("dbg!", "use log"),
    ("let _ =", "handle the result, or say with .ok() why it does not matter"),
    ("tokio", "there is no async runtime"),
    ("async_std", "there is no async runtime"),
];
const UNBOUNDED: &[&str] = &["unbounded(", "mpsc::channel"];
/// Of `std::thread`; src/thread.rs has what replaces them.
const THREADS: [&str; 4] = ["spawn", "scope", "Builder", "sleep"];
const PRINTS: [&str; 4] = ["println!", "eprintln!", "print!", "eprint!"];
const EMPTY_NAMES: [&str; 9] =
    ["util", "utils", "helper", "helpers", "misc", "common", "manager", "types", "mod"];
const UNFINISHED: [&str; 3] = ["TODO", "FIXME", "XXX"];
const MACHINE_PATHS: [&str; 2] = ["/root/", "/work/"];

fn excepted(exceptions: Exceptions, path: &Path) -> bool {
    exceptions.iter().any(|(file, _)| Path::new(file) == path)
}

/// One line for each place.
fn at_lines(path: &Path, lines: Vec<usize>, what: &str) -> Vec<String> {
    lines.into_iter().map(|line| format!("{}:{line}: {what}", path.display())).collect()
}

fn header(path: &Path, source: &str) -> Vec<String> {
    at_lines(path, if source.starts_with("//!") { vec![] } else { vec![1] }, "does not open with //!")
}

fn size(path: &Path, source: &str) -> Vec<String> {
    let lines = if is_test_file(path) { source.lines().count() } else { production_lines(source) };
    let name = path.display();
    let mut found = Vec::new();
    if lines > HARD_LINES {
        found.push(format!("{name}: {lines} lines"));
    } else if lines > SOFT_LINES && !is_test_file(path) && !excepted(LONG_FILES, path) {
        found.push(format!("{name}: {lines} lines and no reason for it in LONG_FILES"));
    }
    if path == Path::new("src/main.rs") && lines > MAIN_LINES {
        found.push(format!("{name}: {lines} lines, at most {MAIN_LINES}"));
    }
    for (function, lines) in functions(&code_of(source)) {
        if lines > HARD_FUNCTION {
            found.push(format!("{name}: fn {function} has {lines} lines"));
        }
    }
    found
}

/// The functions over the soft limit, if they are too many of `lengths`.
fn too_many_long(lengths: &[(String, usize)]) -> Vec<String> {
    let long: Vec<_> = lengths.iter().filter(|(_, lines)| *lines > SOFT_FUNCTION).collect();
    if long.len() * 100 <= lengths.len() * LONG_FUNCTIONS {
        return vec![];
    }
    long.into_iter().map(|(name, lines)| format!("{name}: {lines} lines")).collect()
}

fn forbidden(path: &Path, source: &str) -> Vec<String> {
    if is_test_file(path) {
        return vec![];
    }
    let code = production(&code_of(source));
    let bad = |(word, instead): &(&str, &str)| {
        at_lines(path, lines_with(&code, word), &format!("{word} ({instead})"))
    };
    FORBIDDEN.iter().flat_map(bad).collect()
}

fn futures(path: &Path, source: &str) -> Vec<String> {
    if is_test_file(path) || excepted(FUTURES, path) {
        return vec![];
    }
    at_lines(path, future_lines(source), "a future without a reason in FUTURES")
}

fn future_lines(source: &str) -> Vec<usize> {
    let code = production(&code_of(source));
    ["async", ".await", "block_on"].iter().flat_map(|word| lines_with(&code, word)).collect()
}

/// A queue has a bound, and the bound a name; 0 and 1 speak for themselves.
fn queues(path: &Path, source: &str) -> Vec<String> {
    let code = if is_test_file(path) { code_of(source) } else { production(&code_of(source)) };
    let mut found = Vec::new();
    if !is_test_file(path) || path.starts_with("src") {
        let bad = UNBOUNDED.iter().flat_map(|word| lines_with(&code, word));
        found.extend(at_lines(path, bad.collect(), "a queue without a bound"));
    }
    for (at, _) in code.match_indices("bounded(").filter(|_| !is_test_file(path)) {
        let capacity: String = code[at + 8..].chars().take_while(|character| *character != ')').collect();
        if capacity.trim().parse::<usize>().is_ok_and(|capacity| capacity > 1) {
            found
                .push(format!("{}: bounded({capacity}): give the bound a name and a reason", path.display()));
        }
    }
    found
}

fn threads(path: &Path, source: &str) -> Vec<String> {
    if is_test_file(path) || path == Path::new("src/thread.rs") {
        return vec![];
    }
    let code = production(&code_of(source));
    let used = |at: usize| -> Vec<String> {
        let rest = &code[at + "std::thread".len()..];
        let Some(rest) = rest.strip_prefix("::") else {
            let longer = rest.starts_with(|character: char| character.is_alphanumeric() || character == '_');
            return if longer { vec![] } else { vec!["the whole module".to_owned()] };
        };
        let end = if rest.starts_with('{') { "}" } else { ";(,<) \n" };
        let names = rest.split(|character| end.contains(character)).next().unwrap_or("");
        words(names).filter(|word| THREADS.contains(word) || *word == "self").map(str::to_owned).collect()
    };
    let all = code.match_indices("std::thread").flat_map(|(at, _)| used(at));
    all.map(|name| format!("{}: std::thread: {name}; use crate::thread", path.display())).collect()
}

fn prints(path: &Path, source: &str) -> Vec<String> {
    let speaks = ["src/cli", "src/cli.rs", "src/main.rs"].iter().any(|place| path.starts_with(place));
    if is_test_file(path) || speaks {
        return vec![];
    }
    let code = production(&code_of(source));
    let bad = PRINTS.iter().flat_map(|word| lines_with(&code, word)).collect();
    at_lines(path, bad, "prints; only the command line does")
}

/// `unwrap` and `expect` in production code without a reason on the line above.
fn unwraps(path: &Path, source: &str) -> Vec<String> {
    if is_test_file(path) {
        return vec![];
    }
    let lines: Vec<&str> = source.lines().collect();
    let reason = |line: usize| line > 1 && lines[line - 2].trim_start().starts_with("//");
    let bad = unwrap_lines(source).into_iter().filter(|line| !reason(*line)).collect();
    at_lines(path, bad, "unwrap or expect without a reason on the line above")
}

fn unwrap_lines(source: &str) -> Vec<usize> {
    let code = production(&code_of(source));
    [".unwrap()", ".expect("].iter().flat_map(|call| lines_with(&code, call)).collect()
}

fn locks(path: &Path, source: &str) -> Vec<String> {
    let high = || floor_of(&module_of(path)).is_some_and(|floor| floor > HIGHEST_FLOOR_WITH_LOCKS);
    if is_test_file(path) || !high() || excepted(LOCKS, path) {
        return vec![];
    }
    at_lines(path, lock_lines(source), "a lock above floor 3 without a reason in LOCKS")
}

fn lock_lines(source: &str) -> Vec<usize> {
    let code = production(&code_of(source));
    ["Mutex", "RwLock"].iter().flat_map(|lock| lines_with(&code, lock)).collect()
}

/// `*Parts` structs: few fields, no optional shared handle, never the whole config.
fn parts(path: &Path, source: &str) -> Vec<String> {
    let named = |(name, fields): (String, Vec<String>)| {
        let all = fields.join(",");
        let whole = lines_with(&all, "Config").len();
        let bad = fields.len() > PARTS_FIELDS || all.contains("Option<Arc<") || whole > 0;
        bad.then(|| {
            format!(
                "{}: {name}: {} fields, Option<Arc<_>>, or the whole Config",
                path.display(),
                fields.len()
            )
        })
    };
    structs_of_parts(&code_of(source)).into_iter().filter_map(named).collect()
}

/// The `*Parts` structs in `code` with their fields.
fn structs_of_parts(code: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("struct ") {
        let rest = &code[at + 7..];
        let name = words(rest).next().unwrap_or("").to_owned();
        let Some(open) = rest.find(['{', ';', '(']).filter(|_| name.ends_with("Parts")) else { continue };
        let (mut depth, mut fields) = (0, vec![String::new()]);
        for character in rest[open..].chars() {
            depth += i32::from("{(<[".contains(character)) - i32::from("})>]".contains(character));
            match character {
                _ if depth == 0 => break,
                ',' if depth == 1 => fields.push(String::new()),
                _ => fields.last_mut().unwrap().push(character),
            }
        }
        fields.retain(|field| field.contains(':'));
        found.push((name, fields));
    }
    found
}

fn names(path: &Path, _source: &str) -> Vec<String> {
    let stem = path.file_stem().unwrap().to_string_lossy();
    let bad = EMPTY_NAMES.contains(&stem.as_ref());
    if bad { vec![format!("{}: the name says nothing", path.display())] } else { vec![] }
}

/// Tests run, do not expect to break, and do not wait by the clock.
fn tests(path: &Path, source: &str) -> Vec<String> {
    let code = code_of(source);
    let mut found = Vec::new();
    for skipped in ["#[ignore", "#[should_panic"] {
        found.extend(at_lines(path, lines_with(&code, skipped), skipped));
    }
    if !excepted(SLEEPS, path) {
        found.extend(at_lines(path, sleep_lines(&code), "waits by the clock; wait for an event"));
    }
    found
}

fn sleep_lines(code: &str) -> Vec<usize> {
    ["thread::sleep", "sleep("].iter().flat_map(|word| lines_with(code, word)).collect()
}

/// Any file: unfinished work and paths of one machine.
fn leftovers(path: &Path, text: &str) -> Vec<String> {
    if excepted(DATA, path) {
        return vec![];
    }
    let unfinished = UNFINISHED.iter().flat_map(|word| lines_with(text, word)).collect();
    let mut found = at_lines(path, unfinished, "unfinished");
    for (number, line) in text.lines().enumerate() {
        let absolute = |place: &&str| -> bool {
            let before = |at: usize| line[..at].chars().next_back();
            line.match_indices(*place).any(|(at, _)| before(at).is_none_or(|character| !in_path(character)))
        };
        if MACHINE_PATHS.iter().any(absolute) {
            found.extend(at_lines(path, vec![number + 1], "a path of one machine"));
        }
    }
    found
}

fn in_path(character: char) -> bool {
    character.is_alphanumeric() || "._-~}$*".contains(character)
}

/// The rows of the invariants that name no test, or a test that does not exist (`path::test_name`).
/// `read` gives the source of a path.
fn invariants(document: &str, read: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for number in 1..=invariant_rows(document).count() {
        let start = format!("| I{number} |");
        if invariant_rows(document).filter(|line| line.starts_with(&start)).count() != 1 {
            found.push(format!("I{number} does not stand there once"));
        }
    }
    for line in invariant_rows(document) {
        let named: Vec<_> = line.split('`').filter_map(|piece| piece.split_once(".rs::")).collect();
        if named.is_empty() {
            found.push(format!("no test: {line}"));
        }
        for (file, test) in named {
            let source = read(&format!("{file}.rs")).unwrap_or_default();
            if !test_names(&code_of(&source)).iter().any(|name| name == test) {
                found.push(format!("{file}.rs has no test {test}"));
            }
        }
    }
    found
}

fn invariant_rows(document: &str) -> impl Iterator<Item = &str> {
    document.lines().filter(|line| {
        line.strip_prefix("| I").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// The functions that the test harness runs.
fn test_names(code: &str) -> Vec<String> {
    let after = code.match_indices("#[test]").filter_map(|(at, _)| code[at..].split_once("fn "));
    after.filter_map(|(_, rest)| words(rest).next()).map(str::to_owned).collect()
}

fn rust_files() -> Vec<PathBuf> {
    ["src", "tests", "benches"].iter().flat_map(|folder| files(folder, "rs")).collect()
}

/// Everything that people read or machines run.
fn all_files() -> Vec<PathBuf> {
    let folders = ["src", "tests", "benches", "docs", "prompts", "migrations", "systemd", ".ci"];
    let single = ["Makefile", "README.md", "CHANGELOG.md", "Cargo.toml"].map(PathBuf::from);
    let all = folders.into_iter().flat_map(|folder| files(folder, ""));
    all.chain(single).collect()
}

fn keep(rule: impl Fn(&Path, &str) -> Vec<String>) {
    let found: Vec<_> = rust_files().iter().flat_map(|path| rule(path, &text_of(path))).collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// An exception that is not needed any more is taken off its list.
fn needed(exceptions: Exceptions, breaks: impl Fn(&Path, &str) -> bool) {
    for (file, reason) in exceptions {
        let path = Path::new(file);
        let there = Path::new(env!("CARGO_MANIFEST_DIR")).join(path).is_file();
        assert!(!reason.is_empty() && there && breaks(path, &text_of(path)), "{file} needs no exception");
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    keep(header);
}

#[test]
fn files_and_functions_have_a_size() {
    keep(size);
    needed(LONG_FILES, |_, source| production_lines(source) > SOFT_LINES);
    assert_eq!(too_many_long(&measure::production_functions()), Vec::<String>::new());
}

#[test]
fn words_that_do_not_belong() {
    keep(forbidden);
    keep(prints);
    keep(names);
}

#[test]
fn nothing_is_unfinished_or_bound_to_one_machine() {
    // Files that are not text hold no words.
    let read = |path: &PathBuf| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    let found = |path: &PathBuf| read(path).map(|text| leftovers(path, &text)).unwrap_or_default();
    let found: Vec<_> = all_files().iter().flat_map(found).collect();
    assert!(found.is_empty(), "{found:#?}");
    needed(DATA, |_, text| UNFINISHED.iter().any(|word| text.contains(word)));
}

#[test]
fn every_queue_is_bounded() {
    keep(queues);
}

#[test]
fn threads_start_in_one_place() {
    keep(threads);
}

#[test]
fn futures_are_driven_in_one_file() {
    keep(futures);
    needed(FUTURES, |_, source| !future_lines(source).is_empty());
    let drives = |path: &PathBuf| !lines_with(&production(&code_of(&text_of(path))), "block_on").is_empty();
    let driving: Vec<_> =
        files("src", "rs").into_iter().filter(|path| !is_test_file(path) && drives(path)).collect();
    assert_eq!(driving, [Path::new("src/llm/attempt.rs")]);
}

#[test]
fn production_code_does_not_unwrap() {
    keep(unwraps);
    let (unwraps, lines) = measure::unwraps_and_lines();
    assert!(unwraps * 1000 <= lines, "{unwraps} in {lines} lines");
}

#[test]
fn locks_and_parts_are_few() {
    keep(locks);
    keep(parts);
    needed(LOCKS, |_, source| !lock_lines(source).is_empty());
}

#[test]
fn tests_run_and_do_not_sleep() {
    keep(tests);
    needed(SLEEPS, |_, source| !sleep_lines(&code_of(source)).is_empty());
}

#[test]
fn invariants_name_their_tests() {
    let document = text_of(Path::new("docs/ARCHITECTURE.md"));
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(top.join(path)).ok();
    assert_eq!(invariants(&document, &read), Vec::<String>::new());
    assert!(invariant_rows(&document).count() >= FEWEST_INVARIANTS);
}
