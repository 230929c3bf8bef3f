use std::borrow::Cow;
use std::collections::BTreeMap;

use candle_core::DType;
use tasks::random::Stream;

use super::{Element, Expected, TensorInfo, TensorSource, WeightsError};

/// Seeded random weights, the same on every platform.
///
/// Matrices are uniform within sqrt(6 / (fan_in + fan_out)) (Glorot), tokens and positions uniform
/// with standard deviation 0.02, scales of norms and LayerScale 1 as variances of batch norms, biases 0. Elements `4i` to `4i + 3` of
/// tensor `t` (in name order) come from counter `(i, t)` alone.
pub struct RandomSource {
    seed: u64,
    expected: BTreeMap<String, Vec<usize>>,
}

impl RandomSource {
    /// Weights for every expected tensor.
    pub fn new(seed: u64, expected: &[Expected]) -> Self {
        let expected = expected.iter().map(|e| (e.name.clone(), e.shape.clone())).collect();
        Self { seed, expected }
    }
}

impl TensorSource for RandomSource {
    fn names(&self) -> Vec<String> {
        self.expected.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let shape = self.expected.get(name)?.clone();
        Some(TensorInfo { element: Element::Real(DType::F32), shape })
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightsError> {
        let shape = self.expected.get(name).cloned().unwrap_or_default();
        let index = self.expected.keys().position(|k| k == name).unwrap_or_default() as u32;
        let count: usize = shape.iter().product();
        let constant = |x: f32| Ok(Cow::Owned(x.to_le_bytes().repeat(count)));
        let ones = ["weight", "gamma", "running_var"].iter().any(|end| name.ends_with(end));
        let bound = match shape.as_slice() {
            [_] if ones => return constant(1.0),
            [_] => return constant(0.0),
            [out, fan_in @ ..] if name.ends_with("weight") => {
                (6.0 / (out + fan_in.iter().product::<usize>()) as f64).sqrt()
            }
            _ => 0.02 * 3f64.sqrt(),
        };
        let stream = Stream::new(self.seed);
        let mut bytes = Vec::with_capacity(count * 4 + 16);
        for block in 0..count.div_ceil(4) as u64 {
            let words = stream.at([block as u32, (block >> 32) as u32, index, 0]);
            for word in words {
                let unit = f64::from(word) / 4_294_967_296.0;
                let value = ((2.0 * unit - 1.0) * bound) as f32;
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        bytes.truncate(count * 4);
        Ok(Cow::Owned(bytes))
    }

    fn describe(&self) -> String {
        format!("random weights (seed {})", self.seed)
    }
}
