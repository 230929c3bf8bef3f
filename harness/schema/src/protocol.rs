use serde::{Deserialize, Serialize};

use crate::{DenseProtocol, Fingerprint, PolicyProtocol, fingerprint};

/// Mean of the ImageNet normalisation, RGB, of values in 0..1.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of the ImageNet normalisation, RGB, of values in 0..1.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Everything that can change a number, and nothing that cannot.
///
/// The name says what departs from the published protocol, for example `pixio+limit=100`; the
/// fingerprint covers the values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// `pixio`, `sample`, or either with departures after `+`.
    pub name: String,
    /// The stages, by kind of task.
    #[serde(flatten)]
    pub stages: Stages,
}

/// The stages of a protocol, by kind of task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Stages {
    /// Weighted k-NN classification on frozen features.
    Knn(KnnProtocol),
    /// Depth or segmentation with a trained head.
    Dense(DenseProtocol),
    /// Robot learning: a policy cloned from demonstrations, rolled out in a simulator.
    Policy(PolicyProtocol),
}

impl Protocol {
    /// Hash over the stages; the name is left out, so that a departure spelled another way is the
    /// same protocol.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.stages)
    }
}

/// k-NN on ImageNet-1K (PROTOCOL section 2; Pixio paper, arXiv 2512.15715).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KnnProtocol {
    /// From file to encoder input.
    pub image: ImageStage,
    /// From encoder input to one vector an image.
    pub feature: FeatureStage,
    /// From vectors to predictions.
    pub vote: VoteStage,
    /// The first N of each split after a seeded shuffle; the whole split when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Decode, resize the shorter side, crop the centre, normalise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageStage {
    /// Raised when a fix moves pixel values.
    pub revision: u32,
    /// The shorter side after the resize, in pixels.
    pub resize: usize,
    /// Side of the centre crop, in pixels.
    pub crop: usize,
    /// The resize filter.
    pub filter: String,
    /// Subtracted, RGB, of values in 0..1.
    pub mean: [f32; 3],
    /// Divided by, RGB.
    pub std: [f32; 3],
}

/// Which tokens become the feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tokens {
    /// Mean of the summary (class) tokens.
    SummaryMean,
    /// Mean of the patch tokens, for encoders without summary tokens.
    PatchMean,
    /// Mean of the patch tokens, joined with the mean of the summary tokens.
    PatchAndSummaryMean,
    /// Mean of the tokens of the encoder's own output head (a pooling head, a neck), which follows the final
    /// norm.
    Pooled,
}

/// From encoder input to one L2-normalised vector an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureStage {
    /// Raised when a fix moves features.
    pub revision: u32,
    /// Index of the tapped block.
    pub block: usize,
    /// Which tokens.
    pub tokens: Tokens,
    /// How many of the summary tokens are averaged, from the first; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_tokens: Option<usize>,
    /// Whether the encoder's final norm is applied first.
    pub final_norm: bool,
    /// `f32`, `bf16` or `f16`: the autocast type of the encoder.
    pub dtype: String,
}

/// From vectors to predictions: weights exp(cosine / temperature) summed per class over the k nearest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoteStage {
    /// Raised when a fix moves predictions.
    pub revision: u32,
    /// Numbers of neighbours, ascending.
    pub k: Vec<usize>,
    /// Temperature of the weights.
    pub temperature: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol() -> Protocol {
        Protocol {
            name: "pixio".to_owned(),
            stages: Stages::Knn(KnnProtocol {
                image: ImageStage {
                    revision: 1,
                    resize: 256,
                    crop: 256,
                    filter: "pillow-bicubic".to_owned(),
                    mean: IMAGENET_MEAN,
                    std: IMAGENET_STD,
                },
                feature: FeatureStage {
                    revision: 1,
                    block: 11,
                    tokens: Tokens::SummaryMean,
                    class_tokens: None,
                    final_norm: false,
                    dtype: "f32".to_owned(),
                },
                vote: VoteStage { revision: 1, k: vec![10, 20, 100, 200], temperature: 0.07 },
                limit: None,
            }),
        }
    }

    #[test]
    fn the_fingerprint_follows_the_values_and_not_the_name() {
        let published = protocol();
        let mut renamed = published.clone();
        renamed.name = "pixio+k=10,20,100,200".to_owned();
        assert_eq!(published.fingerprint(), renamed.fingerprint());

        let mut cooler = published.clone();
        if let Stages::Knn(knn) = &mut cooler.stages {
            knn.vote.temperature = 0.05;
        }
        assert_ne!(published.fingerprint(), cooler.fingerprint());
    }

    #[test]
    fn a_protocol_survives_json() {
        let json = serde_json::to_string(&protocol()).unwrap();
        assert_eq!(serde_json::from_str::<Protocol>(&json).unwrap(), protocol());
    }
}
