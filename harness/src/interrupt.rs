//! Ctrl-C: the first asks the work to stop at the next safe point, the second ends the process.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// By a signal: the next one ends the process.
static SIGNALLED: AtomicBool = AtomicBool::new(false);
/// By the program itself.
static REQUESTED: AtomicBool = AtomicBool::new(false);
static PAUSED: AtomicBool = AtomicBool::new(false);
/// SIGUSR1, with which schedulers announce that a job's time is nearly over.
static ANNOUNCED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Exit status of an interrupted command.
pub const EXIT_INTERRUPTED: i32 = 130;

/// Why the handler cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// SIGINT, SIGTERM, SIGHUP.
    #[error(transparent)]
    Stop(#[from] ctrlc::Error),
    /// SIGUSR1.
    #[error(transparent)]
    Announced(#[from] io::Error),
}

/// Installs the handler (SIGINT, SIGTERM, SIGHUP, and SIGUSR1, which stops as the first of these does).
pub fn install() -> Result<(), HandlerError> {
    #[cfg(unix)]
    {
        let flag = Arc::clone(ANNOUNCED.get_or_init(Arc::default));
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, flag)?;
    }
    ctrlc::set_handler(|| {
        if SIGNALLED.swap(true, Ordering::SeqCst) {
            std::process::exit(EXIT_INTERRUPTED);
        }
        eprintln!("stopping: keeping what is done (once more to stop at once)");
    })?;
    Ok(())
}

/// Asks the work to stop.
pub fn request() {
    REQUESTED.store(true, Ordering::Relaxed);
}

/// Asks the work that is under way to stop, until [`resume`].
pub fn pause() {
    PAUSED.store(true, Ordering::Relaxed);
}

/// Lets other work begin after a [`pause`].
pub fn resume() {
    PAUSED.store(false, Ordering::Relaxed);
}

/// Whether a stop was asked for.
pub fn requested() -> bool {
    let announced = || ANNOUNCED.get().is_some_and(|flag| flag.load(Ordering::Relaxed));
    let asked = SIGNALLED.load(Ordering::Relaxed) || REQUESTED.load(Ordering::Relaxed);
    asked || PAUSED.load(Ordering::Relaxed) || announced()
}
