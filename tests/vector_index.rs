//! The vector index against an exact scan, and against everything that can happen to its files: what an
//! exhaustive search finds is always what the source holds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/vectors.rs"]
mod vectors;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use spacebot::error::{Fault, Kind};
use spacebot::memory::vector_index::{
    Change, DIMENSIONS, IndexKind, LIMIT_MAX, Options, Tuning, VectorError, VectorIndex, VectorSource, check,
};
use spacebot::thread::Cancel;
use vectors::{Random, Rows, Table, dot};

/// So small that a few hundred rows see sketches, lists and merges.
const SMALL: Tuning =
    Tuning { tail_rows: 32, sketch_rows: 100, partition_rows: 250, lists: 8, probes: 3, candidates: 2 };

fn options(kind: IndexKind, tuning: Tuning) -> Options {
    Options { model: "model".to_owned(), kind, tuning, probe: None }
}

fn kinds() -> Vec<IndexKind> {
    if cfg!(feature = "hnsw") { vec![IndexKind::Auto, IndexKind::Hnsw] } else { vec![IndexKind::Auto] }
}

fn open(folder: &Path, source: &Arc<Table>, kind: IndexKind) -> VectorIndex {
    VectorIndex::open(folder, source.clone(), options(kind, SMALL)).unwrap()
}

fn search(index: &VectorIndex, query: &[f32], limit: usize) -> Vec<(u64, f32)> {
    index.search(query, limit, None, &Cancel::new()).unwrap()
}

/// An exhaustive search finds exactly what the source has, each once and with its cosine.
fn assert_equal(index: &VectorIndex, source: &Table, query: &[f32], what: &str) {
    let wanted = source.all();
    let wanted: BTreeMap<u64, f32> = wanted
        .into_iter()
        .filter(|(_, vector)| check(vector).is_ok())
        .map(|(key, vector)| (key, cosine(&vector, query)))
        .collect();
    let hits = search(index, query, LIMIT_MAX);
    let found: BTreeMap<u64, f32> = hits.iter().copied().collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{what}");
    assert_eq!(hits.len(), wanted.len(), "{what}: a key twice");
    assert_eq!((index.len(), index.health().rebuilding), (wanted.len(), false), "{what}");
    assert!(hits.is_sorted_by(|one, other| one.1 >= other.1), "{what}");
    for (place, (key, score)) in hits.iter().enumerate() {
        // The first are exact, the others by their codes of 8 bits.
        let tolerance = if place < 30 { 1e-4 } else { 5e-3 };
        assert!((score - wanted[key]).abs() < tolerance, "{what}: {key}, number {place}: {score}");
    }
    // The best of few is among the first of all, whatever way was taken to it.
    if let Some((best, score)) = search(index, query, 1).first() {
        assert!(hits.iter().take(5).any(|(key, _)| key == best), "{what}: {best} {score} {:?}", &hits[..5]);
    }
}

