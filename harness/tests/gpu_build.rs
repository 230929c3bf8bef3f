//! A build with GPU support on a machine without one.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

mod common;

use common::World;

/// See the `pixio-eval-cuda` crate; a failure here names a library whose list of functions there lacks one.
#[test]
fn no_library_of_cuda_is_linked() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_pixio-eval")).unwrap();
    for library in ["cuda", "cudart", "cublas", "cublasLt", "curand", "nvrtc", "cudnn"] {
        let name = format!("lib{library}.so.");
        let found = program.windows(name.len()).any(|part| part == name.as_bytes());
        assert!(!found, "the program is linked with {name}");
    }
}

#[test]
fn a_gpu_asked_for_without_a_driver_is_an_error_and_auto_is_the_cpu() {
    if libcuda::driver_version().is_some() {
        return;
    }
    let world = World::new();
    let ran = world.run(&["doctor"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("--  gpu driver none"), "{}", ran.stdout);
    let ran = world.run(&["all", "--sample", "--backbone", "random:pixio-b", "--device", "cuda:1"]);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("cannot use cuda:1: no GPU support on this machine: "),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("hint: install NVIDIA's driver, or use --device cpu"),
        "{}",
        ran.stderr
    );
}
