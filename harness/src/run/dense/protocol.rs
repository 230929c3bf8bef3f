//! The published settings of each data set and head (PROTOCOL sections 3 to 5), and the reduced ones
//! of the `sample` protocol.

use schema::{
    BackboneRecord, DenseFeatureStage, DenseProtocol, EvaluationStage, HeadStage, Objective,
    SampleStage, TrainingStage,
};
use tasks::data::Dataset;
use tasks::dense::IGNORE;

use crate::resolve::Preparation;
use crate::run::knn::SAMPLE;

/// Rows and columns of an NYUv2 image inside its white border: `[top, bottom, left, right]`.
const NYUV2_BORDER: [usize; 4] = [45, 471, 41, 601];

struct Settings {
    border: Option<[usize; 4]>,
    scale: Option<[f64; 2]>,
    group_size: usize,
    warmup: f64,
    linear_rate: f64,
    dpt_rate: f64,
}

fn settings(dataset: &Dataset) -> Settings {
    let depth = dataset.depth.is_some();
    let published = Settings {
        border: None,
        scale: (!depth).then_some([0.5, 2.0]),
        group_size: 4,
        warmup: if depth { 0.1 } else { 0.0 },
        linear_rate: 2e-4,
        dpt_rate: 1e-4,
    };
    match dataset.name.as_str() {
        "nyuv2" => Settings { border: Some(NYUV2_BORDER), ..published },
        "ade20k" => Settings { group_size: 2, ..published },
        "loveda" => Settings { group_size: 1, linear_rate: 4e-4, dpt_rate: 2e-4, ..published },
        _ => published,
    }
}

fn objective(dataset: &Dataset) -> Objective {
    match dataset.depth {
        Some(depth) => Objective::Depth { min: depth.min_metres, max: depth.max_metres },
        None => {
            let classes = dataset.classes.unwrap_or(0);
            Objective::Segmentation { classes, ignore: IGNORE }
        }
    }
}

/// What the command line may change.
pub(super) struct Changes {
    pub(super) base: String,
    pub(super) epochs: Option<usize>,
    pub(super) limit: Option<usize>,
}

/// The protocol of one head on one data set, and its name with departures but for the dtype's.
pub(super) fn protocol(
    dataset: &Dataset,
    head: &str,
    backbone: &BackboneRecord,
    preparation: &Preparation,
    summary: bool,
    dtype: &str,
    changes: &Changes,
) -> (String, DenseProtocol) {
    let Settings { border, scale, group_size, warmup, linear_rate, dpt_rate } = settings(dataset);
    let sample = changes.base == SAMPLE;
    let standard_epochs = if sample { 2 } else { 60 };
    let epochs = changes.epochs.unwrap_or(standard_epochs);
    let (groups, group_size) = if sample { (2, 2) } else { (8, group_size) };
    let last = backbone.blocks - 1;
    let (head, blocks, learning_rate) = match head {
        "linear" => (HeadStage::Linear { revision: 1 }, vec![last], linear_rate),
        _ => {
            let (channels, features) =
                if sample { ([16, 32, 64, 64], 16) } else { ([256, 512, 1024, 1024], 256) };
            let blocks = (1..=4).map(|i| (backbone.blocks / 4 * i).saturating_sub(1)).collect();
            (HeadStage::Dpt { revision: 1, channels, features }, blocks, dpt_rate)
        }
    };
    let side = preparation.resolution;
    let protocol = DenseProtocol {
        sample: SampleStage {
            revision: 1,
            border,
            scale,
            crop: side,
            flip: 0.5,
            mean: preparation.mean,
            std: preparation.std,
        },
        feature: DenseFeatureStage { revision: 1, blocks, summary, dtype: dtype.to_owned() },
        head,
        objective: objective(dataset),
        training: TrainingStage {
            revision: 1,
            epochs,
            groups,
            group_size,
            learning_rate: if sample { 10.0 * learning_rate } else { learning_rate },
            weight_decay: 0.01,
            betas: [0.9, 0.999],
            eps: 1e-8,
            warmup,
            power: 0.9,
        },
        evaluation: EvaluationStage {
            revision: 1,
            window: side,
            stride: side * 2 / 3,
            every: if sample { epochs.max(1) } else { 1 },
            min_valid: 10,
        },
        limit: changes.limit,
    };
    let mut name = changes.base.clone();
    if epochs != standard_epochs {
        name.push_str(&format!("+epochs={epochs}"));
    }
    if let Some(limit) = changes.limit {
        name.push_str(&format!("+limit={limit}"));
    }
    (name, protocol)
}
