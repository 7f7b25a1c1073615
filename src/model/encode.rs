//! Encoding: from images and videos to a prompt that the decoder can read.

use std::time::{Duration, Instant};

use burn::tensor::{Tensor, backend::Backend};
use secateur_backends::VlmBackend;
use sha2::{Digest, Sha256};

use super::{MediaPositions, Model, Placement, Positions, VisionOutput};
use crate::{
    Error,
    hash::fnv1a,
    image::{Grid, Rgb, Tiles},
    pruner::{Blend, Budget, ClsAttention, Cues, Keep, Needs, Pruner, Tiling},
    sequence::{Merge, Visual, gather, join},
    tensor::host,
    text::{Prompt, Span},
    video::Media,
};

/// An image or video as the decoder will read it.
#[derive(Clone, Debug)]
pub struct VisualTokens<B: Backend> {
    /// The tokens, `[tokens, hidden]`.
    pub tokens: Tensor<B, 2>,
    /// The origin of each token, in the order of the tokens.
    pub order: Vec<Visual>,
    /// The number of tokens for each placeholder in the prompt: an image has one placeholder, a video one per frame.
    pub parts: Vec<usize>,
    /// The tokens of each item that were kept.
    pub keep: Keep,
    /// The positions of the tokens, where these do not follow each other one by one.
    pub positions: Option<MediaPositions>,
    /// A checksum of the image or video, and of how it was taken apart.
    pub media: u64,
    /// The tokens of an item before pruning.
    pub grid: Grid,
    /// Number of visual tokens that the decoder would read of the image or video without pruning.
    pub unpruned: usize,
    /// The tiles, where an image was taken apart.
    pub tiles: Option<Tiles>,
    /// The rule by which the items became one sequence.
    pub merge: Merge,
    /// Time in the preprocessing, the tower, the projector and the text side.
    pub vision: Duration,
    /// The part of `vision` that came after the choice of tokens: the projector, where the method does not read its output.
    pub project: Duration,
    /// Time in the method.
    pub prune: Duration,
}

/// A prompt with its images in place.
#[derive(Clone, Debug)]
pub struct EmbeddedPrompt<B: Backend> {
    /// The embeddings of the prompt, `[1, sequence, hidden]`.
    pub embeds: Tensor<B, 3>,
    /// The rows of all visual tokens, ascending.
    pub visual: Vec<usize>,
    /// The identity of each row: rows with equal keys are equal.
    pub keys: Vec<RowKey>,
    /// The position of each row.
    pub positions: Positions,
}

/// The scores by which a method ranks the patches of each item, higher first: `[items][patches]`.
pub type Scores = Vec<Vec<f32>>;

/// The identity of a row of a prompt: a token of text, or a visual token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowKey {
    /// A token of text.
    Text(u32),
    /// A visual token: the checksum of the image or video and how it was taken apart, the token's place there, and its blend, if it is one.
    Visual(u64, Visual, Option<Blend>),
}

/// The tower's output for an image or a video: enough for any number of questions, methods and budgets.
#[derive(Clone, Debug)]
pub struct EncodedMedia<B: Backend> {
    output: VisionOutput<B>,
    placement: Placement,
    fingerprint: u64,
    /// A checksum of the image or video, and of how it was taken apart.
    key: u64,
    /// Time in the preprocessing and the tower.
    time: Duration,
}

impl<B: Backend> EncodedMedia<B> {
    /// The number of placeholders that stand for the image or video in a prompt.
    pub fn placeholders(&self) -> usize {
        self.placement.placeholders
    }

    /// The number of items that the vision tower encoded.
    pub fn items(&self) -> usize {
        self.output.features.dims()[0]
    }

    /// Whether this is a video.
    pub fn is_video(&self) -> bool {
        self.placement.video
    }

    /// The number of tokens of all items.
    pub fn tokens(&self) -> usize {
        self.items() * self.placement.grid.tokens()
    }

