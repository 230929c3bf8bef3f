//! Files of a data set repository on the hub.

use super::hub::{Fault, Hub};
use super::*;

/// As many as there are, of which three are of some size.
fn shards() -> Tree {
    let shard = |split: &str, at: u64, of: u64, size| {
        let seed = if split == "train" { 1 + at } else { 1000 + at };
        (format!("data/{split}-{at:05}-of-{of:05}.parquet"), noise(seed, size))
    };
    let train = (0..294).map(|at| {
        shard("train", at, 294, [150_000, 120_000].get(at as usize).copied().unwrap_or(50))
    });
    let val = (0..14).map(|at| shard("validation", at, 14, if at == 0 { 90_000 } else { 50 }));
    train.chain(val).collect()
}

fn imagenet() -> Hub {
    let mut files = shards();
    files.insert("data/test-00000-of-00001.parquet".to_owned(), noise(4000, 10));
    files.insert("README.md".to_owned(), b"ImageNet".to_vec());
    let hub = Hub::new(files);
    hub.with(|state| {
        state.kind = "datasets";
        state.repository = "ILSVRC/imagenet-1k".to_owned();
    });
    hub
}

fn run_with(world: &World, hub: &Hub, args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = world.command(&[&["data", "prepare", "imagenet1k"], args].concat());
    for proxy in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    command.env("HF_ENDPOINT", hub.endpoint()).envs(env.iter().copied());
    let ran = world.finish(command);
    let plain = |text: String| text.replace(&format!(":{}", hub.port), ":PORT");
    Ran { stdout: plain(ran.stdout), stderr: plain(ran.stderr), ..ran }
}

