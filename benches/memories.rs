//! `make bench-lancedb`: what a store of memories costs at 10,000 and 100,000, for the table beside LanceDB
//! (`benches/lancedb_peer.py` measures that on the same texts and vectors). Nothing here passes or fails.
//!
//! `memories make FOLDER COUNT` makes texts, vectors and our store; `memories measure FOLDER` opens the store
//! in a process of its own and prints one line.

#![allow(clippy::unwrap_used, clippy::expect_used)]
// The clock of the process.
#![allow(unsafe_code)]

#[path = "../tests/support/vectors.rs"]
mod vectors;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spacebot::clock::SystemClock;
use spacebot::db::Db;
use spacebot::memory::embed::{Embedder, MODEL, Places, Settings};
use spacebot::memory::transfer::Imported;
use spacebot::memory::{MemoryStore, MemoryType, NewMemory, SearchOptions, SearchQuery, encode_vector};
use vectors::{Random, Rows};

/// As many as the embedder remembers, so that no figure has an embedding in it.
const QUERIES: usize = 50;
const SAVES: usize = 50;
const WORDS: usize = 20_000;

fn main() {
    // As the daemon does.
    spacebot::allocator::tune();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", folder, count] => make(Path::new(folder), count.parse().unwrap()),
        ["measure", folder] => measure(Path::new(folder)),
        // `cargo bench` runs everything; this one is for the script.
        _ => println!("not run: see `make bench-lancedb`"),
    }
}

/// A sentence of common and rare words, as in a language.
fn sentence(random: &mut Random, words: usize) -> String {
    let word = |random: &mut Random| format!("w{}", (WORDS as f32).powf(random.share()) as usize);
    (0..words).map(|_| word(random)).collect::<Vec<_>>().join(" ")
}

fn embedder() -> Embedder {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor/models").join(MODEL);
    let places = Places { model: Some(model), onnxruntime: None, data_folder: PathBuf::from("/nowhere") };
    Embedder::new(Settings { places, idle: Duration::from_secs(1) })
}

fn open(folder: &Path, embedder: Option<Embedder>) -> (MemoryStore, Db) {
    let db = Db::open_inline(&folder.join("spacebot.db"), None).unwrap();
    let options = SearchOptions { embedder, ..SearchOptions::default() };
    let store =
        MemoryStore::open_with(db.clone(), folder.join("index"), SystemClock::shared(), options).unwrap();
    (store, db)
}

fn make(folder: &Path, count: usize) {
    let ours = folder.join("ours");
    fs::create_dir_all(&ours).unwrap();
    let (base, questions) = Rows::fixture();
    let rows = base.grown(count, 1);
    let mut random = Random(count as u64);
    let texts: Vec<String> = (0..count)
        .map(|_| {
            let words = 12 + random.below(9);
            sentence(&mut random, words)
        })
        .collect();
    let queries: Vec<String> = (0..QUERIES).map(|_| sentence(&mut random, 6)).collect();
    fs::write(folder.join("texts"), texts.join("\n")).unwrap();
    fs::write(folder.join("queries"), queries.join("\n")).unwrap();
    let bytes = |rows: &[f32]| rows.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    fs::write(folder.join("vectors.f32"), bytes(&rows.0)).unwrap();
    fs::write(folder.join("queries.f32"), bytes(&questions.0)).unwrap();
    let (store, db) = open(&ours, None);
    for (first, block) in (0..).step_by(1_000).zip(texts.chunks(1_000)) {
        let imported = block
            .iter()
            .zip(first..)
            .map(|(text, key)| Imported { key, memory: NewMemory::new(MemoryType::Fact, text.clone()) });
        store.import(imported.collect()).unwrap();
    }
    store.flush().unwrap();
    let model = embedder().model_id().unwrap().to_owned();
    db.write(move |connection| {
        connection.execute("INSERT INTO embedding_models (name) VALUES (?1)", [model])?;
        let mut statement =
            connection.prepare("SELECT id FROM memories WHERE forgotten = 0 ORDER BY change_seq")?;
        let ids: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let sql = "INSERT INTO memory_vectors (memory_id, model, vector) VALUES (?1, 1, ?2)";
        let mut insert = connection.prepare(sql)?;
        for (number, id) in ids.iter().enumerate() {
            insert.execute((id, encode_vector(rows.row(number))))?;
        }
        Ok(())
    })
    .unwrap();
    drop(store);
    // On a thread, as the daemon has it: at its end the log is moved into the file.
    let (db, join) = Db::open(&ours.join("spacebot.db"), "bench").unwrap();
    let options = SearchOptions { embedder: Some(embedder()), ..SearchOptions::default() };
    let store =
        MemoryStore::open_with(db.clone(), ours.join("index"), SystemClock::shared(), options).unwrap();
    store.await_indexes().unwrap();
    store.flush().unwrap();
    db.close();
    drop((store, db));
    join.join().unwrap();
}

fn measure(folder: &Path) {
    let ours = folder.join("ours");
    let queries: Vec<String> =
        fs::read_to_string(folder.join("queries")).unwrap().lines().map(str::to_owned).collect();
    let embedder = embedder();
    let before = (resident(), status("RssAnon:") / 1024.0);
    for query in &queries {
        embedder.query(query, Duration::from_secs(60)).unwrap();
    }
    let loaded = resident();
    // Its thread ends when the model has been put away.
    while threads() > 1 {
        std::thread::yield_now();
    }
    let own = status("RssAnon:") / 1024.0;
    let (empty, started) = (resident(), Instant::now());
    let (store, db) = open(&ours, Some(embedder));
    let ask = |query: &str| store.search(&SearchQuery::hybrid(query)).unwrap();
    ask(&queries[0]);
    let first = started.elapsed().as_secs_f64() * 1e3;
    let mut times = Vec::new();
    for _ in 0..3 {
        for query in &queries {
            let started = cpu();
            assert!(!ask(query).is_empty());
            times.push(cpu() - started);
        }
    }
    let memory = resident() - empty;
    let disk = disk(&ours);
    drop(store);
    let (store, _) = (MemoryStore::open(db, ours.join("index"), SystemClock::shared()).unwrap(), ());
    let mut random = Random(3);
    let mut saves = Vec::new();
    for _ in 0..SAVES {
        let text = sentence(&mut random, 15);
        let started = Instant::now();
        store.save(NewMemory::new(MemoryType::Fact, text)).unwrap();
        saves.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let [half, most] = percentiles(times);
    let [save, save_most] = percentiles(saves);
    println!(
        "| spacebot | {half:.2} / {most:.2} | – | {save:.2} / {save_most:.2} | {memory:.1} | {first:.0} | {disk:.0} |"
    );
    println!(
        "(model: {:.1} MiB while loaded; after it was put away {:.1} MiB left, of which {:.1} no file's)",
        loaded - before.0,
        empty - before.0,
        own - before.1
    );
}

fn percentiles(mut times: Vec<f64>) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    [50, 99].map(|percent| times[(times.len() - 1) * percent / 100])
}

/// Milliseconds that this process has worked.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a place of the right type.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) }, 0);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// MiB, files that are mapped included.
fn resident() -> f64 {
    status("VmRSS:") / 1024.0
}

fn threads() -> usize {
    status("Threads:") as usize
}

fn status(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// MiB.
fn disk(folder: &Path) -> f64 {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let size = |entry: fs::DirEntry| match entry.metadata().unwrap() {
        metadata if metadata.is_dir() => disk(&entry.path()),
        metadata => metadata.len() as f64 / 1024.0 / 1024.0,
    };
    entries.map(size).sum()
}
