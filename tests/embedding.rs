//! Vectors on the device: the tokeniser against a recorded corpus, the vectors against the original
//! weights in f64, both runtimes against each other, and what happens when something is missing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use daemon::{DEADLINE, Home, eventually, not_run};
use spacebot::error::{Fault, Kind};
use spacebot::memory::embed::{DIMENSIONS, Embedder, MODEL, PIECES_MAX, Places, Settings, WordPiece};

const WAIT: Duration = Duration::from_secs(120);
/// The runtime of a child of this test: `native` or `built in`.
const RUNTIME: &str = "SPACEBOT_TEST_RUNTIME";
/// Where it writes its vectors.
const VECTORS: &str = "SPACEBOT_TEST_VECTORS";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/embedding").join(name)
}

fn model() -> PathBuf {
    root().join("vendor/models").join(MODEL)
}

fn settings(places: Places) -> Settings {
    Settings { places, idle: Duration::from_secs(600) }
}

fn golden() -> Vec<String> {
    serde_json::from_str(&fs::read_to_string(fixture("golden.json")).unwrap()).unwrap()
}

fn vectors(bytes: &[u8]) -> Vec<Vec<f32>> {
    let numbers: Vec<f32> =
        bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
    numbers.chunks(DIMENSIONS).map(<[f32]>::to_vec).collect()
}

