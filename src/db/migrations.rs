//! The schema, as numbered files that are never edited once they have been applied anywhere.

use rusqlite::{Connection, OptionalExtension, params};

use super::DbError;

/// Whose tables a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// `agents/<id>/data/spacebot.db`.
    Agent,
    /// `data/global.db`: what belongs to no agent.
    Instance,
}

/// Number (a UTC time, `YYYYMMDDHHMMSS`), name and text.
type Migration = (i64, &'static str, &'static str);

impl Schema {
    /// In order.
    fn migrations(self) -> &'static [Migration] {
        match self {
            Schema::Agent => AGENT,
            Schema::Instance => INSTANCE,
        }
    }
}

const INSTANCE: &[Migration] = &[
    (20261121012000, "token_usage", include_str!("../../migrations/instance/20261121012000_token_usage.sql")),
    (
        20261121021000,
        "agent_places",
        include_str!("../../migrations/instance/20261121021000_agent_places.sql"),
    ),
];

const AGENT: &[Migration] = &[
    (20261121000000, "first_path", include_str!("../../migrations/20261121000000_first_path.sql")),
    (20261121000100, "lean_rows", include_str!("../../migrations/20261121000100_lean_rows.sql")),
    (20261121000200, "memory_imports", include_str!("../../migrations/20261121000200_memory_imports.sql")),
    (20261121000300, "memory_vectors", include_str!("../../migrations/20261121000300_memory_vectors.sql")),
    (20261121000400, "memory_archive", include_str!("../../migrations/20261121000400_memory_archive.sql")),
    (20261121000500, "vector_changes", include_str!("../../migrations/20261121000500_vector_changes.sql")),
    (
        20261121000600,
        "memory_proposals",
        include_str!("../../migrations/20261121000600_memory_proposals.sql"),
    ),
    (20261121001000, "ingestion", include_str!("../../migrations/20261121001000_ingestion.sql")),
    (20261121002000, "working_memory", include_str!("../../migrations/20261121002000_working_memory.sql")),
    (20261121003000, "cron", include_str!("../../migrations/20261121003000_cron.sql")),
    (20261121004000, "tasks", include_str!("../../migrations/20261121004000_tasks.sql")),
    (20261121005000, "compaction", include_str!("../../migrations/20261121005000_compaction.sql")),
    (20261121007000, "continued_runs", include_str!("../../migrations/20261121007000_continued_runs.sql")),
    (
        20261121007100,
        "memory_persistence",
        include_str!("../../migrations/20261121007100_memory_persistence.sql"),
    ),
    (20261121008000, "cortex", include_str!("../../migrations/20261121008000_cortex.sql")),
    (
        20261121010000,
        "channel settings",
        include_str!("../../migrations/20261121010000_channel_settings.sql"),
    ),
    (20261121011000, "links", include_str!("../../migrations/20261121011000_links.sql")),
    (20261121012000, "worker messages", include_str!("../../migrations/20261121012000_worker_messages.sql")),
    (20261121020000, "deferral", include_str!("../../migrations/20261121020000_deferral.sql")),
    (20261121022000, "syntheses", include_str!("../../migrations/20261121022000_syntheses.sql")),
    (
        20261121023000,
        "people and models",
        include_str!("../../migrations/20261121023000_people_and_models.sql"),
    ),
    (20261121031000, "retries", include_str!("../../migrations/20261121031000_retries.sql")),
    (20261121032000, "attachments", include_str!("../../migrations/20261121032000_attachments.sql")),
];

/// Applies what is missing, each file in its own transaction.
pub(super) fn apply(connection: &mut Connection, schema: Schema) -> Result<(), DbError> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
             version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum INTEGER NOT NULL)",
    )?;
    let migrations = schema.migrations();
    refuse_unknown(connection, migrations)?;
    for &(version, name, sql) in migrations {
        let known = connection
            .query_row("SELECT checksum FROM schema_migrations WHERE version = ?1", [version], |row| {
                row.get::<_, i64>(0)
            })
            .optional()?;
        match known {
            Some(found) if found == checksum(sql) => {}
            Some(_) => return Err(failed(name, "its text is not the one that was applied to this database")),
            None => {
                let transaction = connection.transaction()?;
                transaction.execute_batch(sql).map_err(|error| failed(name, &error.to_string()))?;
                transaction.execute(
                    "INSERT INTO schema_migrations (version, name, checksum) VALUES (?1, ?2, ?3)",
                    params![version, name, checksum(sql)],
                )?;
                transaction.commit()?;
            }
        }
    }
    Ok(())
}

/// A database of a newer version is left alone.
fn refuse_unknown(connection: &Connection, migrations: &[Migration]) -> Result<(), DbError> {
    let newest = migrations.last().map_or(0, |migration| migration.0);
    let unknown = connection
        .query_row("SELECT name FROM schema_migrations WHERE version > ?1", [newest], |row| {
            row.get::<_, String>(0)
        })
        .optional()?;
    match unknown {
        Some(name) => Err(failed(&name, "this database was written by a newer version")),
        None => Ok(()),
    }
}

fn failed(name: &str, reason: &str) -> DbError {
    DbError::Migration { name: name.to_owned(), reason: reason.to_owned() }
}

/// FNV-1a, 64 bits: it only has to notice an edit.
fn checksum(text: &str) -> i64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    i64::from_ne_bytes(hash.to_ne_bytes())
}
