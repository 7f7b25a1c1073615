//! Batches: scenes drawn, questions asked, everything tokenised.

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use secateur::{
    demo::{Category, GRID, OPEN, PATCH, Question, Region, Scene, ask, open_questions},
    image::ClipProcessor,
    text::{ClipTokenizer, IMAGE_TOKEN, LlamaTokenizer, Prompt, Segment, vicuna_v1},
};

use crate::student::KINDS;

/// What turns scenes into numbers.
pub(crate) struct Maker {
    pub(crate) processor: ClipProcessor,
    pub(crate) llama: LlamaTokenizer,
    pub(crate) clip: ClipTokenizer,
}

/// Pictures, and all that is known of them.
pub(crate) struct Batch {
    pub(crate) region: Region,
    /// `[pictures, 3, side, side]`.
    pub(crate) pixels: Vec<f32>,
    /// A caption for each picture.
    pub(crate) captions: Vec<Segment>,
    /// A question for each picture, as CLIP reads it.
    pub(crate) questions: Vec<Segment>,
    /// 1 on the patches of what the question names, `[pictures, patches]`.
    pub(crate) named: Vec<f32>,
    /// Kind, whether the centre lies on it, row and column of every patch's object, `[pictures · patches]`.
    pub(crate) labels: Vec<[i32; 4]>,
    /// What the language model reads, if it does.
    pub(crate) turns: Option<Turns>,
}

/// Prompt, questions and answers around the pictures of a batch.
pub(crate) struct Turns {
    /// Tokens before the picture, the same for all.
    pub(crate) before: Vec<u32>,
    /// Tokens after it, filled up with zeros to one length.
    pub(crate) after: Vec<Vec<u32>>,
    /// Rows `[pictures · length]` that predict a token of an answer, and the token.
    pub(crate) targets: Vec<(usize, i32)>,
}

impl Turns {
    /// Tokens after a picture.
    pub(crate) fn length(&self) -> usize {
        self.after.first().map_or(0, Vec::len)
    }
}

/// The stream of numbers that a picture is made from.
pub(crate) fn stream(seed: u64, phase: u64, step: usize, part: usize) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (slot, value) in key.chunks_exact_mut(8).zip([seed, phase, step as u64, part as u64]) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

impl Maker {
    /// `count` pictures of `size` patches a side, at one random place, with `turns` questions about each.
    pub(crate) fn batch(&self, random: &mut ChaCha8Rng, count: usize, size: usize, turns: [usize; 2]) -> Batch {
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
        batch.turns = (turns != [0, 0]).then(|| {
            let turns: Vec<Vec<Question>> = scenes.iter().map(|scene| questions(random, scene, turns)).collect();
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
        self.clip.segments(text).swap_remove(0)
    }

    /// Tokenises conversations around pictures of `visual` tokens; every answer is to be predicted.
    pub(crate) fn turns(&self, conversations: &[Vec<Question>], visual: usize) -> Turns {
        let mut before = Vec::new();
        let mut after = Vec::new();
        let mut targets = Vec::new();
        for conversation in conversations {
            let mut ids: Vec<u32> = Vec::new();
            let mut wanted = Vec::new();
            for (i, question) in conversation.iter().enumerate() {
                if i == 0 {
                    let text = vicuna_v1(&question.text, 1).expect("a question without marks");
                    let prompt = Prompt::new(&text, "", &self.llama);
                    let at = prompt.ids.iter().position(|&id| id == IMAGE_TOKEN).expect("a mark");
                    before = prompt.ids[..at].iter().map(|&id| id as u32).collect();
                    ids = prompt.ids[at + 1..].iter().map(|&id| id as u32).collect();
                } else {
                    ids.extend(&self.llama.encode(&format!("USER: {} ASSISTANT:", question.text))[1..]);
                }
                let answer = self.llama.encode(&question.answer);
                for &id in answer[1..].iter().chain([&self.llama.eos()]) {
                    wanted.push((ids.len() - 1, id as i32));
                    ids.push(id);
                }
            }
            after.push(ids);
            targets.push(wanted);
        }
        let length = after.iter().map(Vec::len).max().unwrap_or_default();
        after.iter_mut().for_each(|ids| ids.resize(length, 0));
        let row = |(i, at): (usize, usize)| i * (before.len() + visual + length) + before.len() + visual + at;
        let targets = targets.into_iter().enumerate();
        let targets = targets.flat_map(|(i, wanted)| wanted.into_iter().map(move |(at, id)| ((i, at), id)));
        let targets = targets.map(|(place, id)| (row(place), id)).collect();
        Turns { before, after, targets }
    }
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

/// So many yes / no questions and open ones, in any order.
fn questions(random: &mut ChaCha8Rng, scene: &Scene, [yes_or_no, open]: [usize; 2]) -> Vec<Question> {
    let mut all = Vec::new();
    while all.len() < yes_or_no + open {
        let question = if all.len() >= yes_or_no {
            let which = random.random_range(0..OPEN);
            open_questions(random, scene, which)
        } else {
            let category = Category::ALL[random.random_range(0..Category::ALL.len())];
            let yes = random.random_bool(0.5);
            ask(random, scene, category, yes)
        };
        all.extend(question);
    }
    all.shuffle(random);
    all
}
