//! Whatever the bytes, decoding returns: pixels or an error, no panic and no abort.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::LazyLock;

use pixio_eval_tasks::image;
use proptest::prelude::*;

static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images");
    let mut paths: Vec<_> = ["jpeg", "png"]
        .iter()
        .flat_map(|kind| std::fs::read_dir(folder.join(kind)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
});

/// Whether the sizes in the headers are small: a mutated one must not make the test slow.
fn small(bytes: &[u8]) -> bool {
    let be16 = |at: usize| bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    if bytes.starts_with(b"\x89PNG") {
        return be16(16) == 0 && be16(20) == 0 && be16(18) < 4096 && be16(22) < 4096;
    }
    let frames = bytes
        .windows(2)
        .enumerate()
        .filter(|(_, w)| w[0] == 0xff && matches!(w[1], 0xc0..=0xc2 | 0xc9 | 0xca));
    frames.into_iter().all(|(at, _)| be16(at + 5) < 4096 && be16(at + 7) < 4096)
}

fn decode(bytes: &[u8]) {
    if small(bytes) {
        let _ = image::decode_bytes(bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(head in 0..3_usize, tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        let heads: [&[u8]; 3] = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"];
        decode(&[heads[head], &tail].concat());
    }

    #[test]
    fn mutated_files(
        file in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut bytes = file.get(&FILES).clone();
        for (at, value) in edits {
            *at.get_mut(&mut bytes) = value;
        }
        decode(&bytes);
    }

    #[test]
    fn shortened_and_spliced_files(
        file in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        resume in any::<prop::sample::Index>(),
        splice in any::<bool>(),
    ) {
        let (file, other) = (file.get(&FILES), other.get(&FILES));
        let mut bytes = file[..cut.index(file.len())].to_vec();
        if splice {
            bytes.extend_from_slice(&other[resume.index(other.len())..]);
        }
        decode(&bytes);
    }
}

#[test]
fn many_threads_fail_side_by_side() {
    let broken: Vec<u8> = FILES
        .iter()
        .find(|bytes| bytes.starts_with(b"\xff\xd8"))
        .map(|bytes| bytes[..bytes.len() - 3].to_vec())
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..50).for_each(|_| assert!(image::decode_bytes(&broken).is_err())));
        }
    });
}
