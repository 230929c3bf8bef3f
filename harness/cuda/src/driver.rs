//! The driver and its GPUs, as far as one needs to know before using one.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use crate::libraries::{Missing, driver_function, missing};

/// Version of the toolkit that this was built with: 13000 for 13.0.
const TOOLKIT: &str = env!("PIXIO_EVAL_CUDA_VERSION");
/// Capability that candle's kernels were compiled for.
const CAPABILITY: &str = env!("PIXIO_EVAL_CUDA_CAPABILITY");
/// Capabilities that our own were compiled for, with PTX of the last.
const ARCHS: &str = env!("PIXIO_EVAL_CUDA_ARCHS");

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY_ATTRIBUTES: [c_int; 2] = [75, 76];

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The driver's number for it.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Bytes of its memory.
    pub memory: u64,
}

/// Why a GPU cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// The driver or a library is not there.
    #[error("no GPU support on this machine: {}", list(.0))]
    Missing(Vec<Missing>),
    /// The driver is older than the toolkit this was built with.
    #[error("the driver supports CUDA {}, and this build needs {}", version(*.found), version(*.needed))]
    Old {
        /// What the driver supports: 12080 for 12.8.
        found: u32,
        /// What the build needs.
        needed: u32,
    },
    /// The driver answered with an error.
    #[error("the driver's {function} failed with error {code}{}", meaning(*.code))]
    Failed {
        /// The function that was called.
        function: &'static str,
        /// A `CUresult`.
        code: i32,
    },
    /// There are fewer GPUs.
    #[error("there is no GPU {index}: {}", there(*.count))]
    NoSuchGpu {
        /// Which was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The build has no kernels for this GPU.
    #[error(
        "GPU {} ({}) has compute capability {}.{}, and this build has kernels for {}",
        gpu.index, gpu.name, gpu.capability.0, gpu.capability.1, built_for()
    )]
    Capability {
        /// The GPU.
        gpu: Gpu,
    },
}

fn list(missing: &[Missing]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn version(version: u32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

fn meaning(code: i32) -> &'static str {
    match code {
        2 => " (out of memory)",
        100 => " (no GPU)",
        101 => " (no such GPU)",
        3 | 4 => " (the driver is not ready)",
        999 => " (unknown error; the driver may need a restart)",
        803 => " (the driver's parts have different versions)",
        _ => "",
    }
}

fn there(count: usize) -> String {
    match count {
        0 => "the driver sees none".to_owned(),
        1 => "the driver sees one, GPU 0".to_owned(),
        n => format!("the driver sees GPUs 0 to {}", n - 1),
    }
}

/// Whether kernels for `built` (`80`, `90a`) run on a GPU of `capability`: PTX for 8.x runs on everything
/// newer, and candle's build makes architecture-specific code from 9.0 on, which runs on that one alone.
fn runs(built: &str, capability: (u32, u32)) -> bool {
    let base = number_of(built);
    let found = capability.0 * 10 + capability.1;
    if base >= 90 { found == base } else { found >= base }
}

/// 80 for `80`, 90 for `90a`.
fn number_of(arch: &str) -> u32 {
    let digits: String = arch.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(80)
}

/// Whether machine code of one of `archs` (`80,86,90`), or PTX of the last, runs on a GPU of `capability`.
fn serve(archs: &str, capability: (u32, u32)) -> bool {
    let archs: Vec<u32> = archs.split(',').map(number_of).collect();
    let found = capability.0 * 10 + capability.1;
    archs.iter().any(|&arch| arch / 10 == capability.0 && arch <= found)
        || archs.last().is_some_and(|&last| found >= last)
}

/// The GPUs this build has kernels for, in words.
pub fn built_for() -> String {
    words(CAPABILITY, ARCHS)
}

fn words(capability: &str, archs: &str) -> String {
    let candles = number_of(capability);
    let base = archs.split(',').map(number_of).min().unwrap_or(candles).max(candles);
    let only = if candles >= 90 { "only" } else { "and newer" };
    format!("{}.{} {only}", base / 10, base % 10)
}

/// What the driver supports, 13000 for CUDA 13.0; none without a driver.
pub fn driver_version() -> Option<u32> {
    let address = driver_function(c"cuDriverGetVersion")?;
    // SAFETY: `CUresult cuDriverGetVersion(int *version)`, which needs no initialisation.
    let get: extern "C" fn(*mut c_int) -> c_int = unsafe { std::mem::transmute(address) };
    let mut version = 0;
    (get(&raw mut version) == 0).then(|| version.unsigned_abs())
}

/// The release of the kernel's driver, such as 580.159.03; none without one.
pub fn driver_release() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let numbers =
        |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.split_whitespace().find(numbers).map(str::to_owned)
}

/// The driver's functions that are called here.
struct Driver;

