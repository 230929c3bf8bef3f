//! Writes a trampoline for each function of `symbols/*.txt`, and the names of all of them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs, io};

/// The libraries, in the order of `Library` in `src/libraries.rs`.
const LIBRARIES: [&str; 7] =
    ["driver", "runtime", "cublas", "cublaslt", "curand", "nvrtc", "cudnn"];

/// Compute capabilities that our kernels are compiled for; PTX of the last serves newer ones.
const ARCHS: &str = "80,86,89,90";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=symbols");
    for name in ["CUDARC_CUDA_VERSION", "CUDA_COMPUTE_CAP", "PIXIO_EVAL_CUDA_ARCHS"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let version = toolkit();
    println!("cargo:rustc-env=PIXIO_EVAL_CUDA_VERSION={version}");
    println!("cargo:rustc-env=PIXIO_EVAL_CUDA_MAJOR={}", version / 1000);
    let capability = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "80".to_owned());
    println!("cargo:rustc-env=PIXIO_EVAL_CUDA_CAPABILITY={capability}");
    let archs = env::var("PIXIO_EVAL_CUDA_ARCHS").unwrap_or_else(|_| ARCHS.to_owned());
    println!("cargo:rustc-env=PIXIO_EVAL_CUDA_ARCHS={archs}");
    println!("cargo:archs={archs}");

    let mut names = Vec::new();
    for (library, file) in LIBRARIES.iter().enumerate() {
        let text = fs::read_to_string(format!("symbols/{file}.txt"))?;
        names.extend(text.split_whitespace().map(|name| (library, name.to_owned())));
    }
    let mut table = String::from("static SYMBOLS: &[(usize, &CStr)] = &[\n");
    for (library, name) in &names {
        let _ = writeln!(table, "    ({library}, c{name:?}),");
    }
    table += "];\n";
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("symbols.rs"), table)?;
    let names: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
    fs::write(out.join("trampolines.s"), x86_64(&names))
}

/// Version of the toolkit that cudarc's bindings are for, found as cudarc finds it: 13000 for 13.0.
fn toolkit() -> u32 {
    let given = env::var("CUDARC_CUDA_VERSION").ok().and_then(|v| v.parse().ok());
    let asked = || {
        let output = Command::new("nvcc").arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let mut numbers = text.split("release ").nth(1)?.split(&['.', ','][..]);
        let mut next = || numbers.next()?.trim().parse::<u32>().ok();
        Some(1000 * next()? + 10 * next()?)
    };
    given.or_else(asked).unwrap_or(13000)
}

/// Each function jumps to what its slot holds: at first, to code that asks `pixio_eval_cuda_resolve` for
/// the function's address, with every register that carries an argument kept, and puts it there.
fn x86_64(names: &[&str]) -> String {
    let mut text = String::from(".text\n");
    for (index, name) in names.iter().enumerate() {
        let _ = writeln!(
            text,
            ".globl {name}\n.type {name},@function\n{name}:\n    \
             jmp *pixio_eval_cuda_slots+{}(%rip)\n.size {name},.-{name}\n\
             .Lpixio_eval_cuda_{index}:\n    pushq ${index}\n    jmp .Lpixio_eval_cuda_first",
            8 * index
        );
    }
    text += FIRST_CALL;
    text += ".data\n.balign 8\n.globl pixio_eval_cuda_slots\npixio_eval_cuda_slots:\n";
    for index in 0..names.len() {
        let _ = writeln!(text, "    .quad .Lpixio_eval_cuda_{index}");
    }
    text + ".text\n"
}

const FIRST_CALL: &str = "
.Lpixio_eval_cuda_first:
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %r8
    pushq %r9
    pushq %rax
    subq $136, %rsp
    movups %xmm0, (%rsp)
    movups %xmm1, 16(%rsp)
    movups %xmm2, 32(%rsp)
    movups %xmm3, 48(%rsp)
    movups %xmm4, 64(%rsp)
    movups %xmm5, 80(%rsp)
    movups %xmm6, 96(%rsp)
    movups %xmm7, 112(%rsp)
    movq 192(%rsp), %rdi
    call pixio_eval_cuda_resolve
    movq %rax, %r11
    movups (%rsp), %xmm0
    movups 16(%rsp), %xmm1
    movups 32(%rsp), %xmm2
    movups 48(%rsp), %xmm3
    movups 64(%rsp), %xmm4
    movups 80(%rsp), %xmm5
    movups 96(%rsp), %xmm6
    movups 112(%rsp), %xmm7
    addq $136, %rsp
    popq %rax
    popq %r9
    popq %r8
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    addq $8, %rsp
    jmp *%r11
";
