//! A writer of Parquet files with images and labels, with a choice of what writers differ in.

use polars_parquet_format::thrift::protocol::TCompactOutputProtocol;
use polars_parquet_format::{
    ColumnChunk, ColumnMetaData, CompressionCodec, DataPageHeader, DataPageHeaderV2,
    DictionaryPageHeader, Encoding, FieldRepetitionType, FileMetaData, PageHeader, PageType,
    RowGroup, SchemaElement, Type,
};

/// A row: the image, its path and its label.
pub type Row = (Option<Vec<u8>>, Option<String>, i64);

#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub codec: CompressionCodec,
    pub dictionary: bool,
    pub second_version: bool,
    pub rows_per_group: usize,
    pub rows_per_page: usize,
    /// What packs a Snappy stream.
    pub snappy: fn(&[u8]) -> Vec<u8>,
}

fn usual(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

pub const PLAIN: Form = Form {
    codec: CompressionCodec::UNCOMPRESSED,
    dictionary: false,
    second_version: false,
    rows_per_group: 4,
    rows_per_page: 3,
    snappy: usual,
};

/// Every combination of codec, encoding and page version.
pub fn forms() -> Vec<Form> {
    let mut forms = Vec::new();
    for codec in [CompressionCodec::UNCOMPRESSED, CompressionCodec::SNAPPY, CompressionCodec::ZSTD]
    {
        for (dictionary, second_version) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            forms.push(Form { codec, dictionary, second_version, ..PLAIN });
        }
    }
    forms
}

/// A column: one plain value a row, or none.
struct Values {
    path: &'static [&'static str],
    kind: Type,
    defined: u8,
    values: Vec<Option<Vec<u8>>>,
}

pub fn file(rows: &[Row], form: Form) -> Vec<u8> {
    let mut out = b"PAR1".to_vec();
    let mut groups = Vec::new();
    for rows in rows.chunks(form.rows_per_group) {
        let array = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
        let image = |row: &Row| row.0.as_deref().map(array);
        let path = |row: &Row| row.1.as_ref().map(|path| array(path.as_bytes()));
        let label = |row: &Row| Some(row.2.to_le_bytes().to_vec());
        let column = |path, kind, defined, values: &dyn Fn(&Row) -> Option<Vec<u8>>| {
            let values = rows.iter().map(values).collect();
            chunk(&mut out, &Values { path, kind, defined, values }, form)
        };
        let mut column = column;
        let columns = vec![
            column(&["image", "bytes"], Type::BYTE_ARRAY, 2, &image),
            column(&["image", "path"], Type::BYTE_ARRAY, 2, &path),
            column(&["label"], Type::INT64, 1, &label),
        ];
        groups.push(RowGroup::new(columns, 0, rows.len() as i64, None, None, None, None));
    }
    let element = |name: &str, kind: Option<Type>, children: Option<i32>| {
        let repetition = (name != "schema").then_some(FieldRepetitionType::OPTIONAL);
        let name = name.to_owned();
        SchemaElement::new(kind, None, repetition, name, children, None, None, None, None, None)
    };
    let schema = vec![
        element("schema", None, Some(2)),
        element("image", None, Some(2)),
        element("bytes", Some(Type::BYTE_ARRAY), None),
        element("path", Some(Type::BYTE_ARRAY), None),
        element("label", Some(Type::INT64), None),
    ];
    let meta =
        FileMetaData::new(1, schema, rows.len() as i64, groups, None, None, None, None, None);
    let start = out.len();
    meta.write_to_out_protocol(&mut TCompactOutputProtocol::new(&mut out)).unwrap();
    out.extend(((out.len() - start) as u32).to_le_bytes());
    out.extend(b"PAR1");
    out
}

