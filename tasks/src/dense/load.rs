//! From the files of a pair to pixels and metres or classes.

use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{DenseError, Pair, PairedSet};
use crate::data::Dataset;
use crate::files::Files;
use crate::image::{decode_gray16_in, decode_in, decode_mask_in, png_size_in};

/// Label of a pixel that counts neither as target nor as prediction, on disk in the shifted form
/// and always in memory.
pub const IGNORE: u8 = 255;

/// Masks that are read before it is asked whether they decided.
const SCAN: usize = 64;

/// What is to be predicted for every pixel.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Metres, `[H, W]`; 0 where nothing was measured.
    Depth(Array2<f32>),
    /// Class index, `[H, W]`; [`IGNORE`] where there is none.
    Labels(Array2<u8>),
}

impl Target {
    /// Height and width.
    pub fn dim(&self) -> (usize, usize) {
        match self {
            Self::Depth(depth) => depth.dim(),
            Self::Labels(labels) => labels.dim(),
        }
    }

    /// Number of pixels with a measured depth (of any distance) or with a class. An image without
    /// any loads like every other; it can neither be trained nor measured on.
    pub fn valid_pixels(&self) -> usize {
        match self {
            Self::Depth(depth) => depth.iter().filter(|&&metres| metres > 0.0).count(),
            Self::Labels(labels) => labels.iter().filter(|&&label| label != IGNORE).count(),
        }
    }
}

/// How the labels of a data set's masks are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelForm {
    /// Classes from 0, [`IGNORE`] for pixels without one: the form that the protocol's authors
    /// store.
    Shifted,
    /// 0 for pixels without a class, classes from 1: as ADE20K and LoveDA are published.
    Original,
}

impl LabelForm {
    /// Tells the form of a set's masks: [`IGNORE`] in any of them means [`Shifted`](Self::Shifted),
    /// a label equal to the number of classes [`Original`](Self::Original).
    ///
    /// Masks are decoded in parallel, 64 at a time, training masks first, until one of the two was
    /// seen: most often the first 64 of them. The worst case, a set in which only the last mask
    /// decides or none does, decodes every mask once (ADE20K: 22210, milliseconds each and core).
    /// What is found does not depend on the number of threads. A mask of the other form behind
    /// those that decided is an error when it is loaded.
    ///
    /// # Errors
    ///
    /// [`DenseError::LabelsMixed`] where both were seen, [`DenseError::LabelsUnclear`] where
    /// neither is anywhere, [`DenseError::Image`] for a mask that cannot be read.
    pub fn detect(set: &PairedSet, dataset: &Dataset) -> Result<Self, DenseError> {
        let classes = dataset.classes.unwrap_or_default();
        let place = |(files, path): (&Files, &str)| -> PathBuf { files.place(path) };
        let masks: Vec<_> = [&set.train, &set.val]
            .into_iter()
            .flat_map(|split| split.pairs().iter().map(|pair| (split.files(), &*pair.target)))
            .collect();
        for masks in masks.chunks(SCAN) {
            let seen: Vec<(bool, bool)> = masks
                .par_iter()
                .map(|(files, path)| {
                    let mask = decode_mask_in(files, path)?;
                    let holds =
                        |value: usize| mask.iter().any(|&label| usize::from(label) == value);
                    Ok((holds(usize::from(IGNORE)), holds(classes)))
                })
                .collect::<Vec<Result<_, DenseError>>>()
                .into_iter()
                .collect::<Result<_, _>>()?;
            let shifted = seen.iter().position(|seen| seen.0);
            let original = seen.iter().position(|seen| seen.1);
            match (shifted, original) {
                (Some(_), None) => return Ok(Self::Shifted),
                (None, Some(_)) => return Ok(Self::Original),
                (Some(shifted), Some(original)) => {
                    return Err(DenseError::LabelsMixed {
                        dataset: dataset.name.clone(),
                        shifted: place(masks[shifted]),
                        ignore: IGNORE,
                        original: place(masks[original]),
                        last: classes,
                    });
                }
                (None, None) => {}
            }
        }
        Err(DenseError::LabelsUnclear {
            dataset: dataset.name.clone(),
            masks: masks.len(),
            ignore: IGNORE,
            last: classes,
        })
    }

    /// `shifted` or `original`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shifted => "shifted",
            Self::Original => "original",
        }
    }

    /// The class index that a stored label stands for, or [`IGNORE`]; `None` for a label that this
    /// form does not have.
    fn read(self, label: u8, classes: usize) -> Option<u8> {
        match (self, label) {
            (Self::Shifted, IGNORE) | (Self::Original, 0) => Some(IGNORE),
            (Self::Shifted, _) => (usize::from(label) < classes).then_some(label),
            (Self::Original, _) => (usize::from(label) <= classes).then(|| label - 1),
        }
    }

    fn expected(self, classes: usize) -> String {
        match self {
            Self::Shifted => {
                format!("a class from 0 to {}, or {IGNORE} for none", classes.saturating_sub(1))
            }
            Self::Original => format!("a class from 1 to {classes}, or 0 for none"),
        }
    }
}

