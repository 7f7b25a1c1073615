//! The content of the images: a few small coloured shapes on grey clutter.
//!
//! A shape is 24 to 36 pixels wide, so it lies on about four to nine of the 576 patches. Everything else is texture
//! without colour, which no question asks for.

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use crate::image::Rgb;

/// The side of an image in pixels.
pub const SIDE: usize = 336;
/// The side of a patch in pixels.
pub const PATCH: usize = 14;
/// The number of patches on a side.
pub const GRID: usize = SIDE / PATCH;

/// Centres lie on multiples of half a patch.
const STEP: usize = PATCH / 2;
/// The distance of a shape's centre, in pixels, from the lines that part left from right and top from bottom.
const MARGIN: i32 = 21;
const WIDTHS: std::ops::RangeInclusive<i32> = 24..=36;

/// The shape of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Shape {
    Square,
    Ring,
    Cross,
    Triangle,
}

impl Shape {
    /// All values, in the order of their words.
    pub const ALL: [Self; 4] = [Self::Square, Self::Ring, Self::Cross, Self::Triangle];

    /// The word in a question.
    pub fn word(self) -> &'static str {
        ["square", "ring", "cross", "triangle"][self as usize]
    }

    /// The plural of the word.
    pub fn plural(self) -> &'static str {
        ["squares", "rings", "crosses", "triangles"][self as usize]
    }

    /// Whether a point belongs to the shape; both coordinates run from −1 to 1 over its width and height.
    fn covers(self, x: f32, y: f32) -> bool {
        let radius = x.hypot(y);
        match self {
            Self::Square => x.abs() <= 0.9 && y.abs() <= 0.9,
            Self::Ring => (0.55..=1.0).contains(&radius),
            Self::Cross => (x.abs() <= 0.34 && y.abs() <= 1.0) || (y.abs() <= 0.34 && x.abs() <= 1.0),
            // The triangle is upright, with its tip at the top.
            Self::Triangle => (-1.0..=0.9).contains(&y) && x.abs() <= (y + 1.0) * 0.52,
        }
    }
}

/// The colour of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Colour {
    Red,
    Green,
    Blue,
    Yellow,
    Purple,
}

impl Colour {
    /// All values, in the order of their words.
    pub const ALL: [Self; 5] = [Self::Red, Self::Green, Self::Blue, Self::Yellow, Self::Purple];

    /// The word in a question.
    pub fn word(self) -> &'static str {
        ["red", "green", "blue", "yellow", "purple"][self as usize]
    }

    pub(super) fn rgb(self) -> [i32; 3] {
        [[215, 45, 45], [40, 170, 70], [45, 85, 220], [232, 208, 50], [160, 55, 190]][self as usize]
    }
}

/// A shape in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    /// The shape of the object.
    pub shape: Shape,
    /// The colour of the object.
    pub colour: Colour,
    /// The centre in pixels of the whole image, x then y.
    pub centre: [i32; 2],
    /// The width and height in pixels.
    pub width: i32,
}

impl Object {
    /// The colour and shape of the object, as in "red ring".
    pub fn name(&self) -> String {
        format!("{} {}", self.colour.word(), self.shape.word())
    }

    /// The shape and colour as one number below 20.
    pub fn kind(&self) -> usize {
        self.shape as usize * Colour::ALL.len() + self.colour as usize
    }

    /// Whether the centre lies in the left half.
    pub fn left(&self) -> bool {
        self.centre[0] < SIDE as i32 / 2
    }

    /// Whether the centre lies in the upper half.
    pub fn top(&self) -> bool {
        self.centre[1] < SIDE as i32 / 2
    }

    /// The share of a patch (row, column) that the object's square covers.
    pub fn share(&self, patch: [usize; 2]) -> f32 {
        let overlap = |centre: i32, at: usize| {
            let (from, to) = ((at * PATCH) as i32, ((at + 1) * PATCH) as i32);
            (to.min(centre + self.width / 2) - from.max(centre - self.width / 2)).max(0)
        };
        (overlap(self.centre[1], patch[0]) * overlap(self.centre[0], patch[1])) as f32 / (PATCH * PATCH) as f32
    }
}

/// A square part of the grid, in patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// The first row.
    pub row: usize,
    /// The first column.
    pub column: usize,
    /// Rows and columns.
    pub size: usize,
}

impl Region {
    /// The whole image.
    pub const WHOLE: Self = Self { row: 0, column: 0, size: GRID };
}

/// The description of an image, from which it is drawn.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scene {
    /// The objects, from left to right; no two have both shape and colour in common.
    pub objects: Vec<Object>,
    /// The part of the image that the objects are in.
    pub region: Region,
    background: u64,
}

