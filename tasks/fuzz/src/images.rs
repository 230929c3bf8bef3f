//! What is done with any bytes as an image, by the fuzzer and by the test that replays its corpus.

use std::path::PathBuf;
use std::sync::LazyLock;

use pixio_eval_tasks::files::Files;
use pixio_eval_tasks::image;

const NAME: &str = "image";

static FILE: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join(NAME);
    (folder, file)
});

/// Larger images are left out: what they need is no surprise, and it is more than the fuzzer gives.
const MAX_PIXELS: u64 = 1 << 22;

/// Decodes `data` as an image, a depth map and a mask, and once more with the checksums of a PNG made right;
/// whether it is one of these.
pub fn check(data: &[u8]) -> bool {
    let mut any = decode(data);
    if data.starts_with(SIGNATURE) {
        any |= decode(&repaired(data));
    }
    any
}

fn decode(data: &[u8]) -> bool {
    if !small(data) {
        return false;
    }
    std::fs::write(&FILE.1, data).expect("a file");
    let image = image::decode_bytes(data);
    if let Ok(image) = &image {
        assert_eq!(image.dim().2, 3);
        assert_eq!(image::decode(&FILE.1).expect("decodes again"), image);
    }
    let depth = image::decode_gray16(&FILE.1);
    let mask = image::decode_mask(&FILE.1);
    let sizes = [
        depth.as_ref().ok().map(|depth| (depth.nrows(), depth.ncols())),
        mask.as_ref().ok().map(|mask| (mask.nrows(), mask.ncols())),
    ];
    for size in sizes.into_iter().flatten() {
        let files = Files::folder(FILE.0.path());
        assert_eq!(image::png_size_in(&files, NAME).expect("its header was read"), size);
    }
    image.is_ok() || depth.is_ok() || mask.is_ok()
}

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

fn small(data: &[u8]) -> bool {
    let be = |at: usize, n: usize| {
        let bytes = data.get(at..at + n).unwrap_or_default();
        bytes.iter().fold(0, |value, &b| value << 8 | u64::from(b))
    };
    if data.starts_with(SIGNATURE) {
        // Of every header chunk, should there be more than one.
        let mut headers = data.windows(4).enumerate().filter(|(_, window)| window == b"IHDR");
        return headers.all(|(at, _)| be(at + 4, 4).saturating_mul(be(at + 8, 4)) <= MAX_PIXELS);
    }
    let mut frames = data.windows(2).enumerate().filter(|(_, w)| w[0] == 0xff && w[1] >= 0xc0);
    frames.all(|(at, _)| be(at + 5, 2) * be(at + 7, 2) <= MAX_PIXELS)
}

/// With the checksum that each chunk should have.
fn repaired(data: &[u8]) -> Vec<u8> {
    let mut out = data.to_vec();
    let mut at = SIGNATURE.len();
    while let Some(length) = out.get(at..at + 4) {
        let length = length.iter().fold(0_usize, |value, &b| value << 8 | usize::from(b));
        let end = (at + 8).saturating_add(length);
        let Some(chunk) = out.get(at + 4..end) else { break };
        let crc = crc32(chunk).to_be_bytes();
        let Some(stored) = out.get_mut(end..end + 4) else { break };
        stored.copy_from_slice(&crc);
        at = end + 4;
    }
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            crc >> 1 ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}
