use candle_core::DType;
use ops::{Images, Tape};

use super::LoadProblem;
use super::head::{DenseHead, HeadConfig, Made};
use super::weights::{Builder, Conv, Transposed, Variable};

/// Dense prediction transformer head (Ranftl et al., arXiv 2103.13413, section 3): four taps are
/// reassembled to four scales and fused from deep to shallow. No batch norm.
pub(super) struct Dpt {
    config: HeadConfig,
    dtype: DType,
    levels: [Level; 4],
    /// Shallow to deep, as the levels.
    fusions: [Fusion; 4],
    output: [Conv; 2],
    parameters: Vec<Variable>,
}

impl Dpt {
    pub(super) fn build(
        config: &HeadConfig,
        channels: [usize; 4],
        features: usize,
        dtype: DType,
        mut from: Builder<'_>,
    ) -> Result<Self, LoadProblem> {
        let b = &mut from;
        let [c0, c1, c2, c3] = channels;
        let p0 = b.conv("projects.0", [config.width, c0], 1)?;
        let p1 = b.conv("projects.1", [config.width, c1], 1)?;
        let p2 = b.conv("projects.2", [config.width, c2], 1)?;
        let p3 = b.conv("projects.3", [config.width, c3], 1)?;
        let s0 = Scale::Enlarge(b.transposed("resize_layers.0", c0, 4)?);
        let s1 = Scale::Enlarge(b.transposed("resize_layers.1", c1, 2)?);
        let mut halve = b.conv("resize_layers.3", [c3, c3], 3)?;
        halve.stride = 2;
        let r0 = b.conv_without_bias("scratch.layer1_rn", [c0, features], 3)?;
        let r1 = b.conv_without_bias("scratch.layer2_rn", [c1, features], 3)?;
        let r2 = b.conv_without_bias("scratch.layer3_rn", [c2, features], 3)?;
        let r3 = b.conv_without_bias("scratch.layer4_rn", [c3, features], 3)?;
        let fusions = [
            Fusion::build(b, "scratch.refinenet1", features)?,
            Fusion::build(b, "scratch.refinenet2", features)?,
            Fusion::build(b, "scratch.refinenet3", features)?,
            Fusion::build(b, "scratch.refinenet4", features)?,
        ];
        let output = [
            b.conv("scratch.output_conv.0", [features, features], 3)?,
            b.conv("scratch.output_conv.2", [features, config.outputs], 1)?,
        ];
        from.finish()?;
        Ok(Self {
            config: config.clone(),
            dtype,
            levels: [
                Level { project: p0, scale: s0, reduce: r0 },
                Level { project: p1, scale: s1, reduce: r1 },
                Level { project: p2, scale: Scale::Keep, reduce: r2 },
                Level { project: p3, scale: Scale::Halve(halve), reduce: r3 },
            ],
            fusions,
            output,
            parameters: from.parameters,
        })
    }
}

impl DenseHead for Dpt {
    fn config(&self) -> &HeadConfig {
        &self.config
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn run(&self, taps: &[Images], tape: &mut Tape) -> candle_core::Result<Made> {
        let maps: Vec<Images> = self
            .levels
            .iter()
            .zip(taps)
            .map(|(level, tap)| level.forward(tap, tape))
            .collect::<candle_core::Result<_>>()?;
        let [f0, f1, f2, f3] = &self.fusions;
        let [m0, m1, m2, m3] = &maps[..] else {
            candle_core::bail!("expected four taps, found {}", maps.len());
        };
        let (h, w) = tape.size(m0)?;
        let mut path = f3.forward(None, m3, tape.size(m2)?, tape)?;
        path = f2.forward(Some(&path), m2, tape.size(m1)?, tape)?;
        path = f1.forward(Some(&path), m1, tape.size(m0)?, tape)?;
        path = f0.forward(Some(&path), m0, (2 * h, 2 * w), tape)?;
        let x = self.output[0].forward(&path, tape)?;
        let logits = self.output[1].after_relu(&x, tape)?;
        Ok(Made { logits, statistics: Vec::new() })
    }

    fn parameters(&self) -> &[Variable] {
        &self.parameters
    }

    fn statistics(&self) -> &[Variable] {
        &[]
    }
}

/// From a tap to a map of the fusion's width at its own scale.
struct Level {
    project: Conv,
    scale: Scale,
    reduce: Conv,
}

enum Scale {
    Enlarge(Transposed),
    Keep,
    Halve(Conv),
}

impl Level {
    fn forward(&self, tap: &Images, tape: &mut Tape) -> candle_core::Result<Images> {
        let x = self.project.forward(tap, tape)?;
        let x = match &self.scale {
            Scale::Enlarge(conv) => conv.forward(&x, tape)?,
            Scale::Keep => x,
            Scale::Halve(conv) => conv.forward(&x, tape)?,
        };
        self.reduce.forward(&x, tape)
    }
}

/// Adds a level to the path from the deeper ones and enlarges it to the next level's size.
struct Fusion {
    /// The deepest block has this unit too, though nothing passes through it.
    skip: ResidualUnit,
    path: ResidualUnit,
    out: Conv,
}

impl Fusion {
    fn build(b: &mut Builder<'_>, name: &str, features: usize) -> Result<Self, LoadProblem> {
        let out = b.conv(&format!("{name}.out_conv"), [features, features], 1)?;
        let skip = ResidualUnit::build(b, &format!("{name}.resConfUnit1"), features)?;
        let path = ResidualUnit::build(b, &format!("{name}.resConfUnit2"), features)?;
        Ok(Self { skip, path, out })
    }

    fn forward(
        &self,
        deeper: Option<&Images>,
        map: &Images,
        (height, width): (usize, usize),
        tape: &mut Tape,
    ) -> candle_core::Result<Images> {
        let x = match deeper {
            Some(deeper) => {
                let map = self.skip.forward(map, tape)?;
                tape.add(deeper, &map)?
            }
            None => map.clone(),
        };
        let x = self.path.forward(&x, tape)?;
        // A 1x1 convolution commutes with the resize, whose weights sum to 1, and is a quarter of the work
        // before it. Resizes are f32 whatever the convolutions' type.
        let x = self.out.forward(&x, tape)?;
        tape.resize_bilinear(&x, height, width)
    }
}

/// `x + conv2(relu(conv1(relu(x))))`.
struct ResidualUnit {
    conv1: Conv,
    conv2: Conv,
}

impl ResidualUnit {
    fn build(b: &mut Builder<'_>, name: &str, features: usize) -> Result<Self, LoadProblem> {
        let conv1 = b.conv(&format!("{name}.conv1"), [features, features], 3)?;
        let conv2 = b.conv(&format!("{name}.conv2"), [features, features], 3)?;
        Ok(Self { conv1, conv2 })
    }

    fn forward(&self, x: &Images, tape: &mut Tape) -> candle_core::Result<Images> {
        let y = self.conv1.after_relu(x, tape)?;
        let y = self.conv2.after_relu(&y, tape)?;
        tape.add(x, &y)
    }
}
