//! The guard's table, case by case, and what holds for every sequence.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

use super::*;
use crate::config::LoopGuardConfig;
use crate::id::ProcessKind;

/// See the head of the file.
const CASES: &str = include_str!("../../../tests/fixtures/hooks/loop_guard.txt");

fn guard(kind: &str) -> LoopGuard {
    let kinds = [ProcessKind::Channel, ProcessKind::Branch, ProcessKind::Worker, ProcessKind::Ingestion];
    let kind = kinds.into_iter().find(|known| known.as_str() == kind).expect(kind);
    LoopGuard::new(LoopGuardConfig::default().of(kind))
}

fn call(name: &str) -> Call {
    match name {
        "P" => Call::of("shell", &json!({ "command": "systemctl status tea" })),
        "O" => Call::of("browser_snapshot", &json!({})),
        other => Call::of("file_read", &json!({ "path": other })),
    }
}

fn told(verdict: char, finding: Finding) -> String {
    let rule = match finding.rule {
        Rule::SameCall => 'c',
        Rule::SameResult => 'r',
        Rule::Alternation => 'a',
    };
    format!("{verdict}{rule}")
}

/// One call as the driver makes it.
fn make(guard: &mut LoopGuard, call: Call, result: &str) -> String {
    match guard.before(call) {
        Verdict::Block(finding) => told('b', finding),
        Verdict::Stop(finding) => told('s', finding),
        Verdict::Warn(finding) => {
            assert_eq!(guard.after(call, result), None, "one warning is enough");
            told('w', finding)
        }
        Verdict::Go => guard.after(call, result).map_or("-".to_owned(), |finding| told('w', finding)),
    }
}

#[test]
fn the_table_holds_case_by_case() {
    let mut cases = 0;
    for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let mut guard = guard(cells[0]);
        let said: Vec<String> =
            cells[1].split_whitespace().map(|step| make(&mut guard, call(&step[..1]), &step[1..])).collect();
        let expected: Vec<&str> = cells[2].split_whitespace().collect();
        assert_eq!(said, expected, "{line}");
        cases += 1;
    }
    assert!(cases > 15, "{cases}");
}

#[test]
fn the_defaults_are_those_of_the_table() {
    let config = LoopGuardConfig::default();
    let row = |limits: LoopLimits| {
        [
            limits.warn_calls,
            limits.block_calls,
            limits.poll_factor,
            limits.warn_results,
            limits.block_results,
            limits.block_rounds,
            limits.max_warnings,
        ]
    };
    assert_eq!(row(config.worker), [4, 7, 3, 3, 4, 4, 3]);
    assert_eq!(row(config.branch), [3, 5, 2, 2, 3, 3, 2]);
    assert_eq!(row(config.channel), [2, 4, 2, 2, 3, 3, 2]);
    assert_eq!(LoopLimits::HISTORY, 30);
}

/// A small generator, so that a failing case can be printed and repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[test]
fn whatever_comes_what_is_kept_is_bounded_and_the_same_calls_get_the_same_verdicts() {
    for seed in 1..=60_u64 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let kind = ["channel", "branch", "worker", "ingestion"][usize::try_from(dice.roll(4)).unwrap()];
        let (calls, results) = (1 + dice.roll(9), 1 + dice.roll(4));
        let steps: Vec<(u64, u64)> = (0..200).map(|_| (dice.roll(calls), dice.roll(results))).collect();
        let run = || {
            let mut guard = guard(kind);
            let told: Vec<String> = steps
                .iter()
                .map(|(name, result)| {
                    let call = if *name == 8 { call("P") } else { call(&name.to_string()) };
                    let told = make(&mut guard, call, &result.to_string());
                    assert!(guard.history.len() <= LoopLimits::HISTORY, "seed {seed}");
                    assert!(guard.history.capacity() <= 2 * LoopLimits::HISTORY, "seed {seed}");
                    for entry in &guard.history {
                        let warned = guard.history.iter().filter(|it| it.call == entry.call && it.warned);
                        assert!(warned.count() <= guard.limits.max_warnings, "seed {seed}");
                    }
                    told
                })
                .collect();
            told
        };
        assert_eq!(run(), run(), "seed {seed}");
    }
}

#[test]
fn a_run_whose_calls_differ_is_never_warned_or_stopped() {
    for seed in 1..=200_u64 {
        let mut dice = Dice(seed * 0x517c_c1b7);
        let mut guard = guard(["channel", "branch", "worker"][usize::try_from(dice.roll(3)).unwrap()]);
        for number in 0..500 {
            let tool = ["shell", "file_read", "reply"][usize::try_from(dice.roll(3)).unwrap()];
            let call = Call::of(tool, &json!({ "command": format!("step {number}") }));
            assert_eq!(make(&mut guard, call, "the same result"), "-", "seed {seed}, step {number}");
        }
    }
}

#[test]
fn what_counts_as_the_same_call() {
    let of = |tool: &str, arguments: Value| Call::of(tool, &arguments);
    assert_eq!(of("shell", json!({ "a": 1, "b": [1, 2] })), of("shell", json!({ "b": [1, 2], "a": 1 })));
    for other in [
        of("shell", json!({ "a": 1, "b": [2, 1] })),
        of("shell", json!({ "a": "1", "b": [1, 2] })),
        of("shell2", json!({ "a": 1, "b": [1, 2] })),
        of("shell", json!("{\"a\":1,\"b\":[1,2]}")),
    ] {
        assert_ne!(of("shell", json!({ "a": 1, "b": [1, 2] })), other);
    }
    let polls = |command: &str| of("shell", json!({ "command": command })).polls;
    assert!(polls("git status") && polls("docker logs tea") && polls("sleep 5; cat out") && polls("wait"));
    assert!(!polls("cargo build") && !polls("ls catalogs statuses"), "whole words");
    assert!(!polls(&format!("echo {} && git status", "x".repeat(200))), "only short ones");
    assert!(!of("file_read", json!({ "path": "status" })).polls, "only commands");
}

#[test]
fn only_the_beginning_of_a_result_is_compared_and_new_words_begin_anew() {
    let (start, other) = ("é".repeat(600), "x".repeat(600));
    let mut guard = guard("worker");
    for (end, told) in [("1", "-"), ("2", "-"), ("3", "wr")] {
        assert_eq!(make(&mut guard, call("A"), &format!("{start}{other}{end}")), told);
    }
    guard.forget();
    assert_eq!(make(&mut guard, call("A"), &start), "-");
}
