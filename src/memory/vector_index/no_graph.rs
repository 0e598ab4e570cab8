//! Stands in for the graph where the program was built without `hnsw_rs`.

use super::segment::Search;
use super::state::{Prepared, State};
use super::store::Files;
use super::{VectorError, VectorIndex};
use crate::thread::Cancel;

pub(super) struct Graphs;

impl Graphs {
    pub(super) fn open(wanted: bool, _files: &Files, _state: &State) -> Result<Self, VectorError> {
        match wanted {
            true => Err(VectorError::Invalid("this program was built without hnsw".to_owned())),
            false => Ok(Self),
        }
    }

    pub(super) fn len(&self) -> Option<usize> {
        None
    }

    pub(super) fn apply(&self, _changes: &[Prepared]) {}
}

impl VectorIndex {
    pub(super) fn by_graph(&self, _search: &Search<'_>, _wanted: usize) -> Option<Vec<(u64, f32)>> {
        None
    }

    pub(super) fn tidy_graph(&self, _cancel: &Cancel) -> Result<bool, VectorError> {
        Ok(false)
    }
}
