//! Vectors of texts, made on the device by one thread that loads the model at its first use and puts
//! it away when nobody needs it.
//!
//! Queries go before documents. A caller waits a bounded time and then does without: searching and
//! saving never depend on a vector.

mod files;
mod session;
mod wordpiece;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

pub use files::{MODEL, Places};
pub use wordpiece::{PIECES_MAX, WordPiece};

use crate::config::EmbeddingConfig;
use crate::error::{Fault, Kind, log_line};
use crate::thread::{self, contained, lock};
use session::Model;

/// Numbers of one vector.
pub const DIMENSIONS: usize = 384;
/// Texts that wait; whoever finds it full does without a vector.
const QUEUE: usize = 32;
/// Vectors of recent queries that are kept: a question is often asked again with its answer.
const QUERIES_KEPT: usize = 64;
/// Times that a request finds the thread just ending and starts another.
const TRIES: usize = 3;
/// After a failed load, how long nobody tries again.
const RETRY_AFTER: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, thiserror::Error)]
pub enum EmbedError {
    #[error("no embedding model in {}", shown(.0))]
    NoModel(Vec<PathBuf>),
    #[error("{file}: {reason}")]
    BrokenModel { file: PathBuf, reason: String },
    #[error("the embedding runtime: {0}")]
    Backend(String),
    #[error("embedding takes too long")]
    Busy,
    #[error("embedding is switched off")]
    Off,
}

