//! What `--help` prints, and the lists of names.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::World;

#[test]
fn help_of_every_command() {
    let world = World::new();
    for command in [
        "",
        "all",
        "run",
        "sweep",
        "table",
        "compare",
        "runs",
        "card",
        "plot",
        "report",
        "data",
        "backbones",
        "features",
        "simulators",
        "demos",
        "bench",
        "doctor",
    ] {
        let args: Vec<&str> = [command, "--help"].into_iter().filter(|a| !a.is_empty()).collect();
        let ran = world.run(&args);
        assert_eq!(ran.status, Some(0));
        let name = if command.is_empty() { "pixio-eval" } else { command };
        insta::assert_snapshot!(format!("help_{name}"), ran.stdout);
    }
}

#[test]
fn lists_and_cards() {
    let world = World::new();
    insta::assert_snapshot!("backbones_list", world.run(&["backbones", "list"]).stdout);
    insta::assert_snapshot!("backbones_show", world.run(&["backbones", "show", "pixio-h"]).stdout);
    for name in [
        "mae-h",
        "dinov2-g-reg",
        "clip-l14",
        "siglip2-b",
        "dinov3-s-plus",
        "r3m-50",
        "sam-b",
        "theia-s",
    ] {
        let card = world.run(&["backbones", "show", name]).stdout;
        insta::assert_snapshot!(format!("backbones_show_{name}"), card);
    }
    insta::assert_snapshot!("data_list", world.run(&["data", "list"]).stdout);
    for name in
        ["imagenet1k", "nyuv2", "kitti", "ade20k", "voc2012", "loveda", "adroit", "trifinger"]
    {
        let card = world.run(&["data", "card", name]).stdout;
        insta::assert_snapshot!(format!("data_card_{name}"), card);
    }
    // A work that two of them cite is there once.
    let cited = world.run(&["data", "card", "adroit", "dmc", "--bibtex"]).stdout;
    insta::assert_snapshot!("data_card_bibtex", cited);
    let json = world.run(&["data", "card", "kitti", "voc2012", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["citation"].as_array().unwrap().len(), 3);
    assert_eq!(json[1]["source"]["file"][0]["bytes"], 1_999_639_040_u64);
    let none = world.run(&["data", "card", "voc2021"]);
    assert!(none.status == Some(2) && none.stderr.contains("voc2012"), "{}", none.stderr);
    let made = world.run(&["data", "sample", "imagenet1k", "voc2012", "--to", "samples"]);
    insta::assert_snapshot!("data_sample", made.stdout);
    let args = ["data", "status", "--data", "voc2012=samples/voc2012"];
    let more = ["--data", "imagenet1k=samples/imagenet1k"];
    insta::assert_snapshot!("data_status", world.run(&[&args[..], &more].concat()).stdout);
    for args in [
        &["backbones", "list", "--json"][..],
        &["backbones", "show", "pixio-nano", "--json"],
        &["data", "list", "--json"],
        &["data", "status", "--json"],
        &["doctor", "--json"],
        &["runs", "--json"],
    ] {
        let ran = world.run(args);
        assert_eq!(ran.status, Some(0), "{args:?}: {}", ran.stderr);
        serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap();
    }
    let doctor = world.run(&["doctor"]);
    assert!(doctor.stdout.contains("cache      WORLD/cache"), "{}", doctor.stdout);
}

#[test]
fn the_token_is_never_printed() {
    let world = World::new();
    let mut command = world.command(&["doctor"]);
    command.env("HF_TOKEN", "hf_secret");
    let ran = world.finish(command);
    assert!(ran.stdout.contains("set in HF_TOKEN"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("hf_secret") && !ran.stderr.contains("hf_secret"));
}
