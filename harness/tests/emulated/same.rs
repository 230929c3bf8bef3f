//! The same numbers as on the CPU, and the same bytes whenever streams run.

use crate::common::{World, all_values, values};
use crate::{arguments, calls, emulator, good, run, world};

const HEADS: [&str; 4] = ["nyuv2/linear", "nyuv2/dpt", "ade20k/linear", "ade20k/dpt"];

/// The norm of the difference over the norm.
fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let off = norm(&mut found.iter().zip(expected).map(|(f, e)| f64::from(f - e)));
    off / norm(&mut expected.iter().map(|&e| f64::from(e)))
}

#[test]
fn features_are_those_of_the_cpu() {
    if emulator().is_none() {
        return;
    }
    let world = World::new();
    good(&world.run(&["data", "sample", "voc2012", "--to", "samples"]));
    let images = std::fs::read_dir(world.path("samples/voc2012/JPEGImages")).unwrap();
    let mut images: Vec<_> = images.map(|entry| entry.unwrap().path()).collect();
    images.sort();
    let images: Vec<_> = images.iter().take(2).map(|path| path.to_str().unwrap()).collect();
    let block = |last: usize| format!("block{last}.patch_tokens");
    for (name, last) in
        [("pixio-nano", 3), ("dinov3-s-plus", 11), ("siglip-b", 11), ("theia-t", 11)]
    {
        let backbone = format!("random:{name}");
        let tokens = |device: &str, dtype: &str, out: &str| {
            let out_file = world.path(out);
            let taps = last.to_string();
            let given = [
                "--backbone",
                &backbone,
                "--taps",
                &taps,
                "--size",
                "112x112",
                "--device",
                device,
                "--dtype",
                dtype,
            ];
            let args = [&["features"], &images[..], &given, &["--out", out_file.to_str().unwrap()]]
                .concat();
            good(&run(&world, &[], &args));
            values(&out_file, &block(last))
        };
        let expected = tokens("cpu", "f32", "cpu.safetensors");
        let off = difference(&tokens("cuda", "f32", "f32.safetensors"), &expected);
        assert!(off < 1e-5, "{name} in f32: {off:e}");
        let off = difference(&tokens("cuda", "bf16", "bf16.safetensors"), &expected);
        assert!(off < 2e-2, "{name} in bf16: {off:e}");
    }
}

/// The heads that a short run leaves, in the order of their cells.
fn heads(world: &World, out: &str) -> Vec<Vec<f32>> {
    let results = world.results(out);
    let files = results.keys().filter(|path| path.ends_with("head.safetensors"));
    files.map(|path| all_values(&world.path(out).join(path))).collect()
}

fn one_step<'a>(cells: &[&'a str], device: &'a str, dtype: &'a str, out: &'a str) -> Vec<&'a str> {
    [&arguments(cells, device, dtype, out)[..], &["--epochs", "1", "--limit", "4"]].concat()
}

#[test]
fn heads_after_a_step_are_those_of_the_cpu() {
    if emulator().is_none() {
        return;
    }
    let world = world();
    let report = world.path("report");
    let counted = [("GPU_REPORT", report.to_str().unwrap())];
    // A step of AdamW is as long as the rate whatever the gradient, so that small ones weigh much in bf16.
    for (cells, dtype, bound) in [(&HEADS[..2], "f32", 1e-3), (&HEADS[..], "bf16", 5e-2)] {
        let outs = [dtype, "cpu"].map(|out| format!("{out}-{dtype}"));
        good(&run(&world, &counted, &one_step(cells, "cuda", dtype, &outs[0])));
        good(&world.run(&one_step(cells, "cpu", "f32", &outs[1])));
        let [found, expected] = outs.map(|out| heads(&world, &out));
        assert_eq!((found.len(), expected.len()), (cells.len(), cells.len()));
        for (found, expected) in found.iter().zip(&expected) {
            let off = difference(found, expected);
            assert!(off < bound, "{dtype}: {off:e}");
        }
    }
    // By the ways that are meant, not by what stands in for them.
    let products = calls(&report, "product");
    for meant in ["cuBLASLt bf16", "cuDNN forward", "cuDNN of the input", "cuDNN of the weight"] {
        let there = products.keys().any(|name| name.starts_with(meant));
        let needed = cfg!(feature = "cudnn") || !meant.starts_with("cuDNN");
        assert!(there || !needed, "no {meant} among {products:?}");
    }
    assert!(calls(&report, "kernel").keys().any(|name| name.starts_with("attention_bf16")));
}

/// Streams that do nothing before they must, that do everything at once, and that run at random: the host and the
/// streams wait where they have to if nobody can tell from the results.
#[test]
fn results_do_not_depend_on_when_streams_run() {
    if emulator().is_none() {
        return;
    }
    let world = world();
    let cells = ["imagenet1k/knn", "nyuv2/linear", "nyuv2/dpt", "ade20k/linear"];
    let results = |order: &str| {
        let out = format!("order-{order}");
        let args =
            [&arguments(&cells, "cuda", "bf16", &out)[..], &["--epochs", "1", "--limit", "8"]]
                .concat();
        good(&run(&world, &[("GPU_ORDER", order)], &args));
        // Nobody finds features that were kept.
        std::fs::remove_dir_all(world.path("cache")).unwrap();
        world.results(&out)
    };
    let expected = results("at-once");
    assert!(!expected.is_empty());
    for order in ["late", "1", "2"] {
        let found = results(order);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, bytes) in &found {
            assert!(*bytes == expected[name], "{order}: {} differs", name.display());
        }
    }
}

/// Twice the steps in an epoch, and the host waits as often: for checkpoints and losses, not for steps.
#[test]
fn the_host_does_not_wait_for_a_step() {
    if emulator().is_none() {
        return;
    }
    let world = world();
    let report = world.path("report");
    let counted = [("GPU_REPORT", report.to_str().unwrap())];
    let waits = |images: &str| {
        let short = ["--epochs", "1", "--limit", images];
        let args = [&arguments(&HEADS[..2], "cuda", "bf16", images)[..], &short].concat();
        good(&run(&world, &counted, &args));
        let steps = calls(&report, "kernel")["silog_forward_bf16"];
        let waits = calls(&report, "wait");
        (steps, waits)
    };
    let ((few, of_few), (many, of_many)) = (waits("4"), waits("8"));
    assert!(few > 0 && many == 2 * few, "{few} and {many} losses");
    assert_eq!(of_many, of_few);
}
