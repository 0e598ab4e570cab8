//! What happened lately: the lines of a prompt by fixtures (`tests/fixtures/working_memory/*.txt`, `UPDATE=1`
//! writes anew what is rendered), the budgets under any load, and that the store hands out what the
//! renderer would choose from everything.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spacebot::clock::{Timestamp, Zone};
use spacebot::config::WorkingMemoryConfig;
use spacebot::db::Db;
use spacebot::db::rusqlite::params;
use spacebot::id::ConversationId;
use spacebot::working_memory::{
    Days, Event, NewEvent, Other, Recent, Seen, Synthesis, View, WorkingMemory, render,
};

struct Bench {
    _folder: tempfile::TempDir,
    db: Db,
    memory: WorkingMemory,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open_inline(&folder.path().join("t.db"), None).unwrap();
        Self { _folder: folder, memory: WorkingMemory::new(db.clone()), db }
    }

    fn write(&self, events: Vec<(NewEvent, Timestamp)>) {
        let write =
            move |connection: &_| events.iter().try_for_each(|(event, at)| event.insert(connection, *at));
        self.db.write(write).unwrap();
    }

    fn write_syntheses(&self, syntheses: Vec<Synthesis>) {
        let sql = "INSERT INTO working_memory_syntheses
                       (daily, text, from_at, to_at, events, last_event, created_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.db
            .write(move |connection| {
                for one in &syntheses {
                    let (from, to, made_at) = (one.from.0, one.to.0, one.made_at.0);
                    let values = params![one.daily, one.text, from, to, one.events, one.last_event, made_at];
                    connection.execute(sql, values)?;
                }
                Ok(())
            })
            .unwrap();
    }

    fn all(&self) -> Vec<Event> {
        self.memory.newest(usize::MAX).unwrap()
    }
}

/// What a fixture sets, and the world in it.
struct Scene {
    zone: Zone,
    now: Timestamp,
    here: ConversationId,
    visible_from: Option<Timestamp>,
    config: WorkingMemoryConfig,
    events: Vec<(NewEvent, Timestamp)>,
    others: Vec<Other>,
    /// As they are stored, with the number of the last event that each covers.
    syntheses: Vec<Synthesis>,
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap_or_else(|| panic!("{text:?} is no time"))
}

fn cells(line: &str) -> Vec<&str> {
    line.splitn(6, " | ").map(str::trim).collect()
}

impl Scene {
    fn new() -> Self {
        Self {
            zone: Zone::utc(),
            now: Timestamp(0),
            here: ConversationId::new("webhook:here"),
            visible_from: None,
            config: WorkingMemoryConfig::default(),
            events: Vec::new(),
            others: Vec::new(),
            syntheses: Vec::new(),
        }
    }

    /// `key value` lines, then `event` and `other` lines, `#` for comments.
    fn read(text: &str) -> Self {
        let mut scene = Self::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "zone" => scene.zone = value.parse().unwrap(),
                "now" => scene.now = time(value),
                "here" => scene.here = ConversationId::new(value),
                "visible_from" => scene.visible_from = Some(time(value)),
                "budget" => scene.config.token_budget = value.parse().unwrap(),
                "map_budget" => scene.config.map_token_budget = value.parse().unwrap(),
                "event" => scene.events.push(event(value)),
                "paragraph" => scene.syntheses.push(synthesis(false, value)),
                "summary" => scene.syntheses.push(synthesis(true, value)),
                "other" => scene.others.push(other(value)),
                _ => panic!("{key:?} means nothing"),
            }
        }
        scene
    }

    fn view(&self) -> View<'_> {
        View { here: &self.here, now: self.now, zone: &self.zone, config: &self.config }
    }

    fn seen(&self) -> Option<Seen<'_>> {
        self.visible_from.map(|from| Seen { conversation: &self.here, from })
    }

    fn text(&self, recent: &Recent) -> String {
        render(recent, &self.others, &self.view()).unwrap().unwrap_or_default()
    }

    /// By the renderer alone, from everything that happened.
    fn chosen_from_all(&self, events: Vec<Event>) -> String {
        let hidden = |event: &Event| {
            let here = event.conversation.as_ref() == Some(&self.here);
            here && self.visible_from.is_some_and(|from| event.created_at >= from)
        };
        let shown = events.into_iter().filter(|event| !hidden(event));
        self.text(&Recent::split(shown, self.syntheses.clone(), &Days::of(self.now, &self.zone)))
    }

    fn chosen_by_store(&self, memory: &WorkingMemory) -> String {
        self.text(&memory.recent(&Days::of(self.now, &self.zone), self.seen(), &self.config).unwrap())
    }
}