fn chunk(out: &mut Vec<u8>, column: &Values, form: Form) -> ColumnChunk {
    let start = out.len() as i64;
    let mut dictionary: Vec<&[u8]> = column.values.iter().flatten().map(|v| &v[..]).collect();
    dictionary.sort_unstable();
    dictionary.dedup();
    let mut unpacked = 0;
    if form.dictionary {
        let header = DictionaryPageHeader::new(dictionary.len() as i32, Encoding::PLAIN, None);
        let page = |body: &[u8], packed: &[u8]| {
            let kind = PageType::DICTIONARY_PAGE;
            let sizes = (body.len() as i32, packed.len() as i32);
            PageHeader::new(kind, sizes.0, sizes.1, None, None, None, header.clone(), None)
        };
        unpacked += put(out, &[], &dictionary.concat(), form, &page);
    }
    let data = out.len() as i64;
    for values in column.values.chunks(form.rows_per_page) {
        let there: Vec<&[u8]> = values.iter().flatten().map(|v| &v[..]).collect();
        let (encoding, body) = if form.dictionary {
            let places = there.iter().map(|v| dictionary.binary_search(v).unwrap() as u32);
            (Encoding::RLE_DICTIONARY, [vec![8], runs(places, 1)].concat())
        } else {
            (Encoding::PLAIN, there.concat())
        };
        let levels = values.iter().map(|v| u32::from(v.is_some()) * u32::from(column.defined));
        let levels = runs(levels, 1);
        let n = values.len() as i32;
        if form.second_version {
            let nulls = n - there.len() as i32;
            let header =
                DataPageHeaderV2::new(n, nulls, n, encoding, levels.len() as i32, 0, true, None);
            let page = |body: &[u8], packed: &[u8]| {
                let sizes = [body, packed].map(|part| (part.len() + levels.len()) as i32);
                let kind = PageType::DATA_PAGE_V2;
                PageHeader::new(kind, sizes[0], sizes[1], None, None, None, None, header.clone())
            };
            unpacked += put(out, &levels, &body, form, &page);
        } else {
            let length = (levels.len() as u32).to_le_bytes();
            let body = [&length[..], &levels, &body].concat();
            let header = DataPageHeader::new(n, encoding, Encoding::RLE, Encoding::RLE, None);
            let page = |body: &[u8], packed: &[u8]| {
                let sizes = (body.len() as i32, packed.len() as i32);
                let kind = PageType::DATA_PAGE;
                PageHeader::new(kind, sizes.0, sizes.1, None, header.clone(), None, None, None)
            };
            unpacked += put(out, &[], &body, form, &page);
        }
    }
    let path = column.path.iter().map(|&part| part.to_owned()).collect();
    let meta = ColumnMetaData::new(
        column.kind,
        vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY],
        path,
        form.codec,
        column.values.len() as i64,
        unpacked,
        out.len() as i64 - start,
        None,
        data,
        None,
        form.dictionary.then_some(start),
        None,
        None,
        None,
        None,
        None,
    );
    ColumnChunk::new(None, start, meta, None, None, None, None, None, None)
}

fn put(
    out: &mut Vec<u8>,
    before: &[u8],
    body: &[u8],
    form: Form,
    header: &dyn Fn(&[u8], &[u8]) -> PageHeader,
) -> i64 {
    let packed = match form.codec {
        CompressionCodec::SNAPPY => (form.snappy)(body),
        CompressionCodec::ZSTD => zstd::bulk::compress(body, 3).unwrap(),
        _ => body.to_vec(),
    };
    let start = out.len();
    let header = header(body, &packed);
    header.write_to_out_protocol(&mut TCompactOutputProtocol::new(&mut *out)).unwrap();
    out.extend(before);
    out.extend(packed);
    (out.len() - start) as i64
}

/// Numbers as runs, each of as many bytes as given.
fn runs(numbers: impl Iterator<Item = u32>, bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let numbers: Vec<u32> = numbers.collect();
    for run in numbers.chunk_by(|a, b| a == b) {
        let mut header = run.len() << 1;
        while header > 0x7f {
            out.push(header as u8 | 0x80);
            header >>= 7;
        }
        out.push(header as u8);
        out.extend(&run[0].to_le_bytes()[..bytes]);
    }
    out
}
