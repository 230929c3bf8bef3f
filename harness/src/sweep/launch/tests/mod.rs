mod config;
mod launches;
mod scripts;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

/// A state folder and, beside it, a folder with stand-ins for Slurm's programs.
struct World {
    root: TempDir,
}

const PROGRAMS: [&str; 4] = ["sbatch", "squeue", "scancel", "scontrol"];

impl World {
    fn new(programs: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("bin")).unwrap();
        fs::create_dir_all(root.path().join("state")).unwrap();
        let stand_in =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/sweep/launch/tests/slurm.sh");
        for program in programs {
            std::os::unix::fs::symlink(&stand_in, root.path().join("bin").join(program)).unwrap();
        }
        Self { root }
    }

    fn bin(&self) -> PathBuf {
        self.root.path().join("bin")
    }

    fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    fn say(&self, file: &str, text: &str) {
        fs::write(self.bin().join(file), text).unwrap();
    }

    /// Calls since the last question, without the temporary folder.
    fn asked(&self) -> String {
        let asked = fs::read_to_string(self.bin().join("asked")).unwrap_or_default();
        let _ = fs::remove_file(self.bin().join("asked"));
        asked.replace(&*self.root.path().to_string_lossy(), "[ROOT]")
    }

    fn launch_of(&self, id: &str) -> Launch {
        Launch {
            state: self.state(),
            name: "blocks and heads".to_owned(),
            id: id.to_owned(),
            directory: self.root.path().to_path_buf(),
        }
    }

    fn slurm(&self) -> Slurm {
        Slurm { search: self.bin().into(), config: Config::default() }
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// Features, cells, tables.
fn three() -> Vec<Job> {
    let job = |kind, words_: &[&str], tasks, after| Job {
        kind,
        command: words(words_),
        tasks,
        most: None,
        after,
        gpu: true,
        minutes: None,
        memory_gb: None,
    };
    let work: &[&str] = &["/opt/pixio eval/pixio-eval", "work", "/data/it's here"];
    vec![
        job(JobKind::Extract, work, 2, None),
        Job {
            most: Some(4),
            minutes: Some(50),
            memory_gb: Some(24),
            ..job(JobKind::Probe, work, 12, Some(0))
        },
        Job { gpu: false, ..job(JobKind::Table, &["/opt/pixio-eval", "table"], 1, Some(1)) },
    ]
}
