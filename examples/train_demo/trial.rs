//! What the student can do on images that it never saw.

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

/// Answers `count` questions of every category about images of `size` patches a side; one line about how it went.
pub(crate) fn run<B: VlmBackend>(
    student: &Student<B>,
    config: &LlavaConfig,
    maker: &Maker,
    count: usize,
    size: usize,
) -> String {
    let device = B::Device::default();
    let (mut right, mut count_of) = ([0usize; Category::ALL.len()], [0usize; Category::ALL.len()]);
    let (mut mass, mut covered) = (0.0, 0.0);
    let mut images = 0;
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
        images += 1;
        let mut questions = Vec::new();
        for (category, right) in Category::ALL.into_iter().zip(0usize..) {
            let yes = random.random_bool(0.5);
            questions.extend(ask(&mut random, &scene, category, yes).map(|question| (right, question)));
        }
        let (asked, questions): (Vec<usize>, Vec<Question>) = questions.into_iter().unzip();
        for (category, correct) in asked.into_iter().zip(answers(student, config, maker, &sight.features, questions)) {
            right[category] += usize::from(correct);
            count_of[category] += 1;
        }
    }
    let share = |right: usize, of: usize| 100.0 * right as f64 / of.max(1) as f64;
    let mut line: Vec<String> = Category::ALL
        .iter()
        .zip(right.iter().zip(&count_of))
        .map(|(category, (&right, &of))| format!("{} {:.0} %", category.name(), share(right, of)))
        .collect();
    line.push(format!("in all {:.1} %", share(right.iter().sum(), count_of.iter().sum())));
    line.push(format!(
        "[CLS] {:.0} % on {:.0} % of patches",
        100.0 * mass / images as f32,
        100.0 * covered / images as f32
    ));
    line.join(", ")
}

/// Whether the likeliest first token is the answer's, for each of the questions about an image.
fn answers<B: VlmBackend>(
    student: &Student<B>,
    config: &LlavaConfig,
    maker: &Maker,
    features: &Tensor<B, 3>,
    questions: Vec<Question>,
) -> Vec<bool> {
    let turns = maker.turns(&[questions.into_iter().map(|one| vec![one]).collect()], features.dims()[1]);
    // An answer is Yes or No and the end mark.
    let (rows, ids): (Vec<usize>, Vec<i32>) = turns.targets.iter().step_by(2).copied().unzip();
    let states = student.read_turns(config, features.clone(), &turns, rows);
    let found: Vec<i64> = student.llama.logits(states).argmax(1).into_data().iter::<i64>().collect();
    found.into_iter().zip(ids).map(|(found, id)| found == i64::from(id)).collect()
}
