//! Whatever leaves a window, in whatever order and with a crash at any commit: every line stands in the
//! window or behind exactly one summary, and its exact words are found.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use super::*;
use crate::clock::{SimulatedClock, Timestamp};
use crate::conversation::{NewLine, Place, Role, TurnCommit};
use crate::db::{CommitGate, Db};
use crate::id::InstanceId;

const DAY: Duration = Duration::from_secs(86_400);

fn place(name: &str) -> Place {
    Place {
        conversation: ConversationId::new(name),
        instance: InstanceId::new("webhook"),
        direct: true,
        name: name.to_owned(),
    }
}

fn here() -> ConversationId {
    ConversationId::new("webhook:here")
}

fn new_line(role: Role, content: &str) -> NewLine {
    let name = (role == Role::User).then(|| "Una".to_owned());
    NewLine {
        role,
        sender_id: name.clone(),
        sender_name: name,
        content: content.to_owned(),
        at: Timestamp(7),
    }
}

fn open(folder: &Path) -> Conversations {
    let db = Db::open_inline(&folder.join("t.db"), None).unwrap();
    Conversations::new(db, SimulatedClock::starting_at(Timestamp(1000)))
}

/// So many lines, `n0` and so on.
fn say(c: &Conversations, name: &str, from: usize, count: usize) {
    let role = |n: usize| if n.is_multiple_of(2) { Role::User } else { Role::Assistant };
    let lines = (from..from + count).map(|n| new_line(role(n), &format!("n{n} Ä-{name}"))).collect();
    c.commit_turn(&place(name), TurnCommit { lines, ..TurnCommit::default() }).unwrap();
}

fn swap(c: &Conversations, count: usize, in_place: InPlace) -> bool {
    let window = c.window(&here()).unwrap();
    let leaving = c.leaving(&here(), &window, count).unwrap();
    c.change_window(&here(), Change::Swap { leaving, in_place, unread: true }, Vec::new()).unwrap()
}

fn summary(text: &str) -> InPlace {
    InPlace::Summary(text.to_owned())
}

fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.content.split(' ').next().unwrap()).collect()
}

#[test]
fn a_window_without_changes_begins_with_the_same_lines() {
    let folder = tempfile::tempdir().unwrap();
    let c = open(folder.path());
    for turn in 0..60 {
        let history = c.history(&here(), 1_000).unwrap();
        assert!(history.summaries.is_empty());
        assert_eq!(history.lines.len(), turn * 2);
        assert!(turn == 0 || history.lines[0].content.starts_with("n0 "));
        say(&c, "webhook:here", turn * 2, 2);
    }
    let history = c.history(&here(), 50).unwrap();
    assert!(history.overflows);
    assert_eq!((history.lines.len(), texts(&history.lines)[0]), (50, "n70"), "the newest");
}

#[test]
fn a_summary_stands_where_the_lines_stood_and_these_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let c = open(folder.path());
    say(&c, "webhook:here", 0, 10);
    say(&c, "webhook:there", 0, 10);
    assert!(swap(&c, 4, summary("they said n0 to n3")));
    let history = c.history(&here(), 100).unwrap();
    assert_eq!(texts(&history.lines), ["n4", "n5", "n6", "n7", "n8", "n9"]);
    let head = &history.summaries[0];
    assert_eq!((head.tier, head.lines, head.text.as_deref()), (1, 4, Some("they said n0 to n3")));
    assert_eq!(c.window(&here()).unwrap().generation, 1);
    let found = c.find(&here(), &["ä-WEBHOOK:here".to_owned(), "N2".to_owned()], None, 5).unwrap();
    assert_eq!((texts(&found.lines), found.earlier), (vec!["n2"], None));
    assert_eq!(c.lines(&here(), head.first_line, head.last_line).unwrap().len(), 4);
    // A second one is put behind the first; the first stays as it is.
    assert!(swap(&c, 2, summary("then n4 and n5")));
    let after = c.history(&here(), 100).unwrap();
    assert_eq!(after.summaries[0], *head);
    assert_eq!(after.summaries.len(), 2);
    assert!(c.history(&ConversationId::new("webhook:there"), 100).unwrap().summaries.is_empty());
}

