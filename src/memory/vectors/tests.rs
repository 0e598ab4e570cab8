//! The index over the real tables: whatever happens to memories, an exhaustive search finds exactly the
//! vectors that the database holds.

use std::collections::BTreeSet;
use std::path::Path;

use super::indexed::Indexed;
use super::rows::{self, Made};
use super::source::unsigned;
use crate::clock::{Clock, SimulatedClock, Timestamp};
use crate::db::Db;
use crate::memory::embed::DIMENSIONS;
use crate::memory::record::{MemoryType, NewMemory};
use crate::memory::vector_index::{IndexKind, LIMIT_MAX};
use crate::memory::{MemoryStore, upkeep};
use crate::thread::Cancel;

const MODEL: &str = "model";

/// SplitMix64; the seed is the test.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn vector(&mut self) -> Vec<f32> {
        let mut vector: Vec<f32> =
            (0..DIMENSIONS).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect();
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|value| *value /= length);
        vector
    }
}

struct Bench {
    folder: tempfile::TempDir,
    clock: std::sync::Arc<SimulatedClock>,
    db: Db,
    store: MemoryStore,
    indexed: Indexed,
    ids: Vec<String>,
    random: Random,
}

fn indexed(folder: &Path) -> Indexed {
    Indexed::new(folder.join("vectors"), IndexKind::Sketch)
}

impl Bench {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = SimulatedClock::starting_at(Timestamp(1_790_000_000_000));
        let db = Db::open_inline(&folder.path().join("t.db"), None).unwrap();
        let store = MemoryStore::open(db.clone(), folder.path().join("index"), clock.clone()).unwrap();
        let indexed = indexed(folder.path());
        Self { folder, clock, db, store, indexed, ids: Vec::new(), random: Random(seed) }
    }

    fn save(&mut self) {
        let memory_type = [MemoryType::Fact, MemoryType::Goal][self.random.below(2)];
        let content = format!("memory {}", self.random.next());
        let saved = self.store.save(NewMemory::new(memory_type, content)).unwrap();
        self.ids.push(saved.id);
    }

    /// Gives a vector to everything that lacks one, as the filling thread does.
    fn embed(&mut self) {
        let db = self.db.clone();
        let number = db.write(|connection| rows::model_number(connection, MODEL)).unwrap();
        let missing = db.read(|connection| rows::missing(connection, MODEL)).unwrap() as usize;
        let waiting =
            db.read(|connection| rows::without_vector(connection, number, i64::MAX, missing)).unwrap();
        assert_eq!(waiting.len(), missing.min(super::BATCH), "counted and found");
        let made: Vec<Made> =
            waiting.into_iter().map(|(id, _, change)| (id, change, self.random.vector())).collect();
        db.write(move |connection| made.iter().try_for_each(|one| rows::insert(connection, number, one)))
            .unwrap();
    }

    fn any(&mut self) -> Option<String> {
        (!self.ids.is_empty()).then(|| self.ids[self.random.below(self.ids.len())].clone())
    }

    fn act(&mut self) {
        match self.random.below(9) {
            0..=2 => self.save(),
            3 | 4 => self.embed(),
            5 => {
                if let Some(id) = self.any() {
                    self.store.forget(&id, None).unwrap();
                }
            }
            6 => {
                if let (Some(one), Some(other)) = (self.any(), self.any()) {
                    let now = self.clock.now();
                    self.db.write(move |connection| upkeep::merge(connection, &one, &other, now)).unwrap();
                }
            }
            7 => {
                let deleted = self.any().unwrap_or_default();
                let sql = "DELETE FROM memories WHERE id = ?1 AND change_seq < (SELECT max(change_seq) FROM memories)";
                self.db.write(move |connection| Ok(connection.execute(sql, [deleted])?)).unwrap();
            }
            // Killed: what was only in memory is gone.
            _ => self.indexed = indexed(self.folder.path()),
        }
    }

    fn stored(&self, filter: &str) -> BTreeSet<u64> {
        let sql = format!(
            "SELECT v.key FROM memory_vectors v JOIN memories m ON m.id = v.memory_id WHERE forgotten = 0 {filter}"
        );
        let read = |connection: &crate::db::rusqlite::Connection| {
            let mut statement = connection.prepare(&sql)?;
            let rows = statement.query_map([], |row| Ok(unsigned(row.get(0)?)))?;
            Ok(rows.collect::<Result<BTreeSet<_>, _>>()?)
        };
        self.db.read(read).unwrap()
    }

    fn check(&mut self, what: &str) {
        let query = self.random.vector();
        let (index, behind) = self.indexed.current(&self.db, MODEL).unwrap();
        if behind {
            self.indexed.bring_up(&self.db, MODEL).unwrap();
        }
        let found = index.search(&query, LIMIT_MAX, None, &Cancel::new()).unwrap();
        let found: BTreeSet<u64> = found.into_iter().map(|(key, _)| key).collect();
        let stored = self.stored("");
        assert_eq!(found, stored, "{what}");
        let all = "SELECT count(*) FROM memory_vectors";
        let all: i64 =
            self.db.read(|connection| Ok(connection.query_row(all, [], |row| row.get(0))?)).unwrap();
        assert_eq!(all as usize, stored.len(), "{what}: a forgotten memory has no vector");
        let counted = self.db.read(|connection| super::source::count(connection, MODEL)).unwrap();
        assert_eq!(counted as usize, stored.len(), "{what}: the count is kept");
        let goals: BTreeSet<u64> =
            self.indexed.keys_of(&self.db, MemoryType::Goal).unwrap().iter().copied().collect();
        assert_eq!(goals, self.stored("AND memory_type = 'goal'"), "{what}: of a type");
    }
}

