//! `ask --watch`: what stays of an image, in the terminal.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write as _},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::sixel::sixel;
use crate::image::{Grid, Rgb, png};

/// The pixels of an image that one pixel of the terminal stands for: half a patch.
const SHRINK: usize = 7;
/// The largest width in cells.
const WIDEST: usize = 96;
/// Words in the names of terminals that draw sixels.
const SIXEL: [&str; 5] = ["sixel", "foot", "mlterm", "contour", "yaft"];
/// The largest part of an image in one escape sequence of kitty's protocol.
const CHUNK: usize = 4096;

/// The forms of a drawing, of which a terminal shows one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Screen {
    /// Images, by kitty's protocol.
    Kitty,
    /// Images as DEC's terminals draw them.
    Sixel,
    /// Colours in cells.
    Blocks,
    /// Characters.
    Plain,
}

impl Screen {
    fn of(variable: impl Fn(&str) -> Option<String>, is_terminal: bool) -> Self {
        let has = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        if !is_terminal || has("NO_COLOR") || variable("TERM").is_some_and(|term| term == "dumb") {
            return Self::Plain;
        }
        let kitty = has("KITTY_WINDOW_ID")
            || variable("TERM").is_some_and(|term| term.contains("kitty") || term.contains("ghostty"))
            || variable("TERM_PROGRAM").is_some_and(|program| ["WezTerm", "ghostty"].contains(&program.as_str()));
        let sixel = variable("TERM").is_some_and(|term| SIXEL.iter().any(|known| term.contains(known)))
            || variable("TERM_PROGRAM").is_some_and(|program| ["iTerm.app", "mintty"].contains(&program.as_str()));
        match () {
            () if kitty => Self::Kitty,
            () if sixel => Self::Sixel,
            () => Self::Blocks,
        }
    }
}

/// Draws on stderr what is kept: `image` has the dropped patches dimmed, `kept` has those that stay of each item.
pub(super) fn draw(image: &Rgb, grid: Grid, kept: &[Vec<usize>]) {
    let stderr = std::io::stderr();
    let drawing = match Screen::of(|name| std::env::var(name).ok(), stderr.is_terminal()) {
        Screen::Kitty => kitty(image),
        Screen::Sixel => sixel(image),
        Screen::Blocks => blocks(image),
        Screen::Plain => kept.iter().map(|kept| plain(grid, kept)).collect(),
    };
    // Nobody need see it.
    let _ = writeln!(stderr.lock(), "{drawing}");
}

/// The image in kitty's protocol, a chunk a sequence.
fn kitty(image: &Rgb) -> String {
    let data = STANDARD.encode(png(image));
    let chunks: Vec<&str> = data.as_bytes().chunks(CHUNK).filter_map(|chunk| std::str::from_utf8(chunk).ok()).collect();
    let mut text = String::new();
    for (i, chunk) in chunks.iter().enumerate() {
        let first = if i == 0 { "f=100,a=T," } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(text, "\x1b_G{first}m={};{chunk}\x1b\\", u8::from(i + 1 < chunks.len()));
    }
    text
}

/// The image in cells, each of which shows two pixels, one above the other.
fn blocks(image: &Rgb) -> String {
    let shrink = SHRINK.max(image.width.div_ceil(WIDEST));
    let (width, height) = (image.width / shrink, image.height / shrink);
    let pixel = |x: usize, y: usize| {
        let sum = (0..shrink * shrink).fold([0; 3], |mut sum, i| {
            let at = 3 * ((y * shrink + i / shrink) * image.width + x * shrink + i % shrink);
            (0..3).for_each(|channel| sum[channel] += usize::from(image.data[at + channel]));
            sum
        });
        sum.map(|level| level / (shrink * shrink))
    };
    let mut text = String::new();
    for row in 0..height / 2 {
        for x in 0..width {
            let ([r, g, b], [br, bg, bb]) = (pixel(x, 2 * row), pixel(x, 2 * row + 1));
            let _ = write!(text, "\x1b[38;2;{r};{g};{b};48;2;{br};{bg};{bb}m▀");
        }
        text.push_str("\x1b[0m\n");
    }
    text
}

/// A character for each patch.
fn plain(grid: Grid, kept: &[usize]) -> String {
    let mut text = String::new();
    for row in 0..grid.rows {
        text.extend((0..grid.columns).map(
            |column| {
                if kept.contains(&(row * grid.columns + column)) { '#' } else { '·' }
            },
        ));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_decides_the_form() {
        let screen = |pairs: &'static [(&str, &str)], is_terminal| {
            let found = |name: &str| pairs.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
            Screen::of(found, is_terminal)
        };
        assert_eq!(screen(&[("TERM", "xterm-kitty")], true), Screen::Kitty);
        assert_eq!(screen(&[("TERM", "foot-extra")], true), Screen::Sixel);
        assert_eq!(screen(&[("TERM", "xterm-256color")], true), Screen::Blocks);
        assert_eq!(screen(&[("TERM", "xterm-kitty"), ("NO_COLOR", "1")], true), Screen::Plain);
        assert_eq!(screen(&[("TERM", "xterm-kitty")], false), Screen::Plain);
    }

    #[test]
    fn drawings_have_every_patch() {
        assert_eq!(plain(Grid::image(2, 3), &[0, 4]), "#··\n·#·\n");
        let image = Rgb { width: 28, height: 28, data: vec![9; 3 * 28 * 28] };
        let cells = blocks(&image);
        assert_eq!((cells.lines().count(), cells.matches('▀').count()), (2, 8));
        assert!(cells.starts_with("\x1b[38;2;9;9;9;48;2;9;9;9m▀"));
        let large = Rgb { width: 400, height: 400, data: (0..480_000_u32).map(|i| ((i * 7919) >> 3) as u8).collect() };
        let sequences = kitty(&large);
        assert!(sequences.starts_with("\x1b_Gf=100,a=T,m=1;") && sequences.ends_with("\x1b\\"));
        assert_eq!(sequences.matches("m=0;").count(), 1);
    }
}
