//! The published split lists: fetched, checked, kept, and not needed where the folder decides.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::{Ran, World};
use insta::assert_snapshot;
use pixio_eval::lists::{ListError, ListOptions, cached, obtain};
use pixio_eval::progress::{Reporter, Verbosity};
use sha2::{Digest, Sha256};
use tasks::data::{Dataset, ListOrigin, Registry, State, status};
use tasks::dense::{ListSource, PairedSet};
use tasks::files::Files;

/// What is sent for every path.
#[derive(Clone)]
struct Answer {
    status: u16,
    body: Vec<u8>,
    /// The length that is announced, where it is another.
    length: Option<usize>,
}

fn page(status: u16, body: &str) -> Answer {
    Answer { status, body: body.as_bytes().to_vec(), length: None }
}

type Answers = Box<dyn Fn(&str) -> Answer + Send>;

/// A server on this machine that keeps what was asked for. It ends with the test's process.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<Answers>>,
}

impl Server {
    fn new(answer: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Mutex<Answers>> = Arc::new(Mutex::new(Box::new(answer)));
        let (log, shared) = (Arc::clone(&asked), Arc::clone(&answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that hangs up is its own business.
                let _ = send(stream.unwrap(), &log, &shared);
            }
        });
        Self { port, asked, answer }
    }

    fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn answers(&self, answer: impl Fn(&str) -> Answer + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }
}

fn send(
    stream: TcpStream,
    log: &Mutex<Vec<String>>,
    answer: &Mutex<Answers>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or("").to_owned();
    let answer = (answer.lock().unwrap())(&path);
    log.lock().unwrap().push(path);
    let length = answer.length.unwrap_or(answer.body.len());
    let head = format!(
        "HTTP/1.1 {} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n",
        answer.status
    );
    reader.get_mut().write_all(head.as_bytes())?;
    reader.get_mut().write_all(&answer.body)
}

const TRAIN: &str = "i/1.jpg t/1.png\ni/2.jpg t/2.png\n";
const VAL: &str = "i/3.jpg t/3.png\n";

fn small(path: &str) -> Answer {
    match path {
        "/x/train.txt" => page(200, TRAIN),
        "/x/val.txt" => page(200, VAL),
        _ => page(404, "no"),
    }
}

/// NYUv2 with small lists in place of the published ones.
fn dataset(base: &str) -> Dataset {
    let mut dataset = Registry::builtin().unwrap().get("nyuv2").unwrap().clone();
    for (split, text) in [("train", TRAIN), ("val", VAL)] {
        let entry = dataset.list.pinned.get_mut(split).unwrap();
        entry.url = format!("{base}/x/{split}.txt");
        entry.sha256 = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        entry.lines = text.lines().count();
        entry.bytes = text.len() as u64;
        dataset.splits.insert(split.to_owned(), entry.lines);
    }
    dataset
}

fn quiet() -> Reporter {
    Reporter::new(Verbosity::Quiet)
}

