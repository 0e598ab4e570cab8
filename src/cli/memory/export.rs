//! `memory export`: all memories as lines, each of which `import` reads again.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::CommandError;
use crate::memory::MemoryStore;
use crate::memory::transfer::export_line;

pub(super) fn run(store: &MemoryStore, file: Option<&Path>, forgotten: bool) -> Result<bool, CommandError> {
    match file {
        Some(file) => {
            let failed = |error| CommandError::File { file: file.to_owned(), error };
            let mut out = BufWriter::new(File::create(file).map_err(failed)?);
            write_all(store, forgotten, &mut out)?;
            let file = out.into_inner().map_err(|error| CommandError::Output(error.into_error()))?;
            file.sync_all().map_err(CommandError::Output)?;
        }
        None => {
            let mut out = BufWriter::new(io::stdout().lock());
            write_all(store, forgotten, &mut out)?;
            out.flush().map_err(CommandError::Output)?;
        }
    }
    Ok(true)
}

fn write_all(store: &MemoryStore, forgotten: bool, out: &mut impl Write) -> Result<(), CommandError> {
    store.export(forgotten, |memory| writeln!(out, "{}", export_line(memory)).map_err(CommandError::Output))
}
