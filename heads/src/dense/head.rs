use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Tensor};
use ops::{Gradients, Images, Tape};
use schema::HeadStage;

use super::dpt::Dpt;
use super::input::shape;
use super::linear::Linear;
use super::weights::{Builder, Draw, Source, Variable};
use super::{HeadError, LoadProblem, file};

/// The kinds of dense head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// Batch norm and a 1x1 convolution on one tap.
    Linear,
    /// Four taps, reassembled and fused.
    Dpt,
}

/// A head's architecture (PROTOCOL section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Batch norm and a 1x1 convolution on one tap.
    Linear,
    /// Four taps, reassembled and fused.
    Dpt {
        /// Channels of the four reassembled maps.
        channels: [usize; 4],
        /// Channels of the fusion.
        features: usize,
    },
}

impl From<&HeadStage> for Architecture {
    fn from(stage: &HeadStage) -> Self {
        match *stage {
            HeadStage::Linear { .. } => Self::Linear,
            HeadStage::Dpt { channels, features, .. } => Self::Dpt { channels, features },
        }
    }
}

/// Everything that decides a head's tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadConfig {
    /// The architecture.
    pub architecture: Architecture,
    /// Channels of each tap: 2D where the summary mean is joined (see [`assemble`](super::assemble)).
    pub width: usize,
    /// Outputs a pixel: 1 for depth, the number of classes for segmentation.
    pub outputs: usize,
}

impl HeadConfig {
    /// Taps the head takes.
    pub fn taps(&self) -> usize {
        match self.architecture {
            Architecture::Linear => 1,
            Architecture::Dpt { .. } => 4,
        }
    }

    fn build(&self, dtype: DType, from: Builder<'_>) -> Result<Box<dyn DenseHead>, LoadProblem> {
        Ok(match self.architecture {
            Architecture::Linear => Box::new(Linear::build(self, dtype, from)?),
            Architecture::Dpt { channels, features } => {
                Box::new(Dpt::build(self, channels, features, dtype, from)?)
            }
        })
    }
}

/// What a head computed.
pub struct Forward {
    /// `[B, outputs, h, w]` at the head's own resolution, without a graph.
    pub logits: Tensor,
    /// When training, what each of [`DenseHead::statistics`] becomes once the step is taken.
    pub statistics: Vec<Tensor>,
    made: Images,
    tape: Tape,
}

impl Forward {
    /// Gradients of the head's parameters from that of the logits.
    ///
    /// # Errors
    /// If the head was not training, or the shape is another.
    pub fn gradients(self, of_logits: &Tensor) -> Result<Gradients, HeadError> {
        Ok(self.tape.gradients(&self.made, of_logits)?)
    }
}

/// What a kind of head makes on a tape: `[B, outputs, h, w]` logits, and [`Forward::statistics`].
pub struct Made {
    /// The logits.
    pub logits: Images,
    /// The statistics.
    pub statistics: Vec<Tensor>,
}

/// A head on frozen patch features.
pub trait DenseHead: Send + Sync {
    /// Architecture and widths.
    fn config(&self) -> &HeadConfig;

    /// The type in which convolutions compute.
    fn dtype(&self) -> DType;

    /// The head itself, on taps as [`DenseHead::forward`] takes them; it is in training if the tape records.
    ///
    /// # Errors
    /// If the device fails.
    fn run(&self, taps: &[Images], tape: &mut Tape) -> candle_core::Result<Made>;

    /// Logits from the head's taps, shallow to deep, each `[B, width, h, w]`.
    ///
    /// With `train`, batch statistics are used and the result remembers what the parameters' gradients take; the
    /// running statistics are not changed but returned. Without, nothing is remembered.
    ///
    /// # Errors
    /// If the taps are not what the head takes.
    fn forward(&self, taps: &[Tensor], train: bool) -> Result<Forward, HeadError> {
        let device = taps.first().map_or(&Device::Cpu, Tensor::device);
        self.forward_on(taps, Tape::on(device, self.dtype(), train))
    }

    /// [`DenseHead::forward`] on a tape.
    ///
    /// # Errors
    /// As [`DenseHead::forward`].
    fn forward_on(&self, taps: &[Tensor], mut tape: Tape) -> Result<Forward, HeadError> {
        check_taps(self.config(), taps)?;
        let taps: Vec<Images> =
            taps.iter().map(|tap| tape.enter(tap)).collect::<candle_core::Result<_>>()?;
        let Made { logits: made, statistics } = self.run(&taps, &mut tape)?;
        Ok(Forward { logits: tape.leave(&made)?, statistics, made, tape })
    }

    /// The trained tensors, f32, in the order in which they are drawn.
    fn parameters(&self) -> &[Variable];

    /// Running statistics: saved with the head, not trained.
    fn statistics(&self) -> &[Variable];

    /// Every tensor by name, copied.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    fn tensors(&self) -> Result<BTreeMap<String, Tensor>, HeadError> {
        self.parameters()
            .iter()
            .chain(self.statistics())
            .map(|v| Ok((v.name.clone(), v.var.as_detached_tensor().copy()?)))
            .collect()
    }
}

