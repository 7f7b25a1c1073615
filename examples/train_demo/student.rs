//! The networks under training, and their losses.

use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::{
        Distribution, Int, Tensor, TensorData, activation,
        backend::{AutodiffBackend, Backend},
    },
};
use secateur::{
    demo::{Colour, GRID, Region, Shape},
    model::{
        Build, Chunk, ClipJoint, ClipTextConfig, ClipVision, Decoder, Linear, LlavaConfig, Outputs, Positions,
        Projector, Rope,
    },
};
use secateur_backends::VlmBackend;

use crate::data::{Batch, Turns};

/// Kinds of objects, and the background.
pub(crate) const KINDS: usize = Shape::ALL.len() * Colour::ALL.len() + 1;

/// Everything that is trained.
#[derive(Module, Debug)]
pub(crate) struct Student<B: Backend> {
    pub(crate) vision: ClipVision<B>,
    pub(crate) joint: ClipJoint<B>,
    pub(crate) projector: Projector<B>,
    pub(crate) llama: Decoder<B>,
    /// The logarithm of the factor before the contrastive softmax.
    pub(crate) logit_scale: Param<Tensor<B, 1>>,
    /// Reads kind, centre, row and column off a patch; dropped after training.
    pub(crate) reader: Linear<B>,
}

/// The losses of a batch, and what share of each task was right.
pub(crate) struct Losses<B: Backend> {
    /// Image against caption.
    pub(crate) contrast: Tensor<B, 1>,
    /// The reader's.
    pub(crate) patches: Tensor<B, 1>,
    /// Patches against the question.
    pub(crate) relevance: Tensor<B, 1>,
    /// The answers', where the language model ran.
    pub(crate) answers: Option<Tensor<B, 1>>,
}

impl<B: VlmBackend> Student<B> {
    /// With random weights.
    pub(crate) fn new(config: &LlavaConfig, text: &ClipTextConfig, device: &B::Device) -> Self {
        let (vision, build) = (&config.vision, Build::exact(device));
        let width = vision.hidden_size;
        let student = Self {
            vision: ClipVision::new(vision, config.vision_feature_layer, build),
            joint: ClipJoint::new(width, vision.layer_norm_eps, text, device),
            projector: Projector::new(width, config.text.hidden_size, build),
            llama: Decoder::new(&config.text, build),
            logit_scale: Param::from_tensor(Tensor::from_floats([2.659], device)),
            reader: build.linear(width, KINDS + 1 + 2 * GRID, true),
        };
        student.map(&mut Init::default())
    }

    /// The losses of a batch whose images show `batch.region`.
    pub(crate) fn losses(&self, config: &LlavaConfig, batch: Batch, device: &B::Device) -> Losses<B> {
        let Region { row, column, size } = batch.region;
        let tower = self.vision.window(GRID, [row, column], size);
        let count = batch.captions.len();
        let side = size * config.vision.patch_size;
        let pixels = Tensor::<B, 4>::from_data(TensorData::new(batch.pixels, [count, 3, side, side]), device);
        let [features, class] = tower.features_and_class(pixels);
        let patches = features.narrow(1, 1, size * size);

        let image = unit(self.joint.image_embeds(class).flatten::<2>(0, 1));
        let texts = unit(self.joint.text_embeds(&[batch.captions, batch.questions].concat()));
        let scores = image.matmul(texts.clone().narrow(0, 0, count).transpose())
            * self.logit_scale.val().clamp_max(4.6).exp().unsqueeze();
        let own: Vec<i32> = (0..count as i32).collect();
        let own = Tensor::<B, 1, Int>::from_data(TensorData::new(own, [count]), device);
        let contrast = (cross_entropy(scores.clone(), own.clone()) + cross_entropy(scores.transpose(), own)) / 2.0;

        // As in CLIP at its real size, where methods rely on it: patches of what the text names look unlike the text.
        let embeds = unit(self.joint.image_embeds(patches.clone()));
        let questions = texts.narrow(0, count, count).unsqueeze_dim::<3>(1);
        let likeness = (embeds * questions).sum_dim(2).reshape([count, size * size]);
        let named = Tensor::<B, 2>::from_data(TensorData::new(batch.named, [count, size * size]), device);
        let mean = |mask: Tensor<B, 2>| (likeness.clone() * mask.clone()).sum_dim(1) / mask.sum_dim(1).clamp_min(1.0);
        let gap = mean(named.clone()) - mean(named.neg() + 1.0);
        let relevance = activation::softplus(gap * 8.0 + 2.0, 1.0).mean();

        let patch_loss = self.read(patches.clone(), &batch.labels, device);
        let answers = batch.turns.map(|turns| self.answers(config, patches, &turns, device));
        Losses { contrast, patches: patch_loss, relevance, answers }
    }

