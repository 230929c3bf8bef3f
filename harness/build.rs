//! Records the git commit this program is built from, for every result it writes, and takes in the
//! source of the simulators' workers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> io::Result<()> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    let commit = if changed { format!("{commit}-dirty") } else { commit };
    println!("cargo:rustc-env=PIXIO_EVAL_COMMIT={commit}");
    // HEAD moves with a checkout, its log with a commit.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file]);
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    for sources in
        ["src", "schema/src", "ops/src", "../heads/src", "../results/src", "../tasks/src"]
    {
        println!("cargo:rerun-if-changed={sources}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        // Test programs too take the functions of CUDA's libraries from `pixio-eval-cuda`.
        println!("cargo:rustc-link-arg=-Wl,--undefined=pixio_eval_cuda_resolve");
    }
    simulators()
}

/// Writes `FILES`, the path and text of every file of the workers' package.
fn simulators() -> io::Result<()> {
    println!("cargo:rerun-if-changed=simulators");
    let root = Path::new("simulators");
    let mut files = Vec::new();
    python_files(&root.join("pixio_simulators"), &mut files)?;
    files.sort();
    let mut list = String::from("static FILES: &[(&str, &str)] = &[\n");
    for file in &files {
        let name = file.strip_prefix(root).unwrap_or(file);
        list += &format!("    ({name:?}, include_str!({:?})),\n", fs::canonicalize(file)?);
    }
    list += "];\n";
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("simulators.rs"), list)
}

fn python_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            python_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "py") {
            files.push(path);
        }
    }
    Ok(())
}
