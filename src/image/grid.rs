//! The grid of tokens that an image, a crop or a frame becomes.

/// The layout of the tokens of one item: an image, a crop, a frame, or a temporal slice of a video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The number of frames.
    pub frames: usize,
    /// The number of rows of a frame.
    pub rows: usize,
    /// The number of columns of a frame.
    pub columns: usize,
}

impl Grid {
    /// The grid of a single frame.
    pub fn image(rows: usize, columns: usize) -> Self {
        Self { frames: 1, rows, columns }
    }

    /// A square grid of `tokens`, or one long row if `tokens` is no square number: for tensors that come without a grid.
    pub fn square(tokens: usize) -> Self {
        let side = tokens.isqrt();
        if side * side == tokens { Self::image(side, side) } else { Self::image(1, tokens) }
    }

    /// The number of tokens of all frames.
    pub fn tokens(self) -> usize {
        self.frames * self.rows * self.columns
    }
}
