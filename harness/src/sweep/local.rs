//! A sweep on this machine: one worker process a device, started again when it dies, and a live overview.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::claims::Observer;
use super::overview::Overview;
use super::{State, SweepError};
use crate::device::DeviceChoice;
use crate::interrupt;
use crate::progress::Reporter;

const POLL: Duration = Duration::from_millis(200);
/// How often a worker may end in a row with an error, or before it took anything.
const STARTS: usize = 3;
/// Lines of a log that an error shows.
const LAST: usize = 3;
/// Exit status of a worker with nothing left but cells that failed.
pub const FAILED: u8 = 1;

/// A worker's device and its share of the processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it is called: `cuda:1`, or `cpu` with a number behind it if there are several.
    pub name: String,
    /// What the worker opens.
    pub choice: DeviceChoice,
    /// Threads of its own, where workers share the processor.
    pub threads: Option<usize>,
    /// Workers that share its memory, with this one.
    pub share: usize,
}

/// Reads `--devices`: a list of indices of GPUs, `cuda:N`, `cpu`, or `cpu*N` for N workers on the processor.
pub fn parse_devices(given: &str) -> Result<Vec<Device>, SweepError> {
    let wrong = |why| SweepError::Devices { given: given.to_owned(), why };
    let mut all: Vec<Device> = Vec::new();
    for part in given.split(',').map(str::trim) {
        let (name, count) = match part.split_once('*') {
            None => (part, 1),
            Some((name, count)) => {
                let count: usize = count.parse().map_err(|_| wrong("expected a number after *"))?;
                (name, count)
            }
        };
        let choice = match name.parse::<usize>() {
            Ok(index) => DeviceChoice::Cuda(index),
            Err(_) => name
                .parse()
                .map_err(|_| wrong("expected GPU indices, cuda:N, cpu or cpu*N, with commas"))?,
        };
        if count == 0 {
            return Err(wrong("expected at least one worker"));
        }
        let name = choice.to_string();
        all.extend((0..count).map(|_| Device {
            name: name.clone(),
            choice,
            threads: None,
            share: 1,
        }));
    }
    let gpu = |device: &Device| matches!(device.choice, DeviceChoice::Cuda(_));
    let twice = all.iter().enumerate().any(|(at, d)| gpu(d) && all[..at].contains(d));
    if twice {
        return Err(wrong("a GPU takes one worker"));
    }
    if all.iter().any(gpu) && !all.iter().all(gpu) {
        return Err(wrong("expected GPUs or the processor, not both: one is far slower"));
    }
    let many = all.iter().filter(|device| !gpu(device)).count();
    if many > 1 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (mut number, threads) = (0, Some((cores / many).max(1)));
        for device in all.iter_mut().filter(|device| !gpu(device)) {
            number += 1;
            device.name = format!("{}-{number}", device.name);
            device.threads = threads;
            device.share = many;
        }
    }
    Ok(all)
}

/// What starts workers.
pub struct Local<'a> {
    /// The sweep.
    pub state: &'a State,
    /// The launch.
    pub launch: &'a str,
    /// One worker each.
    pub devices: &'a [Device],
    /// This program.
    pub program: PathBuf,
    /// After what silence another machine's worker counts as dead.
    pub expiry: Duration,
    /// For messages.
    pub reporter: &'a Reporter,
}

struct Slot<'a> {
    device: &'a Device,
    child: Option<Child>,
    log: PathBuf,
    deaths: usize,
    /// Ended because nothing is left for it.
    over: bool,
}

