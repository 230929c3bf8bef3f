//! Dense data sets: against the published code's own samples, and what holds for every sample.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3, ArrayView3, s};
use pixio_eval_tasks::data::{Dataset, Registry, Task};
use pixio_eval_tasks::dense::{
    Draw, Draws, IGNORE, LabelForm, ListSource, Pair, PairedSet, Target, TargetForm, load,
    normalise_into, rescaled, resize_nearest, train_sample,
};
use pixio_eval_tasks::files::Files;
use pixio_eval_tasks::sample;
use proptest::prelude::*;
use rayon::prelude::*;
use safetensors::SafeTensors;
use schema::{IMAGENET_MEAN, IMAGENET_STD, SampleStage};
use serde::Deserialize;
use sha2::{Digest, Sha256};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dense")
}

fn stage(crop: usize, scale: Option<[f64; 2]>) -> SampleStage {
    SampleStage {
        revision: 1,
        border: None,
        scale,
        crop,
        flip: 0.5,
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
    }
}

const SEGMENTATION: Option<[f64; 2]> = Some([0.5, 2.0]);
const ADE20K: TargetForm = TargetForm::Labels { form: LabelForm::Shifted, classes: 150 };
/// NYUv2's, as PROTOCOL section 3 gives it.
const BORDER: [usize; 4] = [45, 471, 41, 601];

#[derive(Deserialize)]
struct Golden {
    train: Vec<[String; 2]>,
    val0: std::collections::BTreeMap<String, [String; 2]>,
    ade20k: GoldenBatches,
}

#[derive(Deserialize)]
struct GoldenBatches {
    crops: Vec<Vec<GoldenCrop>>,
    batch_image_mean: Vec<f64>,
    batch_mask_sum: Vec<u64>,
}

#[derive(Deserialize)]
struct GoldenCrop {
    index: usize,
    top: usize,
    left: usize,
    flip: bool,
    long_side: usize,
    resized: [usize; 2],
}

fn golden() -> (Golden, Vec<u8>) {
    let folder = data().join("golden");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    (serde_json::from_slice(&read("golden.json")).unwrap(), read("tensors.safetensors"))
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = tensors.tensor(name).unwrap();
    tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn pair([image, target]: &[String; 2]) -> Pair {
    let (image, target) = (image.as_str().into(), target.as_str().into());
    Pair { image, target, image_bytes: 0, target_bytes: 0 }
}

fn normalised(image: ArrayView3<'_, u8>, form: TargetForm) -> Array3<f32> {
    let (height, width, _) = image.dim();
    let mut values = vec![0.0; 3 * height * width];
    normalise_into(image, form, &stage(256, None), &mut values);
    Array3::from_shape_vec((3, height, width), values).unwrap()
}

fn labels(target: &Target) -> &Array2<u8> {
    match target {
        Target::Labels(labels) => labels,
        Target::Depth(_) => panic!("expected labels"),
    }
}

#[test]
fn loaded_images_and_depths_are_the_published_codes() {
    let (golden, file) = golden();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    for (dataset, steps_per_metre, border, size) in
        [("nyuv2", 1000, Some(BORDER), (426, 560)), ("kitti", 256, None, (375, 1242))]
    {
        let root = data().join("golden").join(dataset);
        let form = TargetForm::Depth { steps_per_metre };
        let (image, target) =
            load(&Files::folder(&root), &pair(&golden.val0[dataset]), border, form).unwrap();
        assert_eq!((image.dim(), target.dim()), ((size.0, size.1, 3), size));
        let Target::Depth(depth) = &target else { panic!("expected depth") };

        let values = normalised(image.view(), form);
        let expected = floats(&tensors, &format!("{dataset}.val0.image_corner"));
        let found = values.slice(s![.., ..96, ..96]);
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().eq(&expected), "{dataset}: pixels differ");
        let expected = floats(&tensors, &format!("{dataset}.val0.depth_corner"));
        let found = depth.slice(s![..96, ..96]);
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().eq(&expected), "{dataset}: metres differ");
        let valid = depth.iter().filter(|&&metres| metres > 0.0).count();
        assert_eq!(target.valid_pixels(), valid);
        assert!(valid > 1000 && (dataset == "nyuv2" || valid < depth.len() / 2), "{valid}");
    }
}

