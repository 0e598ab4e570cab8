//! `spacebot ingest`: hands files to an agent's memory, and shows how far each has come. Works beside a
//! daemon or without one; the files are read when one runs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::memory::{CommandError, owner};
use crate::config::Config;
use crate::db::Db;
use crate::error::log_line;
use crate::ingest::{self, IngestError, IngestedFile, Ingestion, Status};
use crate::text;

/// Widest name in the table, in bytes.
const NAME_BYTES: usize = 40;

/// What the command line asks for.
pub struct Options {
    pub agent: Option<String>,
    pub files: Vec<PathBuf>,
    pub status: bool,
    pub json: bool,
}

/// False when a file was refused, which was said on standard error by then.
///
/// # Errors
/// It could not be done.
pub fn run(config: &Config, options: &Options) -> Result<bool, CommandError> {
    let owner = owner(config, options.agent.as_deref())?;
    let home = config.data_folder.join("agents").join(owner.id.as_str());
    let (data, workspace) = (home.join("data"), home.join("workspace"));
    let mut all = true;
    for file in &options.files {
        match ingest::add(&workspace, file) {
            Ok(name) => println!("{}: waits as {name}", file.display()),
            Err(error) => {
                all = false;
                eprintln!("{}: {}", file.display(), log_line(&error));
            }
        }
    }
    if options.status {
        if !data.join("spacebot.db").exists() {
            return Err(CommandError::NoMemories(owner.id.to_string()));
        }
        show(&data, &workspace, options.json)?;
    }
    Ok(all)
}

fn show(data: &Path, workspace: &Path, json: bool) -> Result<(), CommandError> {
    let db = Db::open_inline(&data.join("spacebot.db"), None).map_err(IngestError::from)?;
    let ingestion = Ingestion::new(db, workspace);
    let files = ingestion.files().map_err(IngestError::from)?;
    let known = |name: &String| {
        files.iter().any(|file| {
            file.name == *name && matches!(file.status, Status::Processing | Status::Failed | Status::Left)
        })
    };
    let waiting: Vec<String> = ingestion.names()?.into_iter().filter(|name| !known(name)).collect();
    let mut out = io::stdout().lock();
    let written = if json { lines(&mut out, &files, &waiting) } else { table(&mut out, &files, &waiting) };
    written.map_err(CommandError::Output)
}

fn lines(out: &mut impl Write, files: &[IngestedFile], waiting: &[String]) -> io::Result<()> {
    for file in files {
        let line = json!({
            "file": file.name,
            "status": file.status,
            "chunks": file.done_chunks,
            "total_chunks": file.total_chunks,
            "memories": file.memories,
            "size": file.version.size,
            "sha256": (file.status != Status::Left).then_some(&file.hash),
            "reason": file.reason,
            "started_at": file.started_at.to_rfc3339(),
            "completed_at": file.completed_at.map(|time| time.to_rfc3339()),
        });
        writeln!(out, "{line}")?;
    }
    waiting.iter().try_for_each(|name| writeln!(out, "{}", json!({ "file": name, "status": "waiting" })))
}

fn table(out: &mut impl Write, files: &[IngestedFile], waiting: &[String]) -> io::Result<()> {
    let name = |name: &str| text::shorten(&ingest::shown(name), NAME_BYTES).into_owned();
    let mut rows = vec![["file", "status", "parts", "memories", "reason"].map(str::to_owned)];
    rows.extend(files.iter().map(|file| {
        [
            name(&file.name),
            file.status.as_str().to_owned(),
            format!("{}/{}", file.done_chunks, file.total_chunks),
            file.memories.to_string(),
            file.reason.clone().unwrap_or_default(),
        ]
    }));
    let none = String::new;
    rows.extend(waiting.iter().map(|file| [name(file), "waiting".to_owned(), none(), none(), none()]));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..4).map(width).collect();
    for row in &rows {
        let line: String = row[..4]
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .chain([row[4].clone()])
            .collect();
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
