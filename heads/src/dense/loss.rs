use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use ops::DeviceLoss;
use schema::Objective;

use super::input::shape;
use super::{HeadError, nll};

/// What the head should have predicted, at the crop's resolution.
#[derive(Clone, Debug)]
pub enum Targets {
    /// Depth, not valid outside the objective's range.
    Depth {
        /// Metres `[B, H, W]`, f32, on the head's device.
        metres: Tensor,
        /// Whether each sample has a valid pixel, if that was seen on the host: then nothing has to be
        /// read back from a GPU to know which groups a loss leaves out.
        valid: Option<Arc<[bool]>>,
    },
    /// Class labels `[B, H, W]`, row-major, on the host.
    Labels {
        /// The labels.
        labels: Arc<[u8]>,
        /// `[B, H, W]`.
        shape: [usize; 3],
        /// The same on the head's device, if that is a GPU and they are there already.
        uploaded: Option<Tensor>,
    },
}

impl Targets {
    /// Depth in metres, `[B, H, W]` f32, on the head's device.
    pub fn depth(metres: Tensor) -> Self {
        Self::Depth { metres, valid: None }
    }

    /// Depth in metres from the host, `[B, H, W]`, row-major, to `device`. Samples are looked through for
    /// pixels within the objective's range.
    ///
    /// # Errors
    /// If the values are not as many as the shape says, or cannot be uploaded.
    pub fn depth_from_host(
        metres: Vec<f32>,
        shape: [usize; 3],
        objective: &Objective,
        device: &Device,
    ) -> candle_core::Result<Self> {
        let valid = match *objective {
            Objective::Depth { min, max } => {
                let within = |&metres: &f32| (min as f32..=max as f32).contains(&metres);
                let samples = metres.chunks((shape[1] * shape[2]).max(1));
                Some(samples.map(|sample| sample.iter().any(within)).collect())
            }
            Objective::Segmentation { .. } => None,
        };
        Ok(Self::Depth { metres: Tensor::from_vec(metres, &shape, device)?, valid })
    }

    /// Class labels `[B, H, W]`, row-major.
    pub fn labels(labels: impl Into<Arc<[u8]>>, shape: [usize; 3]) -> Self {
        Self::Labels { labels: labels.into(), shape, uploaded: None }
    }

    /// The same with labels also on `device`, if that is not the host. Several heads' losses then share
    /// one upload.
    ///
    /// # Errors
    /// If they cannot be uploaded.
    pub fn on(self, device: &Device) -> candle_core::Result<Self> {
        Ok(match self {
            Self::Labels { labels, shape, .. } if !device.is_cpu() => {
                let uploaded = Some(Tensor::from_slice(&labels, &shape, device)?);
                Self::Labels { labels, shape, uploaded }
            }
            other => other,
        })
    }

    /// `[B, H, W]`.
    ///
    /// # Errors
    /// If depth does not have three dimensions, or the labels are not as many as their shape says.
    pub fn shape(&self) -> Result<[usize; 3], HeadError> {
        match self {
            Self::Depth { metres, .. } => {
                let dims: Result<[usize; 3], _> = metres.dims().try_into();
                dims.map_err(|_| shape("target depth", "[B, H, W]".to_owned(), metres))
            }
            Self::Labels { labels, shape, .. }
                if labels.len() == shape.iter().product::<usize>() =>
            {
                Ok(*shape)
            }
            Self::Labels { labels, shape, .. } => Err(HeadError::Shape {
                what: "labels",
                expected: format!("[B, H, W] = {shape:?}"),
                found: vec![labels.len()],
            }),
        }
    }
}

impl Targets {
    /// The targets of `len` samples from `start` on.
    pub(super) fn part(&self, start: usize, len: usize) -> Result<Self, HeadError> {
        let [_, h, w] = self.shape()?;
        Ok(match self {
            Self::Depth { metres, valid } => Self::Depth {
                metres: metres.narrow(0, start, len)?,
                valid: valid.as_ref().and_then(|valid| Some(valid.get(start..start + len)?.into())),
            },
            Self::Labels { labels, uploaded, .. } => Self::Labels {
                labels: labels[start * h * w..(start + len) * h * w].into(),
                shape: [len, h, w],
                uploaded: uploaded.as_ref().map(|all| all.narrow(0, start, len)).transpose()?,
            },
        })
    }
}

