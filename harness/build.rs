//! Records the git commit this program is built from, for every result it writes.

use std::path::Path;
use std::process::Command;

fn main() {
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
}
