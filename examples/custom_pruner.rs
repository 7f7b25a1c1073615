//! A pruning method of one's own, from outside the crate.
//!
//! ```sh
//! cargo run --release --example custom_pruner -- MODEL IMAGE QUESTION
//! ```
//!
//! Without arguments it asks the tiny checkpoint of the tests, whose answers are gibberish.
//!
//! The method keeps the patches whose features have the largest norm: a few lines, because the score is all that is its
//! own. Inside the crate it would be one file in `src/pruner/` and one row in its `methods!` list, and the contract tests
//! would find it there.

use std::ops::ControlFlow;

use secateur::{
    Error,
    engine::{Decoding, answer},
    image::decode,
    model::{Beside, LoadOptions, Model, open},
    pruner::{Card, Cues, Keep, Method, Needs, Pruner, Selector, top_k},
    text::Prompt,
};
use secateur_backends::{Job, VlmBackend, default_backend, run};

/// Keeps the patches with the largest features.
struct LargestNorm;

impl Method for LargestNorm {
    fn card(&self) -> Card {
        Card {
            name: "largest-norm",
            idea: "keeps the patches whose features have the largest norm",
            // What is declared here is computed and is in the cues; nothing else is.
            needs: Needs { features: true, ..Needs::default() },
            ..Card::default()
        }
    }
}

impl<B: VlmBackend> Pruner<B> for LargestNorm {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let features = cues.features(self.name())?;
        let [crops, patches, _] = features.dims();
        top_k(features.square().sum_dim(2).reshape([crops, patches]), budget)
    }
}

/// Work that runs on whatever backend is compiled in.
struct Ask {
    model: String,
    image: String,
    question: String,
}

impl Job for Ask {
    type Output = Result<(), Error>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let model: Model<B> = open(&self.model, Beside::default())?.load(LoadOptions::default(), &device)?;
        let image = decode(self.image.as_ref())?;
        let prompt = Prompt::new(&model.chat().render(&self.question, &[1])?, &self.question, model.tokenizer())?;
        let decoding = Decoding::greedy(32);
        let selector = Selector::Before(Box::new(LargestNorm));
        let go_on = |_: &[u32]| ControlFlow::Continue(());
        let (seen, answer) = answer(&model, &[image.into()], &prompt, &selector, Some(64.into()), decoding, go_on)?;
        println!("kept {:?}", seen[0].keep.indices()[0]);
        println!("{}", model.tokenizer().decode(&answer.ids));
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-llava-1.5");
    let ask = Ask {
        model: next(&format!("{fixtures}/llava-v1.5-tiny")),
        image: next(&format!("{fixtures}/images/boat_123x90.png")),
        question: next("Is there a boat in the image?"),
    };
    Ok(run(default_backend()?, ask)??)
}
