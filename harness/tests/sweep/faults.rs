//! Workers and their parent are killed at random: the table stays what it is, and no cell is lost or held
//! twice at a time.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use pixio_eval::sweep::claims::{Life, Observer, overlaps, read_log};

use super::*;

const KILLS: usize = 30;
/// Six streams of trained heads, one of k-NN.
const SWEEP: &str = r#"
name = "faults"
[fixed]
backbone = "mini"
epochs = 20
[grid]
task = ["nyuv2", "voc2012"]
head = ["linear", "dpt"]
block = [4]
learning-rate = [1e-3, 2e-3]
stream-seed = [0, 1, 2]
[[cell]]
task = "imagenet1k/knn"
"#;

fn command(world: &World, out: &str) -> std::process::Command {
    let args =
        ["sweep", "sweep.toml", "--sample", "--devices", "cpu*4", "--pictures", "1", "--out", out];
    world.command(&args)
}

/// The same moments and victims in every run of the test.
fn random(counter: usize, below: usize) -> usize {
    (mixed(counter) % below as u64) as usize
}

/// SplitMix64's output function.
fn mixed(counter: usize) -> u64 {
    let mut x = (counter as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x1234_5678);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn start(world: &World, out: &str) -> Child {
    command(world, out).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Processes of the workers that live.
fn workers(state: &Path) -> Vec<u32> {
    let watched = Observer::new(state, Duration::from_secs(60)).workers().unwrap_or_default();
    let alive = watched.into_iter().filter(|worker| worker.life == Life::Alive);
    alive.map(|worker| worker.file.process.pid).collect()
}

#[test]
fn thirty_kills_change_nothing() {
    let world = world(SWEEP);
    let undisturbed = world.finish(command(&world, "undisturbed"));
    good(&undisturbed);
    // The kept features of the first are not the second's.
    fs::remove_dir_all(world.path("cache")).unwrap();
    let state = world.path("killed/.sweeps/faults");
    let began = Instant::now();
    let (mut kills, mut parents, mut starts) = (0, 0, 1);
    let mut parent = start(&world, "killed");
    let mut finished = 0;
    while kills < KILLS {
        assert!(began.elapsed() < Duration::from_secs(900), "stuck after {kills} kills");
        std::thread::sleep(Duration::from_millis(150 + random(kills, 700) as u64));
        if let Some(status) = parent.try_wait().unwrap() {
            finished += usize::from(status.success());
            if status.success() {
                // All is done before the last kill: what was written goes, and it begins anew.
                fs::remove_dir_all(world.path("killed/nyuv2")).unwrap();
            }
            parent = start(&world, "killed");
            starts += 1;
            continue;
        }
        let alive = workers(&state);
        if alive.is_empty() {
            continue;
        }
        // One in six hits the parent.
        match random(1000 + kills, 6) {
            0 => {
                parent.kill().unwrap();
                parent.wait().unwrap();
                parents += 1;
                parent = start(&world, "killed");
                starts += 1;
            }
            _ => {
                let pid = alive[random(2000 + kills, alive.len())].to_string();
                let mut kill = std::process::Command::new("kill");
                kill.args(["-9", &pid]).stderr(Stdio::null()).status().unwrap();
            }
        }
        kills += 1;
    }
    let _ = parent.wait();
    // What was given up after two deaths in one place is tried again by another launch.
    let mut table = world.finish(command(&world, "killed"));
    for _ in 0..3 {
        if table.status != Some(0) {
            table = world.finish(command(&world, "killed"));
        }
    }
    good(&table);
    println!(
        "{kills} kills, {parents} of them of the parent; {starts} starts, {finished} of which came to the end"
    );
    assert!(parents > 0 && parents < KILLS);
    assert_eq!(table.stdout, undisturbed.stdout);
    let (killed, whole) = (world.results("killed"), world.results("undisturbed"));
    let names = |results: &std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>| {
        results.keys().cloned().collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&killed), names(&whole));
    for (name, bytes) in &whole {
        assert!(killed[name] == *bytes, "{}", name.display());
    }
    let log = read_log(&state).unwrap();
    assert!(log.len() > 2 * 25, "{}", log.len());
    let twice = overlaps(&log);
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn two_starts_help_each_other() {
    let world = world(&SWEEP.replace("epochs = 20", "epochs = 4"));
    let mut first = start(&world, "both");
    let state = world.path("both/.sweeps/faults");
    let began = Instant::now();
    while workers(&state).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "no worker");
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = world.finish(command(&world, "both"));
    good(&second);
    assert!(first.wait().unwrap().success());
    good(&world.finish(command(&world, "alone")));
    assert!(world.results("both") == world.results("alone"));
    assert!(overlaps(&read_log(&state).unwrap()).is_empty());
}
