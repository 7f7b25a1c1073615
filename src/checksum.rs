//! Checksums of the checkpoints and questions that a result was measured on.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use secateur_weights::Checkpoint;
use sha2::{Digest, Sha256};

use crate::{
    Error,
    task::{MediaSource, Sample},
};

/// A folder with files that are part of the checksum.
pub(crate) struct Part<'a> {
    pub(crate) folder: &'a Path,
    /// The names of small files, which are read if they are there.
    pub(crate) small: &'a [&'a str],
    /// Whether the weights are read.
    pub(crate) weights: bool,
}

/// The checksum of a checkpoint. Other files in its folders are not read, and change no answer.
///
/// # Errors
/// When a folder has no weights, or a file cannot be read.
pub(crate) fn checkpoint_sha256(parts: &[Part]) -> Result<String, Error> {
    let mut files = Vec::new();
    for Part { folder, small, weights } in parts {
        files.extend(small.iter().map(|name| folder.join(name)).filter(|path| path.is_file()));
        if *weights {
            files.extend(Checkpoint::files(folder)?);
        }
    }
    files_sha256(&files)
}

/// The checksum of files, with their names.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn files_sha256(files: &[PathBuf]) -> Result<String, Error> {
    let sums = files.par_iter().map(|path| file_sha256(path)).collect::<Result<Vec<_>, _>>()?;
    let mut all = Sha256::new();
    for (path, sum) in files.iter().zip(sums) {
        all.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        all.update(sum);
    }
    Ok(hex(&all.finalize()))
}

/// The checksum of a file. The hub's cache has it in the name of the file that a link points to.
fn file_sha256(path: &Path) -> Result<String, Error> {
    let target = std::fs::read_link(path).ok();
    let name = target.as_ref().and_then(|target| target.file_name()?.to_str());
    if let Some(name) = name.filter(|name| name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit())) {
        return Ok(name.to_owned());
    }
    let mut sum = Sha256::new();
    let mut file = std::fs::File::open(path).map_err(Error::io(path, "cannot be read"))?;
    std::io::copy(&mut file, &mut sum).map_err(Error::io(path, "cannot be read"))?;
    Ok(hex(&sum.finalize()))
}

/// The checksum of the questions, and of the names of their images and videos. The content of such a file may be
/// repaired, and the run goes on.
pub fn data_sha256(samples: &[Sample]) -> String {
    let mut all = Sha256::new();
    for sample in samples {
        let image = match &sample.media {
            None => String::new(),
            Some(MediaSource::File(path) | MediaSource::Video(path)) => {
                path.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
            Some(MediaSource::Inline { bytes, .. }) => hex(&Sha256::digest(bytes)),
            Some(MediaSource::Scene(scene)) => format!("{scene:?}"),
        };
        let text = [&sample.question_id.to_string(), &sample.text, sample.suffix, &sample.clip_text, &image].join("\0");
        all.update(text);
        all.update("\n");
    }
    hex(&all.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
