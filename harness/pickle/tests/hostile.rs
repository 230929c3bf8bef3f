//! Files made to do harm: each is refused, within 256 MiB of memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod forge;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use forge::{Assembler, archive, legacy, zip};
use pixio_eval_pickle::{Checkpoint, CheckpointError, Fault, LimitKind, PickleError};

/// Counts what the thread holds, and the most it ever held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may both be held while the content is moved.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: as the caller promised.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const MOST: isize = 256 << 20;

/// Opens `bytes`, which must fail, on a small stack and in bounded memory.
fn refused(bytes: Vec<u8>) -> CheckpointError {
    let attempt = move || {
        let before = HELD.get();
        PEAK.set(before);
        let outcome = Checkpoint::new(&*bytes).err();
        let peak = PEAK.get() - before;
        assert!(peak <= MOST, "{} MiB for {} bytes", peak >> 20, bytes.len());
        (outcome, peak)
    };
    let thread = std::thread::Builder::new().stack_size(512 << 10);
    let (outcome, peak) = thread.spawn(attempt).unwrap().join().unwrap();
    let error = outcome.expect("it was read");
    println!("{:4} MiB: {error}", peak >> 20);
    error
}

fn fault(bytes: Vec<u8>) -> Fault {
    match refused(bytes) {
        CheckpointError::Pickle(PickleError { fault, .. }) => fault,
        other => panic!("{other}"),
    }
}

fn limit(bytes: Vec<u8>) -> LimitKind {
    match fault(bytes) {
        Fault::Limit { kind, .. } => kind,
        other => panic!("{other}"),
    }
}

#[test]
fn code_is_never_run_nor_passed_over() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("__builtin__", "eval"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_qtensor"),
        ("torch._utils", "__import__"),
        ("numpy", "load"),
        ("torch.serialization", "load"),
        ("collections", "OrderedDict.__class__"),
    ] {
        for stacked in [false, true] {
            let mut a = Assembler::new();
            a.byte(b'}').byte(b'(').text("model");
            if stacked {
                a.text(module).text(name).byte(0x93);
            } else {
                a.global(module, name);
            }
            a.text("true").byte(0x85).byte(b'R').byte(b'u');
            let asked = Fault::Global { module: module.to_owned(), name: name.to_owned() };
            assert_eq!(fault(archive(&a.stop(), &[])), asked);
            assert_eq!(fault(legacy(&a.stop(), &[])), asked);
        }
    }
}

#[test]
fn instructions_that_data_do_not_need_are_refused() {
    // Extension registry, old-style instances, buffers outside the pickle, textual protocol 0.
    for code in [&b"\x82\x01"[..], b"(ios\nsystem\n", b"(o", b"\x97", b"I1\n", b"Pkey\n", b"2"] {
        let mut a = Assembler::new();
        a.bytes(code);
        assert!(matches!(fault(archive(&a.stop(), &[])), Fault::Refused(_)), "{code:?}");
    }
    let mut a = Assembler::new();
    a.byte(0xff);
    assert_eq!(fault(archive(&a.stop(), &[])), Fault::Unknown(0xff));
    assert_eq!(fault(archive(b"\x80\x06N.", &[])), Fault::Protocol(6));
    assert!(matches!(fault(archive(b"\x80\x02NN.", &[])), Fault::Ending(2)));
    assert!(matches!(refused(archive(b"\x80\x02}.N", &[])), CheckpointError::Trailing(1)));
}

