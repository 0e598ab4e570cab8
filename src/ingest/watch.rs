//! The thread `ingest`: looks at the folders now and then, makes the text of what has come, and says
//! which file waits for its next chunk. While a folder is empty, a look is one reading of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, never, select};

use super::folder::{Entry, Folder, Version};
use super::store::Status;
use super::take::Taken;
use super::{IngestError, Ingestion, shown, store};
use crate::clock::{SharedClock, Timestamp};
use crate::config::IngestionConfig;
use crate::error::log_line;
use crate::id::AgentId;
use crate::thread::{Cancel, Current, contained};

/// A file with a chunk to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub agent: AgentId,
    pub hash: String,
    pub name: String,
}

/// The folder of one agent.
pub struct Watch {
    agent: AgentId,
    ingestion: Ingestion,
    settings: Arc<Current<IngestionConfig>>,
    /// As it was at the last look.
    config: IngestionConfig,
    known: BTreeMap<String, Known>,
    started: bool,
    /// The last thing that was said about the folder as a whole.
    said: String,
}

/// A file as it was at the last look.
struct Known {
    version: Version,
    /// When it was first seen like this.
    since: Duration,
    state: State,
    said: String,
}

enum State {
    /// Taken when it is still the same after the interval.
    Settling,
    /// Its text is ready.
    Ready(String),
    /// Not before it changes.
    Left,
}

impl Watch {
    /// `settings` may be replaced; ring the bell then.
    pub fn new(agent: AgentId, ingestion: Ingestion, settings: Arc<Current<IngestionConfig>>) -> Self {
        let config = (*settings.get()).clone();
        let (known, started, said) = (BTreeMap::new(), false, String::new());
        Self { agent, ingestion, settings, config, known, started, said }
    }

    /// One look: at most one file is named.
    fn look(&mut self, now: Timestamp, monotonic: Duration, cancel: &Cancel) -> Option<Waiting> {
        match self.try_look(now, monotonic, cancel) {
            Ok(waiting) => {
                self.said.clear();
                waiting
            }
            Err(IngestError::Cancelled) => None,
            Err(error) => {
                let words = log_line(&error);
                if words != self.said {
                    log::warn!("the folder of agent {} for files to remember: {words}", self.agent);
                    self.said = words;
                }
                None
            }
        }
    }

    fn try_look(
        &mut self,
        now: Timestamp,
        monotonic: Duration,
        cancel: &Cancel,
    ) -> Result<Option<Waiting>, IngestError> {
        if !self.started {
            self.remember(monotonic)?;
            self.started = true;
        }
        let Some(folder) = self.ingestion.folder()? else { return Ok(None) };
        let entries = folder.list()?;
        self.forget_gone(&entries)?;
        for entry in &entries {
            let seen = self.known.entry(entry.name.clone()).or_insert_with(|| Known::new(entry, monotonic));
            if seen.version != entry.version {
                *seen = Known::new(entry, monotonic);
            }
        }
        // What has begun is ended first.
        let is_ready = |entry: &&Entry| matches!(self.known[&entry.name].state, State::Ready(_));
        let (ready, others): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(is_ready);
        for entry in ready.into_iter().chain(others) {
            if cancel.is_cancelled() {
                return Err(IngestError::Cancelled);
            }
            if let Some(hash) = self.consider(&folder, entry, now, monotonic, cancel)? {
                return Ok(Some(Waiting { agent: self.agent.clone(), hash, name: entry.name.clone() }));
            }
        }
        Ok(None)
    }

    /// After a start: files that are known need not settle again, and what was left stays left.
    fn remember(&mut self, monotonic: Duration) -> Result<(), IngestError> {
        let files = self.ingestion.files()?;
        let mut texts = Vec::new();
        for file in files {
            let state = match file.status {
                Status::Processing => {
                    texts.push(file.hash.clone());
                    State::Ready(file.hash)
                }
                Status::Failed | Status::Left => State::Left,
                Status::Completed | Status::Removed => continue,
            };
            let known = Known { version: file.version, since: monotonic, state, said: String::new() };
            self.known.insert(file.name, known);
        }
        self.ingestion.texts.keep_only(&texts);
        Ok(())
    }

