//! From pictures to a prompt that the language model can read.

use std::time::{Duration, Instant};

use burn::tensor::{Tensor, backend::Backend};
use secateur_backends::VlmBackend;

use super::{Llava, Sight};
use crate::{
    Error,
    hash::fnv1a,
    image::{Rgb, Tiles},
    merge::{Geometry, Merge, Visual, gather, join, order},
    pruner::{ClsAttention, Cues, Keep, Needs, NoPruning, Pruner, Tiling},
    text::{Prompt, Span},
};

/// A picture as the language model will read it.
#[derive(Clone, Debug)]
pub struct Seen<B: Backend> {
    /// The tokens, `[tokens, hidden]`.
    pub tokens: Tensor<B, 2>,
    /// What they are, in their order.
    pub order: Vec<Visual>,
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

/// What the tower saw of a picture: enough for any number of questions, methods and budgets.
#[derive(Clone, Debug)]
pub struct Look<B: Backend> {
    sight: Sight<B>,
    /// Width and height of the picture.
    size: (usize, usize),
    /// The tiles, where the picture was taken apart.
    tiles: Option<Tiles>,
    /// How the crops become one sequence.
    merge: Merge,
    fingerprint: u64,
    /// Time in the preprocessing and the tower.
    time: Duration,
}

impl<B: VlmBackend> Llava<B> {
    /// Looks at a picture, taken apart as `tiling` says, and notes what `needs` names.
    pub fn look_at(&self, picture: &Rgb, tiling: Tiling, needs: Needs) -> Look<B> {
        let start = Instant::now();
        let size = (picture.width, picture.height);
        let (tiles, merge) = self.tiles(size, tiling);
        let sight = self.look(self.pixels(picture, tiles), needs);
        let fingerprint = if needs.picture { fingerprint(picture) } else { 0 };
        self.wait();
        Look { sight, size, tiles, merge, fingerprint, time: start.elapsed() }
    }

    /// The cues that `needs` names, and tower features, for picture number `index` of `prompt`. The look may have noted
    /// more.
    ///
    /// # Errors
    /// When CLIP's text side is needed and the model was loaded without it.
    pub fn cues(&self, look: &Look<B>, needs: Needs, prompt: &Prompt, index: usize) -> Result<Cues<B>, Error> {
        let Sight { features, cls_attention, keys } = look.sight.clone();
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
            projected: needs.projected.then(|| self.project(features.clone())),
            features: Some(features),
            cls_attention,
            prompt_embeds: needs.prompt_embeds.then(|| self.text_after(prompt, index)),
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
        self.prune(&self.look_at(picture, pruner.tiling(), pruner.needs()), pruner, budget, prompt, index)
    }

    /// Keeps `budget` patches of each crop of a picture, number `index` of `prompt`, or all if there is no budget. The
    /// look must have noted what the method needs, and taken the picture apart as it asks.
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
        let &Look { size, tiles, merge, .. } = look;
        let cues = self.cues(look, pruner.needs(), prompt, index)?;
        self.wait();
        let looked = Instant::now();
        let features = cues.features(pruner.name())?;
        let [_, patches, _] = features.dims();
        let keep = pruner.keep(&cues, budget.unwrap_or(patches))?;
        let pruned = Instant::now();
        // Blends are means of tower features, so only patches that stay as they are may be projected before.
        let blended = keep.blends().iter().any(|blends| !blends.is_empty());
        let tokens = match cues.projected.filter(|_| !blended) {
            Some(projected) => gather(projected, &keep),
            None => self.project(gather(features, &keep)),
        };
        let side = patches.isqrt();
        let order = order(&keep, Geometry { tiles, size, side }, merge);
        let tokens = join(tokens, &keep, &order, self.newline());
        self.wait();
        let project = pruned.elapsed();
        let vision = look.time + (looked - start) + project;
        let unpruned = self.unpruned(size, patches);
        Ok(Seen { tokens, order, keep, patches, unpruned, tiles, merge, vision, project, prune: pruned - looked })
    }

    /// The tokens of a picture of `size` when nothing is pruned.
    fn unpruned(&self, size: (usize, usize), patches: usize) -> usize {
        let (tiles, merge) = self.tiles(size, NoPruning::default().tiling);
        let crops = tiles.map_or(1, Tiles::crops);
        let all = Keep::new(vec![(0..patches).collect(); crops], patches);
        order(&all, Geometry { tiles, size, side: patches.isqrt() }, merge).len()
    }

    /// Embeddings of all text after picture number `index`, `[text, hidden]`; `None` if there is none.
    fn text_after(&self, prompt: &Prompt, index: usize) -> Option<Tensor<B, 2>> {
        let mut pictures = 0;
        let mut after = Vec::new();
        for span in prompt.spans() {
            match span {
                Span::Image => pictures += 1,
                Span::Text(ids) if pictures > index => after.extend(ids),
                Span::Text(_) => {}
            }
        }
        (!after.is_empty()).then(|| self.embed(&after).squeeze_dim(0))
    }

    /// Places the pictures in the prompt, one for each of its marks. [`crate::text::vicuna_v1`] checks that there are as
    /// many.
    pub fn splice(&self, prompt: &Prompt, pictures: &[Seen<B>]) -> Spliced<B> {
        let mut pictures = pictures.iter();
        let (mut parts, mut visual, mut position) = (Vec::new(), Vec::new(), 0);
        for span in prompt.spans() {
            let part = match span {
                Span::Text(ids) => self.embed(&ids),
                Span::Image => match pictures.next() {
                    None => continue,
                    Some(seen) => {
                        visual.extend(position..position + seen.order.len());
                        seen.tokens.clone().unsqueeze()
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
