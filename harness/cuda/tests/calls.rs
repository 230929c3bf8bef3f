//! Calls through the trampolines, without libraries and into libraries made here.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

use std::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_void};
use std::process::Command;

unsafe extern "C" {
    fn cuInit(flags: c_uint) -> c_int;
    fn cublasGetStatusString(status: c_int) -> *const c_char;
    fn curandGenerateNormal(
        generator: *mut c_void,
        to: *mut f32,
        count: usize,
        mean: f32,
        deviation: f32,
    ) -> c_int;
    fn cublasSgemmStridedBatched(
        handle: *mut c_void,
        a_form: c_int,
        b_form: c_int,
        m: c_int,
        n: c_int,
        k: c_int,
        alpha: *const f32,
        a: *const f32,
        a_row: c_int,
        a_stride: c_longlong,
        b: *const f32,
        b_row: c_int,
        b_stride: c_longlong,
        beta: *const f32,
        c: *mut f32,
        c_row: c_int,
        c_stride: c_longlong,
        count: c_int,
    ) -> c_int;
}

/// Set in the process that a test starts again with libraries of its own.
const AGAIN: &str = "PIXIO_EVAL_CUDA_TEST_AGAIN";

fn pointer<T>(value: usize) -> *mut T {
    std::ptr::without_provenance_mut(value)
}

fn gemm() -> c_int {
    // SAFETY: neither the fake nor what stands in for a missing library reads through the pointers.
    unsafe {
        cublasSgemmStridedBatched(
            pointer(1),
            2,
            3,
            4,
            5,
            6,
            pointer(7),
            pointer(8),
            9,
            10,
            pointer(11),
            12,
            13,
            pointer(14),
            pointer(15),
            16,
            17,
            18,
        )
    }
}

/// Twice each: the first call goes through the search, the second straight to the function.
#[test]
fn without_libraries_each_call_returns_its_librarys_error() {
    if std::env::var_os(AGAIN).is_some() || pixio_eval_cuda::missing().is_empty() {
        return;
    }
    for _ in 0..2 {
        // SAFETY: as above.
        unsafe {
            assert_eq!(cuInit(0), 100);
            assert_eq!(curandGenerateNormal(pointer(1), pointer(2), 3, 4.5, 5.5), 203);
        }
        assert_eq!(gemm(), 1);
    }
    // SAFETY: what stands in for it returns text of the program.
    let text = unsafe { CStr::from_ptr(cublasGetStatusString(1)) };
    assert_eq!(text, c"CUDA's library is not there");
    assert!(matches!(pixio_eval_cuda::devices(), Err(pixio_eval_cuda::DriverError::Missing(_))));
    assert_eq!(pixio_eval_cuda::driver_version(), None);
}

#[test]
fn arguments_of_every_kind_reach_the_library() {
    if std::env::var_os(AGAIN).is_some() {
        return arguments_arrive();
    }
    let folder = tempfile::tempdir().unwrap();
    let fakes = [
        ("libcuda.so.1", "int cuInit(unsigned flags) { return flags ? 40 + flags : 0; }
          int cuDriverGetVersion(int *v) { *v = 99000; return 0; }
          int cuDeviceGetCount(int *n) { *n = 2; return 0; }
          int cuDeviceGet(int *d, int i) { *d = i; return 0; }
          int cuDeviceGetName(char *s, int n, int d) { s[0] = 'A' + d; s[1] = n == 127 ? 0 : '?'; return 0; }
          int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 9 - 2 * d : a == 76 ? 0 : -1; return 0; }
          int cuDeviceTotalMem_v2(unsigned long *b, int d) { *b = 1000 + d; return 0; }"),
        ("libcurand.so.10", "int curandGenerateNormal(void *g, float *t, unsigned long n, float m, float d)
          { return (long)g == 1 && (long)t == 2 && n == 3 && m == 4.5f && d == 5.5f ? 50 : 0; }"),
        (concat!("libcublasLt.so.", "MAJOR"), "int unused;"),
        (concat!("libcublas.so.", "MAJOR"), "int cublasSgemmStridedBatched(void *h, int a, int b, int m, int n, int k,
          float *x, float *p, int r, long long s, float *q, int t, long long u, float *y, float *c, int v,
          long long w, int z) { return (long)h == 1 && a == 2 && b == 3 && m == 4 && n == 5 && k == 6 &&
          (long)x == 7 && (long)p == 8 && r == 9 && s == 10 && (long)q == 11 && t == 12 && u == 13 &&
          (long)y == 14 && (long)c == 15 && v == 16 && w == 17 && z == 18 ? 60 : 0; }"),
    ];
    for (file, source) in fakes {
        let file = folder.path().join(file.replace("MAJOR", env!("PIXIO_EVAL_CUDA_MAJOR")));
        let code = folder.path().join("code.c");
        std::fs::write(&code, source).unwrap();
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let mut made = Command::new(compiler);
        made.args(["-w", "-shared", "-fPIC", "-o"]).arg(file).arg(code);
        assert!(made.status().unwrap().success());
    }
    let again = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "arguments_of_every_kind_reach_the_library", "--nocapture"])
        .env(AGAIN, "1")
        .env("LD_LIBRARY_PATH", folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.success(), "{told}");
}

fn arguments_arrive() {
    for _ in 0..2 {
        // SAFETY: the fakes read no memory.
        unsafe {
            assert_eq!((cuInit(0), cuInit(2)), (0, 42));
            assert_eq!(curandGenerateNormal(pointer(1), pointer(2), 3, 4.5, 5.5), 50);
        }
        assert_eq!(gemm(), 60);
    }
    let found: Vec<_> = pixio_eval_cuda::libraries().into_iter().flatten().collect();
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|found| found.path.as_ref().is_some_and(|path| path.is_file())));
    assert_eq!(pixio_eval_cuda::driver_version(), Some(99000));
    let gpus = pixio_eval_cuda::devices().unwrap();
    let names: Vec<_> =
        gpus.iter().map(|gpu| (gpu.name.as_str(), gpu.capability, gpu.memory)).collect();
    assert_eq!(names, [("A", (9, 0), 1000), ("B", (7, 0), 1001)]);
    assert!(matches!(
        pixio_eval_cuda::device(1),
        Err(pixio_eval_cuda::DriverError::Capability { .. })
    ));
    let missing = pixio_eval_cuda::device(2).unwrap_err();
    assert_eq!(missing.to_string(), "there is no GPU 2: the driver sees GPUs 0 to 1");
}