#[test]
fn training_crops_are_the_published_codes() {
    let (golden, file) = golden();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let root = data().join("golden/ade20k");
    let stage = stage(256, SEGMENTATION);
    let batches: Vec<(Array3<f32>, Array2<u8>)> = golden.ade20k.crops.concat_map(|crop| {
        let pair = pair(&golden.train[crop.index]);
        let (image, target) = load(&Files::folder(&root), &pair, None, ADE20K).unwrap();
        let (height, width, _) = image.dim();
        let (height, width) = rescaled(height, width, crop.long_side);
        assert_eq!([height, width], crop.resized);
        let draw = Draw {
            top: crop.top,
            left: crop.left,
            flip: crop.flip,
            long_side: Some(crop.long_side),
        };
        let file = root.join(&*pair.image);
        let (image, target) = train_sample(&file, image.view(), &target, &draw, &stage).unwrap();
        (normalised(image.view(), ADE20K), labels(&target).clone())
    });
    let images = floats(&tensors, "ade20k.batch0.image_sub4");
    let masks = tensors.tensor("ade20k.batch0.mask").unwrap();
    let expected = images.chunks_exact(3 * 64 * 64).zip(masks.data().chunks_exact(256 * 256));
    for (index, ((image, mask), (expected_image, expected_mask))) in
        batches.iter().zip(expected).enumerate()
    {
        let found = image.slice(s![.., ..;4, ..;4]);
        assert!(found.iter().eq(expected_image), "crop {index}: pixels differ");
        assert!(mask.iter().eq(expected_mask), "crop {index}: labels differ");
    }
    assert_eq!(batches.len(), 10);
    // The first is 197 x 236 pixels, padded.
    let padding = [batches[0].1.slice(s![236.., ..]), batches[0].1.slice(s![.., 197..])];
    assert!(padding.iter().flatten().all(|&label| label == IGNORE));
    for (step, batch) in batches.chunks_exact(2).enumerate() {
        let sum: u64 = batch.iter().flat_map(|(_, mask)| mask).map(|&label| u64::from(label)).sum();
        assert_eq!(sum, golden.ade20k.batch_mask_sum[step], "step {step}");
        let values = batch.iter().flat_map(|(image, _)| image);
        let mean = values.map(|&value| f64::from(value)).sum::<f64>() / (2 * 3 * 256 * 256) as f64;
        let expected = golden.ade20k.batch_image_mean[step];
        assert!((mean - expected).abs() < 1e-6, "step {step}: {mean} and {expected}");
    }
}

/// Crops of all batches, in order.
trait Crops {
    fn concat_map<T: Send>(&self, map: impl Fn(&GoldenCrop) -> T + Sync) -> Vec<T>;
}

impl Crops for Vec<Vec<GoldenCrop>> {
    fn concat_map<T: Send>(&self, map: impl Fn(&GoldenCrop) -> T + Sync) -> Vec<T> {
        self.par_iter().flat_map_iter(|batch| batch.iter().map(&map)).collect()
    }
}

#[test]
fn nearest_neighbours_are_pillows() {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Expected {
        Positions(Vec<u32>),
        Digest(String),
    }
    let text = std::fs::read(data().join("nearest.json")).unwrap();
    let cases: Vec<(usize, usize, Expected)> = serde_json::from_slice(&text).unwrap();
    assert_eq!(cases.len(), 67);
    for (input, output, expected) in cases {
        let ramp = Array2::from_shape_fn((input, 1), |(row, _)| row as u32);
        let found = resize_nearest(ramp.view(), output, 3);
        assert_eq!(found.column(0), found.column(2));
        assert_eq!(found.column(0), resize_nearest(ramp.t(), 2, output).row(1));
        let found = found.column(0).to_vec();
        match expected {
            Expected::Positions(positions) => assert_eq!(found, positions, "{input} to {output}"),
            Expected::Digest(digest) => {
                let bytes: Vec<u8> = found.iter().flat_map(|value| value.to_le_bytes()).collect();
                let found: String =
                    Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(found, digest, "{input} to {output}");
            }
        }
    }
}

