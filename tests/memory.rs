//! The memory store as its users see it: what is saved is found, whatever happens to the index.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use spacebot::clock::{Clock, SimulatedClock, Timestamp};
use spacebot::db::Db;
use spacebot::effect::{Answer, Ask, Effect};
use spacebot::error::{Fault, Kind};
use spacebot::id::{ConversationId, ProcessId, ProcessKind};
use spacebot::memory::{
    Hit, Memory, MemoryError, MemoryStore, MemoryType, Mode, NewAssociation, NewMemory, Origin, RelationType,
    SearchQuery, Sort, Source, Who,
};
use spacebot::thread::Cancel;
use spacebot::tools::memory_delete::MemoryDelete;
use spacebot::tools::memory_recall::MemoryRecall;
use spacebot::tools::memory_save::MemorySave;
use spacebot::tools::{Desk, MAX_TOOL_OUTPUT_BYTES, Tool, ToolContext, ToolError};

/// More than a search leaves uncommitted.
const MANY: usize = 300;

struct Bench {
    folder: tempfile::TempDir,
    clock: Arc<SimulatedClock>,
    db: Db,
    writer: Option<JoinHandle<()>>,
    store: MemoryStore,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = SimulatedClock::starting_at(Timestamp(1_790_000_000_000));
        Self::on(folder, clock)
    }

    fn on(folder: tempfile::TempDir, clock: Arc<SimulatedClock>) -> Self {
        let (db, writer) = Db::open(&folder.path().join("spacebot.db"), "test").unwrap();
        let store = MemoryStore::open(db.clone(), folder.path().join("index/text"), clock.clone()).unwrap();
        Self { folder, clock, db, writer: Some(writer), store }
    }

    fn index(&self) -> PathBuf {
        self.folder.path().join("index/text")
    }

    /// As after a kill: nothing is flushed.
    fn reopened(self) -> Self {
        let Self { folder, clock, db, mut writer, store } = self;
        drop(store);
        db.close();
        drop(db);
        writer.take().unwrap().join().unwrap();
        Self::on(folder, clock)
    }

    fn save(&self, memory_type: MemoryType, content: &str) -> Memory {
        self.clock.advance(Duration::from_secs(1));
        self.store.save(NewMemory::new(memory_type, content)).unwrap()
    }

    /// Many memories in few database commits.
    fn save_many(&self, contents: impl Iterator<Item = String>) {
        let contents: Vec<String> = contents.collect();
        let threads: Vec<_> = contents
            .chunks(contents.len().div_ceil(32).max(1))
            .map(|chunk| {
                let (store, chunk) = (self.store.clone(), chunk.to_vec());
                spacebot::thread::spawn("save", move || {
                    for content in chunk {
                        store.save(NewMemory::new(MemoryType::Fact, content)).unwrap();
                    }
                })
                .unwrap()
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    fn find(&self, text: &str) -> Vec<Hit> {
        self.store.search(&SearchQuery::hybrid(text)).unwrap()
    }

    fn contents(&self, text: &str) -> Vec<String> {
        self.find(text).into_iter().map(|hit| hit.memory.content).collect()
    }
}

fn numbered(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|n| format!("the pump number{n} is in the cellar"))
}

/// Each numbered memory is found by its own number, once, and first.
fn assert_finds_numbered(bench: &Bench, range: std::ops::Range<usize>) {
    for n in range.step_by(37) {
        let hits = bench.contents(&format!("number{n}"));
        assert_eq!(hits, [format!("the pump number{n} is in the cellar")]);
    }
}

fn segment_files(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_stem().is_some_and(|stem| stem.len() == 32)).collect()
}

#[test]
fn words_are_found_in_any_form_at_once_and_without_an_index() {
    let bench = Bench::new();
    bench.save(MemoryType::Fact, "Melanie went running along the Elbe");
    bench.save(MemoryType::Preference, "Alice prefers café au lait");
    bench.save(MemoryType::Fact, "会議は火曜日です");
    for (query, expected) in [
        ("who runs", "Melanie"),
        ("RUN", "Melanie"),
        ("preference of alice", "Alice"),
        ("cafe", "Alice"),
        ("火曜", "会議"),
    ] {
        let hits = bench.contents(query);
        assert_eq!(hits.len(), 1, "{query}: {hits:?}");
        assert!(hits[0].starts_with(expected), "{query}: {hits:?}");
    }
    assert!(bench.find("xylophone").is_empty());
    assert!(!bench.index().exists(), "a few memories need no index");
}

