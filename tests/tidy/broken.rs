//! Each rule tried on text that breaks it, and on text that only looks so.

use std::path::Path;

use super::*;

type Rule = fn(&Path, &str) -> Vec<String>;

/// How many breaches, of which rule, in which file, with which source.
const CASES: &[(usize, Rule, &str, &str)] = &[
    (1, header, "src/db/x.rs", "use std;"),
    (0, header, "src/db/x.rs", "//! Why.\nuse std;"),
    (1, forbidden, "src/db/x.rs", "fn f() { todo!() }"),
    (1, forbidden, "src/db/x.rs", "fn f() { unimplemented!() }"),
    (1, forbidden, "src/db/x.rs", "fn f() { dbg!(1); }"),
    (1, forbidden, "src/db/x.rs", "let _ = f();"),
    (1, forbidden, "src/db/x.rs", "use tokio::fs;"),
    (2, futures, "src/db/x.rs", "async fn f() { g().await }"),
    (1, futures, "src/db/x.rs", "pollster::block_on(f())"),
    (0, futures, "src/llm/attempt.rs", "pollster::block_on(f())"),
    (0, forbidden, "src/db/x.rs", "let x = \"let _ = tokio\"; /* dbg! /* */ todo! */ // unimplemented!"),
    (0, forbidden, "src/db/x.rs", "#[cfg(test)]\nmod tests { fn f<A, B>() { dbg!(1); } }"),
    (1, forbidden, "src/db/x.rs", "#[cfg(test)]\nuse std;\nfn f() { dbg!(1); }"),
    (1, forbidden, "src/db/x.rs", "#[cfg(not(test))]\nfn f() { dbg!(1); }"),
    (1, queues, "src/db/x.rs", "let (a, b) = unbounded();"),
    (1, queues, "src/db/x.rs", "let (a, b) = std::sync::mpsc::channel();"),
    (1, queues, "src/db/x.rs", "let (a, b) = bounded(64);"),
    (0, queues, "src/db/x.rs", "let (a, b) = bounded(QUEUE); let (c, d) = bounded(1);"),
    (1, threads, "src/db/x.rs", "std::thread::spawn(f);"),
    (1, threads, "src/db/x.rs", "use std::thread;\nthread::spawn(f);"),
    (1, threads, "src/db/x.rs", "use std::thread::{Builder, JoinHandle};"),
    (1, threads, "src/db/x.rs", "std::thread::sleep(second);"),
    (0, threads, "src/db/x.rs", "use std::thread::JoinHandle;\ncrate::thread::spawn(\"x\", f);"),
    (0, threads, "src/thread.rs", "std::thread::Builder::new()"),
    (1, prints, "src/db/x.rs", "println!(\"x\");"),
    (1, prints, "src/client.rs", "eprint!(\"x\");"),
    (0, prints, "src/cli/x.rs", "println!(\"x\");"),
    (1, unwraps, "src/db/x.rs", "f().unwrap();"),
    (1, unwraps, "src/db/x.rs", "f()\n    .expect(\"x\");"),
    (0, unwraps, "src/db/x.rs", "// cannot fail: checked above\nf().unwrap();"),
    (0, unwraps, "src/db/x.rs", "f().unwrap_or(1);"),
    (0, unwraps, "src/db/x.rs", "#[cfg(test)]\nmod tests {\n f().unwrap(); }"),
    (1, locks, "src/hub/x.rs", "a: Mutex<u8>"),
    (1, locks, "src/agent.rs", "a: std::sync::RwLock<u8>"),
    (0, locks, "src/db/x.rs", "a: Mutex<u8>"),
    (1, parts, "src/hub.rs", "struct XParts { a: Option<Arc<u8>> }"),
    (1, parts, "src/hub.rs", "pub struct XParts { a: u8, config: Config }"),
    (
        1,
        parts,
        "src/hub.rs",
        "struct XParts<T> { a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: (u8, u8) }",
    ),
    (
        0,
        parts,
        "src/hub.rs",
        "struct XParts { a: Map<u8, u8>, b: Box<dyn Fn(u8, u8)>, c: LlmConfig, d: u8, e: u8 }",
    ),
    (1, names, "src/util.rs", ""),
    (1, names, "tests/support/helpers.rs", ""),
    (1, names, "src/db/mod.rs", ""),
    (0, names, "src/utility_bill.rs", ""),
    (1, tests, "tests/x.rs", "#[ignore = \"slow\"]\nfn f() {}"),
    (1, tests, "src/db/tests.rs", "#[should_panic]\nfn f() {}"),
    (1, tests, "tests/x.rs", "use std::thread::sleep;"),
    (1, tests, "tests/x.rs", "sleep(Duration::from_secs(1));"),
    (0, tests, "tests/x.rs", "run(\"sleep 1000 & sleep(1)\");"),
    (1, leftovers, "docs/X.md", "FIXME: later"),
    (1, leftovers, "src/db/x.rs", "// TODO"),
    (0, leftovers, "src/db/x.rs", "// XXXL is a size"),
    (1, leftovers, "docs/X.md", "see /work/x"),
    (1, leftovers, "docs/X.md", "`/root/.config`"),
    (0, leftovers, "docs/X.md", "see /home/una/work/x and ~/work/x"),
];

