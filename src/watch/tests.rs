//! The kernel queues its word before the call that changed a file returns, so nothing waits here.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::clock::{Clock, SimulatedClock, SystemClock, Timestamp};

struct Bench {
    folder: tempfile::TempDir,
    watcher: Watcher,
    list: Vec<Watched>,
}

impl Bench {
    /// Watches what is named; a slash at the end makes it a folder.
    fn watching(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let watched = |name: &&str| match name.strip_suffix('/') {
            Some(name) => Watched::Folder(folder.path().join(name)),
            None => Watched::File(folder.path().join(name)),
        };
        let list = names.iter().map(watched).collect();
        let watcher = Watcher::new(SystemClock::shared(), Bell::new().unwrap());
        let mut bench = Self { folder, watcher, list };
        bench.look();
        bench
    }

    fn look(&mut self) {
        self.watcher.watch(&self.list).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str) {
        fs::write(self.path(name), "text").unwrap();
    }

    /// What happened since the last question; then everything is looked at anew.
    fn changed(&mut self) -> bool {
        let changed = self.watcher.has_changed();
        self.look();
        changed
    }
}

#[test]
fn a_file_that_comes_is_written_renamed_or_deleted_is_noticed_and_its_neighbours_are_not() {
    let mut bench = Bench::watching(&["c.toml"]);
    bench.write("c.toml");
    assert!(bench.changed(), "it came");
    bench.write("c.toml");
    assert!(bench.changed(), "it was written");
    bench.write("c.toml.new");
    bench.write("other");
    fs::create_dir(bench.path("data")).unwrap();
    fs::read(bench.path("c.toml")).unwrap();
    assert!(!bench.changed(), "something else");
    fs::rename(bench.path("c.toml.new"), bench.path("c.toml")).unwrap();
    assert!(bench.changed(), "another took its place");
    fs::rename(bench.path("c.toml"), bench.path("away")).unwrap();
    assert!(bench.changed(), "it was taken away");
    fs::hard_link(bench.path("away"), bench.path("c.toml")).unwrap();
    assert!(bench.changed(), "it is back");
    fs::remove_file(bench.path("c.toml")).unwrap();
    assert!(bench.changed(), "it was deleted");
    assert!(!bench.changed());
}

#[test]
fn half_a_file_wakes_nobody() {
    let mut bench = Bench::watching(&["c.toml"]);
    bench.write("c.toml");
    assert!(bench.changed());
    let mut file = fs::File::create(bench.path("c.toml")).unwrap();
    std::io::Write::write_all(&mut file, b"half").unwrap();
    assert!(!bench.changed(), "it is still being written");
    drop(file);
    assert!(bench.changed());
}

#[test]
fn a_link_that_is_swapped_is_noticed_wherever_it_stands() {
    let mut bench = Bench::watching(&["etc/c.toml"]);
    for release in ["1", "2", "3"] {
        fs::create_dir_all(bench.path("releases").join(release)).unwrap();
        bench.write(&format!("releases/{release}/c.toml"));
    }
    symlink("releases/1", bench.path("current")).unwrap();
    assert!(!bench.changed(), "no way leads there yet");
    symlink("current", bench.path("etc")).unwrap();
    assert!(bench.changed(), "now one does");
    for release in ["2", "3"] {
        symlink(format!("releases/{release}"), bench.path("next")).unwrap();
        assert!(!bench.changed());
        fs::rename(bench.path("next"), bench.path("current")).unwrap();
        assert!(bench.changed(), "the link in the middle");
        bench.write("releases/1/c.toml");
        assert!(!bench.changed(), "what is no longer on the way");
        bench.write(&format!("releases/{release}/c.toml"));
        assert!(bench.changed(), "what it leads to now");
    }
}

#[test]
fn a_folder_that_is_replaced_is_watched_again() {
    let mut bench = Bench::watching(&["home/ROLE.md", "home/prompts/"]);
    assert!(!bench.changed());
    fs::create_dir(bench.path("home")).unwrap();
    assert!(bench.changed(), "the folder came");
    bench.write("home/ROLE.md");
    assert!(bench.changed());
    fs::create_dir(bench.path("home/prompts")).unwrap();
    assert!(bench.changed());
    bench.write("home/prompts/any");
    assert!(bench.changed(), "every file of a folder matters");
    fs::rename(bench.path("home"), bench.path("old")).unwrap();
    assert!(bench.changed(), "the folder went");
    fs::create_dir(bench.path("home")).unwrap();
    assert!(bench.changed(), "another came");
    bench.write("old/ROLE.md");
    assert!(!bench.changed(), "the old one is nobody's");
    bench.write("home/ROLE.md");
    assert!(bench.changed());
}

#[test]
fn a_ring_and_a_stop_end_the_wait_and_more_than_fits_is_a_change() {
    let mut bench = Bench::watching(&["c.toml"]);
    let cancel = Cancel::new();
    bench.watcher.bell.ring();
    bench.watcher.bell.ring();
    assert_eq!(bench.watcher.wait(&cancel), Woken::Rung, "two rings are one");
    // The kernel keeps a bounded number of words, and different ones are not put together.
    let most: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let (one, other) = (bench.path("one"), bench.path("other"));
    fs::write(&one, "").unwrap();
    for _ in 0..most / 4 + 1 {
        fs::rename(&one, &other).unwrap();
        fs::rename(&other, &one).unwrap();
    }
    assert!(bench.changed(), "some were lost");
    cancel.cancel();
    assert_eq!(bench.watcher.wait(&cancel), Woken::Cancelled);
}

#[test]
fn it_waits_until_the_changes_are_over_but_not_for_ever() {
    let mut settle = Settle::default();
    assert_eq!(settle.due(), None);
    settle.changed(Duration::ZERO);
    assert_eq!(settle.due(), Some(SETTLE));
    settle.changed(SETTLE / 2);
    assert_eq!(settle.due(), Some(SETTLE + SETTLE / 2), "another change");
    settle.changed(SETTLE_MAX - Duration::from_millis(1));
    assert_eq!((settle.due(), settle.is_last(SETTLE)), (Some(SETTLE_MAX), false));
    assert!(settle.is_last(SETTLE_MAX));
}

#[test]
fn what_is_fresh_may_be_half_written() {
    let mut bench = Bench::watching(&["c.toml", "prompts/"]);
    let clock = SimulatedClock::starting_at(Timestamp(1_000_000));
    bench.watcher.clock = clock.clone();
    assert!(!bench.watcher.is_fresh(), "nothing is there");
    fs::create_dir(bench.path("prompts")).unwrap();
    for name in ["c.toml", "prompts/x"] {
        let file = fs::File::create(bench.path(name)).unwrap();
        let written_at = |milliseconds: i64| {
            let at = u64::try_from(clock.now().0 + milliseconds).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_millis(at)).unwrap();
        };
        for (milliseconds, fresh) in [(-499, true), (0, true), (60_000, false), (-500, false)] {
            written_at(milliseconds);
            assert_eq!(bench.watcher.is_fresh(), fresh, "{name} {milliseconds}");
        }
    }
}

#[test]
fn a_change_is_told_when_it_has_settled() {
    let mut bench = Bench::watching(&["c.toml"]);
    bench.write("c.toml");
    let begun = bench.watcher.clock.monotonic();
    assert_eq!(bench.watcher.wait(&Cancel::new()), Woken::Changed);
    assert!(bench.watcher.clock.monotonic() - begun >= SETTLE);
}
