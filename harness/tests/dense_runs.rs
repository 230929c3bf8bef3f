//! Depth and segmentation runs as a user starts them: shared, alone, interrupted, killed, and with
//! wrong input.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::Instant;

use common::{Ran, World};

/// A world with NYUv2 and VOC samples and the golden encoder.
fn world() -> World {
    let world = World::with_mini();
    let made = world.run(&["data", "sample", "nyuv2", "voc2012", "--to", "samples"]);
    assert_eq!(made.status, Some(0), "{}", made.stderr);
    world
}

/// A short protocol on real-layout data: 3 epochs of 2 steps, validated after each.
fn args<'a>(cells: &[&'a str], out: &'a str) -> Vec<&'a str> {
    let rest = [
        "--backbone",
        "mini",
        "--data",
        "nyuv2=samples/nyuv2",
        "--data",
        "voc2012=samples/voc2012",
        "--protocol",
        "sample",
        "--epochs",
        "3",
        "--json",
        "--out",
        out,
    ];
    [&["run"], cells, &rest].concat()
}

fn good(ran: &Ran) {
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
}

const BOTH: [&str; 2] = ["nyuv2/linear", "nyuv2/dpt"];

#[test]
fn shared_equals_alone_with_any_number_of_threads() {
    let world = world();
    for (out, threads) in [("shared-1", "1"), ("shared-2", "2")] {
        let mut command = world.command(&args(&BOTH, out));
        command.env("RAYON_NUM_THREADS", threads);
        good(&world.finish(command));
    }
    for cell in BOTH {
        good(&world.run(&args(&[cell], "alone")));
    }
    let alone = world.results("alone");
    assert_eq!(alone.len(), 2 * 5, "{:?}", alone.keys());
    let same = |out: &str| {
        let found = world.results(out);
        assert_eq!(found.keys().collect::<Vec<_>>(), alone.keys().collect::<Vec<_>>());
        for (name, bytes) in &found {
            assert!(*bytes == alone[name], "{out}: {} differs", name.display());
        }
    };
    same("shared-1");
    same("shared-2");
}

/// Too little memory for both heads together: two passes, the same bytes; and a size of its own
/// choosing, which the record has and another command keeps to.
#[test]
fn memory_is_planned() {
    let world = world();
    let with = |out: &str, more: &[&str]| world.run(&[&args(&BOTH, out)[..], more].concat());
    let together = with("together", &["--memory-gb", "8"]);
    good(&together);
    let split = with("split", &["--memory-gb", "0.05"]);
    good(&split);
    let words = |ran: &Ran, words: &str| ran.stderr.contains(words);
    assert!(!words(&together, "passes over the data"), "{}", together.stderr);
    assert!(words(&split, "trained in 2 passes over the data"), "{}", split.stderr);
    assert!(words(&split, "a smaller --batch-size needs less"), "{}", split.stderr);
    assert!(world.results("together") == world.results("split"));

    let auto = with("auto", &["--batch-size", "auto", "--memory-gb", "0.03"]);
    good(&auto);
    let sizes = |out: &str| -> Vec<u64> {
        let records = world.results(out);
        let records = records.iter().filter(|(path, _)| path.ends_with("record.json"));
        let plan = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        records.map(|(_, bytes)| plan(bytes)[0]["micro_batch"].as_u64().unwrap()).collect()
    };
    assert_eq!((sizes("auto"), sizes("together")), (vec![2, 2], vec![16, 16]));
}

