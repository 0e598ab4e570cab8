//! The alternative: a graph of neighbours (`hnsw_rs`) that says which keys may be near.
//!
//! The segments stay what they are and have the last word: a key that the graph offers is looked up there,
//! so that nothing deleted or replaced is found, and searches with a filter or for very many rows pass
//! the graph by. It takes the codes as they are in a [`Record`], with a distance of its own: that of the
//! library panics when rounding makes a cosine larger than one.
//!
//! The library ends the process on files that it does not like; so none is loaded whose checksums are not
//! right.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Mutex, RwLock};

use hnsw_rs::api::AnnT;
use hnsw_rs::hnsw::Hnsw;
use hnsw_rs::hnswio::HnswIo;
use hnsw_rs::prelude::Distance;

use super::bytes::words;
use super::code::Record;
use super::folder::Folder;
use super::kernels::{RECORD, kernels};
use super::nearest::Highest;
use super::segment::{Search, look};
use super::state::{Prepared, State};
use super::store::Files;
use super::{VectorError, VectorIndex, read, write};
use crate::thread::{Cancel, contained, lock};

/// Neighbours of a point; the library's and the literature's usual one.
const NEIGHBOURS: usize = 16;
/// Candidates while building: more gives better neighbours, slower.
const WIDTH_BUILDING: usize = 200;
const LAYERS: usize = 16;
/// Candidates of a search for each row that it wants, measured for a recall of .995 at 100,000.
const WIDTH_PER_ROW: usize = 8;
/// Searches for more than this look at the codes instead.
const WANTED_MAX: usize = 400;
/// Points that are no longer true, in parts of all, before the graph is built anew.
const WASTE_SHARE: usize = 2;
/// Points built between two looks at the stop request.
const BLOCK: usize = 64;
/// Points that came since the graph was last written, in parts of all, before it is written again.
const UNWRITTEN_SHARE: usize = 10;
/// Largest files that are loaded, in bytes: ten million points.
const BYTES_MAX: u64 = 16 << 30;
const FOLDER: &str = "graph";
const UNFINISHED: &str = "graph-unfinished";
const PARTS: [&str; 2] = ["graph.hnsw.graph", "graph.hnsw.data"];
const SEAL: &str = "seal";
const BASENAME: &str = "graph";

/// Half of the distance on the sphere, from 0 to 2, and never a NaN.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Angle;

impl Distance<u8> for Angle {
    fn eval(&self, one: &[u8], other: &[u8]) -> f32 {
        let (Some((one, _)), [other]) = (one.split_first_chunk::<RECORD>(), other.as_chunks().0) else {
            return 2.0;
        };
        (1.0 - cosine(one, other)).clamp(0.0, 2.0)
    }
}

fn cosine(one: &Record, other: &Record) -> f32 {
    (kernels().cosine)(one, other)
}

type Points = Hnsw<'static, u8, Angle>;

struct Graph {
    points: Points,
    /// What each key's last point was made of; it may have died since.
    sums: Mutex<HashMap<u64, u32>>,
}

impl Graph {
    fn empty(rows: usize) -> Self {
        Self {
            points: Hnsw::new(NEIGHBOURS, rows.max(1_000), LAYERS, WIDTH_BUILDING, Angle),
            sums: Mutex::default(),
        }
    }

    /// False when the library failed: the graph is not to be used any more.
    fn put(&self, key: u64, record: &Record) -> bool {
        let Ok(id) = usize::try_from(key) else { return false };
        let done = contained(|| self.points.insert_slice((record, id)));
        lock(&self.sums).insert(key, crc32fast::hash(record));
        done.inspect_err(|panic| log::error!("the graph of vectors: {panic}")).is_ok()
    }

    fn knows(&self, key: u64, record: &Record) -> bool {
        lock(&self.sums).get(&key) == Some(&crc32fast::hash(record))
    }

    fn is_wasteful(&self, live: usize) -> bool {
        let points = self.points.get_nb_point();
        points > 1_000 && points.saturating_sub(live) * WASTE_SHARE > points
    }
}

/// The graph, if one is wanted and built.
pub(super) struct Graphs {
    wanted: bool,
    graph: RwLock<Option<Graph>>,
    /// Points at the last time that it was written.
    written: Mutex<usize>,
}

