use candle_core::DType;
use ops::{Images, Tape};

use super::LoadProblem;
use super::head::{DenseHead, HeadConfig, Made};
use super::weights::{BatchNorm, Builder, Conv, Variable};

/// Batch norm, then a 1x1 convolution, on one tap.
pub(super) struct Linear {
    config: HeadConfig,
    dtype: DType,
    norm: BatchNorm,
    conv: Conv,
    parameters: Vec<Variable>,
    statistics: Vec<Variable>,
}

impl Linear {
    pub(super) fn build(
        config: &HeadConfig,
        dtype: DType,
        mut from: Builder<'_>,
    ) -> Result<Self, LoadProblem> {
        let norm = from.batch_norm("0", config.width)?;
        let conv = from.conv("1", [config.width, config.outputs], 1)?;
        from.finish()?;
        let Builder { parameters, statistics, .. } = from;
        Ok(Self { config: config.clone(), dtype, norm, conv, parameters, statistics })
    }
}

impl DenseHead for Linear {
    fn config(&self) -> &HeadConfig {
        &self.config
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn run(&self, taps: &[Images], tape: &mut Tape) -> candle_core::Result<Made> {
        let (x, statistics) = self.norm.forward(&taps[0], tape)?;
        Ok(Made { logits: self.conv.forward(&x, tape)?, statistics })
    }

    fn parameters(&self) -> &[Variable] {
        &self.parameters
    }

    fn statistics(&self) -> &[Variable] {
        &self.statistics
    }
}
