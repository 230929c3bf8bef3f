//! The real simulators, where `PIXIO_EVAL_SIMULATORS` names an interpreter that has them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::World;

fn interpreter() -> Option<PathBuf> {
    let path = std::env::var_os("PIXIO_EVAL_SIMULATORS").filter(|path| !path.is_empty());
    if path.is_none() {
        eprintln!("skipped: PIXIO_EVAL_SIMULATORS is not set");
    }
    path.map(PathBuf::from)
}

#[test]
fn the_workers_own_tests_pass() {
    let Some(python) = interpreter() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("simulators");
    let output = Command::new(python)
        .args(["-m", "unittest", "discover", "-s", "tests", "-t", "."])
        .current_dir(&folder)
        .env("PYTHONPATH", &folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("OK"), "{said}");
}

#[test]
fn every_task_opens_steps_and_renders() {
    let Some(python) = interpreter() else { return };
    let world = World::new();
    let mut command = world.command(&["simulators", "check"]);
    command.env("PIXIO_EVAL_SIMULATORS", python);
    let run = world.finish(command);
    assert_eq!(run.status, Some(0), "{}{}", run.stdout, run.stderr);
    assert_eq!(run.stdout.lines().filter(|line| line.starts_with("ok")).count(), 14);
}

#[test]
fn a_sample_of_metaworld_runs_from_nothing_to_the_table() {
    let Some(python) = interpreter() else { return };
    let world = World::new();
    let run = |out: &str| {
        let args =
            ["run", "cortexbench/metaworld", "--sample", "--backbone", "pixels", "--out", out];
        let mut command = world.command(&args);
        command.env("PIXIO_EVAL_SIMULATORS", &python);
        let run = world.finish(command);
        assert_eq!(run.status, Some(0), "{}", run.stderr);
        let folder = std::fs::read_dir(world.path(out).join("metaworld/policy")).unwrap();
        let folder = folder.map(|run| run.unwrap().path()).next().unwrap();
        std::fs::read(folder.join("predictions.parquet")).unwrap()
    };
    // Two runs in real simulators are the same, byte for byte.
    assert_eq!(run("one"), run("two"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_run_leaves_no_worker() {
    use std::time::{Duration, Instant};

    let Some(python) = interpreter() else { return };
    let world = World::new();
    let args = ["demos", "make", "metaworld/hammer", "--count", "2", "--data", "metaworld=demos"];
    let mut command = world.command(&args);
    let mut child = command.env("PIXIO_EVAL_SIMULATORS", python).spawn().unwrap();
    let of = format!("/proc/{0}/task/{0}/children", child.id());
    let children = || -> Vec<String> {
        let text = std::fs::read_to_string(&of).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    // The first process asks for versions and ends; then come the workers.
    let began = Instant::now();
    while !world.path("demos").is_dir() {
        assert!(began.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(50));
    }
    let workers = children();
    assert!(!workers.is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    let runs = |id: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.contains(" Z "))
    };
    while workers.iter().any(runs) {
        assert!(began.elapsed() < Duration::from_secs(10), "workers are left: {workers:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!world.path("demos/hammer/demos.json").exists());
}
