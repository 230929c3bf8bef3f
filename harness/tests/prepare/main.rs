//! Data sets from the files that they are published in.

#![allow(clippy::unwrap_used, clippy::panic)]

mod attacks;
#[path = "../common/mod.rs"]
mod common;
mod downloads;
mod given;
#[path = "../hub/server.rs"]
#[allow(dead_code)]
mod hub;
mod hub_files;
mod kills;
mod make;
mod miniatures;
mod server;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::{Ran, World};
use insta::assert_snapshot;
use pixio_eval::prepare::{Outcome, PrepareError, Request, prepare};
use pixio_eval::progress::{Reporter, Verbosity};
use server::{Server, Step};
use sha2::{Digest, Sha256};
use tasks::data::{Dataset, Registry};

type Tree = BTreeMap<String, Vec<u8>>;

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    (0..size.div_ceil(32) as u64)
        .flat_map(|block| Sha256::digest([seed.to_le_bytes(), block.to_le_bytes()].concat()))
        .take(size)
        .collect()
}

/// Counter-based: the same in every run of a test.
fn random(counter: usize, below: u64) -> u64 {
    u64::from_str_radix(&sha256(&counter.to_le_bytes())[..15], 16).unwrap() % below
}

/// Every file of a folder, but for what says how it was made.
fn tree(folder: &Path) -> Tree {
    let mut found = Tree::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            if name != "prepared.json" {
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// A data set of the registry, whose checksums and sizes are not those of a miniature.
fn unchecked(name: &str) -> Dataset {
    let mut dataset = Registry::builtin().unwrap().get(name).unwrap().clone();
    for file in &mut dataset.source.files {
        (file.bytes, file.checksum) = (None, None);
    }
    dataset
}

/// A request in a world, away from the user's settings.
fn request<'a>(world: &World, dataset: &'a Dataset) -> Request<'a> {
    let mut request = Request::new(dataset, world.path("data").join(&dataset.name));
    (request.offline, request.mirror) = (true, None);
    request.cache = world.path("cache");
    request
}

fn made(request: &Request<'_>) -> Result<Outcome, PrepareError> {
    prepare(request, &Reporter::new(Verbosity::Quiet))
}

/// What is in the folder of data sets.
fn listed(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.path("data")).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const ADROIT: &str = "/eai-vc/adroit-expert-v1.0.zip";

/// What the demonstrations of Adroit unpack to.
fn pickles() -> Tree {
    Tree::from([
        ("pen-v0.pickle".to_owned(), noise(1, 300_000)),
        ("relocate-v0.pickle".to_owned(), noise(2, 200_000)),
    ])
}

fn adroit() -> Vec<u8> {
    let folder = ("adroit-expert-v1.0/".to_owned(), Vec::new());
    let files = pickles().into_iter();
    let files = files.map(|(name, bytes)| (format!("adroit-expert-v1.0/{name}"), bytes));
    let members: Vec<(String, Vec<u8>)> = [folder].into_iter().chain(files).collect();
    let members: Vec<(&str, Vec<u8>)> =
        members.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    make::zip(&members)
}

/// A command with this server in the place of publishers' ones.
fn command(world: &World, server: &Server, args: &[&str]) -> Command {
    let mut command = world.command(&[&["data", "prepare"], args].concat());
    for proxy in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    command.env("PIXIO_EVAL_SOURCES", server.address());
    command
}

/// Its port becomes PORT in what it says, and the time of day disappears.
fn run(world: &World, server: &Server, args: &[&str]) -> Ran {
    let ran = world.finish(command(world, server, args));
    let plain = |text: String| text.replace(&format!(":{}", server.port), ":PORT");
    Ran { stdout: plain(ran.stdout), stderr: plain(ran.stderr), ..ran }
}