impl Scene {
    /// A scene with `count` objects inside `region`, fewer if they do not fit.
    pub fn new(random: &mut impl Rng, count: usize, region: Region) -> Self {
        let mut objects: Vec<Object> = Vec::new();
        // Half of the scenes prefer one shape, so that there is something to count.
        let favourite = random.random_bool(0.5).then(|| any(random, &Shape::ALL));
        for _ in 0..200 {
            if objects.len() == count {
                break;
            }
            let shape = favourite.filter(|_| random.random_bool(0.6)).unwrap_or_else(|| any(random, &Shape::ALL));
            let (colour, width) = (any(random, &Colour::ALL), random.random_range(WIDTHS));
            let mut place = |from: usize| {
                let first = (from * PATCH + width as usize / 2 + 1).div_ceil(STEP);
                let last = ((from + region.size) * PATCH - width as usize / 2 - 1) / STEP;
                (random.random_range(first..=last) * STEP) as i32
            };
            let centre = [place(region.column), place(region.row)];
            let object = Object { shape, colour, centre, width };
            let clear = centre.iter().all(|at| (at - SIDE as i32 / 2).abs() >= MARGIN);
            if clear && objects.iter().all(|other| other.kind() != object.kind() && apart(other, &object)) {
                objects.push(object);
            }
        }
        objects.sort_by_key(|object| (object.centre[0], object.centre[1]));
        Self { objects, region, background: random.random() }
    }

    /// Draws the pixels of the region.
    pub fn draw(&self) -> Rgb {
        let mut random = ChaCha8Rng::seed_from_u64(self.background);
        let side = self.region.size * PATCH;
        let mut canvas = Canvas::new(&mut random, side);
        for _ in 0..self.region.size * self.region.size / 14 {
            canvas.clutter(&mut random);
        }
        let origin = [self.region.column * PATCH, self.region.row * PATCH].map(|at| at as i32);
        for object in &self.objects {
            let colour = object.colour.rgb().map(|level| level + random.random_range(-20..=20));
            let centre = [0, 1].map(|axis| object.centre[axis] - origin[axis]);
            canvas.fill(centre, [object.width; 2], colour, |x, y| object.shape.covers(x, y));
        }
        canvas.finish(&mut random)
    }
}

fn any<T: Copy>(random: &mut impl Rng, from: &[T]) -> T {
    *from.choose(random).unwrap_or(&from[0])
}

fn apart(a: &Object, b: &Object) -> bool {
    let distance = [0, 1].map(|axis| (a.centre[axis] - b.centre[axis]).abs());
    distance[0].max(distance[1]) > (a.width + b.width) / 2 + 6
}

/// An image that is being drawn.
struct Canvas {
    side: usize,
    pixels: Vec<[i32; 3]>,
}

impl Canvas {
    /// A canvas with a grey slope.
    fn new(random: &mut impl Rng, side: usize) -> Self {
        let base: i32 = random.random_range(80..=175);
        let slope: [i32; 2] = [random.random_range(-40..=40), random.random_range(-40..=40)];
        let at = |i: usize| {
            let (x, y) = ((i % side) as i32, (i / side) as i32);
            [base + (slope[0] * x + slope[1] * y) / side as i32; 3]
        };
        Self { side, pixels: (0..side * side).map(at).collect() }
    }

    /// Draws a grey block, disc, bar or grating, which may look like an object but for its colour.
    fn clutter(&mut self, random: &mut impl Rng) {
        let side = self.side as i32;
        let centre = [random.random_range(0..side), random.random_range(0..side)];
        let (long, short) = (random.random_range(12..=60), random.random_range(3..=24));
        let size = if random.random_bool(0.5) { [long, short] } else { [short, long] };
        let level = random.random_range(20..=235);
        let colour = [0; 3].map(|_: i32| level + random.random_range(-8..=8));
        match random.random_range(0..4) {
            0 => self.fill(centre, size, colour, |_, _| true),
            1 => self.fill(centre, [long, long], colour, |x, y| x.hypot(y) <= 1.0),
            2 => self.fill(centre, [long, long], colour, |x, y| (x - y).abs() < 0.15),
            _ => self.fill(centre, [long, long], colour, |x, _| (x * 4.0).rem_euclid(1.0) < 0.5),
        }
    }

    /// Colours the points of a box for which `covers` holds. `covers` is given coordinates from −1 to 1.
    fn fill(&mut self, centre: [i32; 2], size: [i32; 2], colour: [i32; 3], covers: impl Fn(f32, f32) -> bool) {
        let side = self.side as i32;
        let span = |axis: usize| {
            let from = centre[axis] - size[axis] / 2;
            (from.max(0), (from + size[axis]).min(side))
        };
        let ((left, right), (top, bottom)) = (span(0), span(1));
        let scaled = |at: i32, axis: usize| (at - centre[axis]) as f32 * 2.0 / size[axis] as f32;
        for y in top..bottom {
            for x in left..right {
                if covers(scaled(x, 0), scaled(y, 1)) {
                    self.pixels[(y * side + x) as usize] = colour;
                }
            }
        }
    }

    /// The finished image, with noise over all pixels.
    fn finish(self, random: &mut impl Rng) -> Rgb {
        let mut data = Vec::with_capacity(self.pixels.len() * 3);
        for pixel in self.pixels {
            let noise: u32 = random.random();
            for (channel, level) in pixel.into_iter().enumerate() {
                let noise = (noise >> (8 * channel)) as i32 & 0x1f;
                data.push((level + noise - 16).clamp(0, 255) as u8);
            }
        }
        Rgb { width: self.side, height: self.side, data }
    }
}
