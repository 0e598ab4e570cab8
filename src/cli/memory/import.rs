//! `memory import`: reads line by line and stores in batches. A second run takes only what is new, so
//! that a run which was cut off is simply run again.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;

use super::{CommandError, originals};
use crate::memory::transfer::{Imported, LINE_BYTES_MAX, parse_line};
use crate::memory::{MemoryError, MemoryStore};

/// Memories of one commit: a daemon beside us waits this long at most for its turn.
const BATCH: usize = 256;

/// Where an entry stood, for messages: `line 12`.
pub(super) type Entry = (String, Result<Imported, String>);

pub(super) fn run(store: &MemoryStore, file: &Path) -> Result<bool, CommandError> {
    let mut run = Run { store, batch: Vec::new(), counts: Counts::default(), progress: Progress::new(file) };
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if file.is_dir() || matches!(extension, "md" | "markdown") {
        originals::markdown(file, &mut |entry| run.take(entry, 0))?;
    } else if matches!(extension, "db" | "sqlite" | "sqlite3") {
        originals::database(file, &mut |entry| run.take(entry, 0))?;
    } else {
        lines(file, &mut run)?;
    }
    run.store_batch()?;
    run.progress.end();
    let Counts { new, known, refused } = run.counts;
    println!("{new} imported, {known} were there before, {refused} refused");
    fill(store)?;
    Ok(refused == 0)
}

/// Makes the vectors that are missing; without a model that is said and no failure.
pub(super) fn fill(store: &MemoryStore) -> Result<bool, CommandError> {
    let shown = io::stderr().is_terminal();
    let filled = store.fill_vectors(&mut |made| {
        if shown {
            eprint!("\r{made} vectors");
        }
    });
    if shown {
        eprintln!();
    }
    match filled {
        Ok(_) => Ok(true),
        // The words are there; the daemon makes the vectors when it can.
        Err(error @ MemoryError::Embedding(_)) => {
            eprintln!("spacebot: {}", crate::error::log_line(&error));
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug, Default)]
struct Counts {
    new: usize,
    known: usize,
    refused: usize,
}

struct Run<'a> {
    store: &'a MemoryStore,
    batch: Vec<(String, Imported)>,
    counts: Counts,
    progress: Progress,
}

impl Run<'_> {
    fn take(&mut self, (place, entry): Entry, read: u64) -> Result<(), CommandError> {
        match entry {
            Ok(imported) => self.batch.push((place, imported)),
            Err(reason) => self.refuse(&place, &reason),
        }
        if self.batch.len() >= BATCH {
            self.store_batch()?;
            self.progress.show(read, self.counts.new + self.counts.known);
        }
        Ok(())
    }

    fn refuse(&mut self, place: &str, reason: &str) {
        self.counts.refused += 1;
        self.progress.end();
        eprintln!("{place}: {reason}");
    }

    fn store_batch(&mut self) -> Result<(), CommandError> {
        let (places, batch): (Vec<_>, Vec<_>) = std::mem::take(&mut self.batch).into_iter().unzip();
        if batch.is_empty() {
            return Ok(());
        }
        let outcomes: Vec<Result<bool, MemoryError>> = self.store.import(batch)?;
        for (place, outcome) in places.iter().zip(outcomes) {
            match outcome {
                Ok(true) => self.counts.new += 1,
                Ok(false) => self.counts.known += 1,
                Err(error) => self.refuse(place, &error.to_string()),
            }
        }
        Ok(())
    }
}

fn lines(file: &Path, run: &mut Run<'_>) -> Result<(), CommandError> {
    let failed = |error| CommandError::File { file: file.to_owned(), error };
    let mut reader = BufReader::new(File::open(file).map_err(failed)?);
    let (mut number, mut read, mut line) = (0_u64, 0, Vec::new());
    loop {
        line.clear();
        let length =
            (&mut reader).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).map_err(failed)?;
        if length == 0 {
            return Ok(());
        }
        number += 1;
        read += length as u64;
        let entry = if length > LINE_BYTES_MAX {
            if !line.ends_with(b"\n") {
                read += skip_line(&mut reader).map_err(failed)?;
            }
            Err(format!("longer than {LINE_BYTES_MAX} bytes"))
        } else {
            match std::str::from_utf8(&line) {
                Ok(text) if text.trim().is_empty() => continue,
                Ok(text) => parse_line(text.trim_start_matches('\u{feff}')),
                Err(_) => Err("not UTF-8".to_owned()),
            }
        };
        run.take((format!("line {number}"), entry), read)?;
    }
}

/// Passes over the rest of a line without holding it.
fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let part = reader.fill_buf()?;
        let end = part.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(part.len(), |end| end + 1);
        let over = end.is_some() || part.is_empty();
        reader.consume(length);
        skipped += length as u64;
        if over {
            return Ok(skipped);
        }
    }
}

/// One line on a terminal that is written over and over.
struct Progress {
    size: u64,
    shown: bool,
}

impl Progress {
    fn new(file: &Path) -> Self {
        let size = if io::stderr().is_terminal() { file.metadata().map_or(0, |file| file.len()) } else { 0 };
        Self { size, shown: false }
    }

    fn show(&mut self, read: u64, memories: usize) {
        if let Some(percent) = (100 * read.min(self.size)).checked_div(self.size) {
            self.shown = true;
            eprint!("\r{percent:3} % {memories} memories");
            io::stderr().flush().ok(); // only for show
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprintln!();
        }
    }
}
