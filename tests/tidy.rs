//! The house rules that a machine can check. Each check is tried on text that breaks it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/source.rs"]
mod source;

use std::path::{Path, PathBuf};

use source::{code_of, files, functions, is_test_file, production, text_of};

const SOFT_LINES: usize = 500;
const HARD_LINES: usize = 1000;
const SOFT_FUNCTION: usize = 70;
const HARD_FUNCTION: usize = 150;
const MAIN_LINES: usize = 250;
/// Production files over the soft limit, with the reason.
const LONG_FILES: &[(&str, &str)] = &[("src/hub/state.rs", "one state machine, read from top to bottom")];
/// Locks above floor 3, with the reason.
const LOCKS: &[(&str, &str)] = &[
    ("src/llm.rs", "providers that were found not to stream are remembered across calls"),
    ("src/llm/chain.rs", "the same"),
    ("src/llm/cooldown.rs", "one table of cool-downs for all processes"),
    ("src/llm/lines.rs", "the pool of idle connections"),
    ("src/memory.rs", "one reader of the text index for all branches"),
    ("src/memory/text_index.rs", "the same"),
];
/// Not in production code: what, and what to use instead.
const FORBIDDEN: &[(&str, &str)] = &[
    ("todo!(", "write it"),
    ("unimplemented!(", "write it"),
    ("dbg!(", "use log"),
    ("unbounded(", "every queue has a bound"),
    ("let _ = ", "handle the result, or say with .ok() why it does not matter"),
    ("std::thread::spawn", "use crate::thread::spawn"),
    ("thread::Builder", "use crate::thread::spawn"),
    ("tokio", "there is no async runtime"),
    ("async_std", "there is no async runtime"),
];
const UNFINISHED: [&str; 3] = ["TODO", "FIXME", "XXX"];

fn all() -> Vec<PathBuf> {
    ["src", "tests", "benches"].iter().flat_map(|folder| files(folder, "rs")).collect()
}

fn check(rule: impl Fn(&Path, &str) -> Vec<String>) {
    let found: Vec<_> = all().iter().flat_map(|path| rule(path, &text_of(path))).collect();
    assert!(found.is_empty(), "{found:#?}");
}

fn header(path: &Path, source: &str) -> Vec<String> {
    if source.starts_with("//!") {
        vec![]
    } else {
        vec![format!("{}: does not open with //!", path.display())]
    }
}

fn size(path: &Path, source: &str) -> Vec<String> {
    let lines = if is_test_file(path) { source.lines().count() } else { production(source).lines().count() };
    let name = path.to_string_lossy();
    let mut found = Vec::new();
    if lines > HARD_LINES {
        found.push(format!("{name}: {lines} lines"));
    }
    if lines > SOFT_LINES && !is_test_file(path) && LONG_FILES.iter().all(|(file, _)| *file != name) {
        found.push(format!("{name}: {lines} lines and no reason for it in LONG_FILES"));
    }
    if name == "src/main.rs" && lines > MAIN_LINES {
        found.push(format!("{name}: {lines} lines, at most {MAIN_LINES}"));
    }
    for (function, lines) in functions(&code_of(source)) {
        if lines > HARD_FUNCTION {
            found.push(format!("{name}: fn {function} has {lines} lines"));
        }
    }
    found
}

fn words(path: &Path, source: &str) -> Vec<String> {
    let code = code_of(source);
    let name = path.to_string_lossy();
    let mut found: Vec<String> = Vec::new();
    if !is_test_file(path) && name != "src/thread.rs" {
        let production = production(&code);
        let bad = FORBIDDEN.iter().filter(|(word, _)| production.contains(word));
        found.extend(bad.map(|(word, instead)| format!("{name}: {word} ({instead})")));
        let prints = ["println!(", "eprintln!(", "print!("];
        if prints.iter().any(|print| production.contains(print))
            && !name.starts_with("src/cli")
            && name != "src/main.rs"
        {
            found.push(format!("{name}: prints; only the command line does"));
        }
    }
    if name != "tests/tidy.rs" {
        found.extend(
            UNFINISHED.iter().filter(|word| source.contains(**word)).map(|word| format!("{name}: {word}")),
        );
    }
    for skipped in ["#[ignore", "#[should_panic"] {
        if code.contains(skipped) {
            found.push(format!("{name}: {skipped}]"));
        }
    }
    for path in ["/root/", "/work/"] {
        if name != "tests/tidy.rs" && source.contains(path) {
            found.push(format!("{name}: names a path of one machine, {path}"));
        }
    }
    found
}

