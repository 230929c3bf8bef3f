//! Images in Parquet files.

use std::collections::HashMap;
use std::path::Path;

use pixio_eval_tasks::archive::ArchiveError;
use pixio_eval_tasks::archive::memory::members;
use pixio_eval_tasks::data::Container;
use polars_parquet_format::CompressionCodec;

use super::make::{Files, assert_same, class_of, images, key};
use super::make_parquet::{Form, PLAIN, Row, file, forms};

/// The rows of a split, named as on the Hub.
pub fn rows(files: &Files, split: &str) -> Vec<Row> {
    let files = files.iter().filter(|(path, _)| path.starts_with(split));
    files
        .map(|(path, content)| {
            let (class, _) = class_of(path);
            (Some(content.clone()), Some(format!("{}.JPEG", key(path))), class as i64)
        })
        .collect()
}

fn read(rows: &[Row], form: Form) -> Result<Files, ArchiveError> {
    members(Container::Parquet, "train-00000-of-00001.parquet", &file(rows, form))
}

#[test]
fn files_of_another_writer_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parquet");
    let mut expected: Files = (0..12)
        .map(|i| {
            let name = ["n01440764", "n01443537", "n02119789"][i / 4];
            let content = (0..i * 40).map(|j| ((i * 31 + j * 7 + j * j / 5) % 256) as u8);
            let ending = if i % 4 == 3 { "png" } else { "JPEG" };
            (format!("train/{name}/{name}_{i}.{ending}"), content.collect())
        })
        .collect();
    expected.sort();
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let found = members(Container::Parquet, "train-0.parquet", &bytes).unwrap();
        assert_same(&found, &expected, &path.display().to_string());
        seen += 1;
    }
    assert_eq!(seen, 12, "{}", folder.display());
}

#[test]
fn images_are_read_whatever_pages_and_groups_they_are_in() {
    let files: Files = images().into_iter().filter(|(path, _)| path.starts_with("train")).collect();
    let rows = rows(&files, "train");
    for form in forms() {
        for (rows_per_group, rows_per_page) in [(1, 1), (15, 15), (7, 2)] {
            let form = Form { rows_per_group, rows_per_page, ..form };
            assert_same(&read(&rows, form).unwrap(), &files, &format!("{form:?}"));
        }
    }
}

#[test]
fn images_without_a_name_are_numbered_and_their_form_is_seen() {
    let rows: Vec<Row> = vec![
        (Some(b"\xff\xd8\xff jpeg".to_vec()), None, 12),
        (Some(b"\x89PNG png".to_vec()), None, 3),
        (Some(b"".to_vec()), Some("cat.jpg".to_owned()), 3),
        (Some(b"\x89PNG by its name".to_vec()), Some("dog.png".to_owned()), 3),
    ];
    let found = read(&rows, PLAIN).unwrap();
    let paths: Vec<_> = found.iter().map(|(path, _)| &path[..]).collect();
    let expected = [
        "train/0003/00000001.png",
        "train/0003/00000002.JPEG",
        "train/0003/00000003.png",
        "train/0012/00000000.JPEG",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn rows_without_image_or_class_are_refused() {
    let good = || (Some(vec![1]), Some("n01440764_1.JPEG".to_owned()), 0);
    let fails = |row: Row| read(&[good(), row], PLAIN).unwrap_err().to_string();
    let name = Some("n01440764_2.JPEG".to_owned());
    let error = fails((None, name.clone(), 0));
    assert!(error.contains("n01440764_2.JPEG: has no image bytes"), "{error}");
    let error = fails((Some(vec![]), name.clone(), -1));
    assert!(error.contains("has the class -1; expected a number"), "{error}");
    let error = fails((Some(vec![]), name, 1));
    assert!(error.contains("n01440764 is class 0 in some samples and class 1"), "{error}");
    let error = fails(good());
    assert!(error.contains("train/n01440764/n01440764_1.JPEG is twice"), "{error}");
}

#[test]
fn other_codecs_and_columns_are_named() {
    let rows = [(Some(vec![1, 2, 3]), Some("n01440764_1.JPEG".to_owned()), 0)];
    let form = Form { codec: CompressionCodec::BROTLI, ..PLAIN };
    let error = read(&rows, form).unwrap_err();
    assert!(error.to_string().contains("stored as pages with codec 4; expected uncompressed"));

    let mut bytes = file(&rows, PLAIN);
    let place = bytes.windows(5).rposition(|window| window == b"label").unwrap();
    bytes[place..place + 5].copy_from_slice(b"class");
    let other = bytes.windows(5).rposition(|window| window == b"label");
    let other = other.expect("also in the columns' own paths");
    bytes[other..other + 5].copy_from_slice(b"class");
    let error = members(Container::Parquet, "train-0.parquet", &bytes).unwrap_err().to_string();
    assert!(
        error.contains("image.bytes, image.path, class; expected image.bytes (binary)"),
        "{error}"
    );
}

/// A Snappy stream as no usual encoder writes it: copies reach back over blocks and overlap themselves, literals
/// are longer than a block.
fn unusual(bytes: &[u8]) -> Vec<u8> {
    const PIECE: usize = 40;
    let mut out = Vec::new();
    let mut length = bytes.len();
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    let mut seen: HashMap<&[u8], usize> = HashMap::new();
    let (mut at, mut literal) = (0, 0);
    let flush = |out: &mut Vec<u8>, literal: &[u8]| {
        if !literal.is_empty() {
            out.push(62 << 2);
            out.extend(&(literal.len() as u32 - 1).to_le_bytes()[..3]);
            out.extend(literal);
        }
    };
    while let Some(piece) = bytes.get(at..at + PIECE) {
        let Some(&first) = seen.get(piece) else {
            seen.insert(piece, at);
            at += 1;
            continue;
        };
        flush(&mut out, &bytes[literal..at]);
        out.push((PIECE as u8 - 1) << 2 | 3);
        out.extend((at as u32 - first as u32).to_le_bytes());
        at += PIECE;
        literal = at;
    }
    flush(&mut out, &bytes[literal..]);
    out
}

#[test]
fn copies_over_blocks_are_followed() {
    let files: Files = images().into_iter().filter(|(path, _)| path.starts_with("train")).collect();
    let rows = rows(&files, "train");
    let whole = files.iter().flat_map(|(_, content)| content.clone()).collect::<Vec<u8>>();
    let packed = unusual(&whole);
    assert!(packed.len() < whole.len());
    assert!(snap::raw::Decoder::new().decompress_vec(&packed).unwrap() == whole);
    for dictionary in [false, true] {
        let codec = CompressionCodec::SNAPPY;
        let form = Form { codec, dictionary, snappy: unusual, rows_per_group: 15, ..PLAIN };
        let form = Form { rows_per_page: 15, ..form };
        assert_same(&read(&rows, form).unwrap(), &files, "unusual");
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let rows = rows(&images(), "val");
    let bytes = file(&rows, PLAIN);
    for keep in [0, 7, 8, 100, bytes.len() - 9, bytes.len() - 1] {
        let error = members(Container::Parquet, "val-0.parquet", &bytes[..keep]).unwrap_err();
        let archive = matches!(error, ArchiveError::Archive { .. });
        assert!(archive, "{keep}: {error}");
    }
}