    fn forget_gone(&mut self, entries: &[Entry]) -> Result<(), IngestError> {
        let is_there = |name: &String| entries.iter().any(|entry| entry.name == *name);
        let gone: Vec<String> = self.known.keys().filter(|name| !is_there(name)).cloned().collect();
        for name in gone {
            if let Some(Known { state: State::Left, .. }) = self.known.remove(&name) {
                self.ingestion.db.write(move |connection| store::forget_left(connection, &name))?;
            }
        }
        Ok(())
    }

    /// The hash of a file whose next chunk can be read.
    fn consider(
        &mut self,
        folder: &Folder,
        entry: &Entry,
        now: Timestamp,
        monotonic: Duration,
        cancel: &Cancel,
    ) -> Result<Option<String>, IngestError> {
        let Some(known) = self.known.get_mut(&entry.name) else { return Ok(None) };
        match &known.state {
            State::Left => return Ok(None),
            State::Settling if monotonic.saturating_sub(known.since) < self.config.poll_interval => {
                return Ok(None);
            }
            State::Settling => {}
            State::Ready(hash) => match self.ingestion.file(hash)? {
                Some(file)
                    if file.status == Status::Processing
                        && self.ingestion.texts.length(hash) == Some(file.text_bytes) =>
                {
                    return Ok(Some(file.hash));
                }
                Some(file) if file.status == Status::Failed => {
                    known.state = State::Left;
                    return Ok(None);
                }
                // Its text is gone, or it is all in and should not be here any more.
                _ => {}
            },
        }
        match self.ingestion.take(folder, entry, self.config.chunk_size, now, cancel) {
            Ok(Taken::Ready(hash)) => {
                known.state = State::Ready(hash.clone());
                Ok(Some(hash))
            }
            Ok(Taken::Known | Taken::Later) => Ok(None),
            Err(IngestError::Cancelled) => Err(IngestError::Cancelled),
            Err(IngestError::Changed) => {
                *known = Known::new(entry, monotonic);
                Ok(None)
            }
            Err(error @ IngestError::Left { .. }) => {
                let (name, version, reason) = (entry.name.clone(), entry.version, error.to_string());
                self.ingestion
                    .db
                    .write(move |connection| store::leave(connection, &name, version, &reason, now))?;
                log::warn!("{} is left where it is: {}", shown(&entry.name), log_line(&error));
                known.state = State::Left;
                Ok(None)
            }
            Err(error) => {
                // Tried again at the next look; said once.
                let words = log_line(&error);
                if known.said != words {
                    log::warn!("{} is not taken yet: {words}", shown(&entry.name));
                    known.said = words;
                }
                Ok(None)
            }
        }
    }
}

impl Known {
    fn new(entry: &Entry, monotonic: Duration) -> Self {
        Self { version: entry.version, since: monotonic, state: State::Settling, said: String::new() }
    }
}