#[test]
fn bombs_are_stopped() {
    let repeated = |unit: &[u8], times: usize| {
        let mut a = Assembler::new();
        a.bytes(&unit.repeat(times));
        archive(&a.stop(), &[])
    };
    // Values, groups, containers, memo entries, each without end.
    assert_eq!(limit(repeated(b"N", 50_000_000)), LimitKind::Memory);
    assert_eq!(limit(repeated(b"(", 50_000_000)), LimitKind::Memory);
    assert!(matches!(limit(repeated(b"]", 5_000_000)), LimitKind::Objects | LimitKind::Memory));
    assert_eq!(limit(repeated(b"]0", 5_000_000)), LimitKind::Objects);
    assert_eq!(limit(repeated(b"]Na", 5_000_000)), LimitKind::Memory);
    assert_eq!(limit(repeated(b"]Na0", 5_000_000)), LimitKind::Memory);
    assert_eq!(limit(repeated(b"}NNs0", 5_000_000)), LimitKind::Memory);
    assert_eq!(limit(repeated(b"\x8f(N\x900", 5_000_000)), LimitKind::Memory);
    assert!(matches!(limit(repeated(b"N\x940", 5_000_000)), LimitKind::Memo | LimitKind::Memory));
    assert_eq!(limit(repeated(b"ccollections\nOrderedDict\n)R0", 1_000_000)), LimitKind::Memory);
    let object = b"ccollections\nOrderedDict\n)R(NNNNu(Ne0";
    assert_eq!(limit(repeated(object, 1_000_000)), LimitKind::Memory);
    let mut a = Assembler::new();
    a.byte(b'}').byte(b'(').bytes(&b"NN".repeat(3_000_000)).byte(b'u');
    assert_eq!(limit(archive(&a.stop(), &[])), LimitKind::Memory);
    // As large as it may be, twice over, as a group and as a list.
    let mut a = Assembler::new();
    a.byte(b']').byte(b'(').bytes(&b"N".repeat(2_000_000)).byte(b'e');
    assert!(matches!(refused(archive(&a.stop(), &[])), CheckpointError::NoTensors(_)));
    a.byte(b'(').bytes(&b"N".repeat(2_000_000)).byte(b'e');
    assert_eq!(limit(archive(&a.stop(), &[])), LimitKind::Memory);
    // Every pickle of an older file as large as it may be.
    let large = |end: &[u8]| {
        let mut a = Assembler::new();
        a.byte(b']').byte(b'(').bytes(&b"N".repeat(1_900_000)).byte(b'e').bytes(end);
        a.stop()
    };
    refused([forge::MAGIC, &large(b"0M\xe9\x03")].concat());
    let head = [forge::MAGIC, b"\x80\x02M\xe9\x03.", b"\x80\x02}."].concat();
    refused([&head[..], &large(b""), &large(b"")].concat());
}

#[test]
fn few_bytes_do_not_stand_for_many_names() {
    // A dict that holds the one before it twice, forty times over.
    let mut a = Assembler::new();
    a.byte(b'}').byte(0x94);
    for level in 0..40u8 {
        a.byte(b'}').byte(b'(').text("l").bytes(&[b'h', level]);
        a.text("r").bytes(&[b'h', level]).byte(b'u').byte(0x94);
    }
    // Only the last one stays: a tuple's end takes the others along.
    let mut nested = Assembler::new();
    nested.byte(b'(').bytes(&a.code[2..]).byte(b't');
    assert!(matches!(refused(archive(&nested.stop(), &[])), CheckpointError::NoTensors(_)));
    let mut top = Assembler::new();
    top.byte(b'(').bytes(&a.code[2..]).byte(b'1').bytes(&[b'h', 40]);
    assert!(matches!(refused(archive(&top.stop(), &[])), CheckpointError::TooMuch { .. }));
    // One tensor of 64 dimensions under very many keys.
    let mut a = Assembler::new();
    a.tensor("FloatStorage", "0", 1, 0, &[1; 64], &[1; 64]).byte(0x94).byte(b'0');
    a.byte(b'}').byte(b'(');
    for key in 0..250_000u32 {
        a.text(&key.to_string()).bytes(b"h\x00");
    }
    let many = archive(&a.byte(b'u').stop(), &[("0", &[0; 4])]);
    assert!(matches!(refused(many), CheckpointError::TooMuch { .. }));
}