fn cosine(one: &[f32], other: &[f32]) -> f32 {
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

/// Of the ten nearest, how many are found.
fn recall(index: &VectorIndex, rows: &Rows, queries: &Rows, count: usize) -> f64 {
    let truth: Vec<Vec<usize>> = std::thread::scope(|scope| {
        let half = |odd: usize| {
            let numbers = (0..count).filter(move |number| number % 2 == odd);
            move || numbers.map(|number| rows.nearest(queries.row(number), 10)).collect::<Vec<_>>()
        };
        let (even, odd) = (scope.spawn(half(0)), scope.spawn(half(1)));
        let (even, odd) = (even.join().unwrap(), odd.join().unwrap());
        (0..count).map(|number| if number % 2 == 0 { &even } else { &odd }[number / 2].clone()).collect()
    });
    let mut right = 0;
    for (number, truth) in truth.iter().enumerate() {
        let hits = search(index, queries.row(number), 10);
        right += truth.iter().filter(|row| hits.iter().any(|(key, _)| *key == **row as u64 + 1)).count();
    }
    right as f64 / (10 * count) as f64
}

fn built(folder: &Path, rows: &Arc<Rows>, options: Options) -> VectorIndex {
    let index = VectorIndex::open(folder, rows.clone(), options).unwrap();
    index.catch_up(&Cancel::new()).unwrap();
    index
}

#[test]
fn recall_up_to_ten_thousand() {
    let (base, queries) = Rows::fixture();
    let lists = Tuning { partition_rows: 5_000, lists: 64, probes: 16, ..Tuning::default() };
    let auto = || options(IndexKind::Auto, Tuning::default());
    for (count, options, least) in
        [(1_000, auto(), 0.995), (10_000, auto(), 0.995), (10_000, options(IndexKind::Auto, lists), 0.985)]
    {
        let (folder, rows) = (tempfile::tempdir().unwrap(), Arc::new(base.grown(count, 1)));
        let index = built(folder.path(), &rows, options);
        let before = recall(&index, &rows, queries, 100);
        index.tidy(&Cancel::new()).unwrap();
        let after = recall(&index, &rows, queries, 100);
        assert!(before >= least && after >= least, "{count}: {before}, tidied {after}");
        assert!(index.health().segments <= 4, "{:?}", index.health());
    }
}

#[test]
fn recall_at_a_hundred_thousand() {
    let (base, queries) = Rows::fixture();
    let (folder, rows) = (tempfile::tempdir().unwrap(), Arc::new(base.grown(100_000, 2)));
    let index = built(folder.path(), &rows, options(IndexKind::Sketch, Tuning::default()));
    let found = recall(&index, &rows, queries, 40);
    assert!(found >= 0.995, "{found}");
    // Every row was written once for each size of segment, not once for each flush.
    assert!(index.rewrites() < 60 && index.health().segments < 20, "{:?}", index.health());
}

#[cfg(feature = "hnsw")]
#[test]
fn recall_of_the_graph() {
    let (base, queries) = Rows::fixture();
    for count in [500, 1_000] {
        let (folder, rows) = (tempfile::tempdir().unwrap(), Arc::new(base.grown(count, 3)));
        let index = built(folder.path(), &rows, options(IndexKind::Hnsw, Tuning::default()));
        index.flush().unwrap();
        assert!(index.tidy(&Cancel::new()).unwrap());
        assert_eq!(index.health().graph, Some(count));
        let found = recall(&index, &rows, queries, 100);
        assert!(found >= 0.995, "{count}: {found}");
        drop(index);
        let index =
            VectorIndex::open(folder.path(), rows.clone(), options(IndexKind::Hnsw, Tuning::default()));
        let index = index.unwrap();
        assert_eq!(index.health().graph, Some(count), "it is loaded, not built again");
        assert!(recall(&index, &rows, queries, 50) >= 0.995);
    }
}

/// Random work on a source and its index.
struct Work {
    random: Random,
    base: &'static Rows,
    keys: usize,
}

impl Work {
    fn new(seed: u64, keys: usize) -> Self {
        Self { random: Random(seed), base: &Rows::fixture().0, keys }
    }

    fn vector(&mut self) -> Vec<f32> {
        let at = self.random.below(self.base.len());
        let scale = 0.5 + self.random.share();
        self.base.row(at).iter().map(|value| value * scale).collect()
    }

    fn change(&mut self, source: &Table) -> Change {
        let key = self.random.below(self.keys) as u64;
        let vector = match self.random.below(10) {
            0..3 => None,
            3 => Some(vec![f32::NAN; DIMENSIONS]),
            _ => Some(self.vector()),
        };
        source.put(key, vector)
    }

    /// One act; those that touch the disk may fail.
    fn act(&mut self, index: &VectorIndex, source: &Table) -> Result<(), VectorError> {
        match self.random.below(24) {
            0 => index.flush(),
            1 => index.tidy(&Cancel::new()).map(|_| ()),
            // A save that the index was not told of.
            2 => {
                self.change(source);
                Ok(())
            }
            3 => index.catch_up(&Cancel::new()),
            count => {
                let changes: Vec<Change> = (0..count).map(|_| self.change(source)).collect();
                let after = changes[0].sequence - 1;
                if !index.apply(after, &changes)? {
                    index.catch_up(&Cancel::new())?;
                }
                Ok(())
            }
        }
    }
}

#[test]
fn any_sequence_of_changes_and_openings_leaves_what_the_source_has() {
    for kind in kinds() {
        // The graph is slow to build where nothing is optimised.
        for seed in if kind == IndexKind::Hnsw { 1..3 } else { 0..6 } {
            let (folder, source) = (tempfile::tempdir().unwrap(), Arc::new(Table::default()));
            let mut work = Work::new(seed, 100 + 150 * seed as usize);
            let mut index = open(folder.path(), &source, kind);
            for step in 0..120 {
                work.act(&index, &source).unwrap();
                if work.random.below(15) == 0 {
                    drop(index);
                    index = open(folder.path(), &source, kind);
                }
                if step % 20 == 19 {
                    index.catch_up(&Cancel::new()).unwrap();
                    let query = work.vector();
                    assert_equal(&index, &source, &query, &format!("{kind:?} seed {seed} step {step}"));
                }
            }
        }
    }
}

/// A disk that fails for ever from the n-th act on, as when the power goes.
fn dying_disk(acts: usize) -> (Options, Arc<AtomicUsize>) {
    let done = Arc::new(AtomicUsize::new(0));
    let counted = done.clone();
    let probe = move |_act: &'static str| match counted.fetch_add(1, Ordering::SeqCst) >= acts {
        true => Err(io::Error::other("the power is gone")),
        false => Ok(()),
    };
    (Options { probe: Some(Arc::new(probe)), ..options(IndexKind::Auto, SMALL) }, done)
}

