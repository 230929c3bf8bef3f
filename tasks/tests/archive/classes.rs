//! The classes of images in shards.

use std::path::Path;

use pixio_eval_tasks::archive::memory::members;
use pixio_eval_tasks::archive::{ArchiveError, Problem};
use pixio_eval_tasks::data::Container;
use tempfile::tempdir;

use super::make::{open, tar_of, write};

/// A shard of samples: key, class number.
fn shard(samples: &[(&str, &str)]) -> Vec<u8> {
    let member = |&(key, class): &(&str, &str)| {
        [(format!("{key}.jpg"), key.into()), (format!("{key}.cls"), class.into())]
    };
    tar_of(&samples.iter().flat_map(member).collect::<Vec<_>>())
}

fn paths(folder: &Path) -> Result<Vec<String>, ArchiveError> {
    let archives = open(folder, Container::Webdataset)?;
    Ok((0..archives.len()).map(|i| archives.path(i).to_owned()).collect())
}

fn of_shards(train: &[(&str, &str)], val: &[(&str, &str)]) -> Result<Vec<String>, ArchiveError> {
    let root = tempdir().unwrap();
    write(root.path(), "set-train-000000.tar", &shard(train));
    write(root.path(), "set-val-000000.tar", &shard(val));
    paths(root.path())
}

#[test]
fn a_class_is_named_by_any_of_its_keys() {
    let train = [("a/n00000007_1", "3"), ("b/n00000008_1", "4\n")];
    let val = [("ILSVRC2012_val_00000001", "4"), ("ILSVRC2012_val_00000002_n00000007", " 3")];
    let expected = [
        "train/n00000007/n00000007_1.JPEG",
        "train/n00000008/n00000008_1.JPEG",
        "val/n00000007/ILSVRC2012_val_00000002.JPEG",
        "val/n00000008/ILSVRC2012_val_00000001.JPEG",
    ];
    assert_eq!(of_shards(&train, &val).unwrap(), expected);
}

#[test]
fn classes_without_names_are_their_numbers() {
    let found = of_shards(&[("cat", "12"), ("dog", "3")], &[("cow", "12")]).unwrap();
    assert_eq!(found, ["train/0003/dog.JPEG", "train/0012/cat.JPEG", "val/0012/cow.JPEG"]);
}

#[test]
fn classes_that_disagree_are_refused() {
    let fails = |train: &[(&str, &str)], val: &[(&str, &str)]| of_shards(train, val).unwrap_err();
    let error = fails(&[("n00000007_1", "3")], &[("n00000008_1", "3")]);
    assert!(matches!(error, ArchiveError::ClassHasTwoNames { class: 3, .. }), "{error}");
    let error = fails(&[("n00000007_1", "3")], &[("n00000007_2", "4")]);
    assert!(matches!(error, ArchiveError::NameHasTwoClasses { .. }), "{error}");
    let error = fails(&[("n00000007_1", "3")], &[("cat", "4")]);
    assert!(matches!(error, ArchiveError::ClassWithoutName { class: 4 }), "{error}");
    let error = fails(&[("a/cat", "3")], &[("n00000007_2", "3"), ("n00000007_2_n00000007", "3")]);
    let error = error.to_string();
    assert!(error.starts_with("val/n00000007/n00000007_2.JPEG is twice"), "{error}");
    let error = fails(&[("cat", "many")], &[]).to_string();
    assert!(
        error.ends_with("member cat.cls: has the class many; expected a number from 0 to 9999")
    );
}

#[test]
fn a_sample_is_one_image_with_a_class() {
    let of = |names: &[&str]| {
        let files: Vec<_> = names.iter().map(|name| (name.to_string(), b"1".to_vec())).collect();
        members(Container::Webdataset, "train.tar", &tar_of(&files))
    };
    let found = of(&["x.PNG", "x.seg.png", "x.json", "y.cls", ".hidden", "x.cls", "z", "_.txt"]);
    assert_eq!(found.unwrap(), [("train/0001/x.png".to_owned(), b"1".to_vec())]);
    for (names, problem) in [
        (&["x.cls", "x.jpg", "y.jpg"][..], "train.tar: member y.jpg: is an image without a .cls"),
        (&["x.cls", "x.jpg", "x.png"], "member x.png: is the second image under its key"),
        (&["../x.cls", "../x.jpg"], "member ../x.jpg: its name leads out of the archive"),
    ] {
        let error = of(names).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    let both = members(Container::Webdataset, "trainval.tar", &tar_of(&[])).unwrap_err();
    let both_splits =
        ArchiveError::Archive { archive: "trainval.tar".into(), problem: Problem::BothSplits };
    assert_eq!(both.to_string(), both_splits.to_string());
}
