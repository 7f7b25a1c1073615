//! The families of models that are known: each has a folder, and a row in the list below. Nothing outside a family's folder names one.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use secateur_backends::VlmBackend;
use secateur_weights::{Rename, StoredTensor};

use super::{DecoderConfig, Fill, GgufFile, LoadOptions, Pair, PixelChoice, TilingChoice, Vlm, towers::clip::TextSide};
use crate::{
    Error,
    image::Grid,
    pruner::Needs,
    text::{ChatForm, Spaces, Tokenizer},
    video::FrameRule,
};

/// A checkpoint's folder, config and id, from which families are detected and opened.
pub struct Place<'a> {
    /// The checkpoint's folder.
    pub folder: &'a Path,
    /// The checkpoint's `config.json`.
    pub config: &'a Path,
    /// The checkpoint's id, if it comes from the hub.
    pub hub: Option<&'a str>,
    /// The checkpoint's GGUF files, if it is a pair of these; `config` is then the language model's file.
    pub pair: Option<&'a Arc<Pair>>,
}

/// A checkpoint of a family whose small files were read and checked; no weight has been touched.
pub trait FamilyCheckpoint {
    /// The decoder's shape.
    fn decoder(&self) -> &DecoderConfig;
    /// The decoder's shape, to change it.
    fn decoder_mut(&mut self) -> &mut DecoderConfig;
    /// The tokens of one item before pruning.
    fn grid(&self) -> Grid;
    /// The side in pixels of a square image that the model reads as its papers count it.
    fn usual_side(&self) -> usize;
    /// Whether every item has that many tokens; otherwise the number depends on the image, and [`Self::grid`] is that of the largest.
    fn has_fixed_grid(&self) -> bool {
        true
    }
    /// The frames that are taken from a video; `None` for a model that reads images only.
    fn frames(&self) -> Option<FrameRule> {
        None
    }
    /// The form of the checkpoint's conversations.
    ///
    /// # Errors
    /// When the model was trained on a form that is not known.
    fn chat(&self, tokenizer: &Tokenizer, config: &Path) -> Result<Chat, Error>;
    /// All tensors of a pair of GGUF files by their paths in the networks; none of a checkpoint in a folder.
    ///
    /// # Errors
    /// When one is missing, of another shape, or has no place in the networks.
    fn tensors_of_pair(&self) -> Result<BTreeMap<String, StoredTensor>, Error> {
        Ok(BTreeMap::new())
    }
    /// The settings and tensors of the checkpoint as two GGUF files, the language model's and the image encoder's. `folder` is for messages.
    ///
    /// # Errors
    /// When such files cannot say what the model is.
    fn gguf_files(&self, folder: &Path) -> Result<[GgufFile; 2], Error> {
        Err(Error::config(folder, "models of this family have no form in GGUF that is written"))
    }
    /// Refuses cues that the checkpoint cannot give.
    ///
    /// # Errors
    /// When it cannot; the error says why, and what to do.
    fn check_needs(&self, _needs: Needs) -> Result<(), Error> {
        Ok(())
    }
    /// Sets the limits of the number of pixels that images are resized to; `None` leaves the checkpoint's own.
    ///
    /// # Errors
    /// When they are not possible, or the model reads all images at one size.
    fn set_pixels(&mut self, pixels: PixelChoice) -> Result<(), String> {
        match pixels == PixelChoice::default() {
            true => Ok(()),
            false => Err("images are read at one size, whatever theirs is; limits of pixels are for models that read them at nearly their own".to_owned()),
        }
    }
    /// The source of the methods' rules, where it is not the official code of each method for such a model.
    fn rules(&self) -> Option<&'static str> {
        None
    }
    /// Whether cues take the text side of the tower.
    fn reads_text_side(&self, needs: Needs) -> bool {
        needs.reads_question()
    }
    /// The table from the names of the checkpoint's tensors to paths in the networks.
    fn names(&self) -> &'static Rename;
    /// Takes tensors apart that are one in the checkpoint and several in the networks, by their paths in the networks.
    fn take_apart(&self, _tensors: &mut BTreeMap<String, StoredTensor>) {}
    /// Vision towers in checkpoints of their own.
    fn towers(&self) -> &[Tower] {
        &[]
    }
    /// Whether the weights of the vision towers are in the checkpoint itself.
    fn has_own_towers(&self) -> bool {
        false
    }
    /// Whether the image processor's settings are in the checkpoint's own folder.
    fn has_image_settings(&self) -> bool;
    /// Refuses a choice of tiles that the model cannot take.
    ///
    /// # Errors
    /// When it cannot; the error says why.
    fn check_tiling(&self, choice: TilingChoice, folder: &Path) -> Result<(), Error>;
    /// Folder, config and tokenizer of the text side that images and questions are compared with; `clip` names a CLIP checkpoint to take instead of
    /// the model's own.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    fn text_side(&self, clip: Option<&str>, folder: &Path) -> Result<TextSide, Error>;
    /// Whether the text side can be one with random weights.
    fn has_random_text_side(&self) -> bool {
        true
    }
    /// The id of the text side, where it does not come with the checkpoint.
    fn text_side_id(&self) -> Option<&'static str> {
        None
    }
}

/// The form of a model's conversations.
#[derive(Clone, Debug)]
pub struct Chat {
    /// The form that the model was trained on.
    pub own: &'static ChatForm,
    /// The form in which the model's authors ask the questions of benchmarks about images.
    pub benchmarks: &'static ChatForm,
    /// Ids that end an answer, beside those that the checkpoint's files name.
    pub ends: Vec<u32>,
    /// The rule by which the text of answers is put together.
    pub spaces: Spaces,
    /// The ids that stand for the tokens of an image and of a video in the prompts of the model's own processor, where it has such ids.
    pub pads: Option<[u32; 2]>,
    /// The ids around a user's text in a prompt, where they are known.
    pub user: Option<UserTurn>,
}

