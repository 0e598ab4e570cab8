//! From a question to hits: choose by the mode, load with one statement, rank, explain.
//!
//! A hybrid search joins what is found by words and by meaning, and adds what stands next to it, is tied
//! to it, or happened when the question says. Each of these is one statement, not one for each hit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::analysis::{Analyzer, QueryWord, indexed_text};
use super::fusion::{self, List, Ranking, Scores};
use super::index_query::Found;
use super::locality::Neighbours;
use super::record::{Hit, LIMIT_MAX, Memory, MemoryType, Mode, SearchQuery, Sort};
use super::text_index::TextIndex;
use super::vectors::Vectors;
use super::{MemoryError, graph, store, temporal, upkeep};
use crate::clock::Timestamp;
use crate::db::Db;
use crate::text;

/// Candidates per hit asked for: what lies a few percent below the last hit may overtake it by being
/// newer or more important.
const CANDIDATES_PER_HIT: usize = 2;
/// Candidates of each list at least: neighbours and ties need more than the hits themselves. All that is
/// ranked and loaded in the end.
const CANDIDATES: usize = 100;
/// A first hit with less than this share of a full score is thin: most words of the question are not in it.
const THIN: f32 = 0.25;
/// First hits whose words are asked in the second pass, and how many words.
const SECOND_PASS_HITS: usize = 5;
const SECOND_PASS_WORDS: usize = 6;
/// What a hit of the second pass counts beside one of the first.
const SECOND_PASS_SHARE: f32 = 0.3;
/// What lying on the day of the question gives: half as much as every word of it.
const DATE: f64 = 0.5;
/// How many of the best by themselves are always among the first [`FIRST`].
const OWN: usize = 7;
const FIRST: usize = 10;
/// What is left of the score of a memory that a newer one has taken the place of.
const SUPERSEDED: f64 = 0.6;
/// How much full importance adds to a score. Mild: less than one more rare word of the query does.
const IMPORTANCE_BONUS: f64 = 0.06;
/// How much being new adds.
const RECENCY_BONUS: f64 = 0.04;
/// A memory this old has half of that.
const RECENCY_HALF: Duration = Duration::from_secs(30 * 24 * 3600);
/// Memories read at a time for a list by importance, and how often: among thousands of equals the newest
/// are read, which have faded least.
const IMPORTANT_ROWS: usize = 200;
const IMPORTANT_PAGES: usize = 20;
/// What is read of a memory to say which words matched, in bytes.
const EXPLAINED_BYTES: usize = 8_000;

pub(super) fn search(
    sources: &Sources<'_>,
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
        (Mode::Hybrid, Some(text)) => hybrid(sources, text, query, now),
        (Mode::Typed, _) if query.memory_type.is_none() => {
            Err(MemoryError::Invalid("a typed search needs a memory type".to_owned()))
        }
        (Mode::Recent | Mode::Typed, _) => listed(sources, query, query.sort.unwrap_or(Sort::Recent), now),
        (Mode::Important, _) => listed(sources, query, query.sort.unwrap_or(Sort::Importance), now),
    }
}

/// What a search looks into.
pub(super) struct Sources<'a> {
    pub(super) db: &'a Db,
    /// Share of an importance that a day takes.
    pub(super) decay: f64,
    pub(super) text_index: &'a TextIndex,
    pub(super) vectors: Option<&'a Arc<Vectors>>,
}

fn hybrid(
    sources: &Sources<'_>,
    text: &str,
    query: &SearchQuery,
    now: Timestamp,
) -> Result<Vec<Hit>, MemoryError> {
    let words = sources.text_index.analyzer().query_words(text);
    let (mut found, meaning) = candidates(sources, text, &words, query, now)?;
    if found.scores.is_empty() && meaning.is_empty() {
        return if words.is_empty() { newest_instead(sources.db, query) } else { Ok(Vec::new()) };
    }
    if query.parts.second_pass && words.len() > 1 {
        second_pass(sources, &words, &mut found, query, now)?;
    }
    // How good the best is by itself, so that scores of different questions can be compared.
    let by_words = found.scores.first().map_or(0.0, |(_, score)| f64::from(score / found.full_score));
    let by_meaning = meaning.first().map_or(0.0, |(_, cosine)| f64::from(*cosine));
    let quality = by_words.max(by_meaning).max(0.01);
    let join = if query.parts.by_rank { fusion::by_rank } else { fusion::by_score };
    let mut ranking = join(&found.scores, &meaning);
    let memories = add_context(sources, &mut ranking, text, query, now)?;
    let mut hits = ranked(&ranking, memories, quality, sources.decay, now);
    hits.truncate(query.limit);
    for hit in &mut hits {
        hit.why = explain(&hit.memory, ranking.get(&hit.memory.id), &words, sources.text_index.analyzer());
    }
    Ok(hits)
}