#[test]
fn after_any_sequence_of_acts_and_crashes_the_index_holds_what_the_database_holds() {
    for seed in 0..12 {
        let mut bench = Bench::new(seed);
        for step in 0..160 {
            bench.act();
            match bench.random.below(12) {
                0 => bench.check(&format!("seed {seed}, step {step}")),
                1 => bench.indexed.flush(true).unwrap(),
                _ => {}
            }
        }
        bench.check(&format!("seed {seed}, at the end"));
    }
}

#[test]
fn damaged_files_are_made_again_from_the_database() {
    let mut bench = Bench::new(7);
    (0..100).for_each(|_| bench.save());
    (0..4).for_each(|_| bench.embed());
    bench.check("before");
    bench.indexed.flush(true).unwrap();
    let folder = bench.folder.path().join("vectors");
    for damage in ["cut", "turned", "deleted"] {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let half = bytes.len() / 2;
            match damage {
                "cut" => std::fs::write(&path, &bytes[..half]).unwrap(),
                "turned" => {
                    std::fs::write(&path, bytes.iter().map(|byte| !byte).collect::<Vec<_>>()).unwrap()
                }
                _ => std::fs::remove_file(&path).unwrap(),
            }
        }
        bench.indexed = indexed(bench.folder.path());
        bench.check(damage);
        bench.indexed.flush(true).unwrap();
    }
}

#[test]
fn a_second_process_reads_beside_the_one_that_writes_and_changes_nothing() {
    let mut bench = Bench::new(9);
    (0..60).for_each(|_| bench.save());
    (0..2).for_each(|_| bench.embed());
    bench.check("the daemon");
    bench.indexed.flush(true).unwrap();
    let names = || {
        let entries = std::fs::read_dir(bench.folder.path().join("vectors")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<BTreeSet<_>>()
    };
    let before = names();
    let beside = indexed(bench.folder.path());
    let daemon = std::mem::replace(&mut bench.indexed, beside);
    (0..70).for_each(|_| bench.save());
    (0..3).for_each(|_| bench.embed());
    bench.check("the command beside it");
    bench.indexed.flush(true).unwrap();
    let entries = std::fs::read_dir(bench.folder.path().join("vectors")).unwrap();
    let after: BTreeSet<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(before, after, "it wrote nothing");
    bench.indexed = daemon;
    bench.check("the daemon goes on");
}

#[test]
fn another_model_means_vectors_made_anew_and_search_goes_on() {
    let mut bench = Bench::new(11);
    (0..40).for_each(|_| bench.save());
    (0..2).for_each(|_| bench.embed());
    bench.check("the first model");
    bench.indexed.flush(true).unwrap();
    let other = "another model";
    let db = bench.db.clone();
    assert_eq!(db.read(|connection| rows::missing(connection, other)).unwrap(), 40);
    let number = db.write(move |connection| rows::model_number(connection, other)).unwrap();
    let fresh = indexed(&bench.folder.path().join("second"));
    let waiting = db.read(|connection| rows::without_vector(connection, number, i64::MAX, 40)).unwrap();
    let half: Vec<Made> =
        waiting.into_iter().take(15).map(|(id, _, change)| (id, change, bench.random.vector())).collect();
    db.write(move |connection| half.iter().try_for_each(|one| rows::insert(connection, number, one)))
        .unwrap();
    fresh.bring_up(&db, other).unwrap();
    let (index, _) = fresh.current(&db, other).unwrap();
    let found = index.search(&bench.random.vector(), LIMIT_MAX, None, &Cancel::new()).unwrap();
    assert_eq!(found.len(), 15, "those of the new model and no other");
    assert_eq!(db.read(|connection| rows::missing(connection, other)).unwrap(), 25);
}
