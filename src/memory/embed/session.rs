//! One loaded model: onnxruntime where its library is found, else tract, which is built in. The choice
//! is made once for the process.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;

use super::files::{self, Places};
use super::wordpiece::WordPiece;
use super::{DIMENSIONS, EmbedError};
use crate::{allocator, environment};

struct Backend {
    name: String,
    /// Of onnxruntime; none for what is built in.
    library: Option<PathBuf>,
    environment: Environment,
}

static BACKEND: OnceLock<Result<Backend, String>> = OnceLock::new();

pub(super) struct Model {
    session: Session,
    pieces: WordPiece,
}

/// What answers here: `onnxruntime 1.31.1` or `tract`.
pub(super) fn backend(places: &Places) -> Result<&'static str, EmbedError> {
    chosen(places).map(|backend| backend.name.as_str())
}

/// After the last model has gone: what the runtime itself holds goes back to the system, until the next one.
pub(super) fn rest() {
    allocator::give_back();
    let Some(Ok(backend)) = BACKEND.get() else { return };
    // The built-in runtime is code of the program itself.
    if let Some(file) = backend.library.clone().or_else(|| std::env::current_exe().ok()) {
        allocator::give_back_library(&file);
    }
}

fn chosen(places: &Places) -> Result<&'static Backend, EmbedError> {
    let backend = BACKEND.get_or_init(|| choose(places));
    backend.as_ref().map_err(|reason| EmbedError::Backend(reason.clone()))
}

fn choose(places: &Places) -> Result<Backend, String> {
    let mut libraries = places.libraries();
    if !environment::keeps_to_itself() {
        log::warn!("onnxruntime is not loaded: nothing in the environment keeps it from writing home");
        libraries.clear();
    }
    for library in libraries {
        let opened = ort::init_from(&library).map_err(|error| error.to_string());
        match opened.and_then(|builder| {
            builder.with_name("spacebot").with_telemetry(false).build().map_err(|error| error.to_string())
        }) {
            Ok(environment) => {
                return Ok(Backend {
                    name: format!("onnxruntime in {}", library.display()),
                    library: Some(library),
                    environment,
                });
            }
            Err(reason) if places.onnxruntime.is_some() => {
                log::warn!("memory.embedding.onnxruntime: {reason}")
            }
            Err(reason) => log::debug!("no onnxruntime in {}: {reason}", library.display()),
        }
    }
    ort::set_api(ort_tract::api());
    let environment = ort::init().with_name("spacebot").build().map_err(|error| error.to_string())?;
    Ok(Backend { name: "tract (built in)".to_owned(), library: None, environment })
}

impl Model {
    pub(super) fn load(places: &Places, folder: &Path) -> Result<Self, EmbedError> {
        let backend = chosen(places)?;
        let failed = |error: &dyn std::fmt::Display| EmbedError::Backend(error.to_string());
        let vocabulary = files::read_checked(folder, files::VOCABULARY_FILE)?;
        let vocabulary = String::from_utf8(vocabulary).map_err(|error| failed(&error))?;
        let pieces = WordPiece::new(&vocabulary).map_err(|error| failed(&error))?;
        // Read once to be checked, then by the runtime itself: from memory it takes 90 MB more.
        drop(files::read_checked(folder, files::MODEL_FILE)?);
        let mut builder = SessionBuilder::new(&backend.environment).map_err(|error| failed(&error))?;
        builder =
            builder.with_optimization_level(GraphOptimizationLevel::All).map_err(|error| failed(&error))?;
        if backend.library.is_some() {
            builder = native(builder).map_err(|error| failed(&error))?;
        }
        let session =
            builder.commit_from_file(folder.join(files::MODEL_FILE)).map_err(|error| failed(&error))?;
        Ok(Self { session, pieces })
    }

    /// The vector of one text, `[384] f32`, of length 1. One text for each call: a batch costs more in
    /// all and four times the memory.
    pub(super) fn embed(&mut self, text: &str) -> Result<Vec<f32>, EmbedError> {
        let pieces = self.pieces.encode(text);
        let mask = vec![1_i64; pieces.len()];
        let shape = [1, pieces.len()];
        let failed = |error: ort::Error| EmbedError::Backend(error.to_string());
        let inputs = ort::inputs![
            "input_ids" => TensorRef::from_array_view((shape, pieces.as_slice())).map_err(failed)?,
            "attention_mask" => TensorRef::from_array_view((shape, mask.as_slice())).map_err(failed)?,
        ];
        let outputs = self.session.run(inputs).map_err(failed)?;
        let (_, vector) = outputs["sentence_embedding"].try_extract_tensor::<f32>().map_err(failed)?;
        if vector.len() != DIMENSIONS || vector.iter().any(|value| !value.is_finite()) {
            return Err(EmbedError::Backend(format!(
                "the model gave {} numbers, or some that are none",
                vector.len()
            )));
        }
        Ok(vector.to_vec())
    }
}

/// One thread that does not spin, and no arena: the predictable way on a small board.
fn native(builder: SessionBuilder) -> Result<SessionBuilder, ort::Error> {
    let builder = builder.with_intra_threads(1)?.with_inter_threads(1)?.with_intra_op_spinning(false)?;
    Ok(builder.with_execution_providers([ort::ep::CPU::default().with_arena_allocator(false).build()])?)
}
