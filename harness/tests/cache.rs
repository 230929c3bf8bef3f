//! The feature bank as a user meets it: killed, shared, damaged, without room.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use common::World;

/// k-NN on a part of the sample, a shard an image.
const RUN: [&str; 10] = [
    "run",
    "imagenet1k/knn",
    "--sample",
    "--backbone",
    "random:pixio-nano",
    "--limit",
    "16",
    "--batch-size",
    "1",
    "--json",
];

/// A world whose sample data is made already.
fn world() -> World {
    let world = World::new();
    world.run(&["data", "sample", "imagenet1k", "--to", "cache/samples-v1"]);
    world
}

/// Every file under a folder but cards, by its path in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn collect(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(root, &path, found);
            } else if !path.ends_with("card.json") {
                let name = path.strip_prefix(root).unwrap().to_path_buf();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(folder, folder, &mut found);
    found
}

/// What the run came to: its bank and its rows.
fn outcome(world: &World) -> (BTreeMap<PathBuf, Vec<u8>>, Vec<u8>) {
    let runs = files(&world.path("runs"));
    let rows = runs.iter().find(|(path, _)| path.ends_with("predictions.parquet")).unwrap();
    let hidden = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('.');
    let mut bank = files(&world.path("cache/features-v2"));
    bank.retain(|path, _| !hidden(path));
    (bank, rows.1.clone())
}

/// A hundred kills, spread over an extraction that is continued each time, and whatever state a kill
/// between write, sync and rename leaves: the bank and the result are those of an undisturbed run.
#[cfg(unix)]
#[test]
fn a_hundred_kills_change_nothing() {
    let whole = world();
    let began = Instant::now();
    let ran = whole.run(&RUN);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let length = began.elapsed();

    let world = world();
    let mut kills = 0;
    // A kill costs a shard at most, so that the run ends long before a hundred of them; from then on it
    // is begun again from a part of its bank.
    for turn in 0..400u32 {
        if kills == 100 {
            break;
        }
        let mut command = world.command(&RUN);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(length.mul_f64(f64::from(1 + turn * 37 % 101) / 125.0));
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            kills += 1;
        }
        child.wait().unwrap();
        let bank = files(&world.path("cache/features-v2"));
        if !world.path("runs").exists() || bank.len() < 20 {
            continue;
        }
        fs::remove_dir_all(world.path("runs")).unwrap();
        for (at, path) in bank.keys().enumerate() {
            let path = world.path("cache/features-v2").join(path);
            match at % 4 {
                0 => fs::remove_file(path).unwrap(),
                // As if killed before the rename, with all or half of it written.
                1 => {
                    fs::rename(&path, path.with_file_name(format!(".writing-{turn}{at}"))).unwrap();
                }
                2 => {
                    let bytes = fs::read(&path).unwrap();
                    let torn = path.with_file_name(format!(".writing-{turn}{at}"));
                    fs::write(torn, &bytes[..bytes.len() / 2]).unwrap();
                    fs::remove_file(path).unwrap();
                }
                _ => {}
            }
        }
    }
    assert_eq!(kills, 100);
    let ran = world.run(&RUN);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(outcome(&world) == outcome(&whole));
}

