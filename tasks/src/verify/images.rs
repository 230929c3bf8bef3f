//! Images in one folder a class.

use std::collections::BTreeMap;

use super::header::Header;
use super::report::Problems;
use super::{
    Finding, LOOKED_AT, Looked, Options, Preparation, Report, Subject, Verdict, VerifyError,
    counted, decoded, duplicates, names, number, spread, sum,
};
use crate::data::{Dataset, ImageFolder, ImageNet};
use crate::files::Files;
use crate::image::{decode_at, read_in};

/// Fewest images, and the share of them, that have to be of one size to be called resized.
const RESIZED: (usize, f64) = (32, 0.95);

/// Images no larger than this were made smaller: those of ImageNet are 500 x 375 in the middle.
const SMALL: usize = 256;

pub(super) fn verify(
    dataset: &Dataset,
    files: &Files,
    options: &Options<'_>,
    published: &BTreeMap<String, usize>,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let set = match ImageNet::open(files) {
        Ok(set) => set,
        Err(error) => {
            report.find(names::unsorted(dataset, &error));
            report.check(Subject::Files, None).is(Verdict::Wrong, error.to_string());
            return Ok(());
        }
    };
    classes(dataset, &set, report);
    for folder in [&set.train, &set.val] {
        let split = folder.split();
        counted(report, split, folder.found(), published.get(split).copied());
        look(dataset, files, folder, options, report)?;
    }
    let [train, val] = [&set.train, &set.val].map(|folder| -> Vec<duplicates::Image<'_>> {
        folder.samples().iter().map(|sample| (&*sample.path, sample.bytes)).collect()
    });
    duplicates::verify(files, &train, &val, options, report)
}

/// Number and names of the folders.
fn classes(dataset: &Dataset, set: &ImageNet, report: &mut Report) {
    let names = set.train.classes();
    let is_wnid = |name: &&String| {
        name.len() == 9
            && name.starts_with('n')
            && name.bytes().skip(1).all(|digit| digit.is_ascii_digit())
    };
    let renamed = names.iter().filter(|name| !is_wnid(name)).count();
    let expected = dataset.classes.unwrap_or(names.len());
    let count = number(names.len(), "class folder");
    let (verdict, said) = if report.generated || (names.len() == expected && renamed == 0) {
        (Verdict::Good, count)
    } else if names.len() != expected {
        (Verdict::Wrong, format!("{count}, expected {expected}"))
    } else {
        let said = format!(
            "{count}, {renamed} not named as n01440764: classes are numbered in the order of the names, which may \
             be another than the published one"
        );
        (Verdict::Note, said)
    };
    report.check(Subject::Classes, None).is(verdict, said);
}

#[derive(Default)]
struct Seen {
    unreadable: Problems,
    /// Not three channels. ImageNet has grey images and some of four channels.
    grey: usize,
    sizes: BTreeMap<(usize, usize), usize>,
}

fn look(
    dataset: &Dataset,
    files: &Files,
    folder: &ImageFolder,
    options: &Options<'_>,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let (split, samples) = (folder.split(), folder.samples());
    let indices = spread(samples.len(), if options.full { samples.len() } else { LOOKED_AT });
    let one = |seen: &mut Seen, index: usize| {
        let path = &*samples[index].path;
        let decoded = read_in(files, path).and_then(|(bytes, place)| {
            Ok((decode_at(&bytes, &place)?.dim(), Header::parse(&bytes)))
        });
        match decoded {
            Ok(((height, width, _), header)) => {
                *seen.sizes.entry((height, width)).or_default() += 1;
                seen.grey += usize::from(header.is_some_and(|header| header.channels != 3));
            }
            Err(error) => {
                let root = format!("{}/", files.root().display());
                seen.unreadable.add(index, || error.to_string().replace(&root, ""));
            }
        }
    };
    let merge = |seen: &mut Seen, other: Seen| {
        seen.unreadable.merge(other.unreadable);
        seen.grey += other.grey;
        for (size, count) in other.sizes {
            *seen.sizes.entry(size).or_default() += count;
        }
    };
    let what = format!("{}, {split}", dataset.name);
    let seen: Seen = sum(&indices, &what, options, one, merge)?;
    let (found, looked_at) = (samples.len(), indices.len());
    report.splits.push(Looked { split: split.to_owned(), found, looked_at });
    let bad = &seen.unreadable;
    let said = decoded(looked_at, found, "image", bad.count);
    report.check(Subject::Readable, Some(split)).with(bad.verdict(Verdict::Wrong), said, bad);
    report.check(Subject::Sizes, Some(split)).is(Verdict::Good, sizes(&seen.sizes));
    channels(split, seen.grey, report);
    if let Some(evidence) = resized(&seen.sizes) {
        report.find(vec![Finding::new(dataset, Preparation::Resized, Some(split), evidence)]);
    }
    Ok(())
}

/// Images that are not of three channels: as published, and read as RGB.
pub(super) fn channels(split: &str, others: usize, report: &mut Report) {
    if others > 0 {
        let said = format!("{} not of three channels, read as RGB", number(others, "image"));
        report.check(Subject::Channels, Some(split)).is(Verdict::Good, said);
    }
}

/// Nearly all images with the same shorter side, or small ones alone.
fn resized(sizes: &BTreeMap<(usize, usize), usize>) -> Option<String> {
    let all: usize = sizes.values().sum();
    let mut shorter: BTreeMap<usize, usize> = BTreeMap::new();
    for (&(height, width), count) in sizes {
        *shorter.entry(height.min(width)).or_default() += count;
    }
    let (side, same) = shorter.into_iter().max_by_key(|&(_, count)| count)?;
    let small: usize =
        sizes.iter().filter(|(size, _)| size.0.max(size.1) <= SMALL).map(|(_, n)| n).sum();
    let nearly = |count: usize| count as f64 >= RESIZED.1 * all as f64;
    match all >= RESIZED.0 {
        true if nearly(same) => {
            Some(format!("the shorter side of {same} of {all} images is {side} pixels"))
        }
        true if nearly(small) => {
            Some(format!("{small} of {all} images are not larger than {SMALL} pixels"))
        }
        _ => None,
    }
}

/// Sizes of images for people.
pub(super) fn sizes(sizes: &BTreeMap<(usize, usize), usize>) -> String {
    let area = |&(height, width): &(usize, usize)| height * width;
    let smallest = sizes.keys().min_by_key(|size| area(size));
    let largest = sizes.keys().max_by_key(|size| area(size));
    match (sizes.len(), smallest, largest) {
        (1, Some((height, width)), _) => format!("all {width}x{height}"),
        (count, Some(small), Some(large)) => {
            format!("of {count} sizes from {}x{} to {}x{}", small.1, small.0, large.1, large.0)
        }
        _ => "none".to_owned(),
    }
}
