//! Where the libraries are.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;

use libloading::os::unix::{Library as Handle, RTLD_GLOBAL, RTLD_NOW};

include!(concat!(env!("OUT_DIR"), "/symbols.rs"));

/// Major version of the toolkit that this was built with.
const MAJOR: &str = env!("PIXIO_EVAL_CUDA_MAJOR");

/// One library.
struct Library {
    /// As its files are called, without `lib` and `.so`.
    name: &'static str,
    /// Version of its interface where that is not the toolkit's.
    version: Option<&'static str>,
    /// Whether nothing runs without it.
    needed: bool,
    /// What its functions return where it cannot be had: CUDA_ERROR_NO_DEVICE,
    /// cudaErrorInsufficientDriver, CUBLAS_STATUS_NOT_INITIALIZED, CURAND_STATUS_INITIALIZATION_FAILED,
    /// NVRTC_ERROR_INTERNAL_ERROR, CUDNN_STATUS_NOT_INITIALIZED.
    unavailable: extern "C" fn() -> c_int,
}

/// Function that returns one number.
macro_rules! always {
    ($value:literal) => {{
        extern "C" fn always() -> c_int {
            $value
        }
        always
    }};
}

/// In the order of `LIBRARIES` in build.rs.
static LIBRARIES: [Library; 7] = [
    Library { name: "cuda", version: Some("1"), needed: true, unavailable: always!(100) },
    Library { name: "cudart", version: None, needed: false, unavailable: always!(35) },
    Library { name: "cublas", version: None, needed: true, unavailable: always!(1) },
    Library { name: "cublasLt", version: None, needed: true, unavailable: always!(1) },
    Library { name: "curand", version: Some("10"), needed: true, unavailable: always!(203) },
    Library { name: "nvrtc", version: None, needed: false, unavailable: always!(11) },
    Library { name: "cudnn", version: Some("9"), needed: false, unavailable: always!(1001) },
];

static OPEN: [OnceLock<Result<Handle, String>>; 7] = [const { OnceLock::new() }; 7];

impl Library {
    fn file(&self) -> String {
        format!("lib{}.so.{}", self.name, self.version.unwrap_or(MAJOR))
    }
}

fn open(index: usize) -> &'static Result<Handle, String> {
    OPEN[index].get_or_init(|| {
        let file = LIBRARIES[index].file();
        // SAFETY: NVIDIA's libraries may be loaded at any time; candle would have linked the same files.
        unsafe { Handle::open(Some(&file), RTLD_NOW | RTLD_GLOBAL) }.map_err(|error| {
            let source = std::error::Error::source(&error);
            let why = source.map_or_else(|| error.to_string(), ToString::to_string);
            if why.contains(&file) { why } else { format!("{file}: {why}") }
        })
    })
}

/// The function of a slot, or one that returns its library's error code, or text where it returns that.
pub(crate) fn address(slot: usize) -> *const c_void {
    extern "C" fn text() -> *const c_char {
        c"CUDA's library is not there".as_ptr()
    }
    let (library, name) = SYMBOLS[slot];
    let ends = |end: &&str| name.to_bytes().ends_with(end.as_bytes());
    // The driver's return a code and write the text elsewhere.
    let tells = library != 0 && ["String", "StatusName", "ErrorName"].iter().any(ends);
    let instead =
        if tells { text as *const c_void } else { LIBRARIES[library].unavailable as *const c_void };
    symbol(library, name).unwrap_or(instead)
}

fn symbol(library: usize, name: &CStr) -> Option<*const c_void> {
    let handle = open(library).as_ref().ok()?;
    // SAFETY: the address is not called here, and the library is never closed.
    let found = unsafe { handle.get::<*const c_void>(name.to_bytes_with_nul()) };
    found.ok().map(|symbol| symbol.into_raw().cast_const())
}

/// A function of the driver.
pub(crate) fn driver_function(name: &CStr) -> Option<*const c_void> {
    symbol(0, name)
}

/// A library of CUDA that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its file's name.
    pub file: String,
    /// The file, as far as the system tells.
    pub path: Option<PathBuf>,
}

/// A library of CUDA that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Missing {
    /// Its file's name.
    pub file: String,
    /// Whether nothing runs on a GPU without it.
    pub needed: bool,
    /// What the system's loader says, the file's name included.
    pub why: String,
}

/// Every library this program may call on a GPU, opened.
pub fn libraries() -> Vec<Result<Found, Missing>> {
    let opened: Vec<_> = (0..LIBRARIES.len()).map(open).collect();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let one = |(library, opened): (&Library, &Result<Handle, String>)| {
        let file = library.file();
        match opened {
            Ok(_) => Ok(Found { path: mapped(&maps, &format!("/lib{}.so.", library.name)), file }),
            Err(why) => Err(Missing { file, needed: library.needed, why: why.clone() }),
        }
    };
    LIBRARIES.iter().zip(opened).map(one).collect()
}

/// The file of this process's memory with `part` in its path.
fn mapped(maps: &str, part: &str) -> Option<PathBuf> {
    let line = maps.lines().find(|line| line.contains(part))?;
    line.find('/').map(|at| PathBuf::from(&line[at..]))
}

/// The libraries that nothing runs on a GPU without and that are not there.
pub fn missing() -> Vec<Missing> {
    let missing = libraries().into_iter().filter_map(Result::err);
    missing.filter(|missing| missing.needed).collect()
}
