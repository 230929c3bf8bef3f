//! Steps of training whose losses are read later, so that a GPU is not waited for at every one.

use candle_core::{Result, Tensor};

/// Losses of steps since they were last read.
#[derive(Default)]
pub(super) struct Later {
    /// Of steps whose loss and gradient are known to be finite.
    known: Vec<f32>,
    /// Of steps on another device, with what watched over each.
    there: Vec<[Tensor; 2]>,
}

/// A step that found something not finite, on another device. It and all after it changed nothing.
pub(super) struct Failed {
    /// Steps from the failed one on.
    pub(super) steps: u64,
    /// Its loss, which may be finite.
    pub(super) loss: f32,
}

impl Later {
    pub(super) fn know(&mut self, loss: f32) {
        self.known.push(loss);
    }

    /// Notes a step's loss and what else of it must be finite, all scalars on one device. Returns what is NaN
    /// there if something of this step, or of one before since the last reading, was not finite, and 0 else.
    pub(super) fn watch(&mut self, loss: Tensor, others: &[Tensor]) -> Result<Tensor> {
        let mut watch = (&loss * 0.0)?;
        for other in others {
            watch = (watch + (other * 0.0)?)?;
        }
        if let Some([_, before]) = self.there.last() {
            watch = (watch + before)?;
        }
        self.there.push([loss, watch.clone()]);
        Ok(watch)
    }

    /// The losses, which are forgotten.
    pub(super) fn read(&mut self) -> Result<std::result::Result<Vec<f32>, Failed>> {
        let mut losses = std::mem::take(&mut self.known);
        let there = std::mem::take(&mut self.there);
        if there.is_empty() {
            return Ok(Ok(losses));
        }
        let values = Tensor::stack(&there.concat(), 0)?.to_vec1::<f32>()?;
        let pairs = values.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        if let Some((step, (loss, _))) = pairs.clone().enumerate().find(|(_, (_, w))| w.is_nan()) {
            return Ok(Err(Failed { steps: (there.len() - step) as u64, loss }));
        }
        losses.extend(pairs.map(|(loss, _)| loss));
        Ok(Ok(losses))
    }
}

/// `moved` where `watch` is no NaN, else `before`.
pub(super) fn unless_nan(watch: &Tensor, moved: &Tensor, before: &Tensor) -> Result<Tensor> {
    watch.eq(watch)?.broadcast_as(moved.shape())?.where_cond(moved, before)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn scalar(value: f32) -> Tensor {
        Tensor::new(value, &Device::Cpu).unwrap()
    }

    #[test]
    fn losses_come_in_order_and_the_first_failure_is_found() {
        let mut later = Later::default();
        later.know(3.0);
        let watch = later.watch(scalar(2.0), &[scalar(1.0), scalar(-5.0)]).unwrap();
        assert_eq!(watch.to_scalar::<f32>().unwrap(), 0.0);
        assert_eq!(later.read().unwrap().ok().unwrap(), [3.0, 2.0]);
        assert!(later.read().unwrap().ok().unwrap().is_empty());

        let (old, new) =
            (Tensor::new(&[1_f32, 2.0], &Device::Cpu), Tensor::new(&[5_f32, 6.0], &Device::Cpu));
        let (old, new) = (old.unwrap(), new.unwrap());
        let kept =
            |watch: &Tensor| unless_nan(watch, &new, &old).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(kept(&later.watch(scalar(1.0), &[]).unwrap()), [5.0, 6.0]);
        assert_eq!(kept(&later.watch(scalar(4.0), &[scalar(f32::INFINITY)]).unwrap()), [1.0, 2.0]);
        assert_eq!(kept(&later.watch(scalar(2.0), &[scalar(1.0)]).unwrap()), [1.0, 2.0]);
        let failed = later.read().unwrap().err().unwrap();
        assert_eq!((failed.steps, failed.loss), (2, 4.0));
    }
}
