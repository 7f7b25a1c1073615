//! Which layout a checkpoint has, and whether it is one that can be read: decided by its small files, before a weight is fetched.

use std::path::{Path, PathBuf};

use secateur_weights::{WeightFiles, WeightsError, find, find_config, find_tower};

use super::{
    CONFIG, DEMO, Opened,
    names::{named_in_config, no_checkpoint},
};
use crate::{
    Error, demo,
    image::ClipProcessor,
    model::config::{HfConfig, Layout, OriginalConfig, Signs, read_json, refuse_quantised},
    text::{LlamaTokenizer, TOKENIZER_JSON, TOKENIZER_MODEL},
};

/// The files that may have the image processor's settings.
const IMAGE_SETTINGS: [&str; 2] = ["preprocessor_config.json", "processor_config.json"];
/// Reads the small files of the checkpoint `model`: a folder, a Hugging Face id, or [`DEMO`]. `clip` names the CLIP checkpoint whose
/// text side to use, where the model's own tower is not it. Weights are fetched where they are missing, once nothing speaks against the model.
///
/// # Errors
/// When it is not there, or not a LLaVA checkpoint in one of the known layouts.
pub fn open(model: &str, clip: Option<&str>) -> Result<Opened, Error> {
    let folder = if model == DEMO { demo::unpack()? } else { find_config(model, None, &[])? };
    let path = folder.join(CONFIG);
    let is_local = model == DEMO || Path::new(model).is_dir();
    // A folder that is something else is called that, before a file that only checkpoints have is missed.
    if is_local && let Err(error @ WeightsError::Unsupported { .. }) = WeightFiles::find(&folder) {
        return Err(error.into());
    }
    if !path.is_file() {
        return Err(no_checkpoint(&folder));
    }
    let layout = read_json::<Signs>(&path)?.layout(&path)?;
    refuse_quantised(&path)?;
    let small: Find = |name, beside| find_config(name, beside, &[]);
    let tower = |field, name: &str, find: Find| named_in_config(&path, field, name, find(name, Some(&folder)));
    let mut names: Vec<(&str, String)> = Vec::new();
    let (config, towers, own_tower) = match layout {
        Layout::Hf => (read_json::<HfConfig>(&path)?.check(&path)?, Vec::new(), true),
        Layout::Video => {
            let config = OriginalConfig::read(&path)?;
            let [image, video] = config.towers(&path)?;
            names.extend([("mm_image_tower", image.to_owned()), ("mm_video_tower", video.to_owned())]);
            let [image, video] = [tower("mm_image_tower", image, small)?, tower("mm_video_tower", video, small)?];
            let config = config.check(&path, &image.join(CONFIG), Some(&video.join(CONFIG)))?;
            (config, vec![image, video], false)
        }
        Layout::Original => {
            let config = OriginalConfig::read(&path)?;
            names.push(("mm_vision_tower", config.tower(&path)?.to_owned()));
            let with_images: Find = |name, beside| find_config(name, beside, &[&IMAGE_SETTINGS]);
            let folder = tower("mm_vision_tower", config.tower(&path)?, with_images)?;
            let own_tower = config.own_tower();
            (config.check(&path, &folder.join(CONFIG), None)?, vec![folder], own_tower)
        }
    };
    towers.iter().try_for_each(|tower| refuse_quantised(&tower.join(CONFIG)))?;
    if !is_local {
        // Another tool may have put a part of it into the cache.
        let images = if layout == Layout::Hf { &IMAGE_SETTINGS[..] } else { &[CONFIG] };
        find_config(model, None, &[&[TOKENIZER_MODEL, TOKENIZER_JSON], images])?;
    }
    let processor = match layout {
        // LanguageBind's checkpoints have no such file; its code has the numbers.
        Layout::Video => ClipProcessor::languagebind(config.vision.image_size),
        Layout::Original | Layout::Hf => {
            let place = towers.first().unwrap_or(&folder);
            let processor = ClipProcessor::read(place)?;
            if processor.size != config.vision.image_size {
                let reason =
                    format!("images of {} pixels for a tower that reads {}", processor.size, config.vision.image_size);
                return Err(Error::config(&ClipProcessor::file(place), reason));
            }
            processor
        }
    };
    let tokenizer = LlamaTokenizer::read(&folder, config.text.vocab_size)?;

    // Only now weights.
    if !is_local && find(model, None)? != folder {
        return Err(Error::config(&path, "the model changed on the hub while it was downloaded; run it again"));
    }
    let mut notes = WeightFiles::find(&folder)?.notes;
    let whole = if layout == Layout::Video { find_tower } else { find };
    // A tower that was trained, too, has its weights in the checkpoint itself.
    for ((field, name), small) in names.iter().zip(&towers).filter(|_| !own_tower) {
        if tower(field, name, whole)? != *small {
            return Err(Error::config(small, "the tower changed on the hub while it was downloaded; run it again"));
        }
        notes.extend(WeightFiles::find(small)?.notes);
    }
    let clip = clip.map(str::to_owned);
    let tower_name = names.into_iter().next().map(|(_, name)| name).unwrap_or_default();
    Ok(Opened { folder, layout, config, tokenizer, processor, notes, towers, tower_name, own_tower, clip })
}

/// How a folder is found by its name.
type Find = fn(&str, Option<&Path>) -> Result<PathBuf, WeightsError>;
