//! The matrix unit itself: its inputs and outputs, one block of products, and the permission to use it.

use std::{arch::asm, mem::MaybeUninit};

use half::bf16;

use super::{
    line::{Line, WIDTH},
    parts::{load, take_apart},
    transpose::{Square, TILE, transpose},
};
use crate::kernels::instructions::{Instructions, has};

/// The number of rows of either factor that are multiplied together: two tiles.
pub(super) const PAIR: usize = 2 * TILE;

/// Packs a tile of the right factor: 32 inputs of each of up to 16 rows, rounded; missing rows are 0. All of `lines` is
/// written.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn pack_tile<'a>(rows: impl Iterator<Item = &'a [f32; WIDTH]>, lines: &mut [MaybeUninit<Line>; TILE]) {
    let mut tile = Square::ZERO;
    for (row, pairs) in rows.zip(&mut tile.0) {
        let [line] = take_apart(load(row));
        *pairs = line.pairs();
    }
    // SAFETY: a line is a row of pairs.
    unsafe { transpose(&tile, lines.as_mut_ptr().cast(), TILE) };
}

/// Packs a tile as [`pack_tile`] does, of rows from which fewer than 32 inputs are left; inputs that are missing are 0.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn pack_rest<'a>(rows: impl Iterator<Item = &'a [f32]>, lines: &mut [MaybeUninit<Line>; TILE]) {
    let mut whole = [[0.0f32; WIDTH]; TILE];
    let mut count = 0;
    for (whole, row) in whole.iter_mut().zip(rows) {
        whole[..row.len()].copy_from_slice(row);
        count += 1;
    }
    pack_tile(whole[..count].iter(), lines);
}

/// Sums of 32 outputs for 32 rows, as four tiles: outputs `0..16` for rows `0..16` and `16..32`, then outputs `16..32`.
#[derive(Clone, Copy)]
pub(super) struct Sums(pub(super) [Square; 4]);

impl Sums {
    pub(super) const ZERO: Self = Self([Square::ZERO; 4]);

    /// Adds other sums to these.
    #[target_feature(enable = "avx512f")]
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, other) in
            self.0.iter_mut().flat_map(|square| &mut square.0).zip(other.0.iter().flat_map(|square| &square.0))
        {
            for (sum, other) in sum.iter_mut().zip(other) {
                *sum = (f32::from_bits(*sum) + f32::from_bits(*other)).to_bits();
            }
        }
    }

    /// Writes `rows` rows of 32 outputs, `stride` numbers apart.
    ///
    /// # Safety
    /// The rows must be there, and the processor must have AVX-512.
    pub(super) unsafe fn write(&self, out: *mut f32, stride: usize, rows: usize) {
        for (i, tile) in self.0.iter().enumerate() {
            let (output, row) = (i / 2 * TILE, i % 2 * TILE);
            if rows <= row {
                continue;
            }
            // SAFETY: by the caller; a tile that is not whole goes through a buffer.
            unsafe {
                let to = out.add(row * stride + output);
                if rows >= row + TILE {
                    transpose(tile, to.cast(), stride);
                    continue;
                }
                let mut buffer = Square::ZERO;
                transpose(tile, buffer.0.as_mut_ptr().cast(), TILE);
                for (i, line) in buffer.0.iter().take(rows - row).enumerate() {
                    to.add(i * stride).cast::<[u32; TILE]>().write_unaligned(*line);
                }
            }
        }
    }
}

impl Sums {
    /// Writes `rows` rows of up to 32 outputs, `stride` numbers apart.
    ///
    /// # Safety
    /// The rows and columns must be there, and the processor must have AVX-512.
    pub(super) unsafe fn write_part(&self, out: *mut f32, stride: usize, [rows, columns]: [usize; 2]) {
        if columns >= PAIR {
            // SAFETY: by the caller.
            unsafe { self.write(out, stride, rows) };
            return;
        }
        let mut buffer = [0.0f32; PAIR * PAIR];
        // SAFETY: the buffer has 32 rows of 32 numbers; those that are there are copied to the caller's.
        unsafe {
            self.write(buffer.as_mut_ptr(), PAIR, rows);
            for (row, numbers) in buffer.chunks_exact(PAIR).take(rows).enumerate() {
                out.add(row * stride).copy_from_nonoverlapping(numbers.as_ptr(), columns);
            }
        }
    }
}

/// The copy that runs while the unit multiplies: 8 rows of a weight, `stride` bytes apart, into lines of another left
/// factor with as many steps. The processor waits for memory and multiplies at the same time.
#[derive(Clone, Copy)]
pub(super) struct Prefetch {
    pub(super) from: *const bf16,
    pub(super) stride: usize,
    pub(super) to: *mut Line,
}

/// The number of rows of a [`Prefetch`].
pub(super) const PREFETCHED: usize = 8;

