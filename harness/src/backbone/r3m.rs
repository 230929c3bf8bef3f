//! R3M (Nair et al., arXiv 2203.12601): a ResNet (He et al., arXiv 1512.03385; torchvision's, with the stride in
//! the 3x3 convolution) trained on videos of people, for robots. Its feature is the mean of the last stage over the
//! image: one summary token and no token grid, so that dense tasks are not for it. Its four stages are
//! its blocks; a tap gives the mean of a stage, whose width is its own.
//!
//! Our own encoder: that of candle-transformers runs its batch norms apart and on other kernels, and returns no
//! stage. Here they are multiplied into the convolutions when those are loaded.
//!
//! ```text
//! pixio-eval features robot.jpg --backbone r3m/model.pt --arch r3m-50 --out robot.safetensors
//! ```

use candle_core::{DType, Result, Tensor};
use schema::Fingerprint;
use serde::Serialize;
use serde_json::Value;

use super::config::Fields;
use super::families::Architecture;
use super::{Backbone, BackboneError, Dimensions, Placement, Tap, Wanted, check};
use crate::weights::{Canonical, Expected, NameMap, Weights, WeightsError};

/// Epsilon of every batch norm.
const EPS: f64 = 1e-5;
/// Channels of the stem, and of the first stage's inner convolutions.
const STEM: usize = 64;
/// Pixels of the image under one of the last stage, a side.
const STRIDE: usize = 32;
const STAGES: usize = 4;

/// How a ResNet is made.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Make {
    /// Blocks of each stage.
    depths: [usize; STAGES],
    /// Whether a block is 1x1, 3x3 and 1x1 with four times the channels, and not 3x3 twice.
    bottleneck: bool,
}

/// A convolution with the batch norm after it.
struct Shape {
    name: String,
    norm: String,
    channels: (usize, usize),
    kernel: usize,
    stride: usize,
}

/// Reads `depths` and `layer_type` as transformers' `config.json` of `resnet` has them.
pub(super) fn from_config(config: &Value) -> std::result::Result<Make, String> {
    let choices = [("bottleneck", true), ("basic", false)];
    let bottleneck = Fields::of(config).choice("layer_type", &choices)?;
    let depths = match config.get("depths") {
        None => [3, 4, 6, 3],
        Some(given) => {
            let depths: Option<[usize; STAGES]> = serde_json::from_value(given.clone()).ok();
            depths.filter(|depths| !depths.contains(&0)).ok_or_else(|| {
                format!("depths is {given}; expected {STAGES} positive whole numbers")
            })?
        }
    };
    Ok(Make { depths, bottleneck })
}

impl Make {
    /// Channels of a stage's result.
    fn width(&self, stage: usize) -> usize {
        (STEM << stage) * if self.bottleneck { 4 } else { 1 }
    }

    fn stem() -> Shape {
        let (name, norm) = ("conv1".to_owned(), "bn1".to_owned());
        Shape { name, norm, channels: (3, STEM), kernel: 7, stride: 2 }
    }

    /// The convolutions of one block, in order, and that of its short cut where shapes change.
    fn block(&self, stage: usize, i: usize) -> (Vec<Shape>, Option<Shape>) {
        let (inner, out) = (STEM << stage, self.width(stage));
        let stride = if stage > 0 && i == 0 { 2 } else { 1 };
        let before = match (stage, i) {
            (0, 0) => STEM,
            (_, 0) => self.width(stage - 1),
            _ => out,
        };
        let at = |part: &str| format!("layer{}.{i}.{part}", stage + 1);
        let shape = |number: usize, channels, kernel, stride| Shape {
            name: at(&format!("conv{number}")),
            norm: at(&format!("bn{number}")),
            channels,
            kernel,
            stride,
        };
        let convolutions = match self.bottleneck {
            true => vec![
                shape(1, (before, inner), 1, 1),
                shape(2, (inner, inner), 3, stride),
                shape(3, (inner, out), 1, 1),
            ],
            false => vec![shape(1, (before, inner), 3, stride), shape(2, (inner, inner), 3, 1)],
        };
        let short = (stride != 1 || before != out).then(|| Shape {
            name: at("downsample.0"),
            norm: at("downsample.1"),
            channels: (before, out),
            kernel: 1,
            stride,
        });
        (convolutions, short)
    }

    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.depths
            .iter()
            .enumerate()
            .flat_map(|(stage, &depth)| (0..depth).map(move |i| (stage, i)))
    }
}