    /// How well the reader knows what lies on each patch; background counts as much as all objects together.
    fn read(&self, patches: Tensor<B, 3>, labels: &[[i32; 4]], device: &B::Device) -> Tensor<B, 1> {
        let [batch, count, _] = patches.dims();
        let read = self.reader.forward(patches).reshape([batch * count, KINDS + 1 + 2 * GRID]);
        let (objects, background): (Vec<usize>, Vec<usize>) =
            (0..labels.len()).partition(|&i| labels[i][0] + 1 < KINDS as i32);
        let part = |rows: &[usize], from: usize, width: usize, label: usize| {
            let targets: Vec<i32> = rows.iter().map(|&row| labels[row][label]).collect();
            let targets = Tensor::<B, 1, Int>::from_data(TensorData::new(targets, [rows.len()]), device);
            cross_entropy(select(read.clone(), rows).narrow(1, from, width), targets)
        };
        let kind = part(&objects, 0, KINDS, 0) + part(&background, 0, KINDS, 0);
        let row = part(&objects, KINDS + 1, GRID, 2) + part(&objects, KINDS + 1 + GRID, GRID, 3);
        let centre: Vec<f32> = objects.iter().map(|&i| labels[i][1] as f32 * 2.0 - 1.0).collect();
        let centre = Tensor::<B, 2>::from_data(TensorData::new(centre, [objects.len(), 1]), device);
        let centre_loss = activation::softplus(select(read, &objects).narrow(1, KINDS, 1) * centre.neg(), 1.0).mean();
        kind + row * 0.2 + centre_loss
    }

    /// The loss of the answers' tokens.
    fn answers(&self, config: &LlavaConfig, patches: Tensor<B, 3>, turns: &Turns, device: &B::Device) -> Tensor<B, 1> {
        let (rows, targets): (Vec<usize>, Vec<i32>) = turns.targets.iter().copied().unzip();
        let count = rows.len();
        let logits = self.llama.logits(self.read_turns(config, patches, turns, rows));
        cross_entropy(logits, Tensor::from_data(TensorData::new(targets, [count]), device))
    }

    /// The language model's states of some `rows` of prompts, images and turns, `[rows, hidden]`.
    pub(crate) fn read_turns(
        &self,
        config: &LlavaConfig,
        patches: Tensor<B, 3>,
        turns: &Turns,
        rows: Vec<usize>,
    ) -> Tensor<B, 2> {
        let [batch, visual, _] = patches.dims();
        let hidden = config.text.hidden_size;
        let dtype = patches.dtype();
        let projected = self.projector.forward(patches);
        let before = self.llama.embed(&turns.before, dtype).expand([batch, turns.before.len(), hidden]);
        let after = self.llama.embed(&turns.after.concat(), dtype).reshape([batch, turns.length(), hidden]);
        let embeds = Tensor::cat(vec![before, projected, after], 1);
        let (positions, outputs) = (Positions::These(turns.positions(visual)), Outputs::These(rows));
        let whole = Chunk::whole(embeds.dims()[1]);
        let chunk = Chunk { positions, outputs, mask: turns.mask(visual), ..whole };
        let rope = Rope::new(&config.text, &embeds.device());
        self.llama.forward(embeds, &mut [chunk], &rope)
    }
}

/// The mean over rows of minus the target's log-probability.
fn cross_entropy<B: Backend>(logits: Tensor<B, 2>, targets: Tensor<B, 1, Int>) -> Tensor<B, 1> {
    activation::log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1)).mean().neg()
}

fn select<B: Backend>(x: Tensor<B, 2>, rows: &[usize]) -> Tensor<B, 2> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let rows = Tensor::from_data(TensorData::new(rows.clone(), [rows.len()]), &x.device());
    x.select(0, rows)
}

fn unit<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let norm = (x.clone().square().sum_dim(D - 1) + 1e-12).sqrt();
    x / norm
}

/// Draws first weights by name and shape.
#[derive(Default)]
struct Init {
    path: Vec<String>,
}

impl<B: Backend> ModuleMapper<B> for Init {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let path = self.path.join(".");
        let shape = param.lazy_shape();
        let device = param.lazy_device();
        let dims = shape.clone();
        let normal = |deviation: f64| Tensor::random(dims.clone(), Distribution::Normal(0.0, deviation), &device);
        let value: Tensor<B, D> = if path.contains("logit_scale") {
            param.val()
        } else if path.contains("norm") || path.contains("layrnorm") {
            if path.ends_with("weight") { Tensor::ones(shape, &device) } else { Tensor::zeros(shape, &device) }
        } else if path.ends_with("bias") {
            Tensor::zeros(shape, &device)
        } else if path.contains("position_embedding") {
            normal(0.2)
        } else if path.contains("patch_embedding") {
            let inputs: usize = (1..D).map(|i| shape[i]).product();
            normal((inputs as f64).powf(-0.5))
        } else if path.contains("embed") {
            normal(0.1)
        } else {
            normal(0.7 * (shape[D - 1] as f64).powf(-0.5))
        };
        Param::initialized(param.id, value.detach().require_grad())
    }
}

/// Copies with leaves of their own, so that two threads can go backwards at once.
pub(crate) fn fork<B: AutodiffBackend + VlmBackend>(student: &Student<B>) -> Student<B> {
    struct Leaves;
    impl<B: Backend> ModuleMapper<B> for Leaves {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let id: ParamId = param.id;
            Param::initialized(id, param.val().detach().require_grad())
        }
    }
    student.clone().map(&mut Leaves)
}
