//! Images in one folder a class, and demonstrations.

use std::fs;

use pixio_eval_tasks::data::Registry;
use pixio_eval_tasks::files::Files;
use pixio_eval_tasks::robot::{self, MadeBy, Recorded, Writer};
use pixio_eval_tasks::verify::{Options, Preparation, Verdict, verify};
use png::{BitDepth, ColorType};

use crate::miniature::{Miniature, OPTIONS, lines, write_png};

#[test]
fn imagenet_in_another_form() {
    let miniature = Miniature::new("imagenet1k");
    insta::assert_snapshot!(lines(&miniature.report(OPTIONS)), @r#"
    Wrong
    Wrong classes -: 8 class folders, expected 1000
    Wrong counts train: 192, 1280975 fewer than the 1281167 published
    Good readable train: 64 of 192 images decoded
    Good sizes train: of 59 sizes from 224x200 to 328x312
    Wrong counts val: 96, 49904 fewer than the 50000 published
    Good readable val: 64 of 96 images decoded
    Good sizes val: of 54 sizes from 224x208 to 328x320
    Good duplicates -: none of 96 images for validation is also for training
    "#);
    let root = miniature.root();
    fs::write(root.join("val/n00000002/ILSVRC2012_val_00000026.JPEG"), "GIF89a").unwrap();
    let report = miniature.report(Options { full: true, ..OPTIONS });
    let bad = report
        .checks
        .iter()
        .find(|check| check.split.as_deref() == Some("val") && !check.files.is_empty());
    assert_eq!(
        bad.unwrap().files,
        [
            "val/n00000002/ILSVRC2012_val_00000026.JPEG: expected a JPEG or PNG image of a supported kind, found a GIF image"
        ]
    );

    for entry in fs::read_dir(root.join("val")).unwrap() {
        let folder = entry.unwrap().path();
        for image in fs::read_dir(&folder).unwrap() {
            let image = image.unwrap();
            fs::rename(image.path(), root.join("val").join(image.file_name())).unwrap();
        }
        fs::remove_dir(folder).unwrap();
    }
    let report = miniature.report(OPTIONS);
    assert_eq!(report.findings[0].preparation, Preparation::UnsortedVal);
    insta::assert_snapshot!(report.findings[0], @"unsorted-val: 96 images lie in val itself, the first is ILSVRC2012_val_00000001.JPEG");
}

#[test]
fn resized_images_are_noted() {
    let miniature = Miniature::new("imagenet1k");
    for class in fs::read_dir(miniature.root().join("train")).unwrap() {
        for (index, image) in fs::read_dir(class.unwrap().path()).unwrap().enumerate() {
            let size = (256, 260 + index);
            let bytes = vec![7; size.0 * size.1 * 3];
            write_png(&image.unwrap().path(), size, (ColorType::Rgb, BitDepth::Eight), &bytes);
        }
    }
    let report = miniature.report(OPTIONS);
    let found: Vec<_> =
        report.findings.iter().map(|found| (found.to_string(), found.verdict)).collect();
    assert_eq!(
        found,
        [(
            "resized (train): the shorter side of 64 of 64 images is 256 pixels".to_owned(),
            Verdict::Note
        )]
    );
}

#[test]
fn demonstrations_are_opened_and_read() {
    let registry = Registry::builtin().unwrap();
    let dataset = registry.get("metaworld").unwrap();
    let suite = robot::suite("metaworld").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let task = suite.tasks().next().unwrap();
    let (actions, proprio) = suite.widths(task).unwrap();
    let render = suite.render();
    let side = render.side as usize;
    let by = MadeBy {
        generator: "test".to_owned(),
        seed: 0,
        versions: Vec::new(),
        render,
        repeat: 1,
        mean_score: 0.0,
    };
    let mut writer = Writer::begin(suite, task, folder.path(), by).unwrap();
    writer
        .add(&Recorded {
            images: vec![vec![0; side * side * 3]; 2],
            actions: vec![vec![0.0; actions]; 2],
            rewards: vec![0.0; 2],
            proprio: vec![vec![0.0; proprio]; 2],
            state: vec![vec![0.0; 39]; 2],
            ..Recorded::default()
        })
        .unwrap();
    let place = writer.finish().unwrap();
    let report = || verify(dataset, &Files::folder(folder.path()), &OPTIONS).unwrap();
    insta::assert_snapshot!(lines(&report()), @r#"
    Wrong
    Wrong files -: 4 tasks without usable demonstrations
        no demonstrations of bin-picking
        no demonstrations of button-press-topdown
        no demonstrations of drawer-open
        no demonstrations of hammer
    Wrong counts train: 1, 124 fewer than the 125 published
    Good readable train: all 1 demonstration decoded
    "#);
    fs::write(place.join("demo-000.png"), "").unwrap();
    assert_eq!(report().verdict, Verdict::Wrong);
    insta::assert_snapshot!(lines(&report()).replace(&folder.path().display().to_string(), "DATA"), @r#"
    Wrong
    Wrong files -: 4 tasks without usable demonstrations
        no demonstrations of bin-picking
        no demonstrations of button-press-topdown
        no demonstrations of drawer-open
        no demonstrations of hammer
    Wrong counts train: 1, 124 fewer than the 125 published
    Wrong readable train: all 1 demonstration looked at, 1 file not readable
        DATA/assembly/demo-000.png: the whole: not the file that demos.json was written for
    "#);
}
