//! Memories of other programs: the SQLite database of the original Spacebot, and the Markdown notes of
//! OpenClaw (`MEMORY.md` and `memory/YYYY-MM-DD.md`).

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::CommandError;
use super::import::Entry;
use crate::db::rusqlite::types::ValueRef;
use crate::db::rusqlite::{self, Connection, OpenFlags, Row};
use crate::memory::transfer::{Imported, parse_time};
use crate::memory::{MemoryType, NewMemory, Source, Who};

/// Longest note, in bytes.
const NOTE_BYTES_MAX: u64 = 4 << 20;
/// Most notes of one folder.
const NOTES_MAX: usize = 10_000;

type Take<'a> = &'a mut dyn FnMut(Entry) -> Result<(), CommandError>;

/// Reads the table `memories` of the original; what it has forgotten stays there.
pub(super) fn database(file: &Path, take: Take<'_>) -> Result<(), CommandError> {
    let failed = |error: rusqlite::Error| {
        CommandError::Invalid(format!(
            "{}: {error}; expected a database with the table memories",
            file.display()
        ))
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(failed)?;
    let sql = "SELECT id, content, memory_type, importance, created_at, source, channel_id FROM memories
               WHERE coalesce(forgotten, 0) = 0 ORDER BY created_at";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let id: String = row.get(0).unwrap_or_default();
        take((format!("memory {id}"), of_row(row)))?;
    }
    Ok(())
}

fn of_row(row: &Row<'_>) -> Result<Imported, String> {
    let text = |column: usize| row.get::<_, Option<String>>(column).map_err(|error| error.to_string());
    let word = text(2)?.unwrap_or_default();
    let memory_type = match word.as_str() {
        // Has no counterpart here; what is known about a person is a fact.
        "human" => MemoryType::Fact,
        word => word.parse().map_err(|error: crate::memory::MemoryError| error.to_string())?,
    };
    let created_at = match row.get_ref(4).map_err(|error| error.to_string())? {
        ValueRef::Text(text) => parse_time(&String::from_utf8_lossy(text)),
        ValueRef::Integer(seconds) => Some(crate::clock::Timestamp(seconds.saturating_mul(1000))),
        _ => None,
    };
    Ok(Imported::new(NewMemory {
        importance: row.get(3).map_err(|error| error.to_string())?,
        created_at,
        source: text(5)?.as_deref().map(Source::parse),
        channel_id: text(6)?,
        ..NewMemory::new(memory_type, text(1)?.unwrap_or_default())
    }))
}

/// Reads one note, or `MEMORY.md` and `memory/*.md` of a folder.
pub(super) fn markdown(path: &Path, take: Take<'_>) -> Result<(), CommandError> {
    let mut notes = if path.is_dir() { notes_of(path)? } else { vec![path.to_owned()] };
    notes.sort();
    for note in notes {
        let failed = |error| CommandError::File { file: note.clone(), error };
        let mut text = String::new();
        File::open(&note)
            .map_err(failed)?
            .take(NOTE_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
        if text.len() as u64 > NOTE_BYTES_MAX {
            return Err(CommandError::Invalid(format!(
                "{} is longer than {NOTE_BYTES_MAX} bytes",
                note.display()
            )));
        }
        let name = note.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let day = parse_time(name.trim_end_matches(".md"));
        // A diary tells what happened, the other notes what is.
        let memory_type = if day.is_some() { MemoryType::Event } else { MemoryType::Fact };
        for (line, content) in paragraphs(&text) {
            let memory = NewMemory {
                created_at: day,
                source: Some(Source::new(Who::File, name.clone())),
                ..NewMemory::new(memory_type, content)
            };
            take((format!("{name}:{line}"), Ok(Imported::new(memory))))?;
        }
    }
    Ok(())
}

fn notes_of(folder: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let mut notes = Vec::new();
    let long_lived = folder.join("MEMORY.md");
    if long_lived.is_file() {
        notes.push(long_lived);
    }
    let diary = folder.join("memory");
    let places = if diary.is_dir() { diary } else { folder.to_owned() };
    let entries =
        fs::read_dir(&places).map_err(|error| CommandError::File { file: places.clone(), error })?;
    for entry in entries.flatten().take(NOTES_MAX) {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "md")
            && path.is_file()
            && !notes.contains(&path)
        {
            notes.push(path);
        }
    }
    if notes.is_empty() {
        return Err(CommandError::Invalid(format!("{} holds no Markdown notes", folder.display())));
    }
    Ok(notes)
}

/// Each item of a list and each paragraph is a memory, with the headings above it in front.
fn paragraphs(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut headings: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        let level = trimmed.chars().take_while(|character| *character == '#').count();
        if (1..=6).contains(&level) && trimmed[level..].starts_with(' ') {
            headings.retain(|(above, _)| *above < level);
            headings.push((level, trimmed[level..].trim().to_owned()));
            open = false;
            continue;
        }
        if trimmed.is_empty() || trimmed.chars().all(|character| matches!(character, '-' | '*' | '_' | '=')) {
            open = false;
            continue;
        }
        let item = ["- ", "* ", "+ "].iter().find_map(|sign| trimmed.strip_prefix(sign));
        let is_nested = item.is_some() && line.starts_with([' ', '\t']);
        match (item, found.last_mut()) {
            // A nested item and a further line belong to what stands above them.
            (Some(words), Some((_, last))) if open && is_nested => last.push_str(&format!("; {words}")),
            (None, Some((_, last))) if open => last.push_str(&format!(" {trimmed}")),
            _ => {
                let words = item.unwrap_or(trimmed);
                let above: Vec<_> = headings
                    .iter()
                    .skip_while(|(level, _)| *level == 1)
                    .map(|(_, text)| text.as_str())
                    .collect();
                let prefix = if above.is_empty() { String::new() } else { format!("{}: ", above.join(", ")) };
                found.push((number + 1, format!("{prefix}{words}")));
            }
        }
        open = true;
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn notes_become_memories_with_their_headings() {
        let text = "# Memory\n\nLikes dark roast\nin the morning.\n\n## House\n- boiler: 2019\n  - serviced in March\n- key by the door\n\n---\n### Garden\n* roses\n";
        let found = paragraphs(text);
        let contents: Vec<_> = found.iter().map(|(line, content)| (*line, content.as_str())).collect();
        assert_eq!(
            contents,
            [
                (3, "Likes dark roast in the morning."),
                (7, "House: boiler: 2019; serviced in March"),
                (9, "House: key by the door"),
                (13, "House, Garden: roses"),
            ]
        );
    }
}
