//! Loads a checkpoint, keeps 64 of an image's 576 tokens, and streams the answer: `cargo run --release --example answer -- photo.jpg`.

use std::{env::args, error::Error, ops::ControlFlow};

use secateur::{
    engine::{Decoding, Stream, answer},
    image::decode,
    model::{Beside, DEMO, LoadOptions, open},
    pruner::{Budget, Params, selector},
    text::Prompt,
};
use secateur_backends::Flex;

fn main() -> Result<(), Box<dyn Error>> {
    let model = open(DEMO, Beside::default())?.load::<Flex>(LoadOptions::default(), &Default::default())?;
    let image = decode(args().nth(1).ok_or("which image?")?.as_ref())?;
    let question = "Is there a red square in the image?";
    let prompt = Prompt::new(&model.chat().render(question, &[1])?, question, model.tokenizer())?;
    let (method, budget) = (selector("fastervlm", Params::default())?, Some(Budget::Tokens(64)));
    let (media, mut text) = ([image.into()], Stream::default());
    let (visual, _) = answer(&model, &media, &prompt, &method, budget, Decoding::greedy(32), |ids| {
        print!("{}", text.push(&model, ids));
        ControlFlow::Continue(())
    })?;
    println!("\n{} of {} visual tokens were read", visual[0].order.len(), visual[0].unpruned);
    Ok(())
}
