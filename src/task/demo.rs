//! The demo benchmark: two yes / no questions about each of 200 drawn images, in four of MME's categories.
//!
//! A question: `Is there a red ring in the image? Please answer yes or no.` The benchmark needs no data: images,
//! questions and labels are drawn from one fixed seed, which training never uses.
//!
//! Score of a category: MME's, see [`super::Mme`]; `total` is the sum over categories, and `accuracy` the share of
//! right answers. Half of the answers would be right by chance.
//!
//! Official scorer: this one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

use super::{
    Answer, Card, MediaSource, Protocol, Report, Sample, Task, llava_only,
    pairs::{Pairs, Scored, left_out, yes_or_no},
};
use crate::{
    Error,
    demo::{Category, Question, Region, Scene, YES_OR_NO, ask},
    statistics::Marks,
};

/// The demo benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Demo;

/// The number of images in a category.
const IMAGES: usize = 50;
const SEED: u64 = 0x5ec4_7e12;

/// An image with its two questions.
struct Item {
    id: String,
    category: Category,
    scene: Scene,
    questions: [Question; 2],
}

impl Task for Demo {
    fn card(&self) -> Card {
        Card {
            name: "demo",
            about: "drawn images for the built-in checkpoint: yes / no questions in 4 of MME's categories",
            headline: "accuracy",
            points: &["existence", "count", "position", "color", "total"],
            together: true,
            max_new_tokens: 8,
            ..Card::default()
        }
    }

    fn lacks(&self, answer: &Answer, protocol: Protocol) -> Option<&'static str> {
        yes_or_no(&answer.text, protocol).is_none().then_some("say neither yes nor no where the rule looks")
    }

    fn samples(&self, _data: &Path) -> Result<Vec<Sample>, Error> {
        let sample = |item: &Item, question: &Question| Sample {
            question_id: item.id.as_str().into(),
            media: Some(MediaSource::Scene(item.scene.clone())),
            text: question.text.clone(),
            suffix: "",
            clip_text: question.text.replace(YES_OR_NO, "").trim_end().to_owned(),
            category: item.category.name().to_owned(),
            more: Map::from_iter([("category".to_owned(), Value::from(item.category.name()))]),
        };
        Ok(items().iter().flat_map(|item| item.questions.iter().map(|question| sample(item, question))).collect())
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        llava_only(self, protocol, data)?;
        let items: BTreeMap<String, Item> = items().into_iter().map(|item| (item.id.clone(), item)).collect();
        let mut categories: BTreeMap<&str, Pairs> = BTreeMap::new();
        for answer in answers {
            let item = answer.question_id.as_str().and_then(|id| items.get(id));
            let question = item.and_then(|item| item.questions.iter().find(|question| question.text == answer.prompt));
            let (Some(item), Some(question)) = (item, question) else {
                let asked = format!("{} `{}`", answer.question_id, secateur_weights::printable(&answer.prompt));
                let place = PathBuf::from("the demo benchmark");
                return Err(Error::data(&place, format!("{asked} is none of its questions")));
            };
            let right = yes_or_no(&answer.text, protocol) == Some(question.answer == "Yes");
            categories.entry(item.category.name()).or_default().add(
                item.id.clone(),
                question.text.clone(),
                answer.mark(right, &question.answer),
            );
        }
        Ok(report(&categories, 2 * items.len()))
    }
}

fn report(categories: &BTreeMap<&str, Pairs>, asked: usize) -> Report {
    let (mut metrics, mut total, mut right, mut n, mut incomplete) = (Vec::new(), 0.0, 0, 0, 0);
    let mut marks = Marks::new("accuracy");
    for category in Category::ALL {
        let Some(pairs) = categories.get(category.name()) else { continue };
        let scored = Scored::new(pairs);
        incomplete += scored.incomplete;
        if scored.pairs > 0 {
            total += scored.score();
            right += scored.right;
            n += 2 * scored.pairs;
            pairs.add_marks(&mut marks, 0, |right, _| [right, 2.0]);
            metrics.push((category.name().to_owned(), scored.score()));
        }
    }
    // Without answers there is no score.
    if n > 0 {
        metrics.push(("total".to_owned(), total));
        metrics.push(("accuracy".to_owned(), right as f64 / n as f64));
    }
    let mut notes = Pairs::notes(categories.values());
    if n < asked {
        notes.push(format!("{n} of {asked} questions; the figures are over these"));
    }
    if incomplete > 0 {
        notes.push(left_out(incomplete));
    }
    Report { benchmark: "demo", protocol: Protocol::Llava, n, metrics, marks, notes }
}

/// Every image, the categories in turn, so that the first few questions cover all categories.
fn items() -> Vec<Item> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut items = Vec::new();
    for number in 0..IMAGES {
        for category in Category::ALL {
            let id = format!("{}/{number:03}.png", category.name());
            items.push(loop {
                let objects = random.random_range(2..=5);
                let scene = Scene::new(&mut random, objects, Region::WHOLE);
                let pair = [true, false].map(|yes| ask(&mut random, &scene, category, yes));
                if let [Some(yes), Some(no)] = pair {
                    let questions = if random.random_bool(0.5) { [yes, no] } else { [no, yes] };
                    break Item { id, category, scene, questions };
                }
            });
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::fnv1a;

    /// A change of the world, the questions or the random numbers changes the benchmark: figures from before the change
    /// do not compare with figures from after it.
    #[test]
    fn the_benchmark_is_the_one_that_figures_were_measured_on() {
        let samples = Demo.samples(Path::new("")).unwrap();
        assert_eq!(samples.len(), 400);
        let texts: String = samples.iter().map(|sample| format!("{} {}\n", sample.question_id, sample.text)).collect();
        let Some(MediaSource::Scene(scene)) = &samples[0].media else { panic!("a scene") };
        assert_eq!(
            (fnv1a(texts.as_bytes()), fnv1a(&scene.draw().data)),
            (9_396_526_438_029_579_433, 2_322_004_239_682_647_012)
        );
    }

    #[test]
    fn half_of_the_answers_are_yes_and_saying_always_yes_scores_nothing_extra() {
        let samples = Demo.samples(Path::new("")).unwrap();
        let answers: Vec<Answer> = samples.iter().map(|s| Answer::new(s, "Yes".to_owned(), "m")).collect();
        let report = Demo.score(Path::new(""), &answers, Protocol::Llava).unwrap();
        assert_eq!(report.metrics.last(), Some(&("accuracy".to_owned(), 0.5)));
        assert_eq!(report.metrics[0], ("existence".to_owned(), 50.0));
    }
}
