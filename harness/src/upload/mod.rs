//! Bytes to the device and numbers back, without the device waiting for the host.
//!
//! On a GPU, images travel as bytes through page-locked staging buffers on a stream of their own while
//! it computes, and are normalised there ([`Intake`]); results are asked for as soon as they are
//! enqueued and waited for when the next work is ([`Reading`]). On the CPU the same calls are plain
//! tensors, so that tests run the device's path there.

#[cfg(feature = "cuda")]
mod cuda;
mod pixels;

use std::time::Instant;

use candle_core::{Device, Result, Shape, Tensor, WithDType};

pub(crate) use pixels::{Intake, Pixels};

/// Work that is enqueued before the last one's result is read back.
const AHEAD: usize = 1;

/// Steps of training whose losses are read back together.
const READ_EVERY: usize = 50;

/// Takes data to one device and back.
pub(crate) struct Uploader {
    device: Device,
    /// Whether work is laid out for a device that computes beside the host.
    beside: bool,
    #[cfg(feature = "cuda")]
    staging: Option<cuda::Staging>,
}

impl Uploader {
    /// For a device.
    ///
    /// # Errors
    /// If the GPU has no stream or event left.
    pub(crate) fn new(device: &Device) -> Result<Self> {
        Ok(Self {
            device: device.clone(),
            beside: !device.is_cpu(),
            #[cfg(feature = "cuda")]
            staging: match device {
                Device::Cuda(device) => Some(cuda::Staging::new(device)?),
                _ => None,
            },
        })
    }

    /// For the CPU, taking the path of a device that computes beside it.
    #[cfg(test)]
    pub(crate) fn beside() -> Self {
        Self {
            device: Device::Cpu,
            beside: true,
            #[cfg(feature = "cuda")]
            staging: None,
        }
    }

    /// The device.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Whether the device computes beside the host: images then travel as bytes, predictions are merged
    /// there, and nothing is read back before the next work is enqueued.
    pub(crate) fn is_beside(&self) -> bool {
        self.beside
    }

    /// Work that is enqueued before the last one's result is read back.
    pub(crate) fn ahead(&self) -> usize {
        if self.beside { AHEAD } else { 0 }
    }

    /// Steps of training whose losses are read back together.
    pub(crate) fn read_every(&self) -> usize {
        if self.beside { READ_EVERY } else { 1 }
    }

    /// Parts one after another as one tensor on the device.
    ///
    /// # Errors
    /// If the parts do not fill the shape, or the device fails.
    pub(crate) fn concat<T: Element>(
        &self,
        parts: &[&[T]],
        shape: impl Into<Shape>,
    ) -> Result<Tensor> {
        let shape = shape.into();
        #[cfg(feature = "cuda")]
        if let Some(staging) = &self.staging {
            return staging.upload(parts, &shape);
        }
        Tensor::from_vec(parts.concat(), shape, &self.device)
    }

    /// A tensor of the CPU on the device.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn tensor(&self, tensor: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(staging) = &self.staging
            && tensor.device().is_cpu()
        {
            return staging.tensor(tensor);
        }
        tensor.to_device(&self.device)
    }

    /// Starts to read a tensor back.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn read(&self, tensor: &Tensor) -> Result<Reading> {
        #[cfg(feature = "cuda")]
        if let Some(staging) = &self.staging
            && tensor.device().is_cuda()
        {
            return Ok(Reading(Source::Staged(Box::new(staging.read(tensor)?))));
        }
        Ok(Reading(Source::Here(tensor.to_device(&Device::Cpu)?)))
    }

    /// Gives the device's memory back that is kept for allocations to come: what did not fit may do so in
    /// other pieces.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn release(&self) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(staging) = &self.staging {
            return staging.release();
        }
        Ok(())
    }

    /// A point in the device's work.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn mark(&self) -> Result<Mark> {
        #[cfg(feature = "cuda")]
        if let Some(staging) = &self.staging {
            return Ok(Mark::Event(staging.mark()?));
        }
        Ok(Mark::Here(Instant::now()))
    }
}

#[cfg(not(feature = "cuda"))]
pub(crate) use candle_core::WithDType as Element;
#[cfg(feature = "cuda")]
pub(crate) use cuda::Staged as Element;

/// A tensor on its way back from the device.
pub(crate) struct Reading(Source);

enum Source {
    Here(Tensor),
    #[cfg(feature = "cuda")]
    Staged(Box<cuda::Reading>),
}

impl Reading {
    /// Waits for it: a tensor on the CPU.
    ///
    /// # Errors
    /// If the device failed in anything before.
    pub(crate) fn wait(self) -> Result<Tensor> {
        match self.0 {
            Source::Here(tensor) => Ok(tensor),
            #[cfg(feature = "cuda")]
            Source::Staged(reading) => reading.wait(),
        }
    }

    /// Waits for it: its values, row-major.
    ///
    /// # Errors
    /// If the device failed in anything before, or the tensor is of another type.
    pub(crate) fn values<T: WithDType>(self) -> Result<Vec<T>> {
        self.wait()?.flatten_all()?.to_vec1()
    }
}

/// A point in the device's work.
pub(crate) enum Mark {
    /// The host's time, where the host computes.
    Here(Instant),
    /// An event of the GPU.
    #[cfg(feature = "cuda")]
    Event(candle_core::cuda_backend::cudarc::driver::CudaEvent),
}

impl Mark {
    /// Seconds of the device's work from here to a later point, which is waited for; none between
    /// points of different devices.
    pub(crate) fn seconds_to(&self, later: &Self) -> Option<f64> {
        match (self, later) {
            (Self::Here(from), Self::Here(to)) => Some((*to - *from).as_secs_f64()),
            #[cfg(feature = "cuda")]
            (Self::Event(from), Self::Event(to)) => {
                Some(f64::from(from.elapsed_ms(to).ok()?) / 1000.0)
            }
            #[cfg(feature = "cuda")]
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_up_comes_back() {
        for uploader in [Uploader::new(&Device::Cpu).unwrap(), Uploader::beside()] {
            let parts: [&[f32]; 2] = [&[1.0, 2.0], &[3.0, f32::NAN]];
            let there = uploader.concat(&parts, (2, 2)).unwrap();
            let back = uploader.read(&there.t().unwrap()).unwrap().values::<f32>().unwrap();
            assert_eq!((back[0], back[1], back[2]), (1.0, 3.0, 2.0));
            assert!(back[3].is_nan());
            assert!(uploader.concat(&[&[1u8, 2][..]], 3).is_err());
            let from = uploader.mark().unwrap();
            assert!(from.seconds_to(&uploader.mark().unwrap()).unwrap() >= 0.0);
        }
        assert!(Uploader::beside().is_beside() && Uploader::beside().read_every() > 1);
        assert!(!Uploader::new(&Device::Cpu).unwrap().is_beside());
    }
}
