use candle_core::{DType, Tensor};

use super::head::{DenseHead, Forward, HeadConfig, check_taps};
use super::weights::{BatchNorm, Builder, Conv, Mode, Variable};
use super::{HeadError, LoadProblem};

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

    pub(super) fn run(&self, taps: &[Tensor], mode: Mode) -> candle_core::Result<Forward> {
        let (x, statistics) = self.norm.forward(&mode.format.enter(&taps[0])?, mode)?;
        let logits = mode.format.leave(&self.conv.forward(&x, mode)?)?;
        Ok(Forward { logits, statistics })
    }
}

impl DenseHead for Linear {
    fn config(&self) -> &HeadConfig {
        &self.config
    }

    fn forward(&self, taps: &[Tensor], train: bool) -> Result<Forward, HeadError> {
        check_taps(&self.config, taps)?;
        Ok(self.run(taps, Mode::new(train, self.dtype, taps))?)
    }

    fn parameters(&self) -> &[Variable] {
        &self.parameters
    }

    fn statistics(&self) -> &[Variable] {
        &self.statistics
    }
}
