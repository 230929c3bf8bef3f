//! Single files that are not as they should be, each reported in its place.

use std::fs;
use std::path::Path;

use pixio_eval_tasks::data::{Checksum, KnownFile};
use pixio_eval_tasks::verify::{Options, Report, Subject, Verdict};
use png::{BitDepth, ColorType};

use crate::miniature::{Miniature, OPTIONS, lines, write_png};

const FULL: Options<'static> = Options { full: true, ..OPTIONS };

/// Everything that is not as it should be.
fn wrong(report: &Report) -> String {
    let mut report = report.clone();
    report.checks.retain(|check| check.verdict == Verdict::Wrong);
    lines(&report)
}

#[test]
fn missing_empty_and_truncated_files() {
    let miniature = Miniature::new("ade20k");
    let root = miniature.root();
    fs::remove_file(root.join("images/training/ADE_train_00000002.jpg")).unwrap();
    fs::remove_file(root.join("annotations/validation/ADE_val_00000004.png")).unwrap();
    fs::write(root.join("images/training/ADE_train_00000003.jpg"), "").unwrap();
    let cut = root.join("images/training/ADE_train_00000005.jpg");
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    fs::write(root.join("annotations/training/ADE_train_00000006.png"), "<html>").unwrap();
    insta::assert_snapshot!(wrong(&miniature.report(OPTIONS)), @r#"
    Wrong
    Wrong files train: of 8 pairs, 2 files missing, empty or not accessible
        images/training/ADE_train_00000002.jpg: not there
        images/training/ADE_train_00000003.jpg: an empty file
    Wrong readable train: all 7 pairs looked at, 3 files not readable
        images/training/ADE_train_00000003.jpg: expected a JPEG or PNG image, found an empty file
        images/training/ADE_train_00000005.jpg: truncated JPEG image: 16135 bytes end in row 239 of 384
        annotations/training/ADE_train_00000006.png: expected a JPEG or PNG image, found text beginning "<html>"
    Wrong files val: of 4 pairs, 1 file missing, empty or not accessible
        annotations/validation/ADE_val_00000004.png: not there
    "#);
}

#[test]
fn targets_of_another_size_8_bits_or_labels_without_a_class() {
    let miniature = Miniature::new("voc2012");
    let mask = |name: &str| miniature.root().join(format!("SegmentationClassAug/{name}.png"));
    let grey = (ColorType::Grayscale, BitDepth::Eight);
    write_png(&mask("2012_000002"), (100, 80), grey, &[0; 8000]);
    write_png(&mask("2012_000101"), (375, 500), grey, &[21; 375 * 500]);
    let report = miniature.report(OPTIONS);
    assert_eq!(report.findings, []);
    insta::assert_snapshot!(wrong(&report), @r#"
    Wrong
    Wrong sizes train: images of 3 sizes from 500x333 to 375x500; 1 of another size than their targets, or too small
        SegmentationClassAug/2012_000002.png: 80x100, its image is 375x500
    Wrong values val: 9 of 21 classes, 2.1% of the pixels without one; 1 label that no class has
        SegmentationClassAug/2012_000101.png: label 21
    "#);

    let miniature = Miniature::new("kitti");
    let map = &miniature.targets()[2];
    write_png(map, (375, 1242), grey, &vec![9; 375 * 1242]);
    let report = miniature.report(OPTIONS);
    assert_eq!(report.findings, []);
    insta::assert_snapshot!(wrong(&report), @r#"
    Wrong
    Wrong readable train: all 8 pairs looked at, 1 file not readable
        annotations/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000002.png: expected a 16-bit single-channel PNG, found a 8-bit single-channel PNG
    "#);
}

#[test]
fn images_for_training_among_those_for_validation() {
    for full in [false, true] {
        let miniature = Miniature::new("loveda");
        let path = |file: &str| miniature.root().join(file);
        fs::copy(path("Train/Rural/images_png/5.png"), path("Val/Urban/images_png/101.png"))
            .unwrap();
        let report = miniature.report(Options { full, ..OPTIONS });
        insta::allow_duplicates! {
            insta::assert_snapshot!(wrong(&report), @r#"
            Wrong
            resized (train): 8 of 8 masks are not 1024x1024
            resized (val): 4 of 4 masks are not 1024x1024
            Wrong duplicates -: 1 of 4 images for validation are also for training
                Val/Urban/images_png/101.png is Train/Rural/images_png/5.png
            "#);
        }
    }
    // One of many is how data sets are published.
    let miniature = Miniature::new("imagenet1k");
    let path = |file: &str| miniature.root().join(file);
    fs::copy(
        path("train/n00000001/n00000001_3.JPEG"),
        path("val/n00000001/ILSVRC2012_val_00000013.JPEG"),
    )
    .unwrap();
    let report = miniature.report(FULL);
    let check = report.checks.iter().find(|check| check.subject == Subject::Duplicates).unwrap();
    assert_eq!(check.verdict, Verdict::Wrong, "one of 96 is more than one in a hundred");
    assert_eq!(check.files.len(), 1);
}

#[test]
fn images_too_small_for_the_protocol() {
    let miniature = Miniature::new("nyuv2");
    let pair = miniature.set().val.pairs()[1].clone();
    let rgb = (ColorType::Rgb, BitDepth::Eight);
    let grey = (ColorType::Grayscale, BitDepth::Sixteen);
    write_png(&miniature.root().join(&*pair.image), (240, 320), rgb, &vec![99; 240 * 320 * 3]);
    write_png(&miniature.root().join(&*pair.target), (240, 320), grey, &vec![9; 240 * 320 * 2]);
    let mut report = miniature.report(OPTIONS);
    report.findings.clear();
    insta::assert_snapshot!(wrong(&report), @r#"
    Wrong
    Wrong sizes val: images of 2 sizes from 320x240 to 640x480; 1 of another size than their targets, or too small
        official_splits/test/living_room/rgb_00001.jpg: 320x240; the protocol keeps rows up to 471, columns up to 601
    "#);
}

#[test]
fn grey_images_are_as_published_and_told_behind_long_segments() {
    for (name, image) in [
        ("voc2012", "JPEGImages/2012_000002.jpg"),
        ("imagenet1k", "train/n00000001/n00000001_3.JPEG"),
    ] {
        let miniature = Miniature::new(name);
        let data =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images/jpeg/photo-grey.jpg");
        let grey = fs::read(data).unwrap();
        // 192 KiB of metadata before the frame header, which says how many channels there are.
        let segment = [&[0xff, 0xe5, 0xff, 0xff][..], &[0; 65533]].concat();
        let bytes = [&grey[..2], &segment.repeat(3), &grey[2..]].concat();
        fs::write(miniature.root().join(image), bytes).unwrap();
        let report = miniature.report(FULL);
        let check = report.checks.iter().find(|check| check.subject == Subject::Channels).unwrap();
        assert_eq!(check.verdict, Verdict::Good, "{name}");
        assert_eq!(check.said, "1 image not of three channels, read as RGB");
    }
}

#[test]
fn known_files_are_compared() {
    let mut miniature = Miniature::new("voc2012");
    let path = "ImageSets/Segmentation/val.txt";
    let bytes = fs::read(miniature.root().join(path)).unwrap();
    let known = |checksum: &str| KnownFile {
        path: path.to_owned(),
        bytes: bytes.len() as u64,
        checksum: Checksum::try_from(checksum.to_owned()).unwrap(),
        by: "the archive".to_owned(),
    };
    miniature.dataset.known = vec![
        known("md5:81c59cff06d76591ffc55081e2ed12e7"),
        known("sha1:0000000000000000000000000000000000000000"),
        known("sha256:0000000000000000000000000000000000000000000000000000000000000000"),
        KnownFile { bytes: 1, ..known("md5:00000000000000000000000000000000") },
        KnownFile { path: "gone".to_owned(), ..known("md5:00000000000000000000000000000000") },
    ];
    let mut report = miniature.report(OPTIONS);
    report.checks.retain(|check| check.subject == Subject::Known);
    insta::assert_snapshot!(lines(&report), @r#"
    Note
    Note known -: 4 files with a published checksum, 3 with another content
        ImageSets/Segmentation/val.txt: expected sha1:0000000000000000000000000000000000000000, found sha1:eff977d9316960027b547684bba06d336a7a565b (by the archive)
        ImageSets/Segmentation/val.txt: expected sha256:0000000000000000000000000000000000000000000000000000000000000000, found sha256:0f3ee146fe30746420a42f235d4e7aa9165b43a695a432067444f309d6fdec64 (by the archive)
        ImageSets/Segmentation/val.txt: expected 1 bytes, found 48
    "#);
}

#[test]
fn masks_in_the_other_form_are_not_compared() {
    let ade20k = || {
        let mut miniature = Miniature::new("ade20k");
        miniature.dataset.known = vec![KnownFile {
            path: "annotations/validation/ADE_val_00000001.png".to_owned(),
            bytes: 1,
            checksum: Checksum::try_from(format!("sha256:{}", "0".repeat(64))).unwrap(),
            by: "the archive".to_owned(),
        }];
        miniature
    };
    let known = |miniature: &Miniature| {
        let checks = miniature.report(OPTIONS).checks;
        checks.iter().filter(|check| check.subject == Subject::Known).count()
    };
    let shifted = ade20k();
    assert_eq!(known(&shifted), 0);
    let original = ade20k();
    original.labels(|label| match label {
        255 => 0,
        98 => 150,
        label => label + 1,
    });
    assert_eq!(known(&original), 1);
}

#[test]
fn a_stop_ends_it() {
    let miniature = Miniature::new("kitti");
    assert_eq!(miniature.stopped().to_string(), "interrupted");
}

#[test]
fn nothing_there_is_an_error_and_a_folder_of_something_else_a_report() {
    let miniature = Miniature::new("kitti");
    let root = miniature.root();
    for list in ["train.txt", "val.txt"] {
        fs::remove_file(root.join(list)).unwrap();
    }
    insta::assert_snapshot!(lines(&miniature.report(OPTIONS)), @r#"
    Wrong
    Wrong files -: DATA does not say which pairs of kitti belong to which split: expected there train.txt with 23158 lines and val.txt with 652 lines, each line `image target` with one space, relative to that folder. The Eigen split, without the frames that have no annotated map.
    "#);
    fs::remove_dir_all(&root).unwrap();
    let nothing =
        pixio_eval_tasks::verify::verify(&miniature.dataset, &miniature.files(), &OPTIONS);
    assert!(nothing.unwrap_err().to_string().starts_with("no folder at"));
}
