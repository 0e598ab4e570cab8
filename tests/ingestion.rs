//! Files on their way into memory, with the whole binary: power cuts in the middle of a thick book,
//! parts that cannot be read, files that cannot be taken.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;
#[path = "support/pdf.rs"]
mod pdf;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use daemon::{DEADLINE, Daemon, Home, eventually, processes_with};
use llm_double::script::{calls, messages};
use llm_double::{At, Double, Request, Say, WireFormat};
use serde_json::{Value, json};
use spacebot::db::rusqlite::{Connection, OpenFlags};

/// For a thick book in a slow build.
const LONG: Duration = Duration::from_secs(240);
const POLL: &str = "[defaults.ingestion]\npoll_interval_secs = 1\n";

// ---- what is seen from outside ---------------------------------------------------------------------

fn folder(home: &Home) -> PathBuf {
    let folder = home.folder().join("agents/main/workspace/ingest");
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn read(home: &Home) -> Connection {
    Connection::open_with_flags(home.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// The first value of a query; none while the tables are not there yet.
fn number(home: &Home, sql: &str) -> i64 {
    if !home.database().exists() {
        return 0;
    }
    read(home).query_row(sql, [], |row| row.get(0)).unwrap_or(0)
}

fn chunks_in(home: &Home) -> i64 {
    number(home, "SELECT count(*) FROM ingestion_progress")
}

/// What `spacebot ingest --status` says about each file.
fn status(home: &Home) -> BTreeMap<String, Value> {
    let output = home.command(&["ingest", "--status", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let value = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    lines.lines().map(value).map(|line| (line["file"].as_str().unwrap().to_owned(), line)).collect()
}

fn status_of(home: &Home, file: &str) -> String {
    status(home).get(file).map_or("none".to_owned(), |line| line["status"].as_str().unwrap().to_owned())
}

fn becomes(home: &Home, file: &str, wanted: &str, deadline: Duration) {
    eventually(&format!("{file} {wanted}"), deadline, || status_of(home, file) == wanted);
}

/// Content and source of every memory.
fn memories(home: &Home) -> Vec<(String, String)> {
    let connection = read(home);
    let mut statement =
        connection.prepare("SELECT content, source FROM memories WHERE forgotten = 0").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// Every chunk is in once, with as many memories as it says; each mark of the text is in one memory.
fn check_exactly_once(home: &Home, marks: usize) {
    let connection = read(home);
    let (total, bytes, offset): (i64, i64, i64) = connection
        .query_row("SELECT total_chunks, text_bytes, next_offset FROM ingestion_files", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!(bytes, offset);
    let mut statement = connection
        .prepare("SELECT chunk_index, memories FROM ingestion_progress ORDER BY chunk_index")
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let progress: Vec<(i64, usize)> = rows.collect::<Result<_, _>>().unwrap();
    assert_eq!(progress.iter().map(|row| row.0).collect::<Vec<_>>(), (0..total).collect::<Vec<_>>());
    let memories = memories(home);
    let mut by_chunk: BTreeMap<i64, usize> = BTreeMap::new();
    for (_, source) in &memories {
        let chunk: i64 = source.split(" | ").next().unwrap().rsplit('/').next().unwrap().parse().unwrap();
        *by_chunk.entry(chunk - 1).or_default() += 1;
    }
    for (chunk, count) in progress {
        assert_eq!(by_chunk.get(&chunk).copied().unwrap_or(0), count, "chunk {chunk}");
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (content, _) in &memories {
        for word in content.split_whitespace().filter(|word| word.starts_with("mark-")) {
            *seen.entry(word.to_owned()).or_default() += 1;
        }
    }
    let wrong: Vec<_> = (0..marks)
        .map(|mark| (format!("mark-{mark:06}"), seen.get(&format!("mark-{mark:06}")).copied().unwrap_or(0)))
        .filter(|(_, count)| *count != 1)
        .collect();
    assert!(wrong.is_empty(), "not once: {wrong:?}");
}

/// Lines that can be told apart, this many on each page.
fn book(pages: usize, lines: usize) -> Vec<Vec<String>> {
    let line = |number: usize| {
        format!("mark-{number:06} is where the story goes on, and nobody knows how it will end.")
    };
    (0..pages).map(|page| (page * lines..(page + 1) * lines).map(line).collect()).collect()
}

// ---- power cuts ------------------------------------------------------------------------------------

#[test]
fn kill_9_in_the_middle_of_500_pages_and_every_chunk_is_in_exactly_once() {
    const PAGES: usize = 500;
    const LINES: usize = 20;
    let home = Home::new(POLL);
    let file = folder(&home).join("book.pdf");
    fs::write(&file, pdf::pdf(&book(PAGES, LINES))).unwrap();
    let mut seed: u64 = 0x2545_f491_4f6c_dd1d;
    let mut kills = 0;
    loop {
        let running = home.start();
        let total = number(&home, "SELECT total_chunks FROM ingestion_files");
        // The first one while the book is still being opened, the others somewhere in it.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let until =
            chunks_in(&home) + if kills == 0 { 0 } else { 1 + i64::try_from((seed >> 33) % 40).unwrap() };
        if total > 0 && until >= total {
            becomes(&home, "book.pdf", "completed", LONG);
            eventually("the file is gone", LONG, || !file.exists());
            assert!(running.stop().0.success());
            break;
        }
        eventually("a chunk", LONG, || chunks_in(&home) >= until);
        running.kill();
        kills += 1;
        assert!(file.exists(), "not all of it is in");
    }
    assert!(kills >= 5, "only {kills} kills");
    check_exactly_once(&home, PAGES * LINES);
    let sources = memories(&home);
    assert!(sources.iter().all(|(_, source)| source.starts_with("file:book.pdf#")), "{:?}", sources[0]);
    let texts = fs::read_dir(home.folder().join("agents/main/data/ingest")).unwrap().count();
    assert_eq!(texts, 0, "the kept text goes with the file");
}

// ---- a model reads ----------------------------------------------------------------------------------

fn home_with(double: &Double) -> Home {
    Home::new(&format!(
        "[llm.provider.double]\napi_type = \"openai_chat_completions\"\nbase_url = \"{}\"\napi_key = \"k\"\n\
         [defaults.routing]\nbranch = \"double/m\"\n{POLL}chunk_size = 500\n",
        double.base_url("p", WireFormat::OpenAi)
    ))
}

/// The marks in the part that the model reads.
fn marks_of(request: &Request) -> Vec<String> {
    let part = messages(request).iter().find(|message| message["role"] == "user").unwrap().to_string();
    let part = part.replace("\\n", " ");
    let words = part.split(|sign: char| !(sign.is_ascii_alphanumeric() || sign == '-'));
    words.filter(|word| word.starts_with("mark-")).map(str::to_owned).collect()
}

/// Ids that `memory_save` has answered with.
fn saved_ids(request: &Request) -> Vec<String> {
    let id = |message: &Value| {
        let result: Value = serde_json::from_str(message["content"].as_str()?).ok()?;
        Some(result["saved"].as_str()?.to_owned())
    };
    messages(request).iter().filter(|message| message["role"] == "tool").filter_map(id).collect()
}

/// Saves one memory for each mark, then ends.
fn reads_well(request: &Request) -> Say {
    let saved = saved_ids(request);
    if saved.is_empty() {
        let save = |mark: String| {
            ("memory_save", json!({ "content": format!("{mark} is remembered"), "source": "user" }))
        };
        let list: Vec<_> = marks_of(request).into_iter().map(save).collect();
        return calls(&list);
    }
    calls(&[(
        "memory_persistence_complete",
        json!({ "outcome": "saved", "saved_memory_ids": saved, "reason": "all of it" }),
    )])
}

fn text_of(pages: usize) -> String {
    book(pages, 5).concat().join("\n")
}

#[test]
fn a_model_reads_part_by_part_and_a_cut_in_its_reading_leaves_nothing() {
    let hang = Arc::new(AtomicBool::new(true));
    let hung = hang.clone();
    let double = Double::answering(move |request| {
        let in_the_middle = request.json.to_string().contains("part 4 of");
        // Everything of this part was saved, and then the model falls silent.
        if in_the_middle && !saved_ids(request).is_empty() && hung.load(Ordering::SeqCst) {
            return Say::text("x").hang(At::Start);
        }
        reads_well(request)
    });
    let home = home_with(&double);
    let file = folder(&home).join("notes.txt");
    fs::write(&file, text_of(20)).unwrap();
    let running = home.start();
    double.wait_until_hanging(1, LONG);
    assert_eq!(chunks_in(&home), 3);
    let parts: BTreeSet<String> = memories(&home).into_iter().map(|(_, source)| source).collect();
    assert_eq!(parts.len(), 3, "nothing of the fourth is stored: {parts:?}");
    running.kill();
    hang.store(false, Ordering::SeqCst);
    let running = home.start();
    becomes(&home, "notes.txt", "completed", LONG);
    eventually("the file is gone", LONG, || !file.exists());
    check_exactly_once(&home, 100);
    let (content, source) =
        memories(&home).into_iter().find(|(content, _)| content.starts_with("mark-000000")).unwrap();
    assert_eq!(content, "mark-000000 is remembered");
    assert!(source.starts_with("file:notes.txt#") && source.contains("/1 | user"), "{source}");
    drop(running);
}

#[test]
fn a_part_that_cannot_be_read_keeps_the_file_and_a_touch_goes_on_there() {
    let broken = Arc::new(AtomicBool::new(true));
    let (tries, is_broken) = (Arc::new(AtomicUsize::new(0)), broken.clone());
    let counted = tries.clone();
    let double = Double::answering(move |request| {
        let text = request.json.to_string();
        if !(text.contains("part 3 of") && is_broken.load(Ordering::SeqCst)) {
            return reads_well(request);
        }
        if messages(request).iter().all(|message| message["role"] != "assistant") {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        match saved_ids(request).first() {
            None => reads_well(request),
            // One of several: refused, and then only words, however often it is reminded.
            Some(id) if !text.contains("invalid_arguments") => calls(&[(
                "memory_persistence_complete",
                json!({ "outcome": "saved", "saved_memory_ids": [id], "reason": "some of it" }),
            )]),
            Some(_) => Say::text("I have read it."),
        }
    });
    let home = home_with(&double);
    let file = folder(&home).join("notes.md");
    fs::write(&file, text_of(10)).unwrap();
    let running = home.start();
    becomes(&home, "notes.md", "failed", LONG);
    assert_eq!(tries.load(Ordering::SeqCst), 4);
    assert_eq!((chunks_in(&home), file.exists()), (2, true));
    let parts: BTreeSet<String> = memories(&home).into_iter().map(|(_, source)| source).collect();
    assert_eq!(parts.len(), 2, "nothing of the third is stored: {parts:?}");
    assert!(status(&home)["notes.md"]["reason"].as_str().unwrap().contains("did not say what it saved"));
    let (_, log) = running.stop();
    assert_eq!(log.matches("is given up at part 3 and kept").count(), 1, "{log}");
    // Neither another start nor time makes it try again.
    broken.store(false, Ordering::SeqCst);
    let running = home.start();
    let other = folder(&home).join("other.txt");
    fs::write(&other, "mark-000999 stands alone").unwrap();
    becomes(&home, "other.txt", "completed", LONG);
    assert_eq!(status_of(&home, "notes.md"), "failed");
    read_write(
        &home,
        "DELETE FROM ingestion_progress WHERE content_hash IN (SELECT content_hash FROM ingestion_files WHERE filename = 'other.txt')",
    );
    read_write(&home, "DELETE FROM ingestion_files WHERE filename = 'other.txt'");
    read_write(&home, "DELETE FROM memories WHERE content LIKE '%mark-000999%'");
    File::options().append(true).open(&file).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    becomes(&home, "notes.md", "completed", LONG);
    eventually("the file is gone", LONG, || !file.exists());
    check_exactly_once(&home, 50);
    drop(running);
}

fn read_write(home: &Home, sql: &str) {
    let connection = Connection::open(home.database()).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection.execute(sql, []).unwrap();
}

// ---- what cannot be taken -----------------------------------------------------------------------------

#[test]
fn what_cannot_be_taken_is_left_said_once_and_costs_nothing() {
    let home = Home::new(POLL);
    let folder = folder(&home);
    let deep = format!("%PDF-1.4\n1 0 obj\n<</X {}{}>>\nendobj\n", "[".repeat(50_000), "]".repeat(50_000));
    let files: [(&str, &[u8]); 7] = [
        ("program.exe", b"MZ"),
        ("none", b"x"),
        ("empty.txt", b""),
        ("blank.md", b" \n\n \n"),
        ("binary.txt", b"a\0b"),
        ("broken.pdf", b"%PDF-1.4 and no more"),
        ("deep.pdf", deep.as_bytes()),
    ];
    for (name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
    File::create(folder.join("huge.txt")).unwrap().set_len((64 << 20) + 1).unwrap();
    symlink(home.folder().join("config.toml"), folder.join("link.toml")).unwrap();
    fs::create_dir(folder.join("folder.txt")).unwrap();
    fs::write(folder.join(".hidden.txt"), "mark-000001").unwrap();
    fs::write(folder.join("good.csv"), "name;note\nmark-000000;caf\u{e9}\n").unwrap();
    let names: Vec<&str> =
        files.iter().map(|file| file.0).chain(["huge.txt", "link.toml", "folder.txt"]).collect();
    let running = home.start();
    becomes(&home, "good.csv", "completed", LONG);
    for name in &names {
        becomes(&home, name, "left", LONG);
        assert!(folder.join(name).symlink_metadata().is_ok(), "{name} is gone");
    }
    eventually("its first upkeep is over", DEADLINE, || running.status()["cortex"][0]["state"] == "warm");
    // They lie there, and nothing happens.
    let written = || fs::read_to_string(format!("/proc/{}/io", running.pid())).unwrap();
    let bytes = || written().lines().find(|line| line.starts_with("write_bytes")).map(str::to_owned);
    let (_, before) = (home.command(&["ingest", "--status"]).output().unwrap(), bytes());
    running.client("c").poll(4);
    assert_eq!(before, bytes(), "something was written while nothing happened");
    let (_, log) = running.stop();
    for name in &names {
        assert_eq!(log.matches(&format!("{name} is left where it is")).count(), 1, "{name}: {log}");
    }
    assert_eq!(memories(&home).len(), 1);
    // Also after another start; one that was mended is taken, one that is gone is forgotten.
    fs::remove_file(folder.join("program.exe")).unwrap();
    fs::write(folder.join("empty.txt"), "mark-000002").unwrap();
    let running = home.start();
    becomes(&home, "empty.txt", "completed", LONG);
    becomes(&home, "program.exe", "none", LONG);
    let (_, log) = running.stop();
    assert!(!log.contains("is left where it is"), "{log}");
}

#[test]
fn a_folder_that_a_worker_put_elsewhere_leads_nowhere() {
    let home = Home::new(POLL);
    let workspace = home.folder().join("agents/main/workspace");
    fs::create_dir_all(&workspace).unwrap();
    symlink("..", workspace.join("ingest")).unwrap();
    let running = home.start();
    let soul = home.folder().join("agents/main/SOUL.md");
    assert!(soul.exists());
    running.client("c").poll(4);
    assert!(status(&home).is_empty() && soul.exists());
    assert!(running.stop().0.success());
}

#[test]
fn an_empty_folder_costs_nothing_and_a_stop_in_a_reading_is_quick() {
    let home = Home::new(POLL);
    let running = home.start();
    let written = || fs::read_to_string(format!("/proc/{}/io", running.pid())).unwrap();
    let bytes = || written().lines().find(|line| line.starts_with("write_bytes")).map(str::to_owned);
    eventually("its first upkeep is over", DEADLINE, || running.status()["cortex"][0]["state"] == "warm");
    running.client("c").poll(2);
    let before = bytes();
    running.client("c").poll(4);
    assert_eq!(before, bytes());
    // A page that its reader takes a long time for.
    let page = folder(&home).join("deep.html");
    fs::write(&page, "<div>".repeat(200_000)).unwrap();
    eventually("the reader", LONG, || !readers_of(&running).is_empty());
    let readers = readers_of(&running);
    let (status, log) = running.stop();
    assert!(status.success(), "{log}");
    let left: Vec<_> = readers_alive().into_iter().filter(|reader| readers.contains(reader)).collect();
    assert!(left.is_empty() && page.exists());
}

fn readers_alive() -> Vec<u32> {
    processes_with("extract\0html")
}

/// The processes that this daemon has started to read a document.
fn readers_of(running: &Daemon<'_>) -> Vec<u32> {
    let parent = format!("PPid:\t{}", running.pid());
    let is_own = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|text| text.lines().any(|line| line == parent))
    };
    readers_alive().into_iter().filter(is_own).collect()
}

// ---- the command line ------------------------------------------------------------------------------------

#[test]
fn files_are_handed_over_on_the_command_line_and_taken_once() {
    let home = Home::new(POLL);
    let source = tempfile::tempdir().unwrap();
    let path = |name: &str| source.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("a.txt"), "mark-000000 is here").unwrap();
    fs::write(path("b.zip"), "PK").unwrap();
    let (good, bad) = (path("a.txt"), path("b.zip"));
    let ingest = |files: &[&str]| home.command(&[&["ingest"], files].concat()).output().unwrap();
    assert!(ingest(&[&good]).status.success());
    let again = ingest(&[&good, &bad, &path("none.txt")]);
    assert_eq!(again.status.code(), Some(1));
    let (said, errors) = (String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&again.stderr));
    assert!(
        said.contains("a (2).txt") && errors.contains("not taken") && errors.contains("none.txt"),
        "{said}{errors}"
    );
    let folder = folder(&home);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "nothing else lies there");
    let running = home.start();
    eventually("both are gone", LONG, || fs::read_dir(&folder).unwrap().count() == 0);
    check_exactly_once(&home, 1);
    let table = home.command(&["ingest", "--status"]).output().unwrap();
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.lines().nth(1).unwrap().contains("  completed  1/1    1"), "{table}");
    // Found again, by the name of its file too.
    let found = home.command(&["memory", "search", "a.txt"]).output().unwrap();
    assert!(String::from_utf8_lossy(&found.stdout).contains("mark-000000"));
    assert!(!home.command(&["ingest"]).output().unwrap().status.success(), "nothing was asked for");
    drop(running);
}
