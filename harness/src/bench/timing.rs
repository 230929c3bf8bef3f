//! Medians of repeated runs.

use std::time::Instant;

use candle_core::Device;
use serde::Serialize;

use crate::backbone::BackboneError;
use crate::interrupt;
use crate::run::RunError;

/// Fewest and most timed samples.
const SAMPLES: std::ops::RangeInclusive<usize> = 3..=1000;
/// Shorter samples are of several repetitions, so that starting and waiting for the device weigh little.
const SAMPLE_SECONDS: f64 = 0.05;

/// Times things on a device.
pub(super) struct Timer<'a> {
    pub(super) device: &'a Device,
    /// Seconds to repeat for.
    pub(super) seconds: f64,
}

/// Seconds of one unit: the median of the samples, and their quartiles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Times {
    /// The median.
    pub seconds: f64,
    /// A quarter of the samples was faster,
    pub low: f64,
    /// and a quarter slower.
    pub high: f64,
    /// Samples.
    pub samples: usize,
}

impl Timer<'_> {
    /// Times one of the `units` that `once` does, after repetitions that count for nothing.
    pub(super) fn time(
        &self,
        units: usize,
        mut once: impl FnMut() -> Result<(), RunError>,
    ) -> Result<Times, RunError> {
        let mut last = self.sample(1, &mut once)?;
        if self.device.is_cuda() {
            // The first ones load kernels and fill pools of memory.
            self.sample(2, &mut once)?;
            last = self.sample(1, &mut once)?;
        }
        let repetitions = (SAMPLE_SECONDS / last.max(1e-9)).ceil().clamp(1.0, 1000.0) as usize;
        let began = Instant::now();
        let mut samples = Vec::new();
        while samples.len() < *SAMPLES.start()
            || samples.len() < *SAMPLES.end() && began.elapsed().as_secs_f64() < self.seconds
        {
            samples.push(self.sample(repetitions, &mut once)? / units.max(1) as f64);
        }
        Ok(Times::of(samples))
    }

    /// Seconds of one of so many repetitions.
    fn sample(
        &self,
        repetitions: usize,
        once: &mut impl FnMut() -> Result<(), RunError>,
    ) -> Result<f64, RunError> {
        let wait = || self.device.synchronize().map_err(BackboneError::Candle);
        wait()?;
        let began = Instant::now();
        for _ in 0..repetitions {
            once()?;
            if interrupt::requested() {
                return Err(RunError::Interrupted);
            }
        }
        wait()?;
        Ok(began.elapsed().as_secs_f64() / repetitions as f64)
    }
}

impl Times {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let last = samples.len().saturating_sub(1);
        let at = |share: f64| {
            let place = share * last as f64;
            let (below, above) = (place.floor() as usize, place.ceil() as usize);
            let value = |at: usize| samples.get(at).copied().unwrap_or(f64::NAN);
            value(below) + (value(above) - value(below)) * place.fract()
        };
        Self { seconds: at(0.5), low: at(0.25), high: at(0.75), samples: samples.len() }
    }

    /// Half the distance of the quartiles, in percent of the median.
    pub fn spread(&self) -> f64 {
        50.0 * (self.high - self.low) / self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quartiles() {
        let times = Times::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((times.seconds, times.low, times.high, times.samples), (2.5, 1.75, 3.25, 4));
        assert_eq!(times.spread(), 30.0);
        assert_eq!(Times::of(vec![7.0]).seconds, 7.0);
    }

    #[test]
    fn time_is_divided_among_units_and_repetitions() {
        let timer = Timer { device: &Device::Cpu, seconds: 0.0 };
        let mut calls = 0;
        let times = timer.time(4, || {
            calls += 1;
            std::thread::sleep(std::time::Duration::from_millis(20));
            Ok(())
        });
        let times = times.unwrap();
        // One to learn how long it takes, then three samples of three or fewer repetitions.
        assert!((4..=10).contains(&calls), "{calls}");
        assert!((0.005..0.05).contains(&times.seconds), "{times:?}");
        assert_eq!(times.samples, 3);
    }
}
