//! Pairs of memories that may contradict each other: nearly the same words, and another number or a
//! negation. They are proposed, never decided here; until somebody decides they are merely tied.

use schemars::JsonSchema;
use serde::Deserialize;

use super::record::{Memory, MemoryType, RelationType};
use super::store;
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, params};

/// English; in other languages only numbers tell.
const NEGATIONS: &[&str] = &[
    "no",
    "not",
    "never",
    "none",
    "neither",
    "nor",
    "without",
    "cannot",
    "stopped",
    "quit",
    "don't",
    "doesn't",
    "didn't",
    "isn't",
    "aren't",
    "wasn't",
    "weren't",
    "can't",
    "won't",
    "hasn't",
    "haven't",
    "shouldn't",
];

/// What somebody made of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Both stand, and each says that the other contradicts it.
    Contradicts,
    /// The newer takes the place of the older.
    Updates,
    /// They have nothing to do with each other.
    Unrelated,
}

impl Decision {
    /// Every decision with its name.
    pub const ALL: [(&'static str, Self); 3] =
        [("contradicts", Self::Contradicts), ("updates", Self::Updates), ("unrelated", Self::Unrelated)];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// Two memories that may contradict each other.
#[derive(Debug, Clone)]
pub struct Proposal {
    pub id: i64,
    pub newer: Memory,
    pub older: Memory,
    /// Of their vectors.
    pub cosine: f64,
}

/// Whether two texts that are nearly the same in meaning say different things: their numbers differ, or
/// one denies. Events and observations are of their moment and contradict nothing.
pub(super) fn disagree(one: &Memory, other: &Memory) -> bool {
    let of_a_moment =
        |memory: &Memory| matches!(memory.memory_type, MemoryType::Event | MemoryType::Observation);
    if one.memory_type != other.memory_type || of_a_moment(one) {
        return false;
    }
    let (one, other) = (Claims::of(&one.content), Claims::of(&other.content));
    let numbers = !one.numbers.is_empty() && !other.numbers.is_empty() && one.numbers != other.numbers;
    numbers || one.denies != other.denies
}

#[derive(Debug)]
struct Claims {
    numbers: Vec<String>,
    /// An odd number of negations.
    denies: bool,
}

impl Claims {
    fn of(text: &str) -> Self {
        let (mut numbers, mut negations) = (Vec::new(), 0);
        for word in text.split(|character: char| !(character.is_alphanumeric() || "'’.:".contains(character)))
        {
            let word = word.trim_matches(['.', ':', '\'']).replace('’', "'").to_lowercase();
            if word.chars().any(|character| character.is_numeric()) {
                numbers.push(word);
            } else if NEGATIONS.contains(&word.as_str()) {
                negations += 1;
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        Self { numbers, denies: negations % 2 == 1 }
    }
}

/// Writes a pair down, unless it was proposed before.
pub(super) fn propose(
    connection: &Connection,
    newer: &Memory,
    older: &Memory,
    cosine: f64,
) -> Result<(), DbError> {
    let sql = "INSERT INTO memory_proposals (newer_id, older_id, cosine, created_at) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (newer_id, older_id) DO NOTHING";
    connection.prepare_cached(sql)?.execute(params![newer.id, older.id, cosine, newer.updated_at.0])?;
    Ok(())
}

/// Open proposals about memories that are not forgotten, the oldest first.
pub(super) fn open(connection: &Connection, limit: usize) -> Result<Vec<Proposal>, DbError> {
    let sql = "SELECT p.id, p.newer_id, p.older_id, p.cosine FROM memory_proposals p
                   JOIN memories n ON n.id = p.newer_id AND n.forgotten = 0
                   JOIN memories o ON o.id = p.older_id AND o.forgotten = 0
               WHERE p.decision IS NULL ORDER BY p.id LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows =
        statement.query_map([limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let mut found = Vec::new();
    for row in rows {
        let (id, newer, older, cosine): (i64, String, String, f64) = row?;
        if let (Some(newer), Some(older)) = (store::get(connection, &newer)?, store::get(connection, &older)?)
        {
            found.push(Proposal { id, newer, older, cosine });
        }
    }
    Ok(found)
}

/// How many there are.
pub(super) fn count(connection: &Connection) -> Result<u64, DbError> {
    let sql = "SELECT count(*) FROM memory_proposals p
                   JOIN memories n ON n.id = p.newer_id AND n.forgotten = 0
                   JOIN memories o ON o.id = p.older_id AND o.forgotten = 0
               WHERE p.decision IS NULL";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Ties the pair as decided. False when there is no such open proposal.
pub(super) fn decide(
    connection: &Connection,
    id: i64,
    decision: Decision,
    now: Timestamp,
) -> Result<bool, DbError> {
    let sql = "UPDATE memory_proposals SET decision = ?2, decided_at = ?3 WHERE id = ?1 AND decision IS NULL
               RETURNING newer_id, older_id, cosine";
    let row = connection
        .prepare_cached(sql)?
        .query_row(params![id, decision.name(), now.0], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, f64>(2)?))
        })
        .optional()?;
    let Some((newer, older, cosine)) = row else { return Ok(false) };
    let relation = match decision {
        Decision::Contradicts => RelationType::Contradicts,
        Decision::Updates => RelationType::Updates,
        Decision::Unrelated => {
            let sql = "DELETE FROM associations WHERE source_id = ?1 AND target_id = ?2 AND relation_type = 'related_to'";
            connection.prepare_cached(sql)?.execute([&newer, &older])?;
            return Ok(true);
        }
    };
    store::tie(connection, &newer, &older, relation.as_str(), cosine.clamp(0.0, 1.0), now)?;
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn memory(memory_type: MemoryType, content: &str) -> Memory {
        let at = Timestamp(1);
        Memory {
            id: content.to_owned(),
            content: content.to_owned(),
            memory_type,
            importance: 0.5,
            created_at: at,
            updated_at: at,
            last_accessed_at: at,
            access_count: 0,
            source: None,
            channel_id: None,
            forgotten: false,
            change_seq: 1,
        }
    }

    #[test]
    fn another_number_or_a_negation_disagrees() {
        let cases = [
            ("The meeting is at 5 pm", "The meeting is at 6 pm", true),
            ("The meeting is at 5 pm.", "The meeting: 5 pm", false),
            ("Ada eats meat", "Ada does not eat meat", true),
            ("Ada doesn’t eat meat", "Ada does not eat meat", false),
            ("Ada doesn't not eat meat", "Ada eats meat", false),
            ("The router has the address 10.0.0.1", "The router's address is 10.0.0.7", true),
            ("The garden has a pond", "There is a pond in the garden", false),
            ("Rent is paid on the 3rd", "Rent is paid monthly", false),
            ("", "", false),
        ];
        for (one, other, expected) in cases {
            let (one, other) = (memory(MemoryType::Fact, one), memory(MemoryType::Fact, other));
            assert_eq!(disagree(&one, &other), expected, "{} / {}", one.id, other.id);
            assert_eq!(disagree(&other, &one), expected);
        }
        let (one, other) = (memory(MemoryType::Event, "ran 5 km"), memory(MemoryType::Event, "ran 6 km"));
        assert!(!disagree(&one, &other), "two days");
        assert!(!disagree(&memory(MemoryType::Goal, "run 5 km"), &memory(MemoryType::Fact, "run 6 km")));
    }
}