#[test]
fn what_was_made_for_another_window_is_refused_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let c = open(folder.path());
    say(&c, "webhook:here", 0, 12);
    let window = c.window(&here()).unwrap();
    let leaving = c.leaving(&here(), &window, 4).unwrap();
    // Lines that come meanwhile do not matter, another change does.
    say(&c, "webhook:here", 12, 2);
    assert!(swap(&c, 6, InPlace::Marker { awaited: true }));
    let before = c.window(&here()).unwrap();
    let late = Change::Swap { leaving: leaving.clone(), in_place: summary("late"), unread: true };
    assert!(!c.change_window(&here(), late, Vec::new()).unwrap());
    let lying = Leaving { generation: before.generation, ..leaving };
    let late = Change::Swap { leaving: lying, in_place: summary("late"), unread: true };
    assert!(!c.change_window(&here(), late, Vec::new()).unwrap(), "these lines have left already");
    let marker = before.summaries[0].id;
    let late = Change::Fill { generation: 0, summary: marker, text: "late".to_owned() };
    assert!(!c.change_window(&here(), late, Vec::new()).unwrap());
    assert_eq!(c.window(&here()).unwrap(), before);
    let fill = Change::Fill { generation: before.generation, summary: marker, text: "six".to_owned() };
    assert!(c.change_window(&here(), fill, Vec::new()).unwrap());
    let filled = c.window(&here()).unwrap();
    assert_eq!((filled.summaries[0].text.as_deref(), filled.summaries[0].awaited), (Some("six"), false));
    let generation = filled.generation;
    let again = Change::Fill { generation, summary: marker, text: "again".to_owned() };
    assert!(!c.change_window(&here(), again, Vec::new()).unwrap(), "it has its summary");
    let strange = Change::Roll { generation, several: vec![marker, 99], text: "both".to_owned() };
    assert!(!c.change_window(&here(), strange, Vec::new()).unwrap());
    assert_eq!(c.window(&here()).unwrap(), filled);
}

#[test]
fn without_a_model_one_marker_stands_for_all_that_has_left() {
    let folder = tempfile::tempdir().unwrap();
    let c = open(folder.path());
    say(&c, "webhook:here", 0, 40);
    for _ in 0..4 {
        assert!(swap(&c, 8, InPlace::Marker { awaited: false }));
    }
    let window = c.window(&here()).unwrap();
    assert_eq!((window.summaries.len(), window.summaries[0].lines, window.lines.len()), (1, 32, 8));
    let head = &window.summaries[0];
    assert_eq!(c.lines(&here(), head.first_line, head.last_line).unwrap().len(), 32);
}

#[test]
fn memories_are_taken_once_and_tried_for_a_few_times() {
    let folder = tempfile::tempdir().unwrap();
    let c = open(folder.path());
    say(&c, "webhook:here", 0, 20);
    assert!(!c.any_unread(&here()).unwrap());
    assert!(swap(&c, 4, summary("a")) && swap(&c, 4, summary("b")));
    let first = c.unread(&here()).unwrap().unwrap();
    assert_eq!(texts(&first.lines), ["n0", "n1", "n2", "n3"]);
    c.end_reading(first.archive, true, Vec::new()).unwrap();
    let second = c.unread(&here()).unwrap().unwrap();
    assert_eq!(texts(&second.lines), ["n4", "n5", "n6", "n7"]);
    for _ in 0..2 {
        c.end_reading(second.archive, false, Vec::new()).unwrap();
        assert!(c.any_unread(&here()).unwrap());
    }
    c.end_reading(second.archive, false, Vec::new()).unwrap();
    assert!(!c.any_unread(&here()).unwrap(), "given up");
}