/// `unwrap` and `expect` in production code, without a reason on the line above.
fn unwraps(path: &Path, source: &str) -> Vec<String> {
    if is_test_file(path) {
        return vec![];
    }
    let code = code_of(source);
    let lines: Vec<&str> = source.lines().collect();
    let bad = |(number, line): (usize, &str)| {
        let unwraps = line.contains(".unwrap()") || line.contains(".expect(");
        let reason = number > 0 && lines[number - 1].trim_start().starts_with("//");
        (unwraps && !reason)
            .then(|| format!("{}:{}: unwrap or expect without a reason", path.display(), number + 1))
    };
    production(&code).lines().enumerate().filter_map(bad).collect()
}

fn locks(path: &Path, source: &str) -> Vec<String> {
    let name = path.to_string_lossy();
    let above =
        ["llm", "memory", "conversation", "identity", "messaging", "tools", "api", "agent", "hub", "hooks"];
    let high = above
        .iter()
        .any(|module| name.starts_with(&format!("src/{module}/")) || name == format!("src/{module}.rs"));
    let code = code_of(source);
    let locked = ["Mutex<", "RwLock<", "Mutex::"].iter().any(|lock| production(&code).contains(lock));
    if high && locked && !is_test_file(path) && LOCKS.iter().all(|(file, _)| *file != name) {
        return vec![format!("{name}: a lock above floor 3 without a reason in LOCKS")];
    }
    vec![]
}

/// `*Parts` structs have at most seven fields and no optional shared handle.
fn parts(path: &Path, source: &str) -> Vec<String> {
    let code = code_of(source);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("struct ") {
        let name: String =
            code[at + 7..].chars().take_while(|character| character.is_alphanumeric()).collect();
        if !name.ends_with("Parts") {
            continue;
        }
        let body: String = code[at..]
            .chars()
            .skip_while(|character| *character != '{')
            .take_while(|character| *character != '}')
            .collect();
        let fields = body.lines().filter(|line| line.contains(": ")).count();
        if fields > 7 || body.contains("Option<Arc<") {
            found.push(format!("{}: {name} has {fields} fields or an Option<Arc<_>>", path.display()));
        }
    }
    found
}

fn names(path: &Path, _source: &str) -> Vec<String> {
    let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
    let bad = ["util", "utils", "helpers", "misc", "manager", "common"].contains(&stem.as_str());
    if bad { vec![format!("{}: the name says nothing", path.display())] } else { vec![] }
}

#[test]
fn every_file_says_what_it_is_for() {
    check(header);
}

#[test]
fn files_and_functions_have_a_size() {
    check(size);
    let (mut all_functions, mut long) = (0, Vec::new());
    for path in files("src", "rs").iter().filter(|path| !is_test_file(path)) {
        let code = code_of(&text_of(path));
        for (name, lines) in functions(production(&code)) {
            all_functions += 1;
            if lines > SOFT_FUNCTION {
                long.push(format!("{}: {name} {lines}", path.display()));
            }
        }
    }
    assert!(
        long.len() * 50 <= all_functions,
        "more than 2 % of {all_functions} functions are long: {long:#?}"
    );
}

#[test]
fn words_that_do_not_belong() {
    check(words);
    check(names);
}

#[test]
fn production_code_does_not_unwrap() {
    check(unwraps);
}

#[test]
fn locks_and_parts_are_few() {
    check(locks);
    check(parts);
    for (file, _) in LOCKS.iter().chain(LONG_FILES) {
        assert!(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(file).is_file(),
            "{file} is gone; take it off the list"
        );
    }
}

