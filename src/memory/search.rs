//! From a question to hits: choose by the mode, load with one statement, rank, explain.
//!
//! The text index is one source of candidates. A further one (vectors, the graph) gives ids and scores
//! as it does, and joins in `hybrid`.

use std::collections::HashMap;
use std::time::Duration;

use super::analysis::{Analyzer, QueryWord, indexed_text};
use super::record::{Hit, LIMIT_MAX, Memory, Mode, SearchQuery, Sort};
use super::text_index::TextIndex;
use super::{MemoryError, store};
use crate::clock::Timestamp;
use crate::db::Db;
use crate::text;

/// Candidates per hit asked for: what lies a few percent below the last hit may overtake it by being
/// newer or more important.
const CANDIDATES_PER_HIT: usize = 2;
/// How much full importance adds to a score. Mild: less than one more rare word of the query does.
const IMPORTANCE_BONUS: f64 = 0.06;
/// How much being new adds.
const RECENCY_BONUS: f64 = 0.04;
/// A memory this old has half of that.
const RECENCY_HALF: Duration = Duration::from_secs(30 * 24 * 3600);
/// What is read of a memory to say which words matched, in bytes.
const EXPLAINED_BYTES: usize = 8_000;

pub(super) fn search(
    db: &Db,
    text_index: &TextIndex,
    query: &SearchQuery,
    now: Timestamp,
) -> Result<Vec<Hit>, MemoryError> {
    if query.limit == 0 || query.limit > LIMIT_MAX {
        let reason = format!("a search returns 1 to {LIMIT_MAX} memories, not {}", query.limit);
        return Err(MemoryError::Invalid(reason));
    }
    let text = query.text.as_deref().map(str::trim).filter(|text| !text.is_empty());
    match (query.mode, text) {
        (Mode::Hybrid, None) => Err(MemoryError::Invalid("a hybrid search needs a query".to_owned())),
        (Mode::Hybrid, Some(text)) => hybrid(db, text_index, text, query, now),
        (Mode::Typed, _) if query.memory_type.is_none() => {
            Err(MemoryError::Invalid("a typed search needs a memory type".to_owned()))
        }
        (Mode::Recent | Mode::Typed, _) => listed(db, query, query.sort.unwrap_or(Sort::Recent)),
        (Mode::Important, _) => listed(db, query, query.sort.unwrap_or(Sort::Importance)),
    }
}

fn hybrid(
    db: &Db,
    text_index: &TextIndex,
    text: &str,
    query: &SearchQuery,
    now: Timestamp,
) -> Result<Vec<Hit>, MemoryError> {
    let analyzer = text_index.analyzer();
    let words = analyzer.query_words(text);
    if words.is_empty() {
        return newest_instead(db, query);
    }
    let found = text_index.search(db, &words, query.memory_type, query.limit * CANDIDATES_PER_HIT, now)?;
    if found.scores.is_empty() {
        return Ok(Vec::new());
    }
    let mut loaded = load(db, found.scores.iter().map(|(id, _)| id.as_str()))?;
    let mut hits: Vec<_> = found
        .scores
        .iter()
        // Forgotten since the index was asked: not there any more.
        .filter_map(|(id, score)| {
            let memory = loaded.remove(id)?;
            let score = f64::from(score / found.full_score) * bonus(&memory, now);
            Some(Hit { memory, score, why: String::new() })
        })
        .collect();
    hits.sort_by(|one, other| {
        let newer = |hit: &Hit| (hit.memory.created_at, hit.memory.change_seq);
        other.score.total_cmp(&one.score).then(newer(other).cmp(&newer(one)))
    });
    hits.truncate(query.limit);
    for hit in &mut hits {
        hit.why = explain(&hit.memory, &words, analyzer);
    }
    Ok(hits)
}

/// "Who am I?" has only stop words. The newest memories are a better answer than none, and their score
/// of 0 says that nothing matched.
fn newest_instead(db: &Db, query: &SearchQuery) -> Result<Vec<Hit>, MemoryError> {
    let memories =
        db.read(|connection| store::list(connection, Sort::Recent, query.memory_type, query.limit))?;
    let why = "no word of the query can be searched; among the newest";
    Ok(memories.into_iter().map(|memory| Hit { memory, score: 0.0, why: why.to_owned() }).collect())
}

fn listed(db: &Db, query: &SearchQuery, sort: Sort) -> Result<Vec<Hit>, MemoryError> {
    let memories = db.read(|connection| store::list(connection, sort, query.memory_type, query.limit))?;
    let total = memories.len() as f64;
    let hit = |(rank, memory): (usize, Memory)| {
        let order = match sort {
            Sort::Recent => "created".to_owned(),
            Sort::Importance => format!("importance {:.2}", memory.importance),
            Sort::MostAccessed => format!("read {} times", memory.access_count),
        };
        Hit { score: 1.0 - rank as f64 / total, why: format!("number {} by {order}", rank + 1), memory }
    };
    Ok(memories.into_iter().enumerate().map(hit).collect())
}

fn load<'a>(db: &Db, ids: impl Iterator<Item = &'a str>) -> Result<HashMap<String, Memory>, MemoryError> {
    let ids = store::id_list(ids);
    let memories = db.read(|connection| store::load(connection, &ids))?;
    Ok(memories.into_iter().map(|memory| (memory.id.clone(), memory)).collect())
}

fn bonus(memory: &Memory, now: Timestamp) -> f64 {
    let half_lives = now.since(memory.created_at).as_secs_f64() / RECENCY_HALF.as_secs_f64();
    1.0 + IMPORTANCE_BONUS * memory.importance + RECENCY_BONUS * 0.5_f64.powf(half_lives)
}

fn explain(memory: &Memory, words: &[QueryWord], analyzer: &Analyzer) -> String {
    let indexed = indexed_text(memory);
    let there = analyzer.words(text::prefix(&indexed, EXPLAINED_BYTES)).counts;
    let matched: Vec<_> =
        words.iter().filter(|word| there.contains_key(&word.stem)).map(|word| word.asked.as_str()).collect();
    let count = format!("{} of {} words", matched.len(), words.len());
    format!("{count} ({}), importance {:.2}", matched.join(", "), memory.importance)
}
