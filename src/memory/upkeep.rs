//! Keeping memories in shape: importance fades, what has faded out is put aside and later archived, near
//! duplicates become one.
//!
//! Nothing is written to let importance fade: it is computed from the stored base and two times (spec
//! 2.5). Writing it, as the original does every hour, compounds it.

use std::time::Duration;

use super::record::{CONTENT_BYTES_MAX, Memory, MemoryType, Source};
use super::store;
use super::transfer::export_line;
use crate::clock::Timestamp;
use crate::config::MemoryUpkeepConfig;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, params};

const DAY: Duration = Duration::from_secs(86_400);
/// The most that days take of an importance.
const DECAY_MOST: f64 = 0.5;
/// What was read within a week counts more, what was not for a month counts less.
const READ_LATELY: (Duration, f64) = (Duration::from_secs(7 * 86_400), 1.1);
const UNREAD_LONG: (Duration, f64) = (Duration::from_secs(30 * 86_400), 0.9);
/// How long a pruned memory can still be brought back before it goes to the archive.
const PRUNED_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Why it was forgotten.
const PRUNED: &str = "pruned";
/// Memories that one pass prunes or archives.
const ROWS_MAX: usize = 500;

/// The importance of a memory now, from 0 to 1, when a day takes `decay` of it. Who somebody is does not fade.
pub(super) fn importance(memory: &Memory, decay: f64, now: Timestamp) -> f64 {
    if memory.memory_type == MemoryType::Identity {
        return memory.importance;
    }
    let days = now.since(memory.updated_at).as_secs_f64() / DAY.as_secs_f64();
    let unread = now.since(memory.last_accessed_at);
    let factor = match unread {
        unread if unread < READ_LATELY.0 => READ_LATELY.1,
        unread if unread > UNREAD_LONG.0 => UNREAD_LONG.1,
        _ => 1.0,
    };
    (memory.importance * (1.0 - (days * decay).min(DECAY_MOST)) * factor).clamp(0.0, 1.0)
}

/// The most that can be left of a stored importance.
pub(super) fn at_most(stored: f64) -> f64 {
    (stored * READ_LATELY.1).min(1.0)
}

/// Forgets what has faded out, and moves what was pruned long ago to the archive. Returns both counts.
pub(super) fn prune(
    connection: &Connection,
    config: &MemoryUpkeepConfig,
    now: Timestamp,
) -> Result<(usize, usize), DbError> {
    // The most that is left of an importance is 1.1 of it, the least 0.45.
    let highest = config.prune_below / ((1.0 - DECAY_MOST) * UNREAD_LONG.1);
    let faded: Vec<Memory> = store::below(connection, highest, now.minus(config.prune_age), ROWS_MAX)?
        .into_iter()
        .filter(|memory| importance(memory, config.decay_per_day, now) < config.prune_below)
        .collect();
    for memory in &faded {
        store::forget(connection, &memory.id, Some(PRUNED), now)?;
    }
    let gone = store::forgotten_for(connection, PRUNED, now.minus(PRUNED_KEPT), ROWS_MAX)?;
    for memory in &gone {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO memory_archive (id, memory, archived_at) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![memory.id, export_line(memory), now.0])?;
        connection.prepare_cached("DELETE FROM memories WHERE id = ?1")?.execute([&memory.id])?;
    }
    Ok((faded.len(), gone.len()))
}

/// Makes one memory of two: the more important survives with both contents and all ties, the other is
/// forgotten. False when they are not both there, not of one type, or too long together. The vector of the survivor is
/// made anew, because its text is another.
pub(super) fn merge(
    connection: &Connection,
    one: &str,
    other: &str,
    now: Timestamp,
) -> Result<bool, DbError> {
    let live = |id: &str| Ok::<_, DbError>(store::get(connection, id)?.filter(|memory| !memory.forgotten));
    let (Some(one), Some(other)) = (live(one)?, live(other)?) else { return Ok(false) };
    if one.memory_type != other.memory_type || one.memory_type == MemoryType::Identity || one.id == other.id {
        return Ok(false);
    }
    let order = |memory: &Memory| (memory.importance, memory.created_at.0);
    let (survivor, loser) = if order(&one) >= order(&other) { (one, other) } else { (other, one) };
    let Some(content) = joined(&survivor.content, &loser.content) else { return Ok(false) };
    let source = joined_source(survivor.source.as_ref(), loser.source.as_ref());
    let change = store::last_change(connection)? + 1;
    connection
        .prepare_cached(
            "UPDATE memories SET content = ?2, source = ?3, updated_at = ?4, change_seq = ?5,
                 access_count = access_count + ?6, last_accessed_at = max(last_accessed_at, ?7) WHERE id = ?1",
        )?
        .execute(params![
            survivor.id,
            content,
            source,
            now.0,
            change,
            i64::try_from(loser.access_count).unwrap_or(i64::MAX),
            loser.last_accessed_at.0,
        ])?;
    move_ties(connection, &loser.id, &survivor.id, now)?;
    store::forget(connection, &loser.id, Some(&format!("merged into {}", survivor.id)), now)
}

