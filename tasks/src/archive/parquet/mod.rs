//! The images of a Parquet file as on the Hugging Face Hub: columns `image` (bytes and path) and `label`.
//!
//! What is kept of an image is where its bytes are in the file, so that one is read without its row group:
//! exactly its bytes where pages are not compressed, 64 KiB more at most with Snappy, and the page as far as the
//! image with Zstandard.

mod pages;
mod snappy;
mod values;

use polars_parquet_format::thrift::protocol::TCompactInputProtocol;
use polars_parquet_format::{FieldRepetitionType, FileMetaData, RowGroup, SchemaElement, Type};

pub(super) use snappy::unpack as unpack_snappy;

use super::error::{Fault, Problem};
use super::found::{Images, Place, Progress};
use super::source::{self, Bytes, Window};
use super::{names, read};
use pages::{Column, Page, unsigned, unsupported};

/// Bytes read at once between values.
const AHEAD: usize = 4096;
/// Bytes of the largest description at the end of a file.
const LARGEST_FOOTER: u64 = 1 << 26;
/// The most rows of a row group.
const MOST_ROWS: u64 = 1 << 20;
/// How deep columns are nested at most.
const DEEPEST: u32 = 16;
/// Bytes of the longest name of a file.
const LONGEST_NAME: usize = 255;

/// Lists the images of a file.
pub(super) fn scan(bytes: &dyn Bytes, progress: &Progress<'_>) -> Result<Images, Fault> {
    let meta = footer(bytes)?;
    let leaves = leaves(&meta.schema)?;
    let column = |path: &str, kind: Type| {
        let found = leaves.iter().position(|leaf| leaf.path == path);
        let found = found.filter(|&i| leaves[i].kind == Some(kind) && !leaves[i].repeated);
        found.ok_or_else(|| {
            let columns: Vec<&str> = leaves.iter().map(|leaf| &*leaf.path).take(20).collect();
            unsupported(
                &format!("the columns {}", columns.join(", ")),
                "image.bytes (binary), image.path (string) and label (int64)",
            )
        })
    };
    let columns = [
        column("image.bytes", Type::BYTE_ARRAY)?,
        column("image.path", Type::BYTE_ARRAY)?,
        column("label", Type::INT64)?,
    ];
    let mut found = Images::default();
    let mut window = Window::new(bytes, AHEAD);
    let mut rows = 0;
    let mut told = 0;
    for group in &meta.row_groups {
        let here = unsigned(group.num_rows)?;
        rows += here;
        // A row that repeats another one's image takes few bytes, but rows without any are an attack.
        if here > MOST_ROWS || rows > 4096 + bytes.len() / 8 {
            return Err(Fault::damaged(format!("{rows} rows in {} bytes", bytes.len())));
        }
        let column = |i: usize| {
            let chunk = group.columns.get(columns[i]);
            let chunk = chunk.filter(|chunk| chunk.file_path.is_none());
            let meta = chunk.and_then(|chunk| chunk.meta_data.as_ref());
            let meta = meta.ok_or_else(|| Fault::damaged("a row group lacks a column"))?;
            Ok::<_, Fault>(Column {
                meta,
                defined: leaves[columns[i]].defined,
                rows: here as usize,
            })
        };
        let images = images(&column(0)?, &mut window)?;
        let paths = small(&column(1)?, &mut window, values::texts)?;
        let labels = small(&column(2)?, &mut window, values::integers)?;
        for ((image, path), label) in images.into_iter().zip(paths).zip(labels) {
            let row = found.images.len();
            add(&mut found, bytes, image, path.as_deref(), label)
                .map_err(|fault| fault.of(path.as_deref().unwrap_or(&format!("of row {row}"))))?;
        }
        let done = position(group).min(bytes.len());
        progress.advance(done.saturating_sub(told))?;
        told = told.max(done);
    }
    progress.advance(bytes.len().saturating_sub(told))?;
    Ok(found)
}

/// The end of a row group in its file, roughly.
fn position(group: &RowGroup) -> u64 {
    let metas = group.columns.iter().filter_map(|column| column.meta_data.as_ref());
    let end = metas.map(|meta| meta.data_page_offset.saturating_add(meta.total_compressed_size));
    end.max().and_then(|end| u64::try_from(end).ok()).unwrap_or(0)
}

