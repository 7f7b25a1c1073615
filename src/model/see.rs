//! From pictures and videos to a prompt that the language model can read.

use std::time::{Duration, Instant};

use burn::tensor::{Tensor, backend::Backend};
use secateur_backends::VlmBackend;

use super::{Llava, Sight};
use crate::{
    Error,
    hash::fnv1a,
    image::{Rgb, Tiles},
    merge::{Geometry, Merge, Visual, gather, join, order, with_class},
    pruner::{ClsAttention, Cues, Keep, Needs, NoPruning, Pruner, Tiling},
    text::{Prompt, Span},
    video::Media,
};

/// A picture as the language model will read it.
#[derive(Clone, Debug)]
pub struct Seen<B: Backend> {
    /// The tokens, `[tokens, hidden]`.
    pub tokens: Tensor<B, 2>,
    /// What they are, in their order.
    pub order: Vec<Visual>,
    /// How many of them stand for each of its marks in the prompt: a picture has one, a video one a frame.
    pub parts: Vec<usize>,
    /// Which patches were kept.
    pub keep: Keep,
    /// Patches of a crop before pruning.
    pub patches: usize,
    /// Visual tokens that LLaVA would read of this picture without pruning.
    pub unpruned: usize,
    /// The tiles, where the picture was taken apart.
    pub tiles: Option<Tiles>,
    /// How the crops became one sequence.
    pub merge: Merge,
    /// Time in the preprocessing, the tower, the projector and CLIP's text side.
    pub vision: Duration,
    /// The part of it that came after the choice: the projector, where the method does not read its output.
    pub project: Duration,
    /// Time in the method.
    pub prune: Duration,
}

/// A prompt with its pictures in place.
#[derive(Clone, Debug)]
pub struct Spliced<B: Backend> {
    /// `[1, sequence, hidden]`.
    pub embeds: Tensor<B, 3>,
    /// The positions of all visual tokens, ascending.
    pub visual: Vec<usize>,
}

/// What the tower saw of a picture or a video: enough for any number of questions, methods and budgets.
#[derive(Clone, Debug)]
pub struct Look<B: Backend> {
    sight: Sight<B>,
    /// Width and height of the picture.
    size: (usize, usize),
    /// Whether the crops are a video's frames.
    video: bool,
    /// The tiles, where the picture was taken apart.
    tiles: Option<Tiles>,
    /// How the crops become one sequence.
    merge: Merge,
    fingerprint: u64,
    /// Time in the preprocessing and the tower.
    time: Duration,
}

impl<B: Backend> Look<B> {
    /// How many marks stand for it in a prompt.
    pub fn marks(&self) -> usize {
        if self.video { self.sight.features.dims()[0] } else { 1 }
    }
}

