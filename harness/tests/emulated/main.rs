//! The program on a GPU that is not there: CUDA's libraries emulated on the processor (`harness/cuda/emulator`), which
//! finds calls in the wrong order, memory used too early or too late, and errors that nobody can cause at will.
//!
//! Needs what a build with GPU support needs, `CUDA_HOME` and a C++ compiler; without them the tests say so.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod errors;
mod same;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::{Ran, World};

/// The folder of the emulated libraries, built once; none, said on standard error, where they cannot be.
fn emulator() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let home = PathBuf::from(std::env::var_os("CUDA_HOME")?);
        let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
        let headers = ["cuda.h", "cublasLt.h", "cudnn.h", "curand.h"];
        if !headers.iter().all(|name| home.join("include").join(name).exists())
            || Command::new(compiler).arg("--version").output().is_err()
        {
            return None;
        }
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulated");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/emulator/build.sh");
        let output = Command::new(script).arg(&to).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(to)
    });
    if built.is_none() {
        eprintln!(
            "skipped: not all headers of CUDA and cuDNN in CUDA_HOME/include, or no C++ compiler (CXX or c++)"
        );
    }
    built.as_deref()
}

/// Runs the program with the emulated GPU, of these `EMULATED_` settings.
fn run(world: &World, gpu: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = world.command(args);
    command.env("LD_LIBRARY_PATH", emulator().unwrap());
    command.envs(gpu.iter().map(|(name, value)| (format!("EMULATED_{name}"), value)));
    world.finish(command)
}

/// How often a program did each thing of a kind, from its report.
fn calls(report: &Path, kind: &str) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(report).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(kind));
    // Behind a name: calls, what they are about, seconds and their unit.
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (name, counts) = words.split_at(words.len() - 4);
            (name.join(" "), counts[0].parse().unwrap())
        })
        .collect()
}

fn good(ran: &Ran) {
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(!ran.stderr.contains("emulated GPU:"), "{}", ran.stderr);
}

/// One with NYUv2 and ADE20K samples and the golden encoder.
fn world() -> World {
    let world = World::with_mini();
    good(&world.run(&["data", "sample", "nyuv2", "ade20k", "imagenet1k", "--to", "samples"]));
    world
}

/// A short protocol on real-layout data: one step of all heads, validated; or a search.
fn arguments<'a>(cells: &[&'a str], device: &'a str, dtype: &'a str, out: &'a str) -> Vec<&'a str> {
    let mut args = [&["run"], cells].concat();
    for name in ["nyuv2", "ade20k", "imagenet1k"] {
        if cells.iter().any(|cell| cell.starts_with(name)) {
            args.push("--data");
            args.push(match name {
                "nyuv2" => "nyuv2=samples/nyuv2",
                "ade20k" => "ade20k=samples/ade20k",
                _ => "imagenet1k=samples/imagenet1k",
            });
        }
    }
    let rest = [
        "--backbone",
        "mini",
        "--protocol",
        "sample",
        "--pictures",
        "0",
        "--device",
        device,
        "--dtype",
        dtype,
        "--out",
        out,
    ];
    args.extend(rest);
    args
}