#[test]
fn speaker_and_day_are_found_too() {
    let bench = Bench::new();
    let source = Source { label: Some("Caroline".to_owned()), ..Source::new(Who::User, "irc:libera:#pi/17") };
    let saved = bench
        .store
        .save(NewMemory {
            source: Some(source.clone()),
            channel_id: Some("irc:libera:#pi".to_owned()),
            created_at: Timestamp::parse_rfc3339("2023-05-08T13:56:00Z"),
            ..NewMemory::new(MemoryType::Event, "went to the museum")
        })
        .unwrap();
    bench.save(MemoryType::Event, "went to the cinema");
    for flush in [false, true] {
        if flush {
            assert!(bench.store.flush().unwrap());
        }
        for query in ["Caroline", "what happened in May 2023"] {
            let hits = bench.find(query);
            assert_eq!(hits[0].memory.id, saved.id, "{query}");
        }
    }
    let stored = bench.store.get(&saved.id).unwrap().unwrap();
    assert_eq!(stored, saved);
    assert_eq!(stored.source, Some(source));
}

#[test]
fn the_index_and_its_tail_rank_alike() {
    let bench = Bench::new();
    let contents = [
        "the boiler was repaired by Anna",
        "Anna and Ben repair boilers, boilers and more boilers for a living in the old town",
        "Ben likes the town",
        "repairing things is what Carl does",
        "boiler",
    ];
    for content in contents {
        bench.save(MemoryType::Fact, content);
    }
    let queries = ["who repaired the boiler", "Anna Ben town", "boilers"];
    let ranked = |bench: &Bench| -> Vec<Vec<(String, i64)>> {
        let score = |hit: Hit| (hit.memory.content, (hit.score * 1e4).round() as i64);
        queries.iter().map(|query| bench.find(query).into_iter().map(score).collect()).collect()
    };
    let in_tail = ranked(&bench);
    assert!(in_tail.iter().all(|hits| hits.len() >= 3), "{in_tail:?}");
    assert!(bench.store.flush().unwrap());
    assert_eq!(ranked(&bench), in_tail);
    let bench = bench.reopened();
    assert_eq!(ranked(&bench), in_tail);
}

#[test]
fn a_hit_explains_itself() {
    let bench = Bench::new();
    bench.save(MemoryType::Decision, "We move to Lisbon in autumn");
    let hits = bench.find("Lisbon weather in autumn");
    assert!(hits[0].why.starts_with("2 of 3 words (Lisbon, autumn); words 1.00"), "{}", hits[0].why);
    assert!(hits[0].why.ends_with("importance 0.80"), "{}", hits[0].why);
    assert!(hits[0].score > 0.2 && hits[0].score < 0.8, "{}", hits[0].score);
    assert!(bench.find("Lisbon")[0].score > 0.9);
}

#[test]
fn everything_is_found_after_a_crash() {
    let bench = Bench::new();
    bench.save_many(numbered(0..MANY));
    let bench = bench.reopened();
    assert_finds_numbered(&bench, 0..MANY);
    assert!(bench.index().join("meta.json").exists(), "so many are committed by the search");
    bench.save_many(numbered(MANY..MANY + 20));
    let bench = bench.reopened();
    bench.save_many(numbered(MANY + 20..MANY + 40));
    assert_finds_numbered(&bench, 0..MANY + 40);
}

#[test]
fn a_deleted_or_damaged_index_is_made_anew() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 7] = [
        ("folder deleted", |folder| fs::remove_dir_all(folder).unwrap()),
        ("segments deleted", |folder| {
            segment_files(folder).iter().for_each(|file| fs::remove_file(file).unwrap());
        }),
        ("meta is garbage", |folder| fs::write(folder.join("meta.json"), "{\"half").unwrap()),
        ("files cut", |folder| {
            for file in segment_files(folder) {
                let bytes = fs::read(&file).unwrap();
                fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
            }
        }),
        ("one byte flipped in each file", |folder| {
            for file in segment_files(folder) {
                let mut bytes = fs::read(&file).unwrap();
                bytes[0] ^= 0x55;
                fs::write(&file, &bytes).unwrap();
            }
        }),
        // Wrong lengths of texts change the ranking and nothing else: only the checksum tells.
        ("one bit flipped in the lengths", |folder| {
            for file in
                segment_files(folder).iter().filter(|file| file.extension() == Some("fieldnorm".as_ref()))
            {
                let mut bytes = fs::read(file).unwrap();
                bytes[0] ^= 1;
                fs::write(file, &bytes).unwrap();
            }
        }),
        ("other format", |folder| {
            let meta = fs::read_to_string(folder.join("meta.json")).unwrap();
            let other = meta.replace("\\\"format\\\":2", "\\\"format\\\":99");
            assert_ne!(meta, other, "the payload names its format");
            fs::write(folder.join("meta.json"), other).unwrap();
        }),
    ];
    let mut bench = Bench::new();
    bench.save_many(numbered(0..MANY));
    assert!(bench.store.flush().unwrap());
    for (what, damage) in damages {
        let foreign = bench.index().join("notes.txt");
        let damaged: HashSet<_> = segment_files(&bench.index()).into_iter().collect();
        damage(&bench.index());
        if bench.index().exists() {
            fs::write(&foreign, "not ours").unwrap();
        }
        bench = bench.reopened();
        assert_finds_numbered(&bench, 0..MANY);
        let files: HashSet<_> = segment_files(&bench.index()).into_iter().collect();
        assert!(!files.is_empty() && files.is_disjoint(&damaged), "{what}: not made anew");
        // The next start finds a sound index, not another reason to make one.
        let before = fs::read_to_string(bench.index().join("meta.json")).expect(what);
        bench = bench.reopened();
        assert_finds_numbered(&bench, 0..MANY);
        assert_eq!(fs::read_to_string(bench.index().join("meta.json")).unwrap(), before, "{what}");
        assert!(what == "folder deleted" || foreign.exists(), "{what}: a file that is not ours was removed");
    }
}