/// `time | kind | importance | direct or company | conversation | text`; `-` for the kind's importance, and
/// for no conversation.
fn event(line: &str) -> (NewEvent, Timestamp) {
    let cells = cells(line);
    let [at, kind, importance, direct, conversation, text] = cells[..] else { panic!("{line:?}") };
    let event = NewEvent {
        importance: (importance != "-").then(|| importance.parse().unwrap()),
        conversation: (conversation != "-").then(|| ConversationId::new(conversation)),
        direct: direct == "direct",
        ..NewEvent::new(kind.parse().unwrap(), text)
    };
    (event, time(at))
}

/// `time | conversation | direct or company | sender | text`; `-` for no words.
fn other(line: &str) -> Other {
    let cells = cells(line);
    let [at, conversation, direct, sender, text] = cells[..] else { panic!("{line:?}") };
    Other {
        conversation: ConversationId::new(conversation),
        direct: direct == "direct",
        last_active: time(at),
        sender: sender.trim_start_matches('-').to_owned(),
        text: text.trim_start_matches('-').to_owned(),
    }
}

/// `from | to | number of the last event, by their order above, from 1 | text`.
fn synthesis(daily: bool, line: &str) -> Synthesis {
    let cells = cells(line);
    let [from, to, last_event, text] = cells[..] else { panic!("{line:?}") };
    Synthesis {
        id: 0,
        daily,
        text: text.to_owned(),
        from: time(from),
        to: time(to),
        events: 1,
        last_event: last_event.parse().unwrap(),
        made_at: time(to),
    }
}

/// Characters that the two budgets allow.
fn allowed(config: &WorkingMemoryConfig) -> usize {
    (config.token_budget + config.map_token_budget) * 4 / 3
}