/// How the targets of a data set are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TargetForm {
    /// 16-bit grey PNG, 0 where nothing was measured.
    Depth {
        /// Stored value of one metre.
        steps_per_metre: u32,
    },
    /// 8-bit grey or palette PNG.
    Labels {
        /// What the stored values mean.
        form: LabelForm,
        /// Number of classes.
        classes: usize,
    },
}

/// Reads a pair from the files of its split: RGB `[H, W, 3]` and its target `[H, W]`, both without the `border` that is cut off
/// (`[top, bottom, left, right]` of what is kept, ends exclusive).
///
/// # Errors
///
/// [`DenseError::Image`] for files that cannot be read or are of another kind,
/// [`DenseError::SizesDiffer`], [`DenseError::Label`] for a label that is no class,
/// [`DenseError::Border`].
pub fn load(
    files: &Files,
    pair: &Pair,
    border: Option<[usize; 4]>,
    form: TargetForm,
) -> Result<(Array3<u8>, Target), DenseError> {
    let image = decode_in(files, &pair.image)?;
    let (height, width, _) = image.dim();
    let [top, bottom, left, right] = kept(&files.place(&pair.image), (height, width), border)?;
    let target = read_target(files, pair, border, form, Some((height, width)))?;
    let image = match border {
        Some(_) => image.slice(s![top..bottom, left..right, ..]).to_owned(),
        None => image,
    };
    Ok((image, target))
}

/// The target of [`load`] alone; the image is not looked at.
///
/// # Errors
///
/// As [`load`], of the target's file.
pub fn load_target(
    files: &Files,
    pair: &Pair,
    border: Option<[usize; 4]>,
    form: TargetForm,
) -> Result<Target, DenseError> {
    read_target(files, pair, border, form, None)
}

/// Height and width that [`load`] gives, from the header of the target's file.
///
/// # Errors
///
/// [`DenseError::Image`], [`DenseError::Border`].
pub fn size(
    files: &Files,
    pair: &Pair,
    border: Option<[usize; 4]>,
) -> Result<(usize, usize), DenseError> {
    let size = png_size_in(files, &pair.target)?;
    let [top, bottom, left, right] = kept(&files.place(&pair.target), size, border)?;
    Ok((bottom - top, right - left))
}

/// The border's rows and columns, or all.
fn kept(
    file: &Path,
    (height, width): (usize, usize),
    border: Option<[usize; 4]>,
) -> Result<[usize; 4], DenseError> {
    let [top, bottom, left, right] = border.unwrap_or([0, height, 0, width]);
    if top > bottom || bottom > height || left > right || right > width {
        let (file, border) = (file.to_owned(), [top, bottom, left, right]);
        return Err(DenseError::Border { file, border, size: (height, width) });
    }
    Ok([top, bottom, left, right])
}

fn read_target(
    files: &Files,
    pair: &Pair,
    border: Option<[usize; 4]>,
    form: TargetForm,
    expected: Option<(usize, usize)>,
) -> Result<Target, DenseError> {
    let path = files.place(&pair.target);
    let same_size = |found: (usize, usize)| match expected {
        Some(expected) if expected != found => {
            let (image, target) = (files.place(&pair.image), path.clone());
            Err(DenseError::SizesDiffer { image, target, expected, found })
        }
        _ => kept(&path, found, border),
    };
    match form {
        TargetForm::Depth { steps_per_metre } => {
            let stored = decode_gray16_in(files, &pair.target)?;
            let [top, bottom, left, right] = same_size(stored.dim())?;
            let steps = steps_per_metre as f32;
            let kept = stored.slice(s![top..bottom, left..right]);
            Ok(Target::Depth(kept.mapv(|value| f32::from(value) / steps)))
        }
        TargetForm::Labels { form, classes } => {
            let mut labels = decode_mask_in(files, &pair.target)?;
            let [top, bottom, left, right] = same_size(labels.dim())?;
            let table: [Option<u8>; 256] =
                std::array::from_fn(|label| form.read(label as u8, classes));
            for ((row, column), label) in labels.indexed_iter_mut() {
                let Some(class) = table[usize::from(*label)] else {
                    return Err(DenseError::Label {
                        file: path,
                        row,
                        column,
                        label: *label,
                        expected: form.expected(classes),
                    });
                };
                *label = class;
            }
            Ok(Target::Labels(match border {
                Some(_) => labels.slice(s![top..bottom, left..right]).to_owned(),
                None => labels,
            }))
        }
    }
}