#[test]
fn an_index_deleted_under_a_running_store_comes_back() {
    let bench = Bench::new();
    bench.save_many(numbered(0..MANY));
    assert_finds_numbered(&bench, 0..MANY);
    fs::remove_dir_all(bench.index()).unwrap();
    assert_finds_numbered(&bench, 0..MANY);
    bench.save_many(numbered(MANY..2 * MANY));
    assert_finds_numbered(&bench, 0..2 * MANY);
    let bench = bench.reopened();
    assert_finds_numbered(&bench, 0..2 * MANY);
    assert!(bench.index().join("meta.json").exists());
}

#[test]
fn an_index_of_a_later_state_is_not_believed() {
    let bench = Bench::new();
    bench.save_many(numbered(0..MANY));
    let kept = bench.save(MemoryType::Fact, "the spare key lies under the stone");
    bench.db.write(|connection| Ok(connection.execute_batch("PRAGMA user_version = 1")?)).unwrap();
    let bench = bench.reopened();
    let backup = fs::read(bench.folder.path().join("spacebot.db")).unwrap();
    assert!(bench.store.forget(&kept.id, None).unwrap());
    bench.save(MemoryType::Fact, "the spare key lies in the shed");
    assert!(bench.store.flush().unwrap());

    let Bench { folder, clock, db, writer, store } = bench;
    drop(store);
    db.close();
    drop(db);
    writer.unwrap().join().unwrap();
    for entry in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("spacebot.db-") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    fs::write(folder.path().join("spacebot.db"), backup).unwrap();
    let bench = Bench::on(folder, clock);
    assert_eq!(bench.contents("spare key"), ["the spare key lies under the stone"]);
    assert_finds_numbered(&bench, 0..MANY);
}

#[test]
fn an_index_that_cannot_be_written_does_not_stop_recall() {
    let bench = Bench::new();
    fs::write(bench.folder.path().join("index"), "in the way").unwrap();
    bench.save_many(numbered(0..MANY));
    assert_finds_numbered(&bench, 0..MANY);
    let error = bench.store.flush().unwrap_err();
    assert!(matches!(error, MemoryError::Index { .. }), "{error}");
    assert!(error.hint().is_some());
    fs::remove_file(bench.folder.path().join("index")).unwrap();
    assert!(bench.store.flush().unwrap());
    assert_finds_numbered(&bench, 0..MANY);
}

#[test]
fn a_store_refuses_a_file_in_place_of_its_folder() {
    let bench = Bench::new();
    let path = bench.folder.path().join("file");
    fs::write(&path, "").unwrap();
    let error = MemoryStore::open(bench.db.clone(), path, bench.clock.clone()).err().expect("refused");
    assert_eq!(error.kind(), Kind::Invalid);
}

#[test]
fn forgotten_is_gone_from_index_tail_and_lists() {
    let bench = Bench::new();
    let in_index = bench.save(MemoryType::Identity, "the user is called Zacharias");
    bench.save(MemoryType::Fact, "Zacharias lives in Kiel");
    assert!(bench.store.flush().unwrap());
    let in_tail = bench.save(MemoryType::Fact, "Zacharias has a boat");
    assert_eq!(bench.find("Zacharias").len(), 3);

    assert!(bench.store.forget(&in_index.id, Some("asked to")).unwrap());
    assert!(bench.store.forget(&in_tail.id, None).unwrap());
    assert!(!bench.store.forget(&in_tail.id, None).unwrap(), "already");
    assert!(!bench.store.forget("no-such-id", None).unwrap());
    for flush in [false, true] {
        if flush {
            assert!(bench.store.flush().unwrap());
        }
        assert_eq!(bench.contents("Zacharias"), ["Zacharias lives in Kiel"]);
        assert_eq!(bench.store.search(&SearchQuery::of(Mode::Recent)).unwrap().len(), 1);
    }
    assert_eq!(bench.store.count_by_type().unwrap(), [(MemoryType::Fact, 1)]);
    let row = bench.store.get(&in_index.id).unwrap().unwrap();
    assert!(row.forgotten, "the row stays");
    let bench = bench.reopened();
    assert_eq!(bench.contents("Zacharias"), ["Zacharias lives in Kiel"]);
}

