//! By the matrix unit (AMX) of Intel's server processors: `tdpbf16ps` multiplies 16×32 by 32×16 numbers at once.
//!
//! The weight is the left factor, read as it lies in the file; `x` is the right one, laid out once as the unit wants it: for 32
//! rows, 32 inputs after another, pairs of inputs, row by row. Two by two tiles of sums stay in the unit along all of `in`.

use std::{arch::asm, sync::OnceLock};

use half::bf16;
use rayon::prelude::*;

use crate::kernels::columns::Columns;

/// Rows and columns of a tile of sums.
const TILE: usize = 16;
/// Inputs that an instruction takes.
const WIDTH: usize = 32;
/// Rows of `x`, and outputs, that are gone along together: two tiles.
const PAIR: usize = 2 * TILE;
/// Bytes of the weight that a thread keeps in its L2 cache while all rows of `x` pass by.
const CACHED: usize = 1 << 20;
/// Fewer rows take the time that reading the weight takes, and need no matrix unit.
const FEW_ROWS: usize = 8;

pub(super) fn product(x: &[bf16], weight: &[bf16], [rows, inner, outputs]: [usize; 3]) -> Option<Vec<f32>> {
    let fits = rows > FEW_ROWS && inner.is_multiple_of(WIDTH) && outputs.is_multiple_of(PAIR) && inner > 0;
    if !fits || !is_there() {
        return None;
    }
    assert!(x.len() == rows * inner && weight.len() == outputs * inner);
    let packed = pack(x, rows, inner);
    let mut out = vec![0.0f32; rows * outputs];
    let columns = Columns(out.as_mut_ptr());
    let chunk = (CACHED / (2 * PAIR * inner)).max(1) * PAIR;
    weight.par_chunks(chunk * inner).enumerate().for_each(|(number, weight)| {
        let _unit = Unit::configured();
        let mut sums = Sums([0.0; PAIR * PAIR]);
        for (group, x) in packed.chunks_exact(inner).enumerate() {
            for (pair, weight) in weight.chunks_exact(PAIR * inner).enumerate() {
                // SAFETY: the unit is there and configured; both slices are of the size that it reads.
                unsafe { multiply(weight, x, inner, &mut sums) };
                let from = number * chunk + pair * PAIR;
                for row in 0..PAIR.min(rows - group * PAIR) {
                    for output in 0..PAIR {
                        // SAFETY: inside of the matrix, in a column of this chunk.
                        unsafe {
                            *columns.at((group * PAIR + row) * outputs + from + output) = sums.0[output * PAIR + row]
                        };
                    }
                }
            }
        }
    });
    Some(out)
}

/// What a tile has in a row: aligned, so that no load touches two lines of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([bf16; 2 * TILE]);

/// `x` in groups of 32 rows, the last filled up with zeros; each as `[inner / 32][2 tiles][16 pairs of inputs]`, a line each.
fn pack(x: &[bf16], rows: usize, inner: usize) -> Vec<Line> {
    let mut packed = vec![Line([bf16::ZERO; 2 * TILE]); rows.div_ceil(PAIR) * inner];
    packed.par_chunks_mut(inner).enumerate().for_each(|(group, packed)| {
        for row in 0..PAIR.min(rows - group * PAIR) {
            let x = &x[(group * PAIR + row) * inner..][..inner];
            let (tile, column) = (row / TILE, row % TILE);
            for (at, pair) in x.chunks_exact(2).enumerate() {
                let line = &mut packed[(at / TILE * 2 + tile) * TILE + at % TILE];
                line.0[2 * column..2 * column + 2].copy_from_slice(pair);
            }
        }
    });
    packed
}

/// Sums of 32 outputs for 32 rows.
#[repr(align(64))]
struct Sums([f32; PAIR * PAIR]);

/// `weight` `[32, inner]` times packed `x` → `sums` `[32 outputs][32 rows]`.
///
/// # Safety
/// [`is_there`] must hold, and [`Unit::configured`] for this thread; `weight` must hold `32 · inner` numbers and `x` as many in
/// `inner` lines, `inner` a multiple of 32 above 0.
unsafe fn multiply(weight: &[bf16], x: &[Line], inner: usize, sums: &mut Sums) {
    debug_assert!(weight.len() == PAIR * inner && x.len() == inner);
    // SAFETY: every step reads 64 bytes of each of 32 rows of the weight, and 2,048 bytes of `x`; there are inner / 32 of them.
    // The tiles are stored to four quarters of `sums`, whose rows are 128 bytes apart.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{upper} + {stride}]",
            "tileloadd tmm6, [{x} + {line}]",
            "tileloadd tmm7, [{x} + {line} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{lower} + {stride}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {upper}, 64",
            "add {lower}, 64",
            "add {x}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {line} * 2], tmm0",
            "tilestored [{sums} + {line} * 2 + 64], tmm1",
            "tilestored [{sums} + {line} * 2 + 2048], tmm2",
            "tilestored [{sums} + {line} * 2 + 2112], tmm3",
            upper = inout(reg) weight.as_ptr() => _,
            lower = inout(reg) weight.as_ptr().add(TILE * inner) => _,
            x = inout(reg) x.as_ptr() => _,
            steps = inout(reg) inner / WIDTH => _,
            stride = in(reg) 2 * inner,
            line = in(reg) 64usize,
            sums = in(reg) sums.0.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// The unit while a thread uses it; released when dropped, so that its state costs nothing at thread switches.
struct Unit;

impl Unit {
    /// Eight tiles of 16 rows of 64 bytes.
    fn configured() -> Self {
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

impl Drop for Unit {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Whether the processor has the unit, and the system lets this process use it.
fn is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
        let has = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BF16_AND_TILES == BF16_AND_TILES;
        has && permitted()
    })
}

/// Asks Linux for the unit's registers, once for the process.
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let result: i64;
    // SAFETY: a system call without pointers; the kernel clobbers rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inout("rax") ARCH_PRCTL => result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}
