//! Opening an index: what lies there is compared with its checksums, then with the database.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

use super::folder::Folder;
use super::graph::Graphs;
use super::manifest::{self, MODEL_BYTES_MAX, Manifest, Standing};
use super::segment::View;
use super::segment_file;
use super::state::State;
use super::store::Files;
use super::{IndexKind, Options, Summary, VectorError, VectorIndex, VectorSource};

/// Looks at files that another process changes, at most.
const LOOKS_BESIDE: usize = 4;

pub(super) fn open(
    path: &Path,
    source: Arc<dyn VectorSource>,
    options: Options,
) -> Result<VectorIndex, VectorError> {
    let Options { model, kind, tuning, probe } = options;
    if model.is_empty() || model.len() > MODEL_BYTES_MAX {
        return Err(VectorError::Invalid(format!("a model's name has 1 to {MODEL_BYTES_MAX} bytes")));
    }
    let folder = Folder::open(path, probe)?;
    let lock = folder.lock()?;
    let (mut state, whole) = match lock {
        Some(_) => load(&folder, &model),
        None => load_beside(&folder, &model),
    };
    // Read behind the files: another process may go on with both.
    let summary = source.summary()?;
    let fits = fits(&state.standing, summary, &*source)?;
    if !whole || !fits {
        if whole {
            log::warn!("the vector index in {} is of another state of the database", path.display());
        }
        state.distrust(0);
        state.rebuilding = summary.vectors > 0 || !state.views.is_empty();
    }
    let names: Vec<String> = state.views.iter().map(|view| segment_file::name(view.segment.id)).collect();
    if lock.is_some() {
        folder.sweep(&names);
    }
    let missing = summary.newest != state.standing.applied || state.rebuilding;
    let files = Files {
        standing: state.standing,
        next_id: state.views.iter().map(|view| view.segment.id).max().unwrap_or(0),
        obsolete: Vec::new(),
        published: if state.rebuilding { u64::MAX } else { state.revision },
        model,
        folder,
        lock,
    };
    let reads_only = files.lock.is_none();
    let graphs = Graphs::open(kind == IndexKind::Hnsw, &files, &state)?;
    Ok(VectorIndex {
        source,
        tuning,
        reads_only,
        state: RwLock::new(state),
        applying: Mutex::new(()),
        files: Mutex::new(files),
        graphs,
        catching_up: Mutex::new(()),
        wanted: AtomicBool::new(false),
        expected: AtomicU64::new(if missing { summary.vectors } else { 0 }),
        rewrites: AtomicU64::new(0),
    })
}

/// As [`load`], while another process may take away what was just named.
fn load_beside(folder: &Folder, model: &str) -> (State, bool) {
    let mut loaded = load(folder, model);
    for _ in 1..LOOKS_BESIDE {
        if loaded.1 {
            break;
        }
        loaded = load(folder, model);
    }
    loaded
}

/// What can be used of what lies there, and whether that is all of it.
fn load(folder: &Folder, model: &str) -> (State, bool) {
    let shown = folder.path("").display().to_string();
    let Manifest { standing, entries } = match manifest::read(folder, model) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return (State::default(), false),
        Err(reason) => {
            log::warn!("the vector index in {shown} is made again: {reason}");
            return (State::default(), false);
        }
    };
    let count = entries.len();
    let mut views = Vec::with_capacity(count);
    for entry in entries {
        match segment_file::read(folder, entry.id, entry.mark) {
            Ok(segment) => {
                let live = segment.keys.len().saturating_sub(entry.dead.count());
                views.push(View {
                    segment: Arc::new(segment),
                    dead: Arc::new(entry.dead),
                    live,
                    stale: false,
                });
            }
            Err(reason) => {
                let name = segment_file::name(entry.id);
                log::warn!("the vector index in {shown} is made again: {name}: {reason}");
            }
        }
    }
    let whole = views.len() == count;
    (State { views, standing, ..State::default() }, whole)
}

/// Whether the database is one that the index can have been made from.
fn fits(standing: &Standing, summary: Summary, source: &dyn VectorSource) -> Result<bool, VectorError> {
    if standing.applied > summary.newest {
        return Ok(false);
    }
    match standing.newest {
        None => Ok(true),
        Some((sequence, key)) => Ok(source.change_of(key)?.is_some_and(|change| change >= sequence)),
    }
}
