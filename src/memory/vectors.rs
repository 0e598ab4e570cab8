//! Search by meaning: vectors in the database, an index over them in memory, and whoever still lacks
//! one. Everybody who saves or searches does without when there is none.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::embed::{DIMENSIONS, EmbedError, Embedder};
use super::record::MemoryType;
use super::vector_index::{Tag, VectorIndex};
use super::{MemoryError, store};
use crate::db::rusqlite::{Connection, OptionalExtension, params};
use crate::db::{Db, DbError};
use crate::error::log_line;
use crate::thread::{self, contained, lock};

/// How long a search waits for its vector: a model that has to be loaded first takes a second or two on
/// a board. The words have been searched by then.
const QUERY_WAIT: Duration = Duration::from_secs(4);
/// How long one stored text may take; the longest are cut to 256 pieces.
const DOCUMENT_WAIT: Duration = Duration::from_secs(60);
/// Texts whose vectors are stored in one commit.
const BATCH: usize = 32;
/// Candidates whose exact numbers are looked at.
const RESCORED: usize = 40;

pub(super) struct Vectors {
    embedder: Embedder,
    state: Mutex<State>,
    /// A thread makes what is missing.
    filling: AtomicBool,
    stopped: AtomicBool,
    filler: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    index: VectorIndex,
    last_key: i64,
    last_change: i64,
}

/// Cosine from which two memories are tied, and from which one says the same as the other (spec 1.6).
const ALIKE: f32 = 0.85;
const SAME: f32 = 0.95;
/// Ties that one memory gets by likeness.
const ALIKE_MAX: usize = 10;

/// What happened on the way through everything that has no vector yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filled {
    pub made: usize,
    /// Those with which it did not work; they are tried again at the next start.
    pub failed: usize,
}

impl Vectors {
    pub(super) fn new(embedder: Embedder) -> Arc<Self> {
        Arc::new(Self {
            embedder,
            state: Mutex::default(),
            filling: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            filler: Mutex::default(),
        })
    }

    /// The best `limit` memories by meaning with their cosine to `text`, best first; none when there is
    /// no vector of it in time.
    pub(super) fn search(
        &self,
        db: &Db,
        text: &str,
        memory_type: Option<MemoryType>,
        limit: usize,
    ) -> Result<Vec<(String, f32)>, MemoryError> {
        let query = match self.embedder.query(text, QUERY_WAIT) {
            Ok(query) => query,
            Err(error) => {
                log::debug!("searched by words only: {error}");
                return Ok(Vec::new());
            }
        };
        let Ok(model) = self.embedder.model_id() else { return Ok(Vec::new()) };
        let wanted = memory_type.map(tag_of);
        let near = {
            let mut state = lock(&self.state);
            db.read(|connection| state.catch_up(connection, model))?;
            let passes = |tag: &Tag| !tag.forgotten && wanted.is_none_or(|wanted| wanted == tag.memory_type);
            state.index.search(&query, limit.max(RESCORED), &passes)
        };
        let exact = near.iter().take(RESCORED).map(|(key, _)| *key);
        let exact = db.read(|connection| rescored(connection, exact, &query))?;
        self.drop_gone(&near, &exact);
        let mut found: Vec<(String, f32)> = Vec::with_capacity(near.len());
        let rest: Vec<i64> = near.iter().skip(RESCORED).map(|(key, _)| *key).collect();
        found.extend(exact.into_iter().map(|(_, id, cosine)| (id, cosine)));
        if limit > RESCORED && !rest.is_empty() {
            let scores: HashMap<i64, f32> = near.iter().copied().collect();
            let ids = db.read(|connection| ids_of(connection, rest.into_iter()))?;
            found.extend(ids.into_iter().map(|(key, id)| (id, scores.get(&key).copied().unwrap_or(0.0))));
        }
        found.sort_by(|one, other| other.1.total_cmp(&one.1).then(other.0.cmp(&one.0)));
        found.truncate(limit);
        Ok(found)
    }

