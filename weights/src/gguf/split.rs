//! Files in parts, as `llama-gguf-split` makes them: `NAME-00001-of-00003.gguf`.

use std::path::PathBuf;

use super::Gguf;
use crate::WeightsError;

/// The settings with the number of parts, and with that of this one, from 0.
const COUNT: &str = "split.count";
const NUMBER: &str = "split.no";
/// The largest number of parts, which file names have five digits for.
const MOST: usize = 99_999;

/// The other parts of the file, of which `first` is the first; none for a file that is not split.
pub(super) fn parts(first: &Gguf) -> Result<Vec<PathBuf>, WeightsError> {
    let refuse = |reason: String| Err(WeightsError::Unsupported { path: first.path.clone(), reason });
    let count = first.count(COUNT)?.unwrap_or(1);
    if count <= 1 {
        return Ok(Vec::new());
    }
    let number = first.count(NUMBER)?.unwrap_or(0);
    if number > 0 {
        return refuse(format!("part {} of {count} of a split file; give the first part", number + 1));
    }
    let name = first.path.file_name().unwrap_or_default().to_string_lossy();
    let Some(start) = name.strip_suffix(&format!("-00001-of-{count:05}.gguf")).filter(|_| count <= MOST) else {
        return refuse(format!(
            "part 1 of {count} of a split file, whose name does not end in -00001-of-{count:05}.gguf"
        ));
    };
    (2..=count)
        .map(|part| {
            let path = first.path.with_file_name(format!("{start}-{part:05}-of-{count:05}.gguf"));
            let hint = format!("{} is part 1 of {count} of a split file; fetch all parts", first.path.display());
            if path.is_file() { Ok(path) } else { Err(WeightsError::Missing { path, hint }) }
        })
        .collect()
}
