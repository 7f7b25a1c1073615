//! How often 16-bit cues keep other patches than f32 cues: the near ties of every method.
//!
//! ```sh
//! cargo run --release --example rounding
//! ```
//!
//! The tests' tiny checkpoint looks at the tests' images, on whatever backend is compiled in. Each method chooses from
//! the cues of the f32 checkpoint, and again
//!
//! - from those of the same checkpoint with its weights rounded to bf16 (`--dtype bf16`; f16 holds them exactly);
//! - from the f32 cues with what a 16-bit model hands over in 16 bits (features, projected features, prompt embeddings)
//!   rounded to f16, or to bf16: a 16-bit GPU differs at least so often, since it rounds inside the tower as well.
//!
//! Prints a Markdown table: runs that keep the same patches, and the share of patches in common on average and at least.

use burn::tensor::{DType, Tensor, backend::Backend};
use secateur::{
    image::decode,
    model::{Beside, LoadOptions, Model, open},
    pruner::{Cues, Params, Place, Selector, methods, selector},
    text::{Prompt, clip_question},
};
use secateur_backends::{Job, VlmBackend, default_backend, run};
use serde::Deserialize;

const BUDGETS: [usize; 4] = [29, 64, 128, 192];

#[derive(Deserialize)]
struct Case {
    image: String,
    question: String,
}

struct Rounding;

impl Job for Rounding {
    type Output = Result<(), Box<dyn std::error::Error>>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-llava-1.5");
        let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(format!("{root}/cases.json"))?)?;
        let options = LoadOptions { dtype: Some(DType::F32), joint: true, ..LoadOptions::default() };
        let model: Model<B> = open(&format!("{root}/llava-v1.5-tiny"), Beside::default())?.load(options, &device)?;
        let narrow = LoadOptions { dtype: Some(DType::BF16), ..options };
        let rounded_model: Model<B> =
            open(&format!("{root}/llava-v1.5-tiny"), Beside::default())?.load(narrow, &device)?;
        println!(
            "| method | bf16 weights: same | in common | f16 cues: same | in common | bf16 cues: same | in common |"
        );
        println!("|---|---|---|---|---|---|---|");
        for method in methods(Params::default()).iter().filter(|method| method.card().place == Place::Tower) {
            let Selector::Before(pruner) = selector::<B>(method.name(), Params::default())? else { continue };
            let mut tallies = [Tally::default(), Tally::default(), Tally::default()];
            for case in &cases {
                let image = decode(format!("{root}/{}", case.image).as_ref())?;
                let question = clip_question(&case.question);
                let prompt = Prompt::new(&model.chat().render(&case.question, &[1])?, &question, model.tokenizer())?;
                let see = |model: &Model<B>| {
                    let look = model.encode_image(&image, method.card().tiling, method.card().needs)?;
                    model.cues(&look, method.card().needs, &prompt, 0)
                };
                let cues = see(&model)?;
                let others = [see(&rounded_model)?, rounded(&cues, DType::F16), rounded(&cues, DType::BF16)];
                for budget in BUDGETS {
                    let exact = pruner.keep(&cues, budget)?;
                    for (tally, cues) in tallies.iter_mut().zip(&others) {
                        tally.add(&exact.indices()[0], &pruner.keep(cues, budget)?.indices()[0]);
                    }
                }
            }
            let [weights, f16, bf16] = tallies.map(|tally| tally.row());
            println!("| `{}` | {weights} | {f16} | {bf16} |", method.name());
        }
        Ok(())
    }
}

/// The cues, what a 16-bit model hands over in 16 bits rounded so.
fn rounded<B: Backend>(cues: &Cues<B>, dtype: DType) -> Cues<B> {
    fn round<B: Backend, const D: usize>(tensor: &Tensor<B, D>, dtype: DType) -> Tensor<B, D> {
        // On the host: not every backend has 16-bit tensors.
        let data = tensor.clone().into_data().convert_dtype(dtype).convert_dtype(DType::F32);
        Tensor::from_data(data, (&tensor.device(), DType::F32))
    }
    Cues {
        features: cues.features.as_ref().map(|x| round(x, dtype)),
        projected: cues.projected.as_ref().map(|x| round(x, dtype)),
        prompt_embeds: cues.prompt_embeds.as_ref().map(|x| x.as_ref().map(|x| round(x, dtype))),
        ..cues.clone()
    }
}

/// How two choices agree, over all runs.
#[derive(Default)]
struct Tally {
    shares: Vec<f64>,
}

impl Tally {
    fn add(&mut self, exact: &[usize], rounded: &[usize]) {
        let common = exact.iter().filter(|patch| rounded.contains(patch)).count();
        self.shares.push(common as f64 / exact.len() as f64);
    }

    fn row(&self) -> String {
        let (runs, same) = (self.shares.len(), self.shares.iter().filter(|share| **share == 1.0).count());
        let mean = self.shares.iter().sum::<f64>() / runs as f64;
        let least = self.shares.iter().copied().fold(1.0, f64::min);
        format!("{same} of {runs} | {:.1} %, {:.0} %", 100.0 * mean, 100.0 * least)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(default_backend()?, Rounding)?
}
