//! CUDA's libraries, looked for when they are first called and not when the program starts.
//!
//! candle links the libraries of CUDA, so that a program with it would not even print its version on a
//! machine without a GPU's driver. This crate defines each function that candle, cudarc and our own code
//! can call, as a jump to the library's own (`symbols/*.txt` and `build.rs`): the linker takes these and records
//! no library of CUDA in the program. The first call of a function opens its library and keeps the address;
//! the calls after it cost one jump. Where a library cannot be had its functions return an error code of
//! their own kind, and [`missing`] says which those are.
//!
//! On processors other than x86-64 there are no trampolines: the libraries are linked as usual.
//!
//! # When a dependency calls a new function
//! The lists hold every function of cudarc's bindings, of all versions of CUDA, and those of the runtime that
//! candle's own objects call. Where one lacks, the linker records its library again, and the test
//! `no_library_of_cuda_is_linked` names that. Add the function to the list of its library.

mod driver;
mod libraries;

pub use driver::{DriverError, Gpu, built_for, device, devices, driver_release, driver_version};
pub use libraries::{Found, Missing, libraries, missing};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod trampolines {
    use std::ffi::c_void;

    std::arch::global_asm!(
        include_str!(concat!(env!("OUT_DIR"), "/trampolines.s")),
        options(att_syntax, raw)
    );

    /// The address that a function's slot gets at its first call; threads that race write the same.
    #[unsafe(no_mangle)]
    extern "C" fn pixio_eval_cuda_resolve(index: usize) -> *const c_void {
        let address = crate::libraries::address(index);
        // SAFETY: the trampolines call with indices below the number of slots, and slots are only ever
        // written here, with aligned whole addresses.
        unsafe {
            (&raw mut pixio_eval_cuda_slots)
                .cast::<*const c_void>()
                .add(index)
                .write_volatile(address);
        };
        address
    }

    unsafe extern "C" {
        static mut pixio_eval_cuda_slots: [*const c_void; 0];
    }
}