/// The loss of a batch.
pub struct Loss {
    /// Mean over the groups with a valid pixel, a scalar without a graph; none if no group has one.
    pub value: Option<Tensor>,
    /// Groups without a valid pixel, which the mean leaves out.
    pub skipped: Vec<usize>,
    gradient: Box<dyn FnOnce(f64) -> candle_core::Result<Tensor> + Send + Sync>,
}

impl Loss {
    /// The gradient of `share` times the loss by the logits, `[B, outputs, h, w]`; none if there is no loss.
    ///
    /// # Errors
    /// If the device fails.
    pub fn gradient(self, share: f64) -> Result<Option<Tensor>, HeadError> {
        Ok(self.value.map(|_| (self.gradient)(share)).transpose()?)
    }

    /// From a loss with a graph to a variable.
    fn of_graph(logits: Var, value: Option<Tensor>, skipped: Vec<usize>) -> Self {
        let detached = value.as_ref().map(Tensor::detach);
        let gradient = move |share: f64| {
            let Some(value) = value else { candle_core::bail!("expected a loss") };
            let gradients = (value * share)?.backward()?;
            match gradients.get(logits.as_tensor()) {
                Some(gradient) => Ok(gradient.clone()),
                None => logits.zeros_like(),
            }
        };
        Self { value: detached, skipped, gradient: Box::new(gradient) }
    }
}

/// Outputs a head needs for `objective`.
pub fn outputs(objective: &Objective) -> usize {
    match *objective {
        Objective::Depth { .. } => 1,
        Objective::Segmentation { classes, .. } => classes,
    }
}

/// The loss of logits `[B, outputs, h, w]`, resized to the targets (bilinear, corners aligned).
///
/// The batch is cut into `groups` runs of as many samples, the loss is taken over the valid pixels of
/// each, and the losses are averaged (PROTOCOL section 3). With d = log target - log max(prediction,
/// min): SiLog, sqrt(mean(d^2) - mean(d)^2 / 2), over pixels with min <= target <= max; or cross
/// entropy over pixels that are not ignored.
///
/// # Errors
/// If targets, logits, objective and groups do not fit each other, or a label is not a class.
pub fn loss(
    logits: &Tensor,
    targets: &Targets,
    objective: &Objective,
    groups: usize,
) -> Result<Loss, HeadError> {
    let [batch, h, w] = targets.shape()?;
    if !matches!(logits.dims(), &[b, c, _, _] if b == batch && c == outputs(objective)) {
        let expected = format!("[{batch}, {}, h, w]", outputs(objective));
        return Err(shape("logits", expected, logits));
    }
    if groups == 0 || !batch.is_multiple_of(groups) {
        return Err(HeadError::Groups { batch, groups });
    }
    if logits.device().is_cuda()
        && let Some(loss) = fused(logits, targets, objective, groups)?
    {
        return Ok(loss);
    }
    let tracked = Var::from_tensor(logits)?;
    let (value, skipped) = match (objective, targets) {
        (&Objective::Depth { min, max }, Targets::Depth { metres: target, .. }) => {
            let prediction = depth(&tracked, (h, w), max)?.squeeze(1)?;
            silog(&prediction, target, [min, max], groups)?
        }
        (&Objective::Segmentation { classes, ignore }, Targets::Labels { labels, .. }) => {
            check_labels(labels, h * w, classes, ignore)?;
            cross_entropy(&resized(&tracked, (h, w))?, labels, ignore, groups)?
        }
        (Objective::Depth { .. }, _) => {
            return Err(HeadError::TargetKind { expected: "depth", found: "labels" });
        }
        (Objective::Segmentation { .. }, _) => {
            return Err(HeadError::TargetKind { expected: "labels", found: "depth" });
        }
    };
    Ok(Loss::of_graph(tracked, value, skipped))
}