fn add(
    found: &mut Images,
    bytes: &dyn Bytes,
    image: Option<Place>,
    path: Option<&str>,
    label: Option<i64>,
) -> Result<(), Fault> {
    let image = image.ok_or(Problem::NoBytes)?;
    let class = names::class(&label.map_or_else(|| "null".to_owned(), |label| label.to_string()))?;
    let name = path.and_then(|path| path.rsplit('/').next()).unwrap_or("");
    if name.len() > LONGEST_NAME {
        return Err(Problem::Name("is longer than 255 bytes").into());
    }
    names::canonical(name, "")?;
    let (name, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    let png = match &*ending.to_ascii_lowercase() {
        "png" => true,
        "jpg" | "jpeg" => false,
        _ => read::member(bytes, &image, Some(4))? == b"\x89PNG",
    };
    match names::stem(name) {
        // Without the class in its name a file is known by its row.
        (_, None) => found.push("", None, class, png, image),
        (stem, identifier) => found.push(stem, identifier, class, png, image),
    }
}

fn footer(bytes: &dyn Bytes) -> Result<FileMetaData, Fault> {
    const TAIL: u64 = 8;
    let at = bytes.len().checked_sub(TAIL).ok_or(Problem::Truncated)?;
    let tail = source::exactly(bytes, at, TAIL)?;
    let (size, magic) = tail.split_at(4);
    match magic {
        b"PAR1" => {}
        b"PARE" => return Err(Problem::Encrypted.into()),
        _ => return Err(Fault::damaged("it does not end with PAR1, as Parquet files do")),
    }
    let size = size.iter().rev().fold(0, |size, &byte| size << 8 | u64::from(byte));
    if size > LARGEST_FOOTER {
        return Err(Problem::TooLarge { bytes: size, limit: LARGEST_FOOTER }.into());
    }
    let start = at.checked_sub(size).ok_or(Problem::Truncated)?;
    let footer = source::exactly(bytes, start, size)?;
    // Lists in it count with eight bytes an element, texts with their bytes.
    let bound = footer.len() * 16 + (1 << 16);
    let mut thrift = TCompactInputProtocol::new(&footer[..], bound);
    let meta = FileMetaData::read_from_in_protocol(&mut thrift);
    meta.map_err(|error| Fault::damaged(format!("its description: {error}")))
}

/// A column that has values.
struct Leaf {
    path: String,
    kind: Option<Type>,
    defined: u32,
    repeated: bool,
}

fn leaves(schema: &[SchemaElement]) -> Result<Vec<Leaf>, Fault> {
    let mut leaves = Vec::new();
    // Open groups: path, children left, definition level, whether repeated.
    let mut groups: Vec<(String, i32, u32, bool)> = Vec::new();
    for (i, element) in schema.iter().enumerate() {
        while groups.last().is_some_and(|&(_, left, _, _)| left <= 0) {
            groups.pop();
        }
        let (mut path, mut defined, mut repeated) = (String::new(), 0, false);
        if let Some(parent) = groups.last_mut() {
            parent.1 -= 1;
            (defined, repeated) = (parent.2, parent.3);
            path.clone_from(&parent.0);
        }
        if i > 0 {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&element.name);
            let optional = element.repetition_type == Some(FieldRepetitionType::OPTIONAL);
            defined += u32::from(optional);
            repeated |= element.repetition_type == Some(FieldRepetitionType::REPEATED);
        }
        if defined > DEEPEST || groups.len() > DEEPEST as usize || path.len() > 4096 {
            return Err(Fault::damaged("its columns are nested too deep"));
        }
        match element.num_children {
            Some(children) if children > 0 => groups.push((path, children, defined, repeated)),
            _ => leaves.push(Leaf { path, kind: element.type_, defined, repeated }),
        }
    }
    Ok(leaves)
}

/// Where the images of a column are.
fn images(column: &Column<'_>, window: &mut Window<'_>) -> Result<Vec<Option<Place>>, Fault> {
    let mut dictionary: Vec<Place> = Vec::new();
    let mut images = Vec::new();
    pages::each(column, window, &mut |page, window| {
        match page {
            Page::Dictionary { values, mut content } => {
                dictionary.clear();
                for _ in 0..values {
                    dictionary.push(content.array(window)?);
                }
            }
            Page::Data { defined, encoding, mut content } => {
                let here = defined.iter().filter(|&&defined| defined).count();
                let mut places = if pages::in_dictionary(encoding)? {
                    let indices = pages::indices(&mut content, window, here)?;
                    look_up(&dictionary, &indices)?
                } else {
                    (0..here).map(|_| content.array(window)).collect::<Result<_, _>>()?
                }
                .into_iter();
                images.extend(defined.iter().map(|&d| if d { places.next() } else { None }));
            }
        }
        Ok(())
    })?;
    Ok(images)
}

/// The values of a small column.
fn small<T: Clone>(
    column: &Column<'_>,
    window: &mut Window<'_>,
    plain: fn(&[u8], usize) -> Option<Vec<T>>,
) -> Result<Vec<Option<T>>, Fault> {
    let decode = |bytes: &[u8], n| plain(bytes, n).ok_or_else(|| Fault::damaged("a page's values"));
    let mut dictionary: Vec<T> = Vec::new();
    let mut all = Vec::new();
    pages::each(column, window, &mut |page, window| {
        match page {
            Page::Dictionary { values, mut content } => {
                dictionary = decode(&content.rest(window)?, values)?;
            }
            Page::Data { defined, encoding, mut content } => {
                let here = defined.iter().filter(|&&defined| defined).count();
                let mut values = if pages::in_dictionary(encoding)? {
                    let indices = pages::indices(&mut content, window, here)?;
                    look_up(&dictionary, &indices)?
                } else {
                    decode(&content.rest(window)?, here)?
                }
                .into_iter();
                all.extend(defined.iter().map(|&d| if d { values.next() } else { None }));
            }
        }
        Ok(())
    })?;
    Ok(all)
}

fn look_up<T: Clone>(dictionary: &[T], indices: &[u32]) -> Result<Vec<T>, Fault> {
    let values = indices.iter().map(|&i| dictionary.get(i as usize).cloned());
    let values: Option<_> = values.collect();
    values.ok_or_else(|| Fault::damaged("a page refers to more than its dictionary has"))
}
