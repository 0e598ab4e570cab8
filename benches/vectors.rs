//! `make bench-vectors`: the figures of the vector index, each beside those of the exact scan of the same
//! vectors in the same run. CPU time of the searching thread; nothing here passes or fails.
//!
//! VECTORS=folder takes other vectors than those of the tests, SIZES=1000,10000 other sizes; the graph is
//! built up to GRAPH rows (default 100,000: it takes minutes).

#![allow(clippy::unwrap_used, clippy::expect_used)]
// The clock of a thread, and the exact scan with the instructions of this processor.
#![allow(unsafe_code)]

#[path = "../tests/support/vectors.rs"]
mod vectors;

use std::path::PathBuf;
use std::sync::Arc;

use spacebot::memory::vector_index::{DIMENSIONS, IndexKind, Options, VectorIndex};
use spacebot::thread::Cancel;
use vectors::{Rows, dot};

const LIMIT: usize = 10;
const MODEL: &str = "bench";

fn main() {
    let variable = |name: &str| std::env::var(name).ok();
    let given = variable("VECTORS").map(|folder| Rows::of_folder(&PathBuf::from(folder)));
    let (base, queries) = given.as_ref().unwrap_or_else(|| Rows::fixture());
    let sizes = variable("SIZES").unwrap_or_else(|| "1000,10000,100000,1000000".to_owned());
    let graph_rows: usize = variable("GRAPH").map_or(100_000, |rows| rows.parse().unwrap());
    println!("{} vectors, {} queries, recall@{LIMIT}", base.len(), queries.len());
    println!("{HEAD}\n|---|---|---|---|---|---|---|---|---|---|---|");
    for size in sizes.split(',').map(|size| size.parse::<usize>().unwrap()) {
        let rows = Arc::new(base.grown(size, 1));
        let (truth, exact) = exactly(&rows, queries);
        println!("| {size} | exact f32 | {:.3} | {:.3} | 1 | 1 | – | – | – | – | – |", exact[0], exact[1]);
        figures(&rows, queries, &truth, exact[0], IndexKind::Sketch);
        if size <= graph_rows && cfg!(feature = "hnsw") {
            figures(&rows, queries, &truth, exact[0], IndexKind::Hnsw);
        }
    }
}

const HEAD: &str = "| vectors | kind | query p50, CPU ms | p99 | exact / this | recall | build, CPU s | insert p50, µs | RSS before the first / after all queries, MiB | on disk, MiB | open, CPU ms |";

fn figures(rows: &Arc<Rows>, queries: &Rows, truth: &[Vec<usize>], exact: f64, kind: IndexKind) {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let options = Options { model: MODEL.to_owned(), kind, ..Options::default() };
        VectorIndex::open(folder.path(), rows.clone(), options).unwrap()
    };
    let cancel = Cancel::new();
    let started = cpu();
    let index = open();
    index.catch_up(&cancel).unwrap();
    index.flush().unwrap();
    index.tidy(&cancel).unwrap();
    let build = (cpu() - started) / 1e3;
    drop(index);
    free_memory();
    let (memory, started) = (resident(), cpu());
    let index = open();
    let opened = cpu() - started;
    let first = resident() - memory;
    let ask = |number: usize| index.search(queries.row(number), LIMIT, None, &cancel).unwrap();
    (0..queries.len()).for_each(|number| drop(ask(number)));
    let (mut times, mut found) = (Vec::new(), 0);
    for (number, truth) in truth.iter().enumerate() {
        let started = cpu();
        let hits = ask(number);
        times.push(cpu() - started);
        found += truth.iter().filter(|row| hits.iter().any(|(key, _)| *key == **row as u64 + 1)).count();
    }
    let [half, most] = percentiles(times);
    let recall = found as f64 / (truth.len() * LIMIT) as f64;
    let memory = resident() - memory;
    // These the source does not have: nothing may be asked after them.
    let insert = insertion(&index, rows);
    let kind = if kind == IndexKind::Hnsw { "hnsw" } else { "sketch" };
    println!(
        "| {} | {kind} | {half:.3} | {most:.3} | {:.0} | {recall:.4} | {build:.1} | {insert:.0} | {first:.1} / {:.1} | {:.1} | {opened:.0} |",
        rows.len(),
        exact / half,
        memory,
        disk(folder.path())
    );
}

/// Microseconds of one more vector.
fn insertion(index: &VectorIndex, rows: &Rows) -> f64 {
    use spacebot::memory::vector_index::Change;
    let newest = rows.len() as u64;
    let mut times = Vec::new();
    for number in 0..200 {
        let sequence = newest + number + 1;
        let vector = Some(rows.row(number as usize * 3).to_vec());
        let change = Change { sequence, key: sequence, vector };
        let started = cpu();
        assert!(index.apply(sequence - 1, &[change]).unwrap());
        times.push((cpu() - started) * 1e3);
    }
    percentiles(times)[0]
}

/// The truth, and the time that it takes.
fn exactly(rows: &Rows, queries: &Rows) -> (Vec<Vec<usize>>, [f64; 2]) {
    let scan = scanner();
    let mut times = Vec::new();
    let mut truth = Vec::new();
    // A million rows take long enough; half of the queries tell as much.
    let count = if rows.len() > 200_000 { queries.len() / 2 } else { queries.len() };
    let mut scores = vec![0.0; rows.len()];
    for number in 0..count {
        let started = cpu();
        scan(&rows.0, queries.row(number), &mut scores);
        let mut best: Vec<(f32, usize)> = Vec::with_capacity(LIMIT + 1);
        for (row, score) in scores.iter().enumerate() {
            if best.len() < LIMIT || *score > best[LIMIT - 1].0 {
                let place = best.partition_point(|one| one.0 >= *score);
                best.insert(place, (*score, row));
                best.truncate(LIMIT);
            }
        }
        times.push(cpu() - started);
        truth.push(best.into_iter().map(|(_, row)| row).collect());
    }
    (truth, percentiles(times))
}

type Scan = fn(&[f32], &[f32], &mut [f32]);

fn scanner() -> Scan {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has these instructions.
        return |rows, query, scores| unsafe { scan_avx2(rows, query, scores) };
    }
    scan
}

#[inline(always)]
fn scan(rows: &[f32], query: &[f32], scores: &mut [f32]) {
    for (score, row) in scores.iter_mut().zip(rows.chunks_exact(DIMENSIONS)) {
        *score = dot(row, query);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn scan_avx2(rows: &[f32], query: &[f32], scores: &mut [f32]) {
    scan(rows, query, scores);
}

fn percentiles(mut times: Vec<f64>) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    [50, 99].map(|percent| times[(times.len() - 1) * percent / 100])
}

/// Milliseconds that this thread has worked.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a place of the right type.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// What the allocator holds for later would be counted otherwise.
fn free_memory() {
    // SAFETY: it takes no pointer.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// MiB, files that are mapped included.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn disk(folder: &std::path::Path) -> f64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let size = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        metadata if metadata.is_dir() => disk(&entry.path()),
        metadata => metadata.len() as f64 / 1024.0 / 1024.0,
    };
    entries.map(size).sum()
}
