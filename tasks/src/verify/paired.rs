//! Images with a depth map or a mask.

use std::collections::BTreeMap;

use rayon::prelude::*;
use schema::ListKind;

use super::header::Header;
use super::look::{Depths, Labels};
use super::report::Problems;
use super::{
    Finding, LOOKED_AT, Looked, Options, Report, Subject, Verdict, VerifyError, counted, decoded,
    duplicates, evidence, images, number, recognise, spread, sum,
};
use crate::data::Dataset;
use crate::dense::find::{Names, listed};
use crate::dense::{DenseError, LabelForm, PairedSet, list_kind};
use crate::files::Files;
use crate::image::{ImageError, decode_at, decode_gray16_at, decode_mask_at, read_in};
use crate::sample::is_sample;

/// Targets of a split that are looked at before a run.
const QUICK: usize = 32;

/// Distance between shares of classes (total variation) up to which all masks are as published; the
/// published shares are rounded and of an earlier release.
const ALL_MASKS: f64 = 0.1;

/// The same for a few masks: 64 images of ADE20K differ from all of them by 0.15 to 0.25.
const SOME_MASKS: f64 = 0.4;

/// Masks that are few.
const FEW_MASKS: usize = 32;

/// What is seen in the targets of a split.
#[derive(Default)]
struct Targets {
    depths: Depths,
    labels: Labels,
    unreadable: Problems,
    /// Targets without a depth or a class.
    nothing: Problems,
    /// By height and width.
    sizes: BTreeMap<(usize, usize), usize>,
}

impl Targets {
    fn merge(&mut self, other: Self) {
        self.depths.merge(other.depths);
        self.labels.merge(&other.labels);
        self.unreadable.merge(other.unreadable);
        self.nothing.merge(other.nothing);
        add_sizes(&mut self.sizes, other.sizes);
    }

    /// Looks at a target; its height and width, where it is of the right kind.
    fn look(
        &mut self,
        dataset: &Dataset,
        files: &Files,
        target: (usize, &str),
    ) -> Option<(usize, usize)> {
        let size = self.decode(dataset, files, target)?;
        *self.sizes.entry(size).or_default() += 1;
        Some(size)
    }

    fn decode(
        &mut self,
        dataset: &Dataset,
        files: &Files,
        (index, path): (usize, &str),
    ) -> Option<(usize, usize)> {
        let fail = |unreadable: &mut Problems, error: &ImageError| {
            unreadable.add(index, || within(files, error));
        };
        let (bytes, place) = match read_in(files, path) {
            Ok(read) => read,
            Err(error) => {
                fail(&mut self.unreadable, &error);
                return None;
            }
        };
        let header = Header::parse(&bytes);
        if let Some(depth) = dataset.depth {
            match decode_gray16_at(&bytes, &place) {
                Ok(map) => {
                    self.depths.add(dataset, depth.steps_per_metre as f32, &map);
                    if map.iter().all(|&value| value == 0) {
                        self.nothing.add(index, || format!("{path}: no pixel with a depth"));
                    }
                    return Some(map.dim());
                }
                Err(error) => {
                    let layout = matches!(error, ImageError::Layout { .. });
                    let eight = layout && header.is_some_and(|header| header.bits <= 8);
                    self.depths.eight_bit += usize::from(eight);
                    fail(&mut self.unreadable, &error);
                }
            }
            return None;
        }
        match decode_mask_at(&bytes, &place) {
            Ok(mask) => {
                self.labels.add(index, &mask);
                Some(mask.dim())
            }
            Err(error) => {
                if let (ImageError::Layout { .. }, Some(header)) = (&error, header) {
                    self.labels.colour += usize::from(header.channels > 1);
                    self.labels.deep += usize::from(header.channels == 1 && header.bits > 8);
                }
                fail(&mut self.unreadable, &error);
                None
            }
        }
    }
}

fn add_sizes(sizes: &mut BTreeMap<(usize, usize), usize>, others: BTreeMap<(usize, usize), usize>) {
    for (size, count) in others {
        *sizes.entry(size).or_default() += count;
    }
}

