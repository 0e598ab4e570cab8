//! A day on which nobody writes and nothing is due, beside all that a busy month has left.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spacebot::clock::Clock;
use spacebot::cron::schedule::ActiveHours;
use spacebot::cron::{NewJob, Target};
use spacebot::hub::state::Event;
use spacebot::memory::transfer::Imported;
use spacebot::memory::{MemoryType, NewMemory};

use crate::model::MEANWHILE;
use crate::start::place_of;
use crate::variant::Variant;
use crate::world::{Order, World};

const CONVERSATIONS: u64 = 20;
const MEMORIES: usize = 5_000;
const DAY: Duration = Duration::from_secs(86_400);
/// Times that the hub may wake: for jobs it looks at the clock now and then.
const WAKES_MAX: usize = 48;

/// An expression, an interval in days, and whether it is for one time.
const JOBS: [(Option<&str>, Option<u32>, bool); 3] =
    [(Some("0 9 1 * *"), None, false), (None, Some(5), false), (None, Some(3), true)];

/// Twenty conversations that have talked, five thousand memories and three jobs.
fn furnished(folder: &Path) -> World {
    let mut world = World::new(1, folder.to_owned(), Order::CommitThenTell, Variant::default());
    world.ground.calm.store(true, Ordering::SeqCst);
    for number in 0..2 * CONVERSATIONS {
        let message = world.compose(number % CONVERSATIONS, None);
        world.take_in(message);
    }
    let parts = world.life.parts.clone();
    let memory = |number| {
        let content = format!("The shelf {number} holds box {}", number * 7 % 911);
        Imported::new(NewMemory::new(MemoryType::Fact, content))
    };
    let memories: Vec<Imported> = (0..MEMORIES).map(memory).collect();
    for batch in memories.chunks(500) {
        let taken = parts.memory.import(batch.to_vec()).expect("import");
        assert!(taken.iter().all(|taken| matches!(taken, Ok(true))));
    }
    for (number, (expression, days, once)) in JOBS.into_iter().enumerate() {
        let place = place_of(1);
        let job = NewJob {
            name: Some(format!("job-{number}")),
            prompt: "look after the house".to_owned(),
            expression: expression.map(str::to_owned),
            interval: days.map(|days| DAY * days),
            active: ActiveHours::ALWAYS,
            once,
            target: Target {
                conversation: place.conversation,
                instance: place.instance,
                direct: place.direct,
                name: place.name,
            },
            timeout: Duration::from_secs(100),
        };
        parts.cron().create(job, world.clock.now()).expect("a job");
    }
    world.life.handle(Event::ClockChanged, world.now());
    world
}

/// Processes, calls of the model, commits and wake-ups of the hub until `end`.
fn pass(world: &World, end: Duration) -> [usize; 4] {
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    MEANWHILE.set(Some(Box::new(move || counted.set(counted.get() + 1))));
    let before = world.disk.commits_to_crash.load(Ordering::SeqCst);
    let (mut wakes, mut processes) = (0, 0);
    loop {
        let next = world.life.hub.borrow().next_deadline().filter(|next| *next <= end);
        world.clock.advance(next.unwrap_or(end).saturating_sub(world.now()) + Duration::from_millis(1));
        world.life.handle(Event::Timer, world.now());
        while !world.life.jobs.borrow().is_empty() {
            world.life.run_job(0, &world.clock);
            processes += 1;
        }
        if next.is_none() {
            break;
        }
        wakes += 1;
    }
    MEANWHILE.set(None);
    let commits = before - world.disk.commits_to_crash.load(Ordering::SeqCst);
    [processes, calls.get(), usize::try_from(commits).expect("commits"), wakes]
}

#[test]
fn an_idle_day_asks_no_model_and_writes_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let mut world = furnished(folder.path());
    // What was said is read for memories once, when nobody has added to it for a while.
    world.settle_within(DAY / 2).expect("rest");
    assert!(world.count("SELECT count(*) FROM memories") >= MEMORIES);
    assert_eq!(world.count("SELECT count(DISTINCT channel_id) FROM conversation_messages"), 20);
    assert_eq!(world.count("SELECT count(*) FROM cron_jobs"), JOBS.len());
    let [processes, calls, commits, wakes] = pass(&world, world.now() + DAY);
    println!("an idle day: {calls} model calls, {commits} commits, {wakes} wake-ups of the hub");
    assert_eq!([processes, calls, commits], [0; 3], "processes, calls of the model, commits");
    assert!(wakes <= WAKES_MAX, "{wakes}");
    // The same count sees a day on which something is due.
    let [processes, calls, commits, _] = pass(&world, world.now() + DAY * 5);
    assert!(processes > 0 && calls > 0 && commits > 0, "{processes} {calls} {commits}");
}
