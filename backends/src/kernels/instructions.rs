//! The instructions that kernels may use: those that the processor has, up to the ones that the user permits.

use std::{env::VarError, str::FromStr, sync::OnceLock};

/// Instruction sets, each of which has those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Instructions {
    /// The instructions of the compiler's target.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512's products of bytes.
    Avx512Vnni,
    /// AVX-512's products of bf16 pairs.
    Avx512Bf16,
    /// The matrix unit of Intel's server processors, in bf16.
    Amx,
}

impl Instructions {
    /// All of them, ascending.
    pub(crate) const ALL: [Self; 6] =
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Vnni, Self::Avx512Bf16, Self::Amx];

    /// The name in `SECATEUR_KERNELS` and in tests.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        }
    }

    /// The newest that kernels use here: `SECATEUR_KERNELS` names the newest that they may use.
    ///
    /// # Errors
    /// When the variable names none.
    pub(crate) fn newest() -> Result<Self, String> {
        permitted()
            .as_ref()
            .map(|_| Self::ALL.into_iter().rfind(|one| has(*one)).unwrap_or(Self::Portable))
            .map_err(Clone::clone)
    }
}

impl FromStr for Instructions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|one| one.name() == text);
        found.ok_or_else(|| format!("SECATEUR_KERNELS is `{text}`; it takes one of {}", names()))
    }
}

/// The newest instructions that the user permits.
fn permitted() -> &'static Result<Instructions, String> {
    static PERMITTED: OnceLock<Result<Instructions, String>> = OnceLock::new();
    PERMITTED.get_or_init(|| match std::env::var("SECATEUR_KERNELS") {
        Ok(name) if !name.is_empty() => name.parse(),
        Err(VarError::NotUnicode(name)) => name.to_string_lossy().parse(),
        _ => Ok(Instructions::Amx),
    })
}

/// Whether kernels may use these instructions here.
#[inline]
pub(crate) fn has(instructions: Instructions) -> bool {
    static THERE: OnceLock<[bool; 6]> = OnceLock::new();
    let there = THERE.get_or_init(|| {
        let most = permitted().as_ref().copied().unwrap_or(Instructions::Amx);
        Instructions::ALL.map(|one| one <= most && is_there(one))
    });
    there[instructions as usize]
}

#[cfg(target_arch = "x86_64")]
fn is_there(instructions: Instructions) -> bool {
    match instructions {
        Instructions::Portable => true,
        Instructions::Avx2 => {
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
        }
        Instructions::Avx512 => {
            is_there(Instructions::Avx2)
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        }
        Instructions::Avx512Vnni => is_there(Instructions::Avx512) && is_x86_feature_detected!("avx512vnni"),
        Instructions::Avx512Bf16 => is_there(Instructions::Avx512Vnni) && is_x86_feature_detected!("avx512bf16"),
        #[cfg(target_os = "linux")]
        Instructions::Amx => is_there(Instructions::Avx512Bf16) && has_matrix_unit() && matrix_unit_is_permitted(),
        #[cfg(not(target_os = "linux"))]
        Instructions::Amx => false,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn is_there(instructions: Instructions) -> bool {
    instructions == Instructions::Portable
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn has_matrix_unit() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BF16_AND_TILES == BF16_AND_TILES
}

/// Asks Linux for the matrix unit's registers, once for the process.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn matrix_unit_is_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let result: i64;
    // SAFETY: a system call without pointers; the kernel clobbers rcx and r11.
    unsafe {
        std::arch::asm!(
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
