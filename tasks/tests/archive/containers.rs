//! Every kind of archive has the same files.

use std::fs;
use std::path::Path;

use pixio_eval_tasks::archive::{ArchiveError, Archives};
use pixio_eval_tasks::data::{Container, InPlace};
use tempfile::tempdir;

use super::make::{
    Files, ZipMember, assert_same, contents, images, in_place, noise, open, shards, tar_of, write,
    zip, zip_of,
};
use super::make_parquet::{self, forms};
use super::parquet::rows;

/// Name, kind and archives of every layout, all with the same files.
fn layouts() -> Vec<(String, Container, Files)> {
    let files = images();
    let named = |name: &str, bytes| (name.to_owned(), bytes);
    let one = |name, bytes| vec![named(name, bytes)];
    let zips = vec![named("Train.zip", zip_of(&files[..6])), named("Val.zip", zip_of(&files[6..]))];
    let tars = vec![named("a.tar", tar_of(&files[4..])), named("b.tar", tar_of(&files[..4]))];
    let mut layouts = vec![
        ("zip".to_owned(), Container::Zip, one("all.zip", zip_of(&files))),
        ("zips".to_owned(), Container::Zip, zips),
        ("tar".to_owned(), Container::Tar, one("all.tar", tar_of(&files))),
        ("tars".to_owned(), Container::Tar, tars),
        ("shards".to_owned(), Container::Webdataset, shards(&files, 4)),
    ];
    for form in forms() {
        let mut archives = Vec::new();
        for (split, name) in [("train", "train"), ("val", "validation")] {
            for (i, rows) in rows(&files, split).chunks(9).enumerate() {
                let name = format!("data/{name}-{i:05}-of-00002.parquet");
                archives.push((name, make_parquet::file(rows, form)));
            }
        }
        layouts.push((format!("{form:?}"), Container::Parquet, archives));
    }
    layouts
}

#[test]
fn every_kind_of_archive_has_the_same_files() {
    let files = images();
    for (name, container, archives) in layouts() {
        let root = tempdir().unwrap();
        for (archive, bytes) in archives {
            write(root.path(), &archive, &bytes);
        }
        let archives = open(root.path(), container).unwrap();
        assert_eq!(archives.container(), container);
        assert_same(&contents(&archives), &files, &name);
        for (i, (path, content)) in files.iter().enumerate() {
            assert_eq!(archives.size(i), content.len() as u64, "{name}: {path}");
            assert_eq!(archives.find(path), Some(i), "{name}: {path}");
            for head in [0, 1, 100, 66_000, 1 << 20] {
                let expected = &content[..head.min(content.len())];
                assert!(archives.head(i, head).unwrap() == expected, "{name}: {path}: {head}");
            }
            archives.prefetch(i);
            assert!(archives.place(i).ends_with(path), "{name}: {path}");
            assert!(archives.place(i).starts_with(fs::canonicalize(root.path()).unwrap()));
        }
        // From the index, without listing.
        let cache = root.path().join("cache");
        let again =
            Archives::open(root.path(), &in_place(container, ""), &cache, &|_, _| panic!("listed"));
        assert_same(&contents(&again.unwrap().unwrap()), &files, &name);
    }
}

#[test]
fn members_are_found_by_path_and_by_folder() {
    let root = tempdir().unwrap();
    let paths = ["a", "a-b/x", "a/b/x", "a/b/y", "a/c", "a0", "b/x", "é/ü"];
    let files: Vec<_> = paths.map(|path| (path.to_owned(), path.as_bytes().to_vec())).into();
    write(root.path(), "all.tar", &tar_of(&files));
    let archives = open(root.path(), Container::Tar).unwrap();
    let below = |folder| archives.below(folder).map(|i| archives.path(i)).collect::<Vec<_>>();
    assert_eq!(below(""), paths);
    assert_eq!(below("a"), ["a/b/x", "a/b/y", "a/c"]);
    assert_eq!(below("a/b"), ["a/b/x", "a/b/y"]);
    assert_eq!(below("é"), ["é/ü"]);
    for none in ["a/b/x", "c", "0", "zzz", "a/"] {
        assert!(archives.below(none).is_empty(), "{none}");
    }
    for none in ["", "A", "a/b", "a/b/z", "é"] {
        assert_eq!(archives.find(none), None, "{none}");
    }
    assert!(matches!(archives.read(8), Err(ArchiveError::Archive { .. })));
    assert_eq!((archives.path(8), archives.size(8)), ("", 0));
}

