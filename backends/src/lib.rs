//! The backends on which Secateur runs.
//!
//! [`VlmBackend`] is Burn's `Backend` plus the few operations that a vision-language model wants faster than
//! plain tensor code. Each operation has a reference body, and a backend file overrides it once a bench shows the need.
//! A subcommand is a [`Job`], generic over the backend; [`run`] picks the backend by name at run time.
//!
//! A new backend is one file, one row in the `backends!` table below, and one Cargo feature.

#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod cube;
pub mod dpp;
mod host;
#[cfg(feature = "flex")]
mod kernels;
mod mask;
pub mod operations;
mod ops;
#[cfg(any(feature = "cuda", feature = "wgpu", test))]
mod parts;
mod target;
#[cfg(all(test, feature = "flex"))]
mod testing;
#[cfg(any(feature = "train", test))]
mod train;

use burn::tensor::{DType, Tensor, backend::Backend};

pub use host::prepare_host;
pub use mask::Mask;
pub use ops::{Rounding, VlmBackend};
pub use secateur_blocks::{BlockType, Blocks, RowOrder};
pub use target::{DeviceInfo, DeviceKind, Target, devices, quietly};
#[cfg(any(feature = "train", test))]
pub use train::Gradients;

/// Work that can run on any backend.
pub trait Job {
    /// The type of the result.
    type Output;

    /// Does the work on `device`.
    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output;
}

/// A row of the backend table.
#[derive(Clone, Copy, Debug)]
pub struct BackendInfo {
    /// The name that `--backend` takes, and the Cargo feature that compiles the backend in.
    pub name: &'static str,
    /// One line for `secateur list backends`.
    pub about: &'static str,
    /// Whether this binary has the backend.
    pub compiled: bool,
}

/// The reason why a backend cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No backend has this name.
    #[error("unknown backend `{name}`; known: {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// All known names.
        known: String,
    },
    /// The backend exists, but not in this binary.
    #[error("backend `{0}` is not compiled in; rebuild with `--features {0}`")]
    NotCompiled(&'static str),
    /// The instructions that kernels are to be kept to are unknown.
    #[error("{0}")]
    Kernels(String),
    /// This binary has no backend at all.
    #[error("no backend is compiled in; rebuild with `--features flex`")]
    None,
    /// The backend has no device of this number.
    #[error("backend `{name}` has no device {index}: it has {count}, numbered from 0; see `secateur list devices`")]
    NoSuchDevice {
        /// The backend.
        name: &'static str,
        /// The number asked for.
        index: usize,
        /// The number of devices that are there.
        count: usize,
    },
    /// The backend is there, but its device is not.
    #[error("backend `{name}` finds no usable device on this machine{reason}; {others}")]
    NoDevice {
        /// The backend.
        name: &'static str,
        /// The driver's message, in parentheses, if people can read it.
        reason: String,
        /// Advice on other backends.
        others: String,
    },
}

