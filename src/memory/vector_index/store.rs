//! Bringing the index to disk: what is only in memory is written as a segment, segments are merged, and
//! a manifest says what counts. Searches go on meanwhile with what they have.

use std::fs::File;
use std::sync::atomic::Ordering;

use super::code::Record;
use super::folder::Folder;
use super::manifest::{self, Standing};
use super::segment::{Segment, View};
use super::segment_file;
use super::{VectorError, VectorIndex, merge, read, write};
use crate::thread::{Cancel, lock};

/// A flush merges up to this many times the rows of a full tail; what is larger waits for the tidying.
const FLUSH_TAILS: usize = 4;
/// Steps of one tidying; each makes fewer segments of more, so there are never so many.
const STEPS_MAX: usize = 256;

/// What is known about the folder. Whoever holds it is the only one who writes there.
pub(super) struct Files {
    pub(super) folder: Folder,
    /// The right to write; none when another process has it.
    pub(super) lock: Option<File>,
    pub(super) model: String,
    /// What the segments on disk hold.
    pub(super) standing: Standing,
    pub(super) next_id: u64,
    /// Replaced; to be removed as soon as no manifest names them.
    pub(super) obsolete: Vec<String>,
    /// The revision of the state that the last manifest tells.
    pub(super) published: u64,
}

impl Files {
    pub(super) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn drop_later(&mut self, views: &[View]) {
        let written = views.iter().filter(|view| view.segment.mark.is_some());
        self.obsolete.extend(written.map(|view| segment_file::name(view.segment.id)));
    }
}

impl VectorIndex {
    /// Writes what is only in memory; little when little has changed, nothing when nothing has or when
    /// another process does the writing.
    ///
    /// # Errors
    /// The disk's. Everything is still found, and a later call tries again.
    pub fn flush(&self) -> Result<(), VectorError> {
        self.save(&mut lock(&self.files))
    }

    pub(super) fn save(&self, files: &mut Files) -> Result<(), VectorError> {
        if files.lock.is_none() {
            return Ok(());
        }
        let (standing, ids) = {
            let mut state = write(&self.state);
            state.freeze(files.next_id());
            (state.standing, merge::for_flush(&state.views, FLUSH_TAILS * self.tuning.tail_rows))
        };
        if !ids.is_empty() {
            // Not to be stopped: it is bounded, and comes at the end of a daemon too.
            self.rewrite(files, &ids, standing, &Cancel::new())?;
        }
        files.standing = standing;
        self.publish(files)
    }

    /// Merges segments and writes those anew of which much is dead, until nothing is due. Takes seconds
    /// with hundreds of thousands of vectors: for idle times. True when something was done.
    ///
    /// # Errors
    /// The disk's, or the stop request came: nothing is lost, a later call goes on.
    pub fn tidy(&self, cancel: &Cancel) -> Result<bool, VectorError> {
        let mut done = false;
        for _ in 0..STEPS_MAX {
            let mut files = lock(&self.files);
            if files.lock.is_none() {
                return Ok(false);
            }
            let ids = merge::for_tidying(&read(&self.state).views);
            let Some(ids) = ids else { break };
            let standing = files.standing;
            self.rewrite(&mut files, &ids, standing, cancel)?;
            self.publish(&mut files)?;
            done = true;
        }
        Ok(self.tidy_graph(cancel)? || done)
    }

    /// Writes what lives in these segments as one, and puts it in their place.
    fn rewrite(
        &self,
        files: &mut Files,
        ids: &[u64],
        standing: Standing,
        cancel: &Cancel,
    ) -> Result<(), VectorError> {
        let sources = read(&self.state).views_of(ids);
        let mut rows: Vec<(u64, &Record)> = sources.iter().flat_map(View::live_rows).collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        let id = files.next_id();
        let new = match rows.is_empty() {
            true => None,
            false => Some(Segment::write(&files.folder, id, standing.applied, &rows, &self.tuning, cancel)?),
        };
        write(&self.state).replace(&sources, new);
        files.drop_later(&sources);
        self.rewrites.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn publish(&self, files: &mut Files) -> Result<(), VectorError> {
        let (views, revision) = {
            let state = read(&self.state);
            let ours = state.views.iter().filter(|view| !view.stale).cloned().collect::<Vec<_>>();
            (ours, state.revision)
        };
        if revision == files.published {
            return Ok(());
        }
        manifest::publish(&files.folder, &files.model, files.standing, &views)?;
        files.published = revision;
        // Those from before a rebuild are no longer named, but still answer: an open file stays readable.
        for name in std::mem::take(&mut files.obsolete) {
            if let Err(error) = files.folder.remove(&name) {
                // Nobody needs it; the next open sweeps it away.
                log::debug!("{error}");
            }
        }
        Ok(())
    }
}