impl Architecture for Make {
    fn family(&self) -> &'static str {
        "r3m"
    }

    fn dimensions(&self) -> Dimensions {
        Dimensions {
            blocks: STAGES,
            width: self.width(STAGES - 1),
            patch: STRIDE,
            resolution: 224,
            summary_tokens: 1,
            registers: 0,
            patches: false,
            pooled: None,
        }
    }

    fn expected(&self) -> Vec<Expected> {
        let mut all = Vec::new();
        let mut add = |shape: Shape| {
            let Shape { name, norm, channels: (inputs, outputs), kernel, .. } = shape;
            let weight = vec![outputs, inputs, kernel, kernel];
            all.push(Expected { name: format!("{name}.weight"), shape: weight });
            for part in ["weight", "bias", "running_mean", "running_var"] {
                all.push(Expected { name: format!("{norm}.{part}"), shape: vec![outputs] });
            }
        };
        add(Self::stem());
        for (stage, i) in self.blocks() {
            let (convolutions, short) = self.block(stage, i);
            convolutions.into_iter().chain(short).for_each(&mut add);
        }
        all
    }

    fn names(&self) -> NameMap {
        canonical
    }

    fn fingerprint(&self) -> Fingerprint {
        schema::fingerprint(&("r3m", self))
    }

    fn positions(&self) -> String {
        "none".to_owned()
    }

    fn flops(&self, height: usize, width: usize) -> Option<f64> {
        let cost = |shape: &Shape, stride: usize| {
            let Shape { channels: (inputs, outputs), kernel, .. } = *shape;
            (inputs * outputs * kernel.pow(2) * (height / stride) * (width / stride)) as f64
        };
        let mut all = cost(&Self::stem(), 2);
        // The pixels of a stage's result are of stride 4, 8, 16 and 32.
        for (stage, i) in self.blocks() {
            let (convolutions, short) = self.block(stage, i);
            let mut stride = if stage > 0 && i == 0 { 2 << stage } else { 4 << stage };
            for shape in &convolutions {
                stride = if shape.stride == 2 { 4 << stage } else { stride };
                all += cost(shape, stride);
            }
            all += short.map_or(0.0, |short| cost(&short, 4 << stage));
        }
        Some(2.0 * all)
    }

    fn load(
        &self,
        weights: &Weights,
        placement: &Placement,
    ) -> std::result::Result<Box<dyn Backbone>, WeightsError> {
        let load = |shape: Shape| Convolution::load(weights, shape, placement);
        let mut stages: Vec<Vec<Residual>> = (0..STAGES).map(|_| Vec::new()).collect();
        for (stage, i) in self.blocks() {
            let (convolutions, short) = self.block(stage, i);
            stages[stage].push(Residual {
                convolutions: convolutions
                    .into_iter()
                    .map(load)
                    .collect::<std::result::Result<_, _>>()?,
                short: short.map(load).transpose()?,
            });
        }
        Ok(Box::new(ResNet { dimensions: self.dimensions(), stem: load(Self::stem())?, stages }))
    }
}

/// Names of torchvision, with or without what the authors' model puts before them. The classifier and
/// the part that learned from language are not part of the encoder.
fn canonical(raw: &str) -> Canonical {
    let name = raw.strip_prefix("module.").unwrap_or(raw);
    let outside = ["lang_enc.", "lang_rew."];
    if outside.iter().any(|start| name.starts_with(start)) {
        return Canonical::Ignored;
    }
    let name = name.strip_prefix("convnet.").unwrap_or(name);
    if name.starts_with("fc.") || name.ends_with(".num_batches_tracked") {
        return Canonical::Ignored;
    }
    let starts = ["conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4."];
    match starts.iter().any(|start| name.starts_with(start)) {
        true => Canonical::Whole(name.to_owned()),
        false => Canonical::Unknown,
    }
}

