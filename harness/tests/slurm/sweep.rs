//! A sweep of twelve cells through job arrays: one task is cancelled in the middle, then all of it, and the
//! same command continues to the table of a sweep without Slurm.

use std::fs;

use super::common::World;
use super::node::Node;
use super::until;

/// Twelve streams of one cell.
const SWEEP: &str = r#"
name = "twelve"
[fixed]
backbone = "mini"
epochs = 24
[grid]
task = ["nyuv2/linear", "nyuv2/dpt"]
stream-seed = { from = 0, to = 5 }
"#;

#[test]
fn twelve_cells_go_through_arrays_and_survive_cancellations() {
    let Some(node) = Node::start() else { return };
    let world = World::with_mini();
    fs::write(world.path("sweep.toml"), SWEEP).unwrap();
    fs::write(world.path("slurm.toml"), "[slurm]\npartition = \"main\"\ncpus-per-task = 1\n")
        .unwrap();
    let sweep = |out: &'static str, more: &[&'static str]| -> Vec<&'static str> {
        let args = ["sweep", "sweep.toml", "--sample", "--pictures", "0", "--out", out];
        [&args, more].concat()
    };
    let run = |args: &[&str]| {
        let mut command = world.command(args);
        let old = std::env::var_os("PATH").unwrap_or_default();
        let paths = [node.programs().into()].into_iter().chain(std::env::split_paths(&old));
        command.env("PATH", std::env::join_paths(paths).unwrap());
        let ran = world.finish(command);
        assert_eq!(ran.status, Some(0), "{args:?}: {}", ran.stderr);
        ran
    };
    let queue = || node.ask("squeue", &["--noheader", "--array", "--format=%F %j %T %K"]);
    let done = || {
        let found = ["linear", "dpt"].map(|head| {
            let runs = fs::read_dir(world.path("cluster/nyuv2").join(head));
            let runs = runs.into_iter().flatten().flatten();
            runs.filter(|run| run.path().join("record.json").is_file()).count()
        });
        found.iter().sum::<usize>()
    };
    let slurm = ["--launcher", "slurm", "--jobs", "4"];

    run(&sweep("cluster", &slurm));
    until("some cells are done", || done() > 0);
    let running = queue();
    let probe = running.lines().find(|line| line.contains("probe") && line.contains("RUNNING"));
    let probe: Vec<&str> = probe.unwrap().split_whitespace().collect();
    node.ask("scancel", &[&format!("{}_{}", probe[0], probe[3])]);
    until("another cell is done", || done() > 2);
    let watched = run(&["runs", "watch", "--once", "--out", "cluster"]).stdout;
    assert!(watched.starts_with("twelve: ") && watched.contains(" probe: "), "{watched}");
    run(&["runs", "cancel", "--out", "cluster"]);
    until("the queue is empty", || queue().trim().is_empty());
    let before = done();
    assert!(before < 12, "all was done before it could be cancelled");

    run(&sweep("cluster", &slurm));
    run(&["runs", "watch", "--out", "cluster"]);
    until("the queue is empty", || queue().trim().is_empty());
    assert_eq!(done(), 12);
    run(&sweep("alone", &[]));
    assert!(world.results("cluster") == world.results("alone"));
    // The last job wrote the table.
    let table = fs::read_to_string(world.path("cluster/.sweeps/twelve/table.txt")).unwrap();
    assert_eq!(table, run(&sweep("alone", &[])).stdout);
    println!("{before} of 12 cells were done when the sweep was cancelled");
}
