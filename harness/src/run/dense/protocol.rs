//! The published settings of each data set and head (PROTOCOL sections 3 to 5), and the reduced ones
//! of the `sample` protocol.

use schema::{
    BackboneRecord, DenseFeatureStage, DenseProtocol, EvaluationStage, HeadStage, Objective,
    SampleStage, Stages, TrainingStage,
};
use tasks::data::Dataset;
use tasks::dense::IGNORE;

use crate::backbone::Dimensions;
use crate::registry::Recipe;
use crate::resolve::Preparation;
use crate::run::knn::SAMPLE;
use crate::run::{RunError, Settings, set};

/// Rows and columns of an NYUv2 image inside its white border: `[top, bottom, left, right]`.
const NYUV2_BORDER: [usize; 4] = [45, 471, 41, 601];

struct Published {
    border: Option<[usize; 4]>,
    scale: Option<[f64; 2]>,
    group_size: usize,
    warmup: f64,
    linear_rate: f64,
    dpt_rate: f64,
}

fn settings(dataset: &Dataset) -> Published {
    let depth = dataset.depth.is_some();
    let published = Published {
        border: None,
        scale: (!depth).then_some([0.5, 2.0]),
        group_size: 4,
        warmup: if depth { 0.1 } else { 0.0 },
        linear_rate: 2e-4,
        dpt_rate: 1e-4,
    };
    match dataset.name.as_str() {
        "nyuv2" => Published { border: Some(NYUV2_BORDER), ..published },
        "ade20k" => Published { group_size: 2, ..published },
        "loveda" => Published { group_size: 1, linear_rate: 4e-4, dpt_rate: 2e-4, ..published },
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

/// A head on a data set, and what the stream it reads is.
pub(super) struct Asked<'a> {
    pub(super) dataset: &'a Dataset,
    pub(super) head: &'a str,
    pub(super) backbone: &'a BackboneRecord,
    pub(super) dimensions: &'a Dimensions,
    pub(super) preparation: &'a Preparation,
    pub(super) recipe: &'a Recipe,
    pub(super) dtype: &'a str,
    /// `--limit`, where it leaves samples out.
    pub(super) limit: Option<usize>,
}

/// The protocol of one head on one data set, and its name with departures but for the dtype's, the
/// backbone's and a given head's.
pub(super) fn protocol(
    asked: &Asked<'_>,
    changes: &Settings,
) -> Result<(String, DenseProtocol), RunError> {
    let Asked { dataset, head, backbone, dimensions, preparation, recipe, dtype, limit } = asked;
    let Published { border, scale, group_size, warmup, linear_rate, dpt_rate } = settings(dataset);
    let sample = changes.protocol == SAMPLE;
    let standard_epochs = if sample { 2 } else { 60 };
    let epochs = changes.epochs.unwrap_or(standard_epochs);
    let (groups, group_size) = if sample { (2, 2) } else { (8, group_size) };
    let (head, standard, learning_rate) = match *head {
        "linear" => (HeadStage::Linear { revision: 1 }, vec![backbone.blocks - 1], linear_rate),
        _ => {
            let (channels, features) =
                if sample { ([16, 32, 64, 64], 16) } else { ([256, 512, 1024, 1024], 256) };
            let blocks = (1..=4).map(|i| (backbone.blocks / 4 * i).saturating_sub(1)).collect();
            (HeadStage::Dpt { revision: 1, channels, features }, blocks, dpt_rate)
        }
    };
    let (blocks, block_departs) = changes.blocks(backbone, standard)?;
    let (summary, class_tokens, token_departs) =
        changes.dense_tokens(recipe, &backbone.name, dimensions)?;
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
        feature: DenseFeatureStage {
            revision: 1,
            blocks,
            summary,
            class_tokens,
            dtype: (*dtype).to_owned(),
        },
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
        limit: *limit,
    };
    let mut name = changes.protocol.clone();
    if epochs != standard_epochs {
        name.push_str(&format!("+epochs={epochs}"));
    }
    if let Some(limit) = limit {
        name.push_str(&format!("+limit={limit}"));
    }
    name.push_str(&block_departs);
    name.push_str(&token_departs);
    let (stages, departs) = set::apply_with(
        Stages::Dense(protocol),
        [changes.learning_rate, changes.weight_decay],
        ["training.learning_rate", "training.weight_decay"],
        &changes.set,
    )?;
    name.push_str(&departs);
    match stages {
        Stages::Dense(protocol) => Ok((name, protocol)),
        Stages::Knn(_) | Stages::Policy(_) => {
            Err(RunError::Stream("another protocol on pairs".to_owned()))
        }
    }
}
