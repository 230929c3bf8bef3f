//! What is generated, before and after encoding.

use std::collections::BTreeSet;
use std::io::Cursor;

use rayon::prelude::*;

use super::layout::{Files, Item, items};
use super::render::Picture;

/// BLAKE3 over every scene buffer of a data set (RGB, depth, things), and over its files: JPEGs as
/// they are, PNGs decoded, since the bytes of a deflate stream depend on the compressor built in.
const FROZEN: [(&str, &str, &str); 6] = [
    ("imagenet1k", "7c39aee5d86a63381dd5aed19e22dc9c", "75766bb14e9723e6007885769f96d0f1"),
    ("nyuv2", "23fd8da807e40dd0441644e877c238bc", "1f380f32e709e7037f079da443cfd264"),
    ("kitti", "09d97e4379b44f067903db05a58bd959", "733768f787b2256c2e9f4706909ec3ef"),
    ("ade20k", "9cb867a47f42b8babf2f602826943737", "3745c891cdac5501d7e8f55d816ca26c"),
    ("voc2012", "0c17c227e526f78e91e23108b259a873", "4a576697b5f0ffddcffc5172dc77da65"),
    ("loveda", "57d0edd0f30b2316a8b4dde91a9c5d8b", "b75c138547cc7357bfc60d0f54911afb"),
];

/// Bytes of all sample data together that a first run may write.
const SIZE_BOUND: usize = 8_000_000;

fn scene_hash(picture: &Picture) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&picture.rgb);
    for metres in &picture.depth {
        hasher.update(&metres.to_le_bytes());
    }
    let things: Vec<u8> = picture.things.iter().map(|&thing| thing as u8).collect();
    hasher.update(&things);
    hasher.finalize()
}

/// Samples of a PNG (two bytes each where 16-bit), its size and whether it has a palette.
fn decoded(bytes: &[u8]) -> (Vec<u8>, (u32, u32), bool) {
    let mut reader = ::png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
    let mut raw = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut raw).unwrap();
    let info = reader.info();
    (raw, (info.width, info.height), info.palette.is_some())
}

fn files_hash(files: &Files) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for (path, bytes) in files {
        hasher.update(path.as_bytes());
        if path.ends_with(".png") {
            hasher.update(&decoded(bytes).0);
        } else {
            hasher.update(bytes);
        }
    }
    hasher.finalize()
}

/// Width and height in a JPEG's frame header.
fn jpeg_size(bytes: &[u8]) -> (u32, u32) {
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    let word = |at: usize| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    (word(frame + 7), word(frame + 5))
}

fn check_sample(dataset: &str, item: &Item, files: &Files) -> BTreeSet<u8> {
    let [image, rest @ ..] = &files[..] else { panic!("no files") };
    let size = if image.0.ends_with(".png") { decoded(&image.1).1 } else { jpeg_size(&image.1) };
    let [(path, target)] = rest else {
        assert_eq!(dataset, "imagenet1k");
        return BTreeSet::new();
    };
    assert_eq!(item.target.as_ref(), Some(path));
    let (raw, target_size, palette) = decoded(target);
    assert_eq!(target_size, size, "{path}");
    assert_eq!(palette, dataset == "voc2012", "{path}");
    if matches!(dataset, "nyuv2" | "kitti") {
        let stored = raw.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        let (steps, far, covered) =
            if dataset == "nyuv2" { (1000.0, 10.0, 1.0..=1.0) } else { (256.0, 80.0, 0.05..=0.2) };
        let metres: Vec<f64> = stored.filter(|&v| v > 0).map(|v| f64::from(v) / steps).collect();
        let share = metres.len() as f64 / f64::from(size.0 * size.1);
        assert!(covered.contains(&share), "{path}: {share} of the pixels have depth");
        let nearest = metres.iter().copied().fold(f64::INFINITY, f64::min);
        let farthest = metres.iter().copied().fold(0.0, f64::max);
        assert!(nearest > 0.2 && farthest <= far, "{path}: {nearest} to {farthest} m");
        assert!(farthest > 2.0 * nearest, "{path}: {nearest} to {farthest} m");
        return BTreeSet::new();
    }
    raw.into_iter().collect()
}

