//! What is done with any bytes as an archive, by the fuzzer and by the test that replays its corpus.

use std::sync::LazyLock;

use pixio_eval_tasks::archive::Archives;
use pixio_eval_tasks::data::{Container, InPlace};

static FOLDER: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

/// Members that say to be larger are not read: they may be, and the fuzzer does not give as much.
const LARGE: u64 = 32 << 20;
/// Members that are read.
const MOST: usize = 64;

/// Lists and reads `data`, after its first byte, as an archive of the kind that this byte says: 0 zip, 1 tar,
/// 2 WebDataset, 3 Parquet; or, for 4, opens it as the index of a small archive. Whether it is one.
pub fn check(data: &[u8]) -> bool {
    let Some((&kind, bytes)) = data.split_first() else { return false };
    let (container, name) = match kind % 5 {
        0 | 4 => (Container::Zip, "a.zip"),
        1 => (Container::Tar, "a.tar"),
        2 => (Container::Webdataset, "train-0.tar"),
        _ => (Container::Parquet, "train-0.parquet"),
    };
    let folder = tempfile::tempdir_in(FOLDER.path()).expect("a folder");
    let (root, cache) = (folder.path().join("data"), folder.path().join("cache"));
    std::fs::create_dir(&root).expect("a folder");
    let in_place = InPlace { containers: vec![container], strip: String::new() };
    let open = || Archives::open(&root, &in_place, &cache, &|_, _| true);
    if kind % 5 == 4 {
        std::fs::write(root.join(name), EMPTY).expect("a file");
        open().expect("an empty archive is one");
        for entry in std::fs::read_dir(&cache).expect("the cache is there") {
            std::fs::write(entry.expect("a file").path(), bytes).expect("a file");
        }
    } else {
        std::fs::write(root.join(name), bytes).expect("a file");
    }
    let Ok(Some(archives)) = open() else { return false };
    let mut last = None;
    for at in 0..archives.len().min(MOST) {
        let path = archives.path(at);
        assert!(last.is_none_or(|last| last < path), "paths ascend");
        assert!(!path.starts_with('/') && path.split('/').all(|part| part != ".."), "{path}");
        assert_eq!(archives.find(path), Some(at));
        last = Some(path);
        if archives.size(at) <= LARGE
            && let Ok(content) = archives.read(at)
        {
            assert_eq!(content.len() as u64, archives.size(at));
        }
    }
    kind % 5 != 4
}

/// A zip archive of nothing.
const EMPTY: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
