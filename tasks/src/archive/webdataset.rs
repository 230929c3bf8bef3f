//! The images of a WebDataset shard: `KEY.jpg` (`.jpeg`, `.png`) with its class in `KEY.cls`.

use std::collections::HashMap;

use super::error::{Fault, Problem};
use super::found::{Images, Method, Place, Progress};
use super::names;
use super::source::Bytes;
use super::tar::{Entry, Walk};

/// Bytes of the longest class number, with whitespace.
const LONGEST_CLASS: u64 = 32;

#[derive(Default)]
struct Sample {
    name: String,
    png: bool,
    image: Option<Place>,
    class: Option<u32>,
}

/// Lists the images of a shard.
pub(super) fn scan(bytes: &dyn Bytes, progress: &Progress<'_>) -> Result<Images, Fault> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut by_key: HashMap<String, usize> = HashMap::new();
    let mut walk = Walk::new(bytes, progress);
    while let Some(Entry { name, at, size }) = walk.next()? {
        let Some((key, suffix)) = parts(&name) else { continue };
        let suffix = suffix.to_ascii_lowercase();
        let is_image = matches!(&*suffix, "jpg" | "jpeg" | "png");
        if !is_image && suffix != "cls" {
            continue;
        }
        let place = by_key.get(key).copied().unwrap_or_else(|| {
            by_key.insert(key.to_owned(), samples.len());
            samples.push(Sample::default());
            samples.len() - 1
        });
        let sample = &mut samples[place];
        let mut take = || {
            if !is_image {
                let limit = LONGEST_CLASS;
                if size > limit {
                    return Err(Problem::TooLarge { bytes: size, limit }.into());
                }
                let text = walk.window.slice(at, size as usize)?;
                sample.class = Some(names::class(&String::from_utf8_lossy(text))?);
                return Ok(());
            }
            if sample.image.is_some() {
                return Err(Problem::TwoImages.into());
            }
            sample.image = Some(Place::new(Method::Plain, at, size)?);
            sample.png = suffix == "png";
            sample.name.clone_from(&name);
            Ok(())
        };
        take().map_err(|fault: Fault| fault.of(&name))?;
    }
    let mut found = Images::default();
    for Sample { name, png, image, class } in samples {
        let Some(image) = image else { continue };
        let mut named = || {
            let class = class.ok_or(Problem::NoClass)?;
            // Only to know that it is a path.
            names::canonical(&name, "")?;
            let key = parts(&name).map_or("", |(key, _)| key);
            let (stem, identifier) = names::stem(key.rsplit('/').next().unwrap_or(key));
            found.push(stem, identifier, class, png, image)
        };
        named().map_err(|fault: Fault| fault.of(&name))?;
    }
    Ok(found)
}

/// Key and suffix of a member: before and after the first dot of its last component. None: a hidden file, or
/// one without a suffix.
fn parts(name: &str) -> Option<(&str, &str)> {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = last + name[last..].find('.')?;
    (dot > last).then(|| (&name[..dot], &name[dot + 1..]))
}
