//! Batches: scenes drawn, questions asked, everything tokenised.

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use secateur::{
    demo::{Category, GRID, OPEN, PATCH, Question, Region, Scene, ask, open_questions},
    image::ClipProcessor,
    model::families::llava::chat::VICUNA_V1,
    text::{ClipTokenizer, IMAGE_TOKEN, Prompt, Segment, Tokenizer},
};
use secateur_backends::Mask;

use crate::student::KINDS;

/// What turns scenes into numbers.
pub(crate) struct Maker {
    pub(crate) processor: ClipProcessor,
    pub(crate) llama: Tokenizer,
    pub(crate) clip: ClipTokenizer,
}

/// Images, and all that is known of them.
pub(crate) struct Batch {
    pub(crate) region: Region,
    /// `[images, 3, side, side]`.
    pub(crate) pixels: Vec<f32>,
    /// A caption for each image.
    pub(crate) captions: Vec<Segment>,
    /// A question for each image, as CLIP reads it.
    pub(crate) questions: Vec<Segment>,
    /// 1 on the patches of what the question names, `[images, patches]`.
    pub(crate) named: Vec<f32>,
    /// Kind, whether the centre lies on it, row and column of every patch's object, `[images · patches]`.
    pub(crate) labels: Vec<[i32; 4]>,
    /// What the language model reads, if it does.
    pub(crate) turns: Option<Turns>,
}

/// Prompt, questions and answers around the images of a batch.
pub(crate) struct Turns {
    /// Tokens before the image, the same for all.
    pub(crate) before: Vec<u32>,
    /// Tokens after it: the conversations about each image, each filled up with zeros to [`Self::turn`].
    pub(crate) after: Vec<Vec<u32>>,
    /// The length of a conversation.
    pub(crate) turn: usize,
    /// Rows `[images · length]` that predict a token of an answer, and the token.
    pub(crate) targets: Vec<(usize, i32)>,
}

impl Turns {
    /// Tokens after an image.
    pub(crate) fn length(&self) -> usize {
        self.after.first().map_or(0, Vec::len)
    }

    /// The tokens that each token sees: every conversation stands right behind the image, as if it were the only one.
    pub(crate) fn mask(&self, visual: usize) -> Mask {
        Mask::Turns { shared: self.before.len() + visual, turn: self.turn }
    }

    /// The position of every token.
    pub(crate) fn positions(&self, visual: usize) -> Vec<usize> {
        let shared = self.before.len() + visual;
        (0..shared).chain((0..self.length()).map(|i| shared + i % self.turn)).collect()
    }
}

/// The stream of numbers that an image is made from.
pub(crate) fn stream(seed: u64, phase: u64, step: usize, part: usize) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (slot, value) in key.chunks_exact_mut(8).zip([seed, phase, step as u64, part as u64]) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

impl Maker {
    /// `count` images of `size` patches a side, at one random place, with questions about each.
    pub(crate) fn batch(&self, random: &mut ChaCha8Rng, count: usize, size: usize, asked: Asked) -> Batch {
        let mut start = || random.random_range(0..=GRID - size);
        let region = Region { row: start(), column: start(), size };
        let scenes: Vec<Scene> = (0..count)
            .map(|_| {
                let objects = random.random_range(1..=if size == GRID { 5 } else { 4 });
                Scene::new(random, objects, region)
            })
            .collect();
        let pixels = scenes.iter().flat_map(|scene| self.processor.normalise(&scene.draw())).collect();
        let mut batch = Batch {
            region,
            pixels,
            captions: Vec::new(),
            questions: Vec::new(),
            named: Vec::new(),
            labels: Vec::new(),
            turns: None,
        };
        for scene in &scenes {
            batch.captions.push(self.caption(random, scene));
            let named = random.random_range(0..scene.objects.len().max(1));
            let name = scene.objects.get(named).map(|object| object.name()).unwrap_or_default();
            batch.questions.push(self.segment(&format!("Is there a {name} in the image?")));
            for patch in 0..size * size {
                let (label, on) = label(scene, [region.row + patch / size, region.column + patch % size]);
                batch.named.push(if on == Some(named) { 1.0 } else { 0.0 });
                batch.labels.push(label);
            }
        }
        // No text reads beyond its end, so what all of them leave empty would only cost time.
        let texts = || batch.captions.iter().chain(&batch.questions);
        let longest = texts().map(|segment| segment.pool + 1).max().unwrap_or_default();
        batch.captions.iter_mut().chain(&mut batch.questions).for_each(|segment| segment.ids.truncate(longest));
        batch.turns = (asked.yes_or_no + asked.open > 0).then(|| {
            // The last open question has a long answer, and every turn of a batch costs as much as its longest.
            let long = asked.together || random.random_bool(0.2);
            let turns = |questions: Vec<Question>| {
                if asked.together { vec![questions] } else { questions.into_iter().map(|one| vec![one]).collect() }
            };
            let turns: Vec<_> = scenes.iter().map(|scene| turns(questions(random, scene, asked, long))).collect();
            self.turns(&turns, size * size)
        });
        batch
    }

    fn caption(&self, random: &mut ChaCha8Rng, scene: &Scene) -> Segment {
        let mut names: Vec<String> = scene.objects.iter().map(|object| format!("a {}", object.name())).collect();
        names.shuffle(random);
        self.segment(&names.join(", "))
    }

