//! From several lists of candidates to one ranking. Pure: what was found goes in, scores come out.
//!
//! Each list is brought to 0..1 by its own best and worst, so that a list whose numbers lie close
//! together counts as much as one whose numbers do not. Reciprocal rank fusion, which looks at the places
//! only, finds less (docs/MEMORY.md has the table), and is kept for that comparison.

use std::collections::HashMap;

use super::locality::Neighbours;

/// Share of the meaning beside the words. Below one, because names and numbers, which questions are
/// mostly about, are words. Chosen leaving one conversation out, on ten conversations of LoCoMo, as are
/// the next three.
const MEANING: f64 = 0.4;
/// What the memory just before or after gives: an answer follows its question.
const NEXT: f64 = 0.4;
/// The one after that.
const NEXT_BUT_ONE: f64 = 0.3;
/// What the best of its conversation gives to every memory of it.
const SESSION: f64 = 0.5;
/// Of reciprocal rank fusion (Cormack et al., 2009).
const RANK_CONSTANT: f64 = 60.0;

/// Id and score, best first.
pub(super) type List = Vec<(String, f32)>;

/// How much a memory got from where.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Scores {
    pub(super) words: f64,
    pub(super) meaning: f64,
    pub(super) around: f64,
    pub(super) other: f64,
}

impl Scores {
    pub(super) fn total(&self) -> f64 {
        self.own() + self.around + self.other
    }

    /// Without what stands around it.
    pub(super) fn own(&self) -> f64 {
        self.words + MEANING * self.meaning
    }
}

pub(super) type Ranking = HashMap<String, Scores>;

/// By score, each list over its own range.
pub(super) fn by_score(words: &List, meaning: &List) -> Ranking {
    let mut ranking = Ranking::new();
    let best = words.first().map_or(1.0, |(_, score)| f64::from(*score)).max(f64::MIN_POSITIVE);
    for (id, score) in words {
        ranking.entry(id.clone()).or_default().words = f64::from(*score) / best;
    }
    let highest = meaning.first().map_or(1.0, |(_, score)| f64::from(*score));
    let lowest = meaning.last().map_or(0.0, |(_, score)| f64::from(*score));
    let range = highest - lowest;
    for (id, score) in meaning {
        // One alone, or all alike: none of them is the worst.
        let share = if range > 1e-6 { (f64::from(*score) - lowest) / range } else { 1.0 };
        ranking.entry(id.clone()).or_default().meaning = share;
    }
    ranking
}

/// By place.
pub(super) fn by_rank(words: &List, meaning: &List) -> Ranking {
    let mut ranking = Ranking::new();
    for list in [words, meaning] {
        for (rank, (id, _)) in (1_u32..).zip(list) {
            // In `other`, which no weight changes; times the constant, so that the best is about 1.
            ranking.entry(id.clone()).or_default().other += RANK_CONSTANT / (RANK_CONSTANT + f64::from(rank));
        }
    }
    ranking
}

/// Adds what stands around a memory in its conversation. Memories that were not found themselves come in.
pub(super) fn add_neighbours(ranking: &mut Ranking, neighbours: &Neighbours) {
    let base = |id: &String| ranking.get(id).map_or(0.0, Scores::total);
    let mut around: Vec<(String, f64)> = Vec::new();
    let strongest = ranking.values().map(Scores::total).fold(f64::MIN_POSITIVE, f64::max);
    for session in neighbours.sessions() {
        let scores: Vec<f64> = session.iter().map(base).collect();
        let best = scores.iter().copied().fold(0.0, f64::max);
        let at = |place: usize, step: isize| {
            place.checked_add_signed(step).and_then(|place| scores.get(place)).copied().unwrap_or(0.0)
        };
        for (place, id) in session.iter().enumerate() {
            let next = at(place, -1) + at(place, 1);
            let next_but_one = at(place, -2) + at(place, 2);
            around.push((id.clone(), NEXT * next + NEXT_BUT_ONE * next_but_one + SESSION * best / strongest));
        }
    }
    for (id, score) in around {
        ranking.entry(id).or_default().around = score;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn list(entries: &[(&str, f32)]) -> List {
        entries.iter().map(|(id, score)| ((*id).to_owned(), *score)).collect()
    }

    #[test]
    fn what_both_lists_have_comes_before_what_one_has() {
        for ranking in [
            by_score(
                &list(&[("both", 8.0), ("words", 7.9)]),
                &list(&[("meaning", 0.9), ("both", 0.8), ("last", 0.2)]),
            ),
            by_rank(&list(&[("both", 8.0), ("words", 7.9)]), &list(&[("both", 0.9), ("meaning", 0.8)])),
        ] {
            let total = |id: &str| ranking[id].total();
            assert!(total("both") > total("words") && total("both") > total("meaning"), "{ranking:?}");
        }
    }

    #[test]
    fn empty_lists_and_equal_scores_are_no_trouble() {
        assert!(by_score(&List::new(), &List::new()).is_empty());
        let ranking = by_score(&List::new(), &list(&[("alone", 0.5)]));
        assert!(
            (ranking["alone"].meaning - 1.0).abs() < f64::EPSILON,
            "the only one is the best: {ranking:?}"
        );
        let ranking = by_score(&list(&[("a", 0.0)]), &list(&[("a", 0.5), ("b", 0.5)]));
        assert!(ranking.values().all(|scores| scores.total().is_finite()), "{ranking:?}");
    }
}