#[test]
fn a_crash_between_any_two_acts_on_the_disk_loses_nothing() {
    let run = |folder: &Path, source: &Arc<Table>, acts: usize| {
        let (options, done) = dying_disk(acts);
        let index = VectorIndex::open(folder, source.clone(), options).unwrap();
        let mut work = Work::new(11, 400);
        for _ in 0..60 {
            // Later acts find the same dead disk; the source goes on without the index.
            work.act(&index, source).ok();
        }
        done.load(Ordering::SeqCst)
    };
    let all = run(tempfile::tempdir().unwrap().path(), &Arc::new(Table::default()), usize::MAX);
    assert!(all > 70, "{all} acts");
    for acts in 0..all {
        let (folder, source) = (tempfile::tempdir().unwrap(), Arc::new(Table::default()));
        run(folder.path(), &source, acts);
        let index = open(folder.path(), &source, IndexKind::Auto);
        index.catch_up(&Cancel::new()).unwrap();
        let query = Work::new(acts as u64, 1).vector();
        assert_equal(&index, &source, &query, &format!("crash before act {acts} of {all}"));
        let strays =
            files(folder.path()).into_iter().filter(|file| shown(file).contains("unfinished")).count();
        assert_eq!(strays, 0, "what was not finished is swept away");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let inner: Vec<PathBuf> =
        found.iter().filter(|path| path.is_dir()).flat_map(|path| files(path)).collect();
    // The lock is no part of the index, and never has anything in it.
    found.retain(|path| path.is_file() && !path.ends_with("lock"));
    found.extend(inner);
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// An index with several segments, dead rows and lists, all of it on disk.
fn settled(folder: &Path, kind: IndexKind) -> Arc<Table> {
    let source = Arc::new(Table::default());
    let index = open(folder, &source, kind);
    let mut work = Work::new(21, 700);
    let rounds = if kind == IndexKind::Hnsw { 5 } else { 14 };
    for round in 0..rounds {
        let after = source.newest();
        let changes: Vec<Change> = (0..60).map(|_| work.change(&source)).collect();
        assert!(index.apply(after, &changes).unwrap());
        index.flush().unwrap();
        if round == rounds - 5 {
            index.tidy(&Cancel::new()).unwrap();
        }
    }
    source
}

type Damage = fn(&mut Random, Vec<u8>) -> Option<Vec<u8>>;

#[test]
fn damaged_files_are_noticed_and_searches_go_on() {
    let damages: [(&str, Damage); 6] = [
        ("cut", |random, bytes| Some(bytes[..random.below(bytes.len())].to_vec())),
        ("one bit", |random, mut bytes| {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            Some(bytes)
        }),
        ("deleted", |_, _| None),
        ("empty", |_, _| Some(vec![])),
        ("noise", |random, bytes| Some(bytes.iter().map(|_| random.next() as u8).collect())),
        ("longer", |_, mut bytes| {
            bytes.extend_from_slice(&[7; 100]);
            Some(bytes)
        }),
    ];
    let mut random = Random(5);
    for kind in kinds() {
        let whole = tempfile::tempdir().unwrap();
        let source = settled(whole.path(), kind);
        let mut names = files(whole.path());
        assert!(names.len() >= 3, "{names:?}");
        // The other files are the same for both kinds.
        names.retain(|file| (kind == IndexKind::Hnsw) == file.parent().unwrap().ends_with("graph"));
        let tries = if kind == IndexKind::Hnsw { 2 } else { 6 };
        for file in &names {
            for (name, damage) in damages {
                // The bytes that decide most, and any others.
                for _ in 0..if name == "cut" || name == "one bit" { tries } else { 1 } {
                    let what = format!("{kind:?} {} {name}", shown(file));
                    let folder = tempfile::tempdir().unwrap();
                    copy(whole.path(), folder.path());
                    let path = folder.path().join(file.strip_prefix(whole.path()).unwrap());
                    match damage(&mut random, std::fs::read(&path).unwrap()) {
                        Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                        None => std::fs::remove_file(&path).unwrap(),
                    }
                    check_healing(folder.path(), &source, kind, shown(file).starts_with("segment"), &what);
                }
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(file, target).unwrap();
    }
}

fn check_healing(folder: &Path, source: &Arc<Table>, kind: IndexKind, some_left: bool, what: &str) {
    let index = open(folder, source, kind);
    let query = Work::new(3, 1).vector();
    // What is left answers, with nothing that the source does not have.
    let meanwhile = search(&index, &query, LIMIT_MAX);
    let wanted = source.all();
    assert!(meanwhile.iter().all(|(key, _)| wanted.contains_key(key)), "{what}");
    if some_left {
        assert!(
            index.health().rebuilding && index.health().to_string().starts_with("rebuilding: 0 of "),
            "{what}"
        );
        assert!(!meanwhile.is_empty() && meanwhile.len() < wanted.len(), "{what}: {}", meanwhile.len());
    }
    index.catch_up(&Cancel::new()).unwrap();
    index.tidy(&Cancel::new()).unwrap();
    assert_equal(&index, source, &query, what);
    index.flush().unwrap();
    drop(index);
    let index = open(folder, source, kind);
    assert!(!index.health().rebuilding && index.applied() == source.newest(), "{what}: healed for good");
    assert_equal(&index, source, &query, what);
}

#[test]
fn an_index_of_another_model_or_another_database_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = settled(folder.path(), IndexKind::Auto);
    let backup = Arc::new(source.copy());
    let mut work = Work::new(4, 700);
    let query = work.vector();
    let index = open(folder.path(), &source, IndexKind::Auto);
    (0..50).for_each(|_| drop(work.change(&source)));
    index.catch_up(&Cancel::new()).unwrap();
    index.flush().unwrap();
    drop(index);
    // Restored, the database knows fewer changes than the index; later as many, but others.
    for more in [0, 50, 90] {
        let (copied, restored) = (tempfile::tempdir().unwrap(), Arc::new(backup.copy()));
        copy(folder.path(), copied.path());
        let mut work = Work::new(99, 700);
        (0..more).for_each(|_| drop(work.change(&restored)));
        let index = open(copied.path(), &restored, IndexKind::Auto);
        index.catch_up(&Cancel::new()).unwrap();
        if more == 0 {
            assert_equal(&index, &restored, &query, "restored");
        } else {
            // That other changes have the same numbers is seen by the last vector or by the count.
            assert!(index.len() as u64 <= restored.summary().unwrap().vectors);
        }
    }
    let other = Options { model: "another".to_owned(), ..options(IndexKind::Auto, SMALL) };
    let index = VectorIndex::open(folder.path(), source.clone(), other).unwrap();
    assert!(index.health().rebuilding && search(&index, &query, 10).is_empty());
    index.catch_up(&Cancel::new()).unwrap();
    assert_equal(&index, &source, &query, "another model");
    assert!(matches!(
        VectorIndex::open(folder.path(), source, Options::default()),
        Err(VectorError::Invalid(_))
    ));
}

#[test]
fn a_rebuild_can_be_stopped_says_how_far_it_is_and_goes_on_after_the_next_start() {
    let (base, queries) = Rows::fixture();
    let (folder, rows) = (tempfile::tempdir().unwrap(), Arc::new(base.grown(2_500, 4)));
    drop(built(folder.path(), &rows, options(IndexKind::Auto, SMALL)));
    let segment = files(folder.path()).into_iter().find(|file| shown(file).starts_with("segment")).unwrap();
    std::fs::write(segment, b"torn").unwrap();

    let index = VectorIndex::open(folder.path(), rows.clone(), options(IndexKind::Auto, SMALL)).unwrap();
    let changes = rows.changes(0, 1_000).unwrap();
    assert!(index.apply(0, &changes).unwrap());
    assert_eq!(index.health().to_string(), "rebuilding: 1,000 of 2,500");
    let stopped = Cancel::new();
    stopped.cancel();
    assert!(matches!(index.catch_up(&stopped), Err(VectorError::Cancelled)));
    assert!(matches!(index.search(queries.row(0), 5, None, &stopped), Err(VectorError::Cancelled)));
    // What was there before and what is there again answer together, each key once.
    let hits = search(&index, queries.row(0), LIMIT_MAX);
    let mut keys: Vec<u64> = hits.iter().map(|(key, _)| *key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert!(keys.len() == hits.len() && keys.len() > 1_000, "{} {}", keys.len(), hits.len());
    index.flush().unwrap();
    drop(index);

    let index = VectorIndex::open(folder.path(), rows.clone(), options(IndexKind::Auto, SMALL)).unwrap();
    assert_eq!(
        (index.applied(), index.health().to_string().as_str()),
        (1_000, "catching up: 1,000 of 2,500")
    );
    index.catch_up(&Cancel::new()).unwrap();
    assert_eq!((index.len(), index.health().to_string().as_str()), (2_500, "ready: 2,500 vectors"));
}

#[test]
fn searches_see_every_vector_while_others_change_flush_and_merge() {
    for kind in kinds() {
        let (folder, source) = (tempfile::tempdir().unwrap(), Arc::new(Table::default()));
        let index = open(folder.path(), &source, kind);
        let mut work = Work::new(6, 1);
        // These are only ever replaced by themselves; a search may never miss one.
        let steady: Vec<(u64, Vec<f32>)> = (0..60).map(|key| (10_000 + key, work.vector())).collect();
        steady.iter().for_each(|(key, vector)| drop(source.put(*key, Some(vector.clone()))));
        index.catch_up(&Cancel::new()).unwrap();
        let (done, searches) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (index, steady, done, searches) = (&index, &steady, &done, &searches);
                scope.spawn(move || {
                    let mut random = Random(reader);
                    while !done.load(Ordering::SeqCst) {
                        let (key, vector) = &steady[random.below(steady.len())];
                        let filter = |key: u64| key >= 10_000;
                        let hits = index.search(vector, LIMIT_MAX, Some(&filter), &Cancel::new()).unwrap();
                        assert_eq!(hits.len(), steady.len());
                        let score = hits.iter().find(|hit| hit.0 == *key).unwrap().1;
                        assert!(score > 0.999, "{score}");
                        searches.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            let mut work = Work::new(7, 500);
            let mut rounds = 0;
            while rounds < 60 || searches.load(Ordering::SeqCst) < 40 {
                for _ in 0..12 {
                    let (key, vector) = &steady[work.random.below(steady.len())];
                    source.put(*key, Some(vector.clone()));
                    work.change(&source);
                }
                index.catch_up(&Cancel::new()).unwrap();
                match rounds % 7 {
                    3 => drop(index.tidy(&Cancel::new()).unwrap()),
                    5 => index.flush().unwrap(),
                    _ => {}
                }
                rounds += 1;
            }
            done.store(true, Ordering::SeqCst);
        });
        assert_equal(&index, &source, &steady[0].1, "afterwards");
    }
}

#[test]
fn filters_count_before_anything_is_ranked() {
    let (base, queries) = Rows::fixture();
    let rows = Arc::new(base.grown(2_600, 8));
    let lists =
        Tuning { tail_rows: 300, sketch_rows: 200, partition_rows: 900, lists: 16, probes: 8, candidates: 4 };
    let in_order = |number: usize| {
        let query = queries.row(number);
        let mut all: Vec<(f32, u64)> =
            (0..rows.len()).map(|row| (dot(rows.row(row), query), row as u64 + 1)).collect();
        all.sort_by(|one, other| other.0.total_cmp(&one.0));
        all.into_iter().map(|(_, key)| key).collect::<Vec<u64>>()
    };
    let in_order: Vec<Vec<u64>> = (0..30).map(in_order).collect();
    // Nothing to do with the graph: a search with a filter passes it by.
    for kind in [IndexKind::Auto, IndexKind::Sketch] {
        let folder = tempfile::tempdir().unwrap();
        let index = built(folder.path(), &rows, options(kind, lists));
        index.tidy(&Cancel::new()).unwrap();
        // From nearly all to one in a thousand, and those that lie farthest from every query.
        for share in [1, 2, 7, 50, 400, 1_300] {
            let allowed = |key: u64| key.is_multiple_of(share);
            let (mut right, mut all) = (0, 0);
            for (number, in_order) in in_order.iter().enumerate() {
                let hits = index.search(queries.row(number), 10, Some(&allowed), &Cancel::new()).unwrap();
                let truth: Vec<u64> = in_order.iter().copied().filter(|key| allowed(*key)).take(10).collect();
                assert_eq!(hits.len(), truth.len(), "as many as there are");
                assert!(hits.iter().all(|(key, _)| allowed(*key)));
                right += truth.iter().filter(|key| hits.iter().any(|hit| hit.0 == **key)).count();
                all += truth.len();
            }
            assert!(right as f64 >= 0.97 * all as f64, "{kind:?} one of {share}: {right} of {all}");
        }
        assert!(index.search(queries.row(0), 10, Some(&|_| false), &Cancel::new()).unwrap().is_empty());
    }
}

#[test]
fn what_is_no_vector_is_refused_and_what_is_empty_answers() {
    let (folder, source) = (tempfile::tempdir().unwrap(), Arc::new(Table::default()));
    let index = open(folder.path(), &source, IndexKind::Auto);
    let good = Work::new(1, 1).vector();
    assert!(search(&index, &good, 10).is_empty());
    assert_eq!(index.health().to_string(), "ready: 0 vectors");
    let with = |value: f32| {
        let mut vector = good.clone();
        vector[200] = value;
        vector
    };
    let bad = [
        vec![],
        vec![1.0; DIMENSIONS - 1],
        vec![1.0; DIMENSIONS + 1],
        vec![0.0; DIMENSIONS],
        vec![f32::MIN_POSITIVE / 8.0; DIMENSIONS],
        with(f32::NAN),
        with(f32::INFINITY),
        with(f32::NEG_INFINITY),
        with(f32::MAX),
    ];
    for (key, vector) in (0..).zip(&bad) {
        assert!(check(vector).is_err(), "{key}");
        let result = index.search(vector, 5, None, &Cancel::new());
        assert_eq!(result.unwrap_err().kind(), Kind::Invalid, "{key}");
        // It takes the place of a good one: that is gone then.
        source.put(key, Some(good.clone()));
        source.put(key, Some(vector.clone()));
    }
    source.put(100, Some(good.clone()));
    index.catch_up(&Cancel::new()).unwrap();
    assert_eq!(index.health().refused, bad.len() as u64);
    assert_eq!(index.health().to_string(), "ready: 1 vectors, 9 are no vectors");
    assert_equal(&index, &source, &good, "one good");
    index.flush().unwrap();
    drop(index);
    let index = open(folder.path(), &source, IndexKind::Auto);
    assert!(!index.health().rebuilding && index.health().refused == bad.len() as u64);
    assert!(search(&index, &good, 0).is_empty());
    // Everything goes; the files go with it.
    let all: Vec<Change> = (0..=100).map(|key| source.put(key, None)).collect();
    assert!(index.apply(all[0].sequence - 1, &all).unwrap());
    index.flush().unwrap();
    index.tidy(&Cancel::new()).unwrap();
    assert_equal(&index, &source, &good, "all deleted");
    assert_eq!(files(folder.path()).len(), 1, "only the manifest is left");
}

#[test]
fn changes_come_in_order_or_not_at_all() {
    let (folder, source) = (tempfile::tempdir().unwrap(), Arc::new(Table::default()));
    let index = open(folder.path(), &source, IndexKind::Auto);
    let mut work = Work::new(2, 50);
    let changes: Vec<Change> = (0..6).map(|key| source.put(key, Some(work.vector()))).collect();
    assert!(index.apply(0, &changes[..2]).unwrap());
    assert!(!index.apply(3, &changes[3..]).unwrap(), "there is a gap");
    assert!(!index.apply(0, &changes).unwrap(), "the first two are in");
    let mut mixed = changes[2..].to_vec();
    mixed.swap(0, 1);
    assert_eq!(index.apply(2, &mixed).unwrap_err().kind(), Kind::Invalid);
    assert_eq!((index.len(), index.applied()), (2, 2));
    index.catch_up(&Cancel::new()).unwrap();
    assert_equal(&index, &source, &work.vector(), "caught up");
}

#[test]
fn a_save_writes_nothing_and_nothing_is_written_without_a_change() {
    let (folder, source) = (tempfile::tempdir().unwrap(), Arc::new(Table::default()));
    let acts = Arc::new(AtomicUsize::new(0));
    let counted = acts.clone();
    let probe = move |_act: &'static str| {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    let options = Options { probe: Some(Arc::new(probe)), ..options(IndexKind::Auto, SMALL) };
    let index = VectorIndex::open(folder.path(), source.clone(), options).unwrap();
    let mut work = Work::new(2, 1);
    let so_far = || acts.load(Ordering::SeqCst);
    for key in 0..SMALL.tail_rows as u64 - 1 {
        let change = source.put(key, Some(work.vector()));
        assert!(index.apply(change.sequence - 1, &[change]).unwrap());
    }
    assert_eq!(so_far(), 0);
    index.flush().unwrap();
    let written = so_far();
    assert!(written > 0);
    index.flush().unwrap();
    index.tidy(&Cancel::new()).unwrap();
    index.catch_up(&Cancel::new()).unwrap();
    assert_eq!(so_far(), written);
}

#[test]
fn a_full_disk_is_borne_until_memory_is_full_and_then_recovered_from() {
    let (folder, source) = (tempfile::tempdir().unwrap(), Arc::new(Table::default()));
    let full = Arc::new(AtomicBool::new(true));
    let probed = full.clone();
    let probe = move |act: &'static str| match act == "write" && probed.load(Ordering::SeqCst) {
        true => Err(io::Error::from(io::ErrorKind::StorageFull)),
        false => Ok(()),
    };
    let options = Options { probe: Some(Arc::new(probe)), ..options(IndexKind::Auto, SMALL) };
    let index = VectorIndex::open(folder.path(), source.clone(), options).unwrap();
    let mut work = Work::new(2, 1);
    let mut refused = None;
    for key in 0..200 {
        let change = source.put(key, Some(work.vector()));
        if let Err(error) = index.apply(change.sequence - 1, &[change]) {
            refused = Some(error);
            break;
        }
    }
    let bound = 4 * SMALL.tail_rows;
    assert_eq!(refused.unwrap().kind(), Kind::Full);
    assert_eq!((index.len(), index.health().unsaved), (bound, bound), "all that came in is found");
    assert!(index.flush().is_err());
    full.store(false, Ordering::SeqCst);
    index.catch_up(&Cancel::new()).unwrap();
    index.flush().unwrap();
    assert_eq!(index.health().unsaved, 0);
    assert_equal(&index, &source, &work.vector(), "recovered");
    drop(index);
    assert_equal(&open(folder.path(), &source, IndexKind::Auto), &source, &work.vector(), "reopened");
}

#[test]
fn a_source_that_fails_is_told_of_and_changes_nothing() {
    struct Failing(AtomicBool, Rows);
    impl Failing {
        fn ask(&self) -> Result<(), VectorError> {
            let failed = VectorError::Source { reason: "locked".to_owned(), kind: Kind::Transient };
            if self.0.load(Ordering::SeqCst) { Err(failed) } else { Ok(()) }
        }
    }
    impl VectorSource for Failing {
        fn summary(&self) -> Result<spacebot::memory::vector_index::Summary, VectorError> {
            self.ask().and_then(|()| self.1.summary())
        }
        fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, VectorError> {
            self.ask().and_then(|()| self.1.changes(after, limit))
        }
        fn change_of(&self, key: u64) -> Result<Option<u64>, VectorError> {
            self.ask().and_then(|()| self.1.change_of(key))
        }
        fn vectors(&self, keys: &[u64], each: &mut dyn FnMut(u64, &[f32])) -> Result<(), VectorError> {
            self.ask().and_then(|()| self.1.vectors(keys, each))
        }
    }
    let (base, queries) = Rows::fixture();
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Failing(AtomicBool::new(false), base.grown(1_500, 5)));
    let index = VectorIndex::open(folder.path(), source.clone(), options(IndexKind::Auto, SMALL)).unwrap();
    source.0.store(true, Ordering::SeqCst);
    assert_eq!(index.catch_up(&Cancel::new()).unwrap_err().kind(), Kind::Transient);
    source.0.store(false, Ordering::SeqCst);
    index.catch_up(&Cancel::new()).unwrap();
    source.0.store(true, Ordering::SeqCst);
    assert!(index.search(queries.row(0), 5, None, &Cancel::new()).is_err());
    assert!(VectorIndex::open(folder.path(), source.clone(), options(IndexKind::Auto, SMALL)).is_err());
    source.0.store(false, Ordering::SeqCst);
    assert_eq!(search(&index, queries.row(0), 5).len(), 5);
}