/// A new head, initialised as PyTorch does by default: convolutions uniform within 1/sqrt(fan_in),
/// batch norm 1 and 0.
///
/// Convolutions compute in `dtype` (f32, or bf16 or f16 as under autocast); the tensors are f32.
///
/// # Errors
/// If a tensor cannot be made on `device`.
pub fn initialise(
    config: &HeadConfig,
    dtype: DType,
    device: &Device,
    draw: &mut Draw<'_>,
) -> Result<Box<dyn DenseHead>, HeadError> {
    let mut draw = |tensor: usize, element: usize| draw(tensor, element);
    let from = Builder::new(Source::Draw(&mut draw), device);
    config
        .build(dtype, from)
        .map_err(|problem| HeadError::Load { origin: "a new head".into(), problem })
}

/// What a saved head has to be; the other widths are read from its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The kind of head.
    pub kind: HeadKind,
    /// Channels of each tap.
    pub width: usize,
    /// Outputs a pixel.
    pub outputs: usize,
}

/// A head from a safetensors file with the names of PROTOCOL section 5, without prefix.
///
/// # Errors
/// [`HeadError::Load`], naming the file and what is wrong with it.
pub fn load(
    path: &Path,
    expected: Expected,
    dtype: DType,
    device: &Device,
) -> Result<Box<dyn DenseHead>, HeadError> {
    let tensors = std::fs::read(path).map_err(LoadProblem::from).and_then(|b| file::decode(&b));
    let tensors = tensors.map_err(|problem| HeadError::Load { origin: path.into(), problem })?;
    from_tensors(path, tensors, expected, dtype, device)
}

/// A head from named tensors of any float type; `origin` says in errors where they came from.
///
/// PyTorch's `num_batches_tracked` is passed over.
///
/// # Errors
/// [`HeadError::Load`], naming the origin and what is wrong with the tensors.
pub fn from_tensors(
    origin: &Path,
    tensors: BTreeMap<String, Tensor>,
    expected: Expected,
    dtype: DType,
    device: &Device,
) -> Result<Box<dyn DenseHead>, HeadError> {
    read(tensors, expected, dtype, device)
        .map_err(|problem| HeadError::Load { origin: origin.into(), problem })
}

const LINEAR_MARKER: &str = "1.weight";
const DPT_MARKER: &str = "projects.0.weight";

fn read(
    mut tensors: BTreeMap<String, Tensor>,
    expected: Expected,
    dtype: DType,
    device: &Device,
) -> Result<Box<dyn DenseHead>, LoadProblem> {
    let found = if tensors.contains_key(DPT_MARKER) {
        Some(HeadKind::Dpt)
    } else {
        tensors.contains_key(LINEAR_MARKER).then_some(HeadKind::Linear)
    };
    if found != Some(expected.kind) {
        let name = |kind| match kind {
            HeadKind::Linear => ("linear", LINEAR_MARKER),
            HeadKind::Dpt => ("dpt", DPT_MARKER),
        };
        let (kind, marker) = name(expected.kind);
        let found = found.map_or("neither kind of head", |kind| name(kind).0);
        return Err(LoadProblem::Kind { expected: kind, marker, found });
    }
    tensors.remove("0.num_batches_tracked");
    let size = |name: &str, axis: usize| {
        let missing = || LoadProblem::Missing { name: name.to_owned() };
        let dims = tensors.get(name).ok_or_else(missing)?.dims();
        dims.get(axis).copied().filter(|_| dims.len() == 4).ok_or_else(|| LoadProblem::Shape {
            name: name.to_owned(),
            expected: vec![expected.outputs, expected.width, 1, 1],
            found: dims.to_vec(),
        })
    };
    let (width, outputs, architecture) = match expected.kind {
        HeadKind::Linear => {
            (size(LINEAR_MARKER, 1)?, size(LINEAR_MARKER, 0)?, Architecture::Linear)
        }
        HeadKind::Dpt => {
            let channels = [
                size(DPT_MARKER, 0)?,
                size("projects.1.weight", 0)?,
                size("projects.2.weight", 0)?,
                size("projects.3.weight", 0)?,
            ];
            let features = size("scratch.layer1_rn.weight", 0)?;
            let outputs = size("scratch.output_conv.2.weight", 0)?;
            (size(DPT_MARKER, 1)?, outputs, Architecture::Dpt { channels, features })
        }
    };
    if width != expected.width {
        return Err(LoadProblem::Width { expected: expected.width, found: width });
    }
    if outputs != expected.outputs {
        return Err(LoadProblem::Outputs { expected: expected.outputs, found: outputs });
    }
    let config = HeadConfig { architecture, width, outputs };
    config.build(dtype, Builder::new(Source::Saved(tensors), device))
}

/// Refuses taps of another number, width or grid than the head takes.
fn check_taps(config: &HeadConfig, taps: &[Tensor]) -> Result<(), HeadError> {
    if taps.len() != config.taps() {
        return Err(HeadError::TapCount { expected: config.taps(), found: taps.len() });
    }
    for tap in taps {
        if !matches!(tap.dims(), &[_, width, _, _] if width == config.width)
            || tap.dims() != taps[0].dims()
        {
            let expected = format!("[B, {}, h, w] alike in every tap", config.width);
            return Err(shape("features", expected, tap));
        }
    }
    Ok(())
}
