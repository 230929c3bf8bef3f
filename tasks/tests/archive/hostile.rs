//! Archives that are damaged or made to do harm.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use pixio_eval_tasks::archive::memory::members;
use pixio_eval_tasks::archive::{ArchiveError, Problem};
use pixio_eval_tasks::data::Container;
use proptest::prelude::*;
use tempfile::tempdir;

use super::make::{
    Files, ZipMember, images, noise, of_split, open, shard_of, tar_of, write, zip, zip_of,
};
use super::make_parquet::{self, PLAIN, forms};
use super::parquet::rows;

/// Watches for allocations beyond any that these tests need.
struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);
const BOUND: usize = 1 << 26;

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as promised to this one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as promised to this one.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as promised to this one.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as promised to this one.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn unzip(member: ZipMember) -> Result<Files, ArchiveError> {
    members(Container::Zip, "a.zip", &zip(&[ZipMember::new("first", b"1"), member]))
}

fn problem(error: ArchiveError) -> (String, Problem) {
    match error {
        ArchiveError::Member { member, problem, .. } => (member, problem),
        other => panic!("{other}"),
    }
}

#[test]
fn a_bad_member_of_a_zip_archive_is_named() {
    let good = ZipMember { deflated: true, ..ZipMember::new("bad", &noise(1, 5000)) };
    assert_eq!(unzip(good.clone()).unwrap().len(), 2);
    let fails = |member| {
        let (name, problem) = problem(unzip(member).unwrap_err());
        assert_eq!(name, "bad");
        problem
    };
    let wrong = fails(ZipMember { crc: Some(7), ..good.clone() });
    assert!(matches!(wrong, Problem::Checksum { expected: 7, .. }), "{wrong}");
    let stored = ZipMember { deflated: false, ..good.clone() };
    let wrong = fails(ZipMember { crc: Some(7), ..stored.clone() });
    assert!(matches!(wrong, Problem::Checksum { expected: 7, .. }), "{wrong}");
    let wrong = fails(ZipMember { encrypted: true, ..good.clone() });
    assert!(matches!(wrong, Problem::Encrypted), "{wrong}");
    let wrong = fails(ZipMember { method: Some(12), ..good.clone() });
    assert!(matches!(wrong, Problem::Unsupported { .. }), "{wrong}");
    let wrong = fails(ZipMember { size: Some(5001), ..good.clone() });
    assert!(matches!(wrong, Problem::Damaged(_)), "{wrong}");
    let wrong = fails(ZipMember { size: Some(4999), ..good.clone() });
    assert!(matches!(wrong, Problem::Checksum { .. }), "{wrong}");
    let wrong = fails(ZipMember { size: Some(4999), ..stored });
    assert!(matches!(wrong, Problem::Damaged(_)), "{wrong}");
    let wrong = fails(ZipMember { size: Some(1 << 30), ..good.clone() });
    assert!(matches!(wrong, Problem::Damaged(_)), "{wrong}");
    let wrong = fails(ZipMember { size: Some((1 << 30) + 1), ..good.clone() });
    assert!(matches!(wrong, Problem::TooLarge { .. }), "{wrong}");
    // What deflate can do at most is not what it did.
    let wrong = fails(ZipMember { size: Some(5_000_000), ..good });
    assert!(matches!(wrong, Problem::Damaged(_)), "{wrong}");
    for name in ["../x", "/x", "a/../../x", "a\nb"] {
        let (_, wrong) = problem(unzip(ZipMember::new(name, b"")).unwrap_err());
        assert!(matches!(wrong, Problem::Name(_)), "{wrong}");
    }
    let error = unzip(ZipMember::new("first", b"")).unwrap_err().to_string();
    assert!(error.starts_with("first is twice in the archives, in a.zip and in a.zip"), "{error}");
}

#[test]
fn a_truncated_archive_is_told_with_the_member() {
    let files = vec![("one".to_owned(), noise(1, 3000)), ("two".to_owned(), noise(2, 3000))];
    let whole = tar_of(&files);
    // Two headers and contents, and the two blocks of zeros at the end.
    let content = |keep: usize| members(Container::Tar, "a.tar", &whole[..keep]);
    assert_eq!(content(whole.len() - 1024).unwrap(), files);
    assert_eq!(content(512 + 3072).unwrap(), files[..1]);
    for keep in [512 + 3072 + 512, 512 + 3072 + 512 + 2999] {
        let (name, wrong) = problem(content(keep).unwrap_err());
        assert!(matches!(wrong, Problem::Truncated) && name == "two", "{keep}: {wrong}");
    }
    let error = content(512 + 3072 + 100).unwrap_err().to_string();
    assert!(error.contains("a.tar: reaches beyond the end of the archive"), "{error}");
    let mut damaged = whole.clone();
    damaged[512 + 3072 + 1] ^= 1;
    let error = members(Container::Tar, "a.tar", &damaged).unwrap_err().to_string();
    assert!(error.contains("is damaged: expected a tar header at byte 3584"), "{error}");

    let whole = zip_of(&files);
    for keep in [0, 10, whole.len() / 2, whole.len() - 1] {
        let error = members(Container::Zip, "a.zip", &whole[..keep]).unwrap_err();
        assert!(matches!(error, ArchiveError::Archive { .. }), "{keep}: {error}");
    }
}

