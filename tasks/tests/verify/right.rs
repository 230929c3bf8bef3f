//! Right data is said to be right.

use std::fs;
use std::path::{Path, PathBuf};

use pixio_eval_tasks::data::Registry;
use pixio_eval_tasks::dense::{LabelForm, PairedSet};
use pixio_eval_tasks::files::Files;
use pixio_eval_tasks::image::{decode_gray16, decode_mask};
use pixio_eval_tasks::sample;
use pixio_eval_tasks::verify::{Options, Verdict, quick, verify};
use png::{BitDepth, ColorType};
use proptest::prelude::*;

use crate::miniature::{Miniature, OPTIONS, lines, write_png};

const PAIRED: [&str; 5] = ["nyuv2", "kitti", "ade20k", "voc2012", "loveda"];

#[test]
fn generated_data_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::builtin().unwrap();
    for name in PAIRED.into_iter().chain(["imagenet1k"]) {
        let dataset = registry.get(name).unwrap();
        let root = sample::write(name, folder.path()).unwrap();
        for full in [false, true] {
            let files = Files::folder(&root);
            let report = verify(dataset, &files, &Options { full, ..OPTIONS }).unwrap();
            assert_eq!(report.verdict, Verdict::Good, "{}", lines(&report));
            assert_eq!((report.generated, report.full), (true, full));
            if name != "imagenet1k" {
                let set = PairedSet::open(dataset, &files).unwrap();
                assert_eq!(quick(dataset, &set, None), []);
            }
        }
    }
}

/// Holes as a Kinect has them.
pub fn with_holes(miniature: &Miniature) {
    miniature.depth(|row, column, value| if (row / 9 + column / 7) % 11 == 0 { 0 } else { value });
}

