//! Sample data as the program writes it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pixio_eval_tasks::data::{ImageNet, Registry, State, status};
use pixio_eval_tasks::files::Files;
use pixio_eval_tasks::sample::{NAMES, REVISION, SampleError, is_sample, write};

/// Relative path to contents of every file below a folder.
fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let relative = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.insert(relative, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[test]
fn every_layout_is_written_complete() {
    let registry = Registry::builtin().unwrap();
    let root = tempfile::tempdir().unwrap();
    for name in NAMES {
        let folder = write(name, root.path()).unwrap();
        assert_eq!(folder, root.path().join(name));
        let mark = is_sample(&folder).unwrap();
        assert_eq!((mark.dataset.as_str(), mark.revision), (name, REVISION));
        let status = status(registry.get(name).unwrap(), &Files::folder(&folder), None);
        assert_eq!(status.state, State::Complete, "{:?}", status.problems);
        assert_eq!(status.sample.as_ref(), Some(&mark));
        for split in &status.splits {
            assert_eq!(Some(&split.found), mark.splits.get(&split.split), "{name}");
        }
    }
    // Nothing half made is left beside the data sets.
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), NAMES.len());

    let imagenet = ImageNet::open(&root.path().join("imagenet1k")).unwrap();
    assert_eq!((imagenet.train.samples().len(), imagenet.val.samples().len()), (192, 96));
    assert_eq!(imagenet.train.classes().len(), 8);
    let voc = &contents(&root.path().join("voc2012"));
    assert_eq!(voc["ImageSets/Segmentation/val.txt"].iter().filter(|&&b| b == b'\n').count(), 4);
}

/// Three data sets with every file format between them.
#[test]
fn one_thread_and_two_write_the_same_bytes() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["nyuv2", "voc2012", "ade20k"] {
        let two = on_threads(2, || write(name, first.path())).unwrap();
        let one = on_threads(1, || write(name, second.path())).unwrap();
        assert!(contents(&two) == contents(&one), "{name} differs between thread counts");
    }
}

#[test]
fn what_is_there_is_reused_or_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let folder = write("voc2012", root.path()).unwrap();
    let image = folder.join("JPEGImages/2012_000001.jpg");
    let written = fs::metadata(&image).unwrap().modified().unwrap();
    write("voc2012", root.path()).unwrap();
    assert_eq!(fs::metadata(&image).unwrap().modified().unwrap(), written);

    let message = |name: &str| {
        let error = write(name, root.path()).unwrap_err();
        error.to_string().replace(&root.path().display().to_string(), "SAMPLES")
    };
    fs::remove_file(&image).unwrap();
    insta::assert_snapshot!(message("voc2012"), @"SAMPLES/voc2012 is incomplete: 28 generated files expected, 27 found; remove the folder and it is made again");
    let mark = fs::read_to_string(folder.join("sample.json")).unwrap();
    fs::write(folder.join("sample.json"), mark.replace("\"revision\": ", "\"revision\": 9"))
        .unwrap();
    insta::assert_snapshot!(message("voc2012"), @"SAMPLES/voc2012 holds voc2012 revision 91 with seed 0, not sample data of voc2012 revision 1; nothing was changed");
    fs::remove_file(folder.join("sample.json")).unwrap();
    insta::assert_snapshot!(message("voc2012"), @"SAMPLES/voc2012 exists and is not generated sample data (it has no sample.json); nothing was changed");
    assert!(is_sample(&folder).is_none());
    assert!(folder.join("train.txt").is_file());
    insta::assert_snapshot!(message("coco"), @r#"no sample data for data set "coco"; there is for imagenet1k, nyuv2, kitti, ade20k, voc2012, loveda"#);
    assert!(matches!(write("coco", root.path()), Err(SampleError::Unknown { .. })));

    fs::write(root.path().join("file"), "").unwrap();
    assert!(matches!(write("nyuv2", &root.path().join("file")), Err(SampleError::Io { .. })));
}