/// The loop of [`multiply`]: `$right` loads the tiles of the right factor after the first, `$upper` and `$lower`
/// multiply them, `$copy` and `$copy_more` copy a step ahead.
macro_rules! interleave {
    (
        $add:ident, $left:ident, $x:ident, $sums:ident,
        [$($right:literal),*], [$($upper:literal),*], [$($lower:literal),*], [$($copy:literal),*], [$($copy_more:literal),*],
        {$($operands:tt)*}
    ) => {
        asm!(
            "test {add}, {add}",
            "jnz 3f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 2f",
            "3:",
            "tileloadd tmm0, [{sums} + {line}]",
            "tileloadd tmm1, [{sums} + {line} + 1024]",
            "tileloadd tmm2, [{sums} + {line} + 2048]",
            "tileloadd tmm3, [{sums} + {line} + 3072]",
            "2:",
            "tileloadd tmm4, [{left} + {line}]",
            "tileloadd tmm6, [{x} + {line}]",
            $($right,)*
            "tdpbf16ps tmm0, tmm4, tmm6",
            $($copy,)*
            "tileloadd tmm5, [{left} + {line} + 1024]",
            $($upper,)*
            $($copy_more,)*
            "tdpbf16ps tmm2, tmm5, tmm6",
            $($lower,)*
            "add {left}, 2048",
            "add {x}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 1024], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            "tilestored [{sums} + {line} + 3072], tmm3",
            add = in(reg) usize::from($add),
            left = inout(reg) $left.as_ptr() => _,
            x = inout(reg) $x.as_ptr() => _,
            steps = inout(reg) $x.len() / PAIR => _,
            line = in(reg) 64usize,
            sums = in(reg) $sums.0.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            $($operands)*
            options(nostack),
        )
    };
    // The loop with both tiles of the right factor, or with the first alone.
    ($both:expr, [$($names:ident),*], $copy:tt, $copy_more:tt, $operands:tt) => {
        if $both {
            interleave!(
                $($names),*, ["tileloadd tmm7, [{x} + {line} + 1024]"], ["tdpbf16ps tmm1, tmm4, tmm7"],
                ["tdpbf16ps tmm3, tmm5, tmm7"], $copy, $copy_more, $operands
            )
        } else {
            interleave!($($names),*, [], [], [], $copy, $copy_more, $operands)
        }
    };
}

/// Multiplies a left factor of 32 rows with a right factor of `rows` rows, at most 32. The result is written to `sums`,
/// or, with `add`, added to it. Both factors are laid out step by step, 32 lines each: the left one with 32 inputs of
/// every row, the right one with the pairs of 32 inputs, of 16 rows, then of the others.
///
/// # Safety
/// [`is_there`] must hold, and [`TileConfig::configured`] for this thread. The memory that is copied ahead must be there, and
/// no other thread may write it.
pub(super) unsafe fn multiply(
    left: &[Line],
    x: &[Line],
    rows: usize,
    add: bool,
    sums: &mut Sums,
    ahead: Option<Prefetch>,
) {
    assert!(left.len() == x.len() && x.len().is_multiple_of(PAIR) && !x.is_empty());
    let both = rows > TILE;
    // SAFETY: every step reads 2,048 bytes of each factor; there are x.len() / 32 of them. The tiles are loaded from
    // and stored to the four of `sums`, whose rows are 64 bytes. With `ahead`, by the caller.
    unsafe {
        match ahead {
            None => interleave!(both, [add, left, x, sums], [], [], {}),
            Some(Prefetch { from, stride, to }) => interleave!(
                both,
                [add, left, x, sums],
                [
                    "prefetcht0 [{from} + 512]",
                    "prefetcht0 [{from} + {stride} + 512]",
                    "prefetcht0 [{from} + 2 * {stride} + 512]",
                    "prefetcht0 [{from} + {thrice} + 512]",
                    "vmovups zmm16, [{from}]",
                    "vmovups zmm17, [{from} + {stride}]",
                    "vmovups zmm18, [{from} + 2 * {stride}]",
                    "vmovups zmm19, [{from} + {thrice}]",
                    "vmovaps [{to}], zmm16",
                    "vmovaps [{to} + 64], zmm17",
                    "vmovaps [{to} + 128], zmm18",
                    "vmovaps [{to} + 192], zmm19"
                ],
                [
                    "prefetcht0 [{fifth} + 512]",
                    "prefetcht0 [{fifth} + {stride} + 512]",
                    "prefetcht0 [{fifth} + 2 * {stride} + 512]",
                    "prefetcht0 [{fifth} + {thrice} + 512]",
                    "vmovups zmm16, [{fifth}]",
                    "vmovups zmm17, [{fifth} + {stride}]",
                    "vmovups zmm18, [{fifth} + 2 * {stride}]",
                    "vmovups zmm19, [{fifth} + {thrice}]",
                    "vmovaps [{to} + 256], zmm16",
                    "vmovaps [{to} + 320], zmm17",
                    "vmovaps [{to} + 384], zmm18",
                    "vmovaps [{to} + 448], zmm19",
                    "add {from}, 64",
                    "add {fifth}, 64",
                    "add {to}, 2048"
                ],
                {
                    from = inout(reg) from => _,
                    fifth = inout(reg) from.byte_add(4 * stride) => _,
                    stride = in(reg) stride,
                    thrice = in(reg) 3 * stride,
                    to = inout(reg) to => _,
                    out("xmm16") _, out("xmm17") _, out("xmm18") _, out("xmm19") _,
                }
            ),
        }
    }
}

/// The unit while a thread uses it; released when dropped, so that its state costs nothing at thread switches.
pub(super) struct TileConfig;

impl TileConfig {
    /// Configures the unit for this thread: eight tiles of 16 rows of 64 bytes.
    pub(super) fn configured() -> Self {
        #[repr(align(64))]
        struct Config([u8; 64]);
        let mut config = Config([0; 64]);
        config.0[0] = 1;
        for tile in 0..8 {
            config.0[16 + 2 * tile] = 64;
            config.0[48 + tile] = 16;
        }
        // SAFETY: called only where the unit is there; the configuration is a valid one.
        unsafe { asm!("ldtilecfg [{}]", in(reg) config.0.as_ptr(), options(nostack, readonly)) };
        Self
    }
}

impl Drop for TileConfig {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Whether the processor has the unit, and this process may use it.
pub(in crate::kernels) fn is_there() -> bool {
    has(Instructions::Amx)
}
