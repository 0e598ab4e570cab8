//! `memory search`: one question for a person, or a file of them for a measurement.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CommandError;
use crate::memory::{Hit, MemoryStore, MemoryType, Mode, Parts, SearchQuery};
use crate::text;

/// Longest line of a file of queries, in bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a memory that a person is shown.
const SHOWN_BYTES: usize = 200;

pub(super) struct Options {
    mode: Mode,
    memory_type: Option<MemoryType>,
    limit: usize,
    parts: Parts,
}

impl Options {
    pub(super) fn new(
        mode: &str,
        memory_type: Option<&str>,
        limit: usize,
        parts: Option<&str>,
    ) -> Result<Self, CommandError> {
        let parts = parts.map(str::parse).transpose()?.unwrap_or_default();
        Ok(Self { mode: mode.parse()?, memory_type: memory_type.map(str::parse).transpose()?, limit, parts })
    }

    fn query(&self, text: Option<String>) -> SearchQuery {
        let Self { mode, memory_type, limit, parts } = *self;
        SearchQuery { text, memory_type, limit, parts, ..SearchQuery::of(mode) }
    }
}

#[derive(Deserialize)]
struct Question {
    id: serde_json::Value,
    query: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a serde_json::Value>,
    hits: Vec<Found<'a>>,
}

#[derive(Serialize)]
struct Found<'a> {
    id: &'a str,
    source: Option<String>,
    score: f64,
    r#type: MemoryType,
    importance: f64,
    created_at: String,
    content: &'a str,
    why: &'a str,
}

impl<'a> Answer<'a> {
    fn new(id: Option<&'a serde_json::Value>, hits: &'a [Hit]) -> Self {
        let found = |hit: &'a Hit| Found {
            id: &hit.memory.id,
            source: hit.memory.source.as_ref().map(ToString::to_string),
            score: hit.score,
            r#type: hit.memory.memory_type,
            importance: hit.memory.importance,
            created_at: hit.memory.created_at.to_rfc3339(),
            content: &hit.memory.content,
            why: &hit.why,
        };
        Self { id, hits: hits.iter().map(found).collect() }
    }

    fn write(&self, out: &mut impl Write) -> Result<(), CommandError> {
        let json = serde_json::to_string(self).map_err(|error| CommandError::Output(error.into()))?;
        writeln!(out, "{json}").map_err(CommandError::Output)
    }
}

pub(super) fn one(
    store: &MemoryStore,
    options: &Options,
    query: Option<&str>,
    json: bool,
) -> Result<bool, CommandError> {
    let hits = store.search(&options.query(query.map(str::to_owned)))?;
    let mut out = io::stdout().lock();
    if json {
        Answer::new(None, &hits).write(&mut out)?;
        return Ok(true);
    }
    if let Some(notice) = store.notice() {
        eprintln!("{notice}");
    }
    for (number, hit) in hits.iter().enumerate() {
        let (memory, content) = (&hit.memory, text::one_line(&hit.memory.content, SHOWN_BYTES));
        let (day, score) = (memory.created_at.to_rfc3339(), hit.score);
        writeln!(out, "{}. [{}] {} {content}", number + 1, memory.memory_type, &day[..day.len().min(10)])
            .and_then(|()| writeln!(out, "   {score:.2}: {}", hit.why))
            .map_err(CommandError::Output)?;
    }
    if hits.is_empty() {
        writeln!(out, "nothing found").map_err(CommandError::Output)?;
    }
    Ok(true)
}

pub(super) fn many(store: &MemoryStore, options: &Options, file: &Path) -> Result<bool, CommandError> {
    let failed = |error| CommandError::File { file: file.to_owned(), error };
    let mut reader = BufReader::new(File::open(file).map_err(failed)?);
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut number, mut all_good) = (0, true);
    loop {
        let mut line = Vec::new();
        let length = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(failed)?;
        if length == 0 {
            break;
        }
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        match answer(store, options, &line) {
            Ok((question, hits)) => Answer::new(Some(&question.id), &hits).write(&mut out)?,
            Err(reason) => {
                all_good = false;
                eprintln!("line {number}: {reason}");
            }
        }
    }
    out.flush().map_err(CommandError::Output)?;
    Ok(all_good)
}

fn answer(store: &MemoryStore, options: &Options, line: &[u8]) -> Result<(Question, Vec<Hit>), String> {
    let question: Question = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let hits =
        store.search(&options.query(Some(question.query.clone()))).map_err(|error| error.to_string())?;
    Ok((question, hits))
}