    /// Bytes that the tower's output takes.
    pub fn bytes(&self) -> usize {
        let VisionOutput { features, class, cls_attention, keys, .. } = &self.output;
        let rank3 = [Some(features), class.as_ref(), keys.as_ref()];
        let size = |shape: burn::tensor::Shape, bytes: usize| shape.num_elements() * bytes;
        rank3.into_iter().flatten().map(|x| size(x.shape(), x.dtype().size())).sum::<usize>()
            + cls_attention.as_ref().map_or(0, |x| size(x.shape(), x.dtype().size()))
    }
}

impl<B: Backend> VisualTokens<B> {
    /// The key of each visual token, in the order of the tokens.
    fn keys(&self) -> impl Iterator<Item = RowKey> {
        self.order.iter().map(|&visual| {
            let blend = match visual {
                Visual::Blend { crop, index } => Some(self.keep.blends()[crop][index].clone()),
                _ => None,
            };
            RowKey::Visual(self.media, visual, blend)
        })
    }

    /// The positions of the tokens of each placeholder, where tokens have their own; an image or video with such positions has one placeholder.
    fn positions_by_placeholder(&self) -> impl Iterator<Item = Option<&MediaPositions>> {
        std::iter::repeat_n(self.positions.as_ref(), self.parts.len())
    }

    /// The tokens of each placeholder, in the order of the placeholders.
    fn by_placeholder(&self) -> impl Iterator<Item = Tensor<B, 2>> {
        let mut from = 0;
        self.parts.iter().map(move |&count| {
            from += count;
            if count == self.order.len() {
                self.tokens.clone()
            } else {
                self.tokens.clone().narrow(0, from - count, count)
            }
        })
    }
}

impl<B: VlmBackend> Model<B> {
    /// Encodes an image, taken apart as `tiling` says, with what `needs` names.
    ///
    /// # Errors
    /// When the tower's output is not finite.
    pub fn encode_image(&self, image: &Rgb, tiling: Tiling, needs: Needs) -> Result<EncodedMedia<B>, Error> {
        self.encode_media(&image.clone().into(), tiling, needs)
    }

    /// Encodes an image or a video, with what `needs` names. Frames of a video are its items.
    ///
    /// # Errors
    /// When the media are a video with another number of frames than the model reads, or the model reads no videos, or the tower's output is not
    /// finite.
    pub fn encode_media(&self, media: &Media, tiling: Tiling, needs: Needs) -> Result<EncodedMedia<B>, Error> {
        let start = Instant::now();
        let views = self.vlm.preprocess(media, tiling)?;
        let placement = views.placement;
        let key = key(media, &placement);
        let output = self.encode(views, needs)?;
        let fingerprint = if needs.fingerprint { fingerprint(media) } else { 0 };
        self.wait();
        Ok(EncodedMedia { output, placement, fingerprint, key, time: start.elapsed() })
    }

    /// The cues that `needs` names, and tower features, for the image or video whose first placeholder in `prompt` is number `index`.
    /// The tower may have computed more.
    ///
    /// # Errors
    /// When the text side is needed and the model was loaded without it.
    pub fn cues(&self, media: &EncodedMedia<B>, needs: Needs, prompt: &Prompt, index: usize) -> Result<Cues<B>, Error> {
        let VisionOutput { features, cls_attention, keys, layer, .. } = media.output.clone();
        let joint = needs.reads_question().then(|| self.joint(features.clone(), prompt)).transpose()?;
        let (image_embeds, text_embeds) = joint.unzip();
        let cls_attention = match needs.cls_attention {
            ClsAttention::None => None,
            ClsAttention::All => cls_attention,
            ClsAttention::Selected => cls_attention.map(|rows| match rows.dims()[0] {
                1 => rows,
                _ => rows.narrow(0, layer - 1, 1),
            }),
        };
        Ok(Cues {
            projected: needs.projected.then(|| self.project(features.clone())).transpose()?,
            features: Some(features),
            cls_attention,
            prompt_embeds: needs.prompt_embeds.then(|| self.text_after(prompt, index + media.placeholders() - 1)),
            image_embeds,
            text_embeds,
            relevance: self.vlm.relevance(),
            keys: keys.filter(|_| needs.keys),
            layout: Some(media.placement.grid),
            fingerprint: media.fingerprint,
        })
    }

