use serde::{Deserialize, Serialize};

/// Depth or segmentation with a head trained on frozen patch tokens (PROTOCOL sections 3 to 5).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DenseProtocol {
    /// From files to training crops and validation images.
    pub sample: SampleStage,
    /// From crops to the head's input.
    pub feature: DenseFeatureStage,
    /// The head.
    pub head: HeadStage,
    /// Loss, range and classes.
    pub objective: Objective,
    /// Optimiser and schedule.
    pub training: TrainingStage,
    /// Sliding-window evaluation.
    pub evaluation: EvaluationStage,
    /// The first N of each split after a seeded shuffle; the whole split when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// From files to training crops and validation images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleStage {
    /// Raised when a fix moves pixels or draws.
    pub revision: u32,
    /// Rows and columns kept of every image and target before anything else:
    /// `[top, bottom, left, right]`, ends exclusive. NYUv2's border.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub border: Option<[usize; 4]>,
    /// Range of the longer side's factor, for data sets that are rescaled while training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<[f64; 2]>,
    /// Side of the random training crop, in pixels.
    pub crop: usize,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Subtracted, RGB, of values in 0..1.
    pub mean: [f32; 3],
    /// Divided by, RGB.
    pub std: [f32; 3],
}

/// Which tokens a dense head sees: patch tokens after the final norm, each joined with the mean of the
/// summary tokens after the final norm where `summary` is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DenseFeatureStage {
    /// Raised when a fix moves features.
    pub revision: u32,
    /// Tapped blocks, ascending: one for linear, four for DPT.
    pub blocks: Vec<usize>,
    /// Whether the summary mean is joined.
    pub summary: bool,
    /// How many of the summary tokens are averaged, from the first; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_tokens: Option<usize>,
    /// `f32`, `bf16` or `f16`: the autocast type of the encoder and the head.
    pub dtype: String,
}

/// A dense head (PROTOCOL section 5).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum HeadStage {
    /// Batch norm, then a 1x1 convolution.
    Linear {
        /// Raised when a fix moves outputs or gradients.
        revision: u32,
    },
    /// Reassemble four taps and fuse them from deep to shallow.
    Dpt {
        /// Raised when a fix moves outputs or gradients.
        revision: u32,
        /// Channels of the four reassembled maps.
        channels: [usize; 4],
        /// Channels of the fusion.
        features: usize,
    },
}

impl HeadStage {
    /// The head's name in `TASK/HEAD`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "linear",
            Self::Dpt { .. } => "dpt",
        }
    }
}

/// What is predicted, and how a prediction is scored while training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Objective {
    /// Metres, sigmoid times `max`; the loss is SiLog.
    Depth {
        /// Nearest valid depth, metres.
        min: f64,
        /// Farthest valid depth, metres.
        max: f64,
    },
    /// One class a pixel; the loss is cross entropy.
    Segmentation {
        /// Number of classes.
        classes: usize,
        /// Label that counts neither as target nor as prediction.
        ignore: u8,
    },
}

/// AdamW and the learning-rate schedule, whose rate is set after each step from that step's index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingStage {
    /// Raised when a fix moves weights.
    pub revision: u32,
    /// Passes over the training split.
    pub epochs: usize,
    /// Loss groups of a batch; the loss is taken over each and averaged.
    pub groups: usize,
    /// Samples of one group; the batch is `groups * group_size`.
    pub group_size: usize,
    /// Peak rate.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Exponential averages' rates.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Share of all steps in the linear warm-up.
    pub warmup: f64,
    /// Exponent of the polynomial decay.
    pub power: f64,
}

/// Sliding windows over whole images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationStage {
    /// Raised when a fix moves metrics.
    pub revision: u32,
    /// Side of a window, pixels.
    pub window: usize,
    /// Distance between window starts, pixels.
    pub stride: usize,
    /// Evaluate after every this many epochs, and after the last.
    pub every: usize,
    /// Fewest valid pixels for an image to count (depth).
    pub min_valid: usize,
}

/// Metrics of one depth image over its valid pixels; shares are 0..1, distances metres.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the field's own names, defined in PROTOCOL section 3
pub struct DepthMetrics {
    pub delta1: f64,
    pub delta2: f64,
    pub delta3: f64,
    pub abs_rel: f64,
    pub sq_rel: f64,
    pub rmse: f64,
    pub rmse_log: f64,
    pub log10: f64,
    pub silog: f64,
}

impl DepthMetrics {
    /// Every metric by its name in tables, in the table's unit: deltas in percent.
    pub fn named(&self) -> [(&'static str, f64); 9] {
        [
            ("delta1", 100.0 * self.delta1),
            ("delta2", 100.0 * self.delta2),
            ("delta3", 100.0 * self.delta3),
            ("abs_rel", self.abs_rel),
            ("sq_rel", self.sq_rel),
            ("rmse", self.rmse),
            ("rmse_log", self.rmse_log),
            ("log10", self.log10),
            ("silog", self.silog),
        ]
    }
}
