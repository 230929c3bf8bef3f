use std::collections::BTreeMap;

use super::*;
use crate::fixtures::{outcome, plan, prediction_rows};
use crate::store::delete_run;
use schema::SampleRows;

const LIMIT: u64 = 1 << 30;

/// A store of two finished runs, one with pictures and what a killed process left.
fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("runs")).unwrap();
    for name in ["pixio-b", "pixio-l"] {
        let run = store.begin(&plan(name)).unwrap();
        run.finish(&outcome(40.0), &SampleRows::Knn(prediction_rows(3))).unwrap();
        fs::create_dir(run.folder().join("pictures")).unwrap();
        fs::write(run.folder().join("pictures/a.png"), name).unwrap();
        fs::write(run.folder().join(".lock"), "").unwrap();
    }
    (root, store)
}

/// Every file under a folder by its path.
fn files_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut paths = Vec::new();
    walk(folder, "", &mut paths).unwrap();
    paths.into_iter().map(|path| (path.clone(), fs::read(folder.join(path)).unwrap())).collect()
}

fn exported(store: &Store, to: &Path) {
    let listed = store.list().unwrap();
    export_runs(&listed.iter().collect::<Vec<_>>(), to).unwrap();
}

fn import(from: &Path, to: &Path) -> Result<Imported, ArchiveError> {
    import_runs(from, &Store::open(to).unwrap(), LIMIT)
}

#[test]
fn runs_come_back_byte_for_byte_and_a_second_time_nothing_happens() {
    let (root, store) = store();
    for name in ["runs.tar", "runs.tar.gz"] {
        let archive = root.path().join(name);
        exported(&store, &archive);
        let there = root.path().join(format!("{name}-out"));
        let imported = import(&archive, &there).unwrap();
        assert_eq!((imported.added.len(), imported.kept.len()), (2, 0));
        assert_eq!(files_of(&there), files_of(store.out()));
        assert_eq!(Store::open(&there).unwrap().list().unwrap().len(), 2);
        let again = import(&archive, &there).unwrap();
        assert_eq!((again.added.len(), again.kept.len()), (0, 2));
        let inside = fs::read_dir(&there).unwrap().count();
        assert_eq!(inside, 1, "something is left of the import");
    }
    let compressed = fs::read(root.path().join("runs.tar.gz")).unwrap();
    assert!(compressed.starts_with(&[0x1f, 0x8b]));
}

#[test]
fn another_run_in_its_place_is_not_overwritten_and_nothing_is_imported() {
    let (root, store) = store();
    let archive = root.path().join("runs.tar");
    exported(&store, &archive);
    let there = Store::open(&root.path().join("other")).unwrap();
    let run = there.begin(&plan("pixio-l")).unwrap();
    run.finish(&outcome(41.0), &SampleRows::Knn(prediction_rows(3))).unwrap();
    let before = files_of(there.out());
    let error = import(&archive, there.out()).unwrap_err();
    assert!(matches!(error, ArchiveError::Occupied { .. }), "{error}");
    assert_eq!(files_of(there.out()), before);
    // One that is not finished is not in an archive, nor under one.
    let begun = there.begin(&plan("pixio-h")).unwrap();
    let listed = there.list().unwrap();
    let unfinished = listed.iter().find(|run| run.folder == begun.folder()).unwrap();
    let error = export_runs(&[unfinished], &archive).unwrap_err();
    assert!(matches!(error, ArchiveError::NotFinished { .. }), "{error}");
}

/// An archive with one file of a run changed, as a tar of `entries`.
fn forged(to: &Path, manifest: &str, entries: &[(&str, tar::EntryType, &[u8])]) {
    let mut tar = tar::Builder::new(File::create(to).unwrap());
    let mut add = |path: &str, kind, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(kind);
        // `set_path` refuses what is tested here.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        if kind == tar::EntryType::Symlink {
            header.set_link_name("/etc").unwrap();
        }
        header.set_cksum();
        tar.append(&header, content).unwrap();
    };
    add(MANIFEST, tar::EntryType::Regular, manifest.as_bytes());
    entries.iter().for_each(|(path, kind, content)| add(path, *kind, content));
    tar.into_inner().unwrap();
}

fn listing(folder: &str, files: &[(&str, &[u8])]) -> String {
    let file = |(path, content): &(&str, &[u8])| ArchivedFile {
        path: (*path).to_owned(),
        bytes: content.len() as u64,
        blake3: blake3::hash(content).to_hex().to_string(),
    };
    let run = ArchivedRun { folder: folder.to_owned(), files: files.iter().map(file).collect() };
    serde_json::to_string(&Manifest { format: FORMAT, runs: vec![run] }).unwrap()
}

