//! Merging the windows of an image where they were predicted, in the order and so with the sums of
//! [`Canvas`](super::score::Canvas): only what metrics read comes to the host.

use candle_core::{Device, Result, Tensor};
use tasks::metrics::Window;

/// Sums of window predictions over an image, on a device.
pub(super) struct Merge {
    /// `[height, width, channels]`, f32: what kernels predict lies so.
    sums: Tensor,
}

impl Merge {
    pub(super) fn new(
        channels: usize,
        (height, width): (usize, usize),
        device: &Device,
    ) -> Result<Self> {
        let sums = Tensor::zeros((height, width, channels), candle_core::DType::F32, device)?;
        Ok(Self { sums })
    }

    /// Adds one window's prediction `[channels, side, side]`.
    pub(super) fn add(&self, place: &Window, predicted: &Tensor) -> Result<()> {
        let &Window { top, left, height, width } = place;
        ops::add_window(&self.sums, &predicted.permute((1, 2, 0))?, [top, left], [height, width])
    }

    /// The sums `[channels, height, width]`.
    pub(super) fn sums(&self) -> Result<Tensor> {
        self.sums.permute((2, 0, 1))
    }

    /// The class with the largest sum at each pixel, the first of equal ones, row-major, and behind them
    /// whether every window's prediction was finite: `[height * width + 1]`, u8.
    pub(super) fn labels(&self) -> Result<Tensor> {
        // Not finite times zero is not a number. A softmax is not finite if any of its classes is not.
        let finite = (self.sums.narrow(2, 0, 1)? * 0.0)?.sum_all()?.eq(0f32)?;
        let labels = ops::argmax_classes(&self.sums()?.unsqueeze(0)?)?;
        Tensor::cat(&[labels.flatten_all()?, finite.reshape(1)?], 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tasks::metrics::windows;

    use super::super::score::{Canvas, Predicted};
    use super::*;

    /// Values that are often equal, and sums of them that depend on their order.
    fn value(i: usize) -> f32 {
        [0.1, 0.3, 0.25, 1e-7, 0.3, 3e4][(i * 7919 + i / 13) % 6]
    }

    proptest! {
        /// What the host merges, to the bit, and its labels.
        #[test]
        fn a_device_merges_as_the_host_does(
            height in 1usize..40, width in 1usize..40, channels in 1usize..8,
            side in 3usize..20, part in 30usize..100,
        ) {
            let places = windows(height, width, side, (side * part).div_ceil(100));
            let merge = Merge::new(channels, (height, width), &Device::Cpu).unwrap();
            let mut canvas = Canvas::new(channels, (height, width));
            for (at, place) in places.iter().enumerate() {
                let size = channels * side * side;
                let predicted: Vec<f32> = (0..size).map(|i| value(i + 31 * at)).collect();
                canvas.add(place, &predicted, side);
                let predicted =
                    Tensor::from_vec(predicted, (channels, side, side), &Device::Cpu).unwrap();
                merge.add(place, &predicted).unwrap();
            }
            let sums = merge.sums().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let of = Canvas::of(sums, &places, (height, width));
            prop_assert_eq!(&of, &canvas);
            let labels = merge.labels().unwrap().to_vec1::<u8>().unwrap();
            let (finite, labels) = labels.split_last().unwrap();
            let expected = Predicted::Sums(canvas).labels().unwrap();
            prop_assert_eq!(labels, expected.as_slice().unwrap());
            prop_assert_eq!(*finite, 1);
        }
    }

    #[test]
    fn what_is_not_finite_is_told() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let merge = Merge::new(2, (1, 3), &Device::Cpu).unwrap();
            let place = Window { top: 0, left: 0, height: 1, width: 3 };
            let values = vec![0.5, bad, 0.5, 0.0, 0.0, 0.0, 0.1, 0.2, 0.6, 0.0, 0.0, 0.0];
            let predicted = Tensor::from_vec(values, (2, 2, 3), &Device::Cpu).unwrap();
            merge.add(&place, &predicted).unwrap();
            let labels = merge.labels().unwrap().to_vec1::<u8>().unwrap();
            assert_eq!((labels[0], labels[2], labels[3]), (0, 1, 0));
        }
    }
}
