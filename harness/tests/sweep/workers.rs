//! Workers that nobody looks after: started by hand, by a scheduler, told to end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pixio_eval::sweep::claims::{Event, Observer, Released, Watched, What, read_log};

use super::*;

const SWEEP: &str = r#"
name = "knn"
[grid]
backbone = ["mini"]
task = ["imagenet1k"]
block = [2, 4]
k = [[5], [10]]
"#;

fn sweep<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    // A build for GPUs plans for them where a scheduler is to run the workers.
    let args =
        ["sweep", "sweep.toml", "--sample", "--pictures", "0", "--device", "cpu", "--out", out];
    [&args, more].concat()
}

#[test]
fn workers_share_an_extraction_and_then_search() {
    let world = world(SWEEP);
    good(&world.run(&sweep("alone", &[])));
    fs::remove_dir_all(world.path("cache")).unwrap();
    // The scripts are written and the plan is made; nothing runs.
    let printed = world.run(&sweep("shared", &["--launcher", "print"]));
    good(&printed);
    let folder = world.folder.path().to_str().unwrap();
    let scripts = printed.stdout.lines().map(|script| script.replace("WORLD", folder));
    assert_eq!(scripts.filter(|script| fs::metadata(script).is_ok()).count(), 2);
    assert!(!world.path("shared/imagenet1k").exists());
    // As a large data set on several devices would be planned.
    let state = world.path("shared/.sweeps/knn");
    let plan = state.join("plan.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&plan).unwrap()).unwrap();
    let probes = json["units"].as_array().unwrap().clone();
    let cells = &probes[0]["cells"];
    assert_eq!(cells.as_array().unwrap().len(), 4);
    let part =
        |id: &str| serde_json::json!({ "id": id, "cells": cells, "extract": true, "seconds": 1.0 });
    let all: Vec<serde_json::Value> =
        [part("part1"), part("part2")].into_iter().chain(probes.iter().cloned()).collect();
    json["units"] = all.into();
    fs::write(&plan, serde_json::to_vec(&json).unwrap()).unwrap();

    let work = || {
        let mut command = world.command(&["work", state.to_str().unwrap()]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let workers: Vec<_> = (0..3).map(|_| work()).collect();
    for mut worker in workers {
        assert!(worker.wait().unwrap().success());
    }
    assert!(world.results("shared") == world.results("alone"));
    // What the three encoded is what one did, and the search needed nothing more.
    let images = |out| units(&world, out).iter().map(|unit| unit.1).sum::<u64>();
    assert_eq!(images("shared"), images("alone"));
    let table = world.run(&["work", state.to_str().unwrap(), "--table"]);
    good(&table);
    assert_eq!(table.stdout, world.run(&sweep("alone", &[])).stdout);
}

#[test]
fn workers_that_start_together_do_not_take_a_unit_apart() {
    let knn = "imagenet1k\"]\nblock = [2, 4]\nk = [[5], [10]]";
    let dense =
        "nyuv2/linear\"]\nblock = [2, 4]\nlearning-rate = [1e-3, 2e-3, 3e-3, 4e-3]\nepochs = [40]";
    let world = world(&SWEEP.replace(knn, dense));
    good(&world.run(&sweep("shared", &["--launcher", "print"])));
    let state = world.path("shared/.sweeps/knn");
    let work = || {
        let mut command = world.command(&["work", state.to_str().unwrap()]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let workers: Vec<_> = (0..3).map(|_| work()).collect();
    for mut worker in workers {
        assert!(worker.wait().unwrap().success());
    }
    assert_eq!(units(&world, "shared").len(), 1);
    // What is planned later under the same name is not what an older launch's workers do.
    let plans = fs::read_dir(state.join("plans")).unwrap().count();
    assert_eq!(plans, 1);
    let launch = fs::read_dir(state.join("plans")).unwrap().next().unwrap().unwrap().path();
    fs::write(state.join("plan.json"), "{}").unwrap();
    let id = launch.file_stem().unwrap().to_str().unwrap();
    good(&world.run(&["work", state.to_str().unwrap(), "--launch", id]));
    assert_eq!(world.run(&["work", state.to_str().unwrap()]).status, Some(2));
}

#[test]
fn data_that_is_not_there_is_the_workers_trouble_and_no_cells() {
    let world = world(&SWEEP.replace("imagenet1k", "nyuv2/linear").replace("k = [[5], [10]]", ""));
    good(&world.run(&["data", "sample", "nyuv2", "--to", "data"]));
    let args = ["sweep", "sweep.toml", "--epochs", "0", "--limit", "2", "--pictures", "0"];
    good(
        &world.run(
            &[&args[..], &["--launcher", "print", "--device", "cpu", "--out", "out"]].concat(),
        ),
    );
    fs::rename(world.path("data"), world.path("elsewhere")).unwrap();
    let state = world.path("out/.sweeps/knn");
    let ran = world.run(&["work", state.to_str().unwrap()]);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("nyuv2"), "{}", ran.stderr);
    let watched = world.run(&["runs", "watch", "--once", "--out", "out"]);
    assert_eq!(watched.stdout, "knn: 0 of 2 cells done, 0 failed, 0 workers\n");
    fs::rename(world.path("elsewhere"), world.path("data")).unwrap();
    good(&world.run(&["work", state.to_str().unwrap()]));
    let watched = world.run(&["runs", "watch", "--once", "--out", "out"]);
    assert!(watched.stdout.starts_with("knn: 2 of 2 cells done"), "{}", watched.stdout);
}

#[test]
fn a_worker_that_is_told_that_its_time_is_over_keeps_what_is_done() {
    let world = world(
        &SWEEP.replace("imagenet1k", "nyuv2/linear").replace("k = [[5], [10]]", "epochs = 150"),
    );
    good(&world.run(&sweep("told", &["--launcher", "print"])));
    let state = world.path("told/.sweeps/knn");
    let mut command = world.command(&["work", state.to_str().unwrap()]);
    let mut worker = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    let claimed = || {
        let files = fs::read_dir(state.join("claims")).into_iter().flatten().flatten();
        files.filter(|file| file.file_name().to_string_lossy().contains(".g")).count()
    };
    while claimed() < 2 {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(500));
    let kill = Command::new("kill").args(["-USR1", &worker.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(worker.wait().unwrap().code(), Some(130));
    let watched = world.run(&["runs", "watch", "--out", "told"]);
    assert_eq!(watched.stdout, "knn: 0 of 2 cells done, 0 failed, 0 workers\n");
    let checkpoints = world.results("told").into_keys();
    assert!(checkpoints.filter(|path| path.to_string_lossy().contains("checkpoint-")).count() >= 2);
    // A sweep that is cancelled starts nothing,
    good(&world.run(&["runs", "cancel", "--out", "told"]));
    let ran = world.run(&["work", state.to_str().unwrap()]);
    assert_eq!(ran.status, Some(130), "{}", ran.stderr);
    // and its command continues it.
    good(&world.run(&sweep("told", &[])));
    good(&world.run(&sweep("undisturbed", &[])));
    assert!(world.results("told") == world.results("undisturbed"));
}

#[test]
fn ctrl_c_in_a_terminal_lets_workers_write_their_checkpoints() {
    let knn = "imagenet1k\"]\nblock = [2, 4]\nk = [[5], [10]";
    let long = "nyuv2/linear\"]\nstream-seed = [0, 1]\nepochs = [600";
    let world = world(&SWEEP.replace(knn, long));
    let mut command = world.command(&sweep("told", &["--devices", "cpu*2"]));
    // Four beats a second.
    command.env("PIXIO_EVAL_CLAIM_EXPIRY", "3");
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut parent = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let state = world.path("told/.sweeps/knn");
    let (began, mut steps) = (Instant::now(), 0);
    while steps < 2 {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
        let workers = Observer::new(&state, Duration::from_secs(60)).workers().unwrap_or_default();
        let trains = |worker: &&Watched| worker.file.status.note.contains("nyuv2 epoch");
        steps = workers.iter().filter(trains).count();
    }
    let group = format!("-{}", parent.id());
    let kill = Command::new("kill").args(["-INT", "--", &group]).status().unwrap();
    assert!(kill.success());
    assert_eq!(parent.wait().unwrap().code(), Some(130));
    let results = world.results("told").into_keys();
    let written = results.filter(|path| path.to_string_lossy().contains("checkpoint-"));
    assert!(written.count() >= 2);
    let given_back = |event: &Event| event.what == What::GivenBack(Released::Interrupted);
    assert_eq!(read_log(&state).unwrap().iter().filter(|event| given_back(event)).count(), 2);
}

#[test]
fn a_dry_run_says_what_is_there_and_what_is_shared() {
    let world = world(
        "[grid]\nbackbone = [\"mini\"]\ntask = [\"nyuv2\", \"imagenet1k\"]\nhead = [\"linear\", \"dpt\", \"knn\"]\nblock = [4, 6, 8]\n",
    );
    let filters =
        vec![(r"\d+(\.\d+)? (ms|s|min|h)\b", "TIME"), (r"\d+(\.\d+)? GB free", "ROOM free")];
    insta::with_settings!({filters => filters}, {
        let dry = world.run(&sweep("dry", &["--dry-run", "--devices", "cpu*2"]));
        good(&dry);
        // Widths of the tables behind depend on the times.
        let (told, plan) = dry.stdout.split_once("9 cells in").unwrap();
        insta::assert_snapshot!("dry_run", told);
        // Two streams; where the encoder was measured to cost little, one is taken in two parts.
        let alone = " passes of an encoder, 9 if every cell ran alone";
        assert!(["2", "3"].iter().any(|passes| plan.contains(&format!("{passes}{alone}"))), "{plan}");
        assert!(!world.path("dry/.sweeps").exists());
        // Without its data.
        let args = ["sweep", "sweep.toml", "--dry-run"];
        let missing = world.run(&args);
        assert_eq!(missing.status, Some(2));
        insta::assert_snapshot!("dry_run_missing", missing.stdout + &missing.stderr);
        let all = world.run(&["all", "--sample", "--tasks", "voc2012", "--dry-run"]);
        good(&all);
        insta::assert_snapshot!("dry_run_all", all.stdout.split_once(" cells in").unwrap().0);
    });
}
