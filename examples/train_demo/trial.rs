//! What the student can do on pictures that it never saw.

use burn::tensor::{DType, Tensor, TensorData};
use rand::Rng;
use secateur::{
    demo::{Category, GRID, PATCH, Question, Region, Scene, ask},
    model::LlavaConfig,
    pruner::{ClsAttention, Needs},
};
use secateur_backends::VlmBackend;

use crate::{
    data::{Maker, stream},
    student::Student,
};

/// Answers `count` questions of every category about pictures of `size` patches a side; one line about how it went.
pub(crate) fn run<B: VlmBackend>(
    student: &Student<B>,
    config: &LlavaConfig,
    maker: &Maker,
    count: usize,
    size: usize,
) -> String {
    let device = B::Device::default();
    let mut right = [0usize; Category::ALL.len()];
    let (mut mass, mut covered) = (0.0, 0.0);
    let mut pictures = 0;
    for i in 0..count {
        let mut random = stream(u64::MAX, 0, i, 0);
        let objects = random.random_range(2..=if size == GRID { 5 } else { 4 });
        let [row, column] = [0, 1].map(|_| random.random_range(0..=GRID - size));
        let scene = Scene::new(&mut random, objects, Region { row, column, size });
        let pixels = TensorData::new(maker.processor.normalise(&scene.draw()), [1, 3, size * PATCH, size * PATCH]);
        let pixels = Tensor::<B, 4>::from_data(pixels, (&device, DType::F32));
        let tower = student.vision.window(GRID, [row, column], size);
        let sight = tower.encode(pixels, Needs { cls_attention: ClsAttention::Selected, ..Needs::default() });
        let attention: Vec<f32> = match sight.cls_attention {
            Some(attention) => attention.mean_dim(2).into_data().into_vec().unwrap_or_default(),
            None => Vec::new(),
        };
        let total: f32 = attention.iter().sum();
        for (patch, weight) in attention.iter().enumerate() {
            if scene.objects.iter().any(|object| object.share([row + patch / size, column + patch % size]) >= 0.2) {
                mass += weight / total;
                covered += 1.0 / (size * size) as f32;
            }
        }
        pictures += 1;
        for (category, right) in Category::ALL.into_iter().zip(&mut right) {
            let yes = random.random_bool(0.5);
            match ask(&mut random, &scene, category, yes) {
                Some(question) => *right += usize::from(answers(student, config, maker, &sight.features, &question)),
                None => *right += 1,
            }
        }
    }
    let share = |right: usize| 100.0 * right as f64 / count as f64;
    let mut line: Vec<String> = Category::ALL
        .iter()
        .zip(right)
        .map(|(category, right)| format!("{} {:.0} %", category.name(), share(right)))
        .collect();
    line.push(format!("in all {:.1} %", share(right.iter().sum()) / Category::ALL.len() as f64));
    line.push(format!(
        "[CLS] {:.0} % on {:.0} % of patches",
        100.0 * mass / pictures as f32,
        100.0 * covered / pictures as f32
    ));
    line.join(", ")
}

/// Whether the likeliest first token is the answer's.
fn answers<B: VlmBackend>(
    student: &Student<B>,
    config: &LlavaConfig,
    maker: &Maker,
    features: &Tensor<B, 3>,
    question: &Question,
) -> bool {
    let turns = maker.turns(&[vec![question.clone()]], features.dims()[1]);
    let states = student.read_turns(config, features.clone(), &turns);
    let [_, length, hidden] = states.dims();
    let Some(&(row, id)) = turns.targets.first() else { return false };
    let state = states.reshape([length, hidden]).narrow(0, row, 1);
    let logits: Vec<f32> = student.llama.logits(state).into_data().into_vec().unwrap_or_default();
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    best == Some(id as usize)
}
