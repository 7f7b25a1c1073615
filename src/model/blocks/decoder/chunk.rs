//! The parts of a pass through the decoder: which rows belong to which sequence.

use burn::tensor::backend::Backend;
use secateur_backends::{Mask, VlmBackend};

use crate::model::KvCache;

/// The new tokens of one sequence in a pass through the decoder.
pub struct Chunk<'a, B: Backend> {
    /// The keys and values of the sequence so far; `None` where a whole sequence is read once, and none are kept.
    pub cache: Option<&'a mut KvCache<B>>,
    /// The number of rows of the pass that are the chunk's tokens, one after another.
    pub rows: usize,
    /// The position of each row.
    pub positions: Positions,
    /// The rows whose final states are wanted.
    pub outputs: Outputs,
    /// The mask that says which tokens of the sequence each row sees.
    pub mask: Mask,
    /// The number of tokens before the chunk's rows that are not in its cache yet, and are the first tokens of the sequence of the chunk before it:
    /// their keys and values are taken over from there, layer by layer.
    pub shared: usize,
}

impl<'a, B: VlmBackend> Chunk<'a, B> {
    /// A chunk of the next `rows` tokens of a sequence, of which the last one's state is wanted. `shared` tokens before them are taken over from the
    /// chunk before.
    pub fn next(cache: &'a mut KvCache<B>, rows: usize, shared: usize) -> Self {
        let positions = Positions::From(cache.next_position() + shared);
        Self { cache: Some(cache), rows, positions, outputs: Outputs::Last, mask: Mask::Causal, shared }
    }

    /// A chunk of whole sequences of `rows` tokens, read without a cache.
    pub fn whole(rows: usize) -> Self {
        let (positions, outputs, mask) = (Positions::From(0), Outputs::All, Mask::Causal);
        Self { cache: None, rows, positions, outputs, mask, shared: 0 }
    }
}

/// The positions of a chunk's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Positions one after another from this one on.
    From(usize),
    /// A position for each row.
    These(Vec<usize>),
    /// A position in time, height and width for each row.
    Axes(Vec<[u32; 3]>),
}

impl Positions {
    /// The position after the largest one, for a chunk of `rows` rows.
    pub fn end(&self, rows: usize) -> usize {
        match self {
            Self::From(first) => first + rows,
            Self::These(list) => list.iter().max().map_or(0, |last| last + 1),
            Self::Axes(list) => list.iter().flatten().max().map_or(0, |last| *last as usize + 1),
        }
    }

    /// The positions of `rows` rows from number `first` on.
    pub fn part(&self, first: usize, rows: usize) -> Self {
        match self {
            Self::From(start) => Self::From(start + first),
            Self::These(list) => Self::These(list[first..first + rows].to_vec()),
            Self::Axes(list) => Self::Axes(list[first..first + rows].to_vec()),
        }
    }

    /// The positions of the rows numbered `rows` in time, height and width; a position without axes is the same in all three.
    pub fn axes(&self, rows: &[usize]) -> Vec<[u32; 3]> {
        match self.pick(rows) {
            Self::Axes(list) => list,
            Self::These(list) => list.iter().map(|&position| [position as u32; 3]).collect(),
            Self::From(first) => rows.iter().map(|row| [(first + row) as u32; 3]).collect(),
        }
    }

    /// The positions of the rows numbered `rows`.
    pub fn pick(&self, rows: &[usize]) -> Self {
        match self {
            Self::From(start) => Self::These(rows.iter().map(|row| start + row).collect()),
            Self::These(list) => Self::These(rows.iter().map(|&row| list[row]).collect()),
            Self::Axes(list) => Self::Axes(rows.iter().map(|&row| list[row]).collect()),
        }
    }
}

/// The rows of a chunk whose final states are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// Every row.
    All,
    /// The last row of every sequence.
    Last,
    /// The rows with these numbers, counted through all sequences of a batch.
    These(Vec<usize>),
}

/// The rows that the last layer computes for: all others leave their keys and values there, and no more.
pub(super) struct Wanted {
    /// The first row of each chunk that has a query.
    pub(super) first: Vec<usize>,
    /// The rows of the pass that have a query, `None` for all.
    pub(super) queries: Option<Vec<usize>>,
    /// The wanted rows, counted among the rows with a query; `None` for all.
    pub(super) picked: Option<Vec<usize>>,
    /// The wanted rows, counted among all rows; `None` for all.
    pub(super) rows: Option<Vec<usize>>,
}

impl Wanted {
    /// The rows that `chunks` of `batch` sequences want; `rows` are the numbers of rows that the chunks have in the last layer.
    pub(super) fn new<B: Backend>(chunks: &[Chunk<B>], rows: &[usize], batch: usize) -> Self {
        let mut wanted =
            Self { first: Vec::new(), queries: Some(Vec::new()), picked: Some(Vec::new()), rows: Some(Vec::new()) };
        let total: usize = rows.iter().sum();
        let (mut at, mut query) = (0, 0);
        for (chunk, &count) in chunks.iter().zip(rows) {
            let own: Vec<usize> = match &chunk.outputs {
                Outputs::All => (0..batch * count).collect(),
                Outputs::Last => (0..batch).map(|i| (i + 1) * count - 1).collect(),
                Outputs::These(rows) => rows.clone(),
            };
            // No row before the first that is wanted needs a query.
            let first = own.iter().map(|row| row % count).min().unwrap_or(count.saturating_sub(1));
            let queries = count - first;
            wanted.first.push(first);
            let place = |row: usize, at: usize, length: usize| row / count * length + at + row % count;
            wanted.rows.iter_mut().for_each(|rows| rows.extend(own.iter().map(|&row| place(row, at, total))));
            wanted.queries.iter_mut().for_each(|all| all.extend(at + first..at + count));
            // Counted once all chunks' queries are known; a batch has one chunk.
            let length = if batch > 1 { queries } else { 0 };
            let picked = own.iter().map(|&row| row / count * length + query + row % count - first);
            wanted.picked.iter_mut().for_each(|all| all.extend(picked.clone()));
            at += count;
            query += queries;
        }
        let whole = |rows: &Option<Vec<usize>>, all: usize| {
            rows.as_ref().is_some_and(|rows| rows.len() == all && rows.iter().copied().eq(0..all))
        };
        if whole(&wanted.rows, batch * total) {
            wanted.rows = None;
        }
        if whole(&wanted.queries, total) {
            wanted.queries = None;
        }
        if whole(&wanted.picked, batch * query) {
            wanted.picked = None;
        }
        wanted
    }
}