/// A message without the data folder, which the report names once.
fn within(files: &Files, error: &dyn std::fmt::Display) -> String {
    error.to_string().replace(&format!("{}/", files.root().display()), "")
}

/// What both splits are instead of right.
fn findings(
    dataset: &Dataset,
    splits: &[(&str, Targets)],
    chosen: Option<LabelForm>,
    generated: bool,
) -> (Vec<Finding>, Option<LabelForm>) {
    // Generated data is smaller.
    let resized = splits.iter().filter(|_| !generated);
    let mut found: Vec<Finding> = resized
        .filter_map(|(split, seen)| evidence::resized(dataset, split, &seen.sizes))
        .collect();
    if dataset.depth.is_some() {
        let of_split = |(split, seen): &(&str, Targets)| {
            evidence::depth(dataset, split, &seen.depths, generated)
        };
        found.extend(splits.iter().flat_map(of_split));
        return (found, None);
    }
    let mut all = Labels::default();
    splits.iter().for_each(|(_, seen)| all.merge(&seen.labels));
    let form = evidence::form(dataset, &all, chosen);
    let mut of_labels = evidence::labels(dataset, None, &all, form);
    if of_labels.is_empty() {
        let of_split = |(split, seen): &(&str, Targets)| {
            evidence::labels(dataset, Some(split), &seen.labels, form)
        };
        of_labels = splits.iter().flat_map(of_split).collect();
    }
    found.extend(of_labels);
    (found, form)
}

/// Wrong preparations that a run on this set would be refused for, from up to 32 depth maps or masks of
/// each split, in a fraction of a second. `labels` is the user's word on their form. Files that cannot be
/// read are left to the run; so are sets of fewer than four images a split.
pub fn quick(dataset: &Dataset, set: &PairedSet, labels: Option<LabelForm>) -> Vec<Finding> {
    let splits = [&set.train, &set.val].map(|split| {
        let pairs = split.pairs();
        let seen = spread(pairs.len(), QUICK)
            .into_par_iter()
            .fold(Targets::default, |mut seen, index| {
                seen.look(dataset, split.files(), (index, &pairs[index].target));
                seen
            })
            .reduce(Targets::default, |mut seen, other| {
                seen.merge(other);
                seen
            });
        (split.split(), seen)
    });
    let mark = is_sample(set.train.root());
    let generated = mark.is_some_and(|mark| mark.dataset == dataset.name);
    let mut found = findings(dataset, &splits, labels, generated).0;
    found.retain(|finding| finding.verdict == Verdict::Wrong);
    found
}

/// A pair of which both files are there.
struct There {
    image: Box<str>,
    target: Box<str>,
    image_bytes: u64,
}

/// Looks at pairs; the form of the labels, where it is known.
pub(super) fn verify(
    dataset: &Dataset,
    files: &Files,
    options: &Options<'_>,
    published: &BTreeMap<String, usize>,
    report: &mut Report,
) -> Result<Option<LabelForm>, VerifyError> {
    let lists = list_kind(dataset, files).and_then(|kind| {
        let list = |split| listed(dataset, files, split, kind, options.pinned);
        Ok((kind, [("train", list("train")?.1), ("val", list("val")?.1)]))
    });
    let (kind, lists) = match lists {
        Ok(found) => found,
        Err(error) => {
            report.find(recognise(dataset, files, Some(&error)));
            let error = match error {
                DenseError::List { problem, .. } => problem.to_string(),
                error => within(files, &error),
            };
            report.check(Subject::Files, None).is(Verdict::Wrong, error);
            return Ok(None);
        }
    };
    report.find(recognise(dataset, files, None));
    let mut splits = Vec::new();
    let mut images = Vec::new();
    for (split, names) in &lists {
        let pairs = present(files, split, names, report);
        let own = kind == ListKind::Own && !report.generated;
        counted(report, split, pairs.len(), published.get(*split).copied().filter(|_| !own));
        splits.push((*split, look(dataset, files, (split, &pairs), options, report)?));
        images.push(pairs);
    }
    let (found, form) = findings(dataset, &splits, options.labels, report.generated);
    report.find(found);
    for ((split, seen), pairs) in splits.iter().zip(&images) {
        values(dataset, (split, seen, pairs), form, report);
    }
    shares(dataset, &splits, form, report);
    let [train, val] = [0, 1].map(|at: usize| {
        let pairs = images.get(at).into_iter().flatten();
        pairs.map(|pair: &There| (&*pair.image, pair.image_bytes)).collect::<Vec<_>>()
    });
    duplicates::verify(files, &train, &val, options, report)?;
    Ok(form)
}

