//! LLaVA-1.5: see a picture, keep some of its tokens, answer.

use std::time::{Duration, Instant};

use burn::{
    module::Module,
    tensor::{DType, Tensor, TensorData, backend::Backend},
};
use secateur_backends::VlmBackend;

use super::{ClipVision, KvCache, Llama, LlavaConfig, Projector, Sight};
use crate::{
    Error,
    image::{ClipProcessor, Rgb},
    merge,
    pruner::{Cues, Keep, Needs, Pruner},
    text::{LlamaTokenizer, Prompt, Span},
};

/// The three networks, as one module that a checkpoint fills.
#[derive(Module, Debug)]
pub(super) struct Networks<B: Backend> {
    vision_tower: ClipVision<B>,
    projector: Projector<B>,
    language_model: Llama<B>,
}

impl<B: VlmBackend> Networks<B> {
    /// Unfilled networks of this shape.
    pub(super) fn new(config: &LlavaConfig, device: &B::Device) -> Self {
        Self {
            vision_tower: ClipVision::new(&config.vision, config.read_layers, device),
            projector: Projector::new(config.vision.hidden_size, config.text.hidden_size, device),
            language_model: Llama::new(&config.text, device),
        }
    }
}

/// A loaded model.
pub struct Llava<B: Backend> {
    pub(super) networks: Networks<B>,
    pub(super) config: LlavaConfig,
    pub(super) tokenizer: LlamaTokenizer,
    pub(super) processor: ClipProcessor,
    pub(super) activations: DType,
    pub(super) device: B::Device,
}

/// A picture as the language model will read it.
#[derive(Clone, Debug)]
pub struct Seen<B: Backend> {
    /// The kept tokens, `[kept, hidden]`.
    pub tokens: Tensor<B, 2>,
    /// Which patches they are.
    pub keep: Keep,
    /// Patches of a crop before pruning.
    pub patches: usize,
    /// Time in the tower and the projector.
    pub vision: Duration,
    /// Time in the method.
    pub prune: Duration,
}

impl<B: VlmBackend> Llava<B> {
    /// The model's shape.
    pub fn config(&self) -> &LlavaConfig {
        &self.config
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &LlamaTokenizer {
        &self.tokenizer
    }

    /// The model's picture settings.
    pub fn processor(&self) -> &ClipProcessor {
        &self.processor
    }

    /// The tower's view of one picture: one crop.
    pub fn look(&self, picture: &Rgb, needs: Needs) -> Sight<B> {
        let side = self.processor.size;
        let pixels = TensorData::new(self.processor.pixels(picture, self.config.aspect), [1, 3, side, side]);
        let pixels = Tensor::<B, 4>::from_data(pixels, (&self.device, DType::F32)).cast(self.activations);
        self.networks.vision_tower.encode(pixels, needs)
    }

    /// Tower features `[crops, patches, vision]` to embeddings `[crops, patches, hidden]`.
    pub fn project(&self, features: Tensor<B, 3>) -> Tensor<B, 3> {
        self.networks.projector.forward(features)
    }

    /// Looks at picture number `index` of `prompt` and keeps `budget` tokens of it, or all if there is none.
    ///
    /// The official code projects all tokens and then drops most; unless a method reads projected features, only the
    /// kept ones are projected here, which gives the same numbers for less work.
    ///
    /// # Errors
    /// When the budget is not between 1 and the patch count.
    pub fn see(
        &self,
        picture: &Rgb,
        pruner: &dyn Pruner<B>,
        budget: Option<usize>,
        prompt: &Prompt,
        index: usize,
    ) -> Result<Seen<B>, Error> {
        let needs = pruner.needs();
        let start = Instant::now();
        let sight = self.look(picture, needs);
        let projected = needs.projected.then(|| self.project(sight.features.clone()));
        let prompt_embeds = needs.prompt_embeds.then(|| self.text_after(prompt, index));
        self.wait();
        let looked = Instant::now();
        let [_, patches, _] = sight.features.dims();
        let cues = Cues {
            features: Some(sight.features.clone()),
            projected: projected.clone(),
            cls_attention: sight.cls_attention,
            prompt_embeds,
        };
        let keep = pruner.keep(&cues, budget.unwrap_or(patches))?;
        let pruned = Instant::now();
        let tokens = match projected {
            Some(projected) => merge::gather(projected, &keep),
            None => self.project(merge::gather(sight.features, &keep)),
        };
        let tokens = merge::flat(tokens);
        self.wait();
        let vision = (looked - start) + pruned.elapsed();
        Ok(Seen { tokens, keep, patches, vision, prune: pruned - looked })
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
        let embed = |ids: &[u32]| self.networks.language_model.embed(ids, self.activations).squeeze_dim(0);
        (!after.is_empty()).then(|| embed(&after))
    }

    /// Places the pictures in the prompt, one for each of its marks: `[1, sequence, hidden]`. [`crate::text::vicuna_v1`]
    /// checks that there are as many.
    pub fn splice(&self, prompt: &Prompt, pictures: &[Seen<B>]) -> Tensor<B, 3> {
        let mut pictures = pictures.iter();
        let parts = prompt
            .spans()
            .into_iter()
            .filter_map(|span| match span {
                Span::Text(ids) => Some(self.networks.language_model.embed(&ids, self.activations)),
                Span::Image => pictures.next().map(|seen| seen.tokens.clone().unsqueeze()),
            })
            .collect();
        Tensor::cat(parts, 1)
    }

    /// An empty cache for a prompt and an answer of so many tokens, or for as many as the model reads.
    ///
    /// # Errors
    /// When the model cannot read the prompt and one token more.
    pub fn cache(&self, prompt: usize, answer: usize) -> Result<KvCache<B>, Error> {
        let limit = self.config.text.max_position_embeddings;
        if prompt >= limit {
            return Err(Error::TooLong { prompt, limit });
        }
        let positions = limit.min(prompt.saturating_add(answer));
        Ok(KvCache::new(&self.config.text, positions, self.activations, &self.device))
    }

    /// Runs embeddings `[1, new, hidden]` and returns the next token's logits.
    pub fn logits(&self, embeds: Tensor<B, 3>, cache: &mut KvCache<B>) -> Vec<f32> {
        let logits = self.networks.language_model.forward(embeds, cache);
        // A tensor in f32 reads back as f32.
        logits.into_data().convert::<f32>().into_vec().unwrap_or_default()
    }

    /// The embedding of one token, `[1, 1, hidden]`.
    pub fn embed(&self, id: u32) -> Tensor<B, 3> {
        self.networks.language_model.embed(&[id], self.activations)
    }

    /// Waits for queued work, so that times mean something on GPUs.
    fn wait(&self) {
        // A device that fails here fails again, and is reported, when results are read.
        let _ = B::sync(&self.device);
    }
}