/// Both texts, or one where it holds the other.
fn joined(one: &str, other: &str) -> Option<String> {
    let same = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    if same(one).contains(&same(other)) {
        return Some(one.to_owned());
    }
    if same(other).contains(&same(one)) {
        return Some(other.to_owned());
    }
    let both = format!("{one}\n{other}");
    (both.len() <= CONTENT_BYTES_MAX).then_some(both)
}

/// The source of the survivor, with that of the other behind it.
fn joined_source(one: Option<&Source>, other: Option<&Source>) -> Option<String> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => {
            let label = one.label.as_deref().map(|label| format!("{label}; ")).unwrap_or_default();
            Some(Source { label: Some(format!("{label}{other}")), ..one.clone() }.to_string())
        }
        (one, other) => one.or(other).map(ToString::to_string),
    }
}

/// Ties of the loser become ties of the survivor, which updates it.
fn move_ties(connection: &Connection, loser: &str, survivor: &str, now: Timestamp) -> Result<(), DbError> {
    for column in ["source_id", "target_id"] {
        let sql = format!("UPDATE OR IGNORE associations SET {column} = ?2 WHERE {column} = ?1");
        connection.prepare_cached(&sql)?.execute([loser, survivor])?;
    }
    // What is left of the loser's stands for the survivor already; a tie to oneself means nothing.
    let sql = "DELETE FROM associations WHERE source_id = ?1 OR target_id = ?1 OR (source_id = ?2 AND target_id = ?2)";
    connection.prepare_cached(sql)?.execute([loser, survivor])?;
    store::tie(connection, survivor, loser, "updates", 1.0, now)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn memory(memory_type: MemoryType, base: f64, updated_days: u64, read_days: u64) -> (Memory, Timestamp) {
        let now = Timestamp(1_790_000_000_000);
        let ago = |days: u64| now.minus(Duration::from_secs(days * 86_400));
        let memory = Memory {
            id: "a".to_owned(),
            content: "x".to_owned(),
            memory_type,
            importance: base,
            created_at: ago(updated_days),
            updated_at: ago(updated_days),
            last_accessed_at: ago(read_days),
            access_count: 0,
            source: None,
            channel_id: None,
            forgotten: false,
            change_seq: 1,
        };
        (memory, now)
    }

    #[test]
    fn importance_fades_by_the_written_rule() {
        let cases = [
            (MemoryType::Fact, 0.6, 0, 0, 0.66),
            (MemoryType::Fact, 0.6, 4, 4, 0.528),
            (MemoryType::Fact, 0.6, 20, 20, 0.3),
            (MemoryType::Fact, 0.6, 400, 400, 0.27),
            (MemoryType::Fact, 0.6, 400, 1, 0.33),
            (MemoryType::Identity, 1.0, 400, 400, 1.0),
            (MemoryType::Goal, 1.0, 0, 0, 1.0),
        ];
        for (memory_type, base, updated, read, expected) in cases {
            let (memory, now) = memory(memory_type, base, updated, read);
            let found = importance(&memory, 0.05, now);
            assert!((found - expected).abs() < 1e-9, "{memory_type} {updated} {read}: {found}");
            assert!(
                (importance(&memory, 0.05, now) - found).abs() < f64::EPSILON,
                "looking does not change it"
            );
        }
    }

    #[test]
    fn texts_are_joined_once() {
        assert_eq!(
            joined("The key hangs by the door", "the key  hangs by the door").unwrap(),
            "The key hangs by the door"
        );
        assert_eq!(joined("the key", "The key hangs by the door").unwrap(), "The key hangs by the door");
        assert_eq!(joined("a b", "c d").unwrap(), "a b\nc d");
        assert_eq!(joined(&"x".repeat(30_000), &"y".repeat(30_000)), None);
    }
}
