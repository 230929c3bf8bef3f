mod processes;
mod silence;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::*;

/// Long enough that nothing expires in a test by itself.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(600);

fn worker(state: &Path, launch: &str) -> Worker {
    Worker::register_with(state, launch, "cpu", Timing { beat: LONG / 6, expiry: LONG }).unwrap()
}

fn open(state: &Path) -> Claims {
    Claims::open(state, SHORT).unwrap()
}

fn mine(taken: Taken) -> Claim {
    match taken {
        Taken::Mine(claim) => claim,
        other => panic!("{other:?}"),
    }
}

fn is_held(taken: &Taken) -> bool {
    matches!(taken, Taken::HeldBy { .. })
}

fn read_worker(state: &Path, id: &str) -> WorkerFile {
    let path = workers_folder(state).join(format!("{id}.json"));
    files::parse(&fs::read(path).unwrap()).unwrap()
}

/// Writes a worker's file as another process would.
fn write_worker(state: &Path, file: &WorkerFile) {
    let temporary = workers_folder(state).join(".by-test");
    fs::write(&temporary, files::encode(file).unwrap()).unwrap();
    fs::rename(temporary, workers_folder(state).join(format!("{}.json", file.id))).unwrap();
}

/// A worker as one of another machine would look, which says that it asks for no patience.
fn elsewhere(state: &Path, id: &str) -> WorkerFile {
    let mut file = {
        let worker = worker(state, "l1");
        read_worker(state, worker.id())
    };
    file.id = id.to_owned();
    (file.state, file.expiry_ms) = (State::Working, 0);
    (file.process.host, file.process.boot) = ("far".to_owned(), Some("other boot".to_owned()));
    write_worker(state, &file);
    file
}

/// Writes a claim as worker `id` would have.
fn write_claim(
    state: &Path,
    key: &str,
    generation: u64,
    id: &str,
    change: impl FnOnce(&mut Record),
) {
    let mut record = Record {
        format: FORMAT,
        key: key.to_owned(),
        generation,
        worker: id.to_owned(),
        host: "far".to_owned(),
        launch: "l1".to_owned(),
        unit: "u".to_owned(),
        at: 0,
        taken: wall(),
        released: None,
        setbacks: Vec::new(),
    };
    change(&mut record);
    let path = claims_folder(state).join(format!("{key}.g{generation:04}"));
    fs::write(path, files::encode(&record).unwrap()).unwrap();
}

#[test]
fn of_many_threads_one_gets_each_key() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let keys: Vec<String> = (0..20).map(|key| format!("key-{key}")).collect();
    let barrier = Barrier::new(8);
    let take = |shared: Option<&(Worker, Claims)>| {
        let own = shared.is_none().then(|| (worker(state, "l1"), open(state)));
        let (worker, claims) = shared.or(own.as_ref()).unwrap();
        barrier.wait();
        let won: Vec<Claim> = keys
            .iter()
            .filter_map(|key| match claims.try_claim(worker, key, "u", 0).unwrap() {
                Taken::Mine(claim) => Some(claim),
                Taken::HeldBy { .. } => None,
                other => panic!("{other:?}"),
            })
            .collect();
        // Nobody gives back before all have tried.
        barrier.wait();
        won.into_iter()
            .map(|claim| {
                assert!(claim.still_mine());
                let key = claim.key().to_owned();
                claim.give_back(Released::Done).unwrap();
                key
            })
            .collect::<Vec<_>>()
    };
    // Four workers, and four threads of one.
    let shared = (worker(state, "l1"), open(state));
    let won: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|at| (at < 4).then_some(&shared))
            .map(|shared| scope.spawn(move || take(shared)))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(won.len(), 20);
    assert_eq!(won.iter().collect::<HashSet<_>>().len(), 20);
    let log = read_log(state).unwrap();
    assert_eq!(log.len(), 40);
    assert_eq!(overlaps(&log), []);
    let all = shared.1.all().unwrap();
    assert!(all.len() == 20 && all.iter().all(|r| r.released == Some(Released::Done)));
}

