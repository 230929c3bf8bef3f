//! A real Slurm of one node, where it is installed: job arrays that wait for one another, tasks that are told
//! to end, requeued and cancelled.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod node;
mod sweep;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use node::Node;
use pixio_eval::sweep::launch::{
    CANCELLED, Config, Job, JobKind, Launch, Launched, Launcher, QueueLine, Slurm, cancel, queue,
};
use tempfile::TempDir;

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

/// A sweep's state folder, and a Slurm to run it on.
struct World {
    node: Node,
    root: TempDir,
}

impl World {
    /// Nothing where there is no Slurm.
    fn new() -> Option<Self> {
        let node = Node::start()?;
        let world = Self { node, root: tempfile::tempdir().unwrap() };
        fs::create_dir(world.state()).unwrap();
        Some(world)
    }

    /// Slurm's lines and bash's both see this name.
    fn state(&self) -> PathBuf {
        self.root.path().join("it's a \"sweep\" #1")
    }

    fn launch(&self, id: &str, config: Config) -> Launched {
        let slurm = Slurm { search: self.node.programs(), config };
        let launch = Launch {
            state: self.state(),
            name: "stand-in".to_owned(),
            id: id.to_owned(),
            directory: self.root.path().to_path_buf(),
        };
        slurm.launch(&launch, &jobs(&self.state())).unwrap()
    }

    fn lines(&self) -> Vec<QueueLine> {
        queue(&self.state(), &self.node.programs()).unwrap()
    }

    fn running(&self) -> usize {
        let lines = self.lines();
        let running =
            lines.iter().filter(|line| line.kind == JobKind::Probe && line.state == "RUNNING");
        running.map(|line| line.tasks).sum()
    }

    fn file(&self, task: usize, what: &str) -> PathBuf {
        self.state().join(format!("probe.{task}.{what}"))
    }

    /// Keeps a task from ending by itself.
    fn hold(&self, task: usize) {
        fs::write(self.file(task, "hold"), "").unwrap();
    }

    fn release(&self, task: usize) {
        fs::remove_file(self.file(task, "hold")).unwrap();
    }

    /// Whether a task has counted to its end.
    fn holds(&self, task: usize) -> bool {
        fs::read_to_string(self.file(task, "now")).is_ok_and(|count| count.trim() == "5")
    }

    /// As Slurm does ahead of a time limit; scancel --batch would try again where a job is on its way.
    fn tell(&self, task: usize) {
        let script = fs::read_to_string(self.file(task, "script")).unwrap();
        let sent = Command::new("kill").args(["-USR1", script.trim()]).status();
        assert!(sent.unwrap().success());
    }

    /// What a task has said in all of its turns, without what Slurm and bash say.
    fn said(&self, launch: &str, launched: &Launched, task: usize) -> Vec<String> {
        let name = format!("logs/{launch}.2-probe.{}_{task}.log", launched.ids[1]);
        let log = fs::read_to_string(self.state().join(name)).unwrap();
        let ours =
            |line: &&str| ["begins", "told", "nothing"].iter().any(|word| line.starts_with(word));
        log.lines().filter(ours).map(str::to_owned).collect()
    }

    /// Cells that were there when the table was made.
    fn table(&self) -> usize {
        let path = self.state().join("table.0");
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        // An unmatched pattern stays as it is.
        text.lines().filter(|name| !name.contains('?')).count()
    }
}