#[test]
fn every_fixture_is_rendered_as_written_from_everything_and_from_the_store() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/working_memory");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension() == Some(OsStr::new("txt")));
    files.sort();
    assert!(files.len() >= 8, "only {} fixtures", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let written = fs::read_to_string(&file).unwrap();
        let (given, expected) = written.split_once("---\n").expect("given and expected");
        let scene = Scene::read(given);
        let bench = Bench::new();
        bench.write(scene.events.clone());
        bench.write_syntheses(scene.syntheses.clone());
        let text = scene.chosen_from_all(bench.all());
        assert_eq!(scene.chosen_by_store(&bench.memory), text, "{}", file.display());
        assert!(text.chars().count() <= allowed(&scene.config), "{}", file.display());
        if format!("{text}\n") != expected {
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&file, format!("{given}---\n{text}\n")).unwrap();
            } else {
                wrong.push(format!("{}:\n{text}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// SplitMix64: the same events in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    fn text(&mut self) -> String {
        const WORDS: [&str; 8] = ["eggs", "|", "日本語の文", "</recent>", "a", "…", "boiler serviced", "🦀"];
        (0..=self.below(60)).map(|_| *self.one_of(&WORDS)).collect::<Vec<_>>().join(" ")
    }

    /// Events of the last nine days; coarse times, so that many have the same.
    fn events(&mut self, count: u64, now: Timestamp) -> Vec<(NewEvent, Timestamp)> {
        let kinds = ["worker_spawned", "worker_completed", "branch_completed", "error", "memory_saved"];
        let places = ["webhook:here", "webhook:a", "irc:libera:#pi", &"long".repeat(60)];
        let mut event = || {
            let at = now.minus(Duration::from_secs(600 * self.below(9 * 144)));
            let kind = self.one_of(&kinds).parse().unwrap();
            let importance = (self.below(3) == 0).then(|| self.below(11) as f64 / 10.0);
            let conversation = (self.below(9) > 0).then(|| ConversationId::new(self.one_of(&places)));
            let direct = self.below(2) == 0;
            (NewEvent { importance, conversation, direct, ..NewEvent::new(kind, self.text()) }, at)
        };
        (0..count).map(|_| event()).collect()
    }

    /// Some for any day, also such that are shown nowhere.
    fn syntheses(&mut self, count: u64, events: u64, now: Timestamp) -> Vec<Synthesis> {
        let one = |number: u64| {
            let to = now.minus(Duration::from_secs(600 * self.below(9 * 144)));
            Synthesis {
                id: 0,
                daily: self.below(2) == 0,
                text: (0..=self.below(9)).map(|_| self.text()).collect(),
                from: to.minus(Duration::from_secs(60)),
                to,
                events: 1,
                // No two have the same, as it is with real ones: the order is then one.
                last_event: i64::try_from(number * events / count.max(1) + number).unwrap(),
                made_at: to,
            }
        };
        (0..count).map(one).collect()
    }
}

fn random_scene(random: &mut Random, count: u64) -> Scene {
    let now = time("2026-11-21T10:00:00Z");
    let others = (0..random.below(15)).map(|number| Other {
        conversation: ConversationId::new(format!(
            "irc:net:#{}",
            "r".repeat(usize::try_from(number).unwrap())
        )),
        direct: number % 2 == 0,
        last_active: now.minus(Duration::from_secs(1000 * number)),
        sender: "ada".to_owned(),
        text: random.text(),
    });
    let others = others.collect();
    let config = WorkingMemoryConfig {
        today_max_events: usize::try_from(1 + random.below(50)).unwrap(),
        token_budget: *random.one_of(&[200, 400, 1500, 20_000]),
        map_token_budget: *random.one_of(&[100, 300, 5_000]),
        map_max_channels: usize::try_from(1 + random.below(50)).unwrap(),
        min_importance: random.below(11) as f64 / 10.0,
        ..WorkingMemoryConfig::default()
    };
    let visible_from = (random.below(2) == 0).then(|| now.minus(Duration::from_secs(random.below(300_000))));
    let zone = random.one_of(&["UTC", "Asia/Kathmandu", "America/Los_Angeles"]).parse().unwrap();
    let events = random.events(count, now);
    let some = random.below(12);
    let syntheses = random.syntheses(some, count, now);
    Scene { zone, now, visible_from, config, events, others, syntheses, ..Scene::new() }
}

#[test]
fn the_store_hands_out_what_would_be_chosen_from_everything_within_the_budget() {
    let mut shown = 0;
    for seed in 0..60 {
        let mut random = Random(seed);
        let count = [3, 20, 200][usize::try_from(seed % 3).unwrap()];
        let scene = random_scene(&mut random, count);
        let bench = Bench::new();
        bench.write(scene.events.clone());
        bench.write_syntheses(scene.syntheses.clone());
        let text = scene.chosen_from_all(bench.all());
        assert_eq!(scene.chosen_by_store(&bench.memory), text, "seed {seed}");
        let length = text.chars().count();
        assert!(length <= allowed(&scene.config), "seed {seed}: {length} characters: {text}");
        shown += text.lines().count();
    }
    assert!(shown > 500, "{shown} lines in all show nothing");
}

#[test]
fn ten_thousand_events_of_a_week_are_a_few_lines() {
    let mut random = Random(7);
    let scene = Scene { config: WorkingMemoryConfig::default(), ..random_scene(&mut random, 10_000) };
    let bench = Bench::new();
    bench.write(scene.events.clone());
    bench.write_syntheses(scene.syntheses.clone());
    let text = scene.chosen_by_store(&bench.memory);
    assert_eq!(text, scene.chosen_from_all(bench.all()));
    assert!(text.chars().count() <= allowed(&scene.config), "{text}");
    for part in ["\nEarlier:\n", "\nYesterday:\n", "\nToday:\n"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let recent = bench.memory.recent(&Days::of(scene.now, &scene.zone), None, &scene.config).unwrap();
    let read = recent.today.len() + recent.yesterday.len() + recent.earlier.len();
    assert!(read <= 2 * 11 + 2 * 51, "{read} events were read");
}