#[test]
fn plain_copies_go_after_their_time_and_nobody_notices() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open_inline(&folder.path().join("t.db"), None).unwrap();
    let clock = SimulatedClock::starting_at(Timestamp(1000));
    let c = Conversations::new(db, clock.clone());
    let plain = || {
        let sql = "SELECT count(*) FROM conversation_messages WHERE channel_id = 'webhook:here'";
        c.db().read(|connection| Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))?)).unwrap()
    };
    say(&c, "webhook:here", 0, 30);
    assert!(swap(&c, 10, summary("a")));
    clock.advance(40 * DAY);
    assert!(swap(&c, 10, summary("b")));
    let all = c.find(&here(), &[], None, 100).unwrap().lines;
    assert_eq!((all.len(), plain()), (30, 30));
    c.forget_old(30 * DAY).unwrap();
    assert_eq!(plain(), 20, "the first ten");
    assert_eq!(c.find(&here(), &[], None, 100).unwrap().lines, all);
    assert_eq!(c.lines(&here(), all[3].id, all[25].id).unwrap(), all[3..=25]);
    // Page by page, and by words.
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let found = c.find(&here(), &[], before, 7).unwrap();
        pages.splice(0..0, found.lines);
        before = found.earlier;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(pages, all);
    let found = c.find(&here(), &["n4".to_owned()], None, 3).unwrap();
    assert_eq!(texts(&found.lines), ["n4"]);
    // What cannot be read back is not deleted.
    let damage = "UPDATE conversation_archives SET body = x'00' WHERE plain = 1";
    c.db().write(move |connection| Ok(connection.execute(damage, [])?)).unwrap();
    clock.advance(40 * DAY);
    c.forget_old(30 * DAY).unwrap();
    assert_eq!(plain(), 20);
}

/// Lets so many commits through; the crash comes before or after the next one.
struct Disk {
    left: AtomicI64,
    after: AtomicBool,
}

impl CommitGate for Disk {
    fn before_commit(&self) -> Result<(), DbError> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        let crashed = left < 1 || left == 1 && !self.after.load(Ordering::SeqCst);
        if crashed { Err(DbError::Corrupt("simulated crash".to_owned())) } else { Ok(()) }
    }

    fn after_commit(&self) -> Result<(), DbError> {
        let crashed = self.left.load(Ordering::SeqCst) <= 0;
        if crashed { Err(DbError::Corrupt("simulated crash".to_owned())) } else { Ok(()) }
    }
}

