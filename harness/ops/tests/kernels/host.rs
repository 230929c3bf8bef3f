//! Kernels compiled by the machine's C++ compiler, and their launches.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use libloading::{Library, Symbol};

type Entry = unsafe extern "C" fn(
    grid: *const u32,
    block: *const u32,
    shared: u32,
    arguments: *const *const c_void,
) -> *const c_char;

/// The kernels of one file of `kernels/`.
#[derive(Clone, Copy)]
pub struct Kernels(&'static Library);

/// An argument of a kernel, passed by its address as to CUDA.
pub trait Argument {
    fn address(&self) -> *const c_void;
}

impl<T: Copy> Argument for T {
    fn address(&self) -> *const c_void {
        std::ptr::from_ref(self).cast()
    }
}

/// The kernels of `kernels/{name}.cu`, compiled once; none, said on standard error, without a C++ compiler.
pub fn kernels(name: &'static str) -> Option<Kernels> {
    type Libraries = Mutex<HashMap<&'static str, &'static OnceLock<Option<Kernels>>>>;
    static LIBRARIES: OnceLock<Libraries> = OnceLock::new();
    let library: &OnceLock<_> = LIBRARIES
        .get_or_init(Mutex::default)
        .lock()
        .unwrap()
        .entry(name)
        .or_insert_with(|| Box::leak(Box::default()));
    let found = *library.get_or_init(|| compile(name));
    if found.is_none() {
        eprintln!("skipped: no C++ compiler (CXX or c++) for kernels/{name}.cu");
    }
    found
}

fn compile(name: &str) -> Option<Kernels> {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join(format!("{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("kernels/{name}.cu"));
    let output = Command::new(compiler)
        // The fibres change stacks by longjmp, which the fortified one refuses.
        .args(["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", "-Wall", "-Wextra"])
        // Not every compiler knows each of these warnings.
        .args(["-Wno-unknown-warning-option", "-Wno-unknown-pragmas", "-Wno-unused-parameter"])
        .args(["-Wno-clobbered", "-Werror", "-o"])
        .arg(&library)
        .args(["-x", "c++"])
        .arg(&source)
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: the library was made from our source just now, and has no initialisers of consequence.
    Some(Kernels(Box::leak(Box::new(unsafe { Library::new(&library) }.unwrap()))))
}

impl Kernels {
    /// Runs `kernel` over `grid` blocks of `block` threads and waits for it.
    ///
    /// Pointers among the arguments must be valid for what the kernel reads and writes.
    #[track_caller]
    pub fn launch(
        self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared: usize,
        arguments: &[&dyn Argument],
    ) {
        if let Err(error) = self.try_launch(kernel, grid, block, shared, arguments) {
            panic!("{kernel}: {error}");
        }
    }

    /// As [`Kernels::launch`], with what the emulation finds wrong.
    pub fn try_launch(
        self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared: usize,
        arguments: &[&dyn Argument],
    ) -> Result<(), String> {
        // SAFETY: every kernel has an entry of this type (`KERNEL` in portable.cuh).
        let entry: Symbol<Entry> = unsafe { self.0.get(kernel) }.unwrap();
        let addresses: Vec<_> = arguments.iter().map(|a| <dyn Argument>::address(*a)).collect();
        // SAFETY: the test passes what the kernel takes, as to a launch on a GPU.
        let error = unsafe {
            entry(grid.as_ptr(), block.as_ptr(), shared.try_into().unwrap(), addresses.as_ptr())
        };
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: an error is a text that lives until the thread's next launch.
        Err(unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned())
    }

    /// Rows that the last launch of this thread had to load one after the other for want of banks.
    pub fn shared_conflicts(self) -> u64 {
        // SAFETY: the emulation defines the function.
        let count: Symbol<unsafe extern "C" fn() -> u64> =
            unsafe { self.0.get("shared_conflicts") }.unwrap();
        // SAFETY: it only reads a counter.
        unsafe { count() }
    }
}

/// Numbers of a fixed sequence in -1..1.
pub fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Fails unless every element is within `tolerance` of the larger of 1 and what is expected.
#[track_caller]
pub fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(f) - e).abs() / e.abs().max(1.0);
        assert!(off <= tolerance, "element {i}: found {f}, expected {e}");
    }
}