#[test]
fn sizes_and_names_in_tar_archives_are_bounded() {
    let with_size = |kind: tar::EntryType, size: u64, name: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(4096, 0);
        members(Container::Tar, "a.tar", &bytes).unwrap_err()
    };
    for size in [5000, 1 << 40, u64::MAX >> 1, u64::MAX] {
        for kind in [tar::EntryType::Regular, tar::EntryType::Symlink] {
            let error = with_size(kind, size, b"x");
            assert!(error.to_string().contains("a.tar: member x: reaches beyond"), "{error}");
        }
        let error = with_size(tar::EntryType::GNULongName, size, b"x");
        assert!(error.to_string().contains("reaches beyond"), "{error}");
    }
    let error = with_size(tar::EntryType::GNUSparse, 100, b"x").to_string();
    assert!(error.contains("stored as a sparse file; expected an ordinary file"), "{error}");
    let (_, wrong) = problem(with_size(tar::EntryType::Regular, 100, b"../x"));
    assert!(matches!(wrong, Problem::Name(_)), "{wrong}");
    let (_, wrong) = problem(with_size(tar::EntryType::Regular, 100, b"\xff"));
    assert!(matches!(wrong, Problem::Name(_)), "{wrong}");

    // A sparse file of more than a member may have, on the disk.
    let root = tempdir().unwrap();
    let mut header = tar::Header::new_gnu();
    for (kind, limit) in [(tar::EntryType::Regular, 1 << 30), (tar::EntryType::XHeader, 1 << 20)] {
        header.set_path("large").unwrap();
        header.set_entry_type(kind);
        header.set_size((1 << 30) + 1);
        header.set_cksum();
        write(root.path(), "a.tar", header.as_bytes());
        let file = std::fs::OpenOptions::new().write(true).open(root.path().join("a.tar")).unwrap();
        file.set_len((1 << 30) + 2048).unwrap();
        let error = open(root.path(), Container::Tar).unwrap_err().to_string();
        let expected = format!("has {} bytes unpacked; at most {limit} are read", (1 << 30) + 1);
        assert!(error.contains(&expected), "{error}");
    }
}

/// A small archive of each kind.
fn archives() -> Vec<(Container, &'static str, Vec<u8>)> {
    let files: Files = images().into_iter().filter(|(_, content)| content.len() < 5000).collect();
    let train = of_split(&files, "train");
    let long = [(format!("{}x", "long/".repeat(30)), vec![1; 700])];
    let wide = ZipMember { zip64: true, deflated: true, ..ZipMember::new("wide", &[5; 900]) };
    let mut archives = vec![
        (Container::Zip, "a.zip", zip_of(&files)),
        (Container::Zip, "a.zip", zip(&[wide])),
        (Container::Tar, "a.tar", tar_of(&[&long[..], &files[..2]].concat())),
        (Container::Webdataset, "train.tar", shard_of(&train[..2])),
    ];
    for form in forms() {
        let form = make_parquet::Form { rows_per_group: 6, ..form };
        let bytes = make_parquet::file(&rows(&train, "train"), form);
        archives.push((Container::Parquet, "train-0.parquet", bytes));
    }
    archives
}

fn read_all(container: Container, name: &str, bytes: &[u8]) {
    if let Ok(members) = members(container, name, bytes) {
        for (path, _) in &members {
            assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{path}");
        }
        assert!(members.is_sorted_by(|a, b| a.0 < b.0));
    }
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < BOUND, "{largest} bytes were allocated at once");
}

#[test]
fn rows_from_nothing_are_refused() {
    // A run of nulls costs a few bytes however long it is; the number of rows is checked before.
    let rows: Vec<make_parquet::Row> = (0..100_000).map(|_| (Some(vec![]), None, 0)).collect();
    let form = make_parquet::Form {
        dictionary: true,
        rows_per_group: rows.len(),
        rows_per_page: rows.len(),
        ..PLAIN
    };
    let bytes = make_parquet::file(&rows, form);
    assert!(bytes.len() < 2000, "{}", bytes.len());
    let error = members(Container::Parquet, "train-0.parquet", &bytes).unwrap_err().to_string();
    assert!(error.contains("100000 rows in"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_are_an_archive_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        kind in 0..4_usize,
    ) {
        let (container, name) = [
            (Container::Zip, "a.zip"),
            (Container::Tar, "a.tar"),
            (Container::Webdataset, "val.tar"),
            (Container::Parquet, "val-0.parquet"),
        ][kind];
        read_all(container, name, &bytes);
        // A footer of any bytes, which a random file would not have.
        if container == Container::Parquet {
            let length = (bytes.len() as u32).to_le_bytes();
            read_all(container, name, &[&bytes[..], &length, b"PAR1"].concat());
        }
    }

    #[test]
    fn a_changed_archive_is_read_or_an_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        keep in prop::option::weighted(0.1, any::<prop::sample::Index>()),
        tail in any::<bool>(),
        kind in any::<prop::sample::Index>(),
    ) {
        thread_local! {
            static ARCHIVES: Vec<(Container, &'static str, Vec<u8>)> = archives();
        }
        let (container, name, mut bytes) = ARCHIVES.with(|all| all[kind.index(all.len())].clone());
        // Directories are at the end: half of the changes are there.
        let from = if tail { bytes.len().saturating_sub(700) } else { 0 };
        for (at, value) in changes {
            let at = from + at.index(bytes.len() - from);
            bytes[at] = value;
        }
        if let Some(keep) = keep {
            bytes.truncate(keep.index(bytes.len()));
        }
        // Headers with the right checksum reach what is behind them.
        if matches!(container, Container::Tar | Container::Webdataset) {
            for block in bytes.chunks_exact_mut(512) {
                if block[257..262] == *b"ustar" {
                    let mut header = tar::Header::from_byte_slice(block).clone();
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
        }
        read_all(container, name, &bytes);
    }
}
