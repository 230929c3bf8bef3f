//! A run is the same one, whichever layout its data is read from.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;
#[path = "../../tasks/tests/layouts/pack.rs"]
#[allow(dead_code)]
mod pack;

use std::fs;

use common::{World, golden};

/// Runs a task on data under one name of results after the other: JSON of the first, and what the last said.
fn run(world: &World, task: &str, data: &str, outs: [&str; 2]) -> (String, String) {
    let data = format!("{}={data}", task.split('/').next().unwrap());
    let run = |out: &str| {
        let mut args = vec!["run", task, "--backbone", "mini", "--dtype", "f32", "--data", &data];
        args.extend(["--out", out, "--json"]);
        args.extend(match task {
            "imagenet1k/knn" => ["--k", "1,5"],
            _ => ["--epochs", "0"],
        });
        let ran = world.run(&args);
        assert_eq!(ran.status, Some(0), "{data}: {}", ran.stderr);
        ran
    };
    let first = run(outs[0]);
    (first.stdout, run(outs[1]).stderr)
}

#[test]
fn a_run_does_not_depend_on_the_layout() {
    let world = World::with_mini();
    let imagenet = golden().join("imagenet");
    let shards = world.path("shards");
    pack::webdataset(&shards, &pack::images(&imagenet), 3);
    let ade20k = golden().join("ade20k");
    let zip = world.path("zip");
    fs::create_dir(&zip).unwrap();
    let archive = zip.join("ADEChallengeData2016.zip");
    pack::zip(&archive, "ADEChallengeData2016/", pack::files(&ade20k).iter());
    for (task, folder, archives, kind) in
        [("imagenet1k/knn", imagenet, shards, "webdataset"), ("ade20k/linear", ade20k, zip, "zip")]
    {
        let folder = folder.to_str().unwrap();
        let (expected, _) = run(&world, task, folder, ["folder", "folder"]);
        // The second run finds the folder's results: its key is the same.
        let (found, said) = run(&world, task, archives.to_str().unwrap(), [kind, "folder"]);
        assert_eq!(found, expected, "{task}");
        assert!(said.contains("already done, nothing to do"), "{said}");
        let plan = &world.plans(&format!("{kind}/{task}"))[0];
        assert_eq!(plan["data"]["container"], kind);
    }
}