#[test]
fn depth_and_cycles_are_bounded() {
    let mut a = Assembler::new();
    a.byte(b')').bytes(&b"\x85".repeat(400_000));
    assert_eq!(limit(archive(&a.stop(), &[])), LimitKind::Depth);
    let mut a = Assembler::new();
    for _ in 0..400_000 {
        a.byte(b'}').byte(b'N');
    }
    a.byte(b'N').bytes(&b"s".repeat(400_000));
    assert_eq!(limit(archive(&a.stop(), &[])), LimitKind::Depth);
    let mut a = Assembler::new();
    a.byte(b'}').byte(0x94).text("model").bytes(b"h\x00s");
    assert_eq!(fault(archive(&a.stop(), &[])), Fault::Cycle);
    let mut a = Assembler::new();
    a.bytes(b"]\x94(").bytes(&b"h\x00".repeat(100_000)).byte(b'e');
    assert_eq!(fault(archive(&a.stop(), &[])), Fault::Cycle);
}

#[test]
fn sizes_beyond_the_file_are_not_believed() {
    let huge = u64::MAX.to_le_bytes();
    for code in [0x8d, 0x8e, 0x96, 0x95] {
        let mut a = Assembler::new();
        a.byte(code).bytes(&huge);
        assert!(matches!(fault(archive(&a.stop(), &[])), Fault::Truncated { .. }));
    }
    for code in [b'X', b'B', b'T', 0x8b] {
        let mut a = Assembler::new();
        a.byte(code).bytes(&[0xff; 4]);
        assert!(matches!(fault(archive(&a.stop(), &[])), Fault::Truncated { .. }));
    }
    let tensor = |count: i64, offset: i64, sizes: &[i64], strides: &[i64]| {
        let mut a = Assembler::new();
        a.byte(b'}').text("a");
        a.tensor("FloatStorage", "0", count, offset, sizes, strides).byte(b's');
        refused(legacy(&a.stop(), &[("0", 4, &[0; 16])]));
        refused(archive(&a.stop(), &[("0", &[0; 16])])).to_string()
    };
    let seen = [
        tensor(1 << 40, 0, &[4], &[1]),
        tensor(i64::MAX, 0, &[4], &[1]),
        tensor(-1, 0, &[4], &[1]),
        tensor(4, 1, &[4], &[1]),
        tensor(4, -1, &[4], &[1]),
        tensor(4, i64::MAX, &[4], &[1]),
        tensor(4, 0, &[5], &[1]),
        tensor(4, 0, &[2], &[4]),
        tensor(4, 0, &[2, 2], &[i64::MAX, i64::MAX]),
        tensor(4, 0, &[1 << 40], &[0]),
        tensor(4, 0, &[1 << 32, 1 << 32, 1 << 32], &[0, 0, 0]),
        tensor(4, 0, &[4], &[]),
        tensor(4, 0, &[1; 65], &[1; 65]),
    ];
    let expected = [
        "storage 0: 16 bytes in the file, expected 4398046511104",
        "storage 0: 16 bytes in the file, expected 18446744073709551615",
        "tensor a: storage length is -1; expected 0 or more",
        "tensor a: it reaches to element 5 of a storage of 4",
        "tensor a: offset is -1; expected 0 or more",
        "tensor a: it reaches to element 9223372036854775811 of a storage of 4",
        "tensor a: it reaches to element 5 of a storage of 4",
        "tensor a: it reaches to element 5 of a storage of 4",
        "tensor a: it reaches to element 18446744073709551615 of a storage of 4",
        "tensor a: it repeats its storage to 4398046511104 bytes; expected at most 67108864",
        "tensor a: its sizes and strides exceed 64 bits",
        "tensor a: 1 sizes and 0 strides; expected as many, at most 64",
        "tensor a: 65 sizes and 65 strides; expected as many, at most 64",
    ];
    assert_eq!(seen, expected);
    let mut a = Assembler::new();
    a.byte(b'}').text("a").tensor("FloatStorage", "0", 4, 0, &[4], &[1]).byte(b's');
    let mut file = legacy(&a.stop(), &[("0", 4, &[0; 16])]);
    let count = file.len() - 24;
    file[count..count + 8].copy_from_slice(&huge);
    assert!(matches!(refused(file), CheckpointError::Storage { .. }));
}