    /// Encodes and prunes an image: [`Self::encode_image`] and [`Self::prune`] in one.
    ///
    /// # Errors
    /// As [`Self::prune`].
    pub fn see(
        &self,
        image: &Rgb,
        pruner: &dyn Pruner<B>,
        budget: Option<Budget>,
        prompt: &Prompt,
        index: usize,
    ) -> Result<VisualTokens<B>, Error> {
        self.prune(&self.encode_image(image, pruner.card().tiling, pruner.card().needs)?, pruner, budget, prompt, index)
    }

    /// Keeps `budget` tokens of each item of an image or video whose first placeholder in `prompt` is number `index`, or all if there
    /// is no budget. What the method needs must have been encoded, and the image been taken apart as it asks.
    ///
    /// The official code projects all tokens and then drops most; unless a method reads projected features, only the
    /// kept ones are projected here, which gives the same numbers for less work.
    ///
    /// # Errors
    /// When the budget is not between 1 and the number of tokens, or the method needs the text side and the model was
    /// loaded without it.
    pub fn prune(
        &self,
        media: &EncodedMedia<B>,
        pruner: &dyn Pruner<B>,
        budget: Option<Budget>,
        prompt: &Prompt,
        index: usize,
    ) -> Result<VisualTokens<B>, Error> {
        let start = Instant::now();
        let placement = &media.placement;
        let cues = self.cues(media, pruner.card().needs, prompt, index)?;
        self.wait();
        let encoded = Instant::now();
        let features = cues.features(pruner.name())?;
        let patches = placement.grid.tokens();
        let keep = pruner.keep(&cues, budget.map_or(Ok(patches), |budget| self.budget(budget, patches))?)?;
        let pruned = Instant::now();
        let order = self.vlm.sequence(placement, &keep, pruner.keeps_class());
        // Blends are means of tower features, so only patches that stay as they are may be projected before.
        let positions = self.vlm.positions(placement, &order, &keep);
        let blended = keep.blends().iter().any(|blends| !blends.is_empty());
        let class = order.iter().any(|visual| matches!(visual, Visual::Class { .. }));
        let tokens = match cues.projected.filter(|_| !blended && !class) {
            Some(projected) => gather(projected, &keep),
            None if class => {
                let class = media.output.class.clone();
                self.project(Tensor::cat(class.into_iter().chain([gather(features, &keep)]).collect(), 1))?
            }
            None => self.project(gather(features, &keep))?,
        };
        let tokens = join(tokens, &keep, &order, self.vlm.newline());
        let count = media.placeholders();
        let parts = vec![order.len() / count; count];
        self.wait();
        let project = pruned.elapsed();
        let vision = media.time + (encoded - start) + project;
        let (unpruned, prune) = (self.unpruned(media), pruned - encoded);
        let &Placement { grid, tiles, merge, .. } = placement;
        let media = media.key;
        Ok(VisualTokens {
            tokens,
            order,
            parts,
            keep,
            positions,
            media,
            grid,
            unpruned,
            tiles,
            merge,
            vision,
            project,
            prune,
        })
    }

    /// The scores by which a method ranks the patches of an image or video whose first placeholder in `prompt` is number `index`; `None` for a
    /// method without scores.
    ///
    /// # Errors
    /// As [`Self::prune`].
    pub fn scores(
        &self,
        media: &EncodedMedia<B>,
        pruner: &dyn Pruner<B>,
        prompt: &Prompt,
        index: usize,
    ) -> Result<Option<Scores>, Error> {
        let scores = pruner.score(&self.cues(media, pruner.card().needs, prompt, index)?)?;
        Ok(scores.map(|scores| host(scores).chunks(media.placement.grid.tokens()).map(<[f32]>::to_vec).collect()))
    }