#[test]
fn an_archive_made_to_do_harm_leaves_nothing() {
    use tar::EntryType::{Regular, Symlink};
    let (root, store) = store();
    let there = root.path().join("out");
    let archive = root.path().join("bad.tar");
    let record = fs::read(store.folder(&plan("pixio-b")).unwrap().join(RECORD)).unwrap();
    let folder = format!("imagenet1k/knn/pixio-b-{}", plan("pixio-b").key().short());
    let good = listing(&folder, &[(RECORD, &record)]);
    let at = format!("{folder}/{RECORD}");
    let mut told = Vec::new();
    let mut refused = |what: &str| {
        let error = import(&archive, &there).unwrap_err().to_string();
        let error = error.replace(root.path().to_str().unwrap(), "ROOT");
        told.push(format!("{what}: {}", error.replace(plan("pixio-b").key().short(), "KEY")));
        assert!(files_of(&there).is_empty(), "{what}");
        assert_eq!(fs::read_dir(&there).unwrap().count(), 0, "{what}");
    };

    forged(&archive, &good, &[(&at, Regular, &record)]);
    assert_eq!(import(&archive, &root.path().join("fine")).unwrap().added.len(), 1);
    forged(&archive, &good, &[(&at, Symlink, b"")]);
    refused("a link");
    forged(&archive, &good, &[("../../evil", Regular, &record)]);
    refused("a path out of the folder");
    for path in ["../evil", "/etc/evil", ".lock", "a\\..\\b", "a/../b", ""] {
        forged(&archive, &listing(&folder, &[(RECORD, &record), (path, b"x")]), &[]);
        refused(path);
    }
    for folder in ["../knn/pixio-b-0123456789ab", "imagenet1k/knn", "a/b/.x-0123456789ab"] {
        forged(&archive, &listing(folder, &[(RECORD, &record)]), &[]);
        refused(folder);
    }
    let mut turned = record.clone();
    turned[10] ^= 1;
    forged(&archive, &good, &[(&at, Regular, &turned)]);
    refused("a flipped bit");
    forged(&archive, &good, &[(&at, Regular, &record[1..])]);
    refused("another size");
    forged(&archive, &good, &[]);
    refused("a missing file");
    forged(&archive, &good, &[(&at, Regular, &record), ("more", Regular, b"")]);
    refused("a file more");
    let other = "imagenet1k/knn/pixio-b-0123456789ab";
    forged(
        &archive,
        &listing(other, &[(RECORD, &record)]),
        &[(&format!("{other}/{RECORD}"), Regular, &record)],
    );
    refused("another run's record");
    forged(&archive, "{\"format\": 9}", &[]);
    refused("a newer format");
    fs::write(&archive, "no archive").unwrap();
    refused("some text");
    fs::write(&archive, [0x1f, 0x8b, 8, 0]).unwrap();
    refused("a damaged gzip");
    fs::write(&archive, "").unwrap();
    refused("nothing");
    forged(
        &archive,
        &good.replace(&format!("\"bytes\":{}", record.len()), "\"bytes\":99999999999"),
        &[],
    );
    refused("sizes beyond all measure");
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn every_cut_of_an_archive_is_refused() {
    let (root, store) = store();
    let archive = root.path().join("runs.tar");
    exported(&store, &archive);
    let bytes = fs::read(&archive).unwrap();
    let cut = root.path().join("cut.tar");
    let out = root.path().join("out");
    // The two empty blocks at the end may be missing: all files are there then.
    for at in (0..bytes.len() - 1024).step_by(997) {
        fs::write(&cut, &bytes[..at]).unwrap();
        assert!(import(&cut, &out).is_err(), "{at} of {} bytes", bytes.len());
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    }
}

#[test]
fn a_run_is_deleted_whole_unless_someone_works_on_it() {
    let (_root, store) = store();
    let [first, second] = ["pixio-b", "pixio-l"].map(|name| store.folder(&plan(name)).unwrap());
    let held = File::options().append(true).open(first.join(".lock")).unwrap();
    held.lock_shared().unwrap();
    let error = delete_run(&first).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert_eq!(store.list().unwrap().len(), 2);
    drop(held);
    delete_run(&first).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    delete_run(&second).unwrap();
    assert!(!store.out().exists() || fs::read_dir(store.out()).unwrap().count() == 0);
    assert!(delete_run(&second).is_err());
}