#[test]
fn a_type_filter_comes_before_the_limit() {
    let bench = Bench::new();
    for n in 0..3 {
        bench.save(MemoryType::Todo, &format!("a longer note: some day fix the garden fence, part {n}"));
    }
    bench.save_many((0..100).map(|n| format!("garden garden {n}")));
    let query = SearchQuery { memory_type: Some(MemoryType::Todo), ..SearchQuery::hybrid("garden") };
    for flush in [false, true] {
        if flush {
            assert!(bench.store.flush().unwrap());
        }
        let hits = bench.store.search(&query).unwrap();
        assert_eq!(hits.len(), 3);
        assert!(hits.iter().all(|hit| hit.memory.memory_type == MemoryType::Todo));
    }
    // Half in the index, half forgotten since: still enough.
    let all = bench.store.search(&SearchQuery { limit: 50, ..SearchQuery::hybrid("garden") }).unwrap();
    for hit in &all {
        assert!(bench.store.forget(&hit.memory.id, None).unwrap());
    }
    assert_eq!(bench.find("garden").len(), 10);
    assert_eq!(bench.store.search(&query).unwrap().len(), 3);
}

#[test]
fn any_text_is_a_safe_query_and_a_safe_content() {
    let bench = Bench::new();
    bench.save(MemoryType::Fact, "a plain memory about pumps");
    let odd =
        ["NUL \0 inside pumps", "\u{202e}pumps backwards", "👩‍👩‍👧‍👦 pumps 🦀", "'; DROP TABLE memories; -- pumps"];
    for content in odd {
        assert_eq!(bench.save(MemoryType::Fact, content).content, content);
    }
    let mut queries: Vec<String> = [
        "\"",
        "'",
        "content:pumps",
        "pumps AND NOT (",
        "+pumps -plain",
        "pumps~3^1e99",
        "[a TO b}",
        "*",
        "id:*",
        "\0",
        "%_",
        "\\",
        "👩‍👩‍👧‍👦",
        "؟ مضخة",
    ]
    .map(str::to_owned)
    .to_vec();
    queries.push((0..10_000).map(|n| format!("word{n} ")).collect());
    queries.push(" ".repeat(1_000_000) + "x");
    queries.push("é".repeat(1_000_000));
    for flush in [false, true] {
        if flush {
            assert!(bench.store.flush().unwrap());
        }
        for query in &queries {
            bench.find(query);
        }
        assert_eq!(bench.find("+pumps -plain").len(), 5, "signs are no operators");
        assert_eq!(bench.find("pumps AND NOT (").len(), 5);
    }
}

#[test]
fn a_query_of_stop_words_gives_the_newest_with_score_zero() {
    let bench = Bench::new();
    bench.save(MemoryType::Identity, "the user is Anna");
    bench.save(MemoryType::Fact, "it rains");
    let hits = bench.find("who am I?");
    assert_eq!(hits.len(), 2);
    assert!(hits.iter().all(|hit| hit.score == 0.0));
    assert_eq!(hits[0].memory.content, "it rains");
}

#[test]
fn newer_and_more_important_decide_between_equals() {
    let bench = Bench::new();
    let save = |importance: f64, content: &str| {
        bench.clock.advance(Duration::from_secs(3600));
        let new = NewMemory { importance: Some(importance), ..NewMemory::new(MemoryType::Fact, content) };
        bench.store.save(new).unwrap()
    };
    save(0.5, "the alarm code is 1111");
    bench.clock.advance(Duration::from_secs(90 * 24 * 3600));
    save(0.5, "the alarm code is 2222");
    let important = save(1.0, "the alarm code is 3333");
    save(0.1, "alarm alarm: the code of the alarm");
    assert_eq!(
        bench.contents("alarm code"),
        [
            "alarm alarm: the code of the alarm",
            "the alarm code is 3333",
            "the alarm code is 2222",
            "the alarm code is 1111"
        ],
        "a better match comes first whatever its importance"
    );
    assert!((important.importance - 1.0).abs() < f64::EPSILON);
}

#[test]
fn the_newest_of_many_equals_come_first() {
    let bench = Bench::new();
    let saved: Vec<String> =
        (0..240).map(|_| bench.save(MemoryType::Event, "took the blue pill").id).collect();
    let newest: Vec<&String> = saved.iter().rev().take(10).collect();
    for flush in [false, true] {
        if flush {
            assert!(bench.store.flush().unwrap());
        }
        let hits = bench.find("pill");
        assert_eq!(hits.iter().map(|hit| &hit.memory.id).collect::<Vec<_>>(), newest, "flushed: {flush}");
    }
    // And with the newest forgotten since: those before them.
    saved.iter().rev().take(50).for_each(|id| assert!(bench.store.forget(id, None).unwrap()));
    let hits = bench.find("pill");
    let expected: Vec<&String> = saved.iter().rev().skip(50).take(10).collect();
    assert_eq!(hits.iter().map(|hit| &hit.memory.id).collect::<Vec<_>>(), expected);
}

