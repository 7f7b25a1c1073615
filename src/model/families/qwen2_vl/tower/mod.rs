//! The vision tower of Qwen2-VL and Qwen2.5-VL: patches of an image at nearly its own size, with rotary positions in rows and columns, merged two by two.

mod block;
mod merger;
mod order;
mod positions;

use block::{Block, Wanted};
use burn::{
    module::{Module, Param},
    tensor::{DType, Tensor, backend::Backend},
};
pub(super) use merger::Merger;
use order::Order;
use positions::positions;
use secateur_backends::{VlmBackend, operations::linear};

use super::config::VisionConfig;
use crate::{
    image::Grid,
    model::{Build, VisionOutput, blocks::unfilled},
    pruner::{ClsAttention, Needs},
    tensor::is_finite,
};

/// The tower without its merger.
#[derive(Module, Debug)]
pub(super) struct Tower<B: Backend> {
    patch_embed: PatchEmbedding<B>,
    blocks: Vec<Block<B>>,
    #[module(skip)]
    config: VisionConfig,
}

#[derive(Module, Debug)]
struct PatchEmbedding<B: Backend> {
    /// The convolution of each frame that a patch covers; their results are added.
    frames: Vec<Convolution<B>>,
}

/// A convolution whose windows do not overlap, which is a product with each patch.
#[derive(Module, Debug)]
struct Convolution<B: Backend> {
    /// The weight, `[hidden, 3, patch, patch]`.
    weight: Param<Tensor<B, 4>>,
}

impl<B: VlmBackend> Tower<B> {
    /// An unfilled tower.
    pub(super) fn new(config: &VisionConfig, build: Build<B>) -> Self {
        let shape = [config.hidden, 3, config.patch, config.patch];
        let frame = |_| Convolution { weight: unfilled(shape, build.device) };
        Self {
            patch_embed: PatchEmbedding { frames: (0..config.frames).map(frame).collect() },
            blocks: (0..config.depth).map(|_| Block::new(config, build)).collect(),
            config: config.clone(),
        }
    }

    /// Encodes items of one size, merges their patches with `merger`, and returns what `needs` names of the last block.
    ///
    /// # Shapes
    /// - `pixels`: `[items, patches, 3 · frames · patch · patch]`, the patches of a token one after another
    /// - features of the result: `[items, tokens, hidden of the decoder]`, tokens in the order of rows
    pub(super) fn encode(&self, pixels: Tensor<B, 3>, grid: Grid, merger: &Merger<B>, needs: Needs) -> VisionOutput<B> {
        let order = Order::new(grid, self.config.window);
        let (x, noted) = self.run(pixels, grid, &order, needs);
        let unit = self.config.merge * self.config.merge;
        VisionOutput {
            features: order.back(merger.forward(x, unit)),
            class: None,
            cls_attention: noted.received.map(|received| {
                let [items, patches] = received.dims();
                let tokens = received.reshape([items, patches / unit, unit]).mean_dim(2);
                order.back(tokens).reshape([1, items, 1, patches / unit])
            }),
            keys: noted.keys.map(|keys| {
                let [items, patches, width] = keys.dims();
                let tokens = keys.reshape([items, patches / unit, unit, width]).mean_dim(2);
                order.back(tokens.reshape([items, patches / unit, width]))
            }),
            layer: self.blocks.len(),
        }
    }

    /// The states of all patches behind the last block, in `order`, and what `needs` names of that block.
    fn run(&self, pixels: Tensor<B, 3>, grid: Grid, order: &Order, needs: Needs) -> (Tensor<B, 3>, block::Noted<B>) {
        let mut x = self.embed(pixels, order);
        let rope = positions(grid, order, &self.config, x.dtype(), &x.device());
        let mut noted = block::Noted { received: None, keys: None };
        for (i, block) in self.blocks.iter().enumerate() {
            let last = i + 1 == self.blocks.len();
            let wanted = Wanted {
                received: last && needs.cls_attention != ClsAttention::None,
                keys: last && needs.keys,
            };
            let windows = if self.config.is_full(i) { None } else { Some(order) };
            (x, noted) = block.forward(x, &rope, windows, wanted);
        }
        (x, noted)
    }

    /// Runs the blocks one by one, and names the first whose result is not finite.
    pub(super) fn first_overflow(&self, pixels: Tensor<B, 3>, grid: Grid) -> Option<String> {
        let order = Order::new(grid, self.config.window);
        let mut x = self.embed(pixels, &order);
        if !is_finite(&x) {
            return Some("patch_embed.".to_owned());
        }
        let rope = positions(grid, &order, &self.config, x.dtype(), &x.device());
        self.blocks.iter().enumerate().find_map(|(i, block)| {
            let windows = if self.config.is_full(i) { None } else { Some(&order) };
            x = block.forward(x.clone(), &rope, windows, Wanted::default()).0;
            (!is_finite(&x)).then(|| format!("blocks.{i}."))
        })
    }

    /// Embeds patches and puts their tokens in `order`: `[items, patches, hidden]`.
    fn embed(&self, pixels: Tensor<B, 3>, order: &Order) -> Tensor<B, 3> {
        let [items, patches, numbers] = pixels.dims();
        let (hidden, frames) = (self.config.hidden, self.config.frames);
        let pixels = pixels.reshape([items * patches, 3, frames, numbers / 3 / frames]);
        let of_frame = |(i, frame): (usize, &Convolution<B>)| {
            let pixels = pixels.clone().narrow(2, i, 1).reshape([items * patches, numbers / frames]);
            linear(pixels, frame.weight.val().reshape([hidden, numbers / frames]), false)
        };
        let parts = self.patch_embed.frames.iter().enumerate().map(of_frame);
        let sum = parts.reduce(|sum, part| sum + part);
        // A config has one frame at least.
        let x = sum.unwrap_or_else(|| Tensor::zeros([items * patches, hidden], &pixels.device()));
        let unit = self.config.merge * self.config.merge;
        order.forth(x.reshape([items, patches / unit, unit * hidden])).reshape([items, patches, hidden])
    }
}

/// The dtype in which attention is summed up.
const SUMS: DType = DType::F32;
