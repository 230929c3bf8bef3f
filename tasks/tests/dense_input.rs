//! Finding dense data sets, and what is said about files that are not as expected.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::BufWriter;
use std::path::Path;

use pixio_eval_tasks::data::{Dataset, Registry};
use pixio_eval_tasks::dense::{
    DenseError, Draw, LabelForm, ListSource, PairedSet, PinnedLists, Target, TargetForm, list_kind,
    load, train_sample,
};
use png::{BitDepth, ColorType, Encoder};
use schema::{ListKind, SampleStage};
use tempfile::TempDir;

fn dataset(name: &str) -> Dataset {
    Registry::builtin().unwrap().get(name).unwrap().clone()
}

fn write(root: &TempDir, file: &str, content: &str) {
    let path = root.path().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn tree(files: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    files.iter().for_each(|file| write(&root, file, file));
    root
}

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

fn clean(root: &TempDir, message: impl std::fmt::Display) -> String {
    message.to_string().replace(&root.path().display().to_string(), "DATA")
}

fn refused(name: &str, root: &TempDir) -> String {
    clean(root, PairedSet::open(&dataset(name), root.path()).unwrap_err())
}

fn images(set: &PairedSet) -> [Vec<&str>; 2] {
    [&set.train, &set.val].map(|split| split.pairs().iter().map(|pair| &*pair.image).collect())
}

#[test]
fn ade20k_is_what_lies_in_its_folders() {
    let root = tree(&[
        "images/training/ADE_train_00000002.jpg",
        "images/training/ADE_train_00000001.jpg",
        "images/training/._ADE_train_00000001.jpg",
        "images/training/readme.txt",
        "annotations/training/ADE_train_00000001.png",
        "annotations/training/ADE_train_00000002.png",
        "images/validation/ADE_val_00000001.jpg",
        "annotations/validation/ADE_val_00000001.png",
    ]);
    let ade20k = dataset("ade20k");
    let set = PairedSet::open(&ade20k, root.path()).unwrap();
    assert_eq!(
        images(&set),
        [
            vec![
                "images/training/ADE_train_00000001.jpg",
                "images/training/ADE_train_00000002.jpg"
            ],
            vec!["images/validation/ADE_val_00000001.jpg"]
        ]
    );
    let pair = &set.train.pairs()[1];
    assert_eq!(&*pair.target, "annotations/training/ADE_train_00000002.png");
    assert_eq!((pair.image_bytes, pair.target_bytes), (38, 43));
    assert_eq!(*set.train.source(), ListSource::Content { folder: "images/training".to_owned() });
    assert!(!set.own_lists());
    // Frozen: results already recorded refer to it.
    assert_eq!(set.fingerprint().short(), "ef5408d2a460");
    let records = set.records(&ade20k);
    assert_eq!((records["train"].found, records["train"].published), (2, Some(20_210)));
    let mut other = ade20k.clone();
    other.splits = [("train".to_owned(), 1), ("val".to_owned(), 2)].into();
    insta::assert_snapshot!(set.notes(&other).join("\n"), @"
    ade20k, train: found 2 in images/training, 1 more than the 1 of the published protocol: files were added to it, or it is another release, and results are not comparable with published ones
    ade20k, val: found 1 in images/validation, 1 fewer than the 2 of the published protocol: the copy is incomplete, or another release, and results are not comparable with published ones
    ");
    other.splits = [("train".to_owned(), 2), ("val".to_owned(), 1)].into();
    assert!(set.notes(&other).is_empty());

    write(&root, "annotations/validation/ADE_val_00000001.png", "longer than it was before this");
    let changed = PairedSet::open(&ade20k, root.path()).unwrap();
    assert_ne!(changed.fingerprint(), set.fingerprint());

    fs::remove_file(root.path().join("annotations/training/ADE_train_00000002.png")).unwrap();
    insta::assert_snapshot!(refused("ade20k", &root), @"DATA: image images/training/ADE_train_00000002.jpg and target annotations/training/ADE_train_00000002.png are a pair by images/training, but there is no such target");
    write(&root, "annotations/training/ADE_train_00000002.png", "");
    write(&root, "annotations/validation/ADE_val_00000007.png", "");
    insta::assert_snapshot!(refused("ade20k", &root), @"DATA: image images/validation/ADE_val_00000007.jpg and target annotations/validation/ADE_val_00000007.png are a pair by annotations/validation, but there is no such image");
    fs::remove_dir_all(root.path().join("annotations/validation")).unwrap();
    insta::assert_snapshot!(refused("ade20k", &root), @"
    DATA/annotations/validation is missing; expected in the folder of ade20k:
    images/training/ADE_train_<number>.jpg
    images/validation/ADE_val_<number>.jpg
    annotations/training/ADE_train_<number>.png
    annotations/validation/ADE_val_<number>.png
    The archive of the scene parsing challenge of 2016. Full ADE20K, with its thousands of classes, is another data set.
    ");
    fs::remove_file(root.path().join("images/validation/ADE_val_00000001.jpg")).unwrap();
    insta::assert_snapshot!(refused("ade20k", &root), @"DATA/images/validation has no .jpg images");
}

#[test]
fn loveda_is_town_and_country_together() {
    let mut files = Vec::new();
    for (folder, number) in
        [("Train/Urban", "10"), ("Train/Rural", "9"), ("Val/Rural", "2"), ("Val/Urban", "1")]
    {
        files.extend(
            ["images_png", "masks_png"].map(|kind| format!("{folder}/{kind}/{number}.png")),
        );
    }
    let root = tree(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let set = PairedSet::open(&dataset("loveda"), root.path()).unwrap();
    assert_eq!(
        images(&set),
        [
            ["Train/Rural/images_png/9.png", "Train/Urban/images_png/10.png"],
            ["Val/Rural/images_png/2.png", "Val/Urban/images_png/1.png"]
        ]
    );
    fs::remove_dir_all(root.path().join("Train/Urban")).unwrap();
    let message = refused("loveda", &root);
    assert!(message.starts_with("DATA/Train/Urban/images_png is missing"), "{message}");
}

#[test]
fn loveda_is_found_as_its_archives_unpack() {
    let mut files = Vec::new();
    for folder in ["Train/Train/Urban", "Train/Train/Rural", "Val/Urban", "Val/Rural"] {
        files.extend(["images_png", "masks_png"].map(|kind| format!("{folder}/{kind}/3.png")));
    }
    let root = tree(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let set = PairedSet::open(&dataset("loveda"), root.path()).unwrap();
    let folder = "Train/Train".to_owned();
    assert_eq!(*set.train.source(), ListSource::Content { folder });
    assert_eq!(*set.val.source(), ListSource::Content { folder: "Val".to_owned() });
    assert_eq!(
        images(&set),
        [
            ["Train/Train/Rural/images_png/3.png", "Train/Train/Urban/images_png/3.png"],
            ["Val/Rural/images_png/3.png", "Val/Urban/images_png/3.png"]
        ]
    );
}

#[test]
fn voc2012_takes_masks_from_either_folder_and_says_when_the_augmented_are_missing() {
    let root = tree(&[
        "JPEGImages/a.jpg",
        "JPEGImages/b.jpg",
        "JPEGImages/c.jpg",
        "SegmentationClass/a.png",
        "SegmentationClass/c.png",
        // The official archive has this list and no augmented one.
        "ImageSets/Segmentation/val.txt",
    ]);
    let voc = dataset("voc2012");
    let line = |name: &str| format!("JPEGImages/{name}.jpg SegmentationClass/{name}.png\n");
    let lists = PinnedLists { train: line("a") + &line("b"), val: line("c") };
    let open = || PairedSet::open_with(&voc, root.path(), Some(&lists));
    let targets = |set: &PairedSet| -> Vec<String> {
        let pairs = set.train.pairs().iter().chain(set.val.pairs());
        pairs.map(|pair| pair.target.to_string()).collect()
    };
    assert_eq!(list_kind(&voc, root.path()).unwrap(), ListKind::Pinned);
    insta::assert_snapshot!(clean(&root, open().unwrap_err()), @"DATA: 1 of the 2 masks of the augmented training list are missing, the first SegmentationClass/b.png: expected the masks of the Semantic Boundaries Dataset in SegmentationClass, beside the official ones, or all of them in SegmentationClassAug");
    write(&root, "SegmentationClass/b.png", "b");
    let official = ["a", "b", "c"].map(|name| format!("SegmentationClass/{name}.png"));
    let set = open().unwrap();
    assert_eq!(targets(&set), official);
    let pinned = &voc.list.pinned["val"];
    let (url, sha256) = (pinned.url.clone(), pinned.sha256.clone());
    assert_eq!(*set.val.source(), ListSource::Pinned { url, sha256 });
    assert_eq!(set.records(&voc)["val"].published, Some(1449));

    // The folder of augmented masks wins, and has to be whole.
    for name in ["a", "b"] {
        write(&root, &format!("SegmentationClassAug/{name}.png"), name);
    }
    insta::assert_snapshot!(clean(&root, open().unwrap_err()), @"DATA: image JPEGImages/c.jpg and target SegmentationClassAug/c.png are a pair by https://raw.githubusercontent.com/facebookresearch/pixio/b83555d6581f4906f6f1fc1ae0abb04f622db32f/evaluation/semseg/splits/pascal/val.txt, line 1, but there is no such target");
    write(&root, "SegmentationClassAug/c.png", "c");
    let augmented = ["a", "b", "c"].map(|name| format!("SegmentationClassAug/{name}.png"));
    assert_eq!(targets(&open().unwrap()), augmented);

    // Both lists of the layout come before the published ones, and the folder's own before both.
    write(&root, "ImageSets/Segmentation/trainaug.txt", "c\n");
    write(&root, "ImageSets/Segmentation/val.txt", "b\n");
    assert_eq!(list_kind(&voc, root.path()).unwrap(), ListKind::Layout);
    assert_eq!(images(&open().unwrap()), [["JPEGImages/c.jpg"], ["JPEGImages/b.jpg"]]);
    fs::remove_dir_all(root.path().join("SegmentationClassAug")).unwrap();
    assert_eq!(&*open().unwrap().train.pairs()[0].target, "SegmentationClass/c.png");
    write(&root, "train.txt", &line("b"));
    write(&root, "val.txt", &line("a"));
    assert_eq!(list_kind(&voc, root.path()).unwrap(), ListKind::Own);
    assert_eq!(images(&open().unwrap()), [["JPEGImages/b.jpg"], ["JPEGImages/a.jpg"]]);
}

#[test]
fn published_lists_are_read_like_the_folders_own_and_compared_with_the_published_counts() {
    let root = tree(&["i/1", "t/1", "i/2", "t/2"]);
    let mut nyuv2 = dataset("nyuv2");
    let lists = |train: &str| PinnedLists { train: train.to_owned(), val: "i/2 t/2\n".to_owned() };
    let open = |train: &str| {
        let set = PairedSet::open_with(&dataset("nyuv2"), root.path(), Some(&lists(train)));
        set.map_err(|error| {
            clean(&root, error).replace(&dataset("nyuv2").list.pinned["train"].url, "URL")
        })
    };
    let set = open("i/1 t/1\ni/2 t/2\n").unwrap();
    assert_eq!(images(&set), [vec!["i/1", "i/2"], vec!["i/2"]]);
    nyuv2.splits = [("train".to_owned(), 3), ("val".to_owned(), 1)].into();
    let url = nyuv2.list.pinned["train"].url.clone();
    insta::assert_snapshot!(set.notes(&nyuv2).join("\n").replace(&url, "URL"), @"nyuv2, train: found 2 in URL, 1 fewer than the 3 of the published protocol: the copy is incomplete, or another release, and results are not comparable with published ones");
    let refused: Vec<String> = ["i/1\n", "i/1 ../t/1\n", "i/1 t/1\ni/3 t/3\n", ""]
        .map(|train| open(train).unwrap_err())
        .into();
    insta::assert_snapshot!(refused.join("\n"), @r#"
    DATA: URL, line 1: expected `image target` with one space, found "i/1"
    URL, line 1: expected a path relative to the list's folder, found "../t/1"
    DATA: image i/3 and target t/3 are a pair by URL, line 2, but there is no such image
    DATA: URL names no samples
    "#);
}

#[test]
fn voc2012_follows_the_lists_of_its_kit() {
    let root = tree(&[
        "JPEGImages/2007_000032.jpg",
        "SegmentationClassAug/2007_000032.png",
        "JPEGImages/2007_000033.jpg",
        "SegmentationClassAug/2007_000033.png",
        "JPEGImages/2007_000099.jpg",
    ]);
    let message = refused("voc2012", &root);
    insta::assert_snapshot!(message, @"
    DATA/ImageSets/Segmentation/trainaug.txt is missing; expected in the folder of voc2012:
    JPEGImages/<name>.jpg
    SegmentationClassAug/<name>.png, or SegmentationClass/<name>.png
    ImageSets/Segmentation/trainaug.txt and val.txt, where both are there
    The official archive, with the masks of the Semantic Boundaries Dataset added for training: in a folder of their own together with the official ones, or among these.
    ");
    write(&root, "ImageSets/Segmentation/trainaug.txt", "2007_000032\r\n");
    write(&root, "ImageSets/Segmentation/val.txt", "2007_000033");
    let set = PairedSet::open(&dataset("voc2012"), root.path()).unwrap();
    assert_eq!(images(&set), [["JPEGImages/2007_000032.jpg"], ["JPEGImages/2007_000033.jpg"]]);
    assert_eq!(set.notes(&dataset("voc2012")).len(), 2);
    assert_eq!(
        set.target_form(&dataset("voc2012"), None).unwrap(),
        TargetForm::Labels { form: LabelForm::Shifted, classes: 21 }
    );
    let error = set.target_form(&dataset("voc2012"), Some(LabelForm::Original)).unwrap_err();
    insta::assert_snapshot!(error, @"voc2012 is published with labels from 0 on: it has no original form to be shifted");

    write(&root, "ImageSets/Segmentation/val.txt", "2007_000033\n2007_000099\n");
    insta::assert_snapshot!(refused("voc2012", &root), @"DATA: image JPEGImages/2007_000099.jpg and target SegmentationClassAug/2007_000099.png are a pair by ImageSets/Segmentation/val.txt, line 2, but there is no such target");
    write(
        &root,
        "ImageSets/Segmentation/val.txt",
        "/JPEGImages/2007_000033.jpg /x/2007_000033.png\n",
    );
    insta::assert_snapshot!(refused("voc2012", &root), @r#"DATA/ImageSets/Segmentation/val.txt, line 1: expected one name such as 2007_000032, found "/JPEGImages/2007_000033.jpg /x/2007_000033.png""#);
    write(&root, "ImageSets/Segmentation/val.txt", "");
    insta::assert_snapshot!(refused("voc2012", &root), @"DATA: ImageSets/Segmentation/val.txt names no samples");
}

#[test]
fn nyuv2_and_kitti_say_which_lists_they_need() {
    let root = tree(&["sync/room/rgb_00000.jpg"]);
    insta::assert_snapshot!(refused("nyuv2", &root), @"DATA does not say which pairs of nyuv2 belong to which split: expected there train.txt with 24231 lines and val.txt with 654 lines, each line `image target` with one space, relative to that folder. The lists of the BTS preparation.");
    insta::assert_snapshot!(refused("kitti", &root), @"DATA does not say which pairs of kitti belong to which split: expected there train.txt with 23158 lines and val.txt with 652 lines, each line `image target` with one space, relative to that folder. The Eigen split, without the frames that have no annotated map.");
    insta::assert_snapshot!(refused("imagenet1k", &root), @"imagenet1k has no depth maps or masks: expected one of nyuv2, kitti, ade20k, voc2012, loveda");
    fs::remove_dir_all(root.path()).unwrap();
    insta::assert_snapshot!(refused("nyuv2", &root), @"no folder at DATA");
}

#[test]
fn the_folders_own_lists_win_and_their_mistakes_are_located() {
    // The layout is there too, and is not looked at.
    let root = tree(&[
        "images/training/a.jpg",
        "annotations/training/a.png",
        "images/validation/b.jpg",
        "annotations/validation/b.png",
        "i/1",
        "t/1",
        "i/2",
    ]);
    write(&root, "val.txt", "i/1 t/1\n");
    insta::assert_snapshot!(refused("ade20k", &root), @"DATA: val.txt is there and train.txt is not");
    write(&root, "train.txt", "i/1 t/1\r\ni/1 t/1\n");
    let ade20k = dataset("ade20k");
    let set = PairedSet::open(&ade20k, root.path()).unwrap();
    assert_eq!(images(&set), [vec!["i/1", "i/1"], vec!["i/1"]]);
    assert!(set.own_lists());
    assert_eq!(*set.val.source(), ListSource::Own { list: "val.txt".to_owned() });
    assert_eq!(set.records(&ade20k)["train"].published, None);
    insta::assert_snapshot!(set.notes(&ade20k).join("\n"), @"
    ade20k, train: the folder's own train.txt decides (2 listed); the number is not compared with the published one
    ade20k, val: the folder's own val.txt decides (1 listed); the number is not compared with the published one
    ");

    let mut messages = Vec::new();
    for text in [
        "i/1 t/1\ni/1  t/1\n",
        "i/1 t/1\n\n",
        "i/1 t/1 518.8579\n",
        "i/1\n",
        "i/1 /t/1\n",
        "i/1 ../t/1\n",
        "i/1 t/1\ni/2 t/2\n",
        "i/1 t/1\ni/3 t/1\n",
        "i/1 t\n",
        "",
    ] {
        write(&root, "train.txt", text);
        messages.push(refused("ade20k", &root));
    }
    insta::assert_snapshot!(messages.join("\n"), @r#"
    DATA: train.txt, line 2: expected `image target` with one space, found "i/1  t/1"
    DATA: train.txt, line 2: expected `image target` with one space, found ""
    DATA: train.txt, line 1: expected `image target` with one space, found "i/1 t/1 518.8579"
    DATA: train.txt, line 1: expected `image target` with one space, found "i/1"
    DATA/train.txt, line 1: expected a path relative to the list's folder, found "/t/1"
    DATA/train.txt, line 1: expected a path relative to the list's folder, found "../t/1"
    DATA: image i/2 and target t/2 are a pair by train.txt, line 2, but there is no such target
    DATA: image i/3 and target t/1 are a pair by train.txt, line 2, but there is no such image
    DATA: image i/1 and target t are a pair by train.txt, line 1, but there is no such target
    DATA: train.txt names no samples
    "#);
    fs::write(root.path().join("train.txt"), b"i/1 t/\xff").unwrap();
    insta::assert_snapshot!(refused("ade20k", &root), @"DATA: cannot read train.txt: stream did not contain valid UTF-8");
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
    load(set.train.root(), &set.train.pairs()[0], None, form).map(|(_, target)| target)
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
    let cut = |border| load(root.path(), &set.train.pairs()[0], Some(border), METRES);
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