    /// Rows that the database does not have any more: deleted, or made anew under another key.
    fn drop_gone(&self, near: &[(i64, f32)], found: &[(i64, String, f32)]) {
        if found.len() == near.len().min(RESCORED) {
            return;
        }
        let mut state = lock(&self.state);
        for (key, _) in
            near.iter().take(RESCORED).filter(|(key, _)| found.iter().all(|(known, ..)| known != key))
        {
            state.index.remove(*key);
        }
    }

    /// Memories that have no vector of the present model yet.
    pub(super) fn missing(&self, db: &Db) -> Result<u64, MemoryError> {
        let Ok(model) = self.embedder.model_id() else { return Ok(0) };
        Ok(db.read(|connection| missing(connection, model))?)
    }

    /// Starts the thread `embed:fill`, if there is something to do and none is at it.
    pub(super) fn fill_in_background(self: &Arc<Self>, db: &Db) {
        let cannot = self.embedder.model_id().is_err() || self.stopped.load(Ordering::SeqCst);
        if cannot || self.filling.swap(true, Ordering::SeqCst) {
            return;
        }
        let (vectors, db) = (self.clone(), db.clone());
        let body = move || {
            // What was saved while it was about to end is not left behind.
            loop {
                let filled = contained(|| vectors.fill(&db, &mut |_| {}));
                vectors.filling.store(false, Ordering::SeqCst);
                match filled {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        return log::warn!("memories wait for their vectors: {}", log_line(&error));
                    }
                    Err(panic) => return log::error!("memories wait for their vectors: {panic}"),
                }
                let more = vectors.missing(&db).is_ok_and(|missing| missing > 0);
                if !more
                    || vectors.stopped.load(Ordering::SeqCst)
                    || vectors.filling.swap(true, Ordering::SeqCst)
                {
                    return;
                }
            }
        };
        match thread::spawn("embed:fill", body) {
            Ok(handle) => drop(lock(&self.filler).replace(handle)),
            Err(error) => {
                log::warn!("no thread to make vectors: {error}");
                self.filling.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Makes every vector that is missing, the newest memories first; `progress` hears how many are made.
    pub(super) fn fill(&self, db: &Db, progress: &mut dyn FnMut(usize)) -> Result<Filled, MemoryError> {
        let model = self.embedder.model_id().map_err(MemoryError::Embedding)?;
        let number = db.write({
            let model = model.to_owned();
            move |connection| model_number(connection, &model)
        })?;
        let (mut before, mut filled) = (i64::MAX, Filled::default());
        loop {
            let batch = db.read(|connection| without_vector(connection, number, before))?;
            let Some((_, _, last)) = batch.last() else { return Ok(filled) };
            before = *last;
            let mut made = Vec::with_capacity(batch.len());
            for (id, content, change) in batch {
                if self.stopped.load(Ordering::SeqCst) {
                    return Ok(filled);
                }
                match self.embedder.document(&content, DOCUMENT_WAIT) {
                    Ok(vector) => made.push((id, change, vector)),
                    Err(EmbedError::Busy) => filled.failed += 1,
                    Err(error) => return Err(MemoryError::Embedding(error)),
                }
            }
            filled.made += made.len();
            let made = db.write(move |connection| {
                made.iter().try_for_each(|one| insert(connection, number, one))?;
                Ok(made)
            })?;
            self.associate(db, model, &made)?;
            progress(filled.made);
        }
    }

    /// Ties each of these to what is like it: very much so, and the newer one brings the older one up to
    /// date.
    fn associate(&self, db: &Db, model: &str, made: &[(String, i64, Vec<f32>)]) -> Result<(), MemoryError> {
        let mut pairs: Vec<(String, String, f32)> = Vec::new();
        for (id, _, vector) in made {
            for (other, cosine) in self.nearest(db, model, vector, ALIKE_MAX + 1)? {
                if other != *id && cosine >= ALIKE {
                    pairs.push((id.clone(), other, cosine));
                }
            }
        }
        if pairs.is_empty() {
            return Ok(());
        }
        Ok(db.write(move |connection| pairs.iter().try_for_each(|pair| tie(connection, pair)))?)
    }

    /// Live memories by their exact cosine to `vector`, best first.
    fn nearest(
        &self,
        db: &Db,
        model: &str,
        vector: &[f32],
        limit: usize,
    ) -> Result<Vec<(String, f32)>, MemoryError> {
        let near = {
            let mut state = lock(&self.state);
            db.read(|connection| state.catch_up(connection, model))?;
            state.index.search(vector, RESCORED, &|tag| !tag.forgotten)
        };
        let mut exact =
            db.read(|connection| rescored(connection, near.iter().map(|(key, _)| *key), vector))?;
        self.drop_gone(&near, &exact);
        exact.sort_by(|one, other| other.2.total_cmp(&one.2).then(other.0.cmp(&one.0)));
        Ok(exact.into_iter().take(limit).map(|(_, id, cosine)| (id, cosine)).collect())
    }

    /// Pairs of live memories that say nearly the same, at most `limit`: for merging.
    pub(super) fn duplicates(&self, db: &Db, limit: usize) -> Result<Vec<(String, String)>, MemoryError> {
        // Every such pair was tied when the second of them got its vector.
        Ok(db.read(|connection| duplicates(connection, limit))?)
    }

    /// No more vectors are made. Returns the thread that makes them, which ends after the text in hand.
    pub(super) fn stop(&self) -> Option<JoinHandle<()>> {
        self.stopped.store(true, Ordering::SeqCst);
        lock(&self.filler).take()
    }
}

impl State {
    /// Takes in what changed since the last look.
    fn catch_up(&mut self, connection: &Connection, model: &str) -> Result<(), DbError> {
        let sql = "SELECT v.key, m.memory_type, m.forgotten, v.vector FROM memory_vectors v
                       JOIN embedding_models e ON e.id = v.model AND e.name = ?2
                       JOIN memories m ON m.id = v.memory_id
                   WHERE v.key > ?1 ORDER BY v.key";
        let last_change = store::last_change(connection)?;
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![self.last_key, model])?;
        let mut vector = Vec::with_capacity(DIMENSIONS);
        while let Some(row) = rows.next()? {
            self.last_key = row.get(0)?;
            read_vector(row.get_ref(3)?.as_blob()?, &mut vector);
            self.index.put(self.last_key, tag(row.get_ref(1)?.as_str()?, row.get(2)?), &vector);
        }
        let sql = "SELECT v.key, m.memory_type, m.forgotten FROM memories m
                       JOIN memory_vectors v ON v.memory_id = m.id WHERE m.change_seq > ?1";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([self.last_change])?;
        while let Some(row) = rows.next()? {
            self.index.retag(row.get(0)?, tag(row.get_ref(1)?.as_str()?, row.get(2)?));
        }
        self.last_change = last_change;
        Ok(())
    }
}

fn tag_of(memory_type: MemoryType) -> u8 {
    MemoryType::ALL
        .iter()
        .position(|known| *known == memory_type)
        .and_then(|at| u8::try_from(at).ok())
        .unwrap_or(u8::MAX)
}

fn tag(memory_type: &str, forgotten: bool) -> Tag {
    Tag { memory_type: memory_type.parse().map_or(u8::MAX, tag_of), forgotten }
}

fn read_vector(bytes: &[u8], vector: &mut Vec<f32>) {
    vector.clear();
    vector.extend(bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)));
}