#[test]
fn without_the_mark_and_in_either_form_of_labels_it_is_right_too() {
    for name in PAIRED {
        let miniature = Miniature::new(name);
        if name == "nyuv2" {
            with_holes(&miniature);
        }
        assert_eq!(miniature.found(None), [], "{name}");
        let classes = miniature.dataset.classes.unwrap_or(0) as u8;
        match name {
            "ade20k" => {
                // As published: 0 other, 1 to 150; the last class decides which form it is.
                miniature.labels(|label| match label {
                    255 => 0,
                    98 => classes,
                    label => label + 1,
                });
                assert_eq!(miniature.found(None), []);
                assert_eq!(miniature.found(Some(LabelForm::Original)), []);
            }
            "loveda" => {
                assert_eq!(miniature.found(Some(LabelForm::Original)), []);
                miniature.labels(|label| label.wrapping_sub(1));
                assert_eq!(miniature.found(None), []);
                assert_eq!(miniature.found(Some(LabelForm::Shifted)), []);
            }
            _ => {}
        }
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../harness/tests/golden")
}

#[test]
fn the_golden_data_is_right() {
    let registry = Registry::builtin().unwrap();
    for name in ["nyuv2", "kitti", "ade20k"] {
        let (mut dataset, files) =
            (registry.get(name).unwrap().clone(), Files::folder(&golden().join(name)));
        // Files of these names were generated too.
        dataset.known.clear();
        let set = PairedSet::open(&dataset, &files).unwrap();
        assert_eq!(quick(&dataset, &set, None), [], "{name}");
        let report = verify(&dataset, &files, &Options { full: true, ..OPTIONS }).unwrap();
        assert_eq!(report.findings, [], "{name}");
        assert!(report.verdict < Verdict::Wrong, "{}", lines(&report));
    }
}

/// A copy of a folder of pairs in which every target is a crop of what it was.
fn cropped(name: &str, root: &Path, to: &Path, place: [f64; 4]) {
    let registry = Registry::builtin().unwrap();
    let dataset = registry.get(name).unwrap();
    let set = PairedSet::open(dataset, root).unwrap();
    for list in ["train.txt", "val.txt"] {
        fs::copy(root.join(list), to.join(list)).unwrap();
    }
    let span = |length: usize, from: f64, share: f64| {
        let kept = (length as f64 * share).max(16.0) as usize;
        let start = ((length - kept) as f64 * from) as usize;
        start..start + kept
    };
    for pair in [&set.train, &set.val].iter().flat_map(|split| split.pairs()) {
        for path in [&pair.image, &pair.target] {
            fs::create_dir_all(to.join(&**path).parent().unwrap()).unwrap();
        }
        fs::copy(root.join(&*pair.image), to.join(&*pair.image)).unwrap();
        let (from, to) = (root.join(&*pair.target), to.join(&*pair.target));
        if dataset.depth.is_some() {
            let map = decode_gray16(&from).unwrap();
            let rows = span(map.nrows(), place[0], place[2]);
            let columns = span(map.ncols(), place[1], place[3]);
            let cut = map.slice(ndarray::s![rows, columns]);
            let bytes: Vec<u8> = cut.iter().flat_map(|value| value.to_be_bytes()).collect();
            write_png(&to, cut.dim(), (ColorType::Grayscale, BitDepth::Sixteen), &bytes);
        } else {
            let mask = decode_mask(&from).unwrap();
            let rows = span(mask.nrows(), place[0], place[2]);
            let columns = span(mask.ncols(), place[1], place[3]);
            let cut = mask.slice(ndarray::s![rows, columns]);
            let bytes: Vec<u8> = cut.iter().copied().collect();
            write_png(&to, cut.dim(), (ColorType::Grayscale, BitDepth::Eight), &bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn crops_of_right_data_are_right(
        which in 0..7_usize,
        top in 0.0..1.0,
        left in 0.0..1.0,
        height in 0.1..1.0,
        width in 0.1..1.0,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let names = ["nyuv2", "kitti", "ade20k", "nyuv2", "kitti", "ade20k", "loveda"];
        let name = names[which];
        let miniature = Miniature::new(name);
        if name == "nyuv2" {
            with_holes(&miniature);
        }
        let root = if which < 3 { golden().join(name) } else { miniature.root() };
        cropped(name, &root, folder.path(), [top, left, height, width]);
        let set = PairedSet::open(&miniature.dataset, folder.path()).unwrap();
        prop_assert_eq!(quick(&miniature.dataset, &set, None), []);
    }

    /// Right images never make a finding, whichever they are and however many, repeated ones too.
    #[test]
    fn adding_right_images_never_makes_a_finding(
        which in 0..PAIRED.len(),
        train in proptest::collection::vec(0..8_usize, 1..40),
        val in proptest::collection::vec(0..4_usize, 1..40),
    ) {
        let miniature = Miniature::new(PAIRED[which]);
        if PAIRED[which] == "nyuv2" {
            with_holes(&miniature);
        }
        for (split, picked) in [("train", &train), ("val", &val)] {
            let list = miniature.root().join(format!("{split}.txt"));
            let text = fs::read_to_string(&list).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let text: String = picked.iter().map(|&at| format!("{}\n", lines[at])).collect();
            fs::write(&list, text).unwrap();
        }
        prop_assert_eq!(quick(&miniature.dataset, &miniature.set(), None), []);
    }

    /// Nor do they keep a wrong preparation from being the only finding, or make another one.
    #[test]
    fn right_images_among_wrong_ones_make_no_further_finding(right in 0..13_usize) {
        let miniature = Miniature::new("kitti");
        let targets = miniature.targets();
        let kept: Vec<Vec<u8>> = targets.iter().map(|path| fs::read(path).unwrap()).collect();
        crate::wrong::scans(&miniature);
        for (path, bytes) in targets.iter().zip(&kept).take(right) {
            fs::write(path, bytes).unwrap();
        }
        let found = quick(&miniature.dataset, &miniature.set(), None);
        let wrong_train = 8_usize.saturating_sub(right);
        let wrong_val = 4 - right.saturating_sub(8).min(4);
        let expected =
            usize::from(wrong_train >= 7) + usize::from(wrong_val == 4);
        prop_assert_eq!(found.len(), expected, "{:?}", found);
    }
}
