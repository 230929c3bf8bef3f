//! Which pairs make up a dense data set, and what is said about folders and lists that are not as
//! expected.

#![allow(clippy::unwrap_used, clippy::panic)]

mod dense_folder;

use std::fs;

use dense_folder::{clean, dataset, images, write};
use pixio_eval_tasks::dense::{
    LabelForm, ListSource, PairedSet, PinnedLists, TargetForm, list_kind,
};
use pixio_eval_tasks::files::Files;
use schema::ListKind;
use tempfile::TempDir;

fn tree(files: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    files.iter().for_each(|file| write(&root, file, file));
    root
}

fn refused(name: &str, root: &TempDir) -> String {
    clean(root, PairedSet::open(&dataset(name), root.path()).unwrap_err())
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
    assert_eq!(list_kind(&voc, &Files::folder(root.path())).unwrap(), ListKind::Pinned);
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
    assert_eq!(list_kind(&voc, &Files::folder(root.path())).unwrap(), ListKind::Layout);
    assert_eq!(images(&open().unwrap()), [["JPEGImages/c.jpg"], ["JPEGImages/b.jpg"]]);
    fs::remove_dir_all(root.path().join("SegmentationClassAug")).unwrap();
    assert_eq!(&*open().unwrap().train.pairs()[0].target, "SegmentationClass/c.png");
    write(&root, "train.txt", &line("b"));
    write(&root, "val.txt", &line("a"));
    assert_eq!(list_kind(&voc, &Files::folder(root.path())).unwrap(), ListKind::Own);
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
    insta::assert_snapshot!(refused("ade20k", &root), @"DATA: cannot read train.txt: invalid utf-8 sequence of 1 bytes from index 6");
}