impl<B: Backend> Seen<B> {
    /// The tokens of each of its marks, in their order.
    fn marked(&self) -> impl Iterator<Item = Tensor<B, 2>> {
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

impl<B: VlmBackend> Llava<B> {
    /// Looks at a picture, taken apart as `tiling` says, and notes what `needs` names.
    ///
    /// # Errors
    /// When what the tower gives is not finite.
    pub fn look_at(&self, picture: &Rgb, tiling: Tiling, needs: Needs) -> Result<Look<B>, Error> {
        let start = Instant::now();
        let size = (picture.width, picture.height);
        let (tiles, merge) = self.tiles(size, tiling);
        let sight = self.look(self.pixels(picture, tiles), needs)?;
        let fingerprint = if needs.picture { fingerprint(picture) } else { 0 };
        self.wait();
        Ok(Look { sight, size, video: false, tiles, merge, fingerprint, time: start.elapsed() })
    }

    /// Looks at a picture or a video, and notes what `needs` names. Frames of a video are its crops.
    ///
    /// # Errors
    /// When it is a video with another number of frames than the model reads, or the model reads none.
    pub fn look_at_media(&self, media: &Media, tiling: Tiling, needs: Needs) -> Result<Look<B>, Error> {
        let video = match media {
            Media::Picture(picture) => return self.look_at(picture, tiling, needs),
            Media::Video(video) => video,
        };
        let start = Instant::now();
        let sight = self.watch(video, needs)?;
        let fingerprint = if needs.picture {
            video.frames.iter().fold(0, |all: u64, frame| all.rotate_left(5) ^ fingerprint(frame))
        } else {
            0
        };
        let size = video.frames.first().map_or((0, 0), |frame| (frame.width, frame.height));
        self.wait();
        Ok(Look { sight, size, video: true, tiles: None, merge: Merge::Flat, fingerprint, time: start.elapsed() })
    }

    /// The cues that `needs` names, and tower features, for the picture or video whose first mark in `prompt` is number `index`.
    /// The look may have noted more.
    ///
    /// # Errors
    /// When CLIP's text side is needed and the model was loaded without it.
    pub fn cues(&self, look: &Look<B>, needs: Needs, prompt: &Prompt, index: usize) -> Result<Cues<B>, Error> {
        let Sight { features, cls_attention, keys, .. } = look.sight.clone();
        let joint = needs.joint.then(|| self.joint(features.clone(), &prompt.question)).transpose()?;
        let (image_embeds, text_embeds) = joint.unzip();
        let cls_attention = match needs.cls_attention {
            ClsAttention::None => None,
            ClsAttention::All => cls_attention,
            ClsAttention::Selected => cls_attention.map(|rows| match rows.dims()[0] {
                1 => rows,
                _ => rows.narrow(0, self.config.read_layers - 1, 1),
            }),
        };
        Ok(Cues {
            projected: needs.projected.then(|| self.project(features.clone())).transpose()?,
            features: Some(features),
            cls_attention,
            prompt_embeds: needs.prompt_embeds.then(|| self.text_after(prompt, index + look.marks() - 1)),
            image_embeds,
            text_embeds,
            keys: keys.filter(|_| needs.keys),
            picture: look.fingerprint,
        })
    }

    /// [`Self::look_at`] and [`Self::prune`] in one.
    ///
    /// # Errors
    /// As [`Self::prune`].
    pub fn see(
        &self,
        picture: &Rgb,
        pruner: &dyn Pruner<B>,
        budget: Option<usize>,
        prompt: &Prompt,
        index: usize,
    ) -> Result<Seen<B>, Error> {
        self.prune(&self.look_at(picture, pruner.tiling(), pruner.needs())?, pruner, budget, prompt, index)
    }

    /// Keeps `budget` patches of each crop of a picture or video whose first mark in `prompt` is number `index`, or all if there
    /// is no budget. The look must have noted what the method needs, and taken the picture apart as it asks.
    ///
    /// The official code projects all tokens and then drops most; unless a method reads projected features, only the
    /// kept ones are projected here, which gives the same numbers for less work.
    ///
    /// # Errors
    /// When the budget is not between 1 and the patch count, or the method needs CLIP's text side and the model was
    /// loaded without it.
    pub fn prune(
        &self,
        look: &Look<B>,
        pruner: &dyn Pruner<B>,
        budget: Option<usize>,
        prompt: &Prompt,
        index: usize,
    ) -> Result<Seen<B>, Error> {
        let start = Instant::now();
        let &Look { size, tiles, merge, video, .. } = look;
        let cues = self.cues(look, pruner.needs(), prompt, index)?;
        self.wait();
        let looked = Instant::now();
        let features = cues.features(pruner.name())?;
        let [_, patches, _] = features.dims();
        let keep = pruner.keep(&cues, budget.unwrap_or(patches))?;
        let pruned = Instant::now();
        // Blends are means of tower features, so only patches that stay as they are may be projected before.
        let blended = keep.blends().iter().any(|blends| !blends.is_empty());
        // What Video-LLaVA reads of a video has [CLS] in it; FasterVLM's branch, like everything for pictures, leaves it out.
        let class = video && pruner.keeps_class();
        let tokens = match cues.projected.filter(|_| !blended && !class) {
            Some(projected) => gather(projected, &keep),
            None if class => self.project(Tensor::cat(vec![look.sight.class.clone(), gather(features, &keep)], 1))?,
            None => self.project(gather(features, &keep))?,
        };
        let side = patches.isqrt();
        let order = order(&keep, Geometry { tiles, size, side }, merge);
        let order = if class { with_class(order) } else { order };
        let tokens = join(tokens, &keep, &order, self.newline());
        let parts = if video { vec![order.len() / look.marks(); look.marks()] } else { vec![order.len()] };
        self.wait();
        let project = pruned.elapsed();
        let vision = look.time + (looked - start) + project;
        let unpruned = if video { look.marks() * (1 + patches) } else { self.unpruned(size, patches) };
        let prune = pruned - looked;
        Ok(Seen { tokens, order, parts, keep, patches, unpruned, tiles, merge, vision, project, prune })
    }

    /// The tokens of a picture of `size` when nothing is pruned.
    fn unpruned(&self, size: (usize, usize), patches: usize) -> usize {
        let (tiles, merge) = self.tiles(size, NoPruning::default().tiling);
        let crops = tiles.map_or(1, Tiles::crops);
        let all = Keep::new(vec![(0..patches).collect(); crops], patches);
        order(&all, Geometry { tiles, size, side: patches.isqrt() }, merge).len()
    }

    /// Embeddings of all text after mark number `index`, `[text, hidden]`; `None` if there is none.
    fn text_after(&self, prompt: &Prompt, index: usize) -> Option<Tensor<B, 2>> {
        let mut marks = 0;
        let mut after = Vec::new();
        for span in prompt.spans() {
            match span {
                Span::Image => marks += 1,
                Span::Text(ids) if marks > index => after.extend(ids),
                Span::Text(_) => {}
            }
        }
        (!after.is_empty()).then(|| self.embed(&after).squeeze_dim(0))
    }

    /// Places pictures and the frames of videos in the prompt, one for each of its marks. [`crate::text::Template::turn`] checks that
    /// there are as many.
    pub fn splice(&self, prompt: &Prompt, seen: &[Seen<B>]) -> Spliced<B> {
        let mut marked = seen.iter().flat_map(Seen::marked);
        let (mut parts, mut visual, mut position) = (Vec::new(), Vec::new(), 0);
        for span in prompt.spans() {
            let part = match span {
                Span::Text(ids) => self.embed(&ids),
                Span::Image => match marked.next() {
                    None => continue,
                    Some(tokens) => {
                        visual.extend(position..position + tokens.dims()[0]);
                        tokens.unsqueeze()
                    }
                },
            };
            position += part.dims()[1];
            parts.push(part);
        }
        Spliced { embeds: Tensor::cat(parts, 1), visual }
    }
}

/// A number that only the pixels decide, the same on every machine.
fn fingerprint(picture: &Rgb) -> u64 {
    fnv1a((picture.width as u64).to_le_bytes().iter().chain(&picture.data))
}
