//! Where work runs: a backend, and one of its devices.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use crate::{BACKENDS, BackendError, Job, VlmBackend, devices_of, resolve, run_on};

/// A device of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The name that its driver gives it.
    pub name: String,
    /// The kind of the device.
    pub kind: DeviceKind,
    /// The memory of the device in bytes, where the driver tells.
    pub memory: Option<u64>,
    /// The bytes of the largest tensor that it holds; `None` without a limit but memory.
    pub largest: Option<u64>,
}

/// A kind of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    /// A GPU with its own memory, or one whose kind the driver does not tell.
    Gpu,
    /// A GPU that shares the processor's memory.
    IntegratedGpu,
    /// A GPU of a virtual machine.
    VirtualGpu,
    /// The processor, or a renderer in software that runs on it.
    Cpu,
}

impl DeviceKind {
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gpu => "GPU",
            Self::IntegratedGpu => "integrated GPU",
            Self::VirtualGpu => "virtual GPU",
            Self::Cpu => "CPU",
        }
    }
}

/// A backend of this binary, and one of its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The backend's name.
    pub backend: &'static str,
    /// The number of the device in [`devices`]; `None` is the one that the backend takes by itself.
    pub device: Option<usize>,
}

impl Target {
    /// The backend called `name`, or the default, with a device that answers. It is checked before anything large is read.
    ///
    /// # Errors
    /// When the backend is unknown or not compiled in, has no such device, or the device does not answer.
    pub fn choose(name: Option<&str>, device: Option<usize>) -> Result<Self, BackendError> {
        struct Nothing;
        impl Job for Nothing {
            type Output = ();

            fn run<B: VlmBackend>(self, _device: B::Device) {}
        }

        let target = Self { backend: resolve(name)?, device };
        target.run(Nothing)?;
        Ok(target)
    }

    /// Runs `job` there.
    ///
    /// # Errors
    /// As [`Self::choose`].
    pub fn run<J: Job>(self, job: J) -> Result<J::Output, BackendError> {
        run_on(self.backend, self.device, job)
    }
}

impl Target {
    /// The device, as its driver describes it; `None` where the driver does not.
    pub fn info(self) -> Option<DeviceInfo> {
        devices(self.backend).ok()?.into_iter().nth(self.device.unwrap_or(0))
    }
}

/// The devices of the backend called `name`, in the order of their numbers: the best kinds come first. Empty where the driver is
/// missing.
///
/// # Errors
/// When the backend is unknown or not compiled in.
pub fn devices(name: &str) -> Result<Vec<DeviceInfo>, BackendError> {
    quietly(|| devices_of(name)).unwrap_or_else(|_| Ok(Vec::new()))
}

/// Runs `work` without a message on stderr where it panics: missing drivers do, and a user should read a sentence instead. Returns what
/// the driver said.
///
/// # Errors
/// When `work` panics: the first line of its message, if people can read it.
pub fn quietly<R>(work: impl FnOnce() -> R) -> Result<R, Option<String>> {
    // The hook belongs to the process: two at once would leave it silent.
    static HOOK: Mutex<()> = Mutex::new(());
    let silence = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    drop(silence);
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        // The message of an `unwrap` is for developers only.
        text.and_then(|text| text.lines().next()).filter(|line| !line.starts_with("called `")).map(str::to_owned)
    })
}

/// The error of a device that does not answer, with advice on other backends.
pub(crate) fn no_device(name: &'static str, reason: Option<String>) -> BackendError {
    let others: Vec<String> = BACKENDS
        .iter()
        .filter(|row| row.compiled && row.name != name)
        .map(|row| format!("`--backend {}`", row.name))
        .collect();
    BackendError::NoDevice {
        name,
        reason: reason.map_or_else(String::new, |line| format!(" ({line})")),
        others: match others.is_empty() {
            true => "no other is compiled in; rebuild with `--features flex`".to_owned(),
            false => format!("this binary also has {}", others.join(" and ")),
        },
    }
}