fn key_list(keys: impl Iterator<Item = i64>) -> String {
    serde_json::Value::from_iter(keys).to_string()
}

/// Key and id of these rows with their exact cosine.
fn rescored(
    connection: &Connection,
    keys: impl Iterator<Item = i64>,
    query: &[f32],
) -> Result<Vec<(i64, String, f32)>, DbError> {
    let sql =
        "SELECT key, memory_id, vector FROM memory_vectors WHERE key IN (SELECT value FROM json_each(?1))";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([key_list(keys)])?;
    let (mut found, mut vector) = (Vec::new(), Vec::with_capacity(DIMENSIONS));
    while let Some(row) = rows.next()? {
        read_vector(row.get_ref(2)?.as_blob()?, &mut vector);
        let cosine = vector.iter().zip(query).map(|(one, other)| one * other).sum();
        found.push((row.get(0)?, row.get(1)?, cosine));
    }
    Ok(found)
}

fn ids_of(connection: &Connection, keys: impl Iterator<Item = i64>) -> Result<Vec<(i64, String)>, DbError> {
    let sql = "SELECT key, memory_id FROM memory_vectors WHERE key IN (SELECT value FROM json_each(?1))";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([key_list(keys)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// `related_to`, or `updates` from the newer to the older; the weight goes from 0.5 to 1 with the cosine.
fn tie(connection: &Connection, (one, other, cosine): &(String, String, f32)) -> Result<(), DbError> {
    let (Some(one), Some(other)) = (store::get(connection, one)?, store::get(connection, other)?) else {
        return Ok(());
    };
    let order = |memory: &super::Memory| (memory.created_at, memory.change_seq);
    let (newer, older) = if order(&one) >= order(&other) { (one, other) } else { (other, one) };
    let same = *cosine >= SAME && newer.memory_type == older.memory_type;
    let relation = if same { "updates" } else { "related_to" };
    let weight = 0.5 + 0.5 * f64::from((cosine - ALIKE) / (1.0 - ALIKE)).clamp(0.0, 1.0);
    store::tie(connection, &newer.id, &older.id, relation, weight, newer.updated_at)
}

/// A tie alone does not say so: somebody may have written that one memory takes the place of another.
fn duplicates(connection: &Connection, limit: usize) -> Result<Vec<(String, String)>, DbError> {
    let sql = "SELECT a.source_id, a.target_id, v.vector, w.vector FROM associations a
                   JOIN memories s ON s.id = a.source_id AND s.forgotten = 0
                   JOIN memories t ON t.id = a.target_id AND t.forgotten = 0
                   JOIN memory_vectors v ON v.memory_id = s.id
                   JOIN memory_vectors w ON w.memory_id = t.id AND w.model = v.model
               WHERE a.relation_type = 'updates' AND s.memory_type = t.memory_type AND s.memory_type <> 'identity'";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let (mut found, mut one, mut other) = (Vec::new(), Vec::new(), Vec::new());
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        read_vector(row.get_ref(2)?.as_blob()?, &mut one);
        read_vector(row.get_ref(3)?.as_blob()?, &mut other);
        let cosine: f32 = one.iter().zip(&other).map(|(one, other)| one * other).sum();
        if cosine >= SAME {
            found.push((row.get(0)?, row.get(1)?));
        }
    }
    Ok(found)
}

fn model_number(connection: &Connection, name: &str) -> Result<i64, DbError> {
    connection.execute("INSERT INTO embedding_models (name) VALUES (?1) ON CONFLICT DO NOTHING", [name])?;
    Ok(connection.query_row("SELECT id FROM embedding_models WHERE name = ?1", [name], |row| row.get(0))?)
}

fn missing(connection: &Connection, model: &str) -> Result<u64, DbError> {
    let sql = "SELECT count(*) FROM memories m WHERE forgotten = 0 AND NOT EXISTS (
                   SELECT 1 FROM memory_vectors v JOIN embedding_models e ON e.id = v.model
                   WHERE v.memory_id = m.id AND e.name = ?1)";
    Ok(connection.prepare_cached(sql)?.query_row([model], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Id, content and change of memories without a vector, whose last change was before `before`.
fn without_vector(
    connection: &Connection,
    model: i64,
    before: i64,
) -> Result<Vec<(String, String, i64)>, DbError> {
    let sql = "SELECT m.id, m.content, m.change_seq FROM memories m
                   LEFT JOIN memory_vectors v ON v.memory_id = m.id AND v.model = ?1
               WHERE m.forgotten = 0 AND m.change_seq < ?2 AND v.key IS NULL ORDER BY m.change_seq DESC LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement
        .query_map(params![model, before, BATCH], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Stores a vector, unless the memory has changed since its text was read.
fn insert(
    connection: &Connection,
    model: i64,
    (id, change, vector): &(String, i64, Vec<f32>),
) -> Result<(), DbError> {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    let sql = "INSERT OR REPLACE INTO memory_vectors (memory_id, model, vector)
               SELECT id, ?2, ?3 FROM memories WHERE id = ?1 AND change_seq = ?4";
    connection.prepare_cached(sql)?.execute(params![id, model, bytes, change])?;
    Ok(())
}
