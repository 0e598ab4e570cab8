//! Memories over months: what fades is pruned and archived, near duplicates become one, nothing else
//! changes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use spacebot::clock::{Clock, SimulatedClock, Timestamp};
use spacebot::config::MemoryUpkeepConfig;
use spacebot::db::Db;
use spacebot::memory::embed::{Embedder, MODEL, Places, Settings};
use spacebot::memory::{
    Decision, Memory, MemoryStore, MemoryType, Mode, NewAssociation, NewMemory, RelationType, SearchOptions,
    SearchQuery, Source, Tended, Who,
};

const DAY: Duration = Duration::from_secs(86_400);

struct Bench {
    _folder: tempfile::TempDir,
    clock: Arc<SimulatedClock>,
    db: Db,
    store: MemoryStore,
}

impl Bench {
    fn new(with_vectors: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = SimulatedClock::starting_at(Timestamp(1_790_000_000_000));
        let db = Db::open_inline(&folder.path().join("t.db"), None).unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor/models").join(MODEL);
        let places = Places { model: Some(model), onnxruntime: None, data_folder: PathBuf::from("/nowhere") };
        let embedder =
            with_vectors.then(|| Embedder::new(Settings { places, idle: Duration::from_secs(600) }));
        let store = MemoryStore::open_with(
            db.clone(),
            folder.path().join("index"),
            clock.clone(),
            SearchOptions { embedder, ..SearchOptions::default() },
        )
        .unwrap();
        Self { _folder: folder, clock, db, store }
    }

    fn save(&self, new: NewMemory) -> Memory {
        self.clock.advance(Duration::from_secs(1));
        let saved = self.store.save(new).unwrap();
        // The thread that makes vectors and this are the same work; whoever comes first does it.
        self.store.fill_vectors(&mut |_| {}).unwrap();
        saved
    }

    fn say(&self, memory_type: MemoryType, content: &str, importance: f64) -> Memory {
        self.save(NewMemory { importance: Some(importance), ..NewMemory::new(memory_type, content) })
    }

    fn tend(&self) -> Tended {
        self.store.tend(self.clock.now()).unwrap().expect("it was due")
    }

    fn count(&self, sql: &str) -> i64 {
        self.db.read(|connection| Ok(connection.query_row(sql, [], |row| row.get(0))?)).unwrap()
    }

    fn find(&self, text: &str) -> Vec<String> {
        let hits = self.store.search(&SearchQuery::hybrid(text)).unwrap();
        hits.into_iter().map(|hit| hit.memory.content).collect()
    }
}

#[test]
fn what_has_faded_is_pruned_then_archived_and_the_rest_stays_as_it_is() {
    let bench = Bench::new(false);
    let faint = bench.say(MemoryType::Observation, "it smelled of toast", 0.15);
    let strong = bench.say(MemoryType::Fact, "the boiler is from 2019", 0.6);
    let own = bench.say(MemoryType::Identity, "I am called Pi", 0.05);
    assert_eq!(bench.tend(), Tended::default(), "nothing is old enough");
    assert!(bench.store.tend(bench.clock.now()).unwrap().is_none(), "once in an hour");
    bench.clock.advance(31 * DAY);
    assert_eq!(bench.tend(), Tended { pruned: 1, ..Tended::default() });
    assert!(bench.store.get(&faint.id).unwrap().unwrap().forgotten, "put aside, not gone");
    assert!(bench.find("toast").is_empty());
    bench.clock.advance(31 * DAY);
    bench.say(MemoryType::Fact, "something newer", 0.6);
    assert_eq!(bench.tend(), Tended { archived: 1, ..Tended::default() });
    assert_eq!(bench.store.get(&faint.id).unwrap(), None);
    assert_eq!(bench.count("SELECT count(*) FROM memory_archive WHERE memory LIKE '%toast%'"), 1);
    // A hundred rounds later the stored importance is what it was.
    for _ in 0..100 {
        bench.clock.advance(DAY);
        bench.tend();
    }
    for before in [strong, own] {
        let after = bench.store.get(&before.id).unwrap().unwrap();
        assert!((after.importance - before.importance).abs() < f64::EPSILON && !after.forgotten);
        assert_eq!(after.updated_at, before.updated_at);
    }
}