/// Of a task that was told once and went on.
const TWO_TURNS: [&str; 3] = ["begins at 0", "told at 5", "begins at 5"];

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(180), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_sweep_of_jobs_survives_what_a_cluster_does_to_it() {
    let Some(world) = World::new() else { return };
    // Of the last task, Slurm's own id is that of the array.
    let last = CELLS - 1;
    for task in [0, 1, 2, 3, last] {
        world.hold(task);
    }
    let first = world.launch("one", Config::default());
    let probe = &first.ids[1];
    until("four tasks work", || (0..4).all(|task| world.holds(task)));
    let waiting = |line: &QueueLine| line.kind == JobKind::Table && line.place == "Dependency";
    assert!(world.lines().iter().any(waiting), "{:?}", world.lines());
    assert_eq!(world.running(), 4, "{:?}", world.lines());

    world.node.ask("scancel", &[&format!("{probe}_0")]);
    world.node.ask("scontrol", &["requeue", &format!("{probe}_1")]);
    world.tell(2);
    // The script looks up twice a second.
    let told = |line: &String| line.starts_with("told");
    until("a task has been told", || world.said("one", &first, 2).iter().any(told));
    for task in 1..4 {
        world.release(task);
    }
    until("the last task works", || world.holds(last));
    world.release(0);
    world.tell(last);
    until("the last task has been told", || world.said("one", &first, last).len() > 1);
    world.release(last);
    until("the first launch ends", || world.lines().is_empty());

    assert_eq!(world.table(), CELLS - 1, "all but the cancelled one, and the table after them");
    for task in [1, 2, last] {
        assert_eq!(world.said("one", &first, task), TWO_TURNS, "task {task}");
    }
    for task in [3, 4, last - 1] {
        assert_eq!(world.said("one", &first, task), ["begins at 0"], "nobody else was told");
    }
    assert_eq!(world.said("one", &first, 0), TWO_TURNS[..2], "cancelled is cancelled");

    // What the cancelled task had done is not done again.
    let second = world.launch("two", Config::default());
    until("the second launch ends", || world.lines().is_empty());
    assert_eq!(world.table(), CELLS);
    assert_eq!(world.said("two", &second, 0), ["begins at 5"]);
    assert_eq!(world.said("two", &second, 5), ["nothing left to do"]);

    // Cancelled as a whole: nothing comes back, not even what was told just before.
    for task in 0..CELLS {
        fs::remove_file(world.state().join(format!("probe.{task}"))).unwrap();
        fs::remove_file(world.file(task, "now")).unwrap();
        world.hold(task);
    }
    let third = world.launch("three", Config::default());
    until("tasks work", || (0..4).all(|task| world.holds(task)));
    fs::write(world.state().join(CANCELLED), "").unwrap();
    world.tell(0);
    until("the told task ends", || world.said("three", &third, 0).len() > 1);
    let cancelled = cancel(&world.state(), &world.node.programs()).unwrap();
    assert!(cancelled.iter().all(|job| job.refused.is_none()), "{cancelled:?}");
    let kinds: Vec<JobKind> = cancelled.iter().map(|job| job.kind).collect();
    assert_eq!(kinds, [JobKind::Probe, JobKind::Table]);
    until("the queue is empty", || world.lines().is_empty());
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(world.lines(), [], "longer than a requeued job waits");
    assert!(!world.state().join("table.0").exists());
}

#[test]
fn preempted_tasks_keep_what_they_did_and_come_back() {
    let Some(world) = World::new() else { return };
    (0..4).for_each(|task| world.hold(task));
    let launched = world.launch("one", Config::default());
    until("four tasks work", || (0..4).all(|task| world.holds(task)));
    let urgent = ["--partition=urgent", "--ntasks=4", "--mem=100", "--output=/dev/null"];
    world.node.ask("sbatch", &[&urgent[..], &["--wrap=sleep 1"]].concat());
    until("all are told", || {
        (0..4).all(|task| world.said("one", &launched, task).len() > 1) && world.running() == 0
    });
    (0..4).for_each(|task| world.release(task));
    until("the launch ends", || world.lines().is_empty());
    for task in 0..4 {
        assert_eq!(world.said("one", &launched, task), TWO_TURNS, "task {task}");
    }
    assert_eq!(world.table(), CELLS);
}

#[test]
#[ignore = "two minutes: Slurm's shortest time limit"]
fn a_task_is_told_ahead_of_its_time_limit_and_goes_on_in_a_new_turn() {
    let Some(world) = World::new() else { return };
    let path = world.root.path().join("slurm.toml");
    fs::write(&path, "[slurm]\nwarning = 30\ntime = \"00:02:00\"\n").unwrap();
    world.hold(7);
    let launched = world.launch("one", Config::read(&path).unwrap());
    until("the task works", || world.holds(7));
    let began = Instant::now();
    until("Slurm tells it", || world.said("one", &launched, 7).len() > 1);
    eprintln!("told {:.0} s after it began", began.elapsed().as_secs_f64());
    world.release(7);
    until("the launch ends", || world.lines().is_empty());
    assert_eq!(world.said("one", &launched, 7), TWO_TURNS);
    assert_eq!(world.table(), CELLS);
}
