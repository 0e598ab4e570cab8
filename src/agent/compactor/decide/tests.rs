//! Fractions and cut points, without a database.

use super::*;
use crate::clock::Timestamp;

const MODEL: bool = true;
const NO_MODEL: bool = false;

fn bounds(context_window: usize, max_lines: usize, has_model: bool) -> Bounds {
    let config = CompactionConfig::default();
    Bounds { context_window, max_lines, config, factor: 1.0, has_model, tries: 0 }
}

/// A person and the agent in turn, each line with so many tokens.
fn talk(lines: usize, tokens: usize) -> Window {
    let role = |number: usize| if number.is_multiple_of(2) { Role::User } else { Role::Assistant };
    let line = |number| Weight { id: i64::try_from(number).expect("small") + 1, role: role(number), tokens };
    Window { generation: 0, summaries: Vec::new(), lines: (0..lines).map(line).collect() }
}

fn summary(id: i64, tier: u32, tokens: usize) -> Summary {
    Summary {
        id,
        tier,
        first_line: id,
        last_line: id,
        lines: 1,
        from: Timestamp(0),
        to: Timestamp(0),
        // Ninety-two characters are its fence.
        text: Some("x".repeat(tokens * 4 - 92)),
        awaited: false,
    }
}

fn marker(id: i64, awaited: bool) -> Summary {
    Summary { text: None, awaited, ..summary(id, 1, 23) }
}

/// A hundred lines of ten tokens each: 1,000 tokens.
fn at(window: usize, has_model: bool) -> Option<Step> {
    step(&talk(100, 10), &bounds(window, 10_000, has_model))
}

#[test]
fn the_thresholds_are_80_85_and_95_percent_of_the_tokens() {
    let summarise = |lines| Some(Step::Summarise { lines });
    let cases = [
        (1_251, None),
        (1_250, summarise(30)),
        (1_177, summarise(30)),
        (1_176, summarise(50)),
        (1_053, summarise(50)),
        (1_052, Some(Step::Drop { lines: 50 })),
        (500, Some(Step::Drop { lines: 76 })),
    ];
    for (window, expected) in cases {
        assert_eq!(at(window, MODEL), expected, "in a window of {window}");
    }
}

#[test]
fn without_a_model_only_an_emergency_does_anything() {
    assert_eq!(at(1_053, NO_MODEL), None);
    assert_eq!(at(1_052, NO_MODEL), Some(Step::Drop { lines: 50 }));
    let waiting = Window { summaries: vec![marker(1, true)], ..talk(10, 1) };
    assert_eq!(step(&waiting, &bounds(10_000, 100, NO_MODEL)), None);
}

#[test]
fn lines_fill_a_window_as_tokens_do_and_the_correction_counts() {
    assert_eq!(step(&talk(79, 1), &bounds(1_000_000, 100, MODEL)), None);
    assert_eq!(step(&talk(80, 1), &bounds(1_000_000, 100, MODEL)), Some(Step::Summarise { lines: 24 }));
    assert_eq!(step(&talk(95, 1), &bounds(1_000_000, 100, MODEL)), Some(Step::Drop { lines: 48 }));
    let corrected = Bounds { factor: 2.0, ..bounds(2_500, 10_000, MODEL) };
    assert_eq!(step(&talk(100, 10), &corrected), Some(Step::Summarise { lines: 30 }));
}

#[test]
fn what_stands_in_front_of_the_window_fills_it_too() {
    let mut window = talk(100, 10);
    assert_eq!(step(&window, &bounds(2_000, 10_000, MODEL)), None);
    window.summaries = vec![summary(1, 1, 600)];
    assert_eq!(step(&window, &bounds(2_000, 10_000, MODEL)), Some(Step::Summarise { lines: 30 }));
}

#[test]
fn the_share_counts_by_lines_and_by_tokens_so_that_the_window_really_gets_smaller() {
    let mut window = talk(100, 10);
    window.lines[90..].iter_mut().for_each(|line| line.tokens = 1_000);
    // 30 % of the lines would be 300 of 10,900 tokens.
    let Some(Step::Summarise { lines }) = step(&window, &bounds(13_500, 10_000, MODEL)) else {
        panic!("full")
    };
    let leaving: usize = window.lines[..lines].iter().map(|line| line.tokens).sum();
    assert!(leaving * 10 >= 10_900 * 3, "{lines} lines with {leaving} tokens");
    assert!(lines <= 100 - KEPT_MIN);
}

#[test]
fn a_summary_is_made_of_no_more_than_the_model_can_read() {
    let big = Bounds { tries: 0, ..bounds(1_176, 10_000, MODEL) };
    let of = |bounds: &Bounds| match step(&talk(100, 10), bounds) {
        Some(Step::Summarise { lines }) => lines,
        other => panic!("{other:?}"),
    };
    assert_eq!(of(&big), 50);
    assert_eq!(of(&Bounds { tries: 1, ..big.clone() }), 28, "294 tokens, up to a person's line");
    assert_eq!(of(&Bounds { tries: 9, ..big }), 1, "at least one line");
}

#[test]
fn the_exchange_that_goes_on_is_never_summarised() {
    for lines in 0..=KEPT_MIN {
        assert_eq!(step(&talk(lines, 100), &bounds(lines * 120 + 1, 10_000, MODEL)), None, "{lines} lines");
    }
    assert_eq!(step(&talk(5, 100), &bounds(600, 10_000, MODEL)), Some(Step::Summarise { lines: 1 }));
}

