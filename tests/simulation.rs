//! The hub, the processes and a real SQLite file under a simulated clock, model, platform and disk,
//! all driven by one seed on one thread. The daemon crashes between any two commits; inbound is
//! doubled, lost and reordered, and comes while turns run; models fail, limit, refuse, bill what they like, call wrong
//! tools and panic. After
//! every step and at the end the promises P1 to P6 are checked, and every run is replayed.
//!
//! A failing seed is printed; `SPACEBOT_SIM_SEED=<n> cargo test --test simulation` replays it. `SPACEBOT_SIM_SEEDS` is
//! the last seed, `SPACEBOT_SIM_FROM` the first.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "simulation/accounts.rs"]
mod accounts;
#[path = "simulation/breaker.rs"]
mod breaker;
#[path = "simulation/ceilings.rs"]
mod ceilings;
#[path = "simulation/cortex.rs"]
mod cortex;
#[path = "simulation/deferral.rs"]
mod deferral;
#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/fault.rs"]
mod fault;
#[path = "simulation/idle.rs"]
mod idle;
#[path = "simulation/life.rs"]
mod life;
#[path = "simulation/links.rs"]
mod links;
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
#[path = "simulation/start.rs"]
mod start;
#[path = "simulation/variant.rs"]
mod variant;
#[path = "simulation/watch.rs"]
mod watch;
#[path = "simulation/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use spacebot::clock::Clock;
use spacebot::prompts;
use variant::Variant;
use world::{Order, World};

const SEEDS: u64 = 1000;
const STEPS: usize = 60;
/// Of the first agent.
const CONVERSATIONS: u64 = 3;
/// Tasks that wait for approval at the beginning.
const TASKS: usize = 3;
const INSTANCE: &str = "sim";

/// What seeds did, for the summary.
#[derive(Default)]
struct Told {
    counts: BTreeMap<&'static str, usize>,
    /// How far the simulated clock went.
    time: Duration,
}

/// In memory where that is possible: the simulated crash does not depend on the medium.
fn folder() -> tempfile::TempDir {
    let base = Path::new("/dev/shm");
    if base.is_dir() { tempfile::tempdir_in(base) } else { tempfile::tempdir() }.expect("folder")
}

fn play(seed: u64, order: Order) -> Result<Told, String> {
    let folder = folder();
    let mut world = World::new(seed, folder.path().to_owned(), order, Variant::of(seed));
    let start = world.clock.now();
    for step in 0..STEPS {
        world.step();
        world.check_step().map_err(|error| format!("step {step}: {error}"))?;
    }
    world.settle()?;
    world.check_step()?;
    world.check_end()?;
    Ok(told(&world, world.clock.now().since(start)))
}

fn told(world: &World, time: Duration) -> Told {
    let lists = |kind: &str, least: usize| {
        world.count(&format!("SELECT count(*) FROM run_journal WHERE kind = '{kind}' AND json_array_length(payload, '$.messages') >= {least}"))
    };
    let notices = |key: &str| {
        let sql = format!(
            "SELECT count(*) FROM outbox WHERE json_extract(content, '$.text') = '{}'",
            prompts::notice(key)
        );
        world.count(&sql)
    };
    let [summaries, markers, archives] = world.compacted();
    world.ground.watch.begin();
    let mut counts = world.ground.watch.counts();
    counts.extend(world.ground.accounts.counts());
    counts.extend([
        ("messages", world.platform.sent.len()),
        ("crashes", world.crashes),
        ("attempts at tasks", world.count("SELECT count(*) FROM task_attempts")),
        ("summaries", summaries),
        ("markers", markers),
        ("archives read", archives),
        ("heard while a turn ran", lists("route", 1)),
        ("batches", lists("start", 2)),
        ("words for workers", world.count("SELECT count(*) FROM run_journal WHERE kind = 'route' AND json_extract(payload, '$.text') LIKE 'more %'")),
        ("words that came too late", world.count("SELECT count(*) FROM worker_runs WHERE result LIKE '%- more %'")),
        ("questions between agents", world.count("SELECT count(*) FROM link_requests")),
        ("deepest questions", world.count("SELECT count(*) FROM link_requests WHERE depth = 3")),
        ("put off", world.count("SELECT count(*) FROM inbox WHERE deferred_at IS NOT NULL")),
        ("given up", notices("stale")),
        ("bulletins by a model", world.count("SELECT count(*) FROM bulletin WHERE smoothed IS NOT NULL")),
        ("syntheses", world.count("SELECT count(*) FROM working_memory_syntheses")),
        ("answers to the operator", world.count("SELECT count(*) FROM cortex_chat_messages WHERE role = 'assistant'")),
    ]);
    Told { counts, time }
}

fn wanted(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Plays all of them on the cores that there are; the first failure ends it.
fn play_all(seeds: &[u64]) -> Result<Told, (u64, String)> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let outcome = Mutex::new((Told::default(), None::<(u64, String)>));
    let work = || {
        while let Some(seed) =
            seeds.get(next.fetch_add(1, Ordering::SeqCst)).filter(|_| !stop.load(Ordering::SeqCst))
        {
            // A check of the world itself may panic.
            let played = std::panic::catch_unwind(|| play(*seed, Order::CommitThenTell));
            let played = played.unwrap_or_else(|_| Err("it panicked".to_owned()));
            let mut outcome = outcome.lock().expect("no panic with the lock");
            match played {
                Ok(told) => {
                    outcome.0.time += told.time;
                    told.counts
                        .into_iter()
                        .for_each(|(what, count)| *outcome.0.counts.entry(what).or_default() += count);
                }
                Err(error) => {
                    stop.store(true, Ordering::SeqCst);
                    outcome.1.get_or_insert((*seed, error));
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    match outcome.into_inner().expect("no panic with the lock") {
        (_, Some(failed)) => Err(failed),
        (told, None) => Ok(told),
    }
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
        None => {
            let first = wanted("SPACEBOT_SIM_FROM").unwrap_or(1);
            (first..=wanted("SPACEBOT_SIM_SEEDS").unwrap_or(SEEDS)).collect()
        }
    };
    let begun = Instant::now();
    let Told { counts, time } = play_all(&seeds).unwrap_or_else(|(seed, error)| {
        panic!("seed {seed}: {error}\nreplay with SPACEBOT_SIM_SEED={seed} cargo test --test simulation")
    });
    let rate = time.as_secs_f64() / begun.elapsed().as_secs_f64();
    println!("{} seeds: {counts:?}; {rate:.0} simulated seconds in a real one", seeds.len());
    // How often each is to happen at least in a hundred seeds.
    let lively = [
        ("attempts at tasks", 25),
        ("heard while a turn ran", 25),
        ("batches", 25),
        ("words for workers", 5),
        ("summaries", 100),
        ("archives read", 100),
        ("crashes", 25),
        ("turns over the retrigger limit", 1),
        ("rests that providers want", 5),
        ("rests of what is to be mended", 3),
        ("calls in the accounts", 100),
        ("calls over the budget", 50),
    ];
    for (what, least) in lively {
        let enough =
            seeds.len() < 100 || counts.get(what).copied().unwrap_or_default() * 100 > seeds.len() * least;
        assert!(enough, "{what}: {} times is hardly ever", counts[what]);
    }
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
        let folder = folder();
        let mut world = World::new(seed, folder.path().to_owned(), Order::CommitThenTell, Variant::of(seed));
        (0..STEPS).for_each(|_| world.step());
        world.settle().expect("rest");
        world.platform.texts
    };
    assert_eq!(texts(7), texts(7));
}
