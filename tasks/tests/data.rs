//! Listing image folders, and what is said about folders that are not as expected.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use pixio_eval_tasks::data::{ImageFolder, ImageNet, ListOrigin, Registry, State, status};
use pixio_eval_tasks::files::Files;
use tempfile::TempDir;

fn tree(files: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        add(root.path(), file);
    }
    root
}

fn add(root: &Path, file: &str) {
    let path = root.join(file);
    if file.ends_with('/') {
        fs::create_dir_all(path).unwrap();
    } else {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
}

fn message(root: &TempDir) -> String {
    let error = ImageNet::open(root.path()).unwrap_err().to_string();
    error.replace(&root.path().display().to_string(), "DATA")
}

#[test]
fn the_order_is_that_of_torchvision() {
    let root = tree(&[
        "train/n02/b.JPEG",
        "train/n02/a.jpg",
        "train/n02/B.PNG",
        "train/n02/a-b/x.webp",
        "train/n02/a/y.Tiff",
        "train/n02/a/b/z.bmp",
        "train/n02/notes.txt",
        "train/n01/10.JPEG",
        "train/n01/9.JPEG",
        "train/Z/é.jpeg",
        "train/Z/f.pgm",
        "train/loose.jpg",
    ]);
    let folder = ImageFolder::open(root.path(), "train").unwrap();
    assert_eq!(folder.classes(), ["Z", "n01", "n02"]);
    let listed: Vec<_> = folder.samples().iter().map(|s| (&*s.path, s.target)).collect();
    // Made with torchvision 0.29's ImageFolder over the same tree.
    assert_eq!(
        listed,
        [
            ("train/Z/f.pgm", 0),
            ("train/Z/é.jpeg", 0),
            ("train/n01/10.JPEG", 1),
            ("train/n01/9.JPEG", 1),
            ("train/n02/B.PNG", 2),
            ("train/n02/a.jpg", 2),
            ("train/n02/b.JPEG", 2),
            ("train/n02/a/y.Tiff", 2),
            ("train/n02/a-b/x.webp", 2),
            ("train/n02/a/b/z.bmp", 2),
        ]
    );
    for sample in folder.samples() {
        assert_eq!(sample.bytes, sample.path.len() as u64);
        assert!(folder.files().is_file(&sample.path));
    }
}

fn two_classes() -> TempDir {
    let root = tree(&["train/a/", "train/b/", "val/a/", "val/b/"]);
    for i in 0..20 {
        add(root.path(), &format!("train/a/{i:02}.JPEG"));
        add(root.path(), &format!("train/b/{i:02}.JPEG"));
    }
    add(root.path(), "val/a/1.JPEG");
    add(root.path(), "val/b/1.JPEG");
    root
}

#[test]
fn the_fingerprint_follows_paths_sizes_and_targets() {
    let root = two_classes();
    let fingerprint = || ImageNet::open(root.path()).unwrap().fingerprint();
    let first = fingerprint();
    assert_eq!(first.0.len(), 64);
    assert_eq!(first, fingerprint());
    // Frozen: results already recorded refer to it.
    assert_eq!(first.short(), "8798974c2cb5");

    fs::write(root.path().join("val/a/1.JPEG"), "other, longer contents").unwrap();
    let resized = fingerprint();
    assert_ne!(first, resized);
    fs::rename(root.path().join("val/a/1.JPEG"), root.path().join("val/a/2.JPEG")).unwrap();
    assert_ne!(resized, fingerprint());
    fs::write(root.path().join("val/a/readme"), "").unwrap();
    fs::rename(root.path().join("val/a/2.JPEG"), root.path().join("val/a/1.JPEG")).unwrap();
    assert_eq!(resized, fingerprint());
}

#[test]
fn a_limit_is_seeded_kept_in_order_and_nested() {
    let root = two_classes();
    let data = ImageNet::open(root.path()).unwrap();
    let paths = |n: usize, seed: u64| -> Vec<String> {
        let taken = data.clone().take(n, seed);
        assert_eq!((taken.train.found(), taken.val.found()), (40, 2));
        taken.train.samples().iter().map(|sample| sample.path.to_string()).collect()
    };
    let ten = paths(10, 0);
    assert_eq!(ten.len(), 10);
    assert!(ten.is_sorted());
    assert_eq!(ten, paths(10, 0));
    assert_ne!(ten, paths(10, 1));
    // Not the first of the listing, which would be one class.
    assert!(ten.iter().any(|path| path.contains("/a/")) && ten.iter().any(|p| p.contains("/b/")));
    let twenty = paths(20, 0);
    assert!(ten.iter().all(|path| twenty.contains(path)));
    assert_eq!(paths(1000, 0).len(), 40);

    let published = Registry::builtin().unwrap();
    let records = data.take(10, 0).records(published.get("imagenet1k"));
    assert_eq!((records["train"].found, records["train"].published), (40, Some(1_281_167)));
    assert_eq!((records["val"].found, records["val"].published), (2, Some(50_000)));
}

#[test]
fn folders_that_are_missing_are_named() {
    let root = tree(&["train/a/1.JPEG", "val/a/1.JPEG"]);
    fs::remove_dir_all(root.path().join("val")).unwrap();
    insta::assert_snapshot!(message(&root), @"DATA has no folder val; expected train/<class>/<image> and val/<class>/<image>");
    fs::remove_dir_all(root.path().join("train")).unwrap();
    insta::assert_snapshot!(message(&root), @"DATA has no folder train; expected train/<class>/<image> and val/<class>/<image>");
    fs::remove_dir_all(root.path()).unwrap();
    insta::assert_snapshot!(message(&root), @"no folder at DATA");
}

#[test]
fn different_classes_are_named_up_to_five() {
    let names = ["n01", "n02", "n03", "n04", "n05", "n06", "n07"];
    let root = tree(&["val/n01/1.JPEG"]);
    for name in names {
        add(root.path(), &format!("train/{name}/1.JPEG"));
    }
    insta::assert_snapshot!(message(&root), @"DATA/val lacks 6 class folders of train: n02, n03, n04, n05, n06 and 1 more");
    for name in &names[..6] {
        add(root.path(), &format!("val/{name}/1.JPEG"));
    }
    insta::assert_snapshot!(message(&root), @"DATA/val lacks 1 class folder of train: n07");
    add(root.path(), "val/x/1.JPEG");
    add(root.path(), "val/y/1.JPEG");
    insta::assert_snapshot!(message(&root), @"DATA/val lacks 1 class folder of train: n07, and has 2 class folders that train lacks: x, y");
    add(root.path(), "val/n07/1.JPEG");
    insta::assert_snapshot!(message(&root), @"DATA/val has 2 class folders that train lacks: x, y");
}

#[test]
fn classes_and_splits_without_images_are_named() {
    let root = tree(&["train/a/1.JPEG", "train/b/notes.txt", "val/a/1.JPEG", "val/b/1.JPEG"]);
    insta::assert_snapshot!(message(&root), @"1 class folder of train without an image: b (in DATA/train)");
    add(root.path(), "train/b/1.JPEG");
    fs::remove_file(root.path().join("val/a/1.JPEG")).unwrap();
    fs::remove_file(root.path().join("val/b/1.JPEG")).unwrap();
    insta::assert_snapshot!(message(&root), @"2 class folders of val without an image: a, b (in DATA/val)");
    let root = tree(&["train/", "val/"]);
    insta::assert_snapshot!(message(&root), @"DATA/train is empty: expected train/<class>/<image>");
}

#[test]
fn a_flat_validation_folder_is_recognised() {
    let root = tree(&["train/n01440764/n01440764_18.JPEG"]);
    for i in 1..=12 {
        add(root.path(), &format!("val/ILSVRC2012_val_{i:08}.JPEG"));
    }
    insta::assert_snapshot!(message(&root), @"DATA/val has 12 images and no class folders (the first is ILSVRC2012_val_00000001.JPEG); expected val/<class>/<image>: sort them into one folder a class, named as in train");
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_for_ever() {
    use std::os::unix::fs::symlink;
    let root = tree(&["elsewhere/1.JPEG", "train/"]);
    symlink(root.path().join("elsewhere"), root.path().join("train/a")).unwrap();
    let folder = ImageFolder::open(root.path(), "train").unwrap();
    assert_eq!(&*folder.samples()[0].path, "train/a/1.JPEG");

    symlink(root.path().join("gone"), root.path().join("train/a/2.JPEG")).unwrap();
    let error = ImageFolder::open(root.path(), "train").unwrap_err().to_string();
    assert!(error.contains("train/a/2.JPEG"), "{error}");
    fs::remove_file(root.path().join("train/a/2.JPEG")).unwrap();
    symlink(root.path().join("elsewhere"), root.path().join("train/a/up")).unwrap();
    let error = ImageFolder::open(root.path(), "train").unwrap_err().to_string();
    assert!(error.contains("nested more than 32 folders deep"), "{error}");
}

#[test]
fn status_counts_images_against_the_published_numbers() {
    let registry = Registry::builtin().unwrap();
    let imagenet = registry.get("imagenet1k").unwrap();
    let root = two_classes();
    let found = status(imagenet, &Files::folder(root.path()), None);
    assert_eq!(found.state, State::CountsDiffer);
    let train = &found.splits[0];
    assert_eq!((train.split.as_str(), train.found, train.expected), ("train", 40, 1_281_167));
    let mut smaller = imagenet.clone();
    smaller.splits = [("train".to_owned(), 40), ("val".to_owned(), 2)].into();
    assert_eq!(status(&smaller, &Files::folder(root.path()), None).state, State::Complete);
    fs::remove_dir_all(root.path().join("val/b")).unwrap();
    let found = status(imagenet, &Files::folder(root.path()), None);
    assert_eq!((found.state, found.problems.len()), (State::Incomplete, 1));
    assert!(found.problems[0].contains("lacks 1 class folder of train: b"), "{found:?}");
    assert_eq!(
        status(imagenet, &Files::folder(&root.path().join("no")), None).state,
        State::Absent
    );
}

#[test]
fn status_counts_pairs_through_the_folders_own_lists() {
    let registry = Registry::builtin().unwrap();
    let check =
        |root: &TempDir| status(registry.get("nyuv2").unwrap(), &Files::folder(root.path()), None);
    let root = tree(&["images/1.jpg", "masks/1.png", "images/2.jpg"]);
    assert_eq!(check(&root).state, State::NoSplitLists);
    assert_eq!(check(&root).lists, Some(ListOrigin::PinnedNotFetched));
    assert!(check(&root).splits.is_empty());

    let list = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
    list("val.txt", "images/1.jpg masks/1.png\n");
    insta::assert_snapshot!(check(&root).problems.join("\n"), @"val.txt is there and train.txt is not");
    list("train.txt", "images/1.jpg masks/1.png\nimages/2.jpg masks/2.png\n");
    let found = check(&root);
    assert_eq!(found.state, State::Incomplete);
    assert_eq!((found.splits[0].found, found.splits[0].expected), (1, 2));
    insta::assert_snapshot!(found.problems.join("\n"), @"train.txt names files that are not there (1), the first on line 2: masks/2.png");
    add(root.path(), "masks/2.png");
    let found = check(&root);
    assert_eq!((found.state, found.lists), (State::Complete, Some(ListOrigin::Own)));
    assert_eq!((found.splits[0].found, found.splits[1].found), (2, 1));
    list("train.txt", "images/1.jpg  masks/1.png\n");
    list("val.txt", "");
    insta::assert_snapshot!(check(&root).problems.join("\n"), @r#"
    train.txt, line 1: expected `image target` with one space, found "images/1.jpg  masks/1.png"
    val.txt names no samples
    "#);
}

#[test]
fn status_counts_pairs_through_the_layout() {
    let registry = Registry::builtin().unwrap();
    let ade20k = registry.get("ade20k").unwrap();
    let mut files = Vec::new();
    for (folder, name) in [("training", "ADE_train_1"), ("validation", "ADE_val_1")] {
        files.push(format!("images/{folder}/{name}.jpg"));
        files.push(format!("annotations/{folder}/{name}.png"));
    }
    let root = tree(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let found = status(ade20k, &Files::folder(root.path()), None);
    assert_eq!((found.state, found.splits.len()), (State::CountsDiffer, 2));
    assert_eq!(found.lists, Some(ListOrigin::Folder));
    assert_eq!(found.splits[0].list.as_deref(), Some("images/training"));
    assert_eq!((found.splits[0].found, found.splits[0].expected), (1, 20_210));
    let mut smaller = ade20k.clone();
    smaller.splits = [("train".to_owned(), 1), ("val".to_owned(), 1)].into();
    assert_eq!(status(&smaller, &Files::folder(root.path()), None).state, State::Complete);
    fs::remove_file(root.path().join("annotations/validation/ADE_val_1.png")).unwrap();
    let found = status(ade20k, &Files::folder(root.path()), None);
    assert_eq!((found.state, found.splits.len()), (State::Incomplete, 0));
    assert!(found.problems[0].contains("images/validation/ADE_val_1.jpg"), "{found:?}");
}
