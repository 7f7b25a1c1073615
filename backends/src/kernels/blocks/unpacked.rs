//! Blocks as rows of floats, made where they are needed.

use std::{marker::PhantomData, ops::Range};

use secateur_blocks::{Blocks, GROUP, Group};

use super::groups::{Value, take_apart};
use crate::kernels::rows::Rows;

/// Blocks that are read as floats of the type `V`.
pub(super) struct Unpacked<'b, V> {
    blocks: &'b Blocks,
    of: PhantomData<fn() -> V>,
}

impl<'b, V> Unpacked<'b, V> {
    pub(super) fn new(blocks: &'b Blocks) -> Self {
        Self { blocks, of: PhantomData }
    }
}

impl<V: Value> Rows<V> for Unpacked<'_, V> {
    fn in_place(&self) -> bool {
        false
    }

    fn part<'s>(&'s self, row: usize, inputs: Range<usize>, buffer: &'s mut Vec<V>) -> &'s [V] {
        let kind = self.blocks.kind();
        // Groups that the inputs touch are taken apart as a whole.
        let first = inputs.start / GROUP * GROUP;
        let [_, columns] = self.blocks.shape();
        let end = inputs.end.next_multiple_of(GROUP).min(columns);
        buffer.resize((end - first).next_multiple_of(GROUP), V::default());
        let bytes = self.bytes(first)..self.bytes(end);
        let blocks = self.blocks.row(row)[bytes].chunks(GROUP / kind.values() * kind.bytes());
        let mut group = [Group::ZERO];
        for (blocks, to) in blocks.zip(buffer.as_chunks_mut().0) {
            take_apart(kind, blocks, &mut group);
            V::write(&group[0], to);
        }
        &buffer[inputs.start - first..inputs.end - first]
    }

    fn place(&self, row: usize, input: usize) -> *const u8 {
        self.blocks.row(row)[input / self.blocks.kind().values() * self.blocks.kind().bytes()..].as_ptr()
    }

    fn bytes(&self, inputs: usize) -> usize {
        let kind = self.blocks.kind();
        inputs.div_ceil(kind.values()) * kind.bytes()
    }
}
