//! Every wrong preparation, made from the miniature.

use std::fs;

use pixio_eval_tasks::data::Registry;
use pixio_eval_tasks::dense::{LabelForm, PairedSet};
use pixio_eval_tasks::files::Files;
use pixio_eval_tasks::verify::{Preparation, Report, Verdict, recognise};
use png::{BitDepth, ColorType};

use crate::miniature::{Miniature, OPTIONS, lines};
use crate::right::with_holes;

fn found(report: &Report) -> String {
    let found: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    found.join("\n")
}

#[test]
fn filled_depth_is_recognised() {
    let miniature = Miniature::new("nyuv2");
    with_holes(&miniature);
    assert_eq!(miniature.found(None), []);
    miniature.depth(|_, _, value| value.max(2500));
    assert_eq!(miniature.found(None), [Preparation::DenseDepth]);
    insta::assert_snapshot!(found(&miniature.report(OPTIONS)), @r#"
    dense-depth (train): 8 of 8 depth maps have no holes in the protocol's crop (fewer than 0.1% of its pixels without a depth)
    dense-depth (val): 4 of 4 depth maps have no holes in the protocol's crop (fewer than 0.1% of its pixels without a depth)
    "#);
}

#[test]
fn other_steps_of_depth_are_recognised() {
    // Steps a metre instead of the right ones: centimetres, TUM's, 16 bits over 10 m; millimetres for KITTI.
    for (name, steps) in
        [("nyuv2", 100), ("nyuv2", 5000), ("nyuv2", 6553), ("kitti", 1000), ("kitti", 10)]
    {
        let miniature = Miniature::new(name);
        if name == "nyuv2" {
            with_holes(&miniature);
        }
        let right = miniature.dataset.depth.unwrap().steps_per_metre;
        miniature
            .depth(|_, _, value| (u64::from(value) * steps / u64::from(right)).min(65535) as u16);
        assert_eq!(miniature.found(None), [Preparation::DepthScale], "{name} {steps}");
    }
}

#[test]
fn depth_of_8_bits_is_recognised() {
    for name in ["nyuv2", "kitti"] {
        let miniature = Miniature::new(name);
        miniature.recode((ColorType::Grayscale, BitDepth::Eight), |value| vec![value]);
        assert_eq!(miniature.found(None), [Preparation::EightBitDepth], "{name}");
    }
}

/// Every other measured row alone, so that a map is as sparse as one scan.
pub fn scans(miniature: &Miniature) {
    miniature.depth(|row, _, value| if row % 6 == 0 { value } else { 0 });
}

#[test]
fn single_scans_are_recognised() {
    let miniature = Miniature::new("kitti");
    scans(&miniature);
    assert_eq!(miniature.found(None), [Preparation::RawLidar]);
    let report = miniature.report(OPTIONS);
    insta::assert_snapshot!(report.findings[0], @"raw-lidar (train): 8 of 8 depth maps have the pattern of a single scan; on average 5.6% of the pixels have a depth, expected about 16%");
}

#[test]
fn a_sparse_map_of_many_scans_is_right() {
    // As many pixels as a scan has, but anywhere.
    let miniature = Miniature::new("kitti");
    miniature.depth(|row, column, _| {
        let tag = format!("{row}/{column}");
        let draw = blake3::hash(tag.as_bytes()).as_bytes()[0];
        if row > 120 && draw < 28 { 2560 } else { 0 }
    });
    assert_eq!(miniature.found(None), []);
}

#[test]
fn unshifted_labels_are_recognised() {
    let miniature = Miniature::new("ade20k");
    // 255 for other, and 1 to 150 as they were: one too high in the shifted form.
    miniature.labels(|label| if label == 255 { 255 } else { label + 1 });
    assert_eq!(miniature.found(None), [Preparation::UnshiftedLabels]);
    insta::assert_snapshot!(miniature.report(OPTIONS).findings[0], @"unshifted-labels: sky and ceiling lie below floor and road in 12 masks (by 0.10 of the height) unless every label is one too high (then above, by 0.64)");
    // With the last class, which the shifted form does not have.
    miniature.labels(|label| if label == 99 { 150 } else { label });
    let report = miniature.report(OPTIONS);
    assert_eq!(report.findings[0].preparation, Preparation::UnshiftedLabels);
    insta::assert_snapshot!(report.findings[0], @"unshifted-labels: label 150 is there and label 0 is nowhere: read as 0 to 149, the labels are one too high");
    // The original form, read as the shifted one.
    let miniature = Miniature::new("ade20k");
    miniature.labels(|label| label.wrapping_add(1));
    assert_eq!(miniature.found(Some(LabelForm::Shifted)), [Preparation::UnshiftedLabels]);
    assert_eq!(miniature.found(Some(LabelForm::Original)), []);

    let miniature = Miniature::new("loveda");
    miniature.labels(|label| if label == 0 { 255 } else { label });
    assert_eq!(miniature.found(None), [Preparation::UnshiftedLabels]);
}

#[test]
fn twice_shifted_labels_are_recognised() {
    // Subtracted in 8 bits, or with 255 left alone.
    for name in ["ade20k", "loveda"] {
        for wraps in [true, false] {
            let miniature = Miniature::new(name);
            let times = if name == "ade20k" { 1 } else { 2 };
            let once = |label: u8| if label == 255 && !wraps { 255 } else { label.wrapping_sub(1) };
            miniature.labels(|label| (0..times).fold(label, |label, _| once(label)));
            assert_eq!(miniature.found(None), [Preparation::TwiceShiftedLabels], "{name} {wraps}");
            let report = miniature.report(OPTIONS);
            insta::assert_snapshot!(format!("{name}_twice_shifted_{wraps}"), found(&report));
        }
    }
    // Shifted on disk, and read as if not.
    let miniature = Miniature::new("ade20k");
    miniature.labels(|label| if label == 255 { 0 } else { label });
    assert_eq!(miniature.found(Some(LabelForm::Original)), [Preparation::TwiceShiftedLabels]);
}

#[test]
fn full_ade20k_is_recognised_by_its_folders() {
    let ade20k = Registry::builtin().unwrap().get("ade20k").unwrap().clone();
    for (files, evidence) in [
        (
            vec!["images/ADE/training/urban/street/ADE_train_00000001.jpg"],
            "full-ade20k: there is a folder images/ADE/training",
        ),
        (
            vec!["ADE20K_2021_17_01/images/ADE/training/home/attic/ADE_train_00000001.jpg"],
            "full-ade20k: there is a folder ADE20K_2021_17_01",
        ),
        (
            vec!["images/training/a/abbey/ADE_train_00000001.jpg", "images/training/b/bar/x.jpg"],
            "full-ade20k: images/training has 2 folders of places, such as a and b",
        ),
        (
            vec![
                "images/training/ADE_train_00000001.jpg",
                "images/training/ADE_train_00000001_seg.png",
            ],
            "full-ade20k: images/training has masks beside its images, the first is ADE_train_00000001_seg.png",
        ),
        (vec!["index_ade20k.pkl"], "full-ade20k: there is an index index_ade20k.pkl"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let files = Files::folder(folder.path());
        let error = PairedSet::open(&ade20k, &files).unwrap_err();
        let found = recognise(&ade20k, &files, Some(&error));
        assert_eq!(found[0].to_string(), evidence);
        let report = pixio_eval_tasks::verify::verify(&ade20k, &files, &OPTIONS).unwrap();
        assert_eq!((report.findings, report.verdict), (found, Verdict::Wrong));
    }
}

#[test]
fn what_lies_beside_right_data_says_nothing() {
    let miniature = Miniature::new("ade20k");
    let root = miniature.root();
    fs::create_dir_all(root.join("ADE20K_2021_17_01/images/ADE/training/home/attic")).unwrap();
    fs::write(root.join("index_ade20k.pkl"), "").unwrap();
    let recognised = || recognise(&miniature.dataset, &miniature.files(), None);
    assert_eq!(recognised(), []);
    assert_eq!(miniature.found(None), []);
    // But not among its images.
    fs::create_dir_all(root.join("images/ADE/training/home/attic")).unwrap();
    assert_eq!(recognised()[0].preparation, Preparation::FullAde20k);
}

#[test]
fn nyuv2_of_another_size_is_recognised() {
    for size in [(960, 1280), (240, 320)] {
        let miniature = Miniature::new("nyuv2");
        with_holes(&miniature);
        miniature.resize(size);
        assert_eq!(miniature.found(None), [Preparation::Resized]);
        let (found, (height, width)) = (miniature.report(OPTIONS).findings, size);
        assert_eq!(found[0].to_string(), "resized (train): 8 of 8 depth maps are not 640x480");
        assert_eq!(found[0].verdict, Verdict::Wrong, "{width}x{height}");
    }
    assert!(!Preparation::Resized.is_readable());
}

#[test]
fn masks_of_other_kinds_are_recognised() {
    for (name, expected) in [
        ("ade20k", Preparation::FullAde20k),
        ("voc2012", Preparation::ColourMasks),
        ("loveda", Preparation::ColourMasks),
    ] {
        for kind in [(ColorType::Rgb, BitDepth::Eight), (ColorType::Grayscale, BitDepth::Sixteen)] {
            let miniature = Miniature::new(name);
            let bytes = if kind.0 == ColorType::Rgb { 3 } else { 2 };
            miniature.recode(kind, |label| vec![label; bytes]);
            assert_eq!(miniature.found(None), [expected], "{name}");
        }
    }
    let miniature = Miniature::new("ade20k");
    miniature.labels(|label| if label < 100 { label * 2 + 50 } else { label });
    assert_eq!(miniature.found(None), [Preparation::FullAde20k]);
}

#[test]
fn voc_without_its_augmented_masks_is_recognised() {
    let miniature = Miniature::new("voc2012");
    let root = miniature.root();
    for list in ["train.txt", "val.txt"] {
        fs::remove_file(root.join(list)).unwrap();
    }
    fs::rename(root.join("SegmentationClassAug"), root.join("SegmentationClass")).unwrap();
    assert_eq!(miniature.report(OPTIONS).findings, []);
    fs::remove_file(root.join("SegmentationClass/2012_000003.png")).unwrap();
    let report = miniature.report(OPTIONS);
    assert_eq!(report.findings[0].preparation, Preparation::NotAugmented);
    insta::assert_snapshot!(lines(&report), @r#"
    Wrong
    not-augmented: 1 of the 8 masks of the augmented training list are missing
    Wrong files -: DATA: 1 of the 8 masks of the augmented training list are missing, the first SegmentationClass/2012_000003.png: expected the masks of the Semantic Boundaries Dataset in SegmentationClass, beside the official ones, or all of them in SegmentationClassAug
    "#);
}

#[test]
fn every_name_in_datasets_toml_is_a_preparation_and_the_other_way_round() {
    let registry = Registry::builtin().unwrap();
    let wrong = || registry.datasets().iter().flat_map(|set| &set.wrong);
    assert!(wrong().all(|wrong| Preparation::named(&wrong.name).is_some()));
    for preparation in Preparation::ALL {
        assert!(wrong().any(|wrong| wrong.name == preparation.name()), "{preparation}");
        let json = serde_json::to_string(&preparation).unwrap();
        assert_eq!(json, format!("\"{preparation}\""));
    }
}
