//! Workers that fail: the episodes go on elsewhere, and nothing else changes.

use std::time::{Duration, Instant};

use crate::toy::Toy;

fn restarts(record: &serde_json::Value) -> u64 {
    record["outcome"]["counts"]["simulator-restarts"].as_u64().unwrap()
}

#[test]
fn a_worker_that_fails_changes_nothing_but_the_count() {
    let Some(toy) = Toy::new() else { return };
    let run = toy.run(&Toy::small("undisturbed", "pixels"), &[]);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let expected = toy.outcome("undisturbed");
    assert_eq!(restarts(&toy.record("undisturbed")), 0);
    for (fault, said) in [
        ("die", "the simulator died while stepping metaworld/drawer-open"),
        ("hang", "the simulator gave no answer in 2 s"),
        ("shape", "bytes; expected"),
        ("nan", "a number that is not finite"),
        ("raise", "the simulation is unstable"),
    ] {
        let mark = toy.world.path(&format!("{fault}.mark"));
        let env = [
            ("FAULT", fault),
            ("FAULT_MARK", mark.to_str().unwrap()),
            ("PIXIO_EVAL_SIMULATOR_TIMEOUT", "2"),
        ];
        let run = toy.run(&Toy::small(fault, "pixels"), &env);
        assert_eq!(run.status, Some(0), "{fault}: {}", run.stderr);
        assert!(run.stderr.contains(said), "{fault}: {}", run.stderr);
        assert_eq!(toy.outcome(fault), expected, "{fault}");
        let record = toy.record(fault);
        assert_eq!(restarts(&record), 1, "{fault}");
        let warnings = record["outcome"]["warnings"].to_string();
        assert!(warnings.contains("workers replaced during rollouts: 1"), "{warnings}");
    }
}

#[test]
fn a_simulator_that_prints_does_not_break_the_pipe() {
    let Some(toy) = Toy::new() else { return };
    let mark = toy.world.path("mark");
    let env = [("FAULT", "print"), ("FAULT_MARK", mark.to_str().unwrap())];
    let run = toy.run(&Toy::small("out", "pixels"), &env);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    assert!(mark.exists());
    assert_eq!(restarts(&toy.record("out")), 0);
}

#[test]
fn what_always_fails_is_given_up_and_said() {
    let Some(toy) = Toy::new() else { return };
    let env = [("FAULT", "die"), ("FAULT_ALWAYS", "1")];
    let run = toy.run(&Toy::small("out", "pixels"), &env);
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("gave up after 3 workers in a row"), "{}", run.stderr);
    let failed = std::fs::read_to_string(toy.folder("out").join("failed.txt")).unwrap();
    assert!(failed.contains("exit status: 3"), "{failed}");

    let run = toy.run(&Toy::small("start", "pixels"), &[("FAULT", "start"), ("FAULT_ALWAYS", "1")]);
    assert_eq!(run.status, Some(2), "{}", run.stderr);
    assert!(run.stderr.contains("no GL here"), "{}", run.stderr);
    assert!(run.stderr.contains("simulators check"), "{}", run.stderr);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_no_worker_and_goes_on() {
    let Some(toy) = Toy::new() else { return };
    // Two batches an evaluation.
    let small = |out: &'static str| [Toy::small(out, "pixels"), vec!["--batch-size", "2"]].concat();
    let run = toy.run(&small("undisturbed"), &[]);
    assert_eq!(run.status, Some(0), "{}", run.stderr);

    let mark = toy.world.path("mark");
    for (signal, after) in [("INT", "2"), ("KILL", "2"), ("INT", "1")] {
        let env =
            [("FAULT", "hang"), ("FAULT_MARK", mark.to_str().unwrap()), ("FAULT_AFTER", after)];
        let grace = 20;
        let _ = std::fs::remove_file(&mark);
        let mut child = toy.command(&small("out"), &env).spawn().unwrap();
        let began = Instant::now();
        while !mark.exists() && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(mark.exists());
        let workers = children(child.id());
        assert!(!workers.is_empty());
        let kill = |id: u32, signal: &str| {
            let arguments = [format!("-{signal}"), id.to_string()];
            std::process::Command::new("kill").args(arguments).status().unwrap();
        };
        kill(child.id(), signal);
        let status = child.wait().unwrap();
        if signal == "INT" {
            assert_eq!(status.code(), Some(130));
        }
        let began = Instant::now();
        while workers.iter().any(|&id| alive(id)) {
            assert!(began.elapsed() < Duration::from_secs(grace), "{signal}: workers are left");
            if signal == "KILL" {
                // The toy sleeps without reading; the real workers end with their parent.
                workers.iter().for_each(|&id| kill(id, "KILL"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let run = toy.run(&small("out"), &[]);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("goes on in evaluation"), "{}", run.stderr);
    assert!(!run.stderr.contains("with 0 rollouts made"), "{}", run.stderr);
    assert!(toy.folder("out").join("pictures/episodes.png").is_file());
    assert_eq!(toy.outcome("out"), toy.outcome("undisturbed"));
}

#[cfg(unix)]
fn children(id: u32) -> Vec<u32> {
    let of = format!("/proc/{id}/task/{id}/children");
    let text = std::fs::read_to_string(of).unwrap_or_default();
    text.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

#[cfg(unix)]
fn alive(id: u32) -> bool {
    // One that nobody has waited for yet runs no more.
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.contains(" Z "))
}

#[test]
fn demonstrations_are_recorded_anew_when_a_worker_fails() {
    let Some(toy) = Toy::new() else { return };
    let folder = toy.world.path("demos/drawer-open");
    let read = || {
        let manifest = std::fs::read_to_string(folder.join("demos.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&manifest).unwrap()["demos"].clone()
    };
    let expected = read();
    let mut args = vec!["demos", "make", "metaworld/drawer-open", "--count", "4", "--steps", "60"];
    args.extend(["--data", "metaworld=demos"]);
    let mark = toy.world.path("mark");
    let env = [("FAULT", "die"), ("FAULT_MARK", mark.to_str().unwrap())];
    let run = toy.run(&args, &env);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    assert!(mark.exists());
    assert_eq!(read(), expected);

    // What cannot be made leaves what was there.
    let run = toy.run(&args, &[("FAULT", "die"), ("FAULT_ALWAYS", "1")]);
    assert_eq!(run.status, Some(2), "{}", run.stderr);
    assert_eq!(read(), expected);
    assert_eq!(std::fs::read_dir(toy.world.path("demos")).unwrap().count(), 1);
}
