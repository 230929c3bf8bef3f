//! What a GPU's error means for the run: less at a time may fit, or the device is lost.

use candle_core::Device;

use crate::backbone::BackboneError;
use crate::resolve::ResolveError;
use crate::run::RunError;

/// How a GPU failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It has no memory for what was asked. It works on.
    Memory,
    /// It computes no more for this process: another process, or the CPU, goes on.
    Lost,
}

/// Answers of CUDA and of its libraries to an allocation that does not fit.
const MEMORY: [&str; 6] = [
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CURAND_STATUS_ALLOCATION_FAILED",
];

/// Answers after which every further call in the same process fails: a context is spoilt by them.
const LOST: [&str; 24] = [
    "CUDA_ERROR_DEINITIALIZED",
    "CUDA_ERROR_DEVICE_UNAVAILABLE",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_NVLINK_UNCORRECTABLE",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_TENSOR_MEMORY_LEAK",
    "CUDA_ERROR_CONTAINED",
    "CUDA_ERROR_MPS_CLIENT_TERMINATED",
    "CUDA_ERROR_MPS_CONNECTION_FAILED",
    "CUDA_ERROR_MPS_SERVER_NOT_READY",
    "CUDA_ERROR_EXTERNAL_DEVICE",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
    "CUDA_ERROR_UNKNOWN",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_EXECUTION_FAILED",
];

/// Answers of libraries that do not say whether the context is spoilt: it is asked.
const UNCLEAR: [&str; 5] = [
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUBLAS_STATUS_MAPPING_ERROR",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_MAPPING_ERROR",
];

impl Fault {
    /// What an error's text says of the device. Errors of CUDA reach us through candle, through our own
    /// kernels and through saved text, wrapped in different ways; its names are in all of them.
    pub(crate) fn of(text: &str) -> Option<Self> {
        // A context that was spoilt may fail later with whatever comes next: the worse counts.
        if LOST.iter().any(|name| text.contains(name)) {
            return Some(Self::Lost);
        }
        MEMORY.iter().any(|name| text.contains(name)).then_some(Self::Memory)
    }
}

