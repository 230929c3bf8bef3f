//! What a user of `data verify` sees.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;

use common::{Ran, World};
use png::{BitDepth, ColorType};
use serde_json::Value;

/// Samples that are not known as such.
fn world(sets: &[&str]) -> World {
    let world = World::new();
    world.run(&[&["data", "sample"], sets, &["--to", "data"]].concat());
    for set in sets {
        fs::remove_file(world.path(&format!("data/{set}/sample.json"))).unwrap();
    }
    world
}

fn seen(ran: &Ran) -> String {
    format!("exit {}\n{}{}", ran.status.unwrap(), ran.stdout, ran.stderr)
}

fn write_mask(path: &std::path::Path, (width, height): (u32, u32), labels: &[u8]) {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(labels).unwrap();
    fs::write(path, file).unwrap();
}

#[test]
fn right_data() {
    let world = World::new();
    world.run(&["data", "sample", "imagenet1k", "kitti", "ade20k", "--to", "data"]);
    insta::assert_snapshot!("right", seen(&world.run(&["data", "verify", "-q"])));
    let full = world.run(&["data", "verify", "-q", "--full", "imagenet1k"]);
    insta::assert_snapshot!("right_full", seen(&full));
    let json = world.run(&["data", "verify", "-q", "ade20k", "--json"]);
    let reports: Vec<Value> = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.status, &reports[0]["verdict"]), (Some(0), &Value::from("good")));
    insta::assert_snapshot!("right_json", json.stdout);
}

#[test]
fn a_wrong_preparation() {
    let world = world(&["ade20k", "nyuv2"]);
    // Other as 255, and nothing subtracted.
    for split in ["training", "validation"] {
        for entry in fs::read_dir(world.path(&format!("data/ade20k/annotations/{split}"))).unwrap()
        {
            let path = entry.unwrap().path();
            let mask = tasks::image::decode_mask(&path).unwrap();
            let labels: Vec<u8> = mask.iter().map(|&l| if l == 255 { l } else { l + 1 }).collect();
            write_mask(&path, (mask.ncols() as u32, mask.nrows() as u32), &labels);
        }
    }
    // Generated depth has no holes.
    insta::assert_snapshot!("wrong", seen(&world.run(&["data", "verify", "-q"])));
    let json = world.run(&["data", "verify", "-q", "--json", "nyuv2"]);
    let reports: Vec<Value> = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json.status, Some(1));
    assert_eq!(reports[0]["findings"][0]["preparation"], "dense-depth");
    let right = world.run(&["data", "verify", "-q", "ade20k", "--labels", "original"]);
    assert!(!right.stdout.contains("unshifted"), "{}", right.stdout);
}

#[test]
fn files_that_are_not_as_they_should_be() {
    let world = world(&["voc2012"]);
    let path = |file: &str| world.path(&format!("data/voc2012/{file}"));
    fs::remove_file(path("SegmentationClassAug/2012_000004.png")).unwrap();
    let cut = path("JPEGImages/2012_000007.jpg");
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..9000]).unwrap();
    write_mask(&path("SegmentationClassAug/2012_000101.png"), (30, 20), &[21; 600]);
    fs::copy(path("JPEGImages/2012_000002.jpg"), path("JPEGImages/2012_000102.jpg")).unwrap();
    insta::assert_snapshot!("files", seen(&world.run(&["data", "verify", "-q", "--full"])));
}

#[test]
fn what_is_not_there() {
    let world = World::new();
    insta::assert_snapshot!("nothing_here", seen(&world.run(&["data", "verify"])));
    insta::assert_snapshot!("named_not_here", seen(&world.run(&["data", "verify", "kitti"])));
    let args = ["data", "verify", "--data", "loveda=nowhere"];
    insta::assert_snapshot!("given_not_here", seen(&world.run(&args)));
    insta::assert_snapshot!("unknown", seen(&world.run(&["data", "verify", "kity"])));
    fs::create_dir_all(world.path("data/kitti")).unwrap();
    let offline = world.run(&["data", "verify", "kitti", "--offline"]);
    assert_eq!(offline.status, Some(2));
    assert!(offline.stderr.contains("published train list of kitti"), "{}", offline.stderr);
    fs::create_dir_all(world.path("data/ade20k/images/ADE/training/urban/street")).unwrap();
    insta::assert_snapshot!("full_ade20k", seen(&world.run(&["data", "verify", "-q", "ade20k"])));
}

#[test]
fn status_knows_of_the_last_verification() {
    let world = World::new();
    world.run(&["data", "sample", "imagenet1k", "nyuv2", "--to", "data"]);
    let status = || world.run(&["data", "status", "imagenet1k", "nyuv2"]).stdout;
    assert!(!status().contains("verified"));
    world.run(&["data", "verify", "-q", "--full", "imagenet1k"]);
    // One of some files does not replace it.
    world.run(&["data", "verify", "-q", "imagenet1k"]);
    let said = status();
    let line = said.lines().find(|line| line.contains("verified in full on 20")).unwrap();
    assert!(line.ends_with(": nothing wrong"), "{said}");
    assert_eq!(said.matches("verified").count(), 1);
    fs::remove_file(world.path("data/imagenet1k/train/n00000000/n00000000_0.JPEG")).unwrap();
    assert!(status().contains(": other files than now"));
    world.run(&["data", "verify", "-q", "imagenet1k"]);
    assert!(status().contains(": wrong\n"));
}

#[test]
fn a_damaged_archive_is_no_reason_to_be_silent_about_the_others() {
    let world = World::new();
    world.run(&["data", "sample", "nyuv2", "--to", "data"]);
    fs::create_dir(world.path("data/loveda")).unwrap();
    fs::write(world.path("data/loveda/Train.zip"), b"PK\x03\x04 and no more").unwrap();
    let status = world.run(&["data", "status", "nyuv2", "loveda"]);
    insta::assert_snapshot!("damaged_archive_status", seen(&status));
    let verify = world.run(&["data", "verify", "-q"]);
    assert!(verify.stdout.contains("nyuv2: right"), "{}", verify.stdout);
    let loveda = verify.stdout.find("loveda: wrong").unwrap();
    insta::assert_snapshot!("damaged_archive", verify.stdout[loveda..].to_owned());
    assert_eq!(verify.status, Some(1));
}
