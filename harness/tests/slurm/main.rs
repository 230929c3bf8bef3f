//! A real Slurm of one node, where it is installed: job arrays that wait for one another, tasks that are told
//! to end, requeued and cancelled.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod node;
mod sweep;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use node::Node;
use pixio_eval::sweep::launch::{
    Config, Job, JobKind, Launch, Launcher, QueueLine, Slurm, cancel, queue,
};

const CELLS: usize = 12;

fn jobs(state: &Path) -> Vec<Job> {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/slurm/program.sh");
    let job = |kind: JobKind, tasks, after| Job {
        kind,
        command: vec![program.into(), OsString::from(state), kind.name().into()],
        tasks,
        most: Some(4),
        after,
        gpu: kind == JobKind::Extract,
        minutes: Some(1),
        memory_gb: Some(1),
    };
    vec![
        job(JobKind::Extract, 1, None),
        job(JobKind::Probe, CELLS, Some(0)),
        job(JobKind::Table, 1, Some(1)),
    ]
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(180), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Cells that were there when the table of this launch was made.
fn table(state: &Path) -> usize {
    let text = fs::read_to_string(state.join("table.0")).unwrap();
    fs::remove_file(state.join("table.0")).unwrap();
    // An unmatched pattern stays as it is.
    text.lines().filter(|name| !name.contains('?')).count()
}

#[test]
fn a_sweep_of_jobs_survives_what_a_cluster_does_to_it() {
    let Some(node) = Node::start() else { return };
    let root = tempfile::tempdir().unwrap();
    // Slurm's lines and bash's both see this name.
    let state = root.path().join("it's a \"sweep\" #1");
    fs::create_dir(&state).unwrap();
    let programs = node.programs();
    let slurm = Slurm { search: programs.clone(), config: Config::default() };
    let launch = |id: &str| Launch {
        state: state.clone(),
        name: "stand-in".to_owned(),
        id: id.to_owned(),
        directory: root.path().to_path_buf(),
    };
    let lines = || queue(&state, &programs).unwrap();
    let hold = |task: usize| state.join(format!("probe.{task}.hold"));
    // Fully counted, and held there.
    let holds = |task: usize| {
        let count = fs::read_to_string(state.join(format!("probe.{task}.now")));
        count.is_ok_and(|count| count.trim() == "5")
    };
    let log = |launch: &str, id: &str, task: usize| {
        let name = format!("logs/{launch}.2-probe.{id}_{task}.log");
        fs::read_to_string(state.join(name)).unwrap()
    };

    // As Slurm does ahead of a time limit; scancel --batch would try again where a job is on its way.
    let tell = |task: usize| {
        let script = fs::read_to_string(state.join(format!("probe.{task}.script"))).unwrap();
        let sent = Command::new("kill").args(["-USR1", script.trim()]).status();
        assert!(sent.unwrap().success());
    };
    // Of the last task, Slurm's own id is that of the array.
    let last = CELLS - 1;
    for task in [0, 1, 2, 3, last] {
        fs::write(hold(task), "").unwrap();
    }
    let first = slurm.launch(&launch("one"), &jobs(&state)).unwrap();
    let probe = first.ids[1].clone();
    until("four tasks work", || (0..4).all(holds));
    let waiting = |line: &QueueLine| line.kind == JobKind::Table && line.place == "Dependency";
    assert!(lines().iter().any(waiting), "{:?}", lines());
    let running: usize = lines()
        .iter()
        .filter(|line| line.kind == JobKind::Probe && line.state == "RUNNING")
        .map(|line| line.tasks)
        .sum();
    assert_eq!(running, 4, "{:?}", lines());

    node.ask("scancel", &[&format!("{probe}_0")]);
    node.ask("scontrol", &["requeue", &format!("{probe}_1")]);
    tell(2);
    for task in 1..4 {
        fs::remove_file(hold(task)).unwrap();
    }
    until("the last task works", || holds(last));
    fs::remove_file(hold(0)).unwrap();
    tell(last);
    until("the last task has been told", || log("one", &probe, last).contains("told"));
    fs::remove_file(hold(last)).unwrap();
    until("the first launch ends", || lines().is_empty());

    assert_eq!(table(&state), CELLS - 1, "all but the cancelled one, and the table after them");
    // Slurm and bash have their say too.
    let ours = ["begins", "told", "nothing"];
    for task in [1, 2, last] {
        let log = log("one", &probe, task);
        let words: Vec<&str> =
            log.lines().filter(|line| ours.iter().any(|word| line.starts_with(word))).collect();
        assert_eq!(words, ["begins at 0", "told at 5", "begins at 5"], "task {task}");
    }
    for task in [3, 4, last - 1] {
        assert_eq!(log("one", &probe, task), "begins at 0\n", "nobody else was told");
    }
    let stopped = log("one", &probe, 0);
    assert!(stopped.contains("told at") && stopped.matches("begins").count() == 1, "{stopped}");

    // What the cancelled task had done is not done again.
    let second = slurm.launch(&launch("two"), &jobs(&state)).unwrap();
    until("the second launch ends", || lines().is_empty());
    assert_eq!(table(&state), CELLS);
    let ended = log("two", &second.ids[1], 0);
    assert_eq!(ended, "begins at 5\n");
    assert_eq!(log("two", &second.ids[1], 5), "nothing left to do\n");

    // Cancelled as a whole: nothing comes back.
    for task in 0..CELLS {
        fs::remove_file(state.join(format!("probe.{task}"))).unwrap();
        fs::remove_file(state.join(format!("probe.{task}.now"))).unwrap();
        fs::write(hold(task), "").unwrap();
    }
    let third = slurm.launch(&launch("three"), &jobs(&state)).unwrap();
    until("tasks work", || (0..4).all(holds));
    fs::write(state.join("cancelled"), "").unwrap();
    // Told just before, it does not go back.
    tell(0);
    until("the told task ends", || log("three", &third.ids[1], 0).contains("told"));
    let cancelled = cancel(&state, &programs).unwrap();
    assert!(cancelled.iter().all(|job| job.refused.is_none()), "{cancelled:?}");
    let kinds: Vec<JobKind> = cancelled.iter().map(|job| job.kind).collect();
    assert_eq!(kinds, [JobKind::Probe, JobKind::Table]);
    until("the queue is empty", || lines().is_empty());
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(lines(), [], "longer than a requeued job waits");
    assert!(!state.join("table.0").exists());
}
