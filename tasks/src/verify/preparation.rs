//! Preparations that are taken for a data set and are not it, by name.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Verdict;
use crate::data::Dataset;

/// What a data set was found to be instead of itself. The names are those of `[[dataset.wrong]]` in
/// `datasets.toml`, which says what each is and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preparation {
    /// NYUv2 depth whose holes were filled.
    DenseDepth,
    /// Depth in other steps than those of the data set.
    DepthScale,
    /// Depth in 8 bits.
    EightBitDepth,
    /// KITTI depth of single scans.
    RawLidar,
    /// Labels one above the classes they are read as.
    UnshiftedLabels,
    /// Labels one below the classes they are read as.
    TwiceShiftedLabels,
    /// ADE20K with all its classes.
    FullAde20k,
    /// Masks in colours.
    ColourMasks,
    /// Pascal VOC without the masks of the augmented training list.
    NotAugmented,
    /// ImageNet's validation images as its archive has them.
    UnsortedVal,
    /// Images in another size than the published one.
    Resized,
}

impl Preparation {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::DenseDepth,
        Self::DepthScale,
        Self::EightBitDepth,
        Self::RawLidar,
        Self::UnshiftedLabels,
        Self::TwiceShiftedLabels,
        Self::FullAde20k,
        Self::ColourMasks,
        Self::NotAugmented,
        Self::UnsortedVal,
        Self::Resized,
    ];

    /// The name in `datasets.toml` and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::DenseDepth => "dense-depth",
            Self::DepthScale => "depth-scale",
            Self::EightBitDepth => "eight-bit-depth",
            Self::RawLidar => "raw-lidar",
            Self::UnshiftedLabels => "unshifted-labels",
            Self::TwiceShiftedLabels => "twice-shifted-labels",
            Self::FullAde20k => "full-ade20k",
            Self::ColourMasks => "colour-masks",
            Self::NotAugmented => "not-augmented",
            Self::UnsortedVal => "unsorted-val",
            Self::Resized => "resized",
        }
    }

    /// The preparation of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Whether a run can read it all the same, so that it may be accepted: not one that has other files, or
    /// files of other kinds.
    pub fn is_readable(self) -> bool {
        matches!(
            self,
            Self::DenseDepth
                | Self::DepthScale
                | Self::RawLidar
                | Self::UnshiftedLabels
                | Self::TwiceShiftedLabels
        )
    }

    /// Whether results on it are wrong, or only to be read with care.
    pub fn verdict(self) -> Verdict {
        if self == Self::Resized { Verdict::Note } else { Verdict::Wrong }
    }
}

impl fmt::Display for Preparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A wrong preparation that was recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Which.
    pub preparation: Preparation,
    /// [`Verdict::Wrong`], or [`Verdict::Note`] where results are only to be read with care.
    pub verdict: Verdict,
    /// Where, if not everywhere: `train` or `val`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// What says so, with numbers.
    pub evidence: String,
    /// What that preparation is.
    pub about: String,
    /// What to do.
    pub instead: String,
}

impl Finding {
    pub(super) fn new(
        dataset: &Dataset,
        preparation: Preparation,
        split: Option<&str>,
        evidence: String,
    ) -> Self {
        let known = dataset.wrong.iter().find(|wrong| wrong.name == preparation.name());
        Self {
            preparation,
            verdict: preparation.verdict(),
            split: split.map(str::to_owned),
            evidence,
            about: known.map(|wrong| wrong.about.clone()).unwrap_or_default(),
            instead: known.map(|wrong| wrong.instead.clone()).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.preparation)?;
        if let Some(split) = &self.split {
            write!(f, " ({split})")?;
        }
        write!(f, ": {}", self.evidence)
    }
}
