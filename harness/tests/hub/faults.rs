//! What goes wrong on the way: no file gets its final name unless it is whole and right.

use super::*;

/// A failed pull, after which nothing wrong is left and a good hub mends it.
fn broken(fault: Fault) -> String {
    let (world, hub) = (World::new(), Hub::new(mini()));
    hub.with(|state| state.fault = fault);
    let message = refused(&world, &hub);
    assert_cache_is_clean(&world, &mini());
    let pointer = cached_repository(&world).join("snapshots").join(COMMIT).join(SINGLE);
    assert!(pointer.symlink_metadata().is_err());
    assert!(!blob(&world, SINGLE).exists());
    let ran = features(&world, "hf:test/mini", "f", &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(ran.status, Some(2), "{fault:?} left something to use: {}", ran.stderr);

    hub.with(|state| state.fault = Fault::None);
    assert_eq!(identity(&pulled(&world, &hub)), identity(&of_folder(&world)));
    assert_cache_is_clean(&world, &mini());
    let text = message.replace(&sha256(&mini()[SINGLE]), "SHA256");
    // Retries are told by others.
    let told = |line: &&str| !line.contains("; on from byte ");
    text.lines().filter(told).collect::<Vec<_>>().join("\n")
}

/// A pull that works in the end; the first bytes of the ranges that were asked for.
fn mended(fault: Fault) -> (String, Vec<u64>) {
    let (world, hub) = (World::new(), Hub::new(mini()));
    hub.with(|state| state.fault = fault);
    let ran = run(&world, &hub, &PULL, &[]);
    assert_eq!(ran.status, Some(0), "{fault:?}: {}", ran.stderr);
    assert_eq!(identity(&ran.stdout), identity(&of_folder(&world)));
    assert_cache_is_clean(&world, &mini());
    (ran.stderr.replace(&sha256(&mini()[SINGLE]), "SHA256"), hub.ranges())
}

#[test]
fn a_flipped_bit_is_found() {
    let mut flipped = mini().remove(SINGLE).unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    assert_snapshot!(broken(Fault::Flipped).replace(&sha256(&flipped), "FOUND"), @r"
    error: model.safetensors of test/mini@main is corrupt: expected SHA-256 SHA256, found FOUND
    hint: nothing of it was kept: the same command fetches it again
    ");
}

#[test]
fn a_flipped_bit_of_a_small_file_is_found() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    hub.with(|state| state.fault = Fault::FlippedConfig);
    let message = refused(&world, &hub);
    assert!(
        message.contains("config.json of test/mini@main is corrupt: expected git object "),
        "{message}"
    );
    assert_cache_is_clean(&world, &mini());
    hub.with(|state| state.fault = Fault::None);
    pulled(&world, &hub);
}

#[test]
fn a_body_that_ends_early_is_found() {
    assert_snapshot!(broken(Fault::CutShort), @r"
    error: cannot fetch model.safetensors of test/mini@main: end of file before message length reached, 6 times in a row, at byte 1996560 of 3993120
    hint: the same command continues from there
    ");
}

#[test]
fn a_body_that_ends_early_without_a_length_is_found() {
    assert_snapshot!(error(&broken(Fault::QuietlyShort)), @"error: cannot fetch model.safetensors of test/mini@main: the connection ended early, 6 times in a row, at byte 1996560 of 3993120");
}

#[test]
fn an_error_page_is_not_taken_for_weights() {
    assert_snapshot!(broken(Fault::Page(403)), @r"
    error: cannot fetch model.safetensors of test/mini@main: http://localhost:PORT/cdn/SHA256 answered 403
    hint: check HF_ENDPOINT, and proxies on the way
    ");
    assert_snapshot!(error(&broken(Fault::Page(404))), @"error: cannot fetch model.safetensors of test/mini@main: http://localhost:PORT/cdn/SHA256 answered 404");
    assert_snapshot!(broken(Fault::FalsePage), @r"
    error: model.safetensors of test/mini@main is corrupt: expected 3993120 bytes, found 18 bytes
    hint: nothing of it was kept: the same command fetches it again
    ");
    assert_snapshot!(error(&broken(Fault::Door(403))), @"error: no access to test/mini: it is gated, private, or does not exist (the hub answered 403)");
    assert_snapshot!(error(&broken(Fault::Door(404))), @"error: test/mini@main has no model.safetensors");
}

#[test]
fn a_hub_that_stays_busy_is_not_asked_for_ever() {
    assert_snapshot!(error(&broken(Fault::Page(503))), @"error: cannot fetch model.safetensors of test/mini@main: http://localhost:PORT/cdn/SHA256 answered 503, 6 times in a row, at byte 0 of 3993120");
}

#[test]
fn a_hub_that_is_busy_is_asked_again() {
    let (stderr, ranges) = mended(Fault::Busy(2));
    assert_snapshot!(stderr, @r"
    model.safetensors: http://localhost:PORT/cdn/SHA256 answered 503; on from byte 0 in 0.2 s
    model.safetensors: http://localhost:PORT/cdn/SHA256 answered 503; on from byte 0 in 0.4 s
    ");
    assert!(ranges.is_empty());
    assert_snapshot!(mended(Fault::AskedToWait(1)).0, @"model.safetensors: http://localhost:PORT/cdn/SHA256 answered 429; on from byte 0 in 2.0 s");
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke() {
    let fifth = (mini()[SINGLE].len() / 5) as u64;
    let (stderr, ranges) = mended(Fault::Flaky(3));
    assert_eq!(ranges, [fifth, 2 * fifth, 3 * fifth]);
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
    // Shorter ranges than asked for are answers too.
    let (_, ranges) = mended(Fault::SmallRanges);
    assert_eq!(ranges[..3], [300_000, 600_000, 900_000]);
}

#[test]
fn the_next_pull_goes_on_where_a_failed_one_ended() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    hub.with(|state| state.fault = Fault::CutShort);
    refused(&world, &hub);
    hub.with(|state| {
        state.fault = Fault::None;
        state.seen.clear();
    });
    pulled(&world, &hub);
    assert_eq!(hub.ranges(), [(mini()[SINGLE].len() / 2) as u64]);
    assert_eq!(hub.sent(&weights()), 1);
    assert_cache_is_clean(&world, &mini());
}

/// A first part of the weights in the cache, as an earlier pull may have left it.
fn with_part(fault: Fault, part: &[u8]) -> (String, Vec<u64>, usize) {
    let (world, hub) = (World::new(), Hub::new(mini()));
    hub.with(|state| state.fault = fault);
    let file = blob(&world, SINGLE).with_extension("incomplete");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, part).unwrap();
    let ran = run(&world, &hub, &PULL, &[]);
    assert_eq!(ran.status, Some(0), "{fault:?}: {}", ran.stderr);
    assert_cache_is_clean(&world, &mini());
    assert!(!file.exists());
    (ran.stderr, hub.ranges(), hub.sent(&weights()))
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let part = &mini()[SINGLE][..1000];
    assert_eq!(with_part(Fault::None, part), (String::new(), vec![1000], 1));
    assert_eq!(with_part(Fault::WholeAlways, part), (String::new(), vec![1000], 1));
    let (stderr, ranges, sent) = with_part(Fault::WrongRange, part);
    assert_eq!((ranges, sent), (vec![1000], 2));
    assert_snapshot!(stderr, @"model.safetensors: the server sent another range; on from byte 0 in 0.2 s");
    let (stderr, ranges, sent) = with_part(Fault::NoRange, part);
    assert_eq!((ranges, sent), (vec![1000], 2));
    assert_snapshot!(stderr, @"model.safetensors: the server has no such range; on from byte 0 in 0.2 s");
}

#[test]
fn a_part_that_is_wrong_is_given_up() {
    let told = "warning: model.safetensors in pieces is not what the hub has: fetching it whole\n";
    let (stderr, ranges, sent) = with_part(Fault::None, &[7; 1000]);
    assert_eq!((stderr.as_str(), ranges, sent), (told, vec![1000], 2));
    // All of it, and wrong; all of it, and right; too much of it.
    let whole = &mini()[SINGLE];
    let (stderr, ranges, sent) = with_part(Fault::None, &vec![7; whole.len()]);
    assert_eq!((stderr.as_str(), ranges, sent), (told, vec![], 1));
    assert_eq!(with_part(Fault::None, whole), (String::new(), vec![], 0));
    let longer = [whole.as_slice(), b"more"].concat();
    assert_eq!(with_part(Fault::None, &longer), (String::new(), vec![], 1));
    // The first piece comes wrong and breaks off.
    let (stderr, ranges) = mended(Fault::FlippedStart(1));
    assert_eq!(ranges, [(whole.len() / 2) as u64]);
    assert!(stderr.ends_with(told), "{stderr}");
}

#[test]
fn redirects_end() {
    assert_snapshot!(broken(Fault::Loop), @r"
    error: cannot fetch model.safetensors of test/mini@main: more than 10 redirects, last to http://127.0.0.1:PORT/test/mini/resolve/0123456789abcdef0123456789abcdef01234567/model.safetensors
    hint: check HF_ENDPOINT, and proxies on the way
    ");
}

#[test]
fn what_cannot_be_fetched_or_checked_is_named() {
    assert_snapshot!(broken(Fault::XetAlone), @r"
    error: model.safetensors of test/mini@main is offered over Xet alone, which is not spoken here
    hint: fetch it with the Hugging Face CLI: this program finds it in the same cache
    ");
    assert_snapshot!(error(&broken(Fault::OddTag)), @r#"error: model.safetensors of test/mini@main cannot be verified: expected an ETag that is a SHA-256 or a git object, found "odd""#);
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let (world, hub) = (World::new(), Hub::new(mini()));
    hub.with(|state| state.gate = Some((403, "hf_secretsecret".to_owned())));
    let ran = run(&world, &hub, &PULL, &[("HF_TOKEN", "hf_secretsecret")]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    hub.with(|state| {
        for seen in &state.seen {
            let of_hub = seen.host.starts_with("127.0.0.1:");
            assert_eq!(seen.authorized, of_hub, "{} {} to {}", seen.method, seen.path, seen.host);
        }
        assert!(state.seen.iter().any(|seen| seen.host.starts_with("localhost:")));
    });
}