#[test]
fn short_tuples_and_wrong_kinds_are_named() {
    let file = |code: &dyn Fn(&mut Assembler)| {
        let mut a = Assembler::new();
        a.byte(b'}').text("a");
        code(&mut a);
        refused(archive(&a.byte(b's').stop(), &[("0", &[0; 16])])).to_string()
    };
    let rebuild = ("torch._utils", "_rebuild_tensor_v2");
    let seen = [
        file(&|a| _ = a.global(rebuild.0, rebuild.1).bytes(b")R")),
        file(&|a| _ = a.global(rebuild.0, rebuild.1).bytes(b"N\x85R")),
        file(&|a| {
            _ = a.global(rebuild.0, rebuild.1).storage("FloatStorage", "0", 4).bytes(b"\x85R");
        }),
        file(&|a| {
            let a = a.global(rebuild.0, rebuild.1).storage("FloatStorage", "0", 4);
            _ = a.bytes(b"K\x00K\x04\x87R");
        }),
        file(&|a| _ = a.global(rebuild.0, rebuild.1).text("storage").bytes(b"\x85Q\x85R")),
        file(&|a| _ = a.global(rebuild.0, rebuild.1).bytes(b"NQ\x85R")),
        file(&|a| _ = a.global(rebuild.0, rebuild.1).storage("Size", "0", 4).bytes(b"\x85R")),
        file(&|a| _ = a.global("torch._utils", "_rebuild_parameter").bytes(b"N\x85R")),
        file(&|a| _ = a.global("torch._tensor", "_rebuild_from_type_v2").bytes(b")R")),
        file(&|a| _ = a.global(rebuild.0, rebuild.1).bytes(b"NR")),
        file(&|a| _ = a.bytes(b"N)R")),
        file(&|a| _ = a.bytes(b"NN\x87")),
        file(&|a| _ = a.bytes(b"(NN\x87t")),
        file(&|a| _ = a.bytes(b"Nt")),
        file(&|a| _ = a.bytes(b"h\x07")),
        file(&|a| _ = a.bytes(b"}(Nu")),
    ];
    let expected = [
        "tensor a: storage: expected an argument, found nothing",
        "tensor a: storage: expected a reference outside the pickle, found None",
        "tensor a: offset: expected an argument, found nothing",
        "tensor a: size: expected a tuple, found an integer",
        "tensor a: storage class: expected an argument, found nothing",
        "tensor a: reference: expected an argument, found nothing",
        "tensor a: torch.Size is not a type of elements",
        "tensor a: parameter: expected a tensor, found None",
        "tensor a: function: expected an argument, found nothing",
    ];
    for (seen, expected) in seen.iter().zip(expected) {
        assert_eq!(seen, expected);
    }
    let kinds =
        ["REDUCE takes", "REDUCE takes", "", "TUPLE3 takes", "TUPLE ends", "memo entry 7", "a key"];
    for (seen, kind) in seen[expected.len()..].iter().zip(kinds) {
        assert!(seen.starts_with(kind), "{seen}");
    }
}