#[test]
fn fading_tying_and_merging_go_by_the_numbers_of_the_config_that_is_in_force() {
    let bench = Bench::new(true);
    let faint = bench.say(MemoryType::Observation, "it smelled of toast", 0.15);
    let boiler = bench.say(MemoryType::Fact, "The boiler is from 2019", 0.6);
    bench.say(MemoryType::Fact, "The cellar key hangs by the door.", 0.6);
    bench.say(MemoryType::Fact, "the key to the cellar is hanging by the door", 0.6);
    let relation = "SELECT count(*) FROM associations WHERE relation_type = 'updates'";
    assert_eq!((bench.tend(), bench.count(relation)), (Tended::default(), 0), "not the same by the defaults");
    let lenient = MemoryUpkeepConfig {
        interval: Duration::from_secs(600),
        prune_below: 0.2,
        prune_age: DAY,
        tie_similarity: 0.5,
        merge_similarity: 0.8,
        ..MemoryUpkeepConfig::default()
    };
    bench.store.set_upkeep(lenient);
    bench.say(MemoryType::Fact, "the cellar key is hanging by the door", 0.5);
    assert!(bench.count(relation) > 0, "now it says the same");
    bench.clock.advance(Duration::from_secs(600));
    let Tended { merged, pruned, .. } = bench.tend();
    assert!(merged > 0 && pruned == 0, "{merged} {pruned}");
    bench.clock.advance(2 * DAY);
    assert_eq!(bench.tend().pruned, 1);
    assert!(bench.store.get(&faint.id).unwrap().unwrap().forgotten);

    let important = || {
        let query = SearchQuery { mode: Mode::Important, text: None, ..SearchQuery::hybrid("") };
        let hits = bench.store.search(&query).unwrap();
        hits.into_iter().find(|hit| hit.memory.id == boiler.id).map(|hit| hit.why).unwrap_or_default()
    };
    bench.clock.advance(18 * DAY);
    let slowly = important();
    bench.store.set_upkeep(MemoryUpkeepConfig { decay_per_day: 0.0, ..lenient });
    assert_ne!(important(), slowly, "a search goes by them too");
}

#[test]
fn numbers_of_changes_go_on_after_the_last_row_could_be_archived() {
    let bench = Bench::new(false);
    bench.say(MemoryType::Observation, "it smelled of toast", 0.15);
    bench.clock.advance(31 * DAY);
    bench.tend();
    bench.clock.advance(62 * DAY);
    bench.tend();
    let last = bench.count("SELECT max(change_seq) FROM memories");
    let next = bench.say(MemoryType::Fact, "something newer", 0.6);
    assert!(next.change_seq > last);
    assert_eq!(bench.find("newer"), ["something newer"]);
}

#[test]
fn near_duplicates_become_one_with_both_sources_and_all_ties() {
    let bench = Bench::new(true);
    let by = |who: &str| Some(Source { label: Some(who.to_owned()), ..Source::new(Who::User, "m") });
    let first = bench.save(NewMemory {
        source: by("Una"),
        importance: Some(0.6),
        ..NewMemory::new(MemoryType::Fact, "The cellar key hangs by the door.")
    });
    let tied = bench.save(NewMemory {
        associations: vec![NewAssociation {
            target_id: first.id.clone(),
            relation_type: RelationType::PartOf,
            weight: 0.7,
        }],
        ..NewMemory::new(MemoryType::Fact, "Everything about the house is in the blue folder")
    });
    let second = bench.save(NewMemory {
        source: by("Ada"),
        importance: Some(0.9),
        ..NewMemory::new(MemoryType::Fact, "the cellar key hangs by the door")
    });
    let relation = "SELECT count(*) FROM associations WHERE relation_type = 'updates'";
    assert_eq!(bench.count(relation), 1, "the newer was tied to the older when it got its vector");
    assert_eq!(bench.tend(), Tended { merged: 1, ..Tended::default() });
    let survivor = bench.store.get(&second.id).unwrap().unwrap();
    assert_eq!(survivor.content, "The cellar key hangs by the door.", "the same words are not written twice");
    let source = survivor.source.unwrap().to_string();
    assert!(source.contains("Ada") && source.contains("Una"), "{source}");
    assert!(bench.store.get(&first.id).unwrap().unwrap().forgotten);
    let ties = bench.store.associations(&second.id).unwrap();
    assert!(
        ties.iter().any(|tie| tie.source_id == tied.id && tie.relation_type == RelationType::PartOf),
        "{ties:?}"
    );
    assert!(ties.iter().any(|tie| tie.target_id == first.id && tie.relation_type == RelationType::Updates));
    bench.store.fill_vectors(&mut |_| {}).unwrap();
    assert_eq!(bench.count("SELECT count(*) FROM memory_vectors v JOIN memories m ON m.id = v.memory_id WHERE m.forgotten = 0"), 2);
    assert_eq!(
        bench
            .find("where is the key of the cellar?")
            .iter()
            .filter(|content| content.contains("cellar"))
            .count(),
        1
    );
    bench.clock.advance(2 * DAY);
    assert_eq!(bench.tend(), Tended::default(), "nothing is left to do");
}

