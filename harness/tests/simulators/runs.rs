//! From demonstrations to the table.

use crate::toy::Toy;

#[test]
fn a_policy_on_true_state_solves_what_its_demonstrations_solve() {
    let Some(toy) = Toy::empty() else { return };
    for task in ["button-press-topdown", "drawer-open"] {
        let task = format!("metaworld/{task}");
        let made = toy.run(
            &[
                "demos",
                "make",
                &task,
                "--count",
                "25",
                "--steps",
                "40",
                "--data",
                "metaworld=demos",
            ],
            &[],
        );
        assert_eq!(made.status, Some(0), "{}", made.stderr);
    }
    let mut args = vec!["run", "cortexbench/metaworld", "--protocol", "cortexbench-lite"];
    args.extend(["--data", "metaworld=demos", "--backbone", "state", "--out", "out"]);
    let run = toy.run(&args, &[]);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let record = toy.record("out");
    assert_eq!(record["plan"]["protocol"]["name"], "cortexbench-lite+made+steps=40");
    let metrics = record["outcome"]["metrics"].as_array().unwrap();
    let score = metrics.iter().find(|m| m["name"] == "score" && m["selection"] == "last").unwrap();
    assert!(score["value"].as_f64().unwrap() >= 80.0, "{score}");
    insta::assert_snapshot!("table", run.stdout);
}

#[test]
fn a_finished_run_is_kept_and_has_pictures() {
    let Some(toy) = Toy::new() else { return };
    let run = toy.run(&Toy::small("out", "pixels"), &[]);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let folder = toy.folder("out");
    assert!(folder.join("policies.safetensors").is_file());
    assert!(folder.join("pictures/episodes.png").is_file());
    let left: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("checkpoint"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let again = toy.run(&Toy::small("out", "pixels"), &[]);
    assert!(again.stderr.contains("already done"), "{}", again.stderr);
}

#[test]
fn the_number_of_workers_changes_nothing() {
    let Some(toy) = Toy::new() else { return };
    for workers in ["1", "3"] {
        let mut args = Toy::small(workers, "pixels");
        args.extend(["--workers", workers]);
        let run = toy.run(&args, &[]);
        assert_eq!(run.status, Some(0), "{}", run.stderr);
    }
    assert_eq!(toy.outcome("1"), toy.outcome("3"));
}

#[test]
fn what_does_not_fit_is_told_before_any_work() {
    let Some(toy) = Toy::new() else { return };
    let mut told = String::new();
    let cases: [&[&str]; 5] = [
        &["run", "cortexbench/metaworld", "--backbone", "pixels", "--data", "metaworld=demos"],
        &["run", "cortexbench/dmc", "--backbone", "pixels", "--data", "dmc=demos"],
        &["run", "cortexbench/metawrld", "--backbone", "pixels"],
        &["demos", "make", "metaworld/draw-open"],
        &["run", "imagenet1k/knn", "--backbone", "state", "--sample"],
    ];
    for args in cases {
        let run = toy.run(args, &[]);
        told += &format!("$ {}\n{}{}\n", args.join(" "), run.stdout, run.stderr);
    }
    // Without the simulators.
    let mut command = toy.world.command(&Toy::small("out", "pixels"));
    command.env_remove("PIXIO_EVAL_SIMULATORS");
    let run = toy.world.finish(command);
    let stderr = regex_free(&run.stderr);
    told += &format!("$ without the simulators\n{stderr}");
    insta::assert_snapshot!("told", told);
}

/// The hash of the lock changes with it.
fn regex_free(text: &str) -> String {
    match (text.find("env-"), text.find("/bin/python")) {
        (Some(from), Some(to)) if from < to => {
            format!("{}env-HASH{}", &text[..from], &text[to..])
        }
        _ => text.to_owned(),
    }
}
