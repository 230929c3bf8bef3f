//! Which device, and which type to compute in.

use candle_core::{DType, Device};

use crate::progress::Reporter;

/// What `--device` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU when this build has GPU support and one is there, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of that index.
    Cuda(usize),
}

/// As `--device` reads it.
impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| "expected auto, cpu, cuda or cuda:N".to_owned()),
        }
    }
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A GPU was asked for in a build without GPU support.
    #[error("cuda:{0} was asked for, and this build has no GPU support")]
    NotBuilt(usize),
    /// The driver, its libraries or the GPU do not do.
    #[cfg(feature = "cuda")]
    #[error("cannot use cuda:{index}: {source}")]
    Driver {
        /// Index of the GPU.
        index: usize,
        /// Why.
        source: libcuda::DriverError,
    },
    /// The GPU did not open.
    #[error("cannot open cuda:{index}: {source}")]
    Open {
        /// Index of the GPU.
        index: usize,
        /// Why.
        source: candle_core::Error,
    },
}

/// The device that a choice comes down to, not yet opened.
#[derive(Debug)]
pub enum Chosen {
    /// The CPU.
    Cpu {
        /// Why not the GPU that is there, where `auto` would have taken one.
        passed_over: Option<DeviceError>,
    },
    /// The GPU of that index.
    Cuda(usize),
}

/// As in `--device`, but never `auto`.
impl std::fmt::Display for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu { .. } => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// What `choice` is on this machine: the driver is asked, no GPU is opened.
///
/// # Errors
/// If a GPU was asked for and this build or machine cannot use it.
pub fn choose(choice: DeviceChoice) -> Result<Chosen, DeviceError> {
    match choice {
        DeviceChoice::Cpu => Ok(Chosen::Cpu { passed_over: None }),
        DeviceChoice::Auto => Ok(auto()),
        DeviceChoice::Cuda(index) => usable(index).map(|()| Chosen::Cuda(index)),
    }
}

#[cfg(feature = "cuda")]
fn auto() -> Chosen {
    // Without a driver, or with one that sees no GPU, there is nothing to pass over.
    if libcuda::driver_version().is_none() || libcuda::devices().is_ok_and(|gpus| gpus.is_empty()) {
        return Chosen::Cpu { passed_over: None };
    }
    match usable(0) {
        Ok(()) => Chosen::Cuda(0),
        Err(error) => Chosen::Cpu { passed_over: Some(error) },
    }
}

#[cfg(feature = "cuda")]
fn usable(index: usize) -> Result<(), DeviceError> {
    let gpu = libcuda::device(index);
    gpu.map(|_| ()).map_err(|source| DeviceError::Driver { index, source })
}

#[cfg(not(feature = "cuda"))]
fn auto() -> Chosen {
    Chosen::Cpu { passed_over: None }
}

#[cfg(not(feature = "cuda"))]
fn usable(index: usize) -> Result<(), DeviceError> {
    Err(DeviceError::NotBuilt(index))
}

/// Opens the device; warns where `auto` passes over a GPU.
///
/// # Errors
/// As [`choose`], and if the GPU does not open.
pub fn open(choice: DeviceChoice, reporter: &Reporter) -> Result<Device, DeviceError> {
    match choose(choice)? {
        Chosen::Cpu { passed_over } => {
            if let Some(error) = passed_over {
                reporter.warn(format!("{error}; using the CPU"));
            }
            Ok(Device::Cpu)
        }
        Chosen::Cuda(index) => {
            // One stream for every thread of the host; candle's standard is one for each.
            let opened = Device::new_cuda_with_stream(index);
            let opened = opened.map_err(|source| DeviceError::Open { index, source })?;
            #[cfg(feature = "cuda")]
            if let Device::Cuda(device) = &opened {
                // SAFETY: everything runs on that stream but the copies of `upload`, which wait for it.
                unsafe { device.disable_event_tracking() };
            }
            Ok(opened)
        }
    }
}

/// `cpu` or `cuda:N`.
pub fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".to_owned(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// Kind of device, as far as the last bits of a product belong to it: `cpu-avx512`, `cuda`.
pub fn kind(device: &Device) -> &'static str {
    if !device.is_cpu() {
        return "cuda";
    }
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "cpu-avx512";
        }
        if is_x86_feature_detected!("avx2") {
            return "cpu-avx2";
        }
    }
    "cpu"
}

/// The autocast type: as asked, else bf16 on a GPU and f32 on the CPU.
pub fn dtype(asked: Option<DType>, device: &Device) -> DType {
    asked.unwrap_or(if device.is_cuda() { DType::BF16 } else { DType::F32 })
}

/// Reads `f32`, `bf16` or `f16`.
pub fn parse_dtype(text: &str) -> Result<DType, String> {
    match text {
        "f32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        "f16" => Ok(DType::F16),
        _ => Err("expected f32, bf16 or f16".to_owned()),
    }
}

/// The processor's model as the system names it.
pub fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let model = line.and_then(|line| line.split_once(':')).map(|(_, model)| model.trim());
    model.unwrap_or(std::env::consts::ARCH).to_owned()
}

/// Bytes of the device's memory that are free now: on the CPU what the system calls available, within
/// the limit of a control group; where neither tells, no limit.
pub fn free_memory(device: &Device) -> u64 {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = device {
        let info = gpu.cuda_stream().context().mem_get_info();
        return info.map_or(u64::MAX, |(free, _)| free as u64);
    }
    let _ = device;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let number = |path: &str| read(path).trim().parse::<u64>().ok();
    let info = read("/proc/meminfo");
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let groups = [
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ];
    let left = groups.map(|(limit, used)| Some(number(limit)?.saturating_sub(number(used)?)));
    let all = left.into_iter().chain([kilobytes.map(|k| k * 1024)]);
    all.flatten().min().unwrap_or(u64::MAX)
}

/// Worker threads of the CPU pool.
pub fn threads() -> usize {
    rayon::current_num_threads()
}
