//! The grid of tokens that an image, a crop or a frame becomes.

/// How the tokens of one item lie: an image, a crop, a frame, or a temporal slice of a video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Frames.
    pub frames: usize,
    /// Rows of a frame.
    pub rows: usize,
    /// Columns of a frame.
    pub columns: usize,
}

impl Grid {
    /// A single frame.
    pub fn image(rows: usize, columns: usize) -> Self {
        Self { frames: 1, rows, columns }
    }

    /// A square of `tokens`, or one long row where they are no square: for tensors that come without a grid.
    pub fn square(tokens: usize) -> Self {
        let side = tokens.isqrt();
        if side * side == tokens { Self::image(side, side) } else { Self::image(1, tokens) }
    }

    /// Tokens in all.
    pub fn tokens(self) -> usize {
        self.frames * self.rows * self.columns
    }
}
