//! The check of whether a checkpoint can be read: its small files decide, before a weight is fetched.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use secateur_weights::{WeightFiles, WeightsError, find, find_config, find_tower, printable};

use super::{
    Checkpoint, DEMO,
    pair::{Pair, is_gguf},
};
use crate::{
    Error, demo,
    model::{
        config::{CONFIG, Generation, named_in_config, no_checkpoint, refuse_quantised},
        families::{Family, Place, Tower},
    },
    text::{TOKENIZER_JSON, TOKENIZER_MODEL, Tokenizer},
};

/// The parts of a model that the user names beside it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// The image encoder of a language model in GGUF: a path, or `owner/name:FILE.gguf` on the hub.
    pub mmproj: Option<&'a str>,
    /// The CLIP checkpoint whose text side to use, where the model's own tower is not it.
    pub clip: Option<&'a str>,
}

/// Reads the small files of the checkpoint `model`: a folder, a Hugging Face id, [`DEMO`], or a GGUF file. Weights are fetched where they are
/// missing, once nothing speaks against the model.
///
/// # Errors
/// When the checkpoint is not there, or is of no known family.
pub fn open(model: &str, beside: Beside) -> Result<Checkpoint, Error> {
    let Beside { mmproj, clip } = beside;
    if is_gguf(model) {
        return open_pair(Pair::open(model, mmproj)?, clip);
    }
    if let Some(mmproj) = mmproj {
        let reason = format!(
            "--mmproj {} belongs to a language model in GGUF (--model FILE.gguf); this is none",
            printable(mmproj)
        );
        return Err(Error::config(Path::new(model), reason));
    }
    let folder = if model == DEMO { demo::unpack()? } else { find_config(model, None, &[])? };
    let config = folder.join(CONFIG);
    let is_local = model == DEMO || Path::new(model).is_dir();
    // A folder that is something else is called that, before a file that only checkpoints have is missed.
    if is_local && let Err(error @ WeightsError::Unsupported { .. }) = WeightFiles::find(&folder) {
        return Err(error.into());
    }
    if !config.is_file() {
        return Err(no_checkpoint(&folder));
    }
    let place = Place { folder: &folder, config: &config, hub: (!is_local).then_some(model), pair: None };
    let family = Family::open(&place)?;
    let about = family.as_checkpoint();
    // Another tool may have put a part of it into the cache.
    place.need(&[TOKENIZER_MODEL, TOKENIZER_JSON])?;
    let vocabulary = about.decoder().vocab_size;
    let tokenizer = Tokenizer::read(&folder, vocabulary)?;
    let mut chat = about.chat(&tokenizer, &config)?;
    let tokenizer = tokenizer.with_spaces(chat.spaces);
    let Generation { ends, penalty } = Generation::read(&folder)?;
    for end in ends.into_iter().chain([tokenizer.eos()]) {
        if !chat.ends.contains(&end) {
            chat.ends.push(end);
        }
    }

    // Weights are fetched only now.
    if !is_local && find(model, None)? != folder {
        return Err(Error::config(&config, "the model changed on the hub while it was downloaded; run it again"));
    }
    let mut notes = WeightFiles::find(&folder)?.notes;
    // A tower that was trained, too, has its weights in the checkpoint itself.
    if !about.has_own_towers() {
        for tower in about.towers() {
            notes.extend(fetch_tower(tower, &folder, &config)?);
        }
    }
    let clip = clip.map(str::to_owned);
    Ok(Checkpoint { folder, tokenizer, notes, chat, penalty, clip, random: false, family, pair: None })
}

/// Reads the settings of a pair of GGUF files.
fn open_pair(pair: Pair, clip: Option<&str>) -> Result<Checkpoint, Error> {
    let pair = Arc::new(pair);
    let file = pair.decoder.path.clone();
    let folder = file.parent().unwrap_or(Path::new("")).to_owned();
    let family = Family::open(&Place { folder: &folder, config: &file, hub: None, pair: Some(&pair) })?;
    let about = family.as_checkpoint();
    let tokenizer = Tokenizer::of_gguf(&pair.decoder, about.decoder().vocab_size)?;
    let mut chat = about.chat(&tokenizer, &file)?;
    let tokenizer = tokenizer.with_spaces(chat.spaces);
    let turn = pair.decoder.count("tokenizer.ggml.eot_token_id")?.and_then(|id| u32::try_from(id).ok());
    for end in [tokenizer.eos()].into_iter().chain(turn) {
        if !chat.ends.contains(&end) {
            chat.ends.push(end);
        }
    }
    let note = format!(
        "{}: questions are asked in the form {}, which the file's template, name or shape tells",
        file.display(),
        chat.own.name
    );
    let clip = clip.map(str::to_owned);
    let (notes, penalty) = (vec![note], 1.0);
    Ok(Checkpoint { folder: file, tokenizer, notes, chat, penalty, clip, random: false, family, pair: Some(pair) })
}

/// Fetches the weights of a tower, and returns notes on its files.
fn fetch_tower(tower: &Tower, folder: &Path, config: &Path) -> Result<Vec<String>, Error> {
    let whole: Find = if tower.bare { find_tower } else { find };
    if named_in_config(config, tower.field, &tower.name, whole(&tower.name, Some(folder)))? != tower.folder {
        return Err(Error::config(&tower.folder, "the tower changed on the hub while it was downloaded; run it again"));
    }
    Ok(WeightFiles::find(&tower.folder)?.notes)
}

/// A function that finds a checkpoint's folder by its name.
type Find = fn(&str, Option<&Path>) -> Result<PathBuf, WeightsError>;

impl Place<'_> {
    /// Fetches one of the files `names`, where the checkpoint is on the hub and its folder in the cache lacks all of them.
    ///
    /// # Errors
    /// When the hub does not answer.
    pub(in crate::model) fn need(&self, names: &[&str]) -> Result<(), Error> {
        if let Some(id) = self.hub {
            find_config(id, None, &[names])?;
        }
        Ok(())
    }

    /// Refuses quantised weights, of the checkpoint and of the tower in the folder `tower`.
    ///
    /// # Errors
    /// When the weights are quantised, with the name of the form of quantisation.
    pub(in crate::model) fn refuse_quantised(&self) -> Result<(), Error> {
        refuse_quantised(self.config)
    }
}
