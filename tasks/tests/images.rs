//! Pixels against Pillow 12.0.0: `data/images/vectors.json`, written by
//! `scripts/make_image_vectors.py`, and the published code's own pre-processed pixels.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use ndarray::{Array3, ArrayView3, s};
use pixio_eval_tasks::image::{self, ImageError};
use schema::{IMAGENET_MEAN, IMAGENET_STD, ImageStage};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Vectors {
    pillow: String,
    /// Seed, size, new size, digest.
    resize: Vec<(u32, usize, usize, usize, usize, String)>,
    /// Seed, size, shorter side, crop, digest.
    prepare: Vec<(u32, usize, usize, usize, usize, String)>,
    normalise: String,
    /// File, digest or nothing where Pillow refuses it.
    decode: Vec<(String, Option<String>)>,
    gray16: Vec<(String, String)>,
    mask: Vec<(String, String)>,
    /// File, damage, its two parameters, digest or nothing.
    damaged: Vec<(String, String, usize, u8, Option<String>)>,
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images")
}

fn vectors() -> Vectors {
    let vectors: Vectors =
        serde_json::from_slice(&std::fs::read(data().join("vectors.json")).unwrap()).unwrap();
    assert_eq!(vectors.pillow, "12.0.0");
    vectors
}

fn digest(height: usize, width: usize, bytes: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update((height as u32).to_le_bytes());
    hasher.update((width as u32).to_le_bytes());
    hasher.update(bytes);
    hex(&hasher.finalize())
}

fn hex(hash: &[u8]) -> String {
    hash[..16].iter().map(|b| format!("{b:02x}")).collect()
}

fn pixels_digest(image: ArrayView3<'_, u8>) -> String {
    let (height, width, _) = image.dim();
    digest(height, width, image.as_standard_layout().as_slice().unwrap())
}

fn hashed(index: u32, seed: u32) -> u32 {
    let mut v = index.wrapping_mul(0x9d2c_5681).wrapping_add(seed.wrapping_mul(0x61c8_8647));
    for (shift, factor) in [(15, 0x5bd1_e995), (13, 0x2545_f491_u32)] {
        v = (v ^ (v >> shift)).wrapping_mul(factor);
    }
    v ^ (v >> 16)
}

/// The script's `pattern`.
fn pattern(seed: u32, height: usize, width: usize) -> Array3<u8> {
    Array3::from_shape_fn((height, width, 3), |(y, x, c)| match seed % 3 {
        0 => (hashed(((y * width + x) * 3 + c) as u32, seed) >> 24) as u8,
        1 => (hashed(((y / 3 * 4099 + x / 5) * 3 + c) as u32, seed) >> 31) as u8 * 255,
        _ => (y * 7 + x * 5 + c * 60 + seed as usize) as u8,
    })
}

fn stage(resize: usize, crop: usize) -> ImageStage {
    ImageStage {
        revision: 1,
        resize,
        crop,
        filter: "pillow-bicubic".to_owned(),
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
    }
}

/// Fails with the names of the cases whose results differ.
fn report(what: &str, least: usize, results: impl Iterator<Item = (String, bool)>) {
    let (mut count, mut differing) = (0, Vec::new());
    for (name, same) in results {
        count += 1;
        if !same {
            differing.push(name);
        }
    }
    println!("{what}: {count} cases, {} differing", differing.len());
    assert!(count >= least, "{what}: {count} cases, expected at least {least}");
    assert!(differing.is_empty(), "{what}: differing from Pillow: {differing:#?}");
}

#[test]
fn resizes_are_pillows() {
    let cases = vectors().resize.into_iter().map(|(seed, h, w, height, width, expected)| {
        let resized = image::resize(pattern(seed, h, w).view(), height, width);
        (format!("{h}x{w} to {height}x{width}"), pixels_digest(resized.view()) == expected)
    });
    report("resize", 500, cases);
}

#[test]
fn resize_and_crop_are_torchvisions() {
    let cases = vectors().prepare.into_iter().map(|(seed, h, w, resize, crop, expected)| {
        let input = pattern(seed, h, w);
        let (height, width) = image::shorter_side(h, w, resize);
        let whole = image::resize(input.view(), height, width);
        let cropped = image::center_crop(whole.view(), crop);
        let prepared = image::prepare(input.view(), &stage(resize, crop));
        let same = pixels_digest(prepared.view()) == expected && cropped == prepared;
        (format!("{h}x{w}, shorter side {resize}, crop {crop}"), same)
    });
    report("prepare", 50, cases);
}

#[test]
fn normalised_values_are_torchs() {
    let levels = Array3::from_shape_fn((16, 16, 3), |(y, x, _)| (y * 16 + x) as u8);
    let mut out = vec![0.0; 3 * 256];
    image::normalise_into(levels.view(), IMAGENET_MEAN, IMAGENET_STD, &mut out);
    let bytes: Vec<u8> = out.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(hex(&Sha256::digest(&bytes)), vectors().normalise);
}

#[test]
fn decoded_files_are_pillows() {
    let cases = vectors().decode.into_iter().map(|(file, expected)| {
        let pixels = image::decode(&data().join(&file)).ok();
        (file, pixels.map(|pixels| pixels_digest(pixels.view())) == expected)
    });
    report("decode", 260, cases);
}

