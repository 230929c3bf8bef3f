//! Without a network: what is cached is used, or named.

use super::*;

const OFFLINE: [(&str, &str); 1] = [("HF_HUB_OFFLINE", "1")];

fn absent(world: &World, hub: &Hub, spec: &str) -> String {
    let ran = run(world, hub, &["backbones", "pull", spec], &OFFLINE);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""));
    ran.stderr
}

#[test]
fn the_message_says_what_is_cached_instead() {
    let (world, hub) = (World::new(), Hub::new(sharded()));
    assert_snapshot!(absent(&world, &hub, "hf:test/mini"), @r"
    error: test/mini@main is not in the cache WORLD/hf/hub, and this run is offline; the cache has no models
    hint: run `pixio-eval backbones pull` where there is a network; hf:ORG/REPO@COMMIT names a cached commit
    ");
    assert!(hub.with(|state| state.seen.is_empty()));

    pulled(&world, &hub);
    assert_snapshot!(error(&absent(&world, &hub, "hf:test/mini@v9")), @"error: test/mini@v9 is not in the cache WORLD/hf/hub, and this run is offline; of test/mini the cache has commit 0123456789abcdef0123456789abcdef01234567 (main)");
    assert_snapshot!(error(&absent(&world, &hub, "hf:test/other")), @"error: test/other@main is not in the cache WORLD/hf/hub, and this run is offline; the cache has nothing of it, but test/mini");
    let gone = format!("snapshots/{COMMIT}/model-00002-of-00002.safetensors");
    std::fs::remove_file(cached_repository(&world).join(gone)).unwrap();
    assert_snapshot!(error(&absent(&world, &hub, "hf:test/mini")), @"error: test/mini@main is not in the cache WORLD/hf/hub, and this run is offline; of test/mini the cache has commit 0123456789abcdef0123456789abcdef01234567 (main) without model-00002-of-00002.safetensors");
}

#[test]
fn a_hub_that_cannot_be_reached_leaves_the_cache() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    let stdout = pulled(&world, &hub);
    hub.with(|state| state.fault = Fault::Down);
    let ran = pull(&world, &hub);
    assert_eq!((ran.status, &ran.stdout), (Some(0), &stdout), "{}", ran.stderr);
    assert_snapshot!(ran.stderr, @"warning: cannot reach the hub (it answered 503): using commit 0123456789abcdef0123456789abcdef01234567 of test/mini@main from the cache");

    let port = hub.port;
    drop(hub);
    let unserved = |spec: &str| {
        let mut command = world.command(&["backbones", "pull", spec]);
        command.env("HF_ENDPOINT", format!("http://127.0.0.1:{port}/"));
        world.finish(command)
    };
    let ran = unserved("hf:test/mini");
    assert_eq!((ran.status, &ran.stdout), (Some(0), &stdout), "{}", ran.stderr);
    assert_snapshot!(ran.stderr, @"warning: cannot reach the hub (Connection refused (os error 111)): using commit 0123456789abcdef0123456789abcdef01234567 of test/mini@main from the cache");
    let ran = unserved("hf:test/mini@v9");
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""));
    assert_snapshot!(ran.stderr, @r"
    error: cannot reach the hub for test/mini@v9: Connection refused (os error 111); of test/mini the cache has commit 0123456789abcdef0123456789abcdef01234567 (main)
    hint: check the network, or HF_ENDPOINT
    ");
}

#[test]
fn a_damaged_file_is_not_used() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    let stdout = pulled(&world, &hub);
    for name in [SINGLE, "config.json"] {
        let mut bytes = mini().remove(name).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(blob(&world, name), &bytes).unwrap();
        let message = absent(&world, &hub, "hf:test/mini");
        let expected = format!("found {}\nhint: ", etag(name, &bytes));
        assert!(message.contains(&format!("{COMMIT}/{name} is damaged: expected ")), "{message}");
        assert!(message.contains(&expected), "{message}");
        // Kept until there is another.
        assert!(blob(&world, name).exists());

        let ran = pull(&world, &hub);
        assert_eq!((ran.status, &ran.stdout), (Some(0), &stdout), "{}", ran.stderr);
        assert!(ran.stderr.contains("is damaged: fetching it again"), "{}", ran.stderr);
        assert_cache_is_clean(&world, &mini());
    }
}