#[test]
fn a_leading_folder_is_left_out_and_litter_is_passed_over() {
    let root = tempdir().unwrap();
    let member = |name: &str| ZipMember::new(name, name.as_bytes());
    let link = ZipMember { mode: 0o120_777, ..member("Set/link") };
    let mut names = vec![link];
    for name in ["Set/", "Set/a/", "Set/a/x", "./Set/y", "__MACOSX/Set/a/._x", "Set/.DS_Store"] {
        names.push(member(name));
    }
    names.push(member("Settings"));
    write(root.path(), "set.zip", &zip(&names));
    write(root.path(), "._set.zip", b"what macOS leaves");
    let open = |root: &Path, strip| {
        let in_place = in_place(Container::Zip, strip);
        let cache = root.join("../cache");
        Archives::open(root, &in_place, &cache, &|_, _| true).unwrap().unwrap()
    };
    let archives = open(root.path(), "Set");
    let paths: Vec<_> = (0..archives.len()).map(|i| archives.path(i)).collect();
    assert_eq!(paths, ["Settings", "a/x", "y"]);
    assert_eq!(archives.read(1).unwrap(), b"Set/a/x");
    assert_eq!(open(root.path(), "").path(0), "Set/a/x");
    // One archive, given itself.
    let in_place = in_place(Container::Zip, "Set");
    let cache = root.path().join("cache");
    let one = Archives::open(&root.path().join("set.zip"), &in_place, &cache, &|_, _| true);
    assert_eq!(one.unwrap().unwrap().len(), 3);
}

#[test]
fn the_first_kind_that_there_is_is_read() {
    let root = tempdir().unwrap();
    let files = images();
    let containers = vec![Container::Webdataset, Container::Parquet, Container::Zip];
    let in_place = InPlace { containers, strip: String::new() };
    let open = || Archives::open(root.path(), &in_place, &root.path().join("c"), &|_, _| true);
    assert!(open().unwrap().is_none());
    write(root.path(), "notes.txt", b"");
    write(root.path(), "other.tar", &tar_of(&[]));
    fs::create_dir(root.path().join("folder.zip")).unwrap();
    assert!(open().unwrap().is_none());
    write(root.path(), "all.zip", &zip_of(&files));
    assert_eq!(open().unwrap().unwrap().container(), Container::Zip);
    for (name, bytes) in shards(&files, 100) {
        write(root.path(), &name, &bytes);
    }
    assert_eq!(open().unwrap().unwrap().container(), Container::Webdataset);
    let nowhere = root.path().join("nowhere");
    let missing = Archives::open(&nowhere, &in_place, root.path(), &|_, _| true);
    assert!(missing.unwrap_err().to_string().contains("nowhere"));
}

#[test]
fn long_names_and_large_headers_are_read() {
    let folder = "folder/".repeat(40);
    let files = vec![(format!("{folder}long"), noise(1, 3000)), ("short".to_owned(), vec![7; 10])];
    let root = tempdir().unwrap();
    write(root.path(), "gnu.tar", &tar_of(&files));
    assert_same(&contents(&open(root.path(), Container::Tar).unwrap()), &files, "GNU");

    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in &files {
        let size = content.len().to_string();
        let extensions = [("path", name.as_bytes()), ("size", size.as_bytes())];
        builder.append_pax_extensions(extensions).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("truncated").unwrap();
        // The extended header has the size that counts.
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
        let padded = content.len().next_multiple_of(512);
        let inner = builder.get_mut();
        inner.extend(content);
        inner.resize(inner.len() + padded - content.len(), 0);
    }
    write(root.path(), "gnu.tar", &builder.into_inner().unwrap());
    assert_same(&contents(&open(root.path(), Container::Tar).unwrap()), &files, "PAX");

    let wide = |(i, (name, content)): (usize, &(String, Vec<u8>))| ZipMember {
        zip64: true,
        deflated: i == 0,
        extra: 60_000,
        ..ZipMember::new(name, content)
    };
    let members: Vec<_> = files.iter().enumerate().map(wide).collect();
    write(root.path(), "wide.zip", &zip(&members));
    assert_same(&contents(&open(root.path(), Container::Zip).unwrap()), &files, "ZIP64");
}

#[test]
fn links_and_devices_are_passed_over() {
    let mut builder = tar::Builder::new(Vec::new());
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Directory,
        tar::EntryType::Char,
        tar::EntryType::Fifo,
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        let name = format!("special-{}", "x".repeat(120 + kind.as_byte() as usize));
        match kind {
            tar::EntryType::Symlink | tar::EntryType::Link => {
                builder.append_link(&mut header, name, "/etc/passwd").unwrap();
            }
            _ => builder.append_data(&mut header, name, &b""[..]).unwrap(),
        }
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    builder.append_data(&mut header, "file", &b"abc"[..]).unwrap();
    let root = tempdir().unwrap();
    write(root.path(), "all.tar", &builder.into_inner().unwrap());
    let archives = open(root.path(), Container::Tar).unwrap();
    assert_eq!(contents(&archives), [("file".to_owned(), b"abc".to_vec())]);
}

#[test]
fn many_threads_read_many_archives() {
    let root = tempdir().unwrap();
    let file = |i: usize| (format!("{i:03}"), noise(i as u64, 100 + i * 37 % 5000));
    // More archives than stay open.
    for i in 0..200 {
        write(root.path(), &format!("{i}.tar"), &tar_of(&[file(i)]));
    }
    let archives = open(root.path(), Container::Tar).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let archives = &archives;
            scope.spawn(move || {
                for i in (0..600).map(|i| (i * 71 + thread * 13) % 200) {
                    assert!(archives.read(i).unwrap() == file(i).1);
                }
            });
        }
    });
}
