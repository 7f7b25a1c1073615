//! The questions about the images: MME's four coarse categories with yes and no, and open questions for training.

use rand::{Rng, seq::IndexedRandom};

use super::{Colour, Object, Scene, Shape};

/// The end of a question that takes yes or no, as in MME.
pub const YES_OR_NO: &str = "Please answer yes or no.";
const NUMBERS: [&str; 6] = ["no", "one", "two", "three", "four", "five"];

/// A category of MME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Category {
    Existence,
    Count,
    Position,
    Color,
}

impl Category {
    /// All categories, in MME's order.
    pub const ALL: [Self; 4] = [Self::Existence, Self::Count, Self::Position, Self::Color];

    /// The name of the category in MME.
    pub fn name(self) -> &'static str {
        ["existence", "count", "position", "color"][self as usize]
    }
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The text of the question.
    pub text: String,
    /// The answer.
    pub answer: String,
}

impl Question {
    fn yes_or_no(text: String, yes: bool) -> Self {
        Self { text: format!("{text} {YES_OR_NO}"), answer: if yes { "Yes" } else { "No" }.to_owned() }
    }

    fn open(text: String, answer: &str) -> Self {
        let mut answer = answer.to_owned();
        answer[..1].make_ascii_uppercase();
        Self { text, answer }
    }
}

/// A question of `category` about `scene` whose answer is `yes`; `None` if the scene has nothing to ask for.
pub fn ask(random: &mut impl Rng, scene: &Scene, category: Category, yes: bool) -> Option<Question> {
    let objects = &scene.objects;
    let text = match category {
        Category::Existence => {
            let name = if yes { objects.choose(random)?.name() } else { absent(random, objects) };
            format!("Is there a {name} in the image?")
        }
        Category::Count => {
            let shape = objects.choose(random)?.shape;
            let count = objects.iter().filter(|object| object.shape == shape).count();
            let others: Vec<usize> = (1..=3).filter(|&other| other != count).collect();
            match if yes { count } else { *others.choose(random)? } {
                1 => format!("Is there only one {} in the image?", shape.word()),
                many => format!("Are there {} {} in the image?", NUMBERS.get(many)?, shape.plural()),
            }
        }
        Category::Position => {
            let object = objects.choose(random)?;
            let place = if random.random_bool(0.5) {
                if object.left() == yes { "on the left side" } else { "on the right side" }
            } else if object.top() == yes {
                "at the top"
            } else {
                "at the bottom"
            };
            format!("Is the {} {place} of the image?", object.name())
        }
        Category::Color => {
            let object = alone(random, objects, |a, b| a.shape == b.shape)?;
            let others: Vec<Colour> = Colour::ALL.into_iter().filter(|&colour| colour != object.colour).collect();
            let colour = if yes { object.colour } else { *others.choose(random)? };
            format!("Is the color of the {} {}?", object.shape.word(), colour.word())
        }
    };
    Some(Question::yes_or_no(text, yes))
}

/// The number of open questions, which take a word or two.
pub const OPEN: usize = 5;

/// The open question number `which` below [`OPEN`] about `scene`; `None` if the scene has nothing to ask for.
pub fn open_questions(random: &mut impl Rng, scene: &Scene, which: usize) -> Option<Question> {
    let objects = &scene.objects;
    let question = match which {
        0 => {
            let object = alone(random, objects, |a, b| a.shape == b.shape)?;
            Question::open(format!("What color is the {}?", object.shape.word()), object.colour.word())
        }
        1 => {
            let object = alone(random, objects, |a, b| a.colour == b.colour)?;
            Question::open(format!("What shape is the {} object?", object.colour.word()), object.shape.word())
        }
        2 => {
            let shape = *Shape::ALL.choose(random)?;
            let count = objects.iter().filter(|object| object.shape == shape).count();
            Question::open(format!("How many {} are in the image?", shape.plural()), NUMBERS.get(count)?)
        }
        3 => {
            let object = objects.choose(random)?;
            let (row, column) =
                (["bottom", "top"][usize::from(object.top())], ["right", "left"][usize::from(object.left())]);
            Question::open(format!("Where is the {}?", object.name()), &format!("{row} {column}"))
        }
        _ => {
            let names: Vec<String> = objects.iter().map(Object::name).collect();
            Question::open("What is in the image?".to_owned(), &names.join(", "))
        }
    };
    Some(question)
}

/// The name of an object that is not there; most often its shape or its colour is there.
fn absent(random: &mut impl Rng, objects: &[Object]) -> String {
    loop {
        let (Some(&shape), Some(&colour)) = (Shape::ALL.choose(random), Colour::ALL.choose(random)) else { continue };
        let there = |test: &dyn Fn(&Object) -> bool| objects.iter().any(test);
        let near = there(&|o| o.shape == shape) || there(&|o| o.colour == colour);
        if !there(&|o| o.shape == shape && o.colour == colour) && (near || random.random_bool(0.2)) {
            return format!("{} {}", colour.word(), shape.word());
        }
    }
}

/// An object that is like no other object by `like`.
fn alone<'a>(random: &mut impl Rng, objects: &'a [Object], like: fn(&Object, &Object) -> bool) -> Option<&'a Object> {
    let single = |object: &&Object| objects.iter().filter(|other| like(object, other)).count() == 1;
    let singles: Vec<&Object> = objects.iter().filter(single).collect();
    singles.choose(random).copied()
}