impl Graphs {
    pub(super) fn open(wanted: bool, files: &Files, state: &State) -> Result<Self, VectorError> {
        let loaded = if wanted { load(&files.folder, &files.model) } else { None };
        let loaded = loaded.filter(|graph| !graph.is_wasteful(state.len()));
        let written = loaded.as_ref().map_or(0, |graph| graph.points.get_nb_point());
        Ok(Self { wanted, graph: RwLock::new(loaded), written: Mutex::new(written) })
    }

    pub(super) fn len(&self) -> Option<usize> {
        self.wanted.then(|| read(&self.graph).as_ref().map_or(0, |graph| graph.points.get_nb_point()))
    }

    pub(super) fn apply(&self, changes: &[Prepared]) {
        let healthy = read(&self.graph).as_ref().is_none_or(|graph| {
            let put =
                |change: &Prepared| change.record.as_ref().is_none_or(|record| graph.put(change.key, record));
            changes.iter().all(put)
        });
        if !healthy {
            write(&self.graph).take();
        }
    }
}

impl VectorIndex {
    /// None when the graph is not there or no help with this search.
    pub(super) fn by_graph(&self, search: &Search<'_>, wanted: usize) -> Option<Vec<(u64, f32)>> {
        if search.filter.is_some() || wanted > WANTED_MAX || wanted * 2 > self.len() {
            return None;
        }
        let near = {
            let graph = read(&self.graphs.graph);
            let points = &graph.as_ref()?.points;
            let width = wanted * WIDTH_PER_ROW;
            contained(|| points.search(&search.query.record, wanted * 2, width)).ok()?
        };
        let state = read(&self.state);
        let mut keys: Vec<u64> = near.iter().map(|point| point.d_id as u64).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut best = Highest::new(wanted);
        for key in keys {
            if let Some(record) = state.record(key) {
                best.offer(cosine(&search.query.record, &record), || Some(key));
            }
        }
        // After a loss, what is there is in segments and not in the graph.
        (state.stale_len() == 0).then(|| best.best_first())
    }

    /// Builds what is missing of the graph, and writes it when much is new.
    pub(super) fn tidy_graph(&self, cancel: &Cancel) -> Result<bool, VectorError> {
        if !self.graphs.wanted {
            return Ok(false);
        }
        let live = self.len();
        if read(&self.graphs.graph).as_ref().is_some_and(|graph| graph.is_wasteful(live)) {
            write(&self.graphs.graph).take();
        }
        let mut done = false;
        if read(&self.graphs.graph).is_none() {
            let graph = Graph::empty(live);
            self.fill(&graph, cancel)?;
            // The last ones come while nothing else can.
            let _no_changes = lock(&self.applying);
            self.fill(&graph, cancel)?;
            *write(&self.graphs.graph) = Some(graph);
            done = true;
        } else if let Some(graph) = &*read(&self.graphs.graph) {
            // A loaded one lacks what came after it was written.
            done = self.fill(graph, cancel)? > 0;
        }
        Ok(self.write_graph()? || done)
    }

    /// How many points were missing or no longer true.
    fn fill(&self, graph: &Graph, cancel: &Cancel) -> Result<usize, VectorError> {
        let missing: Vec<u64> = {
            let state = read(&self.state);
            let of_views = state.views.iter().flat_map(|view| view.live_rows());
            let rows = of_views.chain(state.tail.keys());
            rows.filter(|(key, record)| !graph.knows(*key, record)).map(|(key, _)| key).collect()
        };
        for keys in missing.chunks(BLOCK) {
            look(cancel)?;
            for key in keys {
                let record = read(&self.state).record(*key);
                if record.is_some_and(|record| !graph.put(*key, &record)) {
                    return Err(VectorError::Invalid("the graph of vectors cannot be built".to_owned()));
                }
            }
        }
        Ok(missing.len())
    }

    fn write_graph(&self) -> Result<bool, VectorError> {
        let files = lock(&self.files);
        let graph = read(&self.graphs.graph);
        let Some(graph) = &*graph else { return Ok(false) };
        let mut written = lock(&self.graphs.written);
        let points = graph.points.get_nb_point();
        if points == 0 || points.saturating_sub(*written) * UNWRITTEN_SHARE <= points {
            return Ok(false);
        }
        dump(&files.folder, &files.model, &graph.points)?;
        *written = points;
        Ok(true)
    }
}