#[test]
fn what_is_given_back_is_free_at_once() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let (a, b) = (worker(state, "l1"), worker(state, "l1"));
    let (of_a, of_b) = (open(state), open(state));
    let claim = mine(of_a.try_claim(&a, "k", "u", 3).unwrap());
    let Taken::HeldBy { worker, host, since } = of_b.try_claim(&b, "k", "u", 3).unwrap() else {
        panic!("not held")
    };
    assert_eq!((&*worker, host), (a.id(), Process::current().host));
    assert_eq!(since, claim.record().taken);
    assert!(is_held(&of_a.try_claim(&a, "k", "u", 3).unwrap()), "it is held by itself");
    claim.give_back(Released::Interrupted).unwrap();
    let claim = mine(of_b.try_claim(&b, "k", "u", 3).unwrap());
    assert_eq!((claim.record().generation, claim.record().setbacks.len()), (2, 0));
    // A claim that is merely dropped is free too.
    drop(claim);
    let claim = mine(of_a.try_claim(&a, "k", "u", 3).unwrap());
    claim.give_back(Released::Done).unwrap();
    let last = of_b.newest("k").unwrap().unwrap();
    assert_eq!((last.generation, last.released), (3, Some(Released::Done)));
    let what: Vec<What> = read_log(state)
        .unwrap()
        .into_iter()
        .filter(|event| event.worker == a.id())
        .map(|event| event.what)
        .collect();
    let [back, done] = [Released::Interrupted, Released::Done].map(What::GivenBack);
    assert_eq!(what, [What::Taken, back, What::Taken, done]);
}

#[test]
fn a_failed_cell_is_not_tried_again_in_its_launch() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let (a, b) = (worker(state, "l1"), worker(state, "l2"));
    let claims = open(state);
    let fail = |worker: &Worker| {
        let claim = mine(claims.try_claim(worker, "k", "u", 0).unwrap());
        claim.give_back(Released::Failed(format!("bad {}", worker.launch()))).unwrap();
    };
    let why = |worker: &Worker| match claims.try_claim(worker, "k", "u", 0).unwrap() {
        Taken::Failed { why, .. } => why,
        other => panic!("{other:?}"),
    };
    fail(&a);
    assert_eq!(why(&a), "bad l1");
    // Two launches at once do not make each other try for ever.
    fail(&b);
    assert_eq!((why(&a), why(&b)), ("bad l1".to_owned(), "bad l2".to_owned()));
    let third = worker(state, "l3");
    mine(claims.try_claim(&third, "k", "u", 0).unwrap()).give_back(Released::Done).unwrap();
    // Whatever went wrong is forgotten.
    mine(claims.try_claim(&a, "k", "u", 0).unwrap());
}

#[test]
fn launches_give_up_after_crashes_without_progress() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let claims = open(state);
    // A worker that ends in a panic, and one whose file says it ended while it held the key.
    let crash = |launch: &str, at: u64| {
        let worker = worker(state, launch);
        let claim = mine(claims.try_claim(&worker, "k", "u", at).unwrap());
        let panicked = std::thread::spawn(move || {
            let _claim = claim;
            panic!("a test of panics");
        });
        assert!(panicked.join().is_err());
    };
    let vanish = |launch: &str, at: u64| {
        let worker = worker(state, launch);
        std::mem::forget(mine(claims.try_claim(&worker, "k", "u", at).unwrap()));
    };
    let crashes = |launch: &str, at: u64| match claims
        .try_claim(&worker(state, launch), "k", "u", at)
        .unwrap()
    {
        Taken::Mine(claim) => Err(claim.record().setbacks.len()),
        Taken::GaveUp { crashes, .. } => Ok(crashes),
        other => panic!("{other:?}"),
    };
    crash("l1", 0);
    vanish("l1", 0);
    assert_eq!(crashes("l1", 0), Ok(2));
    // Progress; from there on it counts anew.
    assert_eq!(crashes("l1", 1), Err(0));
    crash("l1", 5);
    crash("l1", 6);
    assert_eq!(crashes("l1", 6), Err(1), "one without progress, then interrupted");
    vanish("l1", 6);
    assert_eq!(crashes("l1", 6), Ok(2));
    // Another launch has its own count, and does not reset that of the first.
    crash("l2", 6);
    assert_eq!((crashes("l1", 6), crashes("l2", 6)), (Ok(2), Err(3)));
    vanish("l2", 6);
    assert_eq!((crashes("l1", 6), crashes("l2", 6)), (Ok(2), Ok(2)));
    assert_eq!(crashes("l2", 7), Err(0));
    // A worker that was asked to end and had no time to give back did not crash.
    for _ in 0..3 {
        let worker = worker(state, "l1");
        worker.set_state(State::Interrupted);
        std::mem::forget(mine(claims.try_claim(&worker, "k", "u", 7).unwrap()));
    }
    assert_eq!(crashes("l1", 7), Err(0));
    assert_eq!(overlaps(&read_log(state).unwrap()), []);
}