/// The table of backends, in the order in which a default is chosen: `feature module Type "what it is"`.
macro_rules! backends {
    ($($feature:literal $module:ident $backend:ident $about:literal;)*) => {
        $(#[cfg(feature = $feature)] mod $module;)*
        $(#[cfg(feature = $feature)] pub use $module::$backend;)*

        /// Every backend that Secateur knows, preferred ones first.
        pub const BACKENDS: &[BackendInfo] =
            &[$(BackendInfo { name: $feature, about: $about, compiled: cfg!(feature = $feature) }),*];

        /// Runs `job` on the backend called `name`, on its device number `index`, or the one that it takes by itself.
        ///
        /// # Errors
        /// When the name is unknown, the backend is not compiled in, or its device is not there or does not answer.
        pub fn run_on<J: Job>(name: &str, index: Option<usize>, job: J) -> Result<J::Output, BackendError> {
            let row = find(name)?;
            match row.name {
                $(#[cfg(feature = $feature)]
                $feature => {
                    let device = target::quietly(|| $module::device(index)).map_err(|reason| target::no_device(row.name, reason))?;
                    let Some(device) = device else { return Err(no_such_device(row.name, index)) };
                    probe::<$module::$backend>(row.name, &device)?;
                    Ok(job.run::<$module::$backend>(device))
                })*
                other => {
                    let _ = (job, index);
                    Err(BackendError::NotCompiled(other))
                }
            }
        }

        /// The devices of the backend called `name`; a missing driver may panic.
        fn devices_of(name: &str) -> Result<Vec<DeviceInfo>, BackendError> {
            match find(name)?.name {
                $(#[cfg(feature = $feature)]
                $feature => Ok($module::devices()),)*
                other => Err(BackendError::NotCompiled(other)),
            }
        }
    };
}

backends! {
    "cuda" cuda Cuda "NVIDIA GPUs through CUDA";
    "wgpu" wgpu Wgpu "any GPU through Vulkan or Metal";
    "flex" flex Flex "CPU, SIMD and threads, 16-bit weights";
    "ndarray" ndarray NdArray "CPU, plain Rust, f32 only";
}

/// Runs `job` on the backend called `name`, on the device that it takes by itself.
///
/// # Errors
/// As [`run_on`].
pub fn run<J: Job>(name: &str, job: J) -> Result<J::Output, BackendError> {
    run_on(name, None, job)
}

/// The error of a number that no device has.
#[cfg_attr(not(any(feature = "cuda", feature = "wgpu", feature = "flex", feature = "ndarray")), expect(dead_code))]
fn no_such_device(name: &'static str, index: Option<usize>) -> BackendError {
    let count = devices(name).map_or(0, |devices| devices.len());
    BackendError::NoSuchDevice { name, index: index.unwrap_or(0), count }
}

/// The backend that is used when none is asked for: the first compiled-in row of [`BACKENDS`].
///
/// # Errors
/// When this binary has none.
pub fn default_backend() -> Result<&'static str, BackendError> {
    BACKENDS.iter().find(|row| row.compiled).map(|row| row.name).ok_or(BackendError::None)
}

/// Looks up a backend by name, and says what to do when it is not there.
///
/// # Errors
/// When the name is unknown or the backend is not compiled in.
pub fn find(name: &str) -> Result<&'static BackendInfo, BackendError> {
    let row = BACKENDS.iter().find(|row| row.name == name).ok_or_else(|| BackendError::Unknown {
        name: name.to_owned(),
        known: BACKENDS.iter().map(|row| row.name).collect::<Vec<_>>().join(", "),
    })?;
    if !row.compiled {
        return Err(BackendError::NotCompiled(row.name));
    }
    #[cfg(feature = "flex")]
    if row.name == "flex" {
        kernels::instructions::Instructions::newest().map_err(BackendError::Kernels)?;
    }
    Ok(row)
}

/// The kernels that a backend runs on this processor.
#[derive(Clone, Debug)]
pub struct Kernels {
    /// The newest instructions that its kernels use; the variable `SECATEUR_KERNELS` keeps them to older ones.
    pub instructions: &'static str,
    /// Operations, and the kernel that each of them has for most sizes.
    pub choices: Vec<(&'static str, &'static str)>,
}

/// The kernels of the backend called `name`; `None` for a backend that has none of its own for processors.
pub fn kernels_of(name: &str) -> Option<Kernels> {
    #[cfg(feature = "flex")]
    if name == "flex" {
        let instructions = kernels::instructions::Instructions::newest().ok()?.name();
        return Some(Kernels { instructions, choices: kernels::select::choices() });
    }
    let _ = name;
    None
}

/// The backend called `name`, or the default.
///
/// # Errors
/// As [`find`] and [`default_backend`].
pub fn resolve(name: Option<&str>) -> Result<&'static str, BackendError> {
    name.map_or_else(default_backend, |name| Ok(find(name)?.name))
}

/// Runs one tiny operation on the device, which must answer.
#[cfg_attr(not(any(feature = "cuda", feature = "wgpu", feature = "flex", feature = "ndarray")), expect(dead_code))]
fn probe<B: Backend>(name: &'static str, device: &B::Device) -> Result<(), BackendError> {
    let answer = target::quietly(|| {
        let one = Tensor::<B, 1>::ones([1], (device, DType::F32));
        (one.clone() + one).into_data()
    });
    answer.map(|_| ()).map_err(|reason| target::no_device(name, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_described() {
        for (i, row) in BACKENDS.iter().enumerate() {
            assert!(!row.about.is_empty(), "{} has no description", row.name);
            assert!(BACKENDS[..i].iter().all(|other| other.name != row.name), "{} is there twice", row.name);
        }
    }

    #[test]
    fn unknown_and_missing_backends_are_told_apart() {
        assert!(matches!(find("tpu"), Err(BackendError::Unknown { .. })));
        for row in BACKENDS {
            match find(row.name) {
                Ok(_) => assert!(row.compiled),
                Err(error) => {
                    assert!(!row.compiled);
                    assert_eq!(
                        error.to_string(),
                        format!("backend `{0}` is not compiled in; rebuild with `--features {0}`", row.name)
                    );
                }
            }
        }
    }
}
