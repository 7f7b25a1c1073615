//! The attention to visual tokens: FasterVLM's two analyses (`llava/eval/analyze_attn_shift.py` and
//! `analyze_attn_dispersion.py` at `f5d5f120`), for any checkpoint; softmax and sums are f32.

mod dispersion;
mod instructions;
mod shift;

pub use dispersion::{BINS, Dispersion, Histogram, Spread};
pub use instructions::{Instruction, read};
use secateur_backends::VlmBackend;
pub use shift::{KINDS, Shift};

use crate::{
    Error,
    image::Rgb,
    model::Model,
    pruner::{ClsAttention, Needs, NoPruning},
    sequence::Visual,
    text::Prompt,
};

/// The attention to the tokens of one image in an unpruned prompt. The tokens are the patches of the whole image,
/// without the tiles that LLaVA-NeXT has beside it.
#[derive(Clone, Debug)]
pub struct Attention {
    /// The attention of `[CLS]`, in the tower's layer whose features are read; averaged over heads.
    pub cls: Vec<f32>,
    /// The attention in each layer of the decoder: of all visual tokens together, of the text after them without its
    /// last token, and of the last token; averaged over heads.
    pub layers: Vec<[Vec<f32>; 3]>,
    /// The number of visual tokens that can see each token.
    pub images: Vec<usize>,
    /// The number of tokens of any kind that can see each token.
    pub all: Vec<usize>,
    /// The number of tokens after the visual tokens, the last included.
    pub texts: usize,
}

impl Attention {
    /// Measures the attention in the first `layers` layers of the decoder.
    ///
    /// # Errors
    /// When the prompt has no image or no text after it, or is longer than the model reads.
    pub fn measure<B: VlmBackend>(
        model: &Model<B>,
        image: &Rgb,
        prompt: &Prompt,
        layers: usize,
    ) -> Result<Self, Error> {
        // A text that is too long by itself is refused before it is embedded.
        model.check_length(prompt.ids.len())?;
        let whole = NoPruning::default();
        let needs = Needs { cls_attention: ClsAttention::Selected, ..Needs::default() };
        let look = model.encode_image(image, whole.tiling, needs)?;
        let attention = model.cues(&look, needs, prompt, 0)?.selected_attention("none")?;
        let seen = model.prune(&look, &whole, None, prompt, 0)?;
        let cls: Vec<f32> =
            attention.mean_dim(1).into_data().convert::<f32>().iter::<f32>().take(seen.grid.tokens()).collect();
        let of_whole = |visual: &Visual| matches!(visual, Visual::Patch { crop: 0, .. });
        let places: Vec<usize> = (0..seen.order.len()).filter(|&i| of_whole(&seen.order[i])).collect();

        let spliced = model.place(prompt, &[seen]);
        let length = spliced.embeds.dims()[1];
        let limit = model.decoder_config().max_position_embeddings;
        if length > limit {
            return Err(Error::TooLong { prompt: length, limit });
        }
        let (Some(&first), Some(&last)) = (spliced.visual.first(), spliced.visual.last()) else {
            return Err(Error::ImagePlaceholders { placeholders: prompt.images(), images: 1 });
        };
        if last + 1 >= length {
            return Err(Error::NoText);
        }
        let spans = [first..last + 1, last + 1..length - 1, length - 1..length];
        let columns: Vec<usize> = places.iter().map(|&place| spliced.visual[place]).collect();
        let embeds = spliced.embeds.clone();
        let watched = model.attention_maps(spliced.embeds, &columns, &spans, layers);
        let paid: Vec<f32> = watched.iter().flatten().flatten().copied().collect();
        model.check_logits(&paid, || Some(embeds))?;
        let layers = watched.into_iter().map(|spans| {
            let mut spans = spans.into_iter();
            std::array::from_fn(|_| spans.next().unwrap_or_default())
        });
        Ok(Self {
            cls,
            layers: layers.collect(),
            images: places.iter().map(|place| spliced.visual.len() - place).collect(),
            all: columns.iter().map(|column| length - column).collect(),
            texts: length - 1 - last,
        })
    }
}
