//! Backbones from the hub: fetched, checked, cached, and used without a network.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod kills;
mod offline;
mod server;
mod shared;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Ran, World, golden};
use insta::assert_snapshot;
use safetensors::SafeTensors;
use server::{COMMIT, Fault, Hub, etag, sha256};

type Files = BTreeMap<String, Vec<u8>>;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

fn read(name: &str) -> (String, Vec<u8>) {
    (name.to_owned(), std::fs::read(golden().join(name)).unwrap())
}

fn mini() -> Files {
    Files::from([read("config.json"), read(SINGLE), ("README.md".to_owned(), b"mini".to_vec())])
}

/// The same weights in two shards.
fn sharded() -> Files {
    let mut files = mini();
    let whole = files.remove(SINGLE).unwrap();
    let whole = SafeTensors::deserialize(&whole).unwrap();
    let (mut halves, mut map) = ([Vec::new(), Vec::new()], BTreeMap::new());
    let mut tensors = whole.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    for (i, (name, tensor)) in tensors.into_iter().enumerate() {
        map.insert(name.clone(), format!("model-0000{}-of-00002.safetensors", i % 2 + 1));
        halves[i % 2].push((name, tensor));
    }
    for (i, half) in halves.into_iter().enumerate() {
        let bytes = safetensors::serialize(half, None).unwrap();
        files.insert(format!("model-0000{}-of-00002.safetensors", i + 1), bytes);
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    files.insert(INDEX.to_owned(), index.to_string().into_bytes());
    files
}

/// A command with this hub as the endpoint.
fn command(world: &World, hub: &Hub, args: &[&str]) -> Command {
    let mut command = world.command(args);
    for proxy in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    command.env("HF_ENDPOINT", hub.endpoint());
    command
}

/// Its port becomes PORT in what it says.
fn run(world: &World, hub: &Hub, args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = command(world, hub, args);
    command.envs(env.iter().copied());
    let ran = world.finish(command);
    let plain = |text: String| text.replace(&format!(":{}", hub.port), ":PORT");
    Ran { stdout: plain(ran.stdout), stderr: plain(ran.stderr), ..ran }
}

const PULL: [&str; 3] = ["backbones", "pull", "hf:test/mini"];

fn pull(world: &World, hub: &Hub) -> Ran {
    run(world, hub, &PULL, &[])
}

/// The path that the weights are sent from.
fn weights() -> String {
    format!("/cdn/{}", sha256(&mini()[SINGLE]))
}

/// Where the cache keeps a file's bytes.
fn blob(world: &World, name: &str) -> PathBuf {
    cached_repository(world).join("blobs").join(etag(name, &mini()[name]))
}

fn pulled(world: &World, hub: &Hub) -> String {
    let ran = pull(world, hub);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    ran.stdout
}

/// A failed pull's message.
fn refused(world: &World, hub: &Hub) -> String {
    let ran = pull(world, hub);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{}", ran.stderr);
    ran.stderr
}

/// What went wrong, without the hints.
fn error(stderr: &str) -> String {
    let lines = stderr.lines().filter(|line| !line.starts_with("hint: "));
    lines.collect::<Vec<_>>().join("\n")
}

fn identity(stdout: &str) -> &str {
    stdout.trim_end().rsplit_once("identity ").unwrap().1
}

fn of_folder(world: &World) -> String {
    let ran = world.run(&["backbones", "pull", golden().to_str().unwrap()]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    ran.stdout
}

fn features(world: &World, backbone: &str, out: &str, env: &[(&str, &str)]) -> Ran {
    let image = golden().join("imagenet/val/n00000003");
    let image = std::fs::read_dir(image).unwrap().next().unwrap().unwrap().path();
    let args = ["features", image.to_str().unwrap(), "--backbone", backbone, "--out", out];
    let mut command = world.command(&args);
    command.args(["--dtype", "f32"]).envs(env.iter().copied());
    world.finish(command)
}

/// Tensors by name, as bytes.
fn tensors(file: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = std::fs::read(file).unwrap();
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    parsed.iter().map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec())).collect()
}