/// Looks until `cancel`: each folder in its own interval, and all of them when the bell rings. Where
/// ingestion is switched off, only the bell is waited for. `offer` may block, but not longer than until
/// `cancel`.
pub fn run(
    mut watches: Vec<Watch>,
    clock: &SharedClock,
    bell: &Receiver<()>,
    cancel: &Cancel,
    offer: &dyn Fn(Waiting),
) {
    let mut due = vec![Some(Duration::ZERO); watches.len()];
    let mut rung = false;
    while !cancel.is_cancelled() {
        for (watch, due) in watches.iter_mut().zip(&mut due) {
            let now = clock.monotonic();
            if !rung && due.is_none_or(|due| now < due) {
                continue;
            }
            watch.config = (*watch.settings.get()).clone();
            if !watch.config.enabled {
                *due = None;
                continue;
            }
            match contained(|| watch.look(clock.now(), now, cancel)) {
                Ok(Some(waiting)) => offer(waiting),
                Ok(None) => {}
                Err(panic) => log::error!("looking at the files of agent {} broke: {panic}", watch.agent),
            }
            *due = Some(clock.monotonic() + watch.config.poll_interval);
        }
        let wait = due.iter().flatten().min().map(|at| at.saturating_sub(clock.monotonic()));
        let next = wait.map_or_else(never, after);
        rung = select! {
            recv(bell) -> rung => match rung {
                Ok(()) => true,
                Err(_) => return, // nobody is there to be told
            },
            recv(cancel.receiver()) -> _ => return,
            recv(next) -> _ => false,
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::db::Db;
    use crate::ingest::{Chunk, FOLDER, IngestedFile};
    use std::fs;
    use std::path::PathBuf;

    const EVERY: Duration = Duration::from_secs(30);

    struct Bench {
        _folder: tempfile::TempDir,
        ingest: PathBuf,
        ingestion: Ingestion,
        watch: Watch,
        now: Duration,
    }

    fn bench() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let workspace = folder.path().join("workspace");
        let ingest = workspace.join(FOLDER);
        fs::create_dir_all(&ingest).unwrap();
        fs::create_dir_all(folder.path().join("data")).unwrap();
        let db = Db::open_inline(&folder.path().join("data/s.db"), None).unwrap();
        let ingestion = Ingestion::new(db, &workspace);
        let watch = watch_of(&ingestion);
        Bench { _folder: folder, ingest, ingestion, watch, now: Duration::ZERO }
    }

    fn watch_of(ingestion: &Ingestion) -> Watch {
        let config = IngestionConfig { chunk_size: 10, poll_interval: EVERY, enabled: true };
        Watch::new(AgentId::new("main"), ingestion.clone(), Arc::new(Current::new(config)))
    }

    impl Bench {
        fn put(&self, name: &str, text: &str) {
            fs::write(self.ingest.join(name), text).unwrap();
        }

        /// The name of the file that waits, after some seconds.
        fn look(&mut self, seconds: u64) -> Option<String> {
            self.now += Duration::from_secs(seconds);
            self.watch.look(Timestamp(1), self.now, &Cancel::new()).map(|waiting| waiting.name)
        }

        fn file(&self, name: &str) -> IngestedFile {
            self.ingestion.files().unwrap().into_iter().rfind(|file| file.name == name).unwrap()
        }

        fn finish(&self, chunk: &Chunk) -> Result<(), crate::db::DbError> {
            let chunk = chunk.clone();
            self.ingestion.db.write(move |connection| chunk.finish(connection, 1, Timestamp(2)))
        }

        /// Reads one chunk, as a process would.
        fn read(&self, name: &str) -> String {
            let chunk = self.ingestion.next_chunk(&self.file(name)).unwrap();
            self.finish(&chunk).unwrap();
            chunk.text
        }
    }

    #[test]
    fn a_file_is_taken_when_it_has_been_the_same_for_an_interval() {
        let mut bench = bench();
        assert_eq!(bench.look(30), None);
        bench.put("a.txt", "one\n");
        assert_eq!(bench.look(30), None);
        assert_eq!(bench.look(1), None, "looked at again too soon");
        bench.put("a.txt", "one\ntwo\n");
        assert_eq!(bench.look(29), None);
        assert_eq!(bench.look(29), None, "it has changed meanwhile");
        assert_eq!(bench.look(1).as_deref(), Some("a.txt"));
        assert_eq!(bench.look(30).as_deref(), Some("a.txt"), "offered until it is in");
        assert_eq!(bench.read("a.txt"), "one\ntwo\n");
        assert_eq!(bench.file("a.txt").status, Status::Completed);
    }

    #[test]
    fn a_start_goes_on_at_once_and_with_the_same_chunks() {
        let mut bench = bench();
        bench.put("a.txt", "one\ntwo\nthree\nfour\n");
        bench.look(30);
        assert_eq!(bench.look(30).as_deref(), Some("a.txt"));
        assert_eq!((bench.file("a.txt").total_chunks, bench.read("a.txt")), (3, "one\ntwo\n".to_owned()));
        bench.watch = watch_of(&bench.ingestion);
        bench.watch.config.chunk_size = 5;
        assert_eq!(bench.look(0).as_deref(), Some("a.txt"));
        // Its text is lost: it is made anew, and goes on where it was.
        bench.ingestion.drop_text(&bench.file("a.txt"));
        assert!(bench.ingestion.next_chunk(&bench.file("a.txt")).is_err());
        assert_eq!(bench.look(1).as_deref(), Some("a.txt"));
        assert_eq!(bench.read("a.txt"), "three\n");
        assert_eq!(bench.read("a.txt"), "four\n");
        let file = bench.file("a.txt");
        assert_eq!((file.status, file.done_chunks, file.memories), (Status::Completed, 3, 3));
    }

    #[test]
    fn a_chunk_is_in_once() {
        let mut bench = bench();
        bench.put("a.txt", "one\ntwo\nthree\nfour\n");
        bench.look(30);
        bench.look(30);
        let chunk = bench.ingestion.next_chunk(&bench.file("a.txt")).unwrap();
        bench.finish(&chunk).unwrap();
        assert!(bench.finish(&chunk).is_err(), "the same chunk again");
        assert_eq!(bench.file("a.txt").done_chunks, 1);
        bench.ingestion.mark_removed(&bench.file("a.txt"), Timestamp(3)).unwrap();
        bench
            .ingestion
            .texts
            .store(&bench.file("a.txt").hash, |text| text.put(b"one\ntwo\nthree\n"))
            .unwrap();
        let chunk = bench.ingestion.next_chunk(&bench.file("a.txt")).unwrap();
        assert!(bench.finish(&chunk).is_err(), "the file is not being taken");
    }

    #[test]
    fn the_same_content_is_taken_once_whatever_its_name() {
        let mut bench = bench();
        bench.put("a.txt", "one\n");
        bench.put("b.txt", "one\n");
        bench.look(30);
        assert_eq!(bench.look(30).as_deref(), Some("a.txt"));
        assert_eq!(bench.ingestion.files().unwrap().len(), 1);
        fs::rename(bench.ingest.join("a.txt"), bench.ingest.join("c.txt")).unwrap();
        assert_eq!(bench.look(30).as_deref(), Some("b.txt"), "the other one stands for it now");
        bench.read("b.txt");
        bench.ingestion.delete(&bench.file("b.txt")).unwrap();
        assert_eq!(bench.look(30), None);
        assert_eq!(fs::read_dir(&bench.ingest).unwrap().count(), 0, "the copy is in memory too");
        assert_eq!(bench.file("b.txt").done_chunks, 1);
    }

    #[test]
    fn a_file_that_changed_is_neither_deleted_nor_read_on() {
        let mut bench = bench();
        bench.put("a.txt", "one\n");
        bench.look(30);
        bench.look(30);
        let old = bench.file("a.txt");
        assert!(bench.ingestion.is_there(&old));
        bench.put("a.txt", "something else\n");
        assert!(!bench.ingestion.is_there(&old));
        bench.ingestion.delete(&old).unwrap();
        assert!(bench.ingest.join("a.txt").exists());
    }

    #[test]
    fn a_part_is_tried_again_and_again_and_then_no_more() {
        let mut bench = bench();
        bench.put("a.txt", "one\n");
        bench.look(30);
        bench.look(30);
        let mut waits = Vec::new();
        let next = loop {
            match bench.ingestion.fail(&bench.file("a.txt"), "because", Timestamp(3)).unwrap() {
                crate::event::Ingested::Again(wait) => waits.push(wait.as_secs()),
                next => break next,
            }
        };
        assert_eq!((waits, next), (vec![1, 2, 4], crate::event::Ingested::Over));
        assert_eq!(bench.file("a.txt").reason.as_deref(), Some("because"));
        assert_eq!(bench.look(30), None);
        bench.watch = watch_of(&bench.ingestion);
        assert_eq!((bench.look(30), bench.look(30)), (None, None), "nor after a start");
    }
}
