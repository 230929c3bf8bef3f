//! Processes told apart, on this machine and others, and this machine's clock.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A process, as far as it can be told from all others. What the system does not say is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Name of the machine.
    pub host: String,
    /// Number of the process.
    pub pid: u32,
    /// The machine's boot: two machines, or one before and after a reboot, differ.
    pub boot: Option<String>,
    /// Where the number counts: two containers on one machine differ.
    pub namespace: Option<String>,
    /// The user, since a system may hide processes of others.
    pub user: Option<u32>,
    /// When it started, in ticks since the boot, since numbers are used again.
    pub started: Option<u64>,
}

impl Process {
    /// The calling process.
    pub fn current() -> Self {
        let line = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let variable = |name: &str| std::env::var(name).ok();
        let host = line("/proc/sys/kernel/hostname")
            .or_else(|| line("/etc/hostname"))
            .or_else(|| variable("HOSTNAME"))
            .or_else(|| variable("COMPUTERNAME"))
            .filter(|name| !name.is_empty());
        let pid = std::process::id();
        // A folder /proc of another namespace has other processes under the same numbers.
        let own =
            fs::read_link("/proc/self").is_ok_and(|path| path.as_os_str() == &*pid.to_string());
        let namespace = fs::read_link("/proc/self/ns/pid").ok();
        Self {
            host: host.unwrap_or_else(|| "machine".to_owned()),
            pid,
            boot: line("/proc/sys/kernel/random/boot_id"),
            namespace: namespace.map(|path| path.to_string_lossy().into_owned()),
            user: user(),
            started: own.then(|| Stat::of(pid)).flatten().map(|stat| stat.started),
        }
    }

    /// A name for it that no other process has, fit for a file.
    pub(super) fn name(&self) -> String {
        let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let host: String = self.host.chars().take(60).map(fits).collect();
        // Its keys are random.
        let random = RandomState::new().build_hasher().finish();
        format!("{host}-{}-{:08x}", self.pid, random as u32)
    }

    /// Whether it is known to run no more, as `self`, which runs, sees it.
    pub(super) fn sees_end_of(&self, other: &Self) -> bool {
        let Some(started) = other.started.filter(|_| self.started.is_some()) else { return false };
        let told = self.boot.is_some() && self.namespace.is_some() && self.user.is_some();
        let here = (&self.host, &self.boot, &self.namespace, self.user)
            == (&other.host, &other.boot, &other.namespace, other.user);
        if !told || !here {
            return false;
        }
        match fs::read_to_string(format!("/proc/{}/stat", other.pid)) {
            Ok(text) => {
                Stat::parse(&text).is_some_and(|stat| stat.started != started || stat.over())
            }
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }
}

/// What /proc says of a process.
struct Stat {
    state: char,
    threads: u64,
    started: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Fields 3, 20 and 22 of `/proc/PID/stat` (proc_pid_stat(5)); the second may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let rest: Vec<&str> = text.rsplit_once(") ")?.1.split_whitespace().collect();
        let number = |at: usize| rest.get(at)?.parse().ok();
        Some(Self {
            state: rest.first()?.chars().next()?,
            threads: number(17)?,
            started: number(19)?,
        })
    }

    /// Whether nothing of it runs: it waits for its parent to ask how it ended, and no thread of it is
    /// still ending a write.
    fn over(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }
}

#[cfg(unix)]
fn user() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").ok().map(|data| data.uid())
}

#[cfg(not(unix))]
fn user() -> Option<u32> {
    None
}

/// Time since this machine's boot, also while it slept; the same for all its processes. `None` where
/// the system has no such clock.
#[cfg(target_os = "linux")]
pub(super) fn since_boot() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).ok()?;
    Some(Duration::new(seconds, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn since_boot() -> Option<Duration> {
    None
}

/// A clock of this process that never goes back, and counts sleep where the system can.
pub(super) fn clock() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    since_boot().unwrap_or_else(|| START.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_program_is_called() {
        let rest = "S 1 2 3 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 9 0 8675309 1000 10 0";
        let stat = Stat::parse(&format!("42 (a) Z (b) {rest}")).unwrap();
        assert_eq!((stat.state, stat.threads, stat.started), ('S', 9, 8_675_309));
        assert!(!stat.over() && Stat::parse("42 (a) S 1 2").is_none());
        let zombie = |threads| Stat { state: 'Z', threads, started: 1 }.over();
        assert!(zombie(1) && !zombie(2), "a thread that still ends a write");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_runs_and_an_ended_one_does_not() {
        let me = Process::current();
        assert!(me.started.is_some() && !me.sees_end_of(&me));
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id();
        let started = Stat::of(pid).unwrap().started;
        let other = Process { pid, started: Some(started), ..me.clone() };
        assert!(!me.sees_end_of(&other));
        assert!(me.sees_end_of(&Process { started: Some(started + 1), ..other.clone() }));
        child.kill().unwrap();
        // Not waited for yet.
        while Stat::of(pid).unwrap().state != 'Z' {
            std::thread::yield_now();
        }
        assert!(me.sees_end_of(&other));
        child.wait().unwrap();
        assert!(me.sees_end_of(&other));
        let elsewhere = |change: fn(&mut Process)| {
            let mut other = other.clone();
            change(&mut other);
            me.sees_end_of(&other)
        };
        assert!(!elsewhere(|p| p.host.push('x')));
        assert!(!elsewhere(|p| p.boot = Some("another".to_owned())));
        assert!(!elsewhere(|p| p.namespace = None));
        assert!(!elsewhere(|p| p.user = Some(54_321)));
        assert!(!elsewhere(|p| p.started = None));
    }

    #[test]
    fn clocks_go_on_and_names_differ() {
        let before = clock();
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock() >= before + Duration::from_millis(2));
        let me = Process { host: "node 7.cluster/é".to_owned(), ..Process::current() };
        let (a, b) = (me.name(), me.name());
        assert!(a != b && a.starts_with("node-7-cluster--") && super::super::is_name(&a), "{a}");
    }
}