struct World {
    folder: tempfile::TempDir,
    clock: Arc<SimulatedClock>,
    disk: Arc<Disk>,
    c: Conversations,
    dice: u64,
    /// What was said, and what may have been said when a crash came.
    said: Vec<String>,
    perhaps: Vec<String>,
    /// Read for a summary that is still being made.
    pending: Option<Leaving>,
    crashes: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let ram = Path::new("/dev/shm");
        let folder = if ram.is_dir() { tempfile::tempdir_in(ram) } else { tempfile::tempdir() }.unwrap();
        let clock = SimulatedClock::starting_at(Timestamp(1000));
        let (disk, c) = Self::open(folder.path(), &clock);
        let (said, perhaps) = (Vec::new(), Vec::new());
        Self { folder, clock, disk, c, dice: seed, said, perhaps, pending: None, crashes: 0 }
    }

    fn open(folder: &Path, clock: &Arc<SimulatedClock>) -> (Arc<Disk>, Conversations) {
        let disk = Arc::new(Disk { left: AtomicI64::new(i64::MAX), after: AtomicBool::new(false) });
        let db = Db::open_inline(&folder.join("t.db"), Some(disk.clone())).unwrap();
        (disk, Conversations::new(db, clock.clone()))
    }

    fn roll(&mut self, sides: u64) -> usize {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.dice >> 33) % sides).unwrap()
    }

    fn step(&mut self) -> Result<(), DbError> {
        match self.roll(10) {
            0..=3 => self.say(),
            4 => {
                let window = self.c.window(&here())?;
                let count = self.roll(1 + window.lines.len() as u64);
                self.pending = Some(self.c.leaving(&here(), &window, count)?);
                Ok(())
            }
            5 => {
                let Some(leaving) = self.pending.take() else { return Ok(()) };
                let change = Change::Swap { leaving, in_place: summary("s"), unread: false };
                self.c.change_window(&here(), change, Vec::new()).map(drop)
            }
            6 => {
                let window = self.c.window(&here())?;
                let leaving = self.c.leaving(&here(), &window, window.lines.len().div_ceil(2))?;
                let in_place = InPlace::Marker { awaited: self.roll(2) == 0 };
                let change = Change::Swap { leaving, in_place, unread: false };
                self.c.change_window(&here(), change, Vec::new()).map(drop)
            }
            7 => {
                let Window { generation, summaries, .. } = self.c.window(&here())?;
                let Some(marker) = summaries.iter().find(|one| one.awaited) else { return Ok(()) };
                let change = Change::Fill { generation, summary: marker.id, text: "filled".to_owned() };
                self.c.change_window(&here(), change, Vec::new()).map(drop)
            }
            8 => {
                let Window { generation, summaries, .. } = self.c.window(&here())?;
                let several: Vec<i64> = summaries.iter().take(3).map(|one| one.id).collect();
                let change = Change::Roll { generation, several, text: "rolled".to_owned() };
                self.c.change_window(&here(), change, Vec::new()).map(drop)
            }
            _ => {
                self.clock.advance(20 * DAY);
                self.c.forget_old(30 * DAY)
            }
        }
    }

    fn say(&mut self) -> Result<(), DbError> {
        let count = 1 + self.roll(5);
        let begin = self.said.len();
        let words: Vec<String> = (begin..begin + count).map(|n| format!("word{n}.")).collect();
        let role = |n: usize| [Role::User, Role::Assistant, Role::Event][n % 3];
        let lines = words.iter().enumerate().map(|(n, word)| new_line(role(n), word)).collect();
        self.perhaps = words;
        self.c.commit_turn(&place("webhook:here"), TurnCommit { lines, ..TurnCommit::default() })?;
        self.said.append(&mut self.perhaps);
        Ok(())
    }

    fn restart(&mut self) {
        self.crashes += 1;
        (self.disk, self.c) = Self::open(self.folder.path(), &self.clock);
        self.pending = None;
        let stored = self.c.find(&here(), &[], None, 100_000).unwrap().lines.len();
        if stored > self.said.len() {
            self.said.append(&mut self.perhaps);
        }
        self.perhaps.clear();
    }

    fn check(&mut self) {
        let all = self.c.find(&here(), &[], None, 100_000).unwrap().lines;
        let words: Vec<&str> = all.iter().map(|line| line.content.as_str()).collect();
        assert_eq!(words, self.said, "every line, once, in its order");
        let window = self.c.window(&here()).unwrap();
        let (mut covered, mut end) = (0, 0);
        for one in &window.summaries {
            assert!(one.first_line > end && one.last_line >= one.first_line, "{:?}", window.summaries);
            let lines = self.c.lines(&here(), one.first_line, one.last_line).unwrap();
            assert_eq!(lines.len() as u64, one.lines, "{one:?}");
            (covered, end) = (covered + lines.len(), one.last_line);
        }
        assert!(window.lines.first().is_none_or(|line| line.id > end), "{window:?}");
        assert_eq!(covered + window.lines.len(), self.said.len(), "nothing is in between");
        if !self.said.is_empty() {
            let which = self.roll(self.said.len() as u64);
            let word = self.said[which].clone();
            let found = self.c.find(&here(), std::slice::from_ref(&word), None, 2).unwrap().lines;
            assert_eq!(found.len(), 1, "{word} is found");
        }
    }
}

#[test]
fn no_line_is_lost_or_doubled_whatever_crashes() {
    let mut crashes = 0;
    for seed in 1..=80 {
        let mut world = World::new(seed);
        for _ in 0..60 {
            if world.roll(6) == 0 {
                let (after, left) = (world.roll(2) == 0, world.roll(3));
                world.disk.after.store(after, Ordering::SeqCst);
                world.disk.left.store(i64::try_from(left).unwrap() + 1, Ordering::SeqCst);
            }
            if world.step().is_err() || world.disk.left.load(Ordering::SeqCst) <= 0 {
                world.restart();
            }
            world.check();
        }
        crashes += world.crashes;
    }
    assert!(crashes > 80, "only {crashes} crashes");
}
