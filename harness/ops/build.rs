//! Compiles `kernels/*.cu` for GPUs, one fat binary a file, where the feature `cuda` asks for it.
//!
//! nvcc is `$NVCC`, or `bin/nvcc` in `$CUDA_HOME` or `$CUDA_PATH`, or `nvcc` of the `PATH`. A binary holds code
//! for compute capabilities 8.0, 8.6, 8.9 and 9.0 and PTX of the last for newer ones;
//! `PIXIO_EVAL_CUDA_ARCHS=90` (several with commas) makes a build for fewer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo:rerun-if-changed=kernels");
    // Test programs too take the functions of CUDA's libraries from `pixio-eval-cuda`.
    println!("cargo:rustc-link-arg=-Wl,--undefined=pixio_eval_cuda_resolve");
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if let Err(error) = build() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let nvcc = nvcc();
    let archs = env::var("DEP_PIXIO_EVAL_CUDA_ARCHS").map_err(|e| e.to_string())?;
    let mut options = vec!["-fatbin".to_owned(), "-O3".to_owned(), "-std=c++17".to_owned()];
    let mut archs = archs.split(',').map(str::trim).peekable();
    while let Some(arch) = archs.next() {
        if arch.parse::<u32>().is_err() {
            return Err(format!(
                "PIXIO_EVAL_CUDA_ARCHS: expected compute capabilities as in 80,86,90, found {arch:?}"
            ));
        }
        let code = match archs.peek() {
            Some(_) => format!("sm_{arch}"),
            None => format!("[sm_{arch},compute_{arch}]"),
        };
        options.extend(["-gencode".to_owned(), format!("arch=compute_{arch},code={code}")]);
    }
    let (sources, headers) = files(Path::new("kernels"))?;
    let newest_header = headers.iter().filter_map(|h| modified(h)).max();
    let command_line = format!("{} {}", nvcc.display(), options.join(" "));
    let mut table = String::from("&[\n");
    let mut running = Vec::new();
    for source in sources {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // Kernels that only tests run.
        if name == "emulation" {
            continue;
        }
        let binary = folder.join(format!("{name}.fatbin"));
        table.push_str(&format!("    ({name:?}, include_bytes!({binary:?})),\n"));
        let made_by = folder.join(format!("{name}.command"));
        let current = fs::read_to_string(&made_by).is_ok_and(|line| line == command_line)
            && modified(&binary) > modified(&source).max(newest_header);
        if !current {
            let _ = fs::remove_file(&made_by);
            let mut command = Command::new(&nvcc);
            command.args(&options).arg("-o").arg(&binary).arg(&source);
            running.push((source, made_by, std::thread::spawn(move || command.output())));
        }
    }
    table.push(']');
    for (source, made_by, thread) in running {
        let output = thread.join().map_err(|_| "a thread of the build panicked")?.map_err(|error| {
            format!(
                "cannot run {}: {error}. The feature `cuda` needs nvcc of the CUDA toolkit (12.0 or newer): put it \
                 on the PATH, or set NVCC to it or CUDA_HOME to its toolkit.",
                nvcc.display()
            )
        })?;
        if !output.status.success() {
            return Err(format!(
                "{} of {} failed ({}):\n{}{}",
                nvcc.display(),
                source.display(),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        fs::write(&made_by, &command_line).map_err(|e| format!("{}: {e}", made_by.display()))?;
    }
    let table_path = folder.join("kernels.rs");
    fs::write(&table_path, table).map_err(|e| format!("{}: {e}", table_path.display()))
}

fn nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(env::var_os)
        .map(|home| PathBuf::from(home).join("bin/nvcc"))
        .find(|nvcc| nvcc.exists())
        .unwrap_or_else(|| "nvcc".into())
}

/// The `.cu` files of a folder, sorted, and its `.cuh` files.
fn files(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    let with = |extension: &str| -> Vec<PathBuf> {
        paths.iter().filter(|p| p.extension().is_some_and(|e| e == extension)).cloned().collect()
    };
    Ok((with("cu"), with("cuh")))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}
