//! Indexes that are kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use pixio_eval_tasks::archive::memory::index_paths;
use pixio_eval_tasks::archive::{ArchiveError, Archives};
use pixio_eval_tasks::data::Container;
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use super::make::{contents, in_place, open, tar_of, write};

fn files(n: usize) -> Vec<(String, Vec<u8>)> {
    (0..n).map(|i| (format!("folder/file-{i}"), vec![i as u8; i * 10])).collect()
}

fn index_in(root: &Path) -> PathBuf {
    let entries: Vec<_> = fs::read_dir(root.join("cache")).unwrap().collect();
    assert_eq!(entries.len(), 1, "only the index is left");
    entries.into_iter().next().unwrap().unwrap().path()
}

/// Opens, and says whether archives were listed.
fn listed(root: &Path) -> (Archives, bool) {
    let calls = AtomicUsize::new(0);
    let told = |done, total| {
        assert!(done <= total);
        calls.fetch_add(1, Ordering::Relaxed);
        true
    };
    let in_place = in_place(Container::Tar, "");
    let archives = Archives::open(root, &in_place, &root.join("cache"), &told).unwrap().unwrap();
    (archives, calls.into_inner() > 0)
}

fn folder() -> TempDir {
    let root = tempdir().unwrap();
    write(root.path(), "a.tar", &tar_of(&files(8)));
    root
}

#[test]
fn an_archive_that_changed_is_listed_again() {
    let root = folder();
    let (before, new) = listed(root.path());
    assert!(new);
    assert!(!listed(root.path()).1);
    write(root.path(), "a.tar", &tar_of(&files(9)));
    let error = before.read(3).unwrap_err();
    assert!(matches!(error, ArchiveError::Changed { .. }), "{error}");
    let (after, new) = listed(root.path());
    assert!(new);
    assert_eq!(contents(&after), files(9));
    // Of the same size, at another time.
    let mut changed = files(9);
    changed[8].1[0] = 99;
    write(root.path(), "a.tar", &tar_of(&changed));
    let tar = fs::File::open(root.path().join("a.tar")).unwrap();
    tar.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let (after, new) = listed(root.path());
    assert!(new);
    assert_eq!(contents(&after), changed);
    // One more archive, and one less.
    write(root.path(), "b.tar", &tar_of(&[("other".to_owned(), vec![])]));
    assert_eq!(listed(root.path()).0.len(), 10);
    fs::remove_file(root.path().join("b.tar")).unwrap();
    let (after, new) = listed(root.path());
    assert!(new);
    assert_eq!(after.len(), 9);
    fs::remove_file(root.path().join("a.tar")).unwrap();
    assert!(matches!(after.read(0), Err(ArchiveError::Io { .. })));
}

#[test]
fn an_interrupted_listing_leaves_nothing() {
    let root = folder();
    let in_place = in_place(Container::Tar, "");
    let cache = root.path().join("cache");
    let error = Archives::open(root.path(), &in_place, &cache, &|_, _| false).unwrap_err();
    assert!(matches!(error, ArchiveError::Interrupted));
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 0);
    assert!(listed(root.path()).1);
}

#[test]
fn an_index_of_other_archives_is_not_used() {
    let [one, other] = [folder(), folder()];
    assert_eq!(contents(&listed(one.path()).0), files(8));
    let index = index_in(one.path());
    write(other.path(), "a.tar", &tar_of(&files(3)));
    assert_eq!(listed(other.path()).0.len(), 3);
    fs::copy(index_in(other.path()), &index).unwrap();
    let (archives, new) = listed(one.path());
    assert!(new);
    assert_eq!(contents(&archives), files(8));
}

#[test]
fn two_that_build_at_once_have_the_same() {
    let root = folder();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(contents(&listed(root.path()).0), files(8)));
        }
    });
    index_in(root.path());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    /// Damage at any place, a truncation or bytes behind the end.
    #[test]
    fn a_damaged_index_is_built_again(place in 0.0..1.0_f64, bit in 0_u32..8, kind in 0..3) {
        thread_local! {
            static ROOT: TempDir = folder();
        }
        ROOT.with(|root| {
            let (_, _) = listed(root.path());
            let path = index_in(root.path());
            let good = fs::read(&path).unwrap();
            let at = (place * good.len() as f64) as usize;
            let mut bytes = good.clone();
            match kind {
                0 => bytes[at] ^= 1 << bit,
                1 => bytes.truncate(at),
                _ => bytes.extend(&good[at..]),
            }
            fs::write(&path, bytes).unwrap();
            let (archives, new) = listed(root.path());
            assert!(new);
            assert_eq!(contents(&archives), files(8));
            assert_eq!(fs::read(&path).unwrap(), good);
        });
    }

    #[test]
    fn any_bytes_are_an_index_or_none(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        prop_assert!(index_paths(&bytes).is_none());
    }

    /// With the right checksum over wrong bytes, what is read is in order and stays in its folder.
    #[test]
    fn a_forged_index_is_sound_or_none(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        thread_local! {
            static GOOD: Vec<u8> = {
                let root = folder();
                listed(root.path());
                fs::read(index_in(root.path())).unwrap()
            };
        }
        let mut bytes = GOOD.with(Clone::clone);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes[..64]).update(&bytes[96..]);
        let checksum = hasher.finalize();
        bytes[64..96].copy_from_slice(checksum.as_bytes());
        if let Some(paths) = index_paths(&bytes) {
            prop_assert!(paths.is_sorted_by(|a, b| a < b));
            let leads_out = |path: &String| {
                path.is_empty() || path.split('/').any(|part| ["", ".", ".."].contains(&part))
            };
            prop_assert!(!paths.iter().any(leads_out));
        }
    }
}

#[test]
fn the_folder_of_indexes_is_made_and_may_be_shared() {
    let [one, other] = [folder(), folder()];
    let cache = one.path().join("some/cache");
    let in_place = in_place(Container::Tar, "");
    for root in [&one, &other, &one] {
        let archives = Archives::open(root.path(), &in_place, &cache, &|_, _| true);
        assert_eq!(archives.unwrap().unwrap().len(), 8);
    }
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 2);
    let file = one.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Archives::open(one.path(), &in_place, &file, &|_, _| true).unwrap_err();
    assert!(matches!(error, ArchiveError::Write { .. }), "{error}");
    open(one.path(), Container::Tar).unwrap();
}
