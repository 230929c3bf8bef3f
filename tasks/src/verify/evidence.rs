//! Wrong preparations, told from depths and labels.
//!
//! A finding needs enough that speaks for it: [`LEAST`] depth maps or masks of that kind and
//! [`MOST`] of those looked at, so that single odd files say nothing, and the right data said to be
//! right even in sets of a few images. Nothing is said of fewer.

use std::collections::BTreeMap;

use super::look::{Depths, Labels};
use super::{Finding, Preparation};
use crate::data::{Dataset, Layout};
use crate::dense::{IGNORE, LabelForm};

/// Fewest maps or masks that a finding is based on.
pub(super) const LEAST: usize = 4;

/// Share of the maps or masks looked at that have to agree.
const MOST: f64 = 0.8;

/// Share of pixels without a depth inside the protocol's crop, below which a map of NYUv2 counts as
/// filled. The Kinect sees nothing in the shadow of its own projector, on shiny and on near surfaces:
/// several pixels in a hundred of nearly every map. A filled map has no such pixel at all.
pub(super) const FILLED_HOLES: f32 = 0.001;

/// Share of measured pixels between the first and the last measured row, below which a map may be a
/// single scan. A scan is about 4% of the image, the annotated maps of several scans together 16% (Uhrig
/// et al., Sparsity Invariant CNNs, 2017, table 1), and about two thirds of the rows are measured: 6% and
/// 24%. A laser's lines lie 4 to 6 rows apart and its points about 2 columns, so that no scan is denser
/// than 12% anywhere.
pub(super) const SCAN_DENSITY: f32 = 0.12;

/// Share of measured pixels with another right above or below, up to which a sparse map is one scan: its
/// lines lie several rows apart, while those of several scans fall between one another.
pub(super) const NEIGHBOURS: f32 = 0.15;

/// Measured pixels that a map needs to be judged.
pub(super) const SPARSEST: usize = 100;

/// Share of a map's depths beyond the sensor's range that a right map does not have.
pub(super) const BEYOND_SHARE: f32 = 0.05;

/// Share of labels that no class has, above which they are not single damaged pixels.
const FOREIGN_SHARE: f64 = 0.001;

/// Labels that no class has and that come from another set of classes, at least.
const FOREIGN_LABELS: usize = 3;

/// How much higher (in image heights) what lies overhead is than the ground, where labels are read
/// right. Skies and ceilings of ADE20K lie about 0.6 above floors, roads and lawns.
const OVERHEAD: f64 = 0.25;

/// Share of the pixels that the classes of each of these two kinds need.
const KIND_SHARE: f64 = 0.005;

/// Sky and ceiling among the classes of ADE20K.
const ABOVE: [usize; 2] = [2, 5];

/// Floor, road, grass, sidewalk and earth.
const BELOW: [usize; 5] = [3, 6, 9, 11, 13];

/// Masks of LoveDA that have to show it: no data is rare, background is in nearly every mask.
const LOVEDA_LEAST: usize = 6;

/// The rows and columns of NYUv2 that the protocol keeps: `[top, bottom, left, right]`, ends exclusive.
pub(super) fn crop(dataset: &Dataset) -> Option<[usize; 4]> {
    (dataset.layout == Layout::Nyuv2Bts).then_some([45, 471, 41, 601])
}

/// Depth that no right map goes beyond, metres: a Kinect's range ends at 10 (where the toolbox of
/// NYUv2 cuts off), that of KITTI's laser scanner at 80, a little more after several scans were joined.
pub(super) fn far_metres(dataset: &Dataset) -> f32 {
    if dataset.layout == Layout::Nyuv2Bts { 10.1 } else { 100.0 }
}

/// Median depth that nearly every right map reaches, metres: a Kinect sees nothing nearer than 0.7, and
/// the ground before KITTI's car comes into its camera's view at 6.
pub(super) fn near_metres(dataset: &Dataset) -> f32 {
    if dataset.layout == Layout::Nyuv2Bts { 0.9 } else { 4.5 }
}

fn most(these: usize, of: usize) -> bool {
    these >= LEAST && these as f64 >= MOST * of as f64
}

