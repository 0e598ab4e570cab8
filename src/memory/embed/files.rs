//! Where the model and the native runtime lie, and whether the model is what it says.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::EmbedError;

/// The folder's name and the first part of the model's id.
pub const MODEL: &str = "all-MiniLM-L6-v2";
pub(super) const MODEL_FILE: &str = "model.onnx";
pub(super) const VOCABULARY_FILE: &str = "vocab.txt";
const SUMS_FILE: &str = "SHA256SUMS";
/// Where `make install` puts them.
const INSTALLED: &str = "/usr/share/spacebot/models";
/// Parents of the executable that are looked at for `vendor/`: `target/release/deps/x` is four below.
const PARENTS_MAX: usize = 5;
/// Larger than any model for small boards, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Hexadecimal digits of the checksum that make the id.
const ID_DIGITS: usize = 12;

/// Where to look, from the config.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// `memory.embedding.model`: a folder with the three files.
    pub model: Option<PathBuf>,
    /// `memory.embedding.onnxruntime`: the library itself.
    pub onnxruntime: Option<PathBuf>,
    /// `models/` in here is looked at after the configured folder.
    pub data_folder: PathBuf,
}

impl Places {
    /// The folder of the model.
    ///
    /// # Errors
    /// Nowhere a model; says where it was looked for.
    pub(super) fn model(&self) -> Result<PathBuf, EmbedError> {
        let places = match &self.model {
            Some(folder) => vec![folder.clone()],
            None => {
                let mut places =
                    vec![self.data_folder.join("models").join(MODEL), Path::new(INSTALLED).join(MODEL)];
                places.extend(vendor().map(|vendor| vendor.join("models").join(MODEL)));
                places
            }
        };
        let found = places.iter().find(|folder| folder.join(MODEL_FILE).is_file());
        found.cloned().ok_or(EmbedError::NoModel(places))
    }

    /// Libraries to try, in order. The last is a bare name: the system's own places.
    pub(super) fn libraries(&self) -> Vec<PathBuf> {
        if let Some(library) = &self.onnxruntime {
            return vec![library.clone()];
        }
        let name = "libonnxruntime.so";
        let vendored =
            vendor().map(|vendor| vendor.join("onnxruntime").join(std::env::consts::ARCH).join(name));
        let installed = Path::new("/usr/lib/spacebot").join(name);
        let mut found: Vec<_> =
            vendored.into_iter().chain([installed]).filter(|library| library.is_file()).collect();
        found.push(PathBuf::from(name));
        found
    }
}

/// The `vendor` folder of the build that this executable comes from.
fn vendor() -> Option<PathBuf> {
    let executable = std::env::current_exe().ok()?;
    let parents = executable.ancestors().skip(1).take(PARENTS_MAX);
    parents.map(|parent| parent.join("vendor")).find(|vendor| vendor.join("models").is_dir())
}

/// `all-MiniLM-L6-v2-59f9a3e471d4`: another file is another model, and its vectors are not comparable.
pub(super) fn model_id(folder: &Path) -> Result<String, EmbedError> {
    Ok(format!("{MODEL}-{}", &expected(folder, MODEL_FILE)?[..ID_DIGITS]))
}

/// Reads a file whose checksum is the written one.
pub(super) fn read_checked(folder: &Path, name: &str) -> Result<Vec<u8>, EmbedError> {
    let path = folder.join(name);
    let broken = |reason: String| EmbedError::BrokenModel { file: path.clone(), reason };
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(|error| broken(error.to_string()))?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| broken(error.to_string()))?;
    let sum = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let sum: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if sum != expected(folder, name)? {
        return Err(broken(format!("its SHA-256 is {sum}, not the one in {SUMS_FILE}")));
    }
    Ok(bytes)
}

fn expected(folder: &Path, name: &str) -> Result<String, EmbedError> {
    let file = folder.join(SUMS_FILE);
    let broken = |reason: String| EmbedError::BrokenModel { file: file.clone(), reason };
    let sums = fs::read_to_string(&file).map_err(|error| broken(error.to_string()))?;
    let line = sums.lines().find_map(|line| line.strip_suffix(name)?.strip_suffix("  "));
    let sum = line.filter(|sum| sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()));
    sum.map(str::to_owned).ok_or_else(|| broken(format!("no SHA-256 of {name} in it")))
}