#[test]
fn what_could_not_be_given_back_is_given_back_later() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let timing = Timing { beat: Duration::from_millis(50), expiry: Duration::from_secs(60) };
    let me = Worker::register_with(state, "l1", "cpu", timing).unwrap();
    let claims = open(state);
    let claim = mine(claims.try_claim(&me, "k", "u", 0).unwrap());
    let [folder, aside] = ["claims", "aside"].map(|name| state.join(name));
    fs::rename(&folder, &aside).unwrap();
    let error = claim.give_back(Released::Done).unwrap_err().to_string();
    assert!(error.contains("k.g0001"), "{error}");
    fs::rename(&aside, &folder).unwrap();
    let began = Instant::now();
    while claims.newest("k").unwrap().unwrap().released != Some(Released::Done) {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn foreign_and_damaged_claims_are_named_and_missing_ones_are_none() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let (me, claims) = (worker(state, "l1"), open(state));
    let folder = claims_folder(state);
    let error = |key: &str| claims.try_claim(&me, key, "u", 0).unwrap_err().to_string();
    for key in ["", "a/b", "..", "a.g0001", "é", &"x".repeat(121)] {
        assert!(matches!(claims.try_claim(&me, key, "u", 0), Err(ClaimError::Key(_))), "{key}");
    }
    fs::write(folder.join("torn.g0001"), "{\"format\": 1, \"ke").unwrap();
    assert!(error("torn").contains("torn.g0001"));
    write_claim(state, "new", 1, "a", |record| record.format = 7);
    assert!(error("new").contains("format 7"));
    write_claim(state, "moved", 1, "a", |record| record.key = "k".to_owned());
    assert!(error("moved").contains("another key"));
    fs::remove_file(folder.join("torn.g0001")).unwrap();
    mine(claims.try_claim(&me, "torn", "u", 0).unwrap());
    fs::write(folder.join("notes.gxyz"), "").unwrap();
    fs::write(folder.join("no name.g0001"), "").unwrap();
    fs::remove_file(folder.join("new.g0001")).unwrap();
    fs::remove_file(folder.join("moved.g0001")).unwrap();
    let keys = |claims: &Claims| {
        claims.all().unwrap().into_iter().map(|record| record.key).collect::<Vec<_>>()
    };
    assert_eq!(keys(&claims), ["torn"]);
    // A gap does not hide what came after it.
    write_claim(state, "gap", 3, "a", |record| record.released = Some(Released::Done));
    let anew = open(state);
    assert_eq!(keys(&anew), ["gap", "torn"]);
    assert_eq!(mine(anew.try_claim(&me, "gap", "u", 0).unwrap()).record().generation, 4);
    // An emptied folder is begun anew.
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir_all(log_folder(state)).unwrap();
    assert_eq!(claims.newest("torn").unwrap(), None);
    assert_eq!(mine(claims.try_claim(&me, "torn", "u", 0).unwrap()).record().generation, 1);
    let other = tempfile::tempdir().unwrap();
    let foreign = Claims::open(other.path(), SHORT).unwrap();
    let error = foreign.try_claim(&me, "k", "u", 0).unwrap_err();
    assert!(matches!(error, ClaimError::OtherFolder { .. }));
    let timing = Timing { beat: LONG, expiry: 5 * LONG };
    let refused = Worker::register_with(state, "l1", "cpu", timing);
    assert!(matches!(refused, Err(ClaimError::Timing { .. })));
}

#[test]
fn an_overview_shows_what_workers_say() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let observer = Observer::new(state, SHORT);
    assert!(observer.workers().unwrap().is_empty());
    let timing = Timing { beat: Duration::from_millis(50), expiry: LONG };
    let me = Worker::register_with(state, "l1", "cuda:1", timing).unwrap();
    let status = Status { label: "dinov2".to_owned(), done: 3, total: 9, ..Status::default() };
    me.set_status(status.clone());
    me.set_state(State::Working);
    elsewhere(state, "silent");
    fs::write(workers_folder(state).join("foreign.json"), "[]").unwrap();
    let began = Instant::now();
    let seen = loop {
        let seen = observer.workers().unwrap();
        let of = |id: &str| seen.iter().find(|seen| seen.file.id == id).unwrap();
        let own = of(me.id());
        assert_eq!(own.life, Life::Alive);
        if of("silent").life == Life::Dead && own.file.status == status {
            break seen;
        }
        assert!(began.elapsed() < 20 * SHORT);
        std::thread::sleep(SHORT / 12);
    };
    // This worker, the one that the silent one was copied from, and the silent one.
    assert_eq!(seen.len(), 3);
    let own = seen.iter().find(|seen| seen.file.id == me.id()).unwrap();
    assert_eq!((own.file.state, &*own.file.device), (State::Working, "cuda:1"));
    assert!(own.file.beats > 1 && own.file.process == Process::current());
    assert!(seen.iter().any(|seen| seen.life == Life::Ended(State::Stopped)));
    assert!(seen.iter().any(|seen| seen.life == Life::Dead && seen.quiet >= SHORT));
    let id = me.id().to_owned();
    me.set_state(State::Interrupted);
    assert_eq!(read_worker(state, &id).state, State::Working, "until it ends");
    drop(me);
    assert_eq!(read_worker(state, &id).state, State::Interrupted);
}