#[test]
fn every_generated_set_opens_and_loads() {
    let registry = Registry::builtin().unwrap();
    let root = tempfile::tempdir().unwrap();
    let paired = |dataset: &&Dataset| matches!(dataset.task, Task::Depth | Task::Segmentation);
    for dataset in registry.datasets().iter().filter(paired) {
        let name = dataset.name.as_str();
        let folder = sample::write(name, root.path()).unwrap();
        let set = PairedSet::open(dataset, &folder).unwrap();
        assert!(set.own_lists());
        assert_eq!(set.fingerprint(), PairedSet::open(dataset, &folder).unwrap().fingerprint());
        assert_eq!((set.train.pairs().len(), set.val.pairs().len()), (8, 4), "{name}");
        let records = set.records(dataset);
        assert_eq!((records["train"].found, records["val"].published), (8, None));
        assert_eq!(set.notes(dataset).len(), 2);
        let form = set.target_form(dataset, None).unwrap();
        let expected = match (name, dataset.depth, dataset.classes) {
            (_, Some(depth), _) => TargetForm::Depth { steps_per_metre: depth.steps_per_metre },
            ("loveda", _, _) => TargetForm::Labels { form: LabelForm::Original, classes: 7 },
            (_, _, Some(classes)) => TargetForm::Labels { form: LabelForm::Shifted, classes },
            _ => panic!("{name} has neither depth nor classes"),
        };
        assert_eq!(form, expected);

        let stage = stage(256, dataset.depth.is_none().then_some([0.5, 2.0]));
        let draws = Draws::new(0, name);
        let border = (name == "nyuv2").then_some(BORDER);
        set.train.pairs().par_iter().enumerate().for_each(|(index, pair)| {
            let (image, target) = load(&Files::folder(&folder), pair, border, form).unwrap();
            let (height, width, channels) = image.dim();
            assert_eq!((channels, target.dim()), (3, (height, width)));
            assert!(target.valid_pixels() > 1000, "{name}: {}", pair.target);
            let draw = draws.at(3, index, (height, width), &stage);
            let file = folder.join(&*pair.image);
            let (crop, target) = train_sample(&file, image.view(), &target, &draw, &stage).unwrap();
            assert_eq!((crop.dim(), target.dim()), ((256, 256, 3), (256, 256)));
        });

        // The layout alone says the same, where it says anything.
        for list in ["train.txt", "val.txt"] {
            std::fs::remove_file(folder.join(list)).unwrap();
        }
        let Ok(by_layout) = PairedSet::open(dataset, &folder) else {
            assert!(dataset.depth.is_some(), "{name}");
            continue;
        };
        assert!(dataset.depth.is_none() && !by_layout.own_lists(), "{name}");
        assert_eq!(by_layout.records(dataset)["val"].published, Some(dataset.splits["val"]));
        let sorted = |set: &PairedSet| {
            let mut pairs = set.train.pairs().to_vec();
            pairs.sort_by(|a, b| a.image.cmp(&b.image));
            pairs
        };
        assert_eq!(sorted(&by_layout), sorted(&set), "{name}");
        let is_names = matches!(by_layout.val.source(), ListSource::Names { .. });
        assert_eq!(is_names, name == "voc2012");
    }
}

