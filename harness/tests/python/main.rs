//! Backbones in Python: as good as their native twins, and nothing they do wrong loses work.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod identity;
mod twins;

use std::path::Path;
use std::process::Command;

use common::{Ran, World};

/// The interpreter of these tests.
fn interpreter() -> String {
    std::env::var("PIXIO_EVAL_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// Whether Python has the modules; says so where it has not.
fn has(modules: &str) -> bool {
    let ran = Command::new(interpreter()).args(["-c", &format!("import {modules}")]).output();
    let there = ran.is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("skipped: {} has no {modules}", interpreter());
    }
    there
}

/// Puts the Python files of these tests into a world.
fn files(world: &World) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    for name in ["twin.py", "faulty.py"] {
        std::fs::copy(folder.join(name), world.path(name)).unwrap();
    }
    std::fs::write(world.path("beside.py"), "SCALE = 1.0\n").unwrap();
}

fn run(world: &World, args: &[&str]) -> Ran {
    let mut command = world.command(args);
    command.env("TWIN", world.path("twin")).env("PYTHONDONTWRITEBYTECODE", "1");
    world.finish(command)
}