/// Every invariant of docs/ARCHITECTURE.md names tests that exist, as `path::test_name`.
#[test]
fn invariants_name_their_tests() {
    let text = text_of(Path::new("docs/ARCHITECTURE.md"));
    let mut invariants = 0;
    for line in text.lines().filter(|line| line.starts_with("| I") && !line.starts_with("| Invariant")) {
        invariants += 1;
        let named: Vec<_> = line.split('`').filter(|piece| piece.contains(".rs::")).collect();
        assert!(!named.is_empty(), "no test: {line}");
        for name in named {
            let (file, test) = name.split_once("::").unwrap();
            let source = text_of(Path::new(file));
            assert!(source.contains(&format!("fn {test}(")), "{name} does not exist");
        }
    }
    assert!(invariants >= 15, "{invariants} invariants");
}

#[test]
fn each_check_can_fail() {
    let path = Path::new("src/db/x.rs");
    assert_eq!(header(path, "use std;").len(), 1);
    assert_eq!(size(path, &"\n".repeat(501)).len(), 1);
    assert_eq!(size(path, &format!("fn long() {{{}}}", "\n".repeat(151))).len(), 1);
    assert_eq!(words(path, "let _ = f();").len(), 1);
    assert_eq!(words(path, "let x = \"let _ = \"; // unbounded(").len(), 0);
    assert_eq!(words(path, &format!("// {}", UNFINISHED[0])).len(), 1);
    assert_eq!(unwraps(path, "f().unwrap();").len(), 1);
    assert_eq!(unwraps(path, "// cannot fail: checked above\nf().unwrap();").len(), 0);
    assert_eq!(unwraps(path, "#[cfg(test)]\nmod tests {\n f().unwrap(); }").len(), 0);
    assert_eq!(locks(Path::new("src/hub/x.rs"), "a: Mutex<u8>").len(), 1);
    assert_eq!(parts(path, "struct XParts { a: Option<Arc<u8>> }").len(), 1);
    assert_eq!(names(Path::new("src/util.rs"), "").len(), 1);
}

/// `make measure`: the column "ours now" of the style table.
#[test]
fn measure() {
    let source: Vec<_> = files("src", "rs").into_iter().filter(|path| !is_test_file(path)).collect();
    let mut sizes: Vec<_> =
        source.iter().map(|path| (production(&text_of(path)).lines().count(), path)).collect();
    sizes.sort();
    let total: usize = sizes.iter().map(|(lines, _)| lines).sum();
    let code: Vec<_> = source.iter().map(|path| code_of(&text_of(path))).collect();
    let lengths: Vec<_> =
        code.iter().flat_map(|code| functions(production(code))).map(|(_, lines)| lines).collect();
    let count = |text: &str| code.iter().map(|code| production(code).matches(text).count()).sum::<usize>();
    let lock = text_of(Path::new("Cargo.lock"));
    let invariants = text_of(Path::new("docs/ARCHITECTURE.md"))
        .lines()
        .filter(|line| line.starts_with("| I") && !line.starts_with("| Invariant"))
        .count();
    println!("production files / lines          {} / {total}", sizes.len());
    println!(
        "median, largest production file   {}, {} ({})",
        sizes[sizes.len() / 2].0,
        sizes.last().unwrap().0,
        sizes.last().unwrap().1.display()
    );
    println!(
        "lines in files over 1,000         {}",
        sizes.iter().filter(|(lines, _)| *lines > 1000).map(|(lines, _)| lines).sum::<usize>()
    );
    println!(
        "functions, over 70, over 150      {}, {}, {}",
        lengths.len(),
        lengths.iter().filter(|l| **l > 70).count(),
        lengths.iter().filter(|l| **l > 150).count()
    );
    println!("main.rs lines                     {}", text_of(Path::new("src/main.rs")).lines().count());
    println!("unwrap and expect, production     {}", count(".unwrap()") + count(".expect("));
    println!("files with locks above floor 3    {}", LOCKS.len());
    println!("invariants with tests             {invariants}");
    println!("packages in Cargo.lock            {}", lock.matches("[[package]]").count());
}
