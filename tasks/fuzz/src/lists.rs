//! What is done with any bytes as split lists, by the fuzzer and by the test that replays its corpus.

use std::sync::LazyLock;

use pixio_eval_tasks::data::{Dataset, Registry};
use pixio_eval_tasks::dense::{PairedSet, PinnedLists};

struct Folder {
    folder: tempfile::TempDir,
    /// By the folder's own lists, by those of its layout, by published ones.
    datasets: Vec<Dataset>,
}

static FOLDER: LazyLock<Folder> = LazyLock::new(|| {
    let registry = Registry::builtin().expect("the built-in data sets");
    let get = |name| registry.get(name).expect("a known name").clone();
    let datasets = vec![get("nyuv2"), get("ade20k"), get("voc2012")];
    let folder = tempfile::tempdir().expect("a temporary folder");
    for path in
        ["own", "layout/ImageSets/Segmentation", "layout/JPEGImages", "layout/SegmentationClassAug"]
    {
        std::fs::create_dir_all(folder.path().join(path)).expect("a folder");
    }
    for path in
        ["own/a.png", "own/b.png", "layout/JPEGImages/a.jpg", "layout/SegmentationClassAug/a.png"]
    {
        std::fs::write(folder.path().join(path), path).expect("a file");
    }
    Folder { folder, datasets }
});

/// Reads `data`, in two halves at its first NUL byte, as the lists of data folders of each kind; whether one
/// of them is right.
pub fn check(data: &[u8]) -> bool {
    let mut halves = data.splitn(2, |&byte| byte == 0);
    let train = halves.next().unwrap_or_default();
    let val = halves.next().unwrap_or(train);
    let root = FOLDER.folder.path();
    let write = |path: &str, text: &[u8]| std::fs::write(root.join(path), text).expect("a file");
    write("own/train.txt", train);
    write("own/val.txt", val);
    write("layout/ImageSets/Segmentation/trainaug.txt", train);
    write("layout/ImageSets/Segmentation/val.txt", val);
    let text = |half: &[u8]| String::from_utf8_lossy(half).into_owned();
    let pinned = PinnedLists { train: text(train), val: text(val) };
    let mut any = false;
    for dataset in &FOLDER.datasets {
        for folder in ["own", "layout"] {
            let opened = PairedSet::open_with(dataset, root.join(folder).as_path(), Some(&pinned));
            if let Ok(set) = opened {
                any = true;
                for pair in set.train.pairs().iter().chain(set.val.pairs()) {
                    // What was found lies in the folder.
                    for path in [&pair.image, &pair.target] {
                        let found = root.join(folder).join(&**path);
                        let found = found.canonicalize().expect("was found");
                        let inside = root.canonicalize().expect("is there");
                        assert!(found.starts_with(inside), "{}", found.display());
                    }
                }
            }
        }
    }
    any
}