/// Writes the graph into another folder, with checksums, and exchanges the two.
fn dump(folder: &Folder, model: &str, points: &Points) -> Result<(), VectorError> {
    let (unfinished, finished) = (folder.path(UNFINISHED), folder.path(FOLDER));
    let failed = |error: io::Error| VectorError::file(&finished, &error);
    folder.probe("graph").map_err(failed)?;
    remove(&unfinished).map_err(failed)?;
    fs::create_dir_all(&unfinished).map_err(failed)?;
    // It panics when a file cannot be made.
    let dumped = contained(|| points.file_dump(&unfinished, BASENAME).map_err(|error| error.to_string()));
    if let Err(reason) | Ok(Err(reason)) = dumped {
        return Err(failed(io::Error::other(reason)));
    }
    let mut seal = Vec::new();
    for part in PARTS {
        let file = File::open(unfinished.join(part)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let sum = checksum(&file).map_err(failed)?;
        seal.extend_from_slice(&length.to_le_bytes());
        seal.extend_from_slice(&u64::from(sum).to_le_bytes());
    }
    seal.extend_from_slice(model.as_bytes());
    let sealed = Folder::open(&unfinished, None)?;
    sealed.publish(SEAL, |sink| sink.put(&seal))?;
    folder.probe("graph").map_err(failed)?;
    remove(&finished).map_err(failed)?;
    fs::rename(&unfinished, &finished).map_err(failed)?;
    File::open(folder.path("")).and_then(|folder| folder.sync_all()).map_err(failed)
}

fn remove(path: &Path) -> io::Result<()> {
    if path.exists() { fs::remove_dir_all(path) } else { Ok(()) }
}

/// The graph as it was written, if every byte is right.
fn load(folder: &Folder, model: &str) -> Option<Graph> {
    let path = folder.path(FOLDER);
    if let Err(reason) = check(&path, model) {
        log::info!("the graph in {} is built anew: {reason}", path.display());
        return None;
    }
    // The points of a loaded graph may point into its loader, so that one stays: a few bytes for each
    // opening of an index.
    let loader: &'static HnswIo = Box::leak(Box::new(HnswIo::new(&path, BASENAME)));
    let loaded =
        contained(|| loader.load_hnsw_with_dist::<u8, Angle>(Angle).map_err(|error| error.to_string()));
    let points = match loaded {
        Ok(Ok(points)) => points,
        Ok(Err(reason)) | Err(reason) => {
            log::warn!("the graph in {} is built anew: {reason}", path.display());
            return None;
        }
    };
    let all = points.get_point_indexation().into_iter();
    let sums = all.map(|point| (point.get_origin_id() as u64, crc32fast::hash(point.get_v()))).collect();
    Some(Graph { points, sums: Mutex::new(sums) })
}

fn check(path: &Path, model: &str) -> Result<(), String> {
    if !path.join(SEAL).exists() {
        return Err("there is none".to_owned());
    }
    let sealed = Folder::open(path, None).map_err(|error| error.to_string())?;
    let seal = sealed.read(SEAL, 1 << 12)?.ok_or("it has no seal")?;
    let (marks, of) = seal.split_at_checked(PARTS.len() * 16).ok_or("its seal is too short")?;
    if of != model.as_bytes() {
        return Err("it was made with another model".to_owned());
    }
    let marks: Vec<u64> = words(marks, u64::from_le_bytes);
    for (part, mark) in PARTS.iter().zip(marks.as_chunks::<2>().0) {
        let file = File::open(path.join(part)).map_err(|error| error.to_string())?;
        let length = file.metadata().map_err(|error| error.to_string())?.len();
        if length != mark[0] || length > BYTES_MAX {
            return Err(format!("{part} has another length"));
        }
        if u64::from(checksum(&file).map_err(|error| error.to_string())?) != mark[1] {
            return Err(format!("{part} is damaged"));
        }
    }
    Ok(())
}

/// Of a whole file, block by block.
fn checksum(file: &File) -> io::Result<u32> {
    let (mut sum, mut block, mut file) = (crc32fast::Hasher::new(), vec![0; 1 << 16], file);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(sum.finalize()),
            read => sum.update(&block[..read]),
        }
    }
}