impl Driver {
    /// Calls a function of the driver with up to three arguments that are pointers or numbers.
    fn call(name: &'static CStr, arguments: [*mut c_void; 3]) -> Result<(), DriverError> {
        let function = name.to_str().unwrap_or("function");
        let address = driver_function(name).ok_or(DriverError::Failed { function, code: 500 })?;
        // SAFETY: the callers pass what the function takes, in as many general registers; those it does
        // not take are ignored.
        let code = unsafe {
            let call: extern "C" fn(*mut c_void, *mut c_void, *mut c_void) -> c_int =
                std::mem::transmute(address);
            call(arguments[0], arguments[1], arguments[2])
        };
        if code == 0 { Ok(()) } else { Err(DriverError::Failed { function, code }) }
    }
}

fn number(value: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(value)
}

/// The GPUs that the driver shows.
///
/// # Errors
/// If the driver or a library is missing, too old, or fails.
pub fn devices() -> Result<Vec<Gpu>, DriverError> {
    let missing = missing();
    if !missing.is_empty() {
        return Err(DriverError::Missing(missing));
    }
    let needed = TOOLKIT.parse().unwrap_or(0);
    let found = driver_version().unwrap_or(0);
    if found < needed {
        return Err(DriverError::Old { found, needed });
    }
    let none = std::ptr::null_mut();
    match Driver::call(c"cuInit", [none; 3]) {
        Err(DriverError::Failed { code: 100, .. }) => return Ok(Vec::new()),
        other => other?,
    }
    let mut count: c_int = 0;
    Driver::call(c"cuDeviceGetCount", [(&raw mut count).cast(), none, none])?;
    (0..usize::try_from(count).unwrap_or(0)).map(gpu).collect()
}

fn gpu(index: usize) -> Result<Gpu, DriverError> {
    let none = std::ptr::null_mut();
    let mut device: c_int = 0;
    Driver::call(c"cuDeviceGet", [(&raw mut device).cast(), number(index), none])?;
    let device = number(usize::try_from(device).unwrap_or(0));
    let mut name = [0 as c_char; 128];
    Driver::call(c"cuDeviceGetName", [name.as_mut_ptr().cast(), number(name.len() - 1), device])?;
    let mut capability: [c_uint; 2] = [0; 2];
    for (value, attribute) in capability.iter_mut().zip(CAPABILITY_ATTRIBUTES) {
        let attribute = number(attribute.unsigned_abs() as usize);
        Driver::call(
            c"cuDeviceGetAttribute",
            [std::ptr::from_mut(value).cast(), attribute, device],
        )?;
    }
    let mut memory: usize = 0;
    Driver::call(c"cuDeviceTotalMem_v2", [(&raw mut memory).cast(), device, none])?;
    // SAFETY: zeros, of which the driver has left at least the last.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    Ok(Gpu { index, name, capability: (capability[0], capability[1]), memory: memory as u64 })
}

/// The GPU of that index, if this build runs on it.
///
/// # Errors
/// As [`devices`], and if there is no such GPU or it is older than the build's kernels.
pub fn device(index: usize) -> Result<Gpu, DriverError> {
    let mut gpus = devices()?;
    let count = gpus.len();
    if index >= count {
        return Err(DriverError::NoSuchGpu { index, count });
    }
    let gpu = gpus.swap_remove(index);
    match runs(CAPABILITY, gpu.capability) && serve(ARCHS, gpu.capability) {
        true => Ok(gpu),
        false => Err(DriverError::Capability { gpu }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_a_family_run_on_newer_gpus_and_specific_ones_on_their_own() {
        assert!(runs("80", (8, 0)) && runs("80", (9, 0)) && runs("80", (12, 0)));
        assert!(!runs("80", (7, 5)) && !runs("89", (8, 6)));
        assert!(runs("90", (9, 0)) && runs("90a", (9, 0)));
        assert!(!runs("90", (8, 9)) && !runs("90a", (10, 0)));
    }

    #[test]
    fn our_kernels_run_on_their_family_from_their_version_on_and_by_ptx_on_newer_ones() {
        assert!([(8, 0), (8, 7), (9, 0), (12, 1)].iter().all(|&c| serve("80,86,89,90", c)));
        assert!(serve("80,90", (8, 9)) && !serve("80,90", (7, 5)));
        assert!(serve("90", (9, 0)) && serve("90", (10, 0)) && !serve("90", (8, 9)));
        assert_eq!(words("80", "80,86,89,90"), "8.0 and newer");
        assert_eq!(words("80", "90"), "9.0 and newer");
        assert_eq!(words("90", "90"), "9.0 only");
    }

    #[test]
    fn errors_say_what_was_found_and_what_is_needed() {
        let old = DriverError::Old { found: 12080, needed: 13000 };
        assert_eq!(old.to_string(), "the driver supports CUDA 12.8, and this build needs 13.0");
        let none = DriverError::NoSuchGpu { index: 3, count: 2 };
        assert_eq!(none.to_string(), "there is no GPU 3: the driver sees GPUs 0 to 1");
        let gpu = Gpu { index: 0, name: "T4".to_owned(), capability: (7, 5), memory: 1 << 34 };
        let old = DriverError::Capability { gpu }.to_string();
        assert!(
            old.starts_with("GPU 0 (T4) has compute capability 7.5, and this build has"),
            "{old}"
        );
    }
}