fn cached_repository(world: &World) -> PathBuf {
    world.path("hf/hub/models--test--mini")
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

/// Every blob and every snapshot entry holds what the hub has; nothing points nowhere.
fn assert_cache_is_clean(world: &World, files: &Files) {
    let mut found = Vec::new();
    walk(&cached_repository(world).join("blobs"), &mut found);
    walk(&cached_repository(world).join("snapshots"), &mut found);
    for path in found {
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let part = path.extension().is_some_and(|e| e == "incomplete");
        let right =
            |whole: &Vec<u8>| if part { whole.starts_with(&bytes) } else { *whole == bytes };
        assert!(files.values().any(right), "wrong bytes in {}", path.display());
    }
}

#[test]
fn a_pulled_backbone_is_the_folder_and_works_without_the_hub() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    let stdout = pulled(&world, &hub);
    assert!(stdout.starts_with(&format!("hf:test/mini: revision {COMMIT}, identity ")), "{stdout}");
    assert_eq!(identity(&stdout), identity(&of_folder(&world)));
    drop(hub);

    let ran = features(&world, golden().to_str().unwrap(), "folder.safetensors", &[]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    // An endpoint that nobody serves: a request would fail.
    let nobody = ("HF_ENDPOINT", "http://127.0.0.1:9");
    let offline = [nobody, ("HF_HUB_OFFLINE", "1")];
    for spec in ["hf:test/mini", &format!("hf:test/mini@{COMMIT}")] {
        let ran = features(&world, spec, "hub.safetensors", &offline);
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        let expected = tensors(&world.path("folder.safetensors"));
        assert!(!expected.is_empty());
        assert!(tensors(&world.path("hub.safetensors")) == expected);
    }
}

#[test]
fn the_offline_flag_does_what_the_variable_does() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    pulled(&world, &hub);
    let before = hub.with(|state| state.seen.len());
    let image = golden().join("imagenet/val/n00000000");
    let image = std::fs::read_dir(image).unwrap().next().unwrap().unwrap().path();
    let image = image.to_str().unwrap();
    let args = ["features", image, "--backbone", "hf:test/mini", "--out", "f", "--offline"];
    let ran = run(&world, &hub, &args, &[]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(hub.with(|state| state.seen.len()), before);
}

#[test]
fn shards_are_fetched_and_make_the_same_backbone() {
    let (world, hub) = (World::new(), Hub::new(sharded()));
    let stdout = pulled(&world, &hub);
    assert_eq!(identity(&stdout), identity(&of_folder(&world)));
    assert_cache_is_clean(&world, &sharded());
    drop(hub);
    let ran = features(&world, "hf:test/mini", "f.safetensors", &[("HF_HUB_OFFLINE", "on")]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);

    // One shard gone: the cache does not have the backbone.
    let gone = format!("snapshots/{COMMIT}/model-00002-of-00002.safetensors");
    std::fs::remove_file(cached_repository(&world).join(gone)).unwrap();
    let ran = features(&world, "hf:test/mini", "f.safetensors", &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(ran.status, Some(2));
    assert!(ran.stderr.contains("is not in the cache"), "{}", ran.stderr);
}

#[test]
fn a_repository_of_pickled_weights_alone_makes_the_same_backbone() {
    let mut files = mini();
    files.remove(SINGLE);
    files.insert("pytorch_model.bin".to_owned(), read("pixio_mini.pth").1);
    let (world, hub) = (World::new(), Hub::new(files.clone()));
    assert_eq!(identity(&pulled(&world, &hub)), identity(&of_folder(&world)));
    assert_cache_is_clean(&world, &files);
    drop(hub);
    let ran = features(&world, "hf:test/mini", "f.safetensors", &[("HF_HUB_OFFLINE", "on")]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
}

#[test]
fn a_shard_that_came_wrong_is_refused_like_a_whole_file() {
    let (world, hub) = (World::new(), Hub::new(sharded()));
    hub.with(|state| state.fault = Fault::Flipped);
    let message = refused(&world, &hub);
    assert!(message.contains("model-00001-of-00002.safetensors of test/mini@main is corrupt"));
    assert_cache_is_clean(&world, &sharded());

    hub.with(|state| {
        state.fault = Fault::None;
        state.files.remove("model-00002-of-00002.safetensors");
    });
    assert_snapshot!(error(&refused(&world, &hub)), @"error: test/mini@main has no model-00002-of-00002.safetensors");
    hub.with(|state| {
        let index = br#"{"weight_map": {"a": "../../config.json"}}"#;
        state.files.insert(INDEX.to_owned(), index.to_vec());
        state.commit = "9".repeat(40);
    });
    assert_snapshot!(error(&refused(&world, &hub)), @r#"error: model.safetensors.index.json of test/mini@main is not usable: shard "../../config.json" is not a plain file name"#);
}

#[test]
fn a_gated_repository_names_its_page_and_never_the_token() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    let args = ["backbones", "pull", "hf:test/mini", "-v"];
    hub.with(|state| state.gate = Some((401, "hf_secretsecret".to_owned())));
    assert_snapshot!(refused(&world, &hub), @r"
    error: no access to test/mini: it is gated, private, or does not exist (the hub answered 401)
    hint: ask for access at http://127.0.0.1:PORT/test/mini, then set HF_TOKEN (or log in with the Hugging Face CLI)
    ");

    let wrong = "hf_notthatone";
    hub.with(|state| state.gate = Some((403, "hf_secretsecret".to_owned())));
    let ran = run(&world, &hub, &args, &[("HF_TOKEN", wrong)]);
    assert_eq!(ran.status, Some(2));
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(wrong));
    assert_snapshot!(ran.stderr, @r"
    error: no access to test/mini: it is gated, private, or does not exist (the hub answered 403)
    hint: ask for access at http://127.0.0.1:PORT/test/mini, then set HF_TOKEN (or log in with the Hugging Face CLI)
    ");
    assert_cache_is_clean(&world, &mini());

    let ran = run(&world, &hub, &args, &[("HF_TOKEN", "hf_secretsecret")]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("secret"));

    // The token file of a login does as well.
    let world = World::new();
    std::fs::create_dir(world.path("hf")).unwrap();
    std::fs::write(world.path("hf/token"), "hf_secretsecret\n").unwrap();
    pulled(&world, &hub);
}

#[test]
fn what_the_hub_does_not_have_is_named() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    let absent = |spec| {
        let ran = run(&world, &hub, &["backbones", "pull", spec], &[]);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""));
        error(&ran.stderr)
    };
    assert_snapshot!(absent("hf:test/absent"), @"error: the hub has no test/absent@main");
    assert_snapshot!(absent("hf:test/mini@v9"), @"error: the hub has no test/mini@v9");
    assert_snapshot!(absent(&format!("hf:test/mini@{}", "6".repeat(40))), @"error: the hub has no test/mini@6666666666666666666666666666666666666666");
    hub.with(|state| state.files.remove(SINGLE));
    assert_snapshot!(error(&refused(&world, &hub)), @"error: test/mini@main has no model.safetensors");
    hub.with(|state| state.files.remove("config.json"));
    assert_snapshot!(error(&refused(&world, &hub)), @"error: test/mini@main has no config.json");
}

#[test]
fn a_newer_commit_that_fails_leaves_the_older_one_in_use() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    let stdout = pulled(&world, &hub);
    hub.with(|state| {
        state.commit = "7".repeat(40);
        *state.files.get_mut(SINGLE).unwrap().last_mut().unwrap() ^= 1;
        state.fault = Fault::QuietlyShort;
    });
    refused(&world, &hub);
    let pull = ["backbones", "pull", "hf:test/mini"];
    let offline = run(&world, &hub, &pull, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!((offline.status, offline.stdout), (Some(0), stdout), "{}", offline.stderr);
}

#[test]
fn what_changed_in_the_cache_is_noticed() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    let stdout = pulled(&world, &hub);
    let mut bytes = mini().remove(SINGLE).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(blob(&world, SINGLE), bytes).unwrap();
    assert_eq!(pulled(&world, &hub), stdout);
    assert_cache_is_clean(&world, &mini());
}

