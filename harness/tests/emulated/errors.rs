//! What goes wrong with a GPU, said and survived.

use crate::common::World;
use crate::{arguments, calls, emulator, good, run, world};

/// What a command that cannot use the GPU says.
fn refused(gpu: &[(&str, &str)], device: &str) -> String {
    let ran = run(
        &World::new(),
        gpu,
        &["all", "--sample", "--backbone", "random:pixio-nano", "--device", device],
    );
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    ran.stderr
}

#[test]
fn gpus_that_cannot_be_used_are_refused_before_any_work() {
    if emulator().is_none() {
        return;
    }
    let mut said = Vec::new();
    said.push(refused(&[], "cuda:1"));
    said.push(refused(&[("GPUS", "0")], "cuda"));
    said.push(refused(&[("GPU_CAPABILITY", "75")], "cuda"));
    said.push(refused(&[("GPU_DRIVER", "11080")], "cuda"));
    insta::assert_snapshot!(said.join("\n"));
}

/// A GPU that goes away in the middle is an error that says how to go on; the same command then ends with the bytes of
/// a run that nothing happened to, and on the CPU it ends too.
#[test]
fn a_run_that_lost_its_gpu_goes_on() {
    if emulator().is_none() {
        return;
    }
    let world = world();
    let cells = ["nyuv2/linear", "nyuv2/dpt"];
    let args = |device, out| {
        [&arguments(&cells, device, "bf16", out)[..], &["--epochs", "3", "--limit", "8"]].concat()
    };
    let report = world.path("report");
    let counted = [("GPU_REPORT", report.to_str().unwrap())];
    good(&run(&world, &counted, &args("cuda", "whole")));
    let launches: u64 = calls(&report, "kernel").values().sum();
    let expected = world.results("whole");
    for (out, share) in [("early", 10), ("late", 70)] {
        std::fs::remove_dir_all(world.path("cache")).unwrap();
        let at = (launches * share / 100).to_string();
        let ran = run(&world, &[("GPU_LAUNCHES", &at)], &args("cuda", out));
        assert_eq!(ran.status, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains("CUDA_ERROR_LAUNCH_FAILED"), "{}", ran.stderr);
        assert!(ran.stderr.contains("the same command"), "{}", ran.stderr);
        good(&run(&world, &counted, &args("cuda", out)));
        let again: u64 = calls(&report, "kernel").values().sum();
        assert!(out == "early" || again < launches * 3 / 4, "{again} of {launches} launches again");
        assert!(world.results(out) == expected, "{out}: other bytes");
    }
    let at = (launches * 70 / 100).to_string();
    assert_eq!(run(&world, &[("GPU_LAUNCHES", &at)], &args("cuda", "moved")).status, Some(1));
    good(&world.run(&args("cpu", "moved")));
}

/// Where the batch does not fit, smaller ones do, and the run says so; where nothing fits, that is the error.
#[test]
fn what_does_not_fit_is_halved_and_said() {
    if emulator().is_none() {
        return;
    }
    let world = world();
    let knn = |megabytes: &str, out| {
        let whole = ["--limit", "32", "--batch-size", "32"];
        let args = [&arguments(&["imagenet1k/knn"], "cuda", "bf16", out)[..], &whole].concat();
        run(&world, &[("GPU_MEMORY_MB", megabytes)], &args)
    };
    let ran = knn("40", "halved");
    good(&ran);
    for said in ["has no memory for 32 images at a time; it goes on with 16", "goes on with 8"] {
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
    let ran = knn("2", "nothing");
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: the encoder does not fit"), "{}", ran.stderr);
}