fn cosine(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

#[test]
fn the_tokeniser_gives_the_recorded_pieces() {
    let pieces = WordPiece::new(&fs::read_to_string(model().join("vocab.txt")).unwrap()).unwrap();
    let corpus = fs::read_to_string(fixture("tokens.jsonl")).unwrap();
    let mut count = 0;
    for line in corpus.lines() {
        let (text, expected): (String, Vec<i64>) = serde_json::from_str(line).unwrap();
        assert_eq!(pieces.encode(&text), expected, "{text:?}");
        count += 1;
    }
    assert_eq!(count, 3000);
    for text in ["x".repeat(10_000_000), " ".repeat(10_000_000), "🙂".repeat(100_000)] {
        assert!(pieces.encode(&text).len() <= PIECES_MAX);
    }
}

/// Not a test of its own: the child of the next ones.
#[test]
fn child_that_writes_vectors() {
    let (Ok(runtime), Ok(file)) = (std::env::var(RUNTIME), std::env::var(VECTORS)) else { return };
    // A library that is not there leaves the built-in runtime.
    let onnxruntime = (runtime != "native").then(|| PathBuf::from("/nowhere/libonnxruntime.so"));
    let places = Places { model: Some(model()), onnxruntime, data_folder: PathBuf::from("/nowhere") };
    let embedder = Embedder::new(settings(places));
    let mut bytes = Vec::new();
    for text in golden() {
        let vector = embedder.document(&text, WAIT).unwrap();
        bytes.extend(vector.iter().flat_map(|number| number.to_le_bytes()));
    }
    fs::write(&file, bytes).unwrap();
    fs::write(format!("{file}.name"), embedder.backend().unwrap()).unwrap();
}

/// The vectors of the golden texts and the name of the runtime that made them.
fn made_by(runtime: &str) -> (Vec<Vec<f32>>, String) {
    made_by_child(runtime, |_| {})
}

fn made_by_child(runtime: &str, prepare: impl FnOnce(&mut Command)) -> (Vec<Vec<f32>>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vectors");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "child_that_writes_vectors"]).env(RUNTIME, runtime).env(VECTORS, &file);
    prepare(&mut child);
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let name = fs::read_to_string(folder.path().join("vectors.name")).unwrap();
    (vectors(&fs::read(file).unwrap()), name)
}

#[test]
fn both_runtimes_agree_with_each_other_and_with_the_original_weights() {
    let reference = vectors(&fs::read(fixture("golden.f32")).unwrap());
    let (built_in, name) = made_by("built in");
    assert!(name.contains("tract"), "{name}");
    assert_eq!((reference.len(), built_in.len()), (200, 200));
    let close = |made: &[Vec<f32>]| {
        let least = made.iter().zip(&reference).map(|(one, other)| cosine(one, other)).fold(1.0, f32::min);
        assert!(least >= 0.995, "cosine {least} to the original");
    };
    close(&built_in);
    assert!(built_in.iter().all(|vector| (cosine(vector, vector) - 1.0).abs() < 1e-4), "of length 1");
    let (native, name) = made_by("native");
    if !name.contains("onnxruntime") {
        return not_run("onnxruntime is missing: make onnxruntime");
    }
    close(&native);
    let differences =
        native.iter().flatten().zip(built_in.iter().flatten()).map(|(one, other)| (one - other).abs());
    let largest = differences.fold(0.0, f32::max);
    assert!(largest <= 1e-5, "the runtimes differ by {largest}");
}

#[test]
fn a_runtime_that_nothing_keeps_from_reporting_is_not_loaded() {
    for value in [None, Some("0")] {
        let (_, name) = made_by_child("native", |child| {
            child
                .env_remove("ORT_DISABLE_TELEMETRY")
                .envs(value.map(|value| ("ORT_DISABLE_TELEMETRY", value)));
        });
        assert!(name.contains("tract"), "{value:?}: {name}");
    }
}

#[test]
fn what_is_missing_or_damaged_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let at = |folder: &Path| {
        let places =
            Places { model: Some(folder.to_owned()), onnxruntime: None, data_folder: folder.to_owned() };
        Embedder::new(settings(places))
    };
    let error = at(folder.path()).query("x", WAIT).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hint().unwrap().contains("memory.embedding.model"));
    for name in ["model.onnx", "vocab.txt", "SHA256SUMS"] {
        fs::copy(model().join(name), folder.path().join(name)).unwrap();
    }
    let mut bytes = fs::read(folder.path().join("model.onnx")).unwrap();
    bytes[1_000_000] ^= 1;
    fs::write(folder.path().join("model.onnx"), bytes).unwrap();
    let embedder = at(folder.path());
    let error = embedder.query("x", WAIT).unwrap_err();
    assert!(error.to_string().contains("SHA-256"), "{error}");
    assert!(embedder.document("x", WAIT).is_err(), "and again, without loading it anew");
    fs::write(folder.path().join("SHA256SUMS"), "nonsense").unwrap();
    assert_eq!(at(folder.path()).model_id().unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn the_model_is_put_away_when_nobody_needs_it_and_loaded_again() {
    let places = Places { model: Some(model()), onnxruntime: None, data_folder: PathBuf::from("/nowhere") };
    let embedder = Embedder::new(Settings { places, idle: Duration::from_millis(50) });
    assert!(!embedder.is_loaded(), "nothing is loaded before it is needed");
    let first = embedder.query("where is the key?", WAIT).unwrap();
    eventually("it is put away", DEADLINE, || !embedder.is_loaded());
    let again = embedder.query("where is the key?", WAIT).unwrap();
    assert!(!embedder.is_loaded(), "a query that was asked lately needs no model");
    assert_eq!(first, again);
    let document = embedder.document("where is the key?", WAIT).unwrap();
    assert_eq!(*first, *document);
    // Many at once, and at every moment of its going away.
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let embedder = embedder.clone();
            std::thread::spawn(move || {
                (0..4).all(|number| embedder.document(&format!("text {thread} {number}"), WAIT).is_ok())
            })
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
}

#[test]
fn the_daemon_finds_by_meaning_what_no_word_of_the_question_names() {
    let home = Home::new(&format!("[memory.embedding]\nmodel = \"{}\"\n", model().display()));
    let lines = r#"{"content":"The kitchen faucet is dripping; somebody should phone a plumber."}
{"content":"The quarterly report is due on Friday."}
{"content":"Una rides her bicycle to work."}
"#;
    let file = home.folder().join("m.jsonl");
    fs::write(&file, lines).unwrap();
    let import = home.command(&["memory", "import", &file.to_string_lossy()]).output().unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    let search = |query: &str| {
        let output = home.command(&["memory", "search", query, "--json"]).output().unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["hits"][0]["content"].as_str().unwrap_or_default().to_owned()
    };
    assert!(search("water leak tap").contains("faucet"));
    assert!(search("commuting by cycle").contains("bicycle"));
    let stats = home.command(&["memory", "stats"]).output().unwrap();
    assert!(String::from_utf8_lossy(&stats.stdout).contains("without vector 0"), "{stats:?}");
    // What the daemon saves gets its vector by itself.
    let user = home.folder().join("user");
    fs::create_dir(&user).unwrap();
    let daemon = home.start_with(&[
        ("HOME", user.as_os_str()),
        ("XDG_CACHE_HOME", user.as_os_str()),
        ("ORT_DISABLE_TELEMETRY", "0".as_ref()),
    ]);
    daemon.client("c").ask("1", "remember that the attic window does not close");
    eventually("the new memory has a vector", DEADLINE * 3, || {
        let stats = home.command(&["memory", "stats"]).output().unwrap();
        let said = String::from_utf8_lossy(&stats.stdout).into_owned();
        said.contains("memories       4") && said.contains("without vector 0")
    });
    let threads = format!("/proc/{}/task", daemon.pid());
    let names = || {
        let tasks = fs::read_dir(&threads).unwrap();
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok()).collect::<Vec<_>>()
    };
    let embedding = names().into_iter().filter(|name| name.starts_with("embed")).count();
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    if !log.contains("embedding model loaded, onnxruntime") {
        return not_run("onnxruntime is missing: make onnxruntime");
    }
    // The runtime would make a database and an identifier there, and keep a thread that sends them away.
    let left: Vec<_> = fs::read_dir(&user).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "the runtime has written {left:?}");
    assert!(embedding <= 2, "threads beside `embed` and `embed:fill`");
}
