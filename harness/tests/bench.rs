//! `pixio-eval bench` as a user starts it, and the script that checks a GPU, tried on the CPU.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;
use std::process::Command;

use common::World;
use serde_json::Value;

/// Small enough for seconds.
const SMALL: [&str; 18] = [
    "--backbone",
    "random:pixio-nano",
    "--device",
    "cpu",
    "--protocol",
    "sample",
    "--seconds",
    "0.01",
    "--batches",
    "1,2",
    "--images",
    "1",
    "--train-rows",
    "400",
    "--queries",
    "20",
    "--width",
    "16",
];

#[test]
fn everything_is_measured_once() {
    let world = World::new();
    let ran = world.run(
        &[&["bench", "all", "--json", "--peak", "1", "--tasks", "voc2012"], &SMALL[..]].concat(),
    );
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let keys: Vec<&str> = rows.iter().map(|row| row["key"].as_str().unwrap()).collect();
    let expected = [
        "knn",
        "encoder pixio-nano batch 1",
        "encoder pixio-nano batch 2",
        "encoder pixio-nano",
        "linear step voc2012 pixio-nano",
        "linear forward voc2012 pixio-nano",
        "dpt step voc2012 pixio-nano",
        "dpt forward voc2012 pixio-nano",
        "stream encode voc2012 pixio-nano",
        "shared voc2012 pixio-nano",
        "val voc2012 pixio-nano",
        "val on kept tokens voc2012 pixio-nano",
    ];
    assert_eq!(keys, expected);
    for row in rows {
        let value = |name: &str| row[name].as_f64().unwrap();
        assert!(0.0 < value("low") && value("low") <= value("seconds"), "{row}");
        assert!(value("seconds") <= value("high") && value("samples") >= 3.0, "{row}");
    }
    let row = |key: &str| rows.iter().find(|row| row["key"] == key).unwrap();
    // The best batch is one of those above, and its operations are those of the images.
    let best = row("encoder pixio-nano");
    let same = rows[1..3].iter().find(|row| row["batch"] == best["batch"]).unwrap();
    assert_eq!(best["seconds"], same["seconds"]);
    let flops = best["flops"].as_f64().unwrap() * best["seconds"].as_f64().unwrap();
    assert!((2.0 * 5e6 * 256.0..2.0 * 8e6 * 320.0).contains(&flops), "{flops:e}");
    let used = best["utilisation"].as_f64().unwrap();
    assert!((used * 1e12 / best["flops"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    // 3 by 3 windows on 375x500.
    assert_eq!(row("val voc2012 pixio-nano")["batch"], 9);
    assert!(row("shared voc2012 pixio-nano")["share_of_bound"].as_f64().unwrap() > 0.2);
}

#[test]
fn what_is_shown_and_what_is_refused() {
    let world = World::new();
    let ran = world
        .run(&[&["bench", "knn", "encoder", "linear", "--tasks", "nyuv2"], &SMALL[..]].concat());
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let has = |text: &str| assert!(ran.stdout.contains(text), "{text} in {}", ran.stdout);
    ["images/s", "ms/search", "linear step nyuv2 pixio-nano", "of peak", "(cpu), f32"]
        .into_iter()
        .for_each(has);
    for (arguments, word) in [
        (&["bench", "speed"][..], "speed"),
        (
            &["bench", "val", "--tasks", "imagenet1k", "--backbone", "random:pixio-nano"],
            "imagenet1k",
        ),
        (&["bench", "--seconds", "0"], "above 0"),
        (&["bench", "knn", "--k", "50", "--train-rows", "10", "--queries", "5"], "50"),
    ] {
        let ran = world.run(arguments);
        assert_ne!(ran.status, Some(0), "{arguments:?}");
        assert!(ran.stderr.contains(word), "{}", ran.stderr);
    }
}

/// The checks of a GPU with the CPU in its place, which is equal to itself.
#[test]
fn the_script_that_checks_a_gpu_runs_to_its_end() {
    let numpy = Command::new("python3").args(["-c", "import numpy"]).output();
    if !numpy.is_ok_and(|ran| ran.status.success()) {
        println!("skipped: no python3 with numpy");
        return;
    }
    let world = World::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/gpu-check.sh");
    let more = [
        "--device",
        "cpu",
        "--quick",
        "--only",
        "features,interrupted,messages",
        "--out",
        "checked",
    ];
    let ran = Command::new("bash")
        .arg(script)
        .arg(env!("CARGO_BIN_EXE_pixio-eval"))
        .args(more)
        .current_dir(world.folder.path())
        .env("HF_HOME", world.path("hf"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(0), "{out}{err}");
    let result = std::fs::read(world.path("checked/gpu-check.json")).unwrap();
    let result: Value = serde_json::from_slice(&result).unwrap();
    let checks = result["checks"].as_array().unwrap();
    // Two encoders in two types; two interruptions, and what came of them; errors.
    assert!(checks.len() > 12, "{out}");
    assert!(checks.iter().all(|check| check["passed"] == true), "{out}");
}