/// A convolution with its batch norm multiplied in.
struct Convolution {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    padding: usize,
}

impl Convolution {
    fn load(
        weights: &Weights,
        shape: Shape,
        placement: &Placement,
    ) -> std::result::Result<Self, WeightsError> {
        let Shape { name, norm, kernel, stride, .. } = shape;
        let get = |name: String| weights.load(&name, DType::F32, &placement.device);
        let weight = get(format!("{name}.weight"))?;
        let part = |part: &str| get(format!("{norm}.{part}"));
        let (gamma, beta) = (part("weight")?, part("bias")?);
        let (mean, variance) = (part("running_mean")?, part("running_var")?);
        let folded = || -> Result<(Tensor, Tensor)> {
            let scale = (gamma / (variance + EPS)?.sqrt()?)?;
            let weight = weight.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?;
            let bias = (beta - (mean * scale)?)?;
            Ok((weight.to_dtype(placement.dtype)?, bias.to_dtype(placement.dtype)?))
        };
        let (weight, bias) =
            folded().map_err(|source| WeightsError::Convert { name: name.clone(), source })?;
        Ok(Self { weight, bias, stride, padding: kernel / 2 })
    }

    /// `[B, C, H, W] -> [B, O, H / stride, W / stride]`, in the weight's dtype.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::conv2d(x, &self.weight, Some(&self.bias), self.stride, self.padding)
    }

    /// As [`Convolution::forward`] of `max(x, 0)`.
    fn after_relu(&self, x: &Tensor) -> Result<Tensor> {
        ops::relu_conv2d(x, &self.weight, Some(&self.bias), self.stride, self.padding)
    }
}

/// `relu(short(x) + convolutions(x))`.
struct Residual {
    convolutions: Vec<Convolution>,
    short: Option<Convolution>,
}

impl Residual {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = x.clone();
        for (i, convolution) in self.convolutions.iter().enumerate() {
            y = if i == 0 { convolution.forward(&y)? } else { convolution.after_relu(&y)? };
        }
        let short = match &self.short {
            Some(short) => short.forward(x)?,
            None => x.clone(),
        };
        ops::relu(&(y + short)?)
    }
}

/// The encoder.
struct ResNet {
    dimensions: Dimensions,
    stem: Convolution,
    stages: Vec<Vec<Residual>>,
}

impl Backbone for ResNet {
    fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    fn forward(
        &self,
        images: &Tensor,
        blocks: &[usize],
        wanted: Wanted,
    ) -> std::result::Result<Vec<Tap>, BackboneError> {
        check(images, blocks, &self.dimensions)?;
        let Some(&last) = blocks.iter().max() else { return Ok(Vec::new()) };
        let x = ops::relu(&self.stem.forward(images)?)?;
        // Nothing is below 0, so that zeros around the image never win.
        let padded = x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
        let mut x = padded.max_pool2d_with_stride(3, 2)?;
        let mut means = Vec::new();
        for stage in &self.stages[..=last] {
            for block in stage {
                x = block.forward(&x)?;
            }
            means.push(x.to_dtype(DType::F32)?.flatten_from(2)?.mean(2)?.unsqueeze(1)?);
        }
        let tap = |&block: &usize| Tap {
            block,
            grid: None,
            patches: None,
            patches_norm: None,
            summary: wanted.summary.then(|| means[block].clone()),
            summary_norm: wanted.summary_norm.then(|| means[block].clone()),
            pooled: None,
        };
        Ok(blocks.iter().map(tap).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Billions of multiply-adds at 224 pixels, as torchvision's documentation has them with the classifier's
    /// few millions.
    #[test]
    fn operations_are_those_torchvision_publishes() {
        for (depths, kind, billions) in [
            ([2, 2, 2, 2], "basic", 1.81),
            ([3, 4, 6, 3], "basic", 3.66),
            ([3, 4, 6, 3], "bottleneck", 4.09),
        ] {
            let make = from_config(&serde_json::json!({ "depths": depths, "layer_type": kind }));
            let flops = make.unwrap().flops(224, 224).unwrap();
            assert!((flops / 2e9 - billions).abs() < 0.01, "{kind} {depths:?}: {}", flops / 2e9);
        }
    }
}