impl RunError {
    /// How the device failed, if that is what went wrong.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self.inner() {
            Self::OutOfMemory { .. } => Some(Fault::Memory),
            Self::DeviceLost { .. } => Some(Fault::Lost),
            // What a worker of another language says is no error of this process's device.
            Self::Backbone(BackboneError::Python(_)) => None,
            // The search has halved its own blocks already; the encoder's batch is nothing to it.
            // Nor to weights that do not fit.
            Self::Knn(_) | Self::Resolve(ResolveError::Weights(_)) => {
                Fault::of(&self.to_string()).filter(|fault| *fault == Fault::Lost)
            }
            Self::Backbone(_)
            | Self::Head(_)
            | Self::Policy(_)
            | Self::Weights(_)
            | Self::Checkpoint(_)
            | Self::Device(_) => Fault::of(&self.to_string()),
            _ => None,
        }
    }

    /// The same error, or what it means for the run where a device failed.
    pub(crate) fn on(self, device: &Device) -> Self {
        self.asking(device, || device.synchronize())
    }

    /// [`RunError::on`], with how the device is asked whether it still works.
    fn asking(self, device: &Device, ask: impl FnOnce() -> candle_core::Result<()>) -> Self {
        let why = self.to_string();
        let name = || crate::device::name(device);
        match (&self, self.fault()) {
            (Self::OutOfMemory { .. } | Self::DeviceLost { .. }, _) => self,
            (_, Some(Fault::Memory)) => Self::OutOfMemory { device: name(), why },
            (_, Some(Fault::Lost)) => Self::DeviceLost { device: name(), why },
            (_, None) if UNCLEAR.iter().any(|answer| why.contains(answer)) => match ask() {
                Err(error) if Fault::of(&error.to_string()) == Some(Fault::Lost) => {
                    Self::DeviceLost { device: name(), why: format!("{why}; {error}") }
                }
                _ => self,
            },
            (_, None) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Error;
    use heads::dense::HeadError;

    use super::*;

    fn cuda(text: &str) -> Error {
        Error::Cuda(text.to_owned().into())
    }

    #[test]
    fn errors_of_a_gpu_are_told_apart_however_they_are_wrapped() {
        let full = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        let lost = "DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access\")";
        let fault = |error: RunError| error.fault();
        let backbone = |error| RunError::Backbone(BackboneError::Candle(error));
        assert_eq!(fault(backbone(cuda(full))), Some(Fault::Memory));
        assert_eq!(fault(backbone(cuda(full).context("in block 3"))), Some(Fault::Memory));
        assert_eq!(
            fault(backbone(cuda("CublasError(CUBLAS_STATUS_ALLOC_FAILED)"))),
            Some(Fault::Memory)
        );
        assert_eq!(fault(RunError::Head(HeadError::Tensor(cuda(lost)))), Some(Fault::Lost));
        // What fails after the context is spoilt is of no interest.
        assert_eq!(fault(backbone(cuda(&format!("{full}; before: {lost}")))), Some(Fault::Lost));
        assert_eq!(fault(backbone(cuda("DriverError(CUDA_ERROR_INVALID_VALUE, \"\")"))), None);
        assert_eq!(fault(backbone(Error::Msg("shape mismatch".to_owned()))), None);
        let cell = RunError::Cell {
            cell: "nyuv2/dpt pixio-l".to_owned(),
            source: Box::new(RunError::Head(HeadError::Tensor(cuda(lost)))),
        };
        assert_eq!(fault(cell), Some(Fault::Lost));
        // A name in a path is no error of a device.
        let file = RunError::HeadFile {
            path: "CUDA_ERROR_OUT_OF_MEMORY".into(),
            source: std::io::Error::other("no"),
        };
        assert_eq!(fault(file), None);
    }

    #[test]
    fn weights_that_do_not_fit_ask_for_no_smaller_batch() {
        let weights = |text| {
            let source = cuda(text);
            let error = crate::weights::WeightsError::Convert { name: "norm".to_owned(), source };
            RunError::Resolve(ResolveError::Weights(error)).fault()
        };
        assert_eq!(weights("CUDA_ERROR_OUT_OF_MEMORY"), None);
        assert_eq!(weights("CUDA_ERROR_LAUNCH_FAILED"), Some(Fault::Lost));
    }

    #[test]
    fn a_device_is_asked_where_a_library_does_not_tell() {
        let told = |text: &str, answer: candle_core::Result<()>| {
            RunError::Head(HeadError::Tensor(cuda(text))).asking(&Device::Cpu, || answer)
        };
        let spoilt = || Err(cuda("CUDA_ERROR_LAUNCH_FAILED"));
        let unclear = "CublasError(CUBLAS_STATUS_INTERNAL_ERROR)";
        let RunError::DeviceLost { why, .. } = told(unclear, spoilt()) else { panic!() };
        assert!(why.contains("INTERNAL_ERROR") && why.contains("LAUNCH_FAILED"), "{why}");
        assert!(matches!(told(unclear, Ok(())), RunError::Head(_)));
        assert!(matches!(told("shape mismatch", spoilt()), RunError::Head(_)));
    }

    #[test]
    fn an_error_says_which_device_it_was() {
        let lost =
            RunError::Head(HeadError::Tensor(cuda("CUDA_ERROR_LAUNCH_FAILED"))).on(&Device::Cpu);
        let RunError::DeviceLost { device, why } = &lost else { panic!("{lost}") };
        assert_eq!((device.as_str(), why.as_str()), ("cpu", "CUDA_ERROR_LAUNCH_FAILED"));
        assert_eq!(lost.fault(), Some(Fault::Lost));
        let kept = RunError::Interrupted.on(&Device::Cpu);
        assert!(matches!(kept, RunError::Interrupted));
    }
}
