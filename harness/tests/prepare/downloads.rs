//! What goes wrong between a publisher and the disk.

use std::process::Stdio;

use super::*;

fn prepared(world: &World, server: &Server) -> Ran {
    let ran = run(world, server, &["adroit"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(tree(&world.path("data/adroit")), pickles());
    assert_eq!(listed(world), ["adroit"]);
    ran
}

/// A failed command's message; nothing is then at the data folder's place.
fn refused(world: &World, server: &Server, left: &[&str]) -> String {
    let ran = run(world, server, &["adroit"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
    assert_eq!(listed(world), left);
    ran.stderr
}

#[test]
fn a_transfer_goes_on_wherever_it_broke() {
    let bytes = adroit();
    for round in 0..12 {
        let (world, server) = (World::new(), Server::new());
        server.put(ADROIT, &bytes);
        let cuts: Vec<usize> = (0..3)
            .map(|cut| 1 + random(10 * round + cut, bytes.len() as u64 / 3) as usize)
            .collect();
        server.with(|state| state.steps = cuts.iter().map(|at| Step::Cut(*at)).collect());
        prepared(&world, &server);
        let ends: Vec<Option<usize>> = cuts
            .iter()
            .scan(0, |at, cut| {
                *at += cut;
                Some(Some(*at))
            })
            .collect();
        assert_eq!(server.ranges(), [vec![None], ends].concat());
        let etag = format!("\"{}\"", sha256(&bytes));
        server.with(|state| {
            assert!(state.seen[1..].iter().all(|seen| seen.if_range.as_ref() == Some(&etag)));
        });
    }
}

/// A part of a file on disk, by a command that was killed.
fn killed_in_transfer(world: &World, server: &Server) -> usize {
    server.with(|state| state.pace = Some(400_000));
    let mut child = command(world, server, &["adroit"]).stderr(Stdio::null()).spawn().unwrap();
    let part = world.path("data/adroit.downloads/adroit-expert-v1.0.zip.part");
    let there = || part.metadata().map_or(0, |part| part.len() as usize);
    while there() < 100_000 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    server.with(|state| {
        state.pace = None;
        state.seen.clear();
    });
    there()
}

#[test]
fn the_next_command_goes_on_if_the_file_is_the_same() {
    let (world, server) = (World::new(), Server::new());
    server.put(ADROIT, &adroit());
    let at = killed_in_transfer(&world, &server);
    prepared(&world, &server);
    assert_eq!(server.ranges(), [Some(at)]);

    // A date tells versions apart, too.
    let (world, server) = (World::new(), Server::new());
    server.put(ADROIT, &adroit());
    let date = "Sat, 01 Jan 2022 00:00:00 GMT";
    server.with(|state| {
        let file = state.files.get_mut(ADROIT).unwrap();
        (file.etag, file.modified) = (Some("W/\"x\"".to_owned()), Some(date.to_owned()));
    });
    let at = killed_in_transfer(&world, &server);
    prepared(&world, &server);
    server.with(|state| assert_eq!(state.seen[0].if_range.as_deref(), Some(date)));
    assert_eq!(server.ranges(), [Some(at)]);
}

#[test]
fn a_file_that_changed_is_fetched_from_its_beginning() {
    let other = make::zip(&[("adroit-expert-v1.0/pen-v0.pickle", noise(9, 500_000))]);
    // With If-Range the server itself sends the new file whole; one that does not know it is found out.
    for honest in [true, false] {
        let (world, server) = (World::new(), Server::new());
        server.put(ADROIT, &adroit());
        let at = killed_in_transfer(&world, &server);
        server.put(ADROIT, &other);
        if !honest {
            server.with(|state| state.lax = true);
        }
        let ran = run(&world, &server, &["adroit"]);
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        assert_eq!(tree(&world.path("data/adroit"))["pen-v0.pickle"], noise(9, 500_000));
        let expected = if honest { vec![Some(at)] } else { vec![Some(at), None] };
        assert_eq!(server.ranges(), expected);
    }
    // Nothing tells the versions apart: nothing is continued.
    let (world, server) = (World::new(), Server::new());
    server.put(ADROIT, &adroit());
    server.with(|state| state.files.get_mut(ADROIT).unwrap().etag = None);
    killed_in_transfer(&world, &server);
    prepared(&world, &server);
    assert_eq!(server.ranges(), [None]);
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let (world, server) = (World::new(), Server::new());
    server.put(ADROIT, &adroit());
    let at = killed_in_transfer(&world, &server);
    server.with(|state| state.steps = [Step::Whole].into());
    prepared(&world, &server);
    assert_eq!(server.ranges(), [Some(at)]);

    let (world, server) = (World::new(), Server::new());
    server.put(ADROIT, &adroit());
    let refusal = Step::Status(416, "content-range", "bytes */1".to_owned());
    server.with(|state| state.steps = [Step::Cut(1000), refusal].into());
    prepared(&world, &server);
    assert_eq!(server.ranges(), [None, Some(1000), None]);
}

#[test]
fn redirects_are_followed_to_other_hosts_without_a_secret() {
    let (world, server) = (World::new(), Server::new());
    server.put("/elsewhere", &adroit());
    let there = format!("http://localhost:{}/elsewhere?signature=verysecret", server.port);
    server.with(|state| state.steps = [Step::Status(302, "location", there)].into());
    let mut command = command(&world, &server, &["adroit"]);
    command.env("HF_TOKEN", "hf_secretsecret");
    let ran = world.finish(command);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
    server.with(|state| {
        assert_eq!(state.seen.len(), 2);
        assert!(state.seen[1].host.starts_with("localhost:"));
        assert_eq!(state.seen[1].path, "/elsewhere");
        assert!(state.seen.iter().all(|seen| !seen.authorized));
    });

    let (world, server) = (World::new(), Server::new());
    let there = |_| Step::Status(301, "location", ADROIT.to_owned());
    server.with(|state| state.steps = (0..20).map(there).collect());
    assert_snapshot!(refused(&world, &server, &["adroit.downloads"]), @r"
    adroit-expert-v1.0.zip: fetching http://127.0.0.1:PORT/eai-vc/adroit-expert-v1.0.zip
    error: cannot fetch adroit-expert-v1.0.zip from http://127.0.0.1:PORT/eai-vc/adroit-expert-v1.0.zip: more than 10 redirects, last to http://127.0.0.1:PORT/eai-vc/adroit-expert-v1.0.zip
    hint: the same command continues; or fetch the file in another way, and give it with --from
    ");
}

#[test]
fn a_server_that_asks_to_wait_is_waited_for() {
    let (world, server) = (World::new(), Server::new());
    server.put(ADROIT, &adroit());
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let date =
        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&soon).unwrap();
    let steps = [
        Step::Status(429, "retry-after", "1".to_owned()),
        Step::Status(503, "retry-after", date),
        Step::Status(503, "retry-after", "Sat, 01 Jan 2000 00:00:00 GMT".to_owned()),
    ];
    server.with(|state| state.steps = steps.into());
    let began = std::time::Instant::now();
    let stderr = prepared(&world, &server).stderr;
    assert!(began.elapsed() >= std::time::Duration::from_secs(1));
    assert!(stderr.contains("answered 429; on from byte 0 in 1.0 s\n"), "{stderr}");
    assert!(stderr.contains("answered 503; on from byte 0 in 0.0 s\n"), "{stderr}");
}

#[test]
fn what_is_no_archive_is_not_kept() {
    let (world, server) = (World::new(), Server::new());
    assert_snapshot!(refused(&world, &server, &["adroit.downloads"]), @r"
    adroit-expert-v1.0.zip: fetching http://127.0.0.1:PORT/eai-vc/adroit-expert-v1.0.zip
    error: cannot fetch adroit-expert-v1.0.zip from http://127.0.0.1:PORT/eai-vc/adroit-expert-v1.0.zip: answered 404
    hint: the same command continues; or fetch the file in another way, and give it with --from
    ");
    server.put(ADROIT, &adroit());
    server.with(|state| state.steps = [Step::Page].into());
    assert_snapshot!(refused(&world, &server, &["adroit.downloads"]), @r"
    adroit-expert-v1.0.zip: fetching http://127.0.0.1:PORT/eai-vc/adroit-expert-v1.0.zip
    error: cannot fetch adroit-expert-v1.0.zip from http://127.0.0.1:PORT/eai-vc/adroit-expert-v1.0.zip: expected a zip or tar archive, found a web page
    hint: the same command continues; or fetch the file in another way, and give it with --from
    ");
    // The body ends early, and nothing said how long it is.
    server.with(|state| state.steps = [Step::Quiet(250_000)].into());
    assert_snapshot!(refused(&world, &server, &["adroit.downloads"]), @r"
    adroit-expert-v1.0.zip: fetching http://127.0.0.1:PORT/eai-vc/adroit-expert-v1.0.zip
    error: cannot fetch adroit-expert-v1.0.zip from http://127.0.0.1:PORT/eai-vc/adroit-expert-v1.0.zip: expected a zip or tar archive, found a damaged zip archive: invalid Zip archive: Could not find EOCD
    hint: the same command continues; or fetch the file in another way, and give it with --from
    ");
    assert!(tree(&world.path("data/adroit.downloads")).is_empty());
    prepared(&world, &server);
}

#[test]
fn a_wrong_checksum_or_size_keeps_nothing() {
    let bytes = adroit();
    let mut dataset = unchecked("adroit");
    let (world, server) = (World::new(), Server::new());
    let mut wrong = bytes.clone();
    wrong[1000] ^= 1;
    server.put(ADROIT, &wrong);
    let told = |dataset: &Dataset| {
        let mut request = request(&world, dataset);
        (request.offline, request.mirror) = (false, Some(server.address()));
        made(&request).map_err(|error| error.to_string().replace(&server.port.to_string(), "PORT"))
    };
    let right = format!("sha256:{}", sha256(&bytes));
    dataset.source.files[0].checksum = Some(right.clone().try_into().unwrap());
    let message = told(&dataset).unwrap_err();
    let message = message.replace(&sha256(&bytes), "RIGHT").replace(&sha256(&wrong), "WRONG");
    assert_snapshot!(message, @"cannot fetch adroit-expert-v1.0.zip from http://127.0.0.1:PORT/eai-vc/adroit-expert-v1.0.zip: expected SHA-256 RIGHT, found WRONG");
    dataset.source.files[0].bytes = Some(7);
    assert_snapshot!(told(&dataset).unwrap_err().replace(&bytes.len().to_string(), "SIZE"), @"cannot fetch adroit-expert-v1.0.zip from http://127.0.0.1:PORT/eai-vc/adroit-expert-v1.0.zip: expected 7 bytes, found SIZE bytes");
    assert!(tree(&world.path("data/adroit.downloads")).is_empty());

    // In pieces of which one is wrong, it is fetched once more, whole.
    dataset.source.files[0].bytes = Some(bytes.len() as u64);
    server.put(ADROIT, &bytes);
    server.with(|state| {
        state.steps = [Step::Cut(5000)].into();
        state.flip_once = true;
    });
    let Outcome::Prepared { record, .. } = told(&dataset).unwrap() else { panic!() };
    assert_eq!(record.from[0].checksum, right);
    assert_eq!(tree(&world.path("data/adroit")), pickles());
}

#[test]
fn another_answer_costs_no_bytes_that_are_here() {
    // A page in the place of the rest, whether or not the size is known.
    for known in [true, false] {
        let (world, server) = (World::new(), Server::new());
        let bytes = adroit();
        let mut dataset = unchecked("adroit");
        dataset.source.files[0].bytes = known.then_some(bytes.len() as u64);
        server.put(ADROIT, &bytes);
        server.with(|state| state.steps = [Step::Cut(100_000), Step::Page].into());
        let mut request = request(&world, &dataset);
        (request.offline, request.mirror) = (false, Some(server.address()));
        made(&request).unwrap();
        assert_eq!(tree(&world.path("data/adroit")), pickles());
        assert_eq!(server.ranges(), [None, Some(100_000), Some(100_000)]);
    }
}

#[test]
fn what_a_person_put_among_the_downloads_stays() {
    let (world, server) = (World::new(), Server::new());
    server.put(ADROIT, &adroit());
    let own = world.path("data/adroit.downloads/own.zip");
    std::fs::create_dir_all(own.parent().unwrap()).unwrap();
    std::fs::write(&own, "x").unwrap();
    let ran = run(&world, &server, &["adroit"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(tree(own.parent().unwrap()), Tree::from([("own.zip".to_owned(), b"x".to_vec())]));
}
