//! A process that is killed leaves nothing wrong, and the next one goes on.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::*;

const ROUNDS: usize = 100;

/// Counter-based: the same moments in every run of the test.
fn random(counter: usize, below: u64) -> u64 {
    let hash = sha256(&counter.to_le_bytes());
    u64::from_str_radix(&hash[..15], 16).unwrap() % below
}

/// Waits for something of the hub, unless the process ends before.
fn until(child: &mut Child, reached: impl Fn() -> bool) {
    let began = Instant::now();
    while !reached() && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "stuck");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_kill_at_any_moment_leaves_nothing_wrong() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    let size = mini()[SINGLE].len();
    hub.with(|state| state.pace = Some(16 << 20));
    let (mut parts, mut wholes, mut ended) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut command = command(&world, &hub, &PULL);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (bytes, ends) = hub.with(|state| (state.bytes, state.ends));
        match round % 5 {
            // In the midst of the transfer.
            0 | 1 => {
                let more = random(round, size as u64) as usize;
                until(&mut child, || hub.with(|s| s.bytes >= bytes + more || s.ends > ends));
            }
            // After the last byte: while the file is synced, hashed, renamed and linked.
            2 | 3 => {
                until(&mut child, || hub.with(|state| state.ends > ends));
                std::thread::sleep(Duration::from_micros(random(round, 12_000)));
            }
            // Before and around the first byte.
            _ => std::thread::sleep(Duration::from_micros(random(round, 150_000))),
        }
        child.kill().unwrap();
        ended += usize::from(child.wait().unwrap().success());
        assert_cache_is_clean(&world, &mini());
        let file = blob(&world, SINGLE);
        parts += usize::from(
            file.with_extension("incomplete").metadata().is_ok_and(|part| part.len() > 0),
        );
        if file.exists() {
            wholes += 1;
            std::fs::remove_dir_all(cached_repository(&world)).unwrap();
        }
    }
    let ranges = hub.ranges().len();
    println!(
        "{ROUNDS} kills: {parts} left a part, {wholes} the whole file, {ended} came too late; \
         {ranges} transfers went on where another had ended"
    );
    assert!(parts >= 25 && wholes >= 5 && ranges >= 25);
    hub.with(|state| state.pace = None);
    assert_eq!(identity(&pulled(&world, &hub)), identity(&of_folder(&world)));
    assert_cache_is_clean(&world, &mini());
}

/// Standard error of a process that was asked to stop.
#[cfg(unix)]
fn interrupted(child: Child) -> String {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
#[cfg(unix)]
fn an_interruption_keeps_what_is_there() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    hub.with(|state| state.pace = Some(1 << 20));
    let mut child = command(&world, &hub, &PULL).stderr(Stdio::piped()).spawn().unwrap();
    until(&mut child, || hub.with(|state| state.bytes > 1 << 19));
    assert_snapshot!(interrupted(child), @r"
    stopping: keeping what is done (once more to stop at once)
    error: interrupted
    hint: the same command continues where this one stopped
    ");
    let part = blob(&world, SINGLE).with_extension("incomplete").metadata().unwrap().len();
    assert!(part > 0);

    // One that waits for another's lock stops too.
    let lock = world.path("hf/hub/.locks/models--test--mini");
    let lock = lock.join(format!("{}.lock", etag(SINGLE, &mini()[SINGLE])));
    let lock = std::fs::File::open(lock).unwrap();
    lock.lock().unwrap();
    let (asked, seen) = ("/model.safetensors", hub.with(|state| state.seen.len()));
    let mut child = command(&world, &hub, &PULL).stderr(Stdio::piped()).spawn().unwrap();
    until(&mut child, || {
        hub.with(|state| state.seen[seen..].iter().any(|seen| seen.path.ends_with(asked)))
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(interrupted(child).contains("model.safetensors: waiting for "));
    drop(lock);

    hub.with(|state| state.pace = None);
    pulled(&world, &hub);
    assert_eq!(hub.ranges(), [part]);
}