impl Local<'_> {
    /// Keeps a worker on each device until nothing is left to do. An interruption is passed on, and waited
    /// for.
    pub fn run(&self) -> Result<(), SweepError> {
        let mut slots: Vec<Slot<'_>> = self
            .devices
            .iter()
            .map(|device| Slot {
                device,
                child: None,
                log: self.state.logs().join(format!("{}-{}.log", self.launch, device.name)),
                deaths: 0,
                over: false,
            })
            .collect();
        let observer = Observer::new(self.state.folder(), self.expiry);
        let mut overview = Overview::new(self.reporter);
        let (mut told, mut gone) = (false, None);
        let ended = loop {
            let stopping = interrupt::requested() || self.state.is_cancelled();
            if stopping && !std::mem::replace(&mut told, true) {
                slots.iter_mut().filter_map(|slot| slot.child.as_mut()).for_each(stop);
            }
            let mut alive = false;
            for slot in &mut slots {
                match self.look(slot, stopping, &observer) {
                    Ok(runs) => alive |= runs,
                    Err(error) => {
                        self.reporter.warn(error.to_string());
                        gone = Some(error);
                    }
                }
            }
            if !alive {
                // Where another device did the work, it is done.
                let none = slots.iter().all(|slot| slot.deaths >= STARTS);
                break gone.filter(|_| none).map_or(Ok(()), Err);
            }
            overview.show(&observer.workers()?, self.launch);
            std::thread::sleep(POLL);
        };
        overview.clear();
        ended
    }

    /// Looks after one worker; whether it runs.
    fn look(
        &self,
        slot: &mut Slot<'_>,
        stopping: bool,
        observer: &Observer,
    ) -> Result<bool, SweepError> {
        if let Some(child) = &mut slot.child {
            let id = child.id();
            let status = match child.try_wait() {
                Ok(None) => return Ok(true),
                Ok(Some(status)) => status,
                Err(source) => {
                    return Err(SweepError::Io {
                        doing: "wait for",
                        path: self.program.clone(),
                        source,
                    });
                }
            };
            slot.child = None;
            let code = status.code();
            if code == Some(0) || code == Some(i32::from(FAILED)) {
                slot.over = true;
            } else if !stopping {
                let (device, log) = (&slot.device.name, slot.log.display());
                self.reporter.warn(format!("the worker on {device} ended ({status}): {log}"));
                // What dies at its work is a matter of the cell that it took.
                let worker = observer.workers()?.into_iter().find(|w| w.file.process.pid == id);
                let took = worker.is_some_and(|worker| !worker.file.status.unit.is_empty());
                slot.deaths = if took && code.is_none() { 0 } else { slot.deaths + 1 };
                if slot.deaths >= STARTS {
                    slot.over = true;
                    let why = last_words(&slot.log);
                    let (device, log) = (slot.device.name.clone(), slot.log.clone());
                    return Err(SweepError::NoWorker { device, why, log });
                }
            }
        }
        if slot.over || stopping {
            return Ok(false);
        }
        slot.child = Some(self.start(slot)?);
        Ok(true)
    }

    fn start(&self, slot: &Slot<'_>) -> Result<Child, SweepError> {
        let log = OpenOptions::new().create(true).append(true).open(&slot.log);
        let log = log.map_err(SweepError::io("open", &slot.log))?;
        let mut command = Command::new(&self.program);
        command.arg("work").arg(self.state.folder()).args(["--launch", self.launch]);
        let device = slot.device.choice.to_string();
        command.args(["--device", &device, "--as", &slot.device.name]);
        command.args(["--share", &slot.device.share.to_string()]);
        command.args(["--parent", &std::process::id().to_string()]);
        if let Some(threads) = slot.device.threads {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        // In a group of its own, a worker does not get the terminal's Ctrl-C, but one word from here: a second
        // signal would end it at once.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log));
        command.spawn().map_err(SweepError::io("start", &self.program))
    }
}

/// Asks a worker to stop at its next safe point.
fn stop(child: &mut Child) {
    #[cfg(unix)]
    {
        // Without a library for signals of others: `kill` is everywhere.
        let id = child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).stderr(Stdio::null()).status();
    }
    #[cfg(not(unix))]
    let _ = child.kill();
}

/// The last lines of a log.
fn last_words(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LAST)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_or_refused() {
        let names = |given| -> Vec<String> {
            parse_devices(given).unwrap().into_iter().map(|device| device.name).collect()
        };
        assert_eq!(names("0,cuda:2"), ["cuda:0", "cuda:2"]);
        assert_eq!(names("cpu"), ["cpu"]);
        assert_eq!(names("cpu*2"), ["cpu-1", "cpu-2"]);
        let threads: Vec<_> = parse_devices("cpu*2").unwrap().iter().map(|d| d.threads).collect();
        assert!(threads[0].is_some() && threads[0] == threads[1]);
        for (given, why) in [
            ("0,0", "a GPU takes one worker"),
            ("0,cpu", "not both"),
            ("gpu", "expected GPU indices"),
            ("", "expected GPU indices"),
            ("cpu*0", "expected at least one worker"),
            ("cpu*x", "expected a number after *"),
        ] {
            let error = parse_devices(given).unwrap_err().to_string();
            assert!(error.contains(why), "{given}: {error}");
        }
    }
}
