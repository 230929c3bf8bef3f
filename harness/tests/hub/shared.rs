//! One cache for several programs: they wait for one another and fetch a file once.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::*;

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Standard error of a process that must succeed.
fn success(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    stderr
}

/// Waits until weights are on their way.
fn until_sending(hub: &Hub) {
    let began = Instant::now();
    while hub.with(|state| state.bytes) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing was sent");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_lock_is_waited_for_longer_than_a_minute() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    let locks = world.path("hf/hub/.locks/models--test--mini");
    std::fs::create_dir_all(&locks).unwrap();
    let name = format!("{}.lock", etag(SINGLE, &mini()[SINGLE]));
    let lock = std::fs::File::create(locks.join(name)).unwrap();
    lock.lock().unwrap();
    let mut child = spawn(&mut command(&world, &hub, &PULL));
    std::thread::sleep(Duration::from_secs(62));
    assert!(child.try_wait().unwrap().is_none(), "it did not wait");
    assert_eq!(hub.sent(&weights()), 0);
    lock.unlock().unwrap();
    let stderr = success(child);
    let who = if cfg!(target_os = "linux") {
        format!("model.safetensors: waiting for process {} (", std::process::id())
    } else {
        "model.safetensors: waiting for another program".to_owned()
    };
    assert!(stderr.starts_with(&who), "{stderr}");
    // A line of progress every ten seconds.
    let progress = stderr.lines().filter(|line| line.contains("(waiting): 0/3993120 bytes"));
    assert!(progress.count() >= 4, "{stderr}");
    assert_eq!(hub.sent(&weights()), 1);
    assert_cache_is_clean(&world, &mini());
}

#[test]
fn two_at_once_fetch_once() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    hub.with(|state| state.pace = Some(2 << 20));
    let both = [(); 2].map(|()| spawn(&mut command(&world, &hub, &PULL)));
    let stderr = both.map(success).concat();
    assert!(stderr.contains("model.safetensors: waiting for "), "{stderr}");
    assert_eq!(hub.sent(&weights()), 1);
    assert_eq!(hub.sent("/config.json"), 1);
    assert_cache_is_clean(&world, &mini());
}

/// The script with the real huggingface_hub, if this machine has it.
fn python(world: &World, hub: &Hub, what: &str) -> Command {
    let mut command = Command::new("python3");
    for name in ["HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HF_HUB_CACHE"] {
        command.env_remove(name);
    }
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/hub_interop.py"))
        .args([what, "test/mini", "config.json", SINGLE])
        .env("HF_ENDPOINT", hub.endpoint())
        .env("HF_HOME", world.path("hf"))
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1");
    command
}

#[test]
fn python_and_this_program_share_a_cache() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    let version = python(&world, &hub, "version").output();
    let Some(version) = version.ok().filter(|output| output.status.success()) else {
        println!("skipped: no python3 with huggingface_hub");
        return;
    };
    println!("with {}", String::from_utf8_lossy(&version.stdout).trim());

    // Python reads what we fetched.
    pulled(&world, &hub);
    let seen = hub.with(|state| state.seen.len());
    let hashes = ["config.json", SINGLE].map(|name| format!("{} {name}\n", sha256(&mini()[name])));
    let read = spawn(&mut python(&world, &hub, "read")).wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&read.stderr);
    assert_eq!(String::from_utf8_lossy(&read.stdout), hashes.concat(), "{stderr}");
    assert_eq!(hub.with(|state| state.seen.len()), seen, "read without the hub");
    // By its own checksums too; and it fetches nothing anew.
    success(spawn(&mut python(&world, &hub, "verify")));
    success(spawn(&mut python(&world, &hub, "fetch")));
    assert_eq!(hub.sent(&weights()), 1);

    // We read what Python fetched, without the hub and with it.
    let (world, hub) = (World::new(), Hub::new(mini()));
    success(spawn(&mut python(&world, &hub, "fetch")));
    let ran = run(&world, &hub, &PULL, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(identity(&ran.stdout), identity(&of_folder(&world)));
    assert_eq!(pulled(&world, &hub), ran.stdout);
    assert_eq!(hub.sent(&weights()), 1);

    // We wait for Python.
    let (world, hub) = (World::new(), Hub::new(mini()));
    hub.with(|state| state.pace = Some(2 << 20));
    let theirs = spawn(&mut python(&world, &hub, "fetch"));
    until_sending(&hub);
    let who = format!("waiting for process {} (", theirs.id());
    let stderr = success(spawn(&mut command(&world, &hub, &PULL)));
    success(theirs);
    assert!(!cfg!(target_os = "linux") || stderr.contains(&who), "{stderr}");
    assert_eq!(hub.sent(&weights()), 1);

    // Python waits for us.
    let (world, hub) = (World::new(), Hub::new(mini()));
    hub.with(|state| state.pace = Some(1 << 20));
    let ours = spawn(&mut command(&world, &hub, &PULL));
    until_sending(&hub);
    success(spawn(&mut python(&world, &hub, "fetch")));
    success(ours);
    assert_eq!(hub.sent(&weights()), 1);
    assert_cache_is_clean(&world, &mini());
}