#[test]
fn lists_sort_and_filter() {
    let bench = Bench::new();
    let goal = bench.save(MemoryType::Goal, "learn to sail");
    let fact = bench.save(MemoryType::Fact, "sails are made of cloth");
    let observation = bench.save(MemoryType::Observation, "it was windy");
    for _ in 0..2 {
        bench.store.recall(&SearchQuery::hybrid("cloth")).unwrap();
    }
    bench.db.ping().unwrap();
    let ids = |query: SearchQuery| -> Vec<String> {
        bench.store.search(&query).unwrap().into_iter().map(|hit| hit.memory.id).collect()
    };
    let (goal, fact, observation) = (goal.id, fact.id, observation.id);
    assert_eq!(ids(SearchQuery::of(Mode::Recent)), [&*observation, &*fact, &*goal]);
    assert_eq!(ids(SearchQuery::of(Mode::Important)), [&*goal, &*fact, &*observation]);
    let most_read = SearchQuery { sort: Some(Sort::MostAccessed), limit: 1, ..SearchQuery::of(Mode::Recent) };
    assert_eq!(ids(most_read), [&*fact]);
    let typed = SearchQuery { memory_type: Some(MemoryType::Goal), ..SearchQuery::of(Mode::Typed) };
    assert_eq!(ids(typed), [&*goal]);
    let scores: Vec<f64> =
        bench.store.search(&SearchQuery::of(Mode::Recent)).unwrap().iter().map(|hit| hit.score).collect();
    assert!(scores[0] > scores[1] && scores[1] > scores[2] && scores[2] > 0.0);
}

#[test]
fn the_most_important_are_those_with_the_most_importance_left() {
    let bench = Bench::new();
    let old = bench.save(MemoryType::Goal, "learn to sail");
    let identity = bench.save(MemoryType::Identity, "the owner is called Ada");
    bench.clock.advance(Duration::from_secs(60 * 86_400));
    bench.save_many((0..300).map(|number| format!("fact {number}")));
    let query = SearchQuery { limit: 302, ..SearchQuery::of(Mode::Important) };
    let limited = SearchQuery { limit: 3, ..SearchQuery::of(Mode::Important) };
    assert!(bench.store.search(&query).is_err(), "there is a limit");
    let first = bench.store.search(&limited).unwrap();
    assert_eq!(first[0].memory.id, identity.id, "who somebody is does not fade");
    // A goal of .9 has .405 left, a fact of today .66.
    assert!(first[1..].iter().all(|hit| hit.memory.memory_type == MemoryType::Fact), "{first:?}");
    assert!(first[1].why.contains("importance 0.66"), "{}", first[1].why);
    let goals = SearchQuery { memory_type: Some(MemoryType::Goal), ..SearchQuery::of(Mode::Important) };
    assert_eq!(bench.store.search(&goals).unwrap()[0].memory.id, old.id);
}

#[test]
fn being_recalled_counts_and_changes_nothing_else() {
    let bench = Bench::new();
    let saved = bench.save(MemoryType::Fact, "the router is a black box");
    bench.clock.advance(Duration::from_secs(60));
    bench.store.search(&SearchQuery::hybrid("router")).unwrap();
    bench.store.recall(&SearchQuery::hybrid("router")).unwrap();
    bench.store.recall(&SearchQuery::hybrid("nothing there")).unwrap();
    bench.db.ping().unwrap();
    let read = bench.store.get(&saved.id).unwrap().unwrap();
    let expected = Memory { access_count: 1, last_accessed_at: bench.clock.now(), ..saved };
    assert_eq!(read, expected);
}

#[test]
fn limits_are_kept() {
    let bench = Bench::new();
    let kind = |new: NewMemory| bench.store.save(new).map_err(|error| error.kind());
    let fact = |content: &str| NewMemory::new(MemoryType::Fact, content);
    assert_eq!(kind(fact("  \n ")), Err(Kind::Invalid));
    assert_eq!(kind(fact(&"x".repeat(50_001))), Err(Kind::Invalid));
    assert!(kind(fact(&format!(" {} ", "x".repeat(50_000)))).is_ok(), "counted after trimming");
    for importance in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(kind(NewMemory { importance: Some(importance), ..fact("a") }), Err(Kind::Invalid));
    }
    for limit in [0, 51] {
        let query = SearchQuery { limit, ..SearchQuery::of(Mode::Recent) };
        assert_eq!(bench.store.search(&query).unwrap_err().kind(), Kind::Invalid);
    }
    for query in [SearchQuery::of(Mode::Hybrid), SearchQuery::hybrid("  "), SearchQuery::of(Mode::Typed)] {
        assert_eq!(bench.store.search(&query).unwrap_err().kind(), Kind::Invalid);
    }
    bench.save_many((0..60).map(|n| format!("stone {n}")));
    for limit in [1, 50] {
        let query = SearchQuery { limit, ..SearchQuery::hybrid("stone") };
        assert_eq!(bench.store.search(&query).unwrap().len(), limit);
    }
    assert_eq!(bench.find("stone").len(), 10);
}

