//! Archives that would do harm, or are damaged. Whatever is in them, nothing is left, and the file that
//! was given stays.

use tar::EntryType;

use super::*;

/// The message of an archive of NYUv2's training images, given by hand.
fn refused(bytes: &[u8]) -> String {
    let world = World::new();
    let dataset = unchecked("nyuv2");
    let given = world.path("given");
    std::fs::create_dir(&given).unwrap();
    std::fs::write(given.join("sync.zip"), bytes).unwrap();
    let val = make::zip(&[("official_splits/test/a/rgb_0.jpg", vec![1])]);
    std::fs::write(given.join("official_splits.zip"), &val).unwrap();
    let mut request = request(&world, &dataset);
    request.from = vec![given.clone()];
    let message = made(&request).unwrap_err().to_string();
    assert_eq!(listed(&world), [""; 0], "{message}");
    assert_eq!(tree(&given).len(), 2);
    let names: Vec<_> = std::fs::read_dir(world.folder.path()).unwrap().collect();
    assert_eq!(names.len(), 2, "data and given");
    message.replace(given.to_str().unwrap(), "GIVEN")
}

fn in_tar(name: &[u8], kind: EntryType) -> Vec<u8> {
    let mut tar = Vec::new();
    make::entry(&mut tar, b"sync/a/rgb_0.jpg", EntryType::Regular, b"abc", 3);
    let bytes: &[u8] = if kind == EntryType::Regular { b"abc" } else { b"" };
    make::entry(&mut tar, name, kind, bytes, bytes.len() as u64);
    make::closed(tar)
}

fn all(bytes: &[u8]) -> [String; 2] {
    [refused(bytes), refused(&make::gz(bytes))]
}

#[test]
fn paths_that_lead_out_are_refused() {
    for (name, why) in [
        ("../out", "its path leads out of the folder"),
        ("sync/../../out", "its path leads out of the folder"),
        ("sync/a/..", "its path leads out of the folder"),
        ("/sync/out", "its path is absolute"),
        ("C:/sync/out", "its path is absolute"),
        ("sync\\..\\..\\out", "its path has a backslash"),
        ("sync/a\u{1b}[2J", "its path has control characters"),
    ] {
        let shown = name.escape_debug();
        let expected = format!("GIVEN/sync.zip: member {shown} is refused: {why}");
        for message in all(&in_tar(name.as_bytes(), EntryType::Regular)) {
            assert_eq!(message, expected);
        }
        let good = ("sync/a/rgb_0.jpg", b"abc".to_vec());
        assert_eq!(refused(&make::zip(&[good, (name, b"abc".to_vec())])), expected);
    }
    let long = format!("sync/{}/a", "x".repeat(256));
    assert!(refused(&make::zip(&[(&long, vec![1])])).ends_with("or a name in it more than 255"));
    let odd = in_tar(b"sync/\xff", EntryType::Regular);
    assert!(all(&odd).iter().all(|message| message.ends_with("its path is not UTF-8")));
}

#[test]
fn links_and_devices_are_refused() {
    for (kind, what) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a device"),
    ] {
        for message in all(&in_tar(b"sync/a/link", kind)) {
            let expected = "GIVEN/sync.zip: member sync/a/link is refused: it is";
            assert_eq!(message, format!("{expected} {what}, expected a file"));
        }
    }
    let message = refused(&make::zip_with_link("sync/a", "/etc"));
    assert!(message.ends_with("it is a symbolic link, expected a file"), "{message}");
}

#[test]
fn two_members_of_one_place_are_refused() {
    let a = |name| (name, b"abc".to_vec());
    for names in [["sync/a/B.jpg", "sync/a/b.jpg"], ["sync/a", "sync/a/b.jpg"]] {
        let members = [a(names[0]), a(names[1])];
        let mut messages = all(&make::tar(&members)).to_vec();
        messages.push(refused(&make::zip(&members)));
        for message in messages {
            assert!(
                message.ends_with("is taken by another member, perhaps in other case"),
                "{message}"
            );
        }
    }
    for message in all(&make::tar(&[a("sync/a"), a("sync/a")])) {
        assert!(message.contains("its place is taken"), "{message}");
    }
}

