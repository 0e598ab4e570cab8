//! One search over the committed index and the tail together, as if they were one index: words are
//! weighed by statistics of both.

use std::sync::Arc;

use tantivy::collector::TopDocs;
use tantivy::collector::sort_key::{SortBySimilarityScore, SortByStaticFastValue};
use tantivy::columnar::Column;
use tantivy::query::{Bm25StatisticsProvider, BooleanQuery, ConstScoreQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocAddress, Searcher, TantivyError, Term};

use super::analysis::QueryWord;
use super::index_files::{CREATED_AT, Fields, ID_HALVES, id_of};
use super::record::MemoryType;
use super::tail::{Statistics, Tail};

/// One consistent thing to search.
pub(super) struct Snapshot {
    pub(super) searcher: Option<Searcher>,
    pub(super) tail: Arc<Tail>,
}

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Id and BM25 score, best first.
    pub(super) scores: Vec<(String, f32)>,
    /// The score of an ordinary memory that has every word of the query once.
    pub(super) full_score: f32,
}

impl Snapshot {
    pub(super) fn search(
        &self,
        query: &[QueryWord],
        memory_type: Option<MemoryType>,
        limit: usize,
    ) -> Result<Found, TantivyError> {
        let statistics = self.statistics(query)?;
        if statistics.documents == 0 || query.is_empty() {
            return Ok(Found::default());
        }
        let mut scores = self.tail.search(query, memory_type, &statistics);
        if let Some(searcher) = &self.searcher {
            scores.extend(self.search_committed(searcher, query, memory_type, limit, &statistics)?);
        }
        // Ids sort by time, so equal scores come newest first.
        scores.sort_by(|(id, score), (other_id, other)| other.total_cmp(score).then(other_id.cmp(id)));
        scores.truncate(limit);
        Ok(Found { scores, full_score: statistics.full_score(query) })
    }

    fn statistics(&self, query: &[QueryWord]) -> Result<Statistics, TantivyError> {
        let mut statistics = Statistics::default();
        for word in query {
            statistics.documents_with.insert(word.stem.clone(), 0);
        }
        if let Some(searcher) = &self.searcher {
            let fields = Fields::of(searcher);
            statistics.documents = searcher.total_num_docs()?;
            statistics.words = searcher.total_num_tokens(fields.text)?;
            for (word, documents) in &mut statistics.documents_with {
                *documents = searcher.doc_freq(&Term::from_field_text(fields.text, word))?;
            }
        }
        self.tail.count_into(&mut statistics);
        Ok(statistics)
    }

    fn search_committed(
        &self,
        searcher: &Searcher,
        query: &[QueryWord],
        memory_type: Option<MemoryType>,
        limit: usize,
        statistics: &Statistics,
    ) -> Result<Vec<(String, f32)>, TantivyError> {
        let query = build_query(&Fields::of(searcher), query, memory_type);
        // Every memory of the tail may stand in the index too, and is then taken from the tail.
        let wanted = limit + self.tail.len();
        let top = || TopDocs::with_limit(wanted);
        let by_score = top().order_by_score();
        let mut best = searcher.search_with_statistics_provider(&*query, &by_score, statistics)?;
        if best.len() == wanted && best[wanted / 2].0 == best[wanted - 1].0 {
            // Among equals tantivy takes the oldest. If the better half has some of those that did not all
            // fit, take the newest, which costs a look at every match.
            let newest = SortByStaticFastValue::<i64>::for_field(CREATED_AT);
            let by_both = top().order_by((SortBySimilarityScore, newest));
            let found = searcher.search_with_statistics_provider(&*query, &by_both, statistics)?;
            best = found.into_iter().map(|((score, _), address)| (score, address)).collect();
        }
        let ids = ids_of(searcher, best.iter().map(|(_, address)| *address))?;
        let scores = ids.into_iter().zip(best).map(|(id, (score, _))| (id, score));
        Ok(scores.filter(|(id, _)| !self.tail.supersedes(id)).collect())
    }
}

/// Any of the words, ranked by them; of the type, which does not rank. No query language is involved.
fn build_query(fields: &Fields, query: &[QueryWord], memory_type: Option<MemoryType>) -> Box<dyn Query> {
    let words: Vec<(Occur, Box<dyn Query>)> = query
        .iter()
        .map(|word| {
            let term = Term::from_field_text(fields.text, &word.stem);
            let query = TermQuery::new(term, IndexRecordOption::WithFreqs);
            (Occur::Should, Box::new(query) as Box<dyn Query>)
        })
        .collect();
    let words = Box::new(BooleanQuery::new(words));
    let Some(memory_type) = memory_type else { return words };
    let term = Term::from_field_text(fields.memory_type, memory_type.as_str());
    let of_type = TermQuery::new(term, IndexRecordOption::Basic);
    let of_type = ConstScoreQuery::new(Box::new(of_type), 0.0);
    Box::new(BooleanQuery::new(vec![(Occur::Must, words), (Occur::Must, Box::new(of_type))]))
}

fn ids_of(
    searcher: &Searcher,
    addresses: impl Iterator<Item = DocAddress>,
) -> Result<Vec<String>, TantivyError> {
    let columns: Vec<[Column<u64>; 2]> = searcher
        .segment_readers()
        .iter()
        .map(|segment| {
            let half = |name| segment.fast_fields().u64(name);
            Ok([half(ID_HALVES[0])?, half(ID_HALVES[1])?])
        })
        .collect::<Result<_, TantivyError>>()?;
    let missing = || TantivyError::DataCorruption(tantivy::error::DataCorruption::comment_only("no id"));
    addresses
        .map(|address| {
            let [high, low] = &columns[address.segment_ord as usize];
            let half = |column: &Column<u64>| column.first(address.doc_id).ok_or_else(missing);
            Ok(id_of([half(high)?, half(low)?]))
        })
        .collect()
}

impl Bm25StatisticsProvider for Statistics {
    fn total_num_tokens(&self, _field: Field) -> tantivy::Result<u64> {
        Ok(self.words)
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.documents)
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        let value = term.value();
        let word = value.as_str().unwrap_or_default();
        Ok(self.documents_with.get(word).copied().unwrap_or(0))
    }
}
