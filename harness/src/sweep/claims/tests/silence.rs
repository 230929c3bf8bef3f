//! Holders that die, fall silent, or come back too late.

use super::*;

#[test]
#[cfg(target_os = "linux")]
fn a_process_that_is_gone_from_this_machine_holds_nothing() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let (me, claims) = (worker(state, "l1"), Claims::open(state, LONG).unwrap());
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let mut file = elsewhere(state, "dead");
    (file.process, file.expiry_ms) = (Process::current(), u64::MAX);
    file.process.pid = gone.id();
    write_worker(state, &file);
    write_claim(state, "k", 1, "dead", |_| ());
    let claim = mine(claims.try_claim(&me, "k", "u", 0).unwrap());
    assert_eq!((claim.record().generation, claim.record().setbacks.len()), (2, 1));
    let log = read_log(state).unwrap();
    assert_eq!(log[0].what, What::TakenOver { from: "dead".to_owned() });
    // On another machine the same number says nothing.
    (file.id, file.process.boot) = ("far".to_owned(), Some("other boot".to_owned()));
    write_worker(state, &file);
    write_claim(state, "k2", 1, "far", |_| ());
    assert!(is_held(&claims.try_claim(&me, "k2", "u", 0).unwrap()));
    // Nor does that of a process that beats here.
    (file.id, file.process) = ("here".to_owned(), Process::current());
    write_worker(state, &file);
    write_claim(state, "k3", 1, "here", |_| ());
    assert!(is_held(&claims.try_claim(&me, "k3", "u", 0).unwrap()));
    file.state = State::Stopped;
    write_worker(state, &file);
    mine(claims.try_claim(&me, "k3", "u", 0).unwrap());
}

#[test]
fn a_holder_elsewhere_is_dead_after_silence_whatever_its_clock_says() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let (me, claims) = (worker(state, "l1"), open(state));
    for (key, time) in [("past", "1970-01-01T00:00:00Z"), ("future", "2999-01-01T00:00:00Z")] {
        let mut file = elsewhere(state, key);
        (file.started, file.beaten) = (time.to_owned(), time.to_owned());
        write_claim(state, key, 1, key, |record| record.taken = time.to_owned());
        let beating = Instant::now();
        let mut last = beating;
        while beating.elapsed() < 3 * SHORT {
            last = Instant::now();
            file.beats += 1;
            write_worker(state, &file);
            assert!(is_held(&claims.try_claim(&me, key, "u", 0).unwrap()), "{key}");
            std::thread::sleep(SHORT / 12);
        }
        let taken = loop {
            match claims.try_claim(&me, key, "u", 0).unwrap() {
                Taken::Mine(claim) => break claim,
                other => assert!(is_held(&other), "{other:?}"),
            }
            assert!(last.elapsed() < 20 * SHORT, "{key}");
            std::thread::sleep(SHORT / 12);
        };
        assert!(last.elapsed() >= SHORT, "{key}: {:?}", last.elapsed());
        assert!(taken.still_mine());
    }
}

#[test]
fn a_holder_is_waited_for_as_long_as_it_asks_and_a_missing_one_as_long_as_we_do() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let (me, claims) = (worker(state, "l1"), open(state));
    let mut patient = elsewhere(state, "patient");
    patient.expiry_ms = 600_000;
    write_worker(state, &patient);
    write_claim(state, "k", 1, "patient", |_| ());
    write_claim(state, "lone", 1, "nobody", |_| ());
    write_claim(state, "torn", 1, "broken", |_| ());
    write_claim(state, "out", 1, "../claims/lone", |_| ());
    fs::write(workers_folder(state).join("broken.json"), "{").unwrap();
    let free = |key| matches!(claims.try_claim(&me, key, "u", 0).unwrap(), Taken::Mine(_));
    let began = Instant::now();
    let keys = ["lone", "torn", "out"];
    assert!(!keys.map(free).contains(&true), "at the first look");
    // What this worker holds itself it knows without its file.
    let _own = mine(claims.try_claim(&me, "own", "u", 0).unwrap());
    fs::remove_file(workers_folder(state).join(format!("{}.json", me.id()))).unwrap();
    let mut left = keys.to_vec();
    while !left.is_empty() {
        assert!(began.elapsed() < 20 * SHORT, "{left:?}");
        std::thread::sleep(SHORT / 12);
        left.retain(|key| !free(key));
        assert!(left.len() == 3 || began.elapsed() >= SHORT);
        assert!(!free("k") && !free("own"));
    }
}

#[test]
fn a_holder_that_was_overtaken_or_cannot_beat_notices() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let timing = Timing { beat: Duration::from_millis(100), expiry: Duration::from_secs(12) };
    let me = Worker::register_with(state, "l1", "cpu", timing).unwrap();
    let claims = open(state);
    let [first, second, third] =
        ["k", "k2", "k3"].map(|key| mine(claims.try_claim(&me, key, "u", 0).unwrap()));
    assert!(first.still_mine() && second.still_mine());
    write_claim(state, "k", 2, "other", |record| record.released = Some(Released::Done));
    write_claim(state, "k3", 2, "other", |_| ());
    assert!(!first.still_mine() && second.still_mine());
    assert!(first.lost().unwrap().contains("k.g0002"));
    // The beats look too.
    let patience = |told: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !told() {
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    patience(&|| third.lost().is_some());
    // The newest generation counts, whatever the old holder writes.
    first.give_back(Released::Failed("late".to_owned())).unwrap();
    assert_eq!(claims.newest("k").unwrap().unwrap().released, Some(Released::Done));
    // No beat can be written.
    let [folder, aside] = ["workers", "aside"].map(|name| state.join(name));
    fs::rename(&folder, &aside).unwrap();
    fs::write(&folder, "").unwrap();
    patience(&|| me.lost().is_some());
    let why = claims.try_claim(&me, "k4", "u", 0).unwrap_err();
    assert!(matches!(&why, ClaimError::NotBeating(why) if why.contains(me.id())), "{why}");
    fs::remove_file(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    patience(&|| me.lost().is_none());
    // Others may have decided meanwhile.
    assert!(!second.still_mine());
    second.give_back(Released::Interrupted).unwrap();
    let again = mine(claims.try_claim(&me, "k2", "u", 0).unwrap());
    assert!(again.still_mine());
    drop(me);
    assert!(!again.still_mine(), "without beats nothing is held");
    let lost = |event: &Event| matches!(event.what, What::Lost(_));
    let lost = read_log(state).unwrap().into_iter().filter(lost).map(|event| event.key);
    let mut lost: Vec<String> = lost.collect();
    lost.sort();
    // Not k3, whose work was not told yet.
    assert_eq!(lost, ["k", "k2", "k2"]);
    drop(third);
}