/// Killed at up to twenty moments, sometimes with one head and sometimes with both on the stream,
/// and continued each time: the files are those of an undisturbed run, byte for byte.
#[cfg(unix)]
#[test]
fn killed_and_continued_equals_undisturbed() {
    let world = world();
    let long = |cells, out| [&args(cells, out)[..], &["--seed", "7"]].concat();
    let began = Instant::now();
    good(&world.run(&long(&BOTH, "whole")));
    let whole = began.elapsed();
    let mut kills = 0;
    for turn in 0..20u32 {
        let cells: &[&str] = if turn % 3 == 1 { &BOTH[..1] } else { &BOTH };
        let mut command = world.command(&long(cells, "killed"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // From a fortieth of the run to a third of it, in a mixed order.
        std::thread::sleep(whole.mul_f64(f64::from(1 + turn * 7 % 13) / 40.0));
        if child.try_wait().unwrap().is_some() {
            continue;
        }
        if turn % 4 == 0 {
            // Politely, so that a checkpoint within an epoch is written.
            let pid = child.id().to_string();
            std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
        } else {
            child.kill().unwrap();
        }
        child.wait().unwrap();
        kills += 1;
    }
    println!("{kills} kills");
    assert!(kills >= 2, "{kills} kills");
    good(&world.run(&long(&BOTH, "killed")));
    let (killed, undisturbed) = (world.results("killed"), world.results("whole"));
    assert_eq!(killed.keys().collect::<Vec<_>>(), undisturbed.keys().collect::<Vec<_>>());
    for (name, bytes) in &killed {
        assert!(*bytes == undisturbed[name], "{} differs", name.display());
    }
}

#[test]
fn a_saved_head_is_evaluated_and_only_where_it_fits() {
    let world = world();
    good(&world.run(&args(&["nyuv2/linear"], "runs")));
    let folder = fs::read_dir(world.path("runs/nyuv2/linear")).unwrap().next().unwrap().unwrap();
    let head = folder.path().join("head.safetensors");
    fs::copy(&head, world.path("head.safetensors")).unwrap();
    let with = |cells: &[&str], epochs: &str| {
        let base = args(cells, "evaluated");
        let more = ["--head-weights", "head.safetensors", "--epochs", epochs];
        let kept: Vec<&str> =
            base.iter().copied().filter(|arg| !["--epochs", "3"].contains(arg)).collect();
        world.run(&[&kept[..], &more].concat())
    };
    let evaluated = with(&["nyuv2/linear"], "0");
    good(&evaluated);
    // The last epoch's metrics, from the head file alone.
    let last = |ran: &str| -> BTreeMap<String, String> {
        let rows: Vec<serde_json::Value> = serde_json::from_str(ran).unwrap();
        let rows = rows.iter().filter(|row| row["selection"] == "last");
        rows.map(|row| (row["metric"].to_string(), row["value"].to_string())).collect()
    };
    let trained = world.run(&args(&["nyuv2/linear"], "runs"));
    assert_eq!(last(&evaluated.stdout), last(&trained.stdout));
    assert_eq!(last(&evaluated.stdout).len(), 9);

    let seen = |ran: Ran| format!("exit {}\n{}", ran.status.unwrap(), ran.stderr);
    insta::assert_snapshot!("head_of_another_kind", seen(with(&["nyuv2/dpt"], "0")));
    insta::assert_snapshot!("head_of_other_outputs", seen(with(&["voc2012/linear"], "0")));
    insta::assert_snapshot!("head_for_two_cells", seen(with(&BOTH, "0")));
}

#[test]
fn wrong_data_is_named() {
    let world = world();
    let run = |cell: &str, more: &[&str]| {
        let ran = world.run(&[&args(&[cell], "runs")[..], more].concat());
        format!("exit {}\n{}", ran.status.unwrap(), ran.stderr)
    };
    insta::assert_snapshot!("too_few_samples", run("nyuv2/linear", &["--limit", "2"]));

    let nyu = world.path("samples/nyuv2");
    let list = fs::read_to_string(nyu.join("train.txt")).unwrap();
    let (image, depth) = list.lines().next().unwrap().split_once(' ').unwrap();
    let voc = world.path("samples/voc2012");
    let first = fs::read_to_string(voc.join("train.txt")).unwrap();
    let (photo, _) = first.lines().next().unwrap().split_once(' ').unwrap();
    // An RGB photo of another data set where a 16-bit depth map belongs.
    fs::copy(voc.join(photo), nyu.join(depth)).unwrap();
    insta::assert_snapshot!("depth_that_is_a_photo", run("nyuv2/linear", &[]));
    fs::remove_file(nyu.join(depth)).unwrap();
    insta::assert_snapshot!("depth_that_is_missing", run("nyuv2/linear", &[]));
    fs::write(nyu.join("train.txt"), format!("{image}\n")).unwrap();
    insta::assert_snapshot!("list_with_a_broken_line", run("nyuv2/linear", &[]));
}