#[test]
fn a_data_set_is_fetched_and_unpacked_once() {
    let (world, server) = (World::new(), Server::new());
    server.put(ADROIT, &adroit());
    let ran = run(&world, &server, &["adroit"]);
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (Some(0), "adroit=WORLD/data/adroit\n"),
        "{}",
        ran.stderr
    );
    assert_snapshot!(ran.stderr, @r"
    adroit-expert-v1.0.zip: fetching http://127.0.0.1:PORT/eai-vc/adroit-expert-v1.0.zip
    adroit: prepared, 2 files of 500000 bytes
    try: pixio-eval run cortexbench/adroit --backbone pixio-b
    ");
    assert_eq!(tree(&world.path("data/adroit")), pickles());
    assert_eq!(listed(&world), ["adroit"]);
    let record = std::fs::read(world.path("data/adroit/prepared.json")).unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert!(record["at"].take().as_str().unwrap().starts_with("20"));
    assert_eq!(record["from"][0]["checksum"].take(), format!("sha256:{}", sha256(&adroit())));
    assert_eq!(record["from"][0]["bytes"].take(), adroit().len());
    assert_snapshot!(record, @r#"{"archives_kept":false,"at":null,"bytes":500000,"dataset":"adroit","files":2,"from":[{"bytes":null,"checksum":null,"name":"adroit-expert-v1.0.zip","source":"https://dl.fbaipublicfiles.com/eai-vc/adroit-expert-v1.0.zip"}],"version":"0.1.0"}"#);

    let again = run(&world, &server, &["adroit"]);
    assert_eq!((again.status, again.stdout), (Some(0), ran.stdout));
    assert!(again.stderr.starts_with("adroit: prepared at 20"), "{}", again.stderr);
    assert_eq!(server.with(|state| state.seen.len()), 1);

    // A file that is gone is noticed, and nothing is done about it.
    std::fs::remove_file(world.path("data/adroit/pen-v0.pickle")).unwrap();
    let ran = run(&world, &server, &["adroit"]);
    assert_eq!(ran.status, Some(2));
    assert_snapshot!(ran.stderr, @r"
    error: WORLD/data/adroit was prepared with 2 files of 500000 bytes, and has 1 of 200000 now
    hint: move the folder elsewhere, and the same command makes it again
    ");
}

#[test]
fn archives_are_kept_where_that_is_asked_for() {
    let (world, server) = (World::new(), Server::new());
    server.put(ADROIT, &adroit());
    for _ in 0..2 {
        let ran = run(&world, &server, &["adroit", "--keep-archives", "--to", "data/x"]);
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        assert_eq!(listed(&world), ["x", "x.downloads"]);
    }
    let kept = tree(&world.path("data/x.downloads"));
    assert_eq!(kept, Tree::from([("adroit-expert-v1.0.zip".to_owned(), adroit())]));
    // Without a request, from what is kept.
    std::fs::remove_dir_all(world.path("data/x")).unwrap();
    let ran = run(&world, &server, &["adroit", "--offline", "--to", "data/x"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(tree(&world.path("data/x")), pickles());
    assert_eq!(listed(&world), ["x"]);
    assert_eq!(server.with(|state| state.seen.len()), 1);
}

#[test]
fn a_dry_run_says_all_and_does_nothing() {
    let (world, server) = (World::new(), Server::new());
    let dry = |args: &[&str]| {
        let ran = run(&world, &server, &[args, &["--dry-run"]].concat());
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        ran.stdout
    };
    assert_snapshot!(dry(&["ade20k"]), @r"
    ade20k: would be made in WORLD/data/ade20k
      ADEChallengeData2016.zip: fetched from http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip
    ");
    assert_snapshot!(dry(&["loveda", "--to", "there"]), @r"
    loveda: would be made in WORLD/there
      Train.zip: fetched from https://zenodo.org/records/5706578/files/Train.zip, 4021669263 bytes
      Val.zip: fetched from https://zenodo.org/records/5706578/files/Val.zip, 2425958254 bytes
    ");
    assert_snapshot!(dry(&["imagenet1k"]), @r"
    imagenet1k: would be made from its set parquet in WORLD/data/imagenet1k
      data/train-*.parquet: fetched from the hub's data set ILSVRC/imagenet-1k (accept its terms on its page first)
      data/validation-*.parquet: fetched from the hub's data set ILSVRC/imagenet-1k (accept its terms on its page first)
    ");
    assert_snapshot!(dry(&["imagenet1k", "--set", "archives"]), @r"
    imagenet1k: would be made from its set archives in WORLD/data/imagenet1k
      ILSVRC2012_img_train.tar: to be fetched by hand from https://www.image-net.org/challenges/LSVRC/2012/2012-downloads.php
      ILSVRC2012_img_val.tar: to be fetched by hand from https://www.image-net.org/challenges/LSVRC/2012/2012-downloads.php
      ILSVRC2012_devkit_t12.tar.gz: to be fetched by hand from https://www.image-net.org/challenges/LSVRC/2012/2012-downloads.php
    ");
    assert_snapshot!(dry(&["voc2012"]), @r"
    voc2012: would be made from its set sbd in WORLD/data/voc2012
      VOCtrainval_11-May-2012.tar: fetched from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar, 1999639040 bytes
      benchmark.tgz: fetched from https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz, 1419539633 bytes
    ");
    assert_snapshot!(dry(&["nyuv2"]), @r"
    nyuv2: would be made in WORLD/data/nyuv2
      sync.zip: to be fetched by hand from https://github.com/cleinc/bts
      official_splits.zip: to be fetched by hand from https://github.com/cleinc/bts
    ");
    assert!(server.with(|state| state.seen.is_empty()));
    assert!(!world.path("data").exists() && !world.path("there").exists());
}

#[test]
fn two_commands_for_one_folder_do_not_meet() {
    let (world, server) = (World::new(), Server::new());
    server.put(ADROIT, &adroit());
    server.with(|state| state.pace = Some(200_000));
    let mut first = command(&world, &server, &["adroit"]).spawn().unwrap();
    while server.with(|state| state.sent == 0) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let ran = run(&world, &server, &["adroit"]);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    let stderr = ran.stderr.replace(&first.id().to_string(), "PID");
    assert_snapshot!(stderr, @r"
    error: process PID (pixio-eval) is preparing this data set in WORLD/data/adroit.preparing
    hint: wait for it, or end it: the same command then continues
    ");
    assert!(first.wait().unwrap().success());
    assert_eq!(tree(&world.path("data/adroit")), pickles());
    assert_eq!(listed(&world), ["adroit"]);
}