fn kept(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.join("splits-v1"));
    entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn lists_are_fetched_once_and_decide_and_a_damaged_one_is_fetched_again() {
    let server = Server::new(small);
    let dataset = dataset(&server.base());
    let world = World::new();
    let (cache, root) = (world.path("cache"), world.path("data"));
    for (folder, end) in [("i", "jpg"), ("t", "png")] {
        fs::create_dir_all(root.join(folder)).unwrap();
        (1..=3).for_each(|i| fs::write(root.join(format!("{folder}/{i}.{end}")), "x").unwrap());
    }
    let online = ListOptions::default();
    let offline = ListOptions { offline: true, mirror: None };

    assert_eq!(cached(&dataset, &cache), None);
    let found = status(&dataset, &Files::folder(&root), None);
    assert_eq!(found.state, State::NoSplitLists);
    assert_eq!(found.lists, Some(ListOrigin::PinnedNotFetched));
    let lists = obtain(&dataset, &cache, &online, &quiet()).unwrap().unwrap();
    assert_eq!((lists.train.as_str(), lists.val.as_str()), (TRAIN, VAL));
    assert_eq!(server.asked(), ["/x/train.txt", "/x/val.txt"]);
    assert_eq!(kept(&cache).len(), 2);
    for options in [&online, &offline] {
        assert_eq!(obtain(&dataset, &cache, options, &quiet()).unwrap().unwrap(), lists);
    }
    assert_eq!(cached(&dataset, &cache), Some(lists.clone()));
    assert_eq!(server.asked().len(), 2);

    let set = PairedSet::open_with(&dataset, &root, Some(&lists)).unwrap();
    let pinned = &dataset.list.pinned["train"];
    let (url, sha256) = (pinned.url.clone(), pinned.sha256.clone());
    assert_eq!(*set.train.source(), ListSource::Pinned { url, sha256: sha256.clone() });
    assert_eq!((set.train.found(), set.val.found()), (2, 1));
    assert!(set.notes(&dataset).is_empty() && !set.own_lists());
    let record = serde_json::to_value(&set.records(&dataset)["train"]).unwrap();
    let list = serde_json::json!({ "kind": "pinned", "sha256": sha256 });
    assert_eq!(record, serde_json::json!({ "found": 2, "published": 2, "list": list }));
    let found = status(&dataset, &Files::folder(&root), Some(&lists));
    assert_eq!((found.state, found.lists), (State::Complete, Some(ListOrigin::Pinned)));

    fs::remove_file(root.join("t/2.png")).unwrap();
    let plain = |text: String| {
        let text = world.plain(text.as_bytes());
        text.replace(&format!(":{}", server.port), ":PORT")
    };
    let error = PairedSet::open_with(&dataset, &root, Some(&lists)).unwrap_err();
    assert_snapshot!(plain(error.to_string()), @"WORLD/data: image i/2.jpg and target t/2.png are a pair by http://127.0.0.1:PORT/x/train.txt, line 2, but there is no such target");
    let found = status(&dataset, &Files::folder(&root), Some(&lists));
    assert_eq!((found.state, found.splits[0].found), (State::Incomplete, 1));
    assert_snapshot!(plain(found.problems.join("\n")), @"http://127.0.0.1:PORT/x/train.txt names files that are not there (1), the first on line 2: t/2.png");

    let path = cache.join("splits-v1").join(format!("{sha256}.txt"));
    fs::write(&path, TRAIN.replace('1', "7")).unwrap();
    assert_eq!(cached(&dataset, &cache), None);
    let error = obtain(&dataset, &cache, &offline, &quiet()).unwrap_err();
    assert!(matches!(error, ListError::Offline { split: "train", .. }), "{error}");
    assert_eq!(obtain(&dataset, &cache, &online, &quiet()).unwrap().unwrap(), lists);
    assert_eq!(server.asked()[2..], ["/x/train.txt"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), TRAIN);
}