#[test]
fn associations_are_saved_with_their_memory_or_not_at_all() {
    let bench = Bench::new();
    let old = bench.save(MemoryType::Fact, "the office is in Bonn");
    let link = |target: &str, weight: f64| NewAssociation {
        target_id: target.to_owned(),
        relation_type: RelationType::Updates,
        weight,
    };
    let save = |associations: Vec<NewAssociation>| {
        let new = NewMemory::new(MemoryType::Fact, "the office is in Mainz");
        bench.store.save(NewMemory { associations, ..new })
    };
    let new = save(vec![link(&old.id, 0.5), link(&old.id, 0.9)]).unwrap();
    let associations = bench.store.associations(&old.id).unwrap();
    assert_eq!(associations.len(), 1, "the same relation twice is one");
    assert_eq!((&*associations[0].source_id, &*associations[0].target_id), (&*new.id, &*old.id));
    assert!((associations[0].weight - 0.9).abs() < f64::EPSILON);

    let error = save(vec![link(&old.id, 0.5), link("nowhere", 0.5)]).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("nowhere"), "{error}");
    assert_eq!(save(vec![link(&old.id, 1.5)]).unwrap_err().kind(), Kind::Invalid);
    let hits = bench.find("Mainz");
    let found: Vec<_> = hits.iter().map(|hit| hit.memory.content.as_str()).collect();
    // The old one comes along because it is tied to the new one, and behind it.
    assert_eq!(
        found,
        ["the office is in Mainz", "the office is in Bonn"],
        "nothing of a refused save is stored"
    );
}

#[test]
fn changes_are_numbered_in_order() {
    let bench = Bench::new();
    bench.save_many((0..64).map(|n| format!("brick {n}")));
    let last = bench.save(MemoryType::Fact, "the last brick");
    assert_eq!(last.change_seq, 65, "one number per change, none twice");
    assert!(bench.store.forget(&last.id, None).unwrap());
    assert_eq!(bench.store.get(&last.id).unwrap().unwrap().change_seq, 66);
    assert!(!bench.store.forget(&last.id, None).unwrap());
    let bench = bench.reopened();
    assert_eq!(bench.save(MemoryType::Fact, "one more").change_seq, 67, "no change, no number");
}

