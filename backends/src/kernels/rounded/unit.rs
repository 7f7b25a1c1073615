//! The matrix unit itself: what it reads, what it writes, one block of products, and the permission to use it.

use std::{arch::asm, sync::OnceLock};

use half::bf16;

use super::{
    nearest,
    transpose::{Square, TILE, transpose},
};

/// Inputs that an instruction takes.
pub(super) const WIDTH: usize = 32;
/// Rows of the right factor, and of the left one, that are gone along together: two tiles.
pub(super) const PAIR: usize = 2 * TILE;

/// What a tile has in a row: aligned, so that no load touches two lines of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [bf16; WIDTH]);

impl Line {
    pub(super) const ZERO: Self = Self([bf16::ZERO; WIDTH]);
}

/// Lines as the numbers in them.
pub(super) fn numbers(lines: &mut [Line]) -> &mut [bf16] {
    // SAFETY: a line is 32 numbers and nothing else.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * WIDTH) }
}

/// A tile of the right factor: 32 inputs of each of up to 16 rows, rounded; missing rows are 0.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn pack_tile<'a>(rows: impl Iterator<Item = &'a [f32]>, lines: &mut [Line; TILE]) {
    let mut tile = Square::ZERO;
    for (row, pairs) in rows.zip(&mut tile.0) {
        let (inputs, _) = row.as_chunks::<2>();
        for (pair, input) in pairs.iter_mut().zip(inputs) {
            *pair = u32::from(nearest(input[0])) | u32::from(nearest(input[1])) << 16;
        }
    }
    // SAFETY: a line is a row of pairs.
    unsafe { transpose(&tile, numbers(lines).as_mut_ptr().cast(), TILE) };
}

/// Sums of 32 outputs for 32 rows, as four tiles: outputs `0..16` for rows `0..16` and `16..32`, then outputs `16..32`.
#[derive(Clone, Copy)]
pub(super) struct Sums(pub(super) [Square; 4]);

impl Sums {
    pub(super) const ZERO: Self = Self([Square::ZERO; 4]);

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

/// A block of 32 rows of the weight, `stride` numbers apart, times a block of packed `x`; written to `sums`, or with `add`, added.
///
/// # Safety
/// [`is_there`] must hold, and [`Unit::configured`] for this thread; `weight` must reach to the end of the block in its last row, and
/// `x` must hold as many lines as the block has inputs, a multiple of 32 above 0.
pub(super) unsafe fn multiply(weight: &[bf16], stride: usize, x: &[Line], add: bool, sums: &mut Sums) {
    assert!(weight.len() >= (PAIR - 1) * stride + x.len());
    // SAFETY: every step reads 64 bytes of each of 32 rows of the weight, and 2,048 bytes of `x`; there are x.len() / 32 of them.
    // The tiles are loaded from and stored to the four of `sums`, whose rows are 64 bytes.
    unsafe {
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
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 1024], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            "tilestored [{sums} + {line} + 3072], tmm3",
            add = in(reg) usize::from(add),
            upper = inout(reg) weight.as_ptr() => _,
            lower = inout(reg) weight.as_ptr().add(TILE * stride) => _,
            x = inout(reg) x.as_ptr() => _,
            steps = inout(reg) x.len() / WIDTH => _,
            stride = in(reg) 2 * stride,
            line = in(reg) 64usize,
            sums = in(reg) sums.0.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// The unit while a thread uses it; released when dropped, so that its state costs nothing at thread switches.
pub(super) struct Unit;

impl Unit {
    /// Eight tiles of 16 rows of 64 bytes.
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

impl Drop for Unit {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Whether the processor has the unit, and the system lets this process use it.
pub(super) fn is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
        let vectors = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        let has = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BF16_AND_TILES == BF16_AND_TILES;
        has && vectors && permitted()
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
