//! A world with the toy simulator, which needs Python alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Ran, World};

pub struct Toy {
    pub world: World,
    interpreter: PathBuf,
}

/// What a run's record says, as far as it must be the same however often workers failed.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub metrics: serde_json::Value,
    pub curve: serde_json::Value,
    pub rows: Vec<u8>,
}

impl Toy {
    /// With two demonstrations of drawer-open, or `None` where there is no Python.
    pub fn new() -> Option<Self> {
        let toy = Self::empty()?;
        let made = toy.run(
            &[
                "demos",
                "make",
                "metaworld/drawer-open",
                "--count",
                "4",
                "--steps",
                "60",
                "--data",
                "metaworld=demos",
            ],
            &[],
        );
        assert_eq!(made.status, Some(0), "{}", made.stderr);
        Some(toy)
    }

    /// Without demonstrations.
    pub fn empty() -> Option<Self> {
        if Command::new("python3").arg("--version").output().is_err() {
            eprintln!("skipped: no python3");
            return None;
        }
        let world = World::new();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulators/toy.py");
        let interpreter = world.path("toy-python");
        let text = format!("#!/bin/sh\nexec python3 -u {}\n", script.display());
        fs::write(&interpreter, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&interpreter, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(Self { world, interpreter })
    }

    pub fn command(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = self.world.command(args);
        command.env("PIXIO_EVAL_SIMULATORS", &self.interpreter).envs(env.iter().copied());
        command
    }

    pub fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        self.world.finish(self.command(args, env))
    }

    /// The arguments of a small run into a folder.
    pub fn small<'a>(out: &'a str, backbone: &'a str) -> Vec<&'a str> {
        let mut args = vec!["run", "cortexbench/metaworld", "--protocol", "sample"];
        args.extend(["--data", "metaworld=demos", "--backbone", backbone, "--out", out]);
        args
    }

    /// The only finished run below a folder.
    pub fn record(&self, out: &str) -> serde_json::Value {
        let text = fs::read_to_string(self.folder(out).join("record.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub fn folder(&self, out: &str) -> PathBuf {
        let runs = fs::read_dir(self.world.path(out).join("metaworld/policy")).unwrap();
        let mut runs: Vec<PathBuf> = runs.map(|run| run.unwrap().path()).collect();
        assert_eq!(runs.len(), 1);
        runs.remove(0)
    }

    pub fn outcome(&self, out: &str) -> Outcome {
        let mut record = self.record(out);
        Outcome {
            metrics: record["outcome"]["metrics"].take(),
            curve: record["outcome"]["curve"].take(),
            rows: fs::read(self.folder(out).join("predictions.parquet")).unwrap(),
        }
    }
}
