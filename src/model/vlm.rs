//! The interface that every family of models implements, whatever its networks are.

use burn::tensor::{Tensor, backend::Backend};
use secateur_backends::VlmBackend;

use super::{Decoder, Rope, towers::clip::VisionOutput};
use crate::{
    Error,
    image::{Grid, Rgb, Tiles},
    pruner::{Keep, Needs, Relevance, Tiling},
    sequence::{Merge, Visual},
    video::Media,
};

/// The loaded networks of a family.
pub trait Vlm<B: VlmBackend>: Send + Sync {
    /// The pixels that the vision tower reads of an image or a video, taken apart as `tiling` says.
    ///
    /// # Errors
    /// When the media are a video with another number of frames than the model reads, or the model reads no videos.
    fn preprocess(&self, media: &Media, tiling: Tiling) -> Result<Views, Error>;

    /// A bound on the tokens that the decoder reads of an image or a video.
    fn most_tokens(&self, media: &Media) -> usize;

    /// The whole image as a single view, squeezed into the view's shape: as an image for people, and as pixels for the tower.
    fn squeezed(&self, image: &Rgb) -> (Rgb, Views);

    /// The vision tower's output, with the intermediate results that `needs` names.
    fn encode(&self, views: &Views, needs: Needs) -> VisionOutput<B>;

    /// Projects tower features `[items, tokens, vision]` to embeddings `[items, tokens, hidden]`.
    fn project(&self, features: Tensor<B, 3>) -> Tensor<B, 3>;

    /// Tower features and a question in a space where they can be compared: `[items, tokens, joint]` and `[segments, joint]`.
    ///
    /// # Errors
    /// When the model has no such space, or was loaded without it.
    fn joint(&self, features: Tensor<B, 3>, question: Question) -> Result<(Tensor<B, 3>, Tensor<B, 2>), Error>;

    /// The rule by which likeness in that space tells how much a token matters.
    fn relevance(&self) -> Relevance {
        Relevance::Unlike
    }

    /// The positions of the tokens `order` of an image or video, where these do not follow each other one by one.
    fn positions(&self, _placement: &Placement, _order: &[Visual], _keep: &Keep) -> Option<MediaPositions> {
        None
    }

    /// The order in which the decoder reads the kept tokens; with `class`, `[CLS]` of each item goes first.
    fn sequence(&self, placement: &Placement, keep: &Keep, class: bool) -> Vec<Visual>;

    /// The placement of the same image or video where nothing is pruned, and the number of items that it then has.
    fn unpruned(&self, placement: &Placement) -> (Placement, usize);

    /// The embedding that ends a row of tokens, `[hidden]`, where the model has one.
    fn newline(&self) -> Option<Tensor<B, 1>> {
        None
    }

    /// The image's crops or the video's frames as the tower sees them, as images for people.
    fn shown(&self, media: &Media, tiles: Option<Tiles>) -> Shown;

    /// The decoder.
    fn decoder(&self) -> &Decoder<B>;

    /// The decoder's rotary positions.
    fn rope(&self) -> &Rope<B>;

    /// The path of the weights of the first part behind `stage` whose result is not finite.
    fn first_overflow(&self, stage: &Stage<B>) -> Option<String>;
}

/// Pixels as a vision tower reads them.
#[derive(Clone, Debug)]
pub struct Views {
    /// The pixels, `[items, 3, height, width]`, row by row.
    pub pixels: Vec<f32>,
    /// The four sizes of `pixels`.
    pub shape: [usize; 4],
    /// The placement of the items in the image or video that they come from.
    pub placement: Placement,
}

/// The place of each item in an image or a video.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// The tokens of each item.
    pub grid: Grid,
    /// Width and height of the image or of a frame, in pixels.
    pub size: (usize, usize),
    /// Whether the items are a video's frames.
    pub video: bool,
    /// The tiles, where an image was taken apart.
    pub tiles: Option<Tiles>,
    /// The rule by which the items become one sequence.
    pub merge: Merge,
    /// The number of items.
    pub items: usize,
    /// The number of placeholders in a prompt: one for an image; for a video one, or one for each frame.
    pub placeholders: usize,
    /// The distance in time between two items, in positions, where positions have an axis in time.
    pub step: u32,
}

/// A question, as methods compare it with tokens.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The text alone, without the marks of images and without the request for a single word.
    pub text: &'a str,
    /// The ids of the user's own text in the prompt, without the form of the conversation and the marks of images.
    pub ids: &'a [u32],
}

/// The positions of an image's or video's tokens, in time, height and width, counted from the position where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaPositions {
    /// The position of each token that is read.
    pub tokens: Vec<[u32; 3]>,
    /// The number of positions to what comes after the image or video.
    pub length: u32,
}

/// Items as people look at them.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The image of each item.
    pub items: Vec<Rgb>,
    /// The number of items after the first that stand side by side; `None` where all items do.
    pub columns: Option<usize>,
    /// The part of the only item that is no padding: left and top, width and height.
    pub unpadded: Option<[(usize, usize); 2]>,
}

/// The stage of the model where numbers were found that are not finite.
pub enum Stage<B: Backend> {
    /// The vision tower's output, from these views.
    Tower(Views),
    /// The output of the text side, or of the projections into the joint space.
    Joint,
    /// The projector's output.
    Projector,
    /// The decoder's output, from these embeddings `[1, tokens, hidden]`; without them where tokens were dropped inside the decoder.
    Decoder(Option<Tensor<B, 3>>),
}