#[test]
fn what_is_not_the_list_is_refused_and_not_kept() {
    let server = Server::new(small);
    let dataset = dataset(&server.base());
    let world = World::new();
    let cache = world.path("cache");
    let refused = |answer: Answer| {
        server.answers(move |_| answer.clone());
        let error =
            obtain(&dataset, &cache, &ListOptions::default(), &quiet()).unwrap_err().to_string();
        assert!(kept(&cache).is_empty(), "{:?}", kept(&cache));
        error.replace(&format!(":{}", server.port), ":PORT")
    };
    assert_snapshot!(refused(page(200, &TRAIN.replace('1', "7"))), @"http://127.0.0.1:PORT/x/train.txt is not the published list: expected SHA-256 b9b6beb83dc572ffd7b4b5f9d4756bbba967db0a7c5109b7ce536f7171e0afa0, found 9b74629d08e152d0bacf4c89856ccc3887fe3cce0ec5e82272bce17263d52167; nothing was kept");
    assert_snapshot!(refused(page(200, &TRAIN[1..])), @"http://127.0.0.1:PORT/x/train.txt is not the published list: expected 32 bytes, found 31 bytes; nothing was kept");
    assert_snapshot!(refused(page(200, &TRAIN.repeat(100_000))), @"http://127.0.0.1:PORT/x/train.txt is not the published list: expected 32 bytes, found more; nothing was kept");
    assert_snapshot!(refused(page(404, TRAIN)), @"cannot fetch http://127.0.0.1:PORT/x/train.txt: expected HTTP status 200, found 404");
    assert_snapshot!(refused(page(302, TRAIN)), @"cannot fetch http://127.0.0.1:PORT/x/train.txt: expected HTTP status 200, found 302");
    let cut = Answer { length: Some(TRAIN.len()), ..page(200, &TRAIN[..20]) };
    let message = refused(cut);
    assert!(message.starts_with("cannot fetch http://127.0.0.1:PORT/x/train.txt: "), "{message}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody =
        ListOptions { offline: false, mirror: Some(format!("http://127.0.0.1:{}", closed.port())) };
    let error = obtain(&dataset, &cache, &nobody, &quiet()).unwrap_err();
    assert!(matches!(&error, ListError::Fetch { why, .. } if !why.is_empty()), "{error}");
    assert!(kept(&cache).is_empty());

    // A list of another number of lines than datasets.toml says, although the hash is right.
    server.answers(small);
    let mut other = dataset.clone();
    other.list.pinned.get_mut("train").unwrap().lines = 3;
    let error = obtain(&other, &cache, &ListOptions::default(), &quiet()).unwrap_err();
    assert!(matches!(&error, ListError::Mismatch { expected, .. } if expected == "3 lines"));
    // No list is pinned: there is nothing to fetch.
    let ade20k = Registry::builtin().unwrap().get("ade20k").unwrap().clone();
    assert_eq!(obtain(&ade20k, &cache, &ListOptions::default(), &quiet()).unwrap(), None);
    assert!(kept(&cache).is_empty());
}

/// Runs with this server in place of the lists' own. Its port becomes PORT.
fn run(world: &World, server: &Server, more: &[&str], env: &[(&str, &str)]) -> Ran {
    let args = ["run", "nyuv2/linear", "--backbone", "random:pixio-nano", "--protocol", "sample"];
    let data = ["--data", "nyuv2=nyuv2", "--epochs", "0"];
    let mut command = world.command(&[&args[..], &data, more].concat());
    command.env("PIXIO_EVAL_LISTS", format!("{}/mirror/", server.base()));
    command.envs(env.iter().copied());
    let ran = world.finish(command);
    Ran { stderr: ran.stderr.replace(&format!(":{}", server.port), ":PORT"), ..ran }
}

/// A world with NYUv2's layout, without lists of its own.
fn world() -> World {
    let world = World::new();
    let made = world.run(&["data", "sample", "nyuv2", "--to", "."]);
    assert_eq!(made.status, Some(0), "{}", made.stderr);
    for list in ["train.txt", "val.txt"] {
        fs::rename(world.path("nyuv2").join(list), world.path(list)).unwrap();
    }
    world
}

#[test]
fn a_run_says_why_a_list_is_not_there() {
    let (world, server) = (world(), Server::new(small));
    let refused = |more: &[&str], env: &[(&str, &str)]| {
        let ran = run(&world, &server, more, env);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{}", ran.stderr);
        assert!(kept(&world.path("cache")).is_empty());
        ran.stderr
    };
    assert_snapshot!("not_there", refused(&[], &[]));
    let path = "/mirror/facebookresearch/pixio/b83555d6581f4906f6f1fc1ae0abb04f622db32f/evaluation/\
                monodepth/splits/nyuv2/train.txt";
    assert_eq!(server.asked(), [path]);
    server.answers(|_| page(200, &"x".repeat(1_831_349)));
    assert_snapshot!("wrong_bytes", refused(&[], &[]));
    server.answers(|_| page(200, "<html>sign in</html>"));
    assert_snapshot!("a_page_in_its_place", refused(&[], &[]));
    let asked = server.asked().len();
    assert_snapshot!("offline", refused(&["--offline"], &[]));
    assert_eq!(refused(&[], &[("HF_HUB_OFFLINE", "1")]), refused(&["--offline"], &[]));
    assert_eq!(server.asked().len(), asked);
}

#[test]
fn the_folders_own_lists_need_no_network() {
    let (world, server) = (world(), Server::new(small));
    let status = |world: &World| world.run(&["data", "status", "nyuv2", "--data", "nyuv2=nyuv2"]);
    assert_snapshot!(status(&world).stdout, @"nyuv2: there, its published split lists not fetched yet (a run fetches them), generated sample data (nyuv2)");
    for list in ["train.txt", "val.txt"] {
        fs::rename(world.path(list), world.path("nyuv2").join(list)).unwrap();
    }
    for more in [&[][..], &["--offline", "--out", "offline"]] {
        let ran = run(&world, &server, more, &[]);
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    }
    assert!(server.asked().is_empty() && kept(&world.path("cache")).is_empty());
    let listed = world.run(&["data", "list", "--json"]).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let nyuv2 = listed.as_array().unwrap().iter().find(|set| set["name"] == "nyuv2").unwrap();
    assert_eq!(nyuv2["list"]["pinned"]["val"]["lines"], 654);
    assert_snapshot!(status(&world).stdout, @"
    nyuv2: complete, generated sample data (nyuv2)
      train  8 of 8, by train.txt
      val    4 of 4, by val.txt
    ");
}
