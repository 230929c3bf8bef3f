//! The command `pixio-eval`; everything is in the library.

/// The system allocator returns the encoder's large buffers to the system at every step and pays
/// for their pages again at the next.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    pixio_eval::allocator::keep_freed_memory();
    pixio_eval::cli::main()
}