    /// Captions and questions are short enough for one.
    fn segment(&self, text: &str) -> Segment {
        self.clip.segments(text).expect("the tokenizer has a piece for every byte").swap_remove(0)
    }

    /// The ids of a text that goes on.
    fn encode(&self, text: &str) -> Vec<u32> {
        self.llama.encode(text).expect("the tokenizer has a piece for every byte").split_off(1)
    }

    /// Tokenises what is asked about images of `visual` tokens: for each as many conversations, side by side. Every
    /// answer is to be predicted.
    pub(crate) fn turns(&self, images: &[Vec<Vec<Question>>], visual: usize) -> Turns {
        let mut before = Vec::new();
        let turns: Vec<Vec<Turn>> = images
            .iter()
            .map(|turns| turns.iter().map(|questions| self.turn(questions, &mut before)).collect())
            .collect();
        let turn = turns.iter().flatten().map(|turn| turn.ids.len()).max().unwrap_or_default();
        let shared = before.len() + visual;
        let mut targets = Vec::new();
        let mut after = Vec::new();
        for (image, turns) in turns.iter().enumerate() {
            let start = image * (shared + turns.len() * turn) + shared;
            let mut ids = Vec::new();
            for (i, one) in turns.iter().enumerate() {
                targets.extend(one.answers.iter().map(|&at| (start + i * turn + at - 1, one.ids[at] as i32)));
                ids.extend(one.ids.iter().copied().chain(std::iter::repeat(0)).take(turn));
            }
            after.push(ids);
        }
        Turns { before, after, turn, targets }
    }

    /// A conversation behind an image; `before` becomes what stands before the image, which is the same for all.
    fn turn(&self, questions: &[Question], before: &mut Vec<u32>) -> Turn {
        let mut turn = Turn { ids: Vec::new(), answers: Vec::new() };
        for (i, question) in questions.iter().enumerate() {
            if i == 0 {
                let text = VICUNA_V1.render(&question.text, &[1]).expect("a question without placeholders");
                let prompt = Prompt::new(&text, "", &self.llama).expect("the tokenizer has a piece for every byte");
                let at = prompt.ids.iter().position(|&id| id == IMAGE_TOKEN).expect("a placeholder");
                *before = prompt.ids[..at].iter().map(|&id| id as u32).collect();
                turn.ids = prompt.ids[at + 1..].iter().map(|&id| id as u32).collect();
            } else {
                turn.ids.extend(&self.encode(&format!("USER: {} ASSISTANT:", question.text)));
            }
            let answer = turn.ids.len();
            turn.ids.extend(&self.encode(&question.answer));
            turn.ids.push(self.llama.eos());
            turn.answers.extend(answer..turn.ids.len());
        }
        turn
    }
}

/// The questions about each image of a phase.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    /// Questions that take yes or no.
    pub(crate) yes_or_no: usize,
    /// Open ones.
    pub(crate) open: usize,
    /// In one conversation; else each alone behind the image.
    pub(crate) together: bool,
}

/// Questions and answers behind an image.
struct Turn {
    ids: Vec<u32>,
    /// Which of the tokens are the answers'.
    answers: Vec<usize>,
}

/// Kind, centre, row and column of what lies on a patch, and which object it is.
fn label(scene: &Scene, patch: [usize; 2]) -> ([i32; 4], Option<usize>) {
    let share = |i: &usize| scene.objects[*i].share(patch);
    let most = (0..scene.objects.len()).max_by(|a, b| share(a).total_cmp(&share(b)));
    match most.filter(|i| share(i) >= 0.2) {
        Some(i) => {
            let object = &scene.objects[i];
            let own = [1, 0].map(|axis| object.centre[axis] as usize / PATCH);
            ([object.kind() as i32, i32::from(own == patch), patch[0] as i32, patch[1] as i32], Some(i))
        }
        None => ([KINDS as i32 - 1, 0, 0, 0], None),
    }
}

/// So many yes / no questions and open ones, in any order; long answers only where `long`.
fn questions(random: &mut ChaCha8Rng, scene: &Scene, asked: Asked, long: bool) -> Vec<Question> {
    // Places are the hardest to tell, and easier to learn from an answer that names them than from yes or no.
    const CATEGORIES: [Category; 7] = [
        Category::Existence,
        Category::Count,
        Category::Position,
        Category::Position,
        Category::Position,
        Category::Position,
        Category::Color,
    ];
    const OPEN_KINDS: [usize; 7] = [0, 1, 2, 3, 3, 3, OPEN - 1];
    let mut all = Vec::new();
    while all.len() < asked.yes_or_no + asked.open {
        let question = if all.len() >= asked.yes_or_no {
            let kinds = OPEN_KINDS.len() - usize::from(!long);
            let which = OPEN_KINDS[random.random_range(0..kinds)];
            open_questions(random, scene, which)
        } else {
            let category = CATEGORIES[random.random_range(0..CATEGORIES.len())];
            let yes = random.random_bool(0.5);
            ask(random, scene, category, yes)
        };
        all.extend(question);
    }
    all.shuffle(random);
    all
}
