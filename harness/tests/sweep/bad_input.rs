//! What a sweep refuses, before any work.

use super::*;

const GOOD: &str = "[grid]\nbackbone = [\"mini\"]\ntask = [\"nyuv2/linear\"]\nseed = [0, 1]\n";

fn refused(name: &str, sweep: &str, more: &[&str]) {
    let world = world(sweep);
    let args = ["sweep", "sweep.toml", "--sample", "--epochs", "0"];
    let ran = world.run(&[&args, more].concat());
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    let left = fs::read_dir(world.path("runs")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "{name} left something behind");
    insta::assert_snapshot!(name, ran.stderr);
}

#[test]
fn a_wrong_file() {
    refused("unknown_axis", &GOOD.replace("seed", "sead"), &[]);
    refused("unknown_value", &GOOD.replace("nyuv2/linear", "nyuv/linear"), &[]);
    refused("empty_axis", &GOOD.replace("[0, 1]", "[]"), &[]);
    refused("nothing_left", &format!("{GOOD}[[exclude]]\nbackbone = \"mini\"\n"), &[]);
    refused("no_toml", "[grid\n", &[]);
    refused("a_block_too_many", &format!("{GOOD}block = [2, 40]\n"), &[]);
    refused("class_tokens_alone", &format!("{GOOD}tokens = [\"class\"]\n"), &[]);
    refused("a_value_that_is_none", &format!("{GOOD}\"training.warmpu\" = [0.0]\n"), &[]);
    refused("devices", GOOD, &["--devices", "0,0"]);
    refused("a_name_of_no_folder", GOOD, &["--name", "../x"]);
}

#[test]
fn a_million_cells_are_confirmed() {
    let many = GOOD.replace("seed = [0, 1]", "seed = { from = 0, to = 999999 }");
    refused("a_million_cells", &many, &[]);
}

#[test]
fn a_name_that_is_none() {
    let world = world(GOOD);
    let ran = world.run(&["sweep", "blocs"]);
    assert_eq!(ran.status, Some(2));
    insta::assert_snapshot!("no_such_sweep", ran.stderr);
    let ran = world.run(&["runs", "watch", "small"]);
    assert_eq!(ran.status, Some(2));
    insta::assert_snapshot!("no_such_state", ran.stderr);
    insta::assert_snapshot!("ready_made", world.run(&["sweep"]).stdout);
}

#[test]
fn sweeps_of_two_protocol_versions_do_not_mix() {
    let world = world(GOOD);
    let args = ["sweep", "sweep.toml", "--sample", "--epochs", "0", "--pictures", "0"];
    good(&world.run(&args));
    let plan = world.path("runs/.sweeps/sweep/plan.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&plan).unwrap()).unwrap();
    json["version"] = "0.0.9".into();
    json["cells"][1]["plan"]["protocol_fingerprint"] = "0123456789abcdef".repeat(4).into();
    fs::write(&plan, serde_json::to_vec(&json).unwrap()).unwrap();
    let ran = world.run(&args);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    insta::with_settings!({filters => vec![(r"[0-9a-f]{12} in this", "KEY in this")]}, {
        insta::assert_snapshot!("another_protocol", ran.stderr);
    });
    // A plan of a later version is not guessed at.
    json["format"] = 99.into();
    fs::write(&plan, serde_json::to_vec(&json).unwrap()).unwrap();
    let ran = world.run(&args);
    assert_eq!(ran.status, Some(2));
    insta::assert_snapshot!("a_later_plan", ran.stderr);
}

#[test]
fn a_failed_cell_is_told_and_the_others_are_done() {
    let world = world(&GOOD.replace("seed = [0, 1]", "learning-rate = [1e-3, 3e38]"));
    let args = ["sweep", "sweep.toml", "--sample", "--pictures", "0"];
    let ran = world.run(&args);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("failed: "), "{}", ran.stderr);
    assert!(ran.stdout.contains("sample+learning-rate=0.001"), "{}", ran.stdout);
    let watched = world.run(&["runs", "watch", "--once"]);
    assert!(watched.stdout.starts_with("sweep: 1 of 2 cells done, 1 failed, 0 workers"));
    // It is tried again by another start, and fails again.
    assert_eq!(world.run(&args).status, Some(1));
}