#[test]
fn bombs_are_refused() {
    let zeros = vec![0; 80 << 20];
    let message = refused(&make::zip(&[("sync/a", zeros.clone())]));
    assert!(message.contains("member sync/a is refused: it unpacks to more than"), "{message}");
    let message = refused(&make::gz(&make::tar(&[("sync/a", zeros.clone())])));
    assert!(message.contains("member sync/a is refused: it unpacks to more than"), "{message}");
    // Left out, it is not read to its end.
    let message =
        refused(&make::gz(&make::tar(&[("other/a", zeros.clone()), ("sync/b", vec![1])])));
    assert!(message.contains("larger than they can be"), "{message}");
    // A name of 80 MB.
    let mut tar = Vec::new();
    let size = zeros.len() as u64;
    make::entry(&mut tar, b"././@LongLink", EntryType::GNULongName, &zeros, size);
    make::entry(&mut tar, b"sync/a", EntryType::Regular, b"abc", 3);
    for message in all(&make::closed(tar)) {
        assert!(message.contains("larger than they can be"), "{message}");
    }
}

#[test]
fn what_is_not_whole_is_named() {
    let zip =
        make::zip(&[("sync/a/rgb_0.jpg", noise(1, 5000)), ("sync/a/rgb_1.jpg", noise(2, 5000))]);
    let at = |bytes: &[u8], needle: &[u8]| {
        bytes.windows(needle.len()).position(|window| window == needle).unwrap()
    };
    // One bit of a member: its CRC tells.
    let mut flipped = zip.clone();
    let place = at(&zip, b"rgb_1.jpg") + 2000;
    flipped[place] ^= 1;
    let message = refused(&flipped);
    assert!(
        message.starts_with("GIVEN/sync.zip, member sync/a/rgb_1.jpg, is damaged: "),
        "{message}"
    );
    let cut = refused(&zip[..zip.len() - 30]);
    assert!(cut.starts_with("GIVEN/sync.zip is damaged: "), "{cut}");
    // A size that is a lie, in the directory at the end.
    let mut lie = zip.clone();
    let place = zip.len() - 22 - 46 - "sync/a/rgb_1.jpg".len() + 24;
    assert_eq!(lie[place..place + 4], 5000_u32.to_le_bytes());
    for size in [4000_u32, 6000] {
        lie[place..place + 4].copy_from_slice(&size.to_le_bytes());
        let message = refused(&lie);
        assert!(message.contains("member sync/a/rgb_1.jpg, is damaged"), "{message}");
    }

    let tar =
        make::tar(&[("sync/a/rgb_0.jpg", noise(1, 5000)), ("sync/a/rgb_1.jpg", noise(2, 5000))]);
    // Between two members, and in one.
    for end in [512 + 5120, 512 + 5120 + 512 + 700] {
        let message = refused(&tar[..end]);
        assert_eq!(message, "GIVEN/sync.zip is damaged: a tar archive without its end");
    }
    let packed = make::gz(&tar);
    assert!(refused(&packed[..packed.len() - 600]).contains("is damaged"));
    let mut flipped = packed.clone();
    let end = flipped.len() - 6;
    flipped[end] ^= 1;
    assert!(refused(&flipped).starts_with("GIVEN/sync.zip is damaged: "));
    assert_eq!(
        refused(b"<!DOCTYPE html><title>Google Drive</title>"),
        "GIVEN/sync.zip is not an archive: expected zip, tar or gzipped tar, found a web page"
    );
    assert_eq!(
        refused(&make::zip(&[("other/a", vec![1])])),
        "GIVEN/sync.zip: expected members that begin with \"sync/\", found none"
    );
}