/// The loss by the kernels of a GPU, if they serve and the objective fits the targets. Nothing is read back
/// if [`valid_groups`] needs nothing.
fn fused(
    logits: &Tensor,
    targets: &Targets,
    objective: &Objective,
    groups: usize,
) -> Result<Option<Loss>, HeadError> {
    let valid = valid_groups(targets, objective, groups)?;
    let made = match (objective, targets) {
        (&Objective::Depth { min, max }, Targets::Depth { metres, .. }) => {
            ops::silog(logits, metres, [min, max], groups)?
        }
        (
            &Objective::Segmentation { classes, ignore },
            Targets::Labels { labels, shape, uploaded },
        ) => {
            check_labels(labels, shape[1] * shape[2], classes, ignore)?;
            let uploaded = match uploaded {
                Some(uploaded) => uploaded.clone(),
                None => Tensor::from_slice(labels, shape, logits.device())?,
            };
            ops::cross_entropy(logits, &uploaded, ignore, groups)?
        }
        _ => None,
    };
    let skipped: Vec<usize> = (0..valid.len()).filter(|&group| !valid[group]).collect();
    let some = skipped.len() < valid.len();
    Ok(made.map(|DeviceLoss { value, gradient }| Loss {
        value: some.then_some(value),
        skipped,
        gradient,
    }))
}

/// Which of a batch's groups have a valid pixel.
pub(super) fn valid_groups(
    targets: &Targets,
    objective: &Objective,
    groups: usize,
) -> Result<Vec<bool>, HeadError> {
    match (targets, objective) {
        (Targets::Depth { valid: Some(valid), .. }, Objective::Depth { .. })
            if groups > 0 && valid.len() >= groups =>
        {
            let groups = valid.chunks(valid.len() / groups);
            Ok(groups.map(|group| group.contains(&true)).collect())
        }
        (Targets::Depth { metres: target, .. }, &Objective::Depth { min, max }) => {
            let counts = group_sums(&in_range(target, [min, max])?.to_dtype(DType::F32)?, groups)?;
            Ok(counts.to_vec1::<f32>()?.into_iter().map(|count| count > 0.0).collect())
        }
        (Targets::Labels { labels, .. }, &Objective::Segmentation { ignore, .. }) => {
            let groups = labels.chunks((labels.len() / groups).max(1));
            Ok(groups.map(|group| group.iter().any(|&label| label != ignore)).collect())
        }
        // The loss says what does not fit.
        _ => Ok(vec![true; groups]),
    }
}

/// What sliding windows sum, from logits `[B, outputs, h, w]`, at `size`: depth in metres `[B, 1, H,
/// W]`, or class probabilities `[B, classes, H, W]`; f32.
///
/// # Errors
/// If a tensor operation fails.
pub fn prediction(
    logits: &Tensor,
    objective: &Objective,
    size: (usize, usize),
) -> Result<Tensor, HeadError> {
    let fused = match *objective {
        Objective::Depth { max, .. } => ops::resized_depth(logits, size, max)?,
        Objective::Segmentation { .. } => ops::resized_softmax(logits, size)?,
    };
    if let Some(fused) = fused {
        return Ok(fused);
    }
    Ok(match *objective {
        Objective::Depth { max, .. } => depth(logits, size, max)?,
        Objective::Segmentation { .. } => nll::softmax(&resized(logits, size)?)?,
    })
}

/// Resizes are f32 whatever the convolutions' type.
fn resized(logits: &Tensor, (h, w): (usize, usize)) -> candle_core::Result<Tensor> {
    ops::resize_bilinear(&logits.to_dtype(DType::F32)?, h, w)
}

/// Metres: sigmoid times `max`.
fn depth(logits: &Tensor, size: (usize, usize), max: f64) -> candle_core::Result<Tensor> {
    sigmoid(&resized(logits, size)?)? * max
}

fn sigmoid(x: &Tensor) -> candle_core::Result<Tensor> {
    // exp(80) is finite, and its square's reciprocal, which the gradient takes, is 0.
    (at_least(x, -80.0)?.neg()?.exp()? + 1.0)?.recip()
}

/// The larger of `x` and `floor`; a NaN stays one, and the gradient is 0 below the floor.
fn at_least(x: &Tensor, floor: f64) -> candle_core::Result<Tensor> {
    x.lt(floor)?.where_cond(&Tensor::full(floor as f32, x.shape(), x.device())?, x)
}

fn in_range(target: &Tensor, [min, max]: [f64; 2]) -> candle_core::Result<Tensor> {
    target.ge(min)? * target.le(max)?
}