/// The ids around a user's text in a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserTurn {
    /// The ids before it.
    pub start: Vec<u32>,
    /// The id of the line break behind these, unless it is one piece with the beginning of the text.
    pub line: u32,
    /// The id behind it.
    pub end: u32,
    /// The ids of marks of images and videos in it.
    pub marks: Vec<u32>,
}

impl Chat {
    /// A form that is asked in the same way everywhere, with no ids of its own.
    pub fn of(form: &'static ChatForm, spaces: Spaces) -> Self {
        Self { own: form, benchmarks: form, ends: Vec::new(), spaces, pads: None, user: None }
    }
}

impl UserTurn {
    /// The ids of the user's own text in all turns of a prompt.
    pub fn texts(&self, ids: &[i64]) -> Vec<u32> {
        let mut texts = Vec::new();
        let starts =
            |at: &usize| ids[*at..].iter().zip(&self.start).filter(|(id, start)| **id == i64::from(**start)).count();
        let mut at = 0;
        while at < ids.len() {
            if starts(&at) < self.start.len() {
                at += 1;
                continue;
            }
            at += self.start.len();
            at += usize::from(ids.get(at) == Some(&i64::from(self.line)));
            while at < ids.len() && ids[at] != i64::from(self.end) {
                texts.extend(u32::try_from(ids[at]).ok().filter(|id| !self.marks.contains(id)));
                at += 1;
            }
        }
        texts
    }
}

/// A vision tower in a checkpoint of its own.
#[derive(Clone, Debug)]
pub struct Tower {
    /// The field of the config that names the tower.
    pub field: &'static str,
    /// The tower's name in that field.
    pub name: String,
    /// The folder of the tower's checkpoint.
    pub folder: std::path::PathBuf,
    /// The path of the tower's tensors in the model.
    pub module: &'static str,
    /// Whether the tower's checkpoint is whole without settings of an image processor.
    pub bare: bool,
}

/// A model that a family is made for.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The model's id on the hub.
    pub id: &'static str,
    /// A line about the model.
    pub about: &'static str,
}

macro_rules! families {
    ($($(#[$attribute:meta])* $module:ident $family:ident;)*) => {
        $($(#[$attribute])* pub mod $module;)*

        /// A checkpoint of one of the families.
        #[derive(Clone)]
        pub(crate) enum Family {
            $($(#[$attribute])* $family($module::$family),)*
        }

        impl Family {
            /// Opens the checkpoint at `place` by the first family that knows its config.
            ///
            /// # Errors
            /// When no family knows it, or the checkpoint is damaged.
            pub(super) fn open(place: &Place) -> Result<Self, Error> {
                // A family refuses what it knows by name; another may still take it.
                let mut refused = None;
                $($(#[$attribute])*
                match $module::$family::detect(place) {
                    Ok(true) => return Ok(Self::$family($module::$family::open(place)?)),
                    Ok(false) => {}
                    Err(error) => refused = refused.or(Some(error)),
                })*
                Err(refused.unwrap_or_else(|| llava::unknown(place)))
            }

            /// The preset `name` of any family, for random weights.
            pub(super) fn preset(name: &str) -> Option<Self> {
                $($(#[$attribute])*
                if let Some(family) = $module::$family::preset(name) {
                    return Some(Self::$family(family));
                })*
                None
            }

            /// The checkpoint as its family describes it, before a weight is read.
            pub(crate) fn as_checkpoint(&self) -> &dyn FamilyCheckpoint {
                match self { $($(#[$attribute])* Self::$family(family) => family,)* }
            }

            /// The checkpoint as its family describes it, before a weight is read, to change it.
            pub(crate) fn as_checkpoint_mut(&mut self) -> &mut dyn FamilyCheckpoint {
                match self { $($(#[$attribute])* Self::$family(family) => family,)* }
            }

            /// The networks, filled.
            ///
            /// # Errors
            /// When names and shapes do not fit, or a shard is damaged.
            pub(super) fn load<B: VlmBackend>(
                self,
                fill: &mut Fill<B>,
                options: LoadOptions,
            ) -> Result<Box<dyn Vlm<B>>, Error> {
                match self { $($(#[$attribute])* Self::$family(family) => Ok(Box::new(family.load(fill, options)?)),)* }
            }
        }

        /// The names of the presets of all families.
        pub fn presets() -> Vec<&'static str> {
            [$($(#[$attribute])* $module::$family::PRESETS,)*].concat()
        }

        /// The models that the families are made for.
        pub fn known() -> Vec<Known> {
            [$($(#[$attribute])* $module::$family::KNOWN,)*].concat()
        }
    };
}

families! {
    #[cfg(test)]
    toy Toy;
    llava Llava;
    video_llava VideoLlava;
    qwen2_vl Qwen2Vl;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_words_are_found_between_marks() {
        let turn = UserTurn { start: vec![1, 2], line: 3, end: 9, marks: vec![7] };
        // A turn with an image; an answer; a turn whose text begins with a line break, which is one piece (33) with that of the form.
        let ids = [1, 6, 3, 8, 9, 3, 1, 2, 3, 7, -200, 7, 4, 5, 9, 3, 1, 6, 3, 8, 9, 3, 1, 2, 33, 4, 9, 3, 1, 6, 3];
        assert_eq!(turn.texts(&ids), [4, 5, 33, 4]);
        assert!(turn.texts(&[1, 2]).is_empty() && turn.texts(&[]).is_empty());
    }
}
