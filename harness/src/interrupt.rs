//! Ctrl-C: the first asks the work to stop at the next safe point, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Exit status of an interrupted command.
pub const EXIT_INTERRUPTED: i32 = 130;

/// Installs the handler (SIGINT, SIGTERM, SIGHUP).
pub fn install() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(EXIT_INTERRUPTED);
        }
        eprintln!("stopping: keeping what is done (once more to stop at once)");
    })
}

/// Whether a stop was asked for.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