#[test]
fn shards_are_fetched_and_lie_as_in_the_repository() {
    let (world, hub) = (World::new(), imagenet());
    let ran = run_with(&world, &hub, &[], &[]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_snapshot!(ran.stderr, @r"
    data/train-*.parquet: fetching 294 files of ILSVRC/imagenet-1k@0123456789abcdef0123456789abcdef01234567
    data/validation-*.parquet: fetching 14 files of ILSVRC/imagenet-1k@0123456789abcdef0123456789abcdef01234567
    imagenet1k: prepared, 308 files of 375250 bytes
    try: pixio-eval run imagenet1k/knn --backbone pixio-b
    ");
    assert_eq!(tree(&world.path("data/imagenet1k")), shards());
    assert_eq!(listed(&world), ["imagenet1k"]);
    let record = std::fs::read_to_string(world.path("data/imagenet1k/prepared.json")).unwrap();
    assert!(record.contains(&format!("sha256:{}", sha256(&noise(1, 150_000)))), "{record}");
    assert!(record.contains("ILSVRC/imagenet-1k@0123456789abcdef0123456789abcdef01234567"));
}

#[test]
fn a_gated_repository_names_its_page_and_its_token_stays_there() {
    let (world, hub) = (World::new(), imagenet());
    hub.with(|state| state.gate = Some((403, "hf_secretsecret".to_owned())));
    let ran = run_with(&world, &hub, &[], &[("HF_TOKEN", "hf_notthatone")]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""));
    assert_snapshot!(ran.stderr, @r"
    data/train-*.parquet: fetching 294 files of ILSVRC/imagenet-1k@0123456789abcdef0123456789abcdef01234567
    error: no access to ILSVRC/imagenet-1k: it is gated, private, or does not exist (the hub answered 403)
    hint: accept the terms at http://127.0.0.1:PORT/datasets/ILSVRC/imagenet-1k, then set HF_TOKEN (or log in with the Hugging Face CLI)
    ");
    assert_eq!(listed(&world), ["imagenet1k.downloads"]);

    let ran = run_with(&world, &hub, &[], &[("HF_TOKEN", "hf_secretsecret")]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(tree(&world.path("data/imagenet1k")), shards());
    hub.with(|state| {
        for seen in &state.seen {
            let of_hub = seen.host.starts_with("127.0.0.1:");
            assert_eq!(seen.authorized, of_hub, "{} {} to {}", seen.method, seen.path, seen.host);
        }
        assert!(state.seen.iter().any(|seen| seen.host.starts_with("localhost:")));
    });
}

#[test]
fn a_shard_that_came_wrong_or_in_part_is_fetched_again() {
    let (world, hub) = (World::new(), imagenet());
    hub.with(|state| state.fault = Fault::Flipped);
    let ran = run_with(&world, &hub, &[], &[]);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("data/train-00000-of-00294.parquet of ILSVRC/imagenet-1k@main is corrupt")
    );
    assert!(tree(&world.path("data/imagenet1k.downloads")).is_empty());

    hub.with(|state| state.fault = Fault::Flaky(2));
    let ran = run_with(&world, &hub, &[], &[]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(tree(&world.path("data/imagenet1k")), shards());
    assert!(hub.ranges().contains(&30_000), "{:?}", hub.ranges());
}

#[test]
fn given_shards_are_not_fetched() {
    let (world, hub) = (World::new(), imagenet());
    let given = world.path("given");
    std::fs::create_dir_all(given.join("deeper")).unwrap();
    for (name, bytes) in shards().iter().skip(1) {
        let name = name.strip_prefix("data/").unwrap();
        std::fs::write(given.join("deeper").join(name), bytes).unwrap();
    }
    let ran = run_with(&world, &hub, &["--from", "given"], &[]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(tree(&world.path("data/imagenet1k")), shards());
    let sent = |seed, size| hub.sent(&format!("/cdn/{}", sha256(&noise(seed, size))));
    assert_eq!((sent(1, 150_000), sent(2, 120_000), sent(1000, 90_000)), (1, 0, 0));
    assert_eq!(tree(&given).len(), 307);

    // All of them given: without any request. One too few: not without.
    let shard = "data/imagenet1k/data/train-00000-of-00294.parquet";
    std::fs::copy(world.path(shard), given.join("train-00000-of-00294.parquet")).unwrap();
    let offline = ["--from", "given", "--offline", "--to", "other"];
    let before = hub.with(|state| state.seen.len());
    let ran = run_with(&world, &hub, &offline, &[]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(tree(&world.path("other")), shards());
    std::fs::remove_file(given.join("deeper/validation-00000-of-00014.parquet")).unwrap();
    let fewer = ["--from", "given", "--offline", "--to", "fewer"];
    let ran = run_with(&world, &hub, &fewer, &[]);
    assert_snapshot!(ran.stderr, @r"
    error: this run is offline, and imagenet1k needs data/validation-*.parquet from the hub's data set ILSVRC/imagenet-1k (accept its terms on its page first)
    hint: --from FILE_OR_FOLDER gives files that were fetched elsewhere
    ");
    assert_eq!(ran.status, Some(2));
    assert_eq!(hub.with(|state| state.seen.len()), before);
}

#[test]
fn shards_of_other_data_sets_are_left_alone() {
    let (world, hub) = (World::new(), imagenet());
    let given = world.path("given");
    std::fs::create_dir_all(&given).unwrap();
    for (name, bytes) in shards().iter().skip(1) {
        std::fs::write(given.join(name.strip_prefix("data/").unwrap()), bytes).unwrap();
    }
    // As many as there should be, and one of them is not.
    for name in ["train-00000-of-00001", "train-00000", "train-first"] {
        let other = given.join(format!("{name}.parquet"));
        std::fs::write(&other, noise(7, 150_000)).unwrap();
        let offline = ["--from", "given", "--offline"];
        let ran = run_with(&world, &hub, &offline, &[]);
        assert_eq!(ran.status, Some(2), "{name}: {}", ran.stderr);
        let ran = run_with(&world, &hub, &["--from", "given"], &[]);
        assert_eq!(ran.status, Some(0), "{name}: {}", ran.stderr);
        assert!(tree(&world.path("data/imagenet1k")) == shards(), "{name}");
        std::fs::remove_dir_all(world.path("data/imagenet1k")).unwrap();
        std::fs::remove_file(other).unwrap();
    }
}

#[test]
fn shards_are_those_of_one_commit() {
    // Of the same size: only its hash tells.
    let (world, hub) = (World::new(), imagenet());
    let name = "train-00000-of-00294.parquet";
    std::fs::create_dir_all(world.path("given")).unwrap();
    std::fs::write(world.path("given").join(name), noise(7, 150_000)).unwrap();
    let ran = run_with(&world, &hub, &["--from", "given"], &[]);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    let begin = format!("error: given/{name} is not the published file: expected SHA-256 ");
    assert!(ran.stderr.contains(&begin), "{}", ran.stderr);
    assert!(world.path("given").join(name).exists());

    // What an earlier command fetched is fetched again.
    let kept = world.path("data/imagenet1k.downloads/data");
    std::fs::create_dir_all(&kept).unwrap();
    std::fs::write(kept.join(name), noise(7, 150_000)).unwrap();
    let ran = run_with(&world, &hub, &[], &[]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(tree(&world.path("data/imagenet1k")) == shards());
}
