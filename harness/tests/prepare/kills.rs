//! A command that is killed leaves no half of a data set, and the next one goes on.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::*;

const ROUNDS: usize = 40;

/// Many small files, and some larger ones.
fn recordings() -> Tree {
    let small = (0..400).map(|i| (format!("pen/{i:03}.bin"), noise(i, 100 + 7 * i as usize)));
    let large = (0..6).map(|i| (format!("relocate/{i}.bin"), noise(1000 + i, 300_000)));
    small.chain(large).collect()
}

fn packed() -> Vec<u8> {
    let named = recordings().into_iter();
    let named: Vec<(String, Vec<u8>)> =
        named.map(|(name, bytes)| (format!("adroit-expert-v1.0/{name}"), bytes)).collect();
    let members: Vec<(&str, Vec<u8>)> =
        named.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    make::zip(&members)
}

#[test]
fn a_kill_at_any_moment_leaves_the_folder_whole_or_absent() {
    let (world, server) = (World::new(), Server::new());
    server.put(ADROIT, &packed());
    let folder = world.path("data/adroit");
    let (expected, size) = (recordings(), packed().len());
    let (mut whole, mut parts, mut trees) = (0, 0, 0);
    for round in 0..ROUNDS {
        // Now the transfer is slow, now it is over at once, and the unpacking is met.
        let pace = if round % 2 == 0 { Some(8 << 20) } else { None };
        server.with(|state| state.pace = pace);
        let mut child = command(&world, &server, &["adroit"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(5_000 + random(round, 120_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let part = world.path("data/adroit.downloads/adroit-expert-v1.0.zip.part");
        parts += usize::from(part.exists());
        let unpacked = world.path("data/adroit.preparing/tree");
        if unpacked.exists() {
            trees += 1;
            for (name, bytes) in tree(&unpacked) {
                assert!(expected.get(&name) == Some(&bytes), "{name} is half written");
            }
        }
        if folder.exists() {
            whole += 1;
            assert!(tree(&folder) == expected, "round {round}");
            std::fs::remove_dir_all(world.path("data")).unwrap();
        }
    }
    println!(
        "{ROUNDS} kills of {size} bytes: {parts} left a part, {trees} a tree, {whole} the whole folder"
    );
    assert!(parts >= 3 && trees >= 3, "{parts} {trees}");
    server.with(|state| state.pace = None);
    let ran = run(&world, &server, &["adroit"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(tree(&folder) == expected);
    assert_eq!(listed(&world), ["adroit"]);
}

#[test]
fn what_was_unpacked_is_not_unpacked_again() {
    let world = World::new();
    let dataset = unchecked("adroit");
    std::fs::create_dir(world.path("given")).unwrap();
    let archive = world.path("given/adroit-expert-v1.0.zip");
    std::fs::write(&archive, packed()).unwrap();
    let mut child = world
        .command(&["data", "prepare", "adroit", "--from", "given"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let unpacked = world.path("data/adroit.preparing/tree/pen");
    let began = Instant::now();
    while std::fs::read_dir(&unpacked).map_or(0, Iterator::count) < 20 {
        assert!(began.elapsed() < Duration::from_secs(30) && child.try_wait().unwrap().is_none());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let changed = |name: &str| std::fs::metadata(unpacked.join(name)).unwrap().modified().unwrap();
    let name = "005.bin";
    let before = changed(name);
    // One that lost its end, as after a loss of power.
    let cut = std::fs::OpenOptions::new().write(true).open(unpacked.join("006.bin")).unwrap();
    cut.set_len(10).unwrap();
    drop(cut);
    std::thread::sleep(Duration::from_millis(20));

    let mut request = request(&world, &dataset);
    request.from = vec![world.path("given")];
    made(&request).unwrap();
    assert!(tree(&world.path("data/adroit")) == recordings());
    let after = std::fs::metadata(world.path("data/adroit/pen").join(name)).unwrap();
    assert_eq!(after.modified().unwrap(), before);
    assert_eq!(listed(&world), ["adroit"]);
    assert!(archive.exists());
}

#[test]
#[cfg(unix)]
fn an_interruption_says_how_to_go_on() {
    let (world, server) = (World::new(), Server::new());
    server.put(ADROIT, &adroit());
    server.with(|state| state.pace = Some(200_000));
    let child = command(&world, &server, &["adroit"]).stderr(Stdio::piped()).spawn().unwrap();
    while server.with(|state| state.sent < 50_000) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let end: Vec<&str> = stderr.lines().rev().take(2).collect();
    assert_eq!(
        end,
        ["hint: the same command continues where this one stopped", "error: interrupted"]
    );
    server.with(|state| state.pace = None);
    assert_eq!(run(&world, &server, &["adroit"]).status, Some(0));
    assert!(server.ranges()[1].is_some());
}

#[test]
#[cfg(unix)]
fn what_a_killed_command_linked_is_not_written_to() {
    let world = World::new();
    let dataset = unchecked("adroit");
    for folder in ["given", "data/adroit.preparing"] {
        std::fs::create_dir_all(world.path(folder)).unwrap();
    }
    let archive = world.path("given/adroit-expert-v1.0.zip");
    std::fs::write(&archive, packed()).unwrap();
    std::fs::hard_link(&archive, world.path("data/adroit.preparing/part")).unwrap();
    let mut request = request(&world, &dataset);
    request.from = vec![world.path("given")];
    made(&request).unwrap();
    assert!(tree(&world.path("data/adroit")) == recordings());
    assert!(std::fs::read(&archive).unwrap() == packed());
}
