//! What a search sees at one moment, and how a change of the database alters it.

use super::code::Record;
use super::manifest::Standing;
use super::segment::{Segment, View};
use super::tail::Tail;

/// One change, its numbers already made small; None takes the key out.
pub(super) struct Prepared {
    pub(super) sequence: u64,
    pub(super) key: u64,
    pub(super) record: Option<Box<Record>>,
    /// It came with numbers that are no vector.
    pub(super) refused: bool,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) views: Vec<View>,
    pub(super) tail: Tail,
    pub(super) standing: Standing,
    /// What lies there is not trusted, and is being replaced.
    pub(super) rebuilding: bool,
    /// Counts everything that a manifest would tell.
    pub(super) revision: u64,
}

impl State {
    pub(super) fn apply(&mut self, changes: &[Prepared]) {
        for change in changes {
            self.remove(change.key);
            if self.standing.newest.is_some_and(|(_, key)| key == change.key) {
                self.standing.newest = None;
            }
            if let Some(record) = &change.record {
                self.tail.put(change.key, record);
                self.standing.newest = Some((change.sequence, change.key));
            }
            self.standing.refused += u64::from(change.refused);
            self.standing.applied = change.sequence;
        }
        self.revision += 1;
    }

    fn remove(&mut self, key: u64) {
        // A key lives in one place; the newest segments are the last.
        let _gone = self.tail.remove(key) || self.views.iter_mut().rev().any(|view| view.kill(key));
    }

    /// Makes the tail a segment that is only in memory.
    pub(super) fn freeze(&mut self, id: u64) {
        if self.tail.len() > 0 {
            let segment = self.tail.freeze(id);
            self.views.push(View::new(segment));
            self.revision += 1;
        }
    }

    /// Puts `new` in the place of `sources`; what died in them since they were copied is dead in it too.
    pub(super) fn replace(&mut self, sources: &[View], new: Option<Segment>) {
        let mut new = new.map(View::new);
        for source in sources {
            let Some(now) = self.views.iter().find(|view| view.segment.id == source.segment.id) else {
                continue;
            };
            for row in now.dead.since(&source.dead) {
                if let Some(new) = &mut new {
                    new.kill(now.segment.keys[row]);
                }
            }
        }
        self.views.retain(|view| sources.iter().all(|source| source.segment.id != view.segment.id));
        self.views.extend(new);
        self.revision += 1;
    }

    /// From now on everything is only what was there before; all changes are applied again.
    pub(super) fn distrust(&mut self, id: u64) {
        self.freeze(id);
        self.views.iter_mut().for_each(|view| view.stale = true);
        self.standing = Standing::default();
        self.rebuilding = !self.views.is_empty();
        self.revision += 1;
    }

    /// Ends a rebuild: what it did not bring again is gone. Returns what is not needed any more.
    pub(super) fn trust(&mut self) -> Vec<View> {
        self.rebuilding = false;
        self.revision += 1;
        let (stale, views) = std::mem::take(&mut self.views).into_iter().partition(|view| view.stale);
        self.views = views;
        stale
    }

    /// Vectors, those from before a rebuild aside.
    pub(super) fn len(&self) -> usize {
        self.tail.len() + self.views.iter().filter(|view| !view.stale).map(|view| view.live).sum::<usize>()
    }

    pub(super) fn stale_len(&self) -> usize {
        self.views.iter().filter(|view| view.stale).map(|view| view.live).sum()
    }

    /// Rows that are only in memory.
    pub(super) fn unsaved(&self) -> usize {
        let of = |view: &&View| view.segment.mark.is_none() && !view.stale;
        self.tail.len() + self.views.iter().filter(of).map(|view| view.segment.keys.len()).sum::<usize>()
    }

    #[cfg(feature = "hnsw")]
    pub(super) fn record(&self, key: u64) -> Option<Record> {
        let in_view = |view: &View| view.find(key).map(|row| *view.segment.record(row));
        self.tail.record(key).copied().or_else(|| self.views.iter().rev().find_map(in_view))
    }

    pub(super) fn views_of(&self, ids: &[u64]) -> Vec<View> {
        self.views.iter().filter(|view| ids.contains(&view.segment.id)).cloned().collect()
    }
}