#[test]
fn archives_that_are_not_what_they_say() {
    let mut a = Assembler::new();
    a.byte(b'}').text("a").tensor("FloatStorage", "0", 4, 0, &[4], &[1]).byte(b's');
    let pickle = a.stop();
    let whole = archive(&pickle, &[("0", &[1; 16])]);
    assert_eq!(Checkpoint::new(&*whole).unwrap().names().collect::<Vec<_>>(), ["a"]);

    // Entries of one place, of one name, of a place in another's middle, outside, in the directory.
    let text = |bytes: Vec<u8>| refused(bytes).to_string();
    let entries: [(&str, &[u8]); 3] =
        [("x/data.pkl", &pickle), ("x/data/0", &[1; 16]), ("x/y", &[2; 64])];
    let made = |change: &dyn Fn(&mut Vec<forge::Record>)| zip(&entries, change);
    let seen = [
        text(made(&|r| r[2] = r[1].clone())),
        text(made(&|r| r[1].size += 8)),
        text(made(&|r| r[2].size += 1)),
        text(made(&|r| r[2].size = u32::MAX - 1)),
        text(made(&|r| r[2].place = 7)),
        text(made(&|r| r[2].place = u32::MAX - 1)),
        text(made(&|r| r[2].method = 8)),
        text(made(&|r| r[2].flags = 1)),
        text(made(&|r| r[2].size = u32::MAX)),
        text(made(&|r| _ = r.remove(0))),
        text(made(&|r| _ = r.remove(1))),
    ];
    let expected = [
        "zip entry x/data/0: two entries have this name",
        "zip entry x/y: it overlaps another entry",
        "zip entry x/y: it lies outside the file",
        "zip entry x/y: it lies outside the file",
        "zip entry x/y: its header is not where the directory says",
        "zip entry x/y: its header is not where the directory says",
        "zip entry x/y: it is compressed; expected entries stored as torch.save stores them",
        "zip entry x/y: it is encrypted",
        "zip entry x/y: its 64-bit size or place is missing",
        "the archive has no entry data.pkl",
        "storage 0: not in the file",
    ];
    assert_eq!(seen, expected);
    // An archive within an entry of another: a second entry whose header lies in the first one's data.
    let inner = forge::local("x/data/0", &[1; 16]);
    let outer: [(&str, &[u8]); 2] = [("x/data.pkl", &pickle), ("x/big", &inner)];
    let nested = zip(&outer, &|records| {
        let mut quoted = records[1].clone();
        quoted.name = "x/data/0".to_owned();
        quoted.place += 30 + "x/big".len() as u32;
        quoted.size = 16;
        records.push(quoted);
    });
    assert_eq!(text(nested), "zip entry x/data/0: it overlaps another entry");

    // Sizes and places of 64 bits, as files beyond 4 GiB have them, are read and held to the same.
    let wide = forge::zip64(&entries);
    let read = Checkpoint::new(&*wide).unwrap();
    assert_eq!(&*read.bytes("a").unwrap(), [1; 16]);
    for at in 0..wide.len() {
        let mut grown = wide.clone();
        grown[at..].iter_mut().take(8).for_each(|byte| *byte = 0xff);
        let read = Checkpoint::new(&*grown).ok();
        let bytes = read.as_ref().and_then(|read| Some(read.bytes("a").ok()?.into_owned()));
        assert!(bytes.is_none_or(|bytes| bytes == [1; 16]), "at {at}");
    }

    // Damage to a tensor is found when it is read.
    let mut damaged = whole.clone();
    let at = damaged.windows(16).position(|bytes| bytes == [1; 16]).unwrap();
    damaged[at] ^= 1;
    let error = Checkpoint::new(&*damaged).unwrap().bytes("a").unwrap_err().to_string();
    assert!(error.contains("zip entry 0 is damaged"), "{error}");
    // Very many entries.
    let names: Vec<String> = (0..200_000).map(|i| format!("x/{i}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &b""[..])).collect();
    let error = text(forge::zip64(&many));
    assert!(error.contains("more entries than"), "{error}");
}

#[test]
fn no_tensors_is_an_error() {
    for pickle in [&b"\x80\x02}."[..], b"\x80\x02N.", b"\x80\x02]."] {
        let none = |error| matches!(error, CheckpointError::NoTensors(_));
        assert!(none(refused(archive(pickle, &[]))) && none(refused(legacy(pickle, &[]))));
    }
}