/// What the depth maps of a split are instead of right. `generated` rooms have no holes, which is no
/// finding.
pub(super) fn depth(
    dataset: &Dataset,
    split: &str,
    seen: &Depths,
    generated: bool,
) -> Vec<Finding> {
    let finding = |preparation, evidence| Finding::new(dataset, preparation, Some(split), evidence);
    let mut found = Vec::new();
    let maps = seen.maps;
    if most(seen.eight_bit, maps + seen.eight_bit) {
        let of = maps + seen.eight_bit;
        let evidence = format!("{} of {of} depth maps have 8 bits instead of 16", seen.eight_bit);
        found.push(finding(Preparation::EightBitDepth, evidence));
    }
    if most(seen.filled, seen.whole) && !generated {
        let evidence = format!(
            "{} of {} depth maps have no holes in the protocol's crop (fewer than {} of its pixels without a depth)",
            seen.filled,
            seen.whole,
            percent(f64::from(FILLED_HOLES))
        );
        found.push(finding(Preparation::DenseDepth, evidence));
    }
    if most(seen.scans, maps) {
        let evidence = format!(
            "{} of {maps} depth maps have the pattern of a single scan; on average {} of the pixels have a depth, \
             expected about 16%",
            seen.scans,
            percent(f64::from(seen.mean_valid()))
        );
        found.push(finding(Preparation::RawLidar, evidence));
    }
    let steps = dataset.depth.map_or(0, |depth| depth.steps_per_metre);
    let median = seen.median().unwrap_or_default();
    let read = format!("read at {steps} steps a metre");
    if most(seen.beyond, maps) {
        let evidence = format!(
            "{read}, {} of {maps} depth maps go beyond {} m, where the sensor sees nothing (median {median:.2} m, \
             largest {:.1} m)",
            seen.beyond,
            far_metres(dataset),
            seen.farthest
        );
        found.push(finding(Preparation::DepthScale, evidence));
    } else if most(seen.near, maps) {
        let evidence = format!(
            "{read}, {} of {maps} depth maps lie mostly nearer than {} m (median {median:.2} m)",
            seen.near,
            near_metres(dataset)
        );
        found.push(finding(Preparation::DepthScale, evidence));
    }
    found
}

/// How the labels are read: as the user says, else as [`LabelForm::detect`] does, which reads on where
/// these masks have neither label that decides. Here what lies overhead decides then; none where nothing does.
pub(super) fn form(
    dataset: &Dataset,
    seen: &Labels,
    chosen: Option<LabelForm>,
) -> Option<LabelForm> {
    let forms = dataset.labels.as_ref()?;
    let classes = dataset.classes?;
    match (chosen, &forms.original) {
        (Some(form), _) => Some(form),
        (None, None) => Some(LabelForm::Shifted),
        (None, Some(_)) if seen.counts[usize::from(IGNORE)] > 0 => Some(LabelForm::Shifted),
        (None, Some(_)) if seen.counts[classes] > 0 => Some(LabelForm::Original),
        (None, Some(_)) => upright(dataset, seen),
    }
}

/// The form in which skies and ceilings lie above floors and roads, where they lie below in the other.
fn upright(dataset: &Dataset, seen: &Labels) -> Option<LabelForm> {
    if dataset.layout != Layout::Ade20k || seen.masks < LEAST {
        return None;
    }
    let (original, shifted) = (overhead(seen, 1)?, overhead(seen, 0)?);
    match () {
        () if original > OVERHEAD && shifted < 0.0 => Some(LabelForm::Original),
        () if shifted > OVERHEAD && original < 0.0 => Some(LabelForm::Shifted),
        () => None,
    }
}

/// Another size than the published one, where there is only one; of depth maps or masks, by height and width.
pub(super) fn resized(
    dataset: &Dataset,
    split: &str,
    sizes: &BTreeMap<(usize, usize), usize>,
) -> Option<Finding> {
    let [width, height] = match dataset.layout {
        Layout::Nyuv2Bts => [640, 480],
        Layout::Loveda => [1024, 1024],
        _ => return None,
    };
    let all: usize = sizes.values().sum();
    let others = all - sizes.get(&(height, width)).copied().unwrap_or(0);
    most(others, all).then(|| {
        let targets = if dataset.depth.is_some() { "depth maps" } else { "masks" };
        let evidence = format!("{others} of {all} {targets} are not {width}x{height}");
        Finding::new(dataset, Preparation::Resized, Some(split), evidence)
    })
}

/// What the masks are instead of right, of the whole data set or (`split`) of a part of it, read in a
/// form.
pub(super) fn labels(
    dataset: &Dataset,
    split: Option<&str>,
    seen: &Labels,
    form: Option<LabelForm>,
) -> Vec<Finding> {
    let finding = |preparation, evidence| Finding::new(dataset, preparation, split, evidence);
    let ade20k = dataset.layout == Layout::Ade20k;
    let odd = seen.colour + seen.deep;
    if most(odd, seen.masks + odd) {
        let kind = if seen.colour > 0 { "are in colour" } else { "have 16 bits" };
        let evidence = format!("{odd} of {} masks {kind}, not labels of 8 bits", seen.masks + odd);
        let preparation = if ade20k { Preparation::FullAde20k } else { Preparation::ColourMasks };
        return vec![finding(preparation, evidence)];
    }
    let (Some(classes), Some(form)) = (dataset.classes, form) else { return Vec::new() };
    if dataset.labels.as_ref().is_none_or(|labels| labels.original.is_none()) {
        return Vec::new();
    }
    let found = foreign(classes, seen)
        .filter(|_| ade20k)
        .map(|evidence| (Preparation::FullAde20k, evidence))
        .or_else(|| shifted(dataset, classes, seen, form));
    found.map(|(preparation, evidence)| finding(preparation, evidence)).into_iter().collect()
}