#[test]
fn depth_maps_and_masks_are_read_as_stored() {
    let vectors = vectors();
    report(
        "16-bit grey",
        7,
        vectors.gray16.into_iter().map(|(file, expected)| {
            let depth = image::decode_gray16(&data().join(&file)).unwrap();
            let bytes: Vec<u8> = depth.iter().flat_map(|v| v.to_le_bytes()).collect();
            (file, digest(depth.nrows(), depth.ncols(), &bytes) == expected)
        }),
    );
    report(
        "masks",
        30,
        vectors.mask.into_iter().map(|(file, expected)| {
            let mask = image::decode_mask(&data().join(&file)).unwrap();
            (file, digest(mask.nrows(), mask.ncols(), mask.as_slice().unwrap()) == expected)
        }),
    );
}

/// A file that Pillow reads in spite of damage gives the same pixels; one that it refuses is refused.
/// The pixels are those of libjpeg's C routines: its assembler differs where coefficients overflow.
#[test]
fn damaged_jpegs_are_what_pillow_makes_of_them() {
    let cases = vectors().damaged.into_iter().map(|(file, damage, at, value, expected)| {
        let mut bytes = std::fs::read(data().join("jpeg").join(&file)).unwrap();
        match damage.as_str() {
            "cut" => bytes.truncate(at),
            "byte" => bytes[at] = value,
            other => panic!("unknown damage {other}"),
        }
        let pixels = image::decode_bytes(&bytes).ok();
        let same = match (&pixels, &expected) {
            (Some(_), Some(_)) if cfg!(feature = "jpeg-simd") => true,
            _ => pixels.map(|pixels| pixels_digest(pixels.view())) == expected,
        };
        (format!("{file} {damage} {at} {value} (Pillow: {expected:?})"), same)
    });
    report("damaged", 300, cases);
}

#[test]
fn prepared_pixels_are_the_published_codes() {
    let folder = data().join("golden");
    let file = std::fs::read(folder.join("pixels.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let golden = tensors.tensor("knn.val_pixels_first4_sub4").unwrap();
    assert_eq!(golden.shape(), [4, 3, 64, 64]);
    let golden: Vec<f32> =
        golden.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();

    for (index, expected) in golden.chunks_exact(3 * 64 * 64).enumerate() {
        let pixels = image::decode(&folder.join(format!("val{index}.JPEG"))).unwrap();
        let prepared = image::prepare(pixels.view(), &stage(256, 256));
        let mut values = vec![0.0; 3 * 256 * 256];
        image::normalise_into(prepared.view(), IMAGENET_MEAN, IMAGENET_STD, &mut values);
        let values = Array3::from_shape_vec((3, 256, 256), values).unwrap();
        let sampled = values.slice(s![.., ..;4, ..;4]);
        let differing = sampled.iter().zip(expected).filter(|(a, b)| a != b).count();
        assert_eq!(differing, 0, "image {index}: {differing} of 12288 values differ");
    }
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    let folder = data();
    let message = |result: Result<Array3<u8>, ImageError>| result.unwrap_err().to_string();

    let missing = image::decode(Path::new("no/such.jpg")).unwrap_err();
    assert!(matches!(&missing, ImageError::Io { path, .. } if path == Path::new("no/such.jpg")));
    assert!(message(image::decode_bytes(b"hello")).contains("found text beginning \"hello\""));

    let jpeg = std::fs::read(folder.join("jpeg/photo-420-q75.jpg")).unwrap();
    let cut = image::decode_bytes(&jpeg[..jpeg.len() / 2]).unwrap_err();
    assert!(matches!(cut, ImageError::Truncated { format: image::Format::Jpeg, .. }), "{cut}");
    let png = std::fs::read(folder.join("png/rgb-8-9x30.png")).unwrap();
    let cut = image::decode_bytes(&png[..png.len() / 2]).unwrap_err();
    assert!(matches!(cut, ImageError::Truncated { format: image::Format::Png, .. }), "{cut}");

    let refused = image::decode(&folder.join("jpeg/fractional-16x16.jpg")).unwrap_err();
    assert!(matches!(refused, ImageError::Unsupported { .. }), "{refused}");
    let colour = image::decode_gray16(&folder.join("png/rgb-16-9x30.png")).unwrap_err().to_string();
    assert!(
        colour.ends_with("expected a 16-bit single-channel PNG, found a 16-bit RGB PNG"),
        "{colour}"
    );
    assert!(image::decode_mask(&folder.join("png/grey-16-9x30.png")).is_err());
    assert!(image::decode_mask(&folder.join("jpeg/grey.jpg")).is_err());
}

/// 20000 x 20000 pixels in a header are refused before anything of that size is allocated.
#[test]
fn decompression_bombs_are_refused() {
    let mut jpeg = std::fs::read(data().join("jpeg/grey.jpg")).unwrap();
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc1]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x4e, 0x20, 0x4e, 0x20]);
    let error = image::decode_bytes(&jpeg).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { width: 20_000, height: 20_000, .. }), "{error}");
}
