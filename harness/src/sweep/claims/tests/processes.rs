//! Processes that are killed and stopped while they hold claims.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

const STATE: &str = "PIXIO_EVAL_TEST_CLAIMS";
const ROLE: &str = "PIXIO_EVAL_TEST_CLAIMS_ROLE";
const KEYS: usize = 20;

/// Starts this test binary again as one of the processes below.
fn start(state: &Path, role: &str) -> Child {
    // Without the name of the crate.
    let module = module_path!().split_once("::").unwrap().1;
    let name = format!("{module}::a_process_of_another_test");
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--ignored", "--nocapture"])
        .envs([(STATE, state.as_os_str()), (ROLE, role.as_ref())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "a process of another test"]
fn a_process_of_another_test() {
    let state = std::env::var_os(STATE).expect("started by another test");
    let role = std::env::var(ROLE).unwrap();
    match &*role {
        "hold" => hold(state.as_ref()),
        launch => work(state.as_ref(), launch),
    }
}

/// Holds a claim until it is lost.
fn hold(state: &Path) {
    let timing = Timing { beat: Duration::from_millis(200), expiry: Duration::from_secs(6) };
    let worker = Worker::register_with(state, "l1", "cpu", timing).unwrap();
    let claim = mine(open(state).try_claim(&worker, "k", "u", 0).unwrap());
    println!("\nholds");
    while claim.still_mine() {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("\nlost: {}", claim.lost().unwrap());
}

/// Does all keys, each with a lock of the system's that two holders at once would notice.
fn work(state: &Path, launch: &str) {
    let worker = Worker::register(state, launch, "cpu").unwrap();
    let claims = Claims::open(state, EXPIRY).unwrap();
    let done = |key: usize| state.join(format!("done-{key}"));
    let offset = std::process::id() as usize;
    while !(0..KEYS).all(|key| done(key).exists()) {
        for key in (0..KEYS).map(|key| (key + offset) % KEYS).filter(|&key| !done(key).exists()) {
            match claims.try_claim(&worker, &format!("key-{key}"), "u", 0).unwrap() {
                Taken::Mine(claim) if !done(key).exists() => {
                    let busy = state.join(format!("busy-{key}"));
                    let busy = fs::File::options().create(true).append(true).open(busy).unwrap();
                    busy.try_lock().expect("held twice at a time");
                    for _ in 0..20 {
                        assert!(claim.still_mine(), "{:?}", claim.lost());
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    fs::File::create_new(done(key)).expect("done twice");
                    busy.unlock().unwrap();
                    claim.give_back(Released::Done).unwrap();
                }
                Taken::Mine(claim) => claim.give_back(Released::Done).unwrap(),
                Taken::HeldBy { .. } | Taken::Contested => {}
                other => panic!("{other:?}"),
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn killed_processes_lose_no_key_and_none_is_held_twice() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let mut launches = 0;
    let mut start_next = || {
        // Crashes without progress are wanted here: each process is a launch of its own.
        launches += 1;
        start(state, &format!("l{launches}"))
    };
    let mut running: Vec<Child> = (0..4).map(|_| start_next()).collect();
    let (began, mut killed, mut random) = (Instant::now(), 0, 0x2545_f491_4f6c_dd1d_u64);
    loop {
        // Xorshift.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_millis(random % 80));
        for child in &mut running {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
            }
        }
        if (0..KEYS).all(|key| state.join(format!("done-{key}")).exists()) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(120));
        let victim = &mut running[(random >> 32) as usize % 4];
        victim.kill().unwrap();
        killed += 1;
        // Dead, and not asked for yet how it ended.
        std::thread::sleep(Duration::from_millis(5));
        victim.wait().unwrap();
        *victim = start_next();
    }
    for mut child in running {
        assert!(child.wait().unwrap().success());
    }
    let log = read_log(state).unwrap();
    assert_eq!(overlaps(&log), []);
    let done = |event: &&Event| event.what == What::GivenBack(Released::Done);
    let done: HashSet<&str> = log.iter().filter(done).map(|event| &*event.key).collect();
    let over = log.iter().filter(|event| matches!(event.what, What::TakenOver { .. })).count();
    println!("{killed} killed, {over} claims taken over, {} events", log.len());
    assert!(killed >= 5 && over >= 3, "{killed} killed, {over} taken over");
    assert!(done.len() <= KEYS);
}

#[test]
#[cfg(target_os = "linux")]
fn a_process_that_was_stopped_notices_that_its_key_was_taken_over() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let mut child = start(state, "hold");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "holds"));
    let signal = |name: &str| {
        let command = format!("kill -{name} {}", child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    };
    let (me, claims) = (worker(state, "l1"), open(state));
    signal("STOP");
    let stopped = Instant::now();
    let claim = loop {
        match claims.try_claim(&me, "k", "u", 0).unwrap() {
            Taken::Mine(claim) => break claim,
            other => assert!(is_held(&other), "{other:?}"),
        }
        assert!(stopped.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(100));
    };
    // As long as it asks for.
    assert!(stopped.elapsed() > Duration::from_secs(5), "{:?}", stopped.elapsed());
    signal("CONT");
    assert!(lines.any(|line| line.starts_with("lost: ")));
    assert!(child.wait().unwrap().success());
    assert!(claim.still_mine());
    assert_eq!(claim.record().setbacks.len(), 1);
    claim.give_back(Released::Done).unwrap();
    // It noticed only later: the log says so.
    let log = read_log(state).unwrap();
    assert_eq!(overlaps(&log).len(), 1);
    assert_eq!(claims.newest("k").unwrap().unwrap().generation, 2);
}