/// Two processes extract one bank: each image is encoded once, by one of them.
#[test]
fn processes_share_an_extraction() {
    let world = world();
    let spawn = |out: &str| {
        let mut command = world.command(&[&RUN[..], &["--out", out]].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running = [spawn("runs"), spawn("other")];
    let encoded = running.map(|child| {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", world.plain(&output.stderr));
    });
    assert_eq!(encoded.len(), 2);
    let images = |out: &str| -> u64 {
        let record =
            files(&world.path(out)).into_iter().find(|(path, _)| path.ends_with("record.json"));
        let record: serde_json::Value = serde_json::from_slice(&record.unwrap().1).unwrap();
        record["outcome"]["images_encoded"].as_u64().unwrap()
    };
    let (one, other) = (images("runs"), images("other"));
    assert_eq!(one + other, 16 + 16, "{one} and {other}");
    assert!(one > 0 && other > 0, "{one} and {other}");
    let hidden = files(&world.path("cache/features-v2"));
    assert!(
        !hidden.keys().any(|path| path.to_string_lossy().contains("/.")),
        "{:?}",
        hidden.keys()
    );
}

#[test]
fn the_cache_is_listed_verified_and_pruned() {
    let world = world();
    let ran = world.run(&RUN);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let seen = |args: &[&str]| {
        let ran = world.run(args);
        let text = format!("exit {}\n{}{}", ran.status.unwrap(), ran.stdout, ran.stderr);
        // Names are hashes, and hashes change with every format.
        let hash = |word: &str| word.len() == 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
        let words: Vec<&str> = text.split('/').collect();
        let hidden: Vec<String> = words
            .iter()
            .map(|word| match word.split_at_checked(12) {
                Some((key, rest)) if hash(key) => format!("KEY{rest}"),
                _ => (*word).to_owned(),
            })
            .collect();
        hidden.join("/")
    };
    insta::assert_snapshot!("cache_list", seen(&["cache", "list"]));
    assert_eq!(world.run(&["cache", "verify"]).status, Some(0));
    let bank = world.path("cache/features-v2");
    let shard = bank.join(files(&bank).into_keys().next().unwrap());
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shard, bytes).unwrap();
    insta::assert_snapshot!("cache_verify", seen(&["cache", "verify"]));
    insta::assert_snapshot!("cache_remove", seen(&["cache", "verify", "--remove"]));
    assert!(!shard.exists());
    insta::assert_snapshot!("cache_prune", seen(&["cache", "prune", "--unused-days", "0"]));
    assert!(files(&bank).is_empty());
}

/// On a file system that is full: a clear error, nothing damaged, and the same command continues when
/// there is room. The small file system is of a mount namespace that ends with the test; where the
/// machine allows none, the test says so.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_nothing() {
    const SCRIPT: &str = r#"
        mount -t tmpfs -o size=64k tmpfs cache/features-v2 || exit 77
        "$@" 2>full.err >/dev/null; echo $? >full.status
        "$1" cache verify >verified; echo $? >verified.status
        find cache/features-v2 -type f >kept
        mount -o remount,size=8m cache/features-v2
        "$@" 2>room.err >/dev/null; echo $? >room.status
        mkdir bank && cp -R cache/features-v2/. bank
    "#;
    let world = world();
    fs::create_dir_all(world.path("cache/features-v2")).unwrap();
    let run = world.command(&RUN);
    let mut shell = Command::new("unshare");
    shell.args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"]);
    shell.arg(run.get_program()).args(run.get_args());
    shell.current_dir(run.get_current_dir().unwrap());
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let ran = shell.output();
    if !ran.as_ref().is_ok_and(|ran| ran.status.success()) {
        println!("skipped: this user may not mount a small file system: {ran:?}");
        return;
    }
    let text = |name: &str| fs::read_to_string(world.path(name)).unwrap();
    let full = text("full.err");
    assert_eq!(text("full.status").trim(), "1", "{full}");
    assert!(full.contains("No space left on device"), "{full}");
    assert_eq!(text("verified.status").trim(), "0", "{}", text("verified"));
    let kept = text("kept");
    assert!(kept.contains(".safetensors") && !kept.contains(".writing-"), "{kept}");
    let room = text("room.err");
    assert_eq!(text("room.status").trim(), "0", "{room}");
    assert!(room.contains("features are kept"), "{room}");

    let whole = self::world();
    assert_eq!(whole.run(&RUN).status, Some(0));
    let (bank, rows) = outcome(&whole);
    assert!(outcome(&world).1 == rows);
    let mut found = files(&world.path("bank"));
    found.retain(|path, _| bank.contains_key(path));
    assert!(found.keys().eq(bank.keys()), "{:?} {:?}", found.keys(), bank.keys());
    assert!(found == bank);
}