/// The pairs of which both files are there, and what is said of the others.
fn present(files: &Files, split: &str, names: &[Names], report: &mut Report) -> Vec<There> {
    let sizes: Vec<_> =
        names.par_iter().map(|(image, target)| (files.size(image), files.size(target))).collect();
    let (mut there, mut problems) = (Vec::new(), Problems::default());
    for (index, ((image, target), sizes)) in names.iter().zip(sizes).enumerate() {
        match sizes {
            (Ok(Some(image_bytes)), Ok(Some(target_bytes))) => {
                for (path, bytes) in [(image, image_bytes), (target, target_bytes)] {
                    if bytes == 0 {
                        problems.add(index, || format!("{path}: an empty file"));
                    }
                }
                there.push(There { image: image.clone(), target: target.clone(), image_bytes });
            }
            (image_size, target_size) => {
                for (path, size) in [(image, image_size), (target, target_size)] {
                    match size {
                        Ok(None) => problems.add(index, || format!("{path}: not there")),
                        Err(error) => problems.add(index, || format!("{path}: {error}")),
                        Ok(Some(_)) => {}
                    }
                }
            }
        }
    }
    let said = match problems.count {
        0 => format!("both files of all {}", number(names.len(), "pair")),
        count => {
            let (pairs, files) = (number(names.len(), "pair"), number(count, "file"));
            format!("of {pairs}, {files} missing, empty or not accessible")
        }
    };
    let verdict = problems.verdict(Verdict::Wrong);
    report.check(Subject::Files, Some(split)).with(verdict, said, &problems);
    there
}

/// What is seen in pairs, beside their targets.
#[derive(Default)]
struct Pairs {
    targets: Targets,
    unreadable: Problems,
    differ: Problems,
    small: Problems,
    /// Not of three channels.
    grey: usize,
    sizes: BTreeMap<(usize, usize), usize>,
}

/// Decodes pairs and says what was seen, but for the values.
fn look(
    dataset: &Dataset,
    files: &Files,
    (split, pairs): (&str, &[There]),
    options: &Options<'_>,
    report: &mut Report,
) -> Result<Targets, VerifyError> {
    let indices = spread(pairs.len(), if options.full { pairs.len() } else { LOOKED_AT });
    let what = format!("{}, {split}", dataset.name);
    let one = |seen: &mut Pairs, index: usize| {
        let There { image, target, .. } = &pairs[index];
        let size = seen.targets.look(dataset, files, (index, target));
        let decoded = read_in(files, image).and_then(|(bytes, place)| {
            Ok((decode_at(&bytes, &place)?.dim(), Header::parse(&bytes)))
        });
        let ((height, width, _), header) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return seen.unreadable.add(index, || within(files, &error)),
        };
        *seen.sizes.entry((height, width)).or_default() += 1;
        if let Some(size) = size.filter(|&size| size != (height, width)) {
            seen.differ.add(index, || {
                format!("{target}: {}x{}, its image is {width}x{height}", size.1, size.0)
            });
        }
        if let Some([_, bottom, _, right]) = evidence::crop(dataset)
            && (height < bottom || width < right)
        {
            seen.small.add(index, || {
                format!("{image}: {width}x{height}; the protocol keeps rows up to {bottom}, columns up to {right}")
            });
        }
        seen.grey += usize::from(header.is_some_and(|header| header.channels != 3));
    };
    let merge = |seen: &mut Pairs, other: Pairs| {
        seen.targets.merge(other.targets);
        seen.unreadable.merge(other.unreadable);
        seen.differ.merge(other.differ);
        seen.small.merge(other.small);
        seen.grey += other.grey;
        add_sizes(&mut seen.sizes, other.sizes);
    };
    let mut seen: Pairs = sum(&indices, &what, options, one, merge)?;
    let (looked_at, found) = (indices.len(), pairs.len());
    report.splits.push(Looked { split: split.to_owned(), found, looked_at });
    seen.unreadable.merge(seen.targets.unreadable.clone());
    let bad = &seen.unreadable;
    let said = decoded(looked_at, found, "pair", bad.count);
    report.check(Subject::Readable, Some(split)).with(bad.verdict(Verdict::Wrong), said, bad);
    let sizes = images::sizes(&seen.sizes);
    seen.differ.merge(seen.small);
    let differ = &seen.differ;
    let said = match differ.count {
        0 => format!("images {sizes}, targets the same"),
        count => {
            format!("images {sizes}; {count} of another size than their targets, or too small")
        }
    };
    report.check(Subject::Sizes, Some(split)).with(differ.verdict(Verdict::Wrong), said, differ);
    images::channels(split, seen.grey, report);
    Ok(seen.targets)
}