#[test]
fn what_takes_the_place_of_another_is_not_mixed_with_it() {
    let bench = Bench::new(true);
    let old = bench.say(MemoryType::Fact, "Una works at the bakery in Bonn", 0.6);
    bench.save(NewMemory {
        associations: vec![NewAssociation {
            target_id: old.id.clone(),
            relation_type: RelationType::Updates,
            weight: 1.0,
        }],
        ..NewMemory::new(MemoryType::Fact, "Una has retired and lives by the sea now")
    });
    assert_eq!(bench.tend().merged, 0);
    let found = bench.find("what does Una do?");
    let place = |part: &str| found.iter().position(|content| content.contains(part)).unwrap();
    assert!(place("retired") < place("bakery"), "{found:?}");
}

#[test]
fn what_may_contradict_is_proposed_and_neither_merged_nor_guessed() {
    let bench = Bench::new(true);
    let older = bench.say(MemoryType::Fact, "The team meeting is on Monday at 5 pm in the big room", 0.6);
    let newer = bench.say(MemoryType::Fact, "The team meeting is on Monday at 6 pm in the big room", 0.6);
    assert_eq!(bench.tend().merged, 0, "another number is another fact");
    let proposals = bench.store.proposals(10).unwrap();
    assert_eq!(proposals.len(), 1);
    assert_eq!((&proposals[0].newer.id, &proposals[0].older.id), (&newer.id, &older.id));
    assert!(proposals[0].cosine >= 0.85, "{}", proposals[0].cosine);
    let relations = |kind: &str| {
        bench.count(&format!("SELECT count(*) FROM associations WHERE relation_type = '{kind}'"))
    };
    assert_eq!((relations("updates"), relations("contradicts"), relations("related_to")), (0, 0, 1));
    assert!(bench.store.decide(proposals[0].id, Decision::Updates).unwrap());
    assert!(!bench.store.decide(proposals[0].id, Decision::Contradicts).unwrap(), "once");
    assert_eq!((relations("updates"), relations("contradicts")), (1, 0));
    assert!(bench.store.proposals(10).unwrap().is_empty());
    assert_eq!(bench.find("when is the team meeting?")[0], newer.content, "the older one steps back");
}

#[test]
fn what_came_from_a_file_does_not_take_the_place_of_somebodys_word() {
    let bench = Bench::new(true);
    let from = |who: Who, content: &str| NewMemory {
        source: Some(Source::new(who, "x")),
        ..NewMemory::new(MemoryType::Fact, content)
    };
    let said = bench.save(from(Who::User, "The cellar key hangs by the door."));
    bench.save(from(Who::File, "the cellar key hangs by the door"));
    let relation = "SELECT count(*) FROM associations WHERE relation_type = 'updates'";
    assert_eq!(bench.count(relation), 0);
    assert_eq!(bench.tend().merged, 0, "nor is it mixed with it");
    bench.save(from(Who::User, "THE CELLAR KEY hangs by the door."));
    let of_said = format!("{relation} AND target_id = '{}'", said.id);
    assert_eq!(bench.count(&of_said), 1, "the newer word of the person does");
    assert!(!bench.store.get(&said.id).unwrap().unwrap().forgotten);
}