#[test]
fn many_threads_save_and_each_finds_its_own_at_once() {
    let bench = Bench::new();
    let threads: Vec<_> = (0..8)
        .map(|t| {
            let store = bench.store.clone();
            spacebot::thread::spawn(format!("t{t}"), move || {
                for n in 0..50 {
                    let content = format!("thread{t} saw item{n}x{t}");
                    let saved = store.save(NewMemory::new(MemoryType::Event, content)).unwrap();
                    let hits = store.recall(&SearchQuery::hybrid(format!("item{n}x{t}"))).unwrap();
                    let ids: Vec<_> = hits.iter().map(|hit| &hit.memory.id).collect();
                    assert_eq!(ids, [&saved.id], "thread {t}, item {n}");
                    if n % 10 == 9 {
                        assert!(store.forget(&saved.id, None).unwrap());
                        assert!(
                            store.search(&SearchQuery::hybrid(format!("item{n}x{t}"))).unwrap().is_empty()
                        );
                    }
                }
            })
            .unwrap()
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for t in 0..8 {
        let hits =
            bench.store.search(&SearchQuery { limit: 50, ..SearchQuery::hybrid(format!("thread{t}")) });
        let ids: HashSet<String> = hits.unwrap().into_iter().map(|hit| hit.memory.id).collect();
        assert_eq!(ids.len(), 45);
    }
    assert!(bench.index().join("meta.json").exists(), "searches committed on the way");
}

#[test]
fn maintenance_commits_when_it_is_quiet_and_leaves_the_disk_alone_otherwise() {
    let bench = Bench::new();
    let maintain = || bench.store.maintain(bench.clock.now()).unwrap();
    assert!(!maintain());
    bench.save_many(numbered(0..40));
    assert!(!maintain(), "just saved");
    bench.clock.advance(Duration::from_secs(31));
    assert!(maintain());
    let written = fs::read_to_string(bench.index().join("meta.json")).unwrap();
    assert!(!maintain(), "nothing new");
    bench.save(MemoryType::Fact, "one more thing");
    bench.clock.advance(Duration::from_secs(31));
    assert!(!maintain(), "too little to be worth it");
    assert_eq!(fs::read_to_string(bench.index().join("meta.json")).unwrap(), written);
    // After a long rest the reader is put away and comes back.
    assert_eq!(bench.find("thing").len(), 1);
    bench.clock.advance(Duration::from_secs(3600));
    assert!(!maintain());
    assert_eq!(bench.find("thing").len(), 1);
    assert_finds_numbered(&bench, 0..40);
    assert!(bench.store.flush().unwrap());
    assert!(!bench.store.flush().unwrap());
}

#[test]
fn many_small_commits_do_not_pile_up() {
    let bench = Bench::new();
    for round in 0..20 {
        bench.save_many((0..4).map(|n| format!("round{round} piece{n}")));
        assert!(bench.store.flush().unwrap());
    }
    let segments: HashSet<_> =
        segment_files(&bench.index()).iter().map(|file| file.file_stem().unwrap().to_owned()).collect();
    assert!(segments.len() <= 10, "{} segments after 20 commits", segments.len());
    for round in 0..20 {
        assert_eq!(bench.find(&format!("round{round}")).len(), 4);
    }
}

#[test]
fn a_changed_memory_is_found_by_its_new_words_only() {
    let bench = Bench::new();
    let saved: Vec<Memory> =
        (0..12).map(|n| bench.save(MemoryType::Fact, &format!("old{n} words about a lighthouse"))).collect();
    assert!(bench.store.flush().unwrap());
    for round in 0..3 {
        for memory in saved.iter().skip(round).step_by(2) {
            let (id, content) = (memory.id.clone(), format!("new{round} words about a lighthouse"));
            let change = move |connection: &spacebot::db::rusqlite::Connection| {
                let sql = "UPDATE memories SET content = ?2, change_seq =
                               (SELECT MAX(change_seq) + 1 FROM memories) WHERE id = ?1";
                Ok(connection.execute(sql, [id, content])?)
            };
            assert_eq!(bench.db.write(change).unwrap(), 1);
        }
        let gone = bench.save(MemoryType::Fact, "a lighthouse that is forgotten");
        assert!(bench.store.forget(&gone.id, None).unwrap());
        for flush in [false, true] {
            if flush {
                assert!(bench.store.flush().unwrap());
            }
            let query = SearchQuery { limit: 50, ..SearchQuery::hybrid("lighthouse") };
            let hits = bench.store.search(&query).unwrap();
            let ids: HashSet<_> = hits.iter().map(|hit| &hit.memory.id).collect();
            assert_eq!((hits.len(), ids.len()), (12, 12), "round {round}, flushed: {flush}");
            assert!(bench.find(&format!("new{round}")).len() >= 5);
            for n in (round..12).step_by(2) {
                assert!(bench.find(&format!("old{n}")).is_empty(), "old{n} in round {round}");
            }
        }
    }
    let bench = bench.reopened();
    assert!(bench.find("old0").is_empty() && bench.find("old1").is_empty());
    assert!(bench.find("forgotten").is_empty());
}

struct NoDesk;

impl Desk for NoDesk {
    fn tell(&mut self, _effect: Effect) {}
    fn ask(&mut self, _ask: Ask) -> Result<Answer, ToolError> {
        Err(ToolError::Cancelled)
    }
}

fn call(tool: &mut dyn Tool, arguments: serde_json::Value) -> Result<serde_json::Value, ToolError> {
    let output =
        tool.call(arguments, &mut ToolContext { cancel: &Cancel::new(), desk: &mut NoDesk, outside: false })?;
    assert!(output.len() <= MAX_TOOL_OUTPUT_BYTES, "{} bytes", output.len());
    Ok(serde_json::from_str(&output).expect("JSON"))
}

fn origin() -> Origin {
    Origin {
        conversation: ConversationId::new("irc:libera:#pi"),
        process: ProcessId::new(ProcessKind::Branch, 12),
    }
}

#[test]
fn the_tools_save_recall_and_delete() {
    use serde_json::json;
    let bench = Bench::new();
    let mut save = MemorySave::new(bench.store.clone(), origin());
    let mut recall = MemoryRecall::new(bench.store.clone());
    let mut delete = MemoryDelete::new(bench.store.clone(), origin());

    let old = call(&mut save, json!({ "content": "Anna likes tea" })).unwrap();
    assert_eq!(old["type"], "fact");
    let new = call(
        &mut save,
        json!({
            "content": "Anna likes coffee now", "memory_type": "preference", "importance": "0.75",
            "source": "Ben", "associations": [{ "target_id": old["saved"], "relation_type": "updates", "weight": "1" }],
        }),
    )
    .unwrap();
    let stored = bench.store.get(new["saved"].as_str().unwrap()).unwrap().unwrap();
    assert_eq!(stored.channel_id.as_deref(), Some("irc:libera:#pi"));
    assert_eq!(bench.store.associations(&stored.id).unwrap()[0].relation_type, RelationType::Updates);

    let found = call(&mut recall, json!({ "query": "what does Anna like", "max_results": "1" })).unwrap();
    assert_eq!(found["count"], 1);
    let found =
        call(&mut recall, json!({ "query": "coffee", "memory_type": null, "mode": "hybrid" })).unwrap();
    let mut memory = found["memories"][0].clone();
    assert!(memory["relevance"].as_f64().unwrap() > 0.5);
    memory.as_object_mut().unwrap().remove("relevance");
    assert_eq!(
        memory,
        json!({
            "id": stored.id, "type": "preference", "importance": 0.75, "source": "agent:branch:12 | Ben",
            "created_at": stored.created_at.to_rfc3339(), "content": "Anna likes coffee now",
        })
    );
    assert_eq!(call(&mut recall, json!({})).unwrap()["count"], 2, "no query lists the newest");
    assert_eq!(call(&mut recall, json!({ "memory_type": "fact" })).unwrap()["count"], 1);

    let gone = call(&mut delete, json!({ "memory_id": old["saved"], "reason": "out of date" })).unwrap();
    assert_eq!((&gone["forgotten"], &gone["content"]), (&json!(true), &json!("Anna likes tea")));
    let again = call(&mut delete, json!({ "memory_id": old["saved"] })).unwrap();
    assert_eq!((&again["forgotten"], &again["why"]), (&json!(false), &json!("already_forgotten")));
    assert_eq!(call(&mut delete, json!({ "memory_id": "x" })).unwrap()["why"], "not_found");
    assert_eq!(call(&mut recall, json!({ "query": "tea" })).unwrap()["count"], 0);
}

#[test]
fn the_tools_explain_bad_arguments() {
    use serde_json::json;
    let bench = Bench::new();
    let mut save = MemorySave::new(bench.store.clone(), origin());
    let mut recall = MemoryRecall::new(bench.store.clone());
    let bad_saves = [
        (json!({}), "content"),
        (json!({ "content": "" }), "content"),
        (json!({ "content": "a", "memory_type": "thought" }), "identity"),
        (json!({ "content": "a", "importance": "high" }), "number"),
        (json!({ "content": "a", "importance": 7 }), "0 to 1"),
        (json!({ "content": "a", "associations": [{ "target_id": "x" }] }), "no memory"),
    ];
    for (arguments, expected) in bad_saves {
        let error = call(&mut save, arguments.clone()).unwrap_err();
        assert!(error.to_string().contains(expected), "{arguments}: {error}");
    }
    assert!(matches!(call(&mut recall, json!({ "mode": "hybrid" })), Err(ToolError::Invalid(_))));
    assert!(matches!(call(&mut recall, json!({ "mode": "typed" })), Err(ToolError::Invalid(_))));
    for max_results in [json!(0), json!(-3), json!("1e99"), json!(50)] {
        assert!(call(&mut recall, json!({ "max_results": max_results })).is_ok());
    }
    let cancel = Cancel::new();
    cancel.cancel();
    let context = &mut ToolContext { cancel: &cancel, desk: &mut NoDesk, outside: false };
    assert_eq!(save.call(json!({ "content": "late" }), context), Err(ToolError::Cancelled));
    assert_eq!(bench.store.count_by_type().unwrap(), []);
}

#[test]
fn a_long_answer_stays_whole_json_within_the_output_limit() {
    let bench = Bench::new();
    for filler in ["x", "\u{1}", "\"", "漢"] {
        let content = format!("hay {}", filler.repeat(49_000 / filler.len()));
        bench.save(MemoryType::Fact, &content);
    }
    let mut recall = MemoryRecall::new(bench.store.clone());
    let arguments = serde_json::json!({ "query": "hay", "max_results": 50 });
    assert_eq!(call(&mut recall, arguments).unwrap()["count"], 4);
    let one = call(&mut recall, serde_json::json!({ "query": "hay", "max_results": 1 })).unwrap();
    assert!(one["memories"][0]["content"].as_str().unwrap().len() > 3_000);
}

#[test]
fn schemas_are_plain_enough_for_any_provider() {
    let bench = Bench::new();
    let tools: [Box<dyn Tool>; 3] = [
        Box::new(MemorySave::new(bench.store.clone(), origin())),
        Box::new(MemoryRecall::new(bench.store.clone())),
        Box::new(MemoryDelete::new(bench.store.clone(), origin())),
    ];
    for (tool, required) in tools.iter().zip([Some("content"), None, Some("memory_id")]) {
        let schema = tool.parameters();
        let text = schema.to_string();
        assert!(!text.contains("$ref") && !text.contains("anyOf") && !text.contains("null"), "{text}");
        assert_eq!(schema["required"][0].as_str(), required, "{text}");
        assert!(!tool.is_external());
    }
}
