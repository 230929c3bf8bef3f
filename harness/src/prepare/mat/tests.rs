use proptest::prelude::*;

use super::*;

const NUMBERS: &[u8] = include_bytes!("../../../tests/prepare/mat/numbers.mat");
const PACKED: &[u8] = include_bytes!("../../../tests/prepare/mat/numbers_packed.mat");
const MIXED: &[u8] = include_bytes!("../../../tests/prepare/mat/mixed.mat");

fn named(bytes: &[u8], name: &str) -> Value {
    let arrays = read(bytes).unwrap();
    arrays.into_iter().find(|(found, _)| found == name).unwrap().1
}

#[test]
fn numbers_of_every_class_are_read_column_by_column() {
    for file in [NUMBERS, PACKED] {
        let arrays = read(file).unwrap();
        assert_eq!(arrays.len(), 10);
        for (name, value) in arrays {
            let values = vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0];
            assert_eq!(value, Value::Numbers { dims: vec![2, 3], values }, "{name}");
        }
    }
}

#[test]
fn structs_cells_and_text_are_read() {
    let Value::Cells(cells) = named(MIXED, "cells") else { panic!() };
    assert_eq!(cells[0].text(), Some("Größe"));
    assert_eq!(cells[1], Value::Numbers { dims: vec![1, 2], values: vec![1.0, 0.0] });

    let synsets = named(MIXED, "synsets");
    let numbers: Vec<f64> =
        synsets.field("ILSVRC2012_ID").unwrap().map(|value| value.number().unwrap()).collect();
    let classes: Vec<&str> =
        synsets.field("WNID").unwrap().map(|value| value.text().unwrap()).collect();
    assert_eq!((numbers, classes), (vec![1.0, 2.0], vec!["n01440764", "n01443537"]));
    assert!(synsets.field("gloss").is_none());

    let masks = named(MIXED, "GTcls");
    assert_eq!(masks.field("Boundaries").unwrap().next(), Some(&Value::Unread(5)));
    let values = vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0];
    let mask = Value::Numbers { dims: vec![2, 3], values };
    assert_eq!(masks.field("Segmentation").unwrap().next(), Some(&mask));
    assert_eq!(named(MIXED, "empty"), Value::Numbers { dims: vec![0, 4], values: Vec::new() });
}

#[test]
fn the_other_byte_order_is_read() {
    // One 1 x 1 array of class double, stored as a small element of UINT8.
    let mut file = vec![0; 124];
    file.extend([1, 0, b'M', b'I']);
    let words: [u32; 12] = [14, 48, 6, 8, 6, 0, 5, 8, 1, 1, 0x0001_0001, 0x7800_0000];
    file.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    file.extend([0x00, 0x01, 0x00, 0x02, 9, 0, 0, 0]);
    let arrays = read(&file).unwrap();
    assert_eq!(arrays[0].0, "x");
    assert_eq!(arrays[0].1.number(), Some(9.0));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let message = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    insta::assert_snapshot!(message(b"MATLAB 7.3"), @"expected a MATLAB file of format 5 (its header of 128 bytes ends in a version and IM or MI), found 10 bytes");
    insta::assert_snapshot!(message(&[0; 200]), @"expected a MATLAB file of format 5 (its header of 128 bytes ends in a version and IM or MI), found [00, 00, 00, 00]");
    insta::assert_snapshot!(message(&NUMBERS[..180]), @"at byte 136: expected 64 bytes of an element, found 44");
    let mut dims = NUMBERS.to_vec();
    // Flags: 8 + 16 bytes behind the header; then the tag of the dimensions.
    dims[128 + 8 + 16 + 8] = 3;
    insta::assert_snapshot!(message(&dims), @"at byte 48: numbers of 9 expected by the dimensions, found 6");
    dims[128 + 8 + 16 + 8 + 3] = 0x80;
    insta::assert_snapshot!(message(&dims), @"at byte 16: dimensions of no array");
    let mut damaged = PACKED.to_vec();
    damaged[140] ^= 0xff;
    assert!(message(&damaged).starts_with("at byte 128: the compressed element is damaged"));
}

/// Arrays in arrays, each a cell of one.
#[test]
fn depth_and_growth_are_bounded() {
    let element = |kind: u32, content: &[u8]| {
        let mut bytes = [kind.to_le_bytes(), (content.len() as u32).to_le_bytes()].concat();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    };
    let mut nested = Vec::new();
    for _ in 0..40 {
        let flags = element(6, &[1, 0, 0, 0, 0, 0, 0, 0]);
        let dims = element(5, &[1, 0, 0, 0, 1, 0, 0, 0]);
        nested = element(14, &[flags, dims, element(1, b""), nested].concat());
    }
    let file = [&NUMBERS[..128], &nested].concat();
    assert!(matches!(read(&file), Err(MatError::Large { what: "arrays in one another", .. })));

    let mut zeros = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    let block = vec![0; 1 << 20];
    for _ in 0..257 {
        std::io::Write::write_all(&mut zeros, &block).unwrap();
    }
    let file = [&NUMBERS[..128], &element(15, &zeros.finish().unwrap())].concat();
    assert!(matches!(read(&file), Err(MatError::Large { what: "bytes uncompressed", .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_it_panic(
        which in 0..2_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        // The second without its compression, so that changes reach what is in it.
        let mut bytes = if which == 0 { NUMBERS.to_vec() } else { plain(MIXED) };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        let _ = read(&bytes);
    }
}

/// A file with its compressed elements unpacked.
fn plain(file: &[u8]) -> Vec<u8> {
    let (mut whole, mut rest) = (file[..128].to_vec(), &file[128..]);
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        let mut decoder = flate2::read::ZlibDecoder::new(&rest[8..8 + length]);
        std::io::Read::read_to_end(&mut decoder, &mut whole).unwrap();
        rest = &rest[8 + length..];
    }
    whole
}