/// By words and by meaning, each as many as the other parts of the search can use.
fn candidates(
    sources: &Sources<'_>,
    text: &str,
    words: &[QueryWord],
    query: &SearchQuery,
    now: Timestamp,
) -> Result<(Found, List), MemoryError> {
    let limit = CANDIDATES.max(query.limit * CANDIDATES_PER_HIT);
    let found = match query.parts.words && !words.is_empty() {
        true => sources.text_index.search(sources.db, words, query.memory_type, limit, now)?,
        false => Found::default(),
    };
    let meaning = match sources.vectors.filter(|_| query.parts.meaning) {
        Some(vectors) => vectors.search(sources.db, text, query.memory_type, limit)?,
        None => List::new(),
    };
    Ok((found, meaning))
}

/// The words that the best hits have and the question does not, names and rare ones first, asked too.
/// It helps where the question itself finds little: what it asks for is said in other words.
fn second_pass(
    sources: &Sources<'_>,
    words: &[QueryWord],
    found: &mut Found,
    query: &SearchQuery,
    now: Timestamp,
) -> Result<(), MemoryError> {
    let best = found.scores.first().map_or(0.0, |(_, score)| score / found.full_score);
    if best <= 0.0 || best >= THIN {
        return Ok(());
    }
    let first: Vec<&str> = found.scores.iter().take(SECOND_PASS_HITS).map(|(id, _)| id.as_str()).collect();
    let analyzer = sources.text_index.analyzer();
    let mut counts: HashMap<String, (usize, String)> = HashMap::new();
    for memory in load(sources.db, first.into_iter())?.into_values() {
        for word in analyzer.query_words(&memory.content) {
            if words.iter().all(|asked| asked.stem != word.stem) {
                counts.entry(word.stem).or_insert((0, word.asked)).0 += 1;
            }
        }
    }
    let mut further: Vec<(String, (usize, String))> = counts.into_iter().collect();
    // In several of the first hits, and names before other words.
    let is_name = |word: &str| word.chars().next().is_some_and(char::is_uppercase);
    further.sort_by(|one, other| {
        let worth = |entry: &(String, (usize, String))| (entry.1.0, is_name(&entry.1.1), entry.0.len());
        worth(other).cmp(&worth(one)).then(one.0.cmp(&other.0))
    });
    let further: Vec<QueryWord> = further
        .into_iter()
        .take(SECOND_PASS_WORDS)
        .map(|(stem, (_, asked))| QueryWord { stem, asked })
        .collect();
    if further.is_empty() {
        return Ok(());
    }
    let more = sources.text_index.search(sources.db, &further, query.memory_type, CANDIDATES, now)?;
    let mut scores: HashMap<String, f32> = found.scores.drain(..).collect();
    for (id, score) in more.scores {
        *scores.entry(id).or_default() += SECOND_PASS_SHARE * score;
    }
    found.scores = scores.into_iter().collect();
    found.scores.sort_by(|one, other| other.1.total_cmp(&one.1).then(other.0.cmp(&one.0)));
    Ok(())
}