fn shown(places: &[PathBuf]) -> String {
    places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl Fault for EmbedError {
    fn kind(&self) -> Kind {
        match self {
            EmbedError::NoModel(_) => Kind::NotFound,
            EmbedError::BrokenModel { .. } | EmbedError::Off => Kind::Invalid,
            EmbedError::Backend(_) => Kind::Bug,
            EmbedError::Busy => Kind::Transient,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            EmbedError::NoModel(_) => Some(
                "set memory.embedding.model, or memory.embedding.enabled = false; search uses words only",
            ),
            EmbedError::BrokenModel { .. } => Some("install the model again; search uses words only"),
            _ => None,
        }
    }
}

/// `[memory.embedding]`, resolved.
#[derive(Debug, Clone)]
pub struct Settings {
    pub places: Places,
    /// The model is put away after this time without a text.
    pub idle: Duration,
}

impl Settings {
    pub fn new(config: &EmbeddingConfig, data_folder: &Path) -> Self {
        let (model, onnxruntime) = (config.model.clone(), config.onnxruntime.clone());
        let places = Places { model, onnxruntime, data_folder: data_folder.to_owned() };
        Self { places, idle: config.idle_unload }
    }
}

/// Handle to the one `embed` thread of the program; clones are the same.
#[derive(Clone)]
pub struct Embedder(Arc<Inner>);

struct Inner {
    settings: Settings,
    /// Folder and id of the model; the answer to "is there one" does not change while we run.
    model: Result<(PathBuf, String), EmbedError>,
    running: Mutex<Option<Requests>>,
    /// Until when nobody tries to load again, on the steady clock, and why.
    failed: Mutex<Option<(std::time::Instant, EmbedError)>>,
    queries: Mutex<VecDeque<(String, Arc<[f32]>)>>,
}

#[derive(Clone)]
struct Requests {
    queries: Sender<Request>,
    documents: Sender<Request>,
}

struct Request {
    text: String,
    answer: Sender<Result<Vec<f32>, EmbedError>>,
}

impl Embedder {
    /// Looks for the model's files; loads nothing.
    pub fn new(settings: Settings) -> Self {
        let model = settings.places.model().and_then(|folder| {
            let id = files::model_id(&folder)?;
            Ok((folder, id))
        });
        if let Err(error) = &model {
            log::warn!("{}", log_line(error));
        }
        let (running, failed, queries) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { settings, model, running, failed, queries }))
    }

    /// The id that is stored with every vector.
    ///
    /// # Errors
    /// There is no model.
    pub fn model_id(&self) -> Result<&str, EmbedError> {
        self.0.model.as_ref().map(|(_, id)| id.as_str()).map_err(Clone::clone)
    }

    /// What makes the vectors, for the log and for people.
    ///
    /// # Errors
    /// There is no runtime.
    pub fn backend(&self) -> Result<&'static str, EmbedError> {
        session::backend(&self.0.settings.places)
    }

    /// True while the model is in memory.
    pub fn is_loaded(&self) -> bool {
        lock(&self.0.running).is_some()
    }

    /// The vector of a query, `[384] f32` of length 1, from the cache if it was asked lately.
    ///
    /// # Errors
    /// None within `wait`, or none at all.
    pub fn query(&self, text: &str, wait: Duration) -> Result<Arc<[f32]>, EmbedError> {
        {
            let mut kept = lock(&self.0.queries);
            if let Some(place) = kept.iter().position(|(known, _)| known == text)
                && let Some(found) = kept.remove(place)
            {
                let vector = found.1.clone();
                kept.push_back(found);
                return Ok(vector);
            }
        }
        let vector: Arc<[f32]> = self.ask(text, wait, |requests| &requests.queries)?.into();
        let mut kept = lock(&self.0.queries);
        if kept.len() >= QUERIES_KEPT {
            kept.pop_front();
        }
        kept.push_back((text.to_owned(), vector.clone()));
        Ok(vector)
    }

    /// The vector of a stored text, `[384] f32` of length 1.
    ///
    /// # Errors
    /// None within `wait`, or none at all.
    pub fn document(&self, text: &str, wait: Duration) -> Result<Vec<f32>, EmbedError> {
        self.ask(text, wait, |requests| &requests.documents)
    }

    fn ask(
        &self,
        text: &str,
        wait: Duration,
        queue: impl Fn(&Requests) -> &Sender<Request>,
    ) -> Result<Vec<f32>, EmbedError> {
        let deadline = std::time::Instant::now() + wait;
        for _ in 0..TRIES {
            let requests = self.running()?;
            let (answer, answered) = bounded(1);
            let request = Request { text: text.to_owned(), answer };
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if queue(&requests).send_timeout(request, left).is_err_and(|error| error.is_timeout()) {
                return Err(EmbedError::Busy);
            }
            drop(requests);
            match answered.recv_deadline(deadline) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) => return Err(EmbedError::Busy),
                // The thread ended between our question and its answer.
                Err(RecvTimeoutError::Disconnected) => {}
            }
        }
        Err(EmbedError::Busy)
    }

    /// The queues of the thread, which is started if there is none.
    fn running(&self) -> Result<Requests, EmbedError> {
        let (folder, _) = self.0.model.as_ref().map_err(Clone::clone)?;
        let mut running = lock(&self.0.running);
        if let Some(requests) = &*running {
            return Ok(requests.clone());
        }
        if let Some((until, error)) = &*lock(&self.0.failed)
            && std::time::Instant::now() < *until
        {
            return Err(error.clone());
        }
        let ((queries, queries_in), (documents, documents_in)) = (bounded(QUEUE), bounded(QUEUE));
        let (owner, folder) = (self.clone(), folder.clone());
        // It ends by itself when idle, and holds nothing that an end of the program could lose.
        thread::spawn("embed", move || owner.work(&folder, &queries_in, &documents_in))
            .map_err(|error| EmbedError::Backend(error.to_string()))?;
        Ok(running.insert(Requests { queries, documents }).clone())
    }

    fn work(&self, folder: &Path, queries: &Receiver<Request>, documents: &Receiver<Request>) {
        match contained(|| Model::load(&self.0.settings.places, folder)) {
            Ok(Ok(mut model)) => {
                log::info!("embedding model loaded, {}", self.backend().unwrap_or_default());
                self.serve(&mut model, queries, documents);
                drop(model);
                session::rest();
                log::debug!("embedding model put away");
            }
            Ok(Err(error)) => self.give_up(error, [queries, documents]),
            Err(panic) => self.give_up(EmbedError::Backend(panic), [queries, documents]),
        }
    }

    fn serve(&self, model: &mut Model, queries: &Receiver<Request>, documents: &Receiver<Request>) {
        loop {
            let request = queries.try_recv().or_else(|_| {
                select! {
                    recv(queries) -> request => request,
                    recv(documents) -> request => request,
                    default(self.0.settings.idle) => Err(crossbeam_channel::RecvError),
                }
                .map_err(drop)
            });
            let Ok(Request { text, answer }) = request else {
                let mut running = lock(&self.0.running);
                if queries.is_empty() && documents.is_empty() {
                    *running = None;
                    return;
                }
                continue;
            };
            let made =
                contained(|| model.embed(&text)).unwrap_or_else(|panic| Err(EmbedError::Backend(panic)));
            answer.try_send(made).ok(); // who asked may have stopped waiting
        }
    }

    fn give_up(&self, error: EmbedError, queues: [&Receiver<Request>; 2]) {
        log::warn!("{}", log_line(&error));
        *lock(&self.0.failed) = Some((std::time::Instant::now() + RETRY_AFTER, error.clone()));
        *lock(&self.0.running) = None;
        for request in queues.into_iter().flat_map(Receiver::try_iter) {
            request.answer.try_send(Err(error.clone())).ok(); // who asked may have stopped waiting
        }
    }
}
