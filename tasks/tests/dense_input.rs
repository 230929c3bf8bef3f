//! What is said about the files of dense data sets that are not as expected.

#![allow(clippy::unwrap_used, clippy::panic)]

mod dense_folder;

use std::fs;
use std::io::BufWriter;
use std::path::Path;

use dense_folder::{clean, dataset, images, write};
use pixio_eval_tasks::dense::{
    DenseError, Draw, LabelForm, PairedSet, Target, TargetForm, load, train_sample,
};
use png::{BitDepth, ColorType, Encoder};
use schema::SampleStage;
use tempfile::TempDir;

fn png(root: &TempDir, file: &str, size: (u32, u32), depth: BitDepth, samples: &[u8]) {
    write(root, file, "");
    let file = BufWriter::new(fs::File::create(root.path().join(file)).unwrap());
    let color = if samples.len() == (size.0 * size.1 * 3) as usize {
        ColorType::Rgb
    } else {
        ColorType::Grayscale
    };
    let mut encoder = Encoder::new(file, size.0, size.1);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(samples).unwrap();
}

#[test]
fn a_limit_is_seeded_kept_in_order_and_nested() {
    let root = tempfile::tempdir().unwrap();
    let mut list = String::new();
    for i in 0..40 {
        write(&root, &format!("{i:02}.png"), "");
        list += &format!("{i:02}.png {i:02}.png\n");
    }
    write(&root, "train.txt", &list);
    write(&root, "val.txt", "00.png 00.png\n");
    let set = PairedSet::open(&dataset("nyuv2"), root.path()).unwrap();
    let taken = |n, seed| {
        let set = set.clone().take(n, seed);
        assert_eq!((set.train.found(), set.val.found()), (40, 1));
        images(&set)[0].iter().map(|image| (*image).to_owned()).collect::<Vec<_>>()
    };
    let ten = taken(10, 0);
    assert!(ten.len() == 10 && ten.is_sorted() && ten != taken(10, 1));
    assert_ne!(ten, taken(40, 0)[..10]);
    let twenty = taken(20, 0);
    assert!(ten.iter().all(|image| twenty.contains(image)));
    assert_ne!(set.clone().take(10, 0).fingerprint(), set.fingerprint());
    assert_eq!(taken(1000, 0).len(), 40);
}

/// One pair of a 3 x 2 image and the target that is given.
fn one_pair(target: impl FnOnce(&TempDir)) -> (TempDir, PairedSet) {
    let root = tempfile::tempdir().unwrap();
    png(&root, "image.png", (3, 2), BitDepth::Eight, &[7; 18]);
    target(&root);
    for list in ["train.txt", "val.txt"] {
        write(&root, list, "image.png target.png\n");
    }
    let set = PairedSet::open(&dataset("nyuv2"), root.path()).unwrap();
    (root, set)
}

fn loaded(set: &PairedSet, form: TargetForm) -> Result<Target, DenseError> {
    load(set.train.files(), &set.train.pairs()[0], None, form).map(|(_, target)| target)
}

const METRES: TargetForm = TargetForm::Depth { steps_per_metre: 1000 };