/// Neighbours, ties and dates. Returns the rows of everything that is in the ranking afterwards.
fn add_context(
    sources: &Sources<'_>,
    ranking: &mut Ranking,
    text: &str,
    query: &SearchQuery,
    now: Timestamp,
) -> Result<HashMap<String, Memory>, MemoryError> {
    let memory_type = query.memory_type.map(MemoryType::as_str);
    let mut memories = load(sources.db, ranking.keys().map(String::as_str))?;
    let span = query.parts.dates.then(|| temporal::span_of(text, now)).flatten();
    if let Some(span) = span {
        for memory in sources
            .db
            .read(|connection| store::within(connection, span.from, span.to, memory_type, CANDIDATES))?
        {
            ranking.entry(memory.id.clone()).or_default();
            memories.insert(memory.id.clone(), memory);
        }
    }
    if query.parts.locality {
        let found = || memories.values();
        let neighbours = sources.db.read(|connection| Neighbours::load(connection, found(), memory_type))?;
        fusion::add_neighbours(ranking, &neighbours);
    }
    // Behind the neighbours: all of a day would else give to each other.
    for (id, scores) in ranking.iter_mut() {
        let (Some(memory), Some(span)) = (memories.get(id), span) else { continue };
        let near = f64::from(u8::from(span.is_near(memory.created_at)));
        let inside = f64::from(u8::from(span.contains(memory.created_at)));
        scores.other += span.worth() * DATE / 2.0 * (near + inside);
    }
    if query.parts.graph {
        sources.db.read(|connection| graph::expand(connection, ranking))?;
    }
    let best = keep_best(ranking, CANDIDATES);
    let missing = best.iter().map(String::as_str).filter(|id| !memories.contains_key(*id));
    memories.extend(load(sources.db, missing)?);
    // What came in sideways has the wanted type too, or is not there.
    memories.retain(|_, memory| query.memory_type.is_none_or(|wanted| wanted == memory.memory_type));
    if query.parts.graph {
        let old = sources
            .db
            .read(|connection| graph::superseded(connection, ranking.keys().map(String::as_str)))?;
        for id in old {
            if let Some(scores) = ranking.get_mut(&id) {
                let total = scores.total();
                scores.other -= total * (1.0 - SUPERSEDED);
            }
        }
    }
    Ok(memories)
}

/// Drops all but the best from the ranking and names them.
fn keep_best(ranking: &mut Ranking, count: usize) -> Vec<String> {
    let mut order: Vec<(String, f64)> =
        ranking.iter().map(|(id, scores)| (id.clone(), scores.total())).collect();
    order.sort_by(|one, other| other.1.total_cmp(&one.1).then(other.0.cmp(&one.0)));
    for (id, _) in order.drain(count.min(order.len())..) {
        ranking.remove(&id);
    }
    order.into_iter().map(|(id, _)| id).collect()
}

/// Sees to it that the best by their own words and meaning are among the first, whatever stands around
/// others: the parts of an answer may lie in different conversations.
fn lift_own(hits: &mut Vec<Hit>, ranking: &Ranking) {
    if hits.len() <= FIRST {
        return;
    }
    let own = |hit: &Hit| ranking.get(&hit.memory.id).map_or(0.0, Scores::own);
    let mut order: Vec<usize> = (0..hits.len()).collect();
    order.sort_by(|one, other| own(&hits[*other]).total_cmp(&own(&hits[*one])).then(one.cmp(other)));
    let mut lifted: Vec<usize> = order.into_iter().take(OWN).filter(|place| *place >= FIRST).collect();
    lifted.sort_unstable();
    let floor = hits[FIRST - 1].score;
    for (count, place) in lifted.into_iter().enumerate() {
        let mut hit = hits.remove(place);
        hit.score = floor;
        hits.insert(FIRST - 1 - count.min(FIRST - 1), hit);
    }
}

fn ranked(
    ranking: &Ranking,
    mut memories: HashMap<String, Memory>,
    quality: f64,
    decay: f64,
    now: Timestamp,
) -> Vec<Hit> {
    let mut hits: Vec<Hit> = ranking
        .iter()
        // Forgotten since the indexes were asked: not there any more.
        .filter_map(|(id, scores)| {
            let memory = memories.remove(id)?;
            let score = scores.total() * bonus(&memory, decay, now);
            Some(Hit { memory, score, why: String::new() })
        })
        .collect();
    hits.sort_by(|one, other| {
        let newer = |hit: &Hit| (hit.memory.created_at, hit.memory.change_seq);
        other.score.total_cmp(&one.score).then(newer(other).cmp(&newer(one)))
    });
    lift_own(&mut hits, ranking);
    let best = hits.first().map_or(1.0, |hit| hit.score).max(f64::MIN_POSITIVE);
    hits.iter_mut().for_each(|hit| hit.score *= quality / best);
    hits
}

