//! What is tied to the memories that were found: one step along every relation, a second one along those
//! that mean "belongs together". Ranked like everything else, and nothing comes twice.

use std::collections::{HashMap, HashSet};

use super::fusion::Ranking;
use super::record::RelationType;
use super::store::id_list;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, params};

/// Hits whose associations are followed.
const SEEDS: usize = 20;
/// Associations read in one step.
const EDGES_MAX: usize = 500;
/// What a tied memory gets of the score of the one that leads to it, before weight and relation.
const SHARE: f64 = 0.5;

/// How far a relation carries (spec: multipliers of the graph search, brought below one by [`SHARE`]).
fn carries(relation: RelationType) -> f64 {
    match relation {
        RelationType::Updates => 1.5,
        RelationType::CausedBy | RelationType::ResultOf => 1.3,
        RelationType::RelatedTo => 1.0,
        RelationType::PartOf => 0.8,
        RelationType::Contradicts => 0.5,
    }
}

fn goes_on(relation: RelationType) -> bool {
    matches!(relation, RelationType::RelatedTo | RelationType::PartOf)
}

struct Edge {
    from: String,
    to: String,
    relation: RelationType,
    weight: f64,
}

/// Adds what is tied to the best of the ranking.
pub(super) fn expand(connection: &Connection, ranking: &mut Ranking) -> Result<(), DbError> {
    let mut seeds: Vec<(String, f64)> =
        ranking.iter().map(|(id, scores)| (id.clone(), scores.total())).collect();
    seeds.sort_by(|one, other| other.1.total_cmp(&one.1).then(other.0.cmp(&one.0)));
    seeds.truncate(SEEDS);
    let mut reached: HashMap<String, f64> = HashMap::new();
    let mut seen: HashSet<String> = seeds.iter().map(|(id, _)| id.clone()).collect();
    for step in 0..2 {
        let scores: HashMap<&str, f64> = seeds.iter().map(|(id, score)| (id.as_str(), *score)).collect();
        let mut further: HashMap<String, f64> = HashMap::new();
        for edge in edges(connection, seeds.iter().map(|(id, _)| id.as_str()))? {
            if step > 0 && !goes_on(edge.relation) {
                continue;
            }
            for (one, other) in [(&edge.from, &edge.to), (&edge.to, &edge.from)] {
                let Some(score) = scores.get(one.as_str()) else { continue };
                let given = SHARE * score * edge.weight * carries(edge.relation);
                let best = reached.entry(other.clone()).or_default();
                *best = best.max(given);
                if goes_on(edge.relation) && !seen.contains(other) {
                    let best = further.entry(other.clone()).or_default();
                    *best = best.max(given);
                }
            }
        }
        if further.is_empty() {
            break;
        }
        seen.extend(further.keys().cloned());
        seeds = further.into_iter().collect();
    }
    for (id, score) in reached {
        ranking.entry(id).or_default().other += score;
    }
    Ok(())
}

fn edges<'a>(connection: &Connection, ids: impl Iterator<Item = &'a str>) -> Result<Vec<Edge>, DbError> {
    let sql = "SELECT source_id, target_id, relation_type, weight FROM associations
               WHERE source_id IN (SELECT value FROM json_each(?1))
               UNION SELECT source_id, target_id, relation_type, weight FROM associations
               WHERE target_id IN (SELECT value FROM json_each(?1))
               ORDER BY weight DESC LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![id_list(ids), EDGES_MAX])?;
    let mut edges = Vec::new();
    while let Some(row) = rows.next()? {
        let relation = row.get_ref(2)?.as_str()?.parse().unwrap_or(RelationType::RelatedTo);
        edges.push(Edge { from: row.get(0)?, to: row.get(1)?, relation, weight: row.get(3)? });
    }
    Ok(edges)
}

/// Which of these a newer memory has taken the place of.
pub(super) fn superseded<'a>(
    connection: &Connection,
    ids: impl Iterator<Item = &'a str>,
) -> Result<HashSet<String>, DbError> {
    let sql =
        "SELECT a.target_id FROM associations a JOIN memories m ON m.id = a.source_id AND m.forgotten = 0
               WHERE a.relation_type = 'updates' AND a.target_id IN (SELECT value FROM json_each(?1))";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([id_list(ids)], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
