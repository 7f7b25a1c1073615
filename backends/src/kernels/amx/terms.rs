//! One block of an f32 product: the terms from the parts of two factors, in assembly for the unit.

use std::arch::asm;

use super::{
    line::Line,
    parts::PARTS,
    transpose::TILE,
    unit::{PAIR, Sums},
};

/// The memory that is prefetched while the unit multiplies. It need not be there.
#[derive(Clone, Copy)]
pub(super) struct Prefetch {
    /// 8 rows of the next block of the weight, `stride` bytes apart, of which a step takes `step` bytes.
    pub(super) weight: *const u8,
    pub(super) stride: usize,
    pub(super) step: usize,
    /// A part of the following lines of `x`.
    pub(super) x: *const Line,
}

/// The number of rows of a [`Prefetch`].
pub(super) const PREFETCHED: usize = 8;

/// Loads both tiles of a part of the left factor.
macro_rules! left {
    ($at:literal) => {
        concat!(
            "tileloadd tmm4, [{left} + {line} + ",
            $at,
            "]\n",
            "tileloadd tmm5, [{left} + {line} + ",
            $at,
            " + 1024]\n"
        )
    };
}

/// Loads both tiles of a part of the right factor, or the first alone.
macro_rules! right {
    (both $at:literal) => {
        concat!("tileloadd tmm6, [{x} + {line} + ", $at, "]\n", "tileloadd tmm7, [{x} + {line} + ", $at, " + 1024]\n")
    };
    (first $at:literal) => {
        concat!("tileloadd tmm6, [{x} + {line} + ", $at, "]\n")
    };
}

/// Multiplies the loaded tiles.
macro_rules! times {
    (both) => {
        "tdpbf16ps tmm0, tmm4, tmm6
         tdpbf16ps tmm1, tmm4, tmm7
         tdpbf16ps tmm2, tmm5, tmm6
         tdpbf16ps tmm3, tmm5, tmm7"
    };
    (first) => {
        "tdpbf16ps tmm0, tmm4, tmm6
         tdpbf16ps tmm2, tmm5, tmm6"
    };
}

/// The loop of [`multiply`] for a left factor of `$stride` bytes a step; `$terms` multiply its parts with those of the
/// right factor.
macro_rules! interleave {
    ($left:ident, $x:ident, $sums:ident, $ahead:ident, $stride:literal, [$($terms:expr),*]) => {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "prefetcht1 [{weight}]",
            "prefetcht1 [{weight} + 64]",
            "prefetcht1 [{weight} + {stride}]",
            "prefetcht1 [{weight} + {stride} + 64]",
            "prefetcht1 [{weight} + 2 * {stride}]",
            "prefetcht1 [{weight} + 2 * {stride} + 64]",
            "prefetcht1 [{weight} + {thrice}]",
            "prefetcht1 [{weight} + {thrice} + 64]",
            "prefetcht1 [{fifth}]",
            "prefetcht1 [{fifth} + 64]",
            "prefetcht1 [{fifth} + {stride}]",
            "prefetcht1 [{fifth} + {stride} + 64]",
            "prefetcht1 [{fifth} + 2 * {stride}]",
            "prefetcht1 [{fifth} + 2 * {stride} + 64]",
            "prefetcht1 [{fifth} + {thrice}]",
            "prefetcht1 [{fifth} + {thrice} + 64]",
            "prefetcht1 [{next}]",
            "prefetcht1 [{next} + 64]",
            "prefetcht1 [{next} + 128]",
            "prefetcht1 [{next} + 192]",
            "prefetcht1 [{next} + 256]",
            "prefetcht1 [{next} + 320]",
            "prefetcht1 [{next} + 384]",
            "prefetcht1 [{next} + 448]",
            "prefetcht1 [{next} + 512]",
            "prefetcht1 [{next} + 576]",
            "prefetcht1 [{next} + 640]",
            "prefetcht1 [{next} + 704]",
            "prefetcht1 [{next} + 768]",
            "prefetcht1 [{next} + 832]",
            "prefetcht1 [{next} + 896]",
            "prefetcht1 [{next} + 960]",
            "add {weight}, {step}",
            "add {fifth}, {step}",
            "add {next}, 1024",
            $($terms,)*
            concat!("add {left}, ", $stride),
            "add {x}, 6144",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 1024], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            "tilestored [{sums} + {line} + 3072], tmm3",
            left = inout(reg) $left.as_ptr() => _,
            x = inout(reg) $x.as_ptr() => _,
            steps = inout(reg) $x.len() / (PARTS * PAIR) => _,
            line = in(reg) 64usize,
            sums = in(reg) $sums.as_mut_ptr(),
            weight = inout(reg) $ahead.weight => _,
            fifth = inout(reg) $ahead.weight.wrapping_add(4 * $ahead.stride) => _,
            stride = in(reg) $ahead.stride,
            thrice = in(reg) 3 * $ahead.stride,
            step = in(reg) $ahead.step,
            next = inout(reg) $ahead.x => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// The terms for a left factor in one, two or three parts. One factor's part stays loaded from term to term.
macro_rules! terms {
    (1, $tiles:ident, [$($names:ident),*]) => {
        interleave!($($names),*, 2048, [
            left!(0), right!($tiles 4096), times!($tiles),
            right!($tiles 2048), times!($tiles),
            right!($tiles 0), times!($tiles)
        ])
    };
    (2, $tiles:ident, [$($names:ident),*]) => {
        interleave!($($names),*, 4096, [
            left!(0), right!($tiles 4096), times!($tiles),
            right!($tiles 0), times!($tiles),
            right!($tiles 2048), times!($tiles),
            left!(2048), times!($tiles),
            right!($tiles 0), times!($tiles)
        ])
    };
    (3, $tiles:ident, [$($names:ident),*]) => {
        interleave!($($names),*, 6144, [
            left!(0), right!($tiles 4096), times!($tiles),
            right!($tiles 0), times!($tiles),
            right!($tiles 2048), times!($tiles),
            left!(2048), times!($tiles),
            right!($tiles 0), times!($tiles),
            left!(4096), times!($tiles)
        ])
    };
}

/// Multiplies a left factor of 32 rows in `parts` parts with a right factor of `rows` rows, at most 32, in three parts.
///
/// # Safety
/// [`super::unit::is_there`] must hold, and [`super::unit::TileConfig::configured`] for this thread.
pub(super) unsafe fn multiply(parts: usize, left: &[Line], x: &[Line], rows: usize, sums: &mut Sums, ahead: Prefetch) {
    let steps = x.len() / (PARTS * PAIR);
    assert!(steps > 0 && x.len() == steps * PARTS * PAIR && left.len() == steps * parts * PAIR);
    let sums = &mut sums.0;
    // SAFETY: every step reads 2,048 bytes of each part of each factor; there are so many steps. The tiles are loaded
    // from and stored to the four of `sums`, whose rows are 64 bytes.
    unsafe {
        match (parts, rows > TILE) {
            (1, true) => terms!(1, both, [left, x, sums, ahead]),
            (1, false) => terms!(1, first, [left, x, sums, ahead]),
            (2, true) => terms!(2, both, [left, x, sums, ahead]),
            (2, false) => terms!(2, first, [left, x, sums, ahead]),
            (3, true) => terms!(3, both, [left, x, sums, ahead]),
            (3, false) => terms!(3, first, [left, x, sums, ahead]),
            _ => unreachable!("a weight in {parts} parts"),
        }
    }
}
