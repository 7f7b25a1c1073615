//! LLaVA's instruction data: `{"id": "000000033471", "image": "coco/train2017/000000033471.jpg", "conversations":
//! [{"from": "human", "value": "<image>\nWhat are the colors of the bus?"}, {"from": "gpt", "value": "…"}]}`, an object
//! a line or one list.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, files::read_objects, text::IMAGE_PLACEHOLDER};

/// An image, and the first question about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The image file.
    pub image: PathBuf,
    /// The question without its placeholder.
    pub question: String,
}

#[derive(Deserialize)]
struct Entry {
    image: Option<String>,
    conversations: Vec<Turn>,
}

#[derive(Deserialize)]
struct Turn {
    value: String,
}

/// The first `limit` entries of a file that have an image, below `images`, and the number of skipped entries without
/// one.
///
/// # Errors
/// When the file cannot be read, an entry is no instruction, or an image is missing.
pub fn read(path: &Path, images: &Path, limit: usize) -> Result<(Vec<Instruction>, usize), Error> {
    let entries: Vec<Entry> = read_objects(path, "instruction")?;
    let mut found = Vec::new();
    let mut without = 0;
    for Entry { image, conversations } in entries {
        if found.len() == limit {
            break;
        }
        let (Some(image), Some(first)) = (image, conversations.into_iter().next()) else {
            without += 1;
            continue;
        };
        let image = images.join(image);
        if !image.is_file() {
            return Err(Error::data(&image, "the image of an instruction is missing; --images names their folder"));
        }
        // Only the placeholder is removed, as in the official scripts, so that a newline after the question stays.
        let question = first.value.replace(&format!("{IMAGE_PLACEHOLDER}\n"), "").replace(IMAGE_PLACEHOLDER, "");
        found.push(Instruction { image, question });
    }
    if found.is_empty() {
        return Err(Error::data(path, "there is no instruction with an image"));
    }
    Ok((found, without))
}