#[test]
fn everything_generated_is_frozen_valid_and_small() {
    let mut total = 0;
    let mut differing = Vec::new();
    for (dataset, scenes, stored) in FROZEN {
        let items = items(dataset).unwrap();
        let made: Vec<_> = items
            .par_iter()
            .map(|item| {
                let picture = item.render();
                let scene = scene_hash(&picture);
                let files = item.files(picture).unwrap();
                let labels = check_sample(dataset, item, &files);
                let size: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
                (scene, files_hash(&files), labels, size)
            })
            .collect();
        let over = |hashes: &mut dyn Iterator<Item = &blake3::Hash>| {
            let mut hasher = blake3::Hasher::new();
            for hash in hashes {
                hasher.update(hash.as_bytes());
            }
            hasher.finalize().to_hex()[..32].to_owned()
        };
        let found = (over(&mut made.iter().map(|m| &m.0)), over(&mut made.iter().map(|m| &m.1)));
        if found != (scenes.to_owned(), stored.to_owned()) {
            differing.push(format!("(\"{dataset}\", \"{}\", \"{}\"),", found.0, found.1));
        }
        let labels: BTreeSet<u8> = made.iter().flat_map(|m| m.2.clone()).collect();
        match dataset {
            "ade20k" => {
                assert!(labels.iter().all(|&label| label < 150 || label == 255), "{labels:?}");
                assert!(labels.len() > 20 && labels.contains(&255), "{labels:?}");
            }
            "voc2012" => {
                assert!(labels.iter().all(|&label| label < 21 || label == 255), "{labels:?}");
                assert!(labels.len() > 8 && labels.contains(&255), "{labels:?}");
            }
            "loveda" => assert!(labels.iter().copied().eq(0..=7), "{labels:?}"),
            _ => assert!(labels.is_empty()),
        }
        let size: usize = made.iter().map(|m| m.3).sum();
        eprintln!("{dataset}: {} samples, {size} bytes", items.len());
        total += size;
    }
    assert!(differing.is_empty(), "generated data differs:\n{}", differing.join("\n"));
    assert!(total < SIZE_BOUND, "{total} bytes");
}

#[test]
fn leaving_out_far_solids_changes_no_pixel() {
    for dataset in ["kitti", "ade20k", "loveda"] {
        let item = &items(dataset).unwrap()[1];
        let (scene, camera) = item.scene();
        let picture = scene.render(&camera);
        assert!(scene.objects.len() > 30);
        for pixel in (0..picture.depth.len()).step_by(37) {
            let (row, column) = (pixel / picture.width, pixel % picture.width);
            let (depth, thing) = scene.look_at(&camera, row, column);
            assert_eq!(picture.depth[pixel], depth, "{dataset} {row} {column}");
            assert_eq!(picture.things[pixel], thing, "{dataset} {row} {column}");
        }
    }
}

#[test]
fn classes_have_the_same_number_of_images_of_many_sizes() {
    let items = items("imagenet1k").unwrap();
    let in_class = |split: &str, class: usize| {
        let folder = format!("{split}/n{class:08}/");
        items.iter().filter(|item| item.image.starts_with(&folder)).count()
    };
    for class in 0..8 {
        assert_eq!((in_class("train", class), in_class("val", class)), (24, 12));
    }
    let sizes: BTreeSet<_> = items.iter().map(|item| item.size).collect();
    assert!(sizes.len() > 50);
    assert!(sizes.iter().all(|&(w, h)| w.min(h) >= 200 && w.max(h) <= 400), "{sizes:?}");
    assert!(sizes.iter().any(|&(w, h)| w > h) && sizes.iter().any(|&(w, h)| w < h));
}
