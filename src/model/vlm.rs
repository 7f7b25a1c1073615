//! What every family of models can do, whatever its networks are.

use burn::tensor::{Tensor, backend::Backend};
use secateur_backends::VlmBackend;

use super::{Decoder, Rope, towers::clip::VisionOutput};
use crate::{
    Error,
    image::{Grid, Rgb, Tiles},
    pruner::{Keep, Needs, Tiling},
    sequence::{Merge, Visual},
    video::Media,
};

/// The loaded networks of a family.
pub trait Vlm<B: VlmBackend>: Send + Sync {
    /// The pixels that the vision tower reads of an image or a video, taken apart as `tiling` says.
    ///
    /// # Errors
    /// When it is a video with another number of frames than the model reads, or the model reads none.
    fn preprocess(&self, media: &Media, tiling: Tiling) -> Result<Views, Error>;

    /// The most items that an image is taken apart into.
    fn most_items(&self) -> usize;

    /// The whole image as a single view, squeezed into its shape: as people see it, and its pixels.
    fn squeezed(&self, image: &Rgb) -> (Rgb, Views);

    /// The vision tower's output, and what `needs` names of what it computes on the way.
    fn encode(&self, views: &Views, needs: Needs) -> VisionOutput<B>;

    /// Tower features `[items, tokens, vision]` → embeddings `[items, tokens, hidden]`.
    fn project(&self, features: Tensor<B, 3>) -> Tensor<B, 3>;

    /// Tower features and a question in a space where they can be compared: `[items, tokens, joint]` and `[segments, joint]`.
    ///
    /// # Errors
    /// When the model has no such space, or was loaded without it.
    fn joint(&self, features: Tensor<B, 3>, question: &str) -> Result<(Tensor<B, 3>, Tensor<B, 2>), Error>;

    /// The order in which the decoder reads what was kept; with `class`, `[CLS]` of each item goes first.
    fn sequence(&self, placement: &Placement, keep: &Keep, class: bool) -> Vec<Visual>;

    /// How the same image or video is taken apart where nothing is pruned, and how many items it has then.
    fn unpruned(&self, placement: &Placement) -> (Placement, usize);

    /// The embedding that ends a row of tokens, `[hidden]`, where the model has one.
    fn newline(&self) -> Option<Tensor<B, 1>> {
        None
    }

    /// The images or frames as the tower sees them, for people.
    fn shown(&self, media: &Media, tiles: Option<Tiles>) -> Shown;

    /// The decoder.
    fn decoder(&self) -> &Decoder<B>;

    /// The decoder's rotary positions.
    fn rope(&self) -> &Rope<B>;

    /// Where the weights are of the first part behind `stage` whose result is not finite.
    fn first_overflow(&self, stage: &Stage<B>) -> Option<String>;
}

/// Pixels as a vision tower reads them.
#[derive(Clone, Debug)]
pub struct Views {
    /// `[items, 3, height, width]`, row by row.
    pub pixels: Vec<f32>,
    /// The four sizes.
    pub shape: [usize; 4],
    /// Where they come from.
    pub placement: Placement,
}

/// How the items of an image or a video lie in it.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// The tokens of each item.
    pub grid: Grid,
    /// Width and height in pixels.
    pub size: (usize, usize),
    /// Whether the items are a video's frames.
    pub video: bool,
    /// The tiles, where an image was taken apart.
    pub tiles: Option<Tiles>,
    /// How the items become one sequence.
    pub merge: Merge,
}

/// Items as people look at them.
#[derive(Clone, Debug)]
pub struct Shown {
    /// One for each item.
    pub items: Vec<Rgb>,
    /// How many of those after the first stand side by side; `None` where all do.
    pub columns: Option<usize>,
    /// The part of the only item that is no padding: left and top, width and height.
    pub unpadded: Option<[(usize, usize); 2]>,
}

/// Where numbers were found that are not finite.
pub enum Stage<B: Backend> {
    /// Behind the vision tower, from these views.
    Tower(Views),
    /// Behind the text side, or the way into the joint space.
    Joint,
    /// Behind the projector.
    Projector,
    /// Behind the decoder, from these embeddings `[1, tokens, hidden]`; without them where tokens were dropped on the way.
    Decoder(Option<Tensor<B, 3>>),
}