    /// The visual tokens of an image or video when nothing is pruned, and an image is taken apart as the model's own code does.
    fn unpruned(&self, media: &EncodedMedia<B>) -> usize {
        let (placement, items) = self.vlm.unpruned(&media.placement);
        let tokens = placement.grid.tokens();
        let all = Keep::new(vec![(0..tokens).collect(); items], tokens);
        self.vlm.sequence(&placement, &all, true).len()
    }

    /// Embeddings of all text after placeholder number `index`, `[text, hidden]`; `None` if there is none.
    fn text_after(&self, prompt: &Prompt, index: usize) -> Option<Tensor<B, 2>> {
        let mut placeholders = 0;
        let mut after = Vec::new();
        for span in prompt.spans() {
            match span {
                Span::Image => placeholders += 1,
                Span::Text(ids) if placeholders > index => after.extend(ids),
                Span::Text(_) => {}
            }
        }
        (!after.is_empty()).then(|| self.embed(&after).squeeze_dim(0))
    }

    /// Puts images and the frames of videos into the prompt, one for each of its placeholders. [`crate::text::ChatForm::render`] checks that
    /// there are as many.
    pub fn place(&self, prompt: &Prompt, media: &[VisualTokens<B>]) -> EmbeddedPrompt<B> {
        let mut tokens = media.iter().flat_map(VisualTokens::by_placeholder);
        let mut visual_keys = media.iter().flat_map(VisualTokens::keys);
        let (mut parts, mut visual, mut keys, mut row) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut own_positions = media.iter().flat_map(VisualTokens::positions_by_placeholder);
        let mut positions: Vec<[u32; 3]> = Vec::new();
        let mut next: u32 = 0;
        for span in prompt.spans() {
            let part = match span {
                Span::Text(ids) => {
                    positions.extend(one_by_one(next, ids.len()));
                    next = next.saturating_add(ids.len() as u32);
                    keys.extend(ids.iter().map(|&id| RowKey::Text(id)));
                    self.embed(&ids)
                }
                Span::Image => match tokens.next() {
                    None => continue,
                    Some(tokens) => {
                        let count = tokens.dims()[0];
                        match own_positions.next().flatten() {
                            Some(own) => {
                                positions.extend(
                                    own.tokens.iter().map(|offset| offset.map(|offset| next.saturating_add(offset))),
                                );
                                next = next.saturating_add(own.length);
                            }
                            None => {
                                positions.extend(one_by_one(next, count));
                                next = next.saturating_add(count as u32);
                            }
                        }
                        visual.extend(row..row + count);
                        keys.extend(visual_keys.by_ref().take(count));
                        tokens.unsqueeze()
                    }
                },
            };
            row += part.dims()[1];
            parts.push(part);
        }
        let positions = match media.iter().any(|tokens| tokens.positions.is_some()) {
            true => Positions::Axes(positions),
            false => Positions::From(0),
        };
        EmbeddedPrompt { embeds: Tensor::cat(parts, 1), visual, keys, positions }
    }
}

/// The positions of `count` rows from `first` on that follow each other one by one; those beyond the largest number are refused as too many later.
fn one_by_one(first: u32, count: usize) -> impl Iterator<Item = [u32; 3]> {
    (0..count as u32).map(move |i| [first.saturating_add(i); 3])
}

/// A checksum of an image or video and of how it was taken apart: the first 8 bytes of SHA-256.
fn key(media: &Media, placement: &Placement) -> u64 {
    let hash = Sha256::new().chain_update(media.sha256()).chain_update(format!("{placement:?}")).finalize();
    u64::from_le_bytes(std::array::from_fn(|i| hash[i]))
}

/// A number that only the pixels decide, the same on every machine.
fn fingerprint(media: &Media) -> u64 {
    let of_image = |image: &Rgb| fnv1a((image.width as u64).to_le_bytes().iter().chain(&image.data));
    match media {
        Media::Image(image) => of_image(image),
        Media::Video(video) => video.frames.iter().fold(0, |all: u64, frame| all.rotate_left(5) ^ of_image(frame)),
    }
}