/// Labels of a larger set of classes.
fn foreign(classes: usize, seen: &Labels) -> Option<String> {
    // A missing shift leaves the number of classes, a second one 254.
    let others: Vec<usize> = (classes + 1..usize::from(IGNORE) - 1).collect();
    let there: Vec<usize> = others.iter().copied().filter(|&l| seen.counts[l] > 0).collect();
    let (smallest, largest) = (there.first()?, there.last()?);
    let share = seen.share(others.iter().copied());
    (there.len() >= FOREIGN_LABELS && share >= FOREIGN_SHARE).then(|| {
        format!(
            "{} labels that are none of the {classes} classes, from {smallest} to {largest}, on {} of the pixels",
            there.len(),
            percent(share)
        )
    })
}

/// Labels that are one off.
fn shifted(
    dataset: &Dataset,
    classes: usize,
    seen: &Labels,
    form: LabelForm,
) -> Option<(Preparation, String)> {
    let ignore = usize::from(IGNORE);
    let there = |label: usize| seen.counts[label] > 0;
    if form == LabelForm::Shifted {
        let last = classes - 1;
        if there(classes) && !there(0) {
            let evidence = format!(
                "label {classes} is there and label 0 is nowhere: read as 0 to {last}, the labels are one too high"
            );
            return Some((Preparation::UnshiftedLabels, evidence));
        }
        let wrapped = seen.share([ignore - 1]);
        if wrapped >= FOREIGN_SHARE && !there(classes) {
            let evidence = format!(
                "label 254, which is 255 shifted once more, is on {} of the pixels",
                percent(wrapped)
            );
            return Some((Preparation::TwiceShiftedLabels, evidence));
        }
        if dataset.layout == Layout::Loveda && !there(last) {
            let without = seen.in_masks[ignore];
            if without >= LOVEDA_LEAST && without as f64 >= MOST * seen.masks as f64 {
                let evidence = format!(
                    "the last label, {last}, is nowhere, and 255 is in {without} of {} masks, on {} of the pixels: \
                     background has become no data",
                    seen.masks,
                    percent(seen.share([ignore]))
                );
                return Some((Preparation::TwiceShiftedLabels, evidence));
            }
        }
    }
    if dataset.layout == Layout::Ade20k { upside_down(seen, form) } else { None }
}

/// Whether skies and ceilings lie below floors and roads as the labels are read, and above them once
/// every label is taken for its neighbour.
fn upside_down(seen: &Labels, form: LabelForm) -> Option<(Preparation, String)> {
    let first = if form == LabelForm::Original { 1 } else { 0 };
    if seen.masks < LEAST {
        return None;
    }
    let read = overhead(seen, first).filter(|&overhead| overhead < 0.0)?;
    [(first + 1, Preparation::UnshiftedLabels), (first - 1, Preparation::TwiceShiftedLabels)]
        .into_iter()
        .find_map(|(other, preparation)| {
            let right = overhead(seen, other).filter(|&overhead| overhead > OVERHEAD)?;
            let way = if other > first { "high" } else { "low" };
            let evidence = format!(
                "sky and ceiling lie below floor and road in {} masks (by {:.2} of the height) unless every label is \
                 one too {way} (then above, by {right:.2})",
                seen.masks, -read
            );
            Some((preparation, evidence))
        })
}

/// How much higher skies and ceilings lie than floors and roads, in image heights, if the class `c` is stored
/// as `c + first`; none where there is too little of either.
fn overhead(seen: &Labels, first: i32) -> Option<f64> {
    let stored = |classes: &[usize]| -> Vec<usize> {
        classes.iter().filter_map(|&class| usize::try_from(class as i32 + first).ok()).collect()
    };
    let (above, below) = (stored(&ABOVE), stored(&BELOW));
    let enough = |labels: &[usize]| seen.share(labels.iter().copied()) >= KIND_SHARE;
    (enough(&above) && enough(&below)).then(|| seen.height(&below) - seen.height(&above))
}

/// Published shares beside those found: total variation, half the sum of the differences; 0 is the same,
/// 1 has no class in common.
pub(super) fn distance(seen: &Labels, form: LabelForm, published: &[f64]) -> f64 {
    let first = usize::from(form == LabelForm::Original);
    let labelled: u64 = seen.counts[first..first + published.len()].iter().sum();
    let sum: f64 = published.iter().sum();
    let differences = published.iter().enumerate().map(|(class, share)| {
        let found = seen.counts[first + class] as f64 / labelled.max(1) as f64;
        (found - share / sum).abs()
    });
    differences.sum::<f64>() / 2.0
}

/// A share for people: two digits.
pub(super) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent >= 9.95 { format!("{percent:.0}%") } else { format!("{percent:.1}%") }
}