#[test]
fn each_rule_sees_what_breaks_it() {
    for (number, (wanted, rule, path, source)) in CASES.iter().enumerate() {
        let found = rule(Path::new(path), source);
        assert_eq!(found.len(), *wanted, "case {number}, {path}: {source}\n{found:?}");
    }
}

#[test]
fn sizes_are_seen() {
    let lines = |path: &str, number: usize| size(Path::new(path), &"x;\n".repeat(number)).len();
    assert_eq!((lines("src/db/x.rs", 500), lines("src/db/x.rs", 501), lines("src/db/x.rs", 1001)), (0, 1, 1));
    assert_eq!((lines("tests/x.rs", 1000), lines("tests/x.rs", 1001)), (0, 1));
    assert_eq!((lines("src/main.rs", 250), lines("src/main.rs", 251)), (0, 1));
    let with_tests = format!("x;\n#[cfg(test)]\nmod tests {{\n{}}}\n", "x;\n".repeat(600));
    assert_eq!(size(Path::new("src/db/x.rs"), &with_tests).len(), 0, "tests are not production");

    let function = |number: usize| format!("fn f(a: [u8; 4]) {{\n{}}}\n", "x;\n".repeat(number - 2));
    let path = Path::new("src/db/x.rs");
    assert_eq!((size(path, &function(150)).len(), size(path, &function(151)).len()), (0, 1));
    let functions = |long: usize| -> Vec<_> {
        (0..100).map(|number| (number.to_string(), if number < long { 71 } else { 70 })).collect()
    };
    assert_eq!((too_many_long(&functions(2)).len(), too_many_long(&functions(3)).len()), (0, 3));
}

#[test]
fn an_invariant_without_its_test_is_seen() {
    let read =
        |path: &str| (path == "tests/a.rs").then(|| "#[test]\nfn it_holds() {}\nfn not() {}".to_owned());
    let found = |document: &str| invariants(document, &read).len();
    assert_eq!(found("| I1 | It holds. | `tests/a.rs::it_holds` |"), 0);
    assert_eq!(found("| I1 | It holds. | by care |"), 1, "no test");
    assert_eq!(found("| I1 | It holds. | `tests/a.rs::not` |"), 1, "no test function");
    assert_eq!(found("| I1 | It holds. | `tests/b.rs::it_holds` |"), 1, "no such file");
    assert_eq!(found("| I1 | It holds. | `tests/a.rs::it_holds` `tests/a.rs::gone` |"), 1, "one is gone");
    assert_eq!(found("| I2 | It holds. | `tests/a.rs::it_holds` |"), 1, "the number");
}
