//! Data sets in every layout in which they are read: the same samples.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../archive/make_parquet.rs"]
#[allow(dead_code)]
mod make_parquet;
mod pack;

use std::fs;
use std::path::{Path, PathBuf};

use pixio_eval_tasks::data::{ImageNet, Registry};
use pixio_eval_tasks::dense::{PairedSet, load};
use pixio_eval_tasks::files::Files;
use pixio_eval_tasks::sample;
use tempfile::TempDir;

/// What the protocol's authors' code was run on.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../harness/tests/golden")
}

/// The files of a data set, through the index of its archives.
fn opened(name: &str, root: &Path, cache: &Path) -> Files {
    let registry = Registry::builtin().unwrap();
    Files::open(registry.get(name).unwrap(), root, cache, &|_, _| true).unwrap()
}

/// ImageNet in every layout, made from a folder.
fn imagenets(folder: &Path, to: &Path) -> Vec<(&'static str, PathBuf)> {
    let images = pack::images(folder);
    let shards = to.join("webdataset");
    pack::webdataset(&shards, &images, 3);
    let mut made = vec![("webdataset", shards)];
    for (at, form) in make_parquet::forms().into_iter().enumerate() {
        let root = to.join(format!("parquet-{at}"));
        fs::create_dir_all(root.join("data")).unwrap();
        for (split, name) in [("train", "train"), ("val", "validation")] {
            let of_split = images.iter().filter(|image| image.split == split);
            // As on the hub: the file's name ends with the class.
            let rows: Vec<make_parquet::Row> = of_split
                .map(|image| {
                    let path = format!("{}_{}.JPEG", image.key, image.wnid);
                    (Some(image.bytes.clone()), Some(path), image.class as i64)
                })
                .collect();
            let (first, second) = rows.split_at(rows.len() / 2);
            for (part, rows) in [first, second].into_iter().enumerate() {
                let path = root.join(format!("data/{name}-{part:05}-of-00002.parquet"));
                fs::write(path, make_parquet::file(rows, form)).unwrap();
            }
        }
        made.push(("parquet", root));
    }
    made
}

#[test]
fn imagenet_is_the_same_in_every_layout() {
    let folder = TempDir::new().unwrap();
    let sample = sample::write("imagenet1k", folder.path()).unwrap();
    for (at, folder) in [golden().join("imagenet"), sample].iter().enumerate() {
        let world = TempDir::new().unwrap();
        let whole = ImageNet::open(folder).unwrap();
        for (kind, root) in imagenets(folder, world.path()) {
            let files = opened("imagenet1k", &root, &world.path().join("cache"));
            assert_eq!(files.container(), Some(kind));
            let set = ImageNet::open(&files).unwrap();
            assert_eq!(set.fingerprint(), whole.fingerprint(), "{kind} {at}");
            for (found, wanted) in [(&set.train, &whole.train), (&set.val, &whole.val)] {
                assert_eq!(found.classes(), wanted.classes());
                assert_eq!(found.samples(), wanted.samples());
                for sample in found.samples() {
                    let bytes = files.read(&sample.path).unwrap();
                    assert_eq!(bytes, wanted.files().read(&sample.path).unwrap());
                }
            }
        }
    }
}

/// Images with targets, decoded.
fn same_pairs(name: &str, folder: &Path, archives: &Path, cache: &Path) {
    let registry = Registry::builtin().unwrap();
    let dataset = registry.get(name).unwrap();
    let files = opened(name, archives, cache);
    assert_eq!(files.container(), Some("zip"));
    let whole = PairedSet::open(dataset, folder).unwrap();
    let set = PairedSet::open(dataset, &files).unwrap();
    assert_eq!(set.fingerprint(), whole.fingerprint(), "{name}");
    let form = set.target_form(dataset, None).unwrap();
    assert_eq!(form, whole.target_form(dataset, None).unwrap());
    for (found, wanted) in [(&set.train, &whole.train), (&set.val, &whole.val)] {
        assert_eq!(found.pairs(), wanted.pairs());
        for pair in found.pairs() {
            let same = load(found.files(), pair, None, form).unwrap();
            assert!(same == load(wanted.files(), pair, None, form).unwrap(), "{}", pair.image);
        }
    }
}

#[test]
fn segmentation_is_the_same_from_zip_archives() {
    let world = TempDir::new().unwrap();
    let samples = world.path().join("samples");
    let ade20k = sample::write("ade20k", &samples).unwrap();
    for (at, folder) in [ade20k, golden().join("ade20k")].iter().enumerate() {
        let root = world.path().join(format!("ade20k-{at}"));
        fs::create_dir(&root).unwrap();
        let archive = root.join("ADEChallengeData2016.zip");
        pack::zip(&archive, "ADEChallengeData2016/", pack::files(folder).iter());
        same_pairs("ade20k", folder, &root, &world.path().join("cache"));
        // The archive itself in the folder's place.
        same_pairs("ade20k", folder, &archive, &world.path().join("cache"));
    }
    let loveda = sample::write("loveda", &samples).unwrap();
    let root = world.path().join("loveda");
    fs::create_dir(&root).unwrap();
    let files = pack::files(&loveda);
    for split in ["Train", "Val"] {
        let members = files.iter().filter(|(name, _)| name.starts_with(split));
        pack::zip(&root.join(format!("{split}.zip")), "", members);
    }
    // Lists of one's own lie beside the archives, or there are none.
    for list in ["train.txt", "val.txt"] {
        fs::copy(loveda.join(list), root.join(list)).unwrap();
    }
    same_pairs("loveda", &loveda, &root, &world.path().join("cache"));
    for list in ["train.txt", "val.txt"] {
        fs::remove_file(loveda.join(list)).unwrap();
        fs::remove_file(root.join(list)).unwrap();
    }
    same_pairs("loveda", &loveda, &root, &world.path().join("cache"));
}