#[test]
fn the_cache_has_the_layout_that_python_knows() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    let elsewhere = world.path("elsewhere");
    let there = [("HF_HUB_CACHE", elsewhere.to_str().unwrap())];
    let ran = run(&world, &hub, &["backbones", "pull", "hf:test/mini"], &there);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(!world.path("hf").exists());

    let repository = elsewhere.join("models--test--mini");
    assert_eq!(std::fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    for name in ["config.json", SINGLE] {
        let bytes = &mini()[name];
        let blob = format!("blobs/{}", etag(name, bytes));
        assert!(std::fs::read(repository.join(&blob)).unwrap() == *bytes);
        let pointer = repository.join("snapshots").join(COMMIT).join(name);
        #[cfg(unix)]
        assert_eq!(std::fs::read_link(&pointer).unwrap(), Path::new("../..").join(blob));
        assert!(std::fs::read(pointer).unwrap() == *bytes);
    }
    let mut found = Vec::new();
    walk(&repository, &mut found);
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn weights_are_sent_once() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    let weights = weights();
    pulled(&world, &hub);
    pulled(&world, &hub);
    assert_eq!(hub.sent(&weights), 1);

    // Another commit with the same weights.
    let commit = "8".repeat(40);
    hub.with(|state| state.commit = commit.clone());
    assert!(pulled(&world, &hub).contains(&commit));
    assert_eq!(hub.sent(&weights), 1);

    // Other weights beside the same config.json.
    let mut other = mini().remove(SINGLE).unwrap();
    *other.last_mut().unwrap() ^= 1;
    hub.with(|state| {
        state.commit = "7".repeat(40);
        state.files.insert(SINGLE.to_owned(), other.clone());
    });
    let stdout = pulled(&world, &hub);
    assert!(stdout.contains(&"7".repeat(40)), "{stdout}");
    assert_ne!(identity(&stdout), identity(&of_folder(&world)));
    hub.with(|state| {
        state.commit = COMMIT.to_owned();
        state.files = mini();
    });

    // Half a file in the cache, from whatever program.
    let file = blob(&world, SINGLE);
    std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(1000).unwrap();
    let ran = pull(&world, &hub);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(
        ran.stderr.replace(&sha256(&mini()[SINGLE]), "SHA256"),
        "warning: WORLD/hf/hub/models--test--mini/blobs/SHA256 is damaged: fetching it again\n"
    );
    assert_eq!(hub.sent(&weights), 2);
    let mut either = mini();
    either.insert("model.safetensors of the other commit".to_owned(), other);
    assert_cache_is_clean(&world, &either);
}