/// Depths or labels of a split.
fn values(
    dataset: &Dataset,
    (split, seen, pairs): (&str, &Targets, &[There]),
    form: Option<LabelForm>,
    report: &mut Report,
) {
    if dataset.depth.is_some() {
        let depths = &seen.depths;
        let Some(median) = depths.median() else { return };
        let valid = evidence::percent(f64::from(depths.mean_valid()));
        let said = format!(
            "depth on {valid} of the pixels, median {median:.2} m, largest {:.2} m",
            depths.farthest
        );
        let verdict = seen.nothing.verdict(Verdict::Note);
        return report.check(Subject::Values, Some(split)).with(verdict, said, &seen.nothing);
    }
    let (Some(classes), labels) = (dataset.classes, &seen.labels) else { return };
    if labels.masks == 0 {
        return;
    }
    let check = report.check(Subject::Values, Some(split));
    let Some(form) = form else {
        let said = format!(
            "no label 255 and none of {classes} in these masks, so they may be in the original or in the shifted form"
        );
        return check.is(Verdict::Note, said);
    };
    let (first, without) = match form {
        LabelForm::Original => (1, 0),
        LabelForm::Shifted => (0, usize::from(crate::dense::IGNORE)),
    };
    let is_class = |label: usize| (first..first + classes).contains(&label);
    let there = (0..256).filter(|&label| labels.counts[label] > 0);
    let (of_classes, others): (Vec<usize>, Vec<usize>) =
        there.filter(|&label| label != without).partition(|&label| is_class(label));
    let mut problems = Problems::default();
    for &label in &others {
        let at = labels.first[label];
        problems.add(at, || format!("{}: label {label}", pairs[at].target));
    }
    let odd = match others.len() {
        0 => String::new(),
        count => format!("; {} that no class has", number(count, "label")),
    };
    let stored = match dataset.labels.as_ref().is_some_and(|labels| labels.original.is_some()) {
        true => format!(", stored in the {} form", form.name()),
        false => String::new(),
    };
    let said = format!(
        "{} of {classes} classes, {} of the pixels without one{stored}{odd}",
        of_classes.len(),
        evidence::percent(labels.share([without])),
    );
    check.with(problems.verdict(Verdict::Wrong), said, &problems);
}

/// Shares of the classes beside the published ones, which are of the images for training.
fn shares(
    dataset: &Dataset,
    splits: &[(&str, Targets)],
    form: Option<LabelForm>,
    report: &mut Report,
) {
    let published = dataset.labels.as_ref().and_then(|labels| labels.shares.as_ref());
    let (Some(published), Some(form), Some((split, seen))) = (published, form, splits.first())
    else {
        return;
    };
    let masks = seen.labels.masks;
    if masks < FEW_MASKS || report.generated {
        return;
    }
    let distance = evidence::distance(&seen.labels, form, &published.of_pixels);
    let limit = if report.full { ALL_MASKS } else { SOME_MASKS };
    let verdict = if distance <= limit { Verdict::Good } else { Verdict::Note };
    let said = format!(
        "{distance:.2} from the published ones (total variation; up to {limit} is expected of {masks} masks)"
    );
    report.check(Subject::Shares, Some(split)).is(verdict, said);
}