#[test]
fn an_emergency_ends_it_whatever_it_takes() {
    let mut window = talk(10, 10);
    window.lines[9].tokens = 5_000;
    assert_eq!(step(&window, &bounds(1_000, 100, MODEL)), Some(Step::Drop { lines: 10 }));
    window.lines[9].tokens = 10;
    window.lines[2].tokens = 5_000;
    assert_eq!(step(&window, &bounds(1_000, 100, MODEL)), Some(Step::Drop { lines: 6 }));
    window.lines.clear();
    assert_eq!(step(&window, &bounds(1, 100, NO_MODEL)), None, "nothing is left to leave");
}

#[test]
fn no_cut_parts_an_answer_or_a_result_from_what_it_belongs_to() {
    // Each exchange: a question, a result, the answer to it, a further result, a further answer.
    const EXCHANGE: [Role; 5] = [Role::User, Role::Event, Role::Assistant, Role::Event, Role::Assistant];
    for lines in (10..200).step_by(5) {
        let line = |at: usize| Weight { id: at as i64 + 1, role: EXCHANGE[at % 5], tokens: 1 + at * 7 % 23 };
        let window = Window { lines: (0..lines).map(line).collect(), ..Window::default() };
        let tokens = tokens_of(&window.lines);
        for percent in [80, 84, 85, 90, 95, 100, 140] {
            for has_model in [MODEL, NO_MODEL] {
                let cut = match step(&window, &bounds(tokens * 100 / percent, 10_000, has_model)) {
                    Some(Step::Drop { lines } | Step::Summarise { lines }) => lines,
                    None => continue,
                    other => panic!("{other:?}"),
                };
                let begins = window.lines.get(cut).is_none_or(|line| line.role == Role::User);
                assert!(begins, "{lines} lines at {percent} % are cut at {cut}");
            }
        }
    }
}

#[test]
fn markers_get_their_summaries_before_summaries_are_rolled_up() {
    let summaries: Vec<_> = (1..=12).map(|id| summary(id, 1, 30)).chain([marker(13, true)]).collect();
    let window = Window { summaries, ..talk(4, 1) };
    assert_eq!(step(&window, &bounds(100_000, 100, MODEL)), Some(Step::Fill { summary: 13 }));
}

#[test]
fn twelve_summaries_of_a_tier_make_the_oldest_eight_one_of_the_next() {
    let rolled = |summaries: Vec<Summary>| match step(
        &Window { summaries, ..talk(4, 1) },
        &bounds(100_000, 100, MODEL),
    ) {
        Some(Step::Roll { several }) => Some(several),
        None => None,
        other => panic!("{other:?}"),
    };
    let of = |tier: u32, ids: std::ops::RangeInclusive<i64>| ids.map(move |id| summary(id, tier, 30));
    assert_eq!(rolled(of(1, 1..=11).collect()), None);
    assert_eq!(rolled(of(1, 1..=12).collect()), Some((1..=8).collect()));
    // One of the second tier stands before what is left, and is not summarised again with it.
    assert_eq!(rolled(of(2, 1..=1).chain(of(1, 2..=12)).collect()), None);
    assert_eq!(rolled(of(2, 1..=11).chain(of(1, 12..=23)).collect()), Some((12..=19).collect()));
    assert_eq!(rolled(of(2, 1..=12).chain(of(1, 13..=14)).collect()), Some((1..=8).collect()));
}

#[test]
fn summaries_that_take_too_much_of_a_small_window_are_rolled_up_sooner() {
    let small = bounds(4_096, 100, MODEL);
    assert_eq!(small.summary_tokens(), 102);
    let summaries: Vec<_> = (1..=6).map(|id| summary(id, 1, small.summary_tokens())).collect();
    let window = Window { summaries, ..talk(4, 1) };
    assert_eq!(step(&window, &small), Some(Step::Roll { several: vec![1, 2, 3] }));
}

#[test]
fn it_always_comes_to_rest() {
    for seed in 1..500_usize {
        let mut window = talk(seed % 120, 1);
        for (at, line) in window.lines.iter_mut().enumerate() {
            line.tokens = 1 + (seed * 7919 + at * 104_729) % (1 + seed % 97);
            line.role = [Role::User, Role::Assistant, Role::Event][(seed + at * at) % 3];
        }
        let bounds = bounds(64 + seed * 31 % 4_000, 10 + seed % 90, !seed.is_multiple_of(3));
        let mut next_id = 1_000;
        let mut steps = 0;
        while let Some(step) = step(&window, &bounds) {
            steps += 1;
            assert!(steps < 1_000, "seed {seed}: {step:?} again and again");
            next_id += 1;
            match step {
                Step::Drop { lines } => {
                    assert!(lines > 0, "seed {seed}");
                    window.lines.drain(..lines);
                    window.summaries.push(marker(next_id, bounds.has_model));
                }
                Step::Summarise { lines } => {
                    assert!(lines > 0 && window.lines.len() - lines >= KEPT_MIN, "seed {seed}");
                    window.lines.drain(..lines);
                    window.summaries.push(summary(next_id, 1, 24));
                }
                Step::Fill { summary: id } => {
                    let at = window.summaries.iter().position(|one| one.id == id).expect("there");
                    window.summaries[at] = summary(id, 1, 24);
                }
                Step::Roll { several } => {
                    assert!(several.len() > 1, "seed {seed}");
                    let at = window.summaries.iter().position(|one| one.id == several[0]).expect("there");
                    let tier = window.summaries[at].tier;
                    window.summaries.drain(at..at + several.len());
                    window.summaries.insert(at, summary(next_id, tier + 1, 24));
                }
            }
        }
    }
}