#[test]
fn draws_are_frozen_and_follow_every_part_of_their_address() {
    let draw = |seed, dataset, epoch, index| {
        Draws::new(seed, dataset).at(epoch, index, (512, 683), &stage(256, SEGMENTATION))
    };
    let first = draw(0, "ade20k", 0, 0);
    insta::assert_debug_snapshot!((first, draw(0, "ade20k", 59, 20_209)), @"
    (
        Draw {
            top: 51,
            left: 79,
            flip: false,
            long_side: Some(
                626,
            ),
        },
        Draw {
            top: 133,
            left: 328,
            flip: false,
            long_side: Some(
                1140,
            ),
        },
    )
    ");
    for other in
        [(1, "ade20k", 0, 0), (0, "loveda", 0, 0), (0, "ade20k", 1, 0), (0, "ade20k", 0, 1)]
    {
        assert_ne!(draw(other.0, other.1, other.2, other.3), first, "{other:?}");
    }
}

#[test]
fn draws_fill_their_ranges_evenly() {
    let draws = Draws::new(5, "nyuv2");
    let (mut flips, mut tops, mut sides) = (0, [0_u32; 171], [0_u32; 16]);
    let (depth, segmentation) = (stage(256, None), stage(4, SEGMENTATION));
    for index in 0..17_100 {
        let draw = draws.at(1, index, (426, 560), &depth);
        flips += u32::from(draw.flip);
        tops[draw.top] += 1;
        assert!(draw.left <= 560 - 256 && draw.long_side.is_none());
        sides[draws.at(1, index, (7, 10), &segmentation).long_side.unwrap() - 5] += 1;
    }
    // Five standard deviations of each count.
    assert!(flips.abs_diff(8550) < 327, "{flips}");
    assert!(tops.iter().all(|count| count.abs_diff(100) < 50), "{tops:?}");
    assert!(sides.iter().all(|count| count.abs_diff(1069) < 159), "{sides:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn crops_have_the_crops_size_for_any_image(
        height in 1_usize..150, width in 1_usize..150, crop in 1_usize..80,
        seed in any::<u64>(), epoch in 0_usize..60, index in 0_usize..30_000, scaled in any::<bool>(),
    ) {
        let stage = stage(crop, scaled.then_some([0.5, 2.0]));
        let draw = Draws::new(seed, "voc2012").at(epoch, index, (height, width), &stage);
        let (h, w) = draw.long_side.map_or((height, width), |side| rescaled(height, width, side));
        prop_assert!(h >= 1 && w >= 1);
        prop_assert!(draw.top + crop <= h.max(crop) && draw.left + crop <= w.max(crop));
        let long = height.max(width);
        prop_assert!(draw.long_side.is_none_or(|side| side >= (long / 2).max(1) && side <= 2 * long));
        prop_assert_eq!(draw.long_side.is_some(), scaled);

        // A mask that repeats the image's red channel, so that both show how they were cropped.
        let image = Array3::from_shape_fn((height, width, 3), |(y, x, c)| (y * 7 + x * 3 + c) as u8 % 250);
        let mask = image.slice(s![.., .., 0]).to_owned();
        let file = Path::new("image.jpg");
        let crop_of = |draw: &Draw| {
            train_sample(file, image.view(), &Target::Labels(mask.clone()), draw, &stage).unwrap()
        };
        let (pixels, target) = crop_of(&draw);
        prop_assert_eq!(pixels.dim(), (crop, crop, 3));
        prop_assert_eq!(target.dim(), (crop, crop));
        let outside = crop * crop - (h - draw.top).min(crop) * (w - draw.left).min(crop);
        let ignored = labels(&target).iter().filter(|&&label| label == IGNORE).count();
        prop_assert_eq!(ignored, outside);
        for (index, label) in labels(&target).indexed_iter() {
            let pixel = pixels[[index.0, index.1, 0]];
            prop_assert!(scaled || pixel == *label || (*label == IGNORE && pixel == 0));
        }
        let (mut mirrored, mirrored_target) = crop_of(&Draw { flip: !draw.flip, ..draw });
        mirrored.invert_axis(ndarray::Axis(1));
        prop_assert_eq!(mirrored, pixels);
        prop_assert_eq!(labels(&mirrored_target).slice(s![.., ..;-1]), labels(&target));

        let depth = Target::Depth(Array2::ones((height, width)));
        let sample = train_sample(file, image.view(), &depth, &draw, &stage);
        prop_assert_eq!(sample.is_ok(), h >= crop && w >= crop);
    }

    #[test]
    fn draws_do_not_depend_on_the_order_they_are_asked_in(
        seed in any::<u64>(), order in Just((0_usize..64).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let stage = stage(256, SEGMENTATION);
        let at = |index: usize| Draws::new(seed, "loveda").at(index / 8, index % 8, (1024, 1024), &stage);
        let in_order: Vec<Draw> = (0..64).map(at).collect();
        let shuffled: Vec<(usize, Draw)> = order.par_iter().map(|&index| (index, at(index))).collect();
        for (index, draw) in shuffled {
            prop_assert_eq!(draw, in_order[index]);
        }
    }
}
