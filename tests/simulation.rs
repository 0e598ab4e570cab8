//! The hub, the processes and a real SQLite file under a simulated clock, model, platform and disk,
//! all driven by one seed on one thread. The daemon crashes between any two commits; inbound is
//! doubled, lost and reordered, and comes while turns run; models fail, call wrong tools and panic. After
//! every step and at the end the promises P1, P2, P3 and P5 are checked, and every run is replayed.
//!
//! A failing seed is printed; `SPACEBOT_SIM_SEED=<n> cargo test --test simulation` replays it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/idle.rs"]
mod idle;
#[path = "simulation/life.rs"]
mod life;
#[path = "support/local_model.rs"]
mod local_model;
#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/promises.rs"]
mod promises;
#[path = "support/random.rs"]
mod random;
#[path = "support/replay.rs"]
mod replay;
#[path = "simulation/world.rs"]
mod world;

use std::path::Path;
use std::time::{Duration, Instant};

use spacebot::clock::Clock;
use spacebot::tasks;
use world::{Order, World};

const SEEDS: u64 = 1000;
const STEPS: usize = 60;
const CONVERSATIONS: u64 = 3;
/// Tasks that wait for approval at the beginning.
const TASKS: usize = 3;
const INSTANCE: &str = "sim";

/// What one seed did, for the summary.
#[derive(Default)]
struct Told {
    messages: usize,
    crashes: usize,
    /// Attempts at tasks.
    attempts: usize,
    /// Summaries that were made, markers that were put in an emergency, archives that were read.
    compacted: [usize; 3],
    /// Messages that reached a running turn, and turns with several messages from the start.
    company: [usize; 2],
    /// Messages that workers have heard, and that came too late.
    routed: [usize; 2],
    /// How far the simulated clock went.
    time: Duration,
}

fn play(seed: u64, order: Order) -> Result<Told, String> {
    // A RAM disk is quicker; the simulated crash does not depend on the medium.
    let base = Path::new("/dev/shm");
    let folder =
        if base.is_dir() { tempfile::tempdir_in(base) } else { tempfile::tempdir() }.expect("folder");
    let mut world = World::new(seed, folder.path().to_owned(), order);
    let start = world.clock.now();
    for step in 0..STEPS {
        world.step();
        world.check_step().map_err(|error| format!("step {step}: {error}"))?;
    }
    world.settle()?;
    world.check_step()?;
    world.check_end()?;
    let board = world.life.parts.tasks();
    let tasks = board.list(&tasks::Filter { limit: tasks::LISTED_MAX, ..tasks::Filter::default() });
    let attempts = |task: &tasks::Task| board.attempts(task.number).expect("read").len();
    let attempts = tasks.expect("read").iter().map(attempts).sum();
    let (messages, crashes) = (world.platform.sent.len(), world.crashes);
    let lists = |kind: &str, least: usize| {
        world.count(&format!("SELECT count(*) FROM run_journal WHERE kind = '{kind}' AND json_array_length(payload, '$.messages') >= {least}"))
    };
    let company = [lists("route", 1), lists("start", 2)];
    let routed = [
        "SELECT count(*) FROM run_journal WHERE kind = 'route' AND json_extract(payload, '$.text') LIKE 'more %'",
        "SELECT count(*) FROM worker_runs WHERE result LIKE '%- more %'",
    ]
    .map(|sql| world.count(sql));
    Ok(Told {
        messages,
        crashes,
        attempts,
        compacted: world.compacted(),
        company,
        routed,
        time: world.clock.now().since(start),
    })
}

fn wanted(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn the_promises_hold_for_every_seed() {
    // Simulated panics are part of the game and would fill the screen.
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        if !text.contains("simulated panic") {
            eprintln!("{text}");
        }
    }));
    let seeds: Vec<u64> = match wanted("SPACEBOT_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=wanted("SPACEBOT_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let (mut sum, begun) = (Told::default(), Instant::now());
    for seed in &seeds {
        match play(*seed, Order::CommitThenTell) {
            Ok(told) => {
                sum.messages += told.messages;
                sum.crashes += told.crashes;
                sum.attempts += told.attempts;
                sum.time += told.time;
                sum.routed.iter_mut().zip(told.routed).for_each(|(sum, told)| *sum += told);
                sum.company.iter_mut().zip(told.company).for_each(|(sum, told)| *sum += told);
                sum.compacted.iter_mut().zip(told.compacted).for_each(|(sum, told)| *sum += told);
            }
            Err(error) => panic!(
                "seed {seed}: {error}\nreplay with SPACEBOT_SIM_SEED={seed} cargo test --test simulation"
            ),
        }
    }
    let Told { messages, crashes, attempts, compacted, company, routed, time } = sum;
    let rate = time.as_secs_f64() / begun.elapsed().as_secs_f64();
    println!(
        "{} seeds, {messages} messages, {crashes} crashes, {attempts} attempts at tasks; summaries, \
         markers, archives read: {compacted:?}; heard while a turn ran, batches: {company:?}; routed to workers, too late: {routed:?}; \
         {rate:.0} simulated seconds in a real one",
        seeds.len()
    );
    assert!(seeds.len() == 1 || attempts > seeds.len() / 4, "hardly any task was begun");
    let lively = company.iter().all(|count| *count > seeds.len() / 4);
    assert!(seeds.len() == 1 || lively, "hardly anything was heard on the way or together: {company:?}");
    let spoken_to = routed[0] > seeds.len() / 20 && (routed[1] > 0 || seeds.len() < 1000);
    assert!(seeds.len() == 1 || spoken_to, "hardly anything was routed: {routed:?}");
    let busy = compacted[0] > seeds.len() && compacted[2] > seeds.len();
    assert!(seeds.len() == 1 || busy, "hardly anything was compacted: {compacted:?}");
    assert!(seeds.len() == 1 || crashes > seeds.len() / 4, "the disk hardly ever crashed");
}

#[test]
fn telling_the_platform_before_the_commit_is_noticed() {
    let caught = (1..=SEEDS).find_map(|seed| play(seed, Order::TellThenCommit).err());
    let error = caught.expect("a broken commit order went unnoticed");
    assert!(error.contains("P1"), "{error}");
}

#[test]
fn a_seed_replays_exactly() {
    let texts = |seed| {
        let folder = tempfile::tempdir().expect("folder");
        let mut world = World::new(seed, folder.path().to_owned(), Order::CommitThenTell);
        (0..STEPS).for_each(|_| world.step());
        world.settle().expect("rest");
        world.platform.texts
    };
    assert_eq!(texts(7), texts(7));
}