fn deep(values: [u16; 6]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

#[test]
fn depth_is_16_bits_and_as_large_as_its_image() {
    let (_root, set) = one_pair(|root| {
        png(root, "target.png", (3, 2), BitDepth::Sixteen, &deep([0, 1, 1000, 65535, 10_001, 0]));
    });
    let target = loaded(&set, METRES).unwrap();
    assert_eq!(target.valid_pixels(), 4);
    let Target::Depth(depth) = target else { panic!("expected depth") };
    assert_eq!(depth, ndarray::arr2(&[[0.0, 0.001, 1.0], [65.535, 10.001, 0.0]]));

    let (root, set) = one_pair(|root| png(root, "target.png", (3, 2), BitDepth::Eight, &[9; 6]));
    insta::assert_snapshot!(clean(&root, loaded(&set, METRES).unwrap_err()), @"DATA/target.png: expected a 16-bit single-channel PNG, found a 8-bit single-channel PNG");
    let (root, set) =
        one_pair(|root| png(root, "target.png", (2, 3), BitDepth::Sixteen, &deep([9; 6])));
    insta::assert_snapshot!(clean(&root, loaded(&set, METRES).unwrap_err()), @"DATA/target.png: expected 3x2 pixels, the size of its image DATA/image.png, found 2x3");
    let (root, set) = one_pair(|root| write(root, "target.png", "<html>"));
    insta::assert_snapshot!(clean(&root, loaded(&set, METRES).unwrap_err()), @r#"DATA/target.png: expected a JPEG or PNG image, found text beginning "<html>""#);
}

#[test]
fn depth_without_a_measurement_loads_and_says_so() {
    let (_root, set) =
        one_pair(|root| png(root, "target.png", (3, 2), BitDepth::Sixteen, &deep([0; 6])));
    assert_eq!(loaded(&set, METRES).unwrap().valid_pixels(), 0);
}

#[test]
fn the_border_is_cut_off_both() {
    let (root, set) = one_pair(|root| {
        png(root, "target.png", (3, 2), BitDepth::Sixteen, &deep([1, 2, 3, 4, 5, 6]));
    });
    let cut = |border| load(set.train.files(), &set.train.pairs()[0], Some(border), METRES);
    let (image, target) = cut([1, 2, 1, 3]).unwrap();
    assert_eq!(image.dim(), (1, 2, 3));
    assert_eq!(target, Target::Depth(ndarray::arr2(&[[0.005, 0.006]])));
    insta::assert_snapshot!(clean(&root, cut([45, 471, 41, 601]).unwrap_err()), @"DATA/image.png: rows 45..471 and columns 41..601 are kept of every image, which has 3x2 pixels");
    assert!(matches!(cut([2, 1, 0, 3]), Err(DenseError::Border { .. })));
}

#[test]
fn labels_outside_the_classes_are_located() {
    let mask = |labels: [u8; 6], form, classes| {
        let (root, set) =
            one_pair(|root| png(root, "target.png", (3, 2), BitDepth::Eight, &labels));
        match loaded(&set, TargetForm::Labels { form, classes }) {
            Ok(Target::Labels(labels)) => Ok(labels.into_raw_vec_and_offset().0),
            Ok(Target::Depth(_)) => panic!("expected labels"),
            Err(error) => Err(clean(&root, error)),
        }
    };
    use LabelForm::{Original, Shifted};
    assert_eq!(mask([0, 1, 149, 255, 7, 0], Shifted, 150).unwrap(), [0, 1, 149, 255, 7, 0]);
    assert_eq!(mask([0, 1, 150, 2, 7, 0], Original, 150).unwrap(), [255, 0, 149, 1, 6, 255]);
    insta::assert_snapshot!(mask([0, 1, 2, 3, 150, 0], Shifted, 150).unwrap_err(), @"DATA/target.png, row 1, column 1: expected a class from 0 to 149, or 255 for none, found label 150");
    insta::assert_snapshot!(mask([0, 1, 2, 3, 4, 8], Original, 7).unwrap_err(), @"DATA/target.png, row 1, column 2: expected a class from 1 to 7, or 0 for none, found label 8");
    insta::assert_snapshot!(mask([0, 1, 255, 3, 4, 8], Original, 7).unwrap_err(), @"DATA/target.png, row 0, column 2: expected a class from 1 to 7, or 0 for none, found label 255");
}

/// A LoveDA folder with one mask of six labels for every image.
fn masks(all: &[[u8; 6]]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let mut list = String::new();
    for (index, labels) in all.iter().enumerate() {
        png(&root, &format!("m/{index}.png"), (3, 2), BitDepth::Eight, labels);
        list += &format!("m/{index}.png m/{index}.png\n");
    }
    write(&root, "train.txt", &list);
    write(&root, "val.txt", "m/0.png m/0.png\n");
    root
}

#[test]
fn the_form_of_the_labels_is_told_from_the_masks() {
    let form = |all: &[[u8; 6]], chosen| {
        let root = masks(all);
        let set = PairedSet::open(&dataset("loveda"), root.path()).unwrap();
        let form =
            set.target_form(&dataset("loveda"), chosen).map_err(|error| clean(&root, error))?;
        let TargetForm::Labels { form, classes: 7 } = form else { panic!("{form:?}") };
        Ok::<_, String>(form)
    };
    let plain = [0, 1, 2, 3, 4, 5];
    let (shifted, original) = ([0, 1, 255, 3, 4, 5], [0, 1, 2, 3, 4, 7]);
    assert_eq!(form(&[plain, shifted, plain], None), Ok(LabelForm::Shifted));
    assert_eq!(form(&[plain, plain, original], None), Ok(LabelForm::Original));
    insta::assert_snapshot!(form(&[plain, original, original, shifted], None).unwrap_err(), @"the masks of loveda contradict each other: DATA/m/3.png holds 255, which only the shifted form has, and DATA/m/1.png holds 7, which only the original form has");
    insta::assert_snapshot!(form(&[plain, plain], None).unwrap_err(), @"none of the 3 masks of loveda holds 255 or 7, so they may be in the original or in the shifted form: say which with --labels original or --labels shifted");
    for chosen in [LabelForm::Original, LabelForm::Shifted] {
        assert_eq!(form(&[plain, plain], Some(chosen)), Ok(chosen));
    }
    // Beyond the first masks that are looked at together; the one that decides is the last.
    let mut many = vec![plain; 150];
    many.push(original);
    assert_eq!(form(&many, None), Ok(LabelForm::Original));
    // 8 is no label of either form: that is said when the mask is loaded.
    assert_eq!(form(&[[8; 6], shifted], None), Ok(LabelForm::Shifted));
}

#[test]
fn depth_smaller_than_the_crop_is_refused_with_its_file() {
    let stage = SampleStage {
        revision: 1,
        border: None,
        scale: None,
        crop: 4,
        flip: 0.5,
        mean: [0.0; 3],
        std: [1.0; 3],
    };
    let image = ndarray::Array3::zeros((3, 9, 3));
    let depth = Target::Depth(ndarray::Array2::zeros((3, 9)));
    let crop = |draw, target: &Target| {
        train_sample(Path::new("a/b.jpg"), image.view(), target, &draw, &stage)
            .map(|(image, target)| (image.dim(), target.dim()))
    };
    let draw = Draw { top: 0, left: 0, flip: false, long_side: None };
    insta::assert_snapshot!(crop(draw, &depth).unwrap_err(), @"a/b.jpg: expected at least 4x4 pixels to crop, found 9x3");
    let labels = Target::Labels(ndarray::Array2::zeros((3, 9)));
    assert_eq!(crop(draw, &labels).unwrap(), ((4, 4, 3), (4, 4)));
    insta::assert_snapshot!(crop(Draw { left: 6, ..draw }, &labels).unwrap_err(), @"a/b.jpg: a crop of 4x4 at row 0, column 6 reaches outside its 9x4 pixels");
    insta::assert_snapshot!(crop(Draw { top: 1, ..draw }, &labels).unwrap_err(), @"a/b.jpg: a crop of 4x4 at row 1, column 0 reaches outside its 9x4 pixels");
}
