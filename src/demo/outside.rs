//! What the built-in checkpoint has never seen: other words than its questions have, and other images than drawn ones.

use super::{Colour, Shape};
use crate::image::Rgb;

/// The words of all questions, but for colours and shapes.
const WORDS: &str = "is there a an in the image are only one two three on left right side at top bottom of color what shape object how many \
    where please answer yes or no";
/// The difference between a pixel's channels from which it has a colour. The clutter is grey.
const COLOURED: i32 = 60;
/// The largest difference of a channel from that of a shape's colour.
const NEAR: i32 = 48;

/// The words of a question that no question of the built-in checkpoint's world has.
pub fn unknown_words(question: &str) -> Vec<String> {
    let names = Colour::ALL.map(Colour::word).into_iter().chain(Shape::ALL.map(Shape::word));
    let known: Vec<&str> = WORDS.split_whitespace().chain(names).chain(Shape::ALL.map(Shape::plural)).collect();
    let lower = question.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut unknown: Vec<String> = Vec::new();
    for word in words.filter(|word| !known.contains(word)) {
        if !unknown.iter().any(|other| other == word) {
            unknown.push(word.to_owned());
        }
    }
    unknown
}

/// Whether an image looks drawn: nearly all of its coloured pixels have the colour of a shape, and some do.
pub fn looks_drawn(image: &Rgb) -> bool {
    let (mut coloured, mut near) = (0, 0);
    for pixel in image.data.as_chunks::<3>().0 {
        let pixel = pixel.map(i32::from);
        let reach = pixel.iter().max().unwrap_or(&0) - pixel.iter().min().unwrap_or(&0);
        if reach > COLOURED {
            coloured += 1;
            let is_near = |colour: &Colour| colour.rgb().iter().zip(pixel).all(|(a, b)| (a - b).abs() <= NEAR);
            near += usize::from(Colour::ALL.iter().any(is_near));
        }
    }
    1000 * coloured > image.width * image.height && 10 * near >= 8 * coloured
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::demo::{Category, OPEN, Region, Scene, ask, open_questions};

    #[test]
    fn the_world_is_inside() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for objects in 1..=6 {
            let scene = Scene::new(&mut random, objects, Region::WHOLE);
            assert!(looks_drawn(&scene.draw()), "{scene:?}");
            for category in Category::ALL {
                for question in [true, false].into_iter().filter_map(|yes| ask(&mut random, &scene, category, yes)) {
                    assert!(unknown_words(&question.text).is_empty(), "{}", question.text);
                }
            }
            for question in (0..OPEN).filter_map(|which| open_questions(&mut random, &scene, which)) {
                assert!(unknown_words(&question.text).is_empty(), "{}", question.text);
            }
        }
    }

    #[test]
    fn other_things_are_outside() {
        assert_eq!(unknown_words("Is there a dog, a red dog?"), ["dog"]);
        let of = |colour: [u8; 3]| Rgb { width: 8, height: 8, data: colour.repeat(64) };
        assert!(!looks_drawn(&of([128, 128, 128])) && !looks_drawn(&of([240, 140, 20])));
        let gradient = (0..64_u8).flat_map(|i| [4 * i, 255 - 4 * i, 90]).collect();
        assert!(!looks_drawn(&Rgb { width: 8, height: 8, data: gradient }));
    }
}
