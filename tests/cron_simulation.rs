//! Jobs in the hub, the processes and a real SQLite file under a simulated model and disk and a clock that
//! is set to and fro, driven by one seed on one thread. The daemon crashes between any two commits, and the model
//! is away for a time, so that jobs switch themselves off.
//!
//! A failing seed is printed; `SPACEBOT_SIM_SEED=<n> cargo test --test cron_simulation` replays it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "simulation/disk.rs"]
mod disk;
#[path = "cron_simulation/life.rs"]
mod life;
#[path = "support/local_model.rs"]
mod local_model;
#[path = "cron_simulation/promises.rs"]
mod promises;
#[path = "support/random.rs"]
mod random;
#[path = "cron_simulation/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use spacebot::clock::Clock;
use spacebot::hub::state::Event;
use world::World;

const SEEDS: u64 = 300;
const STEPS: usize = 120;
const INSTANCE: &str = "sim";
/// The night of 2026-10-25 in Berlin, when 02:00 to 03:00 comes twice.
const START: i64 = 1_792_882_800_000;

/// In memory where that is possible: a simulated disk needs no real one.
fn folder() -> tempfile::TempDir {
    let base = Path::new("/dev/shm");
    if base.is_dir() { tempfile::tempdir_in(base).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// What seeds did, for the summary.
#[derive(Default)]
struct Told {
    runs: usize,
    crashes: usize,
    trips: usize,
    switched_on: usize,
    states: BTreeSet<String>,
    failed: BTreeSet<u64>,
}

fn simulate(seed: u64) -> Told {
    let folder = folder();
    let mut world = World::new(seed, folder.path());
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    let runs = world.check();
    let states = world.life.parts.cron().runs(None, 100_000).unwrap().into_iter().map(|run| run.state);
    let (crashes, switched_on) = (world.crashes, world.switched_on.len());
    Told { runs, crashes, trips: world.trips(), switched_on, states: states.collect(), ..Told::default() }
}

#[test]
fn each_slot_has_one_run_one_end_and_at_most_one_word() {
    let one = std::env::var("SPACEBOT_SIM_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let seeds = one.map_or(0..SEEDS, |seed| seed..seed + 1);
    let (next, sum) = (AtomicU64::new(seeds.start), Mutex::new(Told::default()));
    let work = || {
        let take = || Some(next.fetch_add(1, Ordering::SeqCst)).filter(|seed| *seed < seeds.end);
        while let Some(seed) = take() {
            let outcome = std::panic::catch_unwind(|| simulate(seed));
            let mut sum = sum.lock().unwrap();
            let Ok(told) = outcome else {
                sum.failed.insert(seed);
                return;
            };
            (sum.runs, sum.crashes) = (sum.runs + told.runs, sum.crashes + told.crashes);
            (sum.trips, sum.switched_on) = (sum.trips + told.trips, sum.switched_on + told.switched_on);
            sum.states.extend(told.states);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let Told { runs, crashes, trips, switched_on, states, failed } = sum.into_inner().unwrap();
    assert!(failed.is_empty(), "the seeds {failed:?} failed");
    println!("{runs} runs, {crashes} crashes, jobs switched off {trips} times and on {switched_on} times");
    if one.is_none() {
        assert!(runs > 10_000 && crashes > 250, "{runs} runs and {crashes} crashes say too little");
        assert!(trips > 50 && switched_on > 20, "jobs hardly ever fail: {trips} {switched_on}");
        let all = ["failed", "interrupted", "skipped", "succeeded", "timed_out"];
        assert_eq!(states.iter().map(String::as_str).collect::<Vec<_>>(), all);
    }
}

#[test]
fn nothing_runs_before_the_clock_is_trusted() {
    let folder = folder();
    let mut world = World::new(1, folder.path());
    world.look();
    world.settle();
    let before = world.check();
    assert!(before > 10);
    let right = world.clock.now().0;
    // A board without a battery wakes up in 1970, and then in last year.
    for wrong in [5_000, right - 365 * 86_400_000] {
        world.clock.set(wrong);
        world.restart();
        for _ in 0..10 {
            world.clock.pass(60_000);
            world.handle(Event::Timer);
            world.look();
        }
        assert_eq!(world.check(), before, "nothing ran");
    }
    // The network tells the time.
    world.clock.set(right + 90_000);
    world.handle(Event::ClockChanged);
    world.look();
    assert!(world.life.parts.cron().runs(None, 1000).unwrap().len() > before, "what is due runs at once");
}