/// "Who am I?" has only stop words. The newest memories are a better answer than none, and their score
/// of 0 says that nothing matched.
fn newest_instead(db: &Db, query: &SearchQuery) -> Result<Vec<Hit>, MemoryError> {
    let memories =
        db.read(|connection| store::list(connection, Sort::Recent, query.memory_type, query.limit, 0))?;
    let why = "no word of the query can be searched; among the newest";
    Ok(memories.into_iter().map(|memory| Hit { memory, score: 0.0, why: why.to_owned() }).collect())
}

fn listed(
    sources: &Sources<'_>,
    query: &SearchQuery,
    sort: Sort,
    now: Timestamp,
) -> Result<Vec<Hit>, MemoryError> {
    let (db, decay) = (sources.db, sources.decay);
    let memories = match sort {
        Sort::Importance => most_important(db, query, decay, now)?,
        Sort::Recent | Sort::MostAccessed => {
            db.read(|connection| store::list(connection, sort, query.memory_type, query.limit, 0))?
        }
    };
    let total = memories.len() as f64;
    let hit = |(rank, memory): (usize, Memory)| {
        let order = match sort {
            Sort::Recent => "created".to_owned(),
            Sort::Importance => format!("importance {:.2}", upkeep::importance(&memory, decay, now)),
            Sort::MostAccessed => format!("read {} times", memory.access_count),
        };
        Hit { score: 1.0 - rank as f64 / total, why: format!("number {} by {order}", rank + 1), memory }
    };
    Ok(memories.into_iter().enumerate().map(hit).collect())
}

/// By the importance that is left, which no index knows: read from the top of the stored one until nothing
/// that follows can be more important than what was found.
fn most_important(
    db: &Db,
    query: &SearchQuery,
    decay: f64,
    now: Timestamp,
) -> Result<Vec<Memory>, MemoryError> {
    let mut best: Vec<(f64, Memory)> = Vec::new();
    for page in 0..IMPORTANT_PAGES {
        let skip = page * IMPORTANT_ROWS;
        let read = |connection: &_| {
            store::list(connection, Sort::Importance, query.memory_type, IMPORTANT_ROWS, skip)
        };
        let memories = db.read(read)?;
        let full = memories.len() == IMPORTANT_ROWS;
        let highest_left = memories.last().map_or(0.0, |memory| upkeep::at_most(memory.importance));
        best.extend(memories.into_iter().map(|memory| (upkeep::importance(&memory, decay, now), memory)));
        best.sort_by(|one, other| other.0.total_cmp(&one.0).then(other.1.created_at.cmp(&one.1.created_at)));
        best.truncate(query.limit);
        let enough = best.len() == query.limit && best.last().is_some_and(|(left, _)| *left >= highest_left);
        if enough || !full {
            break;
        }
    }
    Ok(best.into_iter().map(|(_, memory)| memory).collect())
}

fn load<'a>(db: &Db, ids: impl Iterator<Item = &'a str>) -> Result<HashMap<String, Memory>, MemoryError> {
    // In the order of the table: neighbours there share pages.
    let mut ids: Vec<&str> = ids.collect();
    ids.sort_unstable();
    let ids = store::id_list(ids.into_iter());
    let memories = db.read(|connection| store::load(connection, &ids))?;
    Ok(memories.into_iter().map(|memory| (memory.id.clone(), memory)).collect())
}

fn bonus(memory: &Memory, decay: f64, now: Timestamp) -> f64 {
    let half_lives = now.since(memory.created_at).as_secs_f64() / RECENCY_HALF.as_secs_f64();
    1.0 + IMPORTANCE_BONUS * upkeep::importance(memory, decay, now) + RECENCY_BONUS * 0.5_f64.powf(half_lives)
}

fn explain(memory: &Memory, scores: Option<&Scores>, words: &[QueryWord], analyzer: &Analyzer) -> String {
    let indexed = indexed_text(memory);
    let there = analyzer.words(text::prefix(&indexed, EXPLAINED_BYTES)).counts;
    let matched: Vec<_> =
        words.iter().filter(|word| there.contains_key(&word.stem)).map(|word| word.asked.as_str()).collect();
    let Scores { words: by_words, meaning, around, other } = scores.copied().unwrap_or_default();
    format!(
        "{} of {} words ({}); words {by_words:.2}, meaning {meaning:.2}, around {around:.2}, other {other:.2}; importance {:.2}",
        matched.len(),
        words.len(),
        matched.join(", "),
        memory.importance
    )
}
