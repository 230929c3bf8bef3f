//! A Slurm of one node that lives as long as a test.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/slurm_node.sh");
const PROGRAMS: [&str; 5] = ["sbatch", "squeue", "scancel", "scontrol", "sinfo"];

/// It ends when this is dropped.
pub struct Node {
    folder: PathBuf,
    /// Slurm's programs for this node, whatever the environment.
    programs: TempDir,
}

impl Node {
    /// Nothing, with the reason on stderr, where Slurm is not installed or cannot be started.
    pub fn start() -> Option<Self> {
        let ran = Command::new(SCRIPT).arg("start").output().unwrap();
        let said = String::from_utf8(ran.stdout).unwrap();
        if !ran.status.success() {
            let why = String::from_utf8_lossy(&ran.stderr);
            assert_eq!(ran.status.code(), Some(77), "{why}");
            eprintln!("skipped: {why}");
            return None;
        }
        let folder = said.trim().split("SLURM_NODE=").nth(1).unwrap().trim_matches('\'');
        let programs = tempfile::tempdir().unwrap();
        let node = Self { folder: folder.into(), programs };
        for program in PROGRAMS {
            let path = node.programs.path().join(program);
            let conf = node.conf();
            let real = find(program);
            let text = format!(
                "#!/bin/sh\nexport SLURM_CONF='{}'\nexec '{}' \"$@\"\n",
                conf.display(),
                real.display()
            );
            std::fs::write(&path, text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).unwrap();
        }
        Some(node)
    }

    /// For `$SLURM_CONF`.
    pub fn conf(&self) -> PathBuf {
        self.folder.join("slurm.conf")
    }

    /// The folder with Slurm's programs for this node.
    pub fn programs(&self) -> OsString {
        self.programs.path().into()
    }

    /// Runs one of Slurm's programs.
    pub fn ask(&self, program: &str, words: &[&str]) -> String {
        let ran = Command::new(self.programs.path().join(program)).args(words).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{program} {words:?}: {}, {said}", ran.status);
        String::from_utf8(ran.stdout).unwrap()
    }
}

fn find(program: &str) -> PathBuf {
    let search = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&search)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .unwrap()
}

impl Drop for Node {
    fn drop(&mut self) {
        let folder: &Path = &self.folder;
        let _ = Command::new(SCRIPT).arg("stop").arg(folder).status();
    }
}