fn silog(
    prediction: &Tensor,
    target: &Tensor,
    [min, max]: [f64; 2],
    groups: usize,
) -> Result<(Option<Tensor>, Vec<usize>), HeadError> {
    let valid = in_range(target, [min, max])?;
    let target = valid.where_cond(target, &target.ones_like()?)?;
    let valid = valid.to_dtype(DType::F32)?;
    let d = ((target.log()? - at_least(prediction, min)?.log()?)? * &valid)?;
    let counts = group_sums(&valid, groups)?.to_vec1::<f32>()?;
    let kept = Kept::of(&counts, target.device())?;
    let Some(mean) = kept.mean(&group_sums(&d, groups)?)? else {
        return kept.loss(None);
    };
    let Some(square) = kept.mean(&group_sums(&d.sqr()?, groups)?)? else {
        return kept.loss(None);
    };
    kept.loss(Some((square - (mean.sqr()? * 0.5)?)?.sqrt()?))
}

fn cross_entropy(
    logits: &Tensor,
    labels: &Arc<[u8]>,
    ignore: u8,
    groups: usize,
) -> Result<(Option<Tensor>, Vec<usize>), HeadError> {
    let losses = nll::negative_log_likelihood(logits, labels)?;
    let counts: Vec<f32> = labels
        .chunks((labels.len() / groups).max(1))
        .map(|group| group.iter().filter(|&&label| label != ignore).count() as f32)
        .collect();
    let kept = Kept::of(&counts, logits.device())?;
    let means = kept.mean(&group_sums(&losses, groups)?)?;
    kept.loss(means)
}

fn check_labels(labels: &[u8], pixels: usize, classes: usize, ignore: u8) -> Result<(), HeadError> {
    let bad = |&label: &u8| label != ignore && usize::from(label) >= classes;
    // Counted first, which is many times faster than to stop at one.
    if labels
        .chunks(255)
        .all(|labels| labels.iter().map(|label| u8::from(bad(label))).sum::<u8>() == 0)
    {
        return Ok(());
    }
    labels.iter().position(bad).map_or(Ok(()), |at| {
        Err(HeadError::Label { sample: at / pixels, label: labels[at], classes, ignore })
    })
}

/// `[B, H, W]` to sums over each group, `[groups]`. Lines are summed first, which keeps f32 sums short.
fn group_sums(x: &Tensor, groups: usize) -> candle_core::Result<Tensor> {
    let (batch, h, w) = x.dims3()?;
    x.contiguous()?.reshape((groups, batch / groups * h, w))?.sum(2)?.sum(1)
}

/// The groups with a valid pixel.
struct Kept {
    /// Their indices, where some group has none.
    select: Option<Tensor>,
    /// Their valid pixels, `[kept]`.
    counts: Option<Tensor>,
    skipped: Vec<usize>,
}

impl Kept {
    fn of(counts: &[f32], device: &Device) -> candle_core::Result<Self> {
        let (kept, skipped): (Vec<usize>, _) =
            (0..counts.len()).partition(|&group| counts[group] > 0.0);
        let kept_counts: Vec<f32> = kept.iter().map(|&group| counts[group]).collect();
        let indices: Vec<u32> = kept.iter().map(|&group| group as u32).collect();
        let some = |wanted: bool| wanted && !kept.is_empty();
        Ok(Self {
            select: some(!skipped.is_empty()).then(|| Tensor::new(indices, device)).transpose()?,
            counts: some(true).then(|| Tensor::new(kept_counts, device)).transpose()?,
            skipped,
        })
    }

    /// Means `[kept]` over the valid pixels, from sums `[groups]`.
    fn mean(&self, sums: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let Some(counts) = &self.counts else {
            return Ok(None);
        };
        let sums = match &self.select {
            Some(select) => &sums.index_select(select, 0)?,
            None => sums,
        };
        (sums / counts).map(Some)
    }

    /// The mean of the kept groups' losses, and the groups that are not.
    fn loss(self, losses: Option<Tensor>) -> Result<(Option<Tensor>, Vec<usize>), HeadError> {
        Ok((losses.map(|losses| losses.mean_all()).transpose()?, self.skipped))
    }
}
