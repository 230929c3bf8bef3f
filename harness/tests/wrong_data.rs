//! Data that is another preparation than the protocol's: refused by a run, and recorded where it is accepted.
#![allow(clippy::unwrap_used, clippy::panic)]

extern crate tasks as pixio_eval_tasks;

mod common;
#[path = "../../tasks/tests/verify/miniature.rs"]
#[allow(dead_code)]
mod miniature;

use std::fs;

use common::World;
use miniature::Miniature;

/// A short run on a miniature: exit status, and what was said with the miniature's place left out.
fn run(world: &World, miniature: &Miniature, more: &[&str]) -> (Option<i32>, String) {
    let name = &miniature.dataset.name;
    let (task, data) = (format!("{name}/linear"), format!("{name}={}", miniature.root().display()));
    let args =
        ["run", &task, "--backbone", "mini", "--dtype", "f32", "--epochs", "0", "--data", &data];
    let ran = world.run(&[&args[..], &["--quiet"], more].concat());
    (ran.status, ran.stderr.replace(miniature.root().to_str().unwrap(), "DATA"))
}

/// Each wrong preparation that a folder of pairs can be, made from its miniature.
fn wrong() -> Vec<(&'static str, Miniature, Vec<&'static str>)> {
    let dense = Miniature::new("nyuv2");
    dense.depth(|_, _, value| value.max(2500));
    let scans = Miniature::new("kitti");
    scans.depth(|row, _, value| if row % 6 == 0 { value } else { 0 });
    let unshifted = Miniature::new("ade20k");
    unshifted.labels(|label| if label == 255 { 255 } else { label + 1 });
    // The original form is right, unless it is read as the other.
    let forced = Miniature::new("ade20k");
    forced.labels(|label| label.wrapping_add(1));
    let twice = Miniature::new("loveda");
    twice.labels(|label| if label == 255 { 255 } else { label.wrapping_sub(1) });
    twice.labels(|label| if label == 255 { 255 } else { label.wrapping_sub(1) });
    vec![
        ("dense-depth", dense, vec![]),
        ("raw-lidar", scans, vec![]),
        ("unshifted-labels", unshifted, vec![]),
        ("unshifted-labels", forced, vec!["--labels", "shifted"]),
        ("twice-shifted-labels", twice, vec![]),
    ]
}

#[test]
fn a_run_on_a_wrong_preparation_is_refused_or_says_so() {
    for (at, (name, miniature, more)) in wrong().into_iter().enumerate() {
        let world = World::with_mini();
        let (status, said) = run(&world, &miniature, &more);
        assert_eq!(status, Some(2), "{said}");
        insta::assert_snapshot!(format!("refused_{at}_{name}"), said);
        assert!(!world.path("runs").join(&miniature.dataset.name).exists());
        let other = if name == "raw-lidar" { "dense-depth" } else { "raw-lidar" };
        let not_this = [&more[..], &["--accept-data", other]].concat();
        assert_eq!(run(&world, &miniature, &not_this).0, Some(2));
        let accepted = [&more[..], &["--accept-data", name]].concat();
        let (status, said) = run(&world, &miniature, &accepted);
        assert_eq!(status, Some(0), "{name}: {said}");
        let plan = &world.plans(&format!("runs/{}/linear", miniature.dataset.name))[0];
        assert_eq!(plan["data"]["accepted"], serde_json::json!([name]));
        let protocol = plan["protocol"]["name"].as_str().unwrap();
        assert!(protocol.contains(&format!("+data={name}")), "{protocol}");
        let table = world.run(&["table"]).stdout;
        assert!(table.contains(&format!("data={name}")), "{table}");
        assert!(table.contains(&format!("accepted as {name}")), "{table}");
    }
}

#[test]
fn another_size_is_refused_and_cannot_be_accepted() {
    let world = World::with_mini();
    let miniature = Miniature::new("nyuv2");
    miniature.depth(|row, column, value| if (row / 9 + column / 7) % 11 == 0 { 0 } else { value });
    miniature.resize((960, 1280));
    let (status, said) = run(&world, &miniature, &[]);
    assert_eq!(status, Some(2), "{said}");
    insta::assert_snapshot!(said);
    assert_eq!(run(&world, &miniature, &["--accept-data", "resized"]).0, Some(2));
}

#[test]
fn full_ade20k_is_named_where_it_does_not_even_open() {
    let world = World::with_mini();
    let miniature = Miniature::new("ade20k");
    let root = miniature.root();
    fs::rename(root.join("images"), root.join("ade")).unwrap();
    for list in ["train.txt", "val.txt"] {
        fs::remove_file(root.join(list)).unwrap();
    }
    let folder = root.join("images/ADE/training/urban/street");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("ADE_train_00000001.jpg"), "").unwrap();
    let (status, said) = run(&world, &miniature, &[]);
    assert_eq!(status, Some(2));
    insta::assert_snapshot!(said);
}

#[test]
fn only_a_known_name_is_accepted() {
    let world = World::with_mini();
    let ran = world.run(&["run", "nyuv2/linear", "--backbone", "mini", "--accept-data", "dense"]);
    assert_eq!(ran.status, Some(2));
    insta::assert_snapshot!(ran.stderr);
}
