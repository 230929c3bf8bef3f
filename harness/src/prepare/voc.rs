//! Masks of the Semantic Boundaries Dataset as images beside those of Pascal VOC's own archive, which win
//! where there are both: theirs are outlined, and the validation is measured on them.

use std::fs;
use std::path::Path;

use super::PrepareError;
use super::mat::{self, Value};
use super::member::Places;
use super::unpack::{Source, read_members};
use super::work::Work;
use crate::progress::Reporter;

const OFFICIAL: &str = "SegmentationClass";
const AUGMENTED: &str = "SegmentationClassAug";
const MASKS: &str = "dataset/cls/";
/// Bytes that one of the MATLAB files may have; they have some ten KB.
const MOST: u64 = 64 << 20;
/// Pixels along a side of a mask.
const SIDE: usize = 1 << 14;

/// Writes every mask; returns them with their sizes.
pub(super) fn masks(
    archive: &Source<'_>,
    work: &mut Work,
    places: &mut Places,
    reporter: &Reporter,
) -> Result<Vec<(String, u64)>, PrepareError> {
    let mut files = Vec::new();
    let refused = |member: &str, danger| PrepareError::Refused {
        archive: archive.path.to_path_buf(),
        member: member.to_owned(),
        danger,
    };
    for name in official(&work.place(OFFICIAL))? {
        let (from, target) =
            (work.place(&format!("{OFFICIAL}/{name}")), format!("{AUGMENTED}/{name}"));
        places.take(&target).map_err(|danger| refused(&target, danger))?;
        let size = fs::metadata(&from).map_err(PrepareError::io("read", &from))?.len();
        if !work.has(&target, size) {
            work.bring(&from, &target, false)?;
        }
        files.push(target);
    }
    let theirs = files.len();
    let mask = |path: &str| {
        let name = path.rsplit_once(MASKS)?.1.strip_suffix(".mat")?;
        (!name.contains('/')).then(|| format!("{AUGMENTED}/{name}.png"))
    };
    let each = |path: &str, bytes: &[u8]| {
        let Some(target) = mask(path).filter(|target| !files[..theirs].contains(target)) else {
            return Ok(());
        };
        places.take(&target).map_err(|danger| refused(path, danger))?;
        let content = |why| PrepareError::Content {
            archive: archive.path.to_path_buf(),
            member: path.to_owned(),
            why,
        };
        let png = png(bytes).map_err(content)?;
        work.put(&target, &png)?;
        files.push(target);
        Ok(())
    };
    read_members(archive, MOST, &|path| mask(path).is_some(), each, reporter)?;
    if files.len() == theirs {
        let expected = format!("members in {MASKS}");
        return Err(PrepareError::Nothing { archive: archive.path.to_path_buf(), expected });
    }
    let sized = |target: String| {
        let place = work.place(&target);
        let size = fs::metadata(&place).map_err(PrepareError::io("read", &place))?.len();
        Ok((target, size))
    };
    files.into_iter().map(sized).collect()
}

/// Names of the masks in a folder, sorted.
fn official(folder: &Path) -> Result<Vec<String>, PrepareError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(PrepareError::io("read", folder))? {
        let entry = entry.map_err(PrepareError::io("read", folder))?;
        names.extend(entry.file_name().into_string().ok().filter(|name| name.ends_with(".png")));
    }
    names.sort();
    Ok(names)
}

/// `GTcls.Segmentation` of a MATLAB file as a PNG of 8-bit labels.
fn png(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let arrays = mat::read(bytes).map_err(|error| error.to_string())?;
    let found = arrays.iter().find(|(name, _)| name == "GTcls").map(|(_, value)| value);
    let mask = found.and_then(|value| value.field("Segmentation")?.next());
    let Some(Value::Numbers { dims, values }) = mask else {
        return Err("expected numbers in GTcls.Segmentation, found none".to_owned());
    };
    let [height, width] = dims[..] else {
        return Err(format!("expected a mask of two dimensions, found {dims:?}"));
    };
    if !(1..=SIDE).contains(&height) || !(1..=SIDE).contains(&width) {
        return Err(format!(
            "expected a mask of 1 to {SIDE} pixels a side, found {height} x {width}"
        ));
    }
    let mut labels = vec![0; height * width];
    for (at, &value) in values.iter().enumerate() {
        if value.fract() != 0.0 || !(0.0..=255.0).contains(&value) {
            return Err(format!("expected labels from 0 to 255, found {value}"));
        }
        // MATLAB goes down the columns.
        labels[(at % height) * width + at / height] = value as u8;
    }
    let mut encoded = Vec::new();
    let mut encoder = png::Encoder::new(&mut encoded, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&labels));
    written.map_err(|error| error.to_string())?;
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use super::super::make;
    use super::super::work::Site;
    use super::*;
    use crate::progress::Verbosity;

    /// A working folder with two official masks in its tree.
    fn working(folder: &Path) -> Work {
        let site = Site::new(&folder.join("voc2012")).unwrap();
        let mut work = Work::lock(&site, &Reporter::new(Verbosity::Quiet)).unwrap();
        work.begin("plan", &Reporter::new(Verbosity::Quiet)).unwrap();
        for name in ["1", "2"] {
            work.put(&format!("{OFFICIAL}/{name}.png"), name.as_bytes()).unwrap();
        }
        work
    }

    fn made(work: &Work) -> Vec<Vec<u8>> {
        let paths = [format!("{OFFICIAL}/1.png"), format!("{OFFICIAL}/2.png")];
        let masks = (1..6).map(|name| format!("{AUGMENTED}/{name}.png"));
        paths.into_iter().chain(masks).map(|path| fs::read(work.place(&path)).unwrap()).collect()
    }

    #[test]
    fn masks_that_were_begun_are_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let members = (1..6).map(|name: u8| {
            let path = format!("benchmark_RELEASE/dataset/cls/{name}.mat");
            (path, make::boundary_mask(&[name; 12], 4))
        });
        let members: Vec<(String, Vec<u8>)> = members.collect();
        let members: Vec<_> = members.iter().map(|(path, mat)| (&**path, mat.clone())).collect();
        let path = folder.path().join("benchmark.tgz");
        fs::write(&path, make::gz(&make::tar(&members))).unwrap();
        let source = Source { name: "benchmark.tgz", path: &path, checked: true };
        let reporter = Reporter::new(Verbosity::Quiet);
        let run =
            |work: &mut Work| masks(&source, work, &mut Places::default(), &reporter).map(drop);

        let mut work = working(&folder.path().join("a"));
        run(&mut work).unwrap();
        let whole = made(&work);
        assert_eq!(whole[..2], [b"1".to_vec(), b"2".to_vec()]);
        assert_eq!(whole[2..4], whole[..2]);

        // Stopped at the fourth mask, whose place is not free.
        let mut work = working(&folder.path().join("b"));
        let obstacle = work.place(&format!("{AUGMENTED}/4.png"));
        fs::create_dir_all(&obstacle).unwrap();
        assert!(matches!(run(&mut work), Err(PrepareError::Io { .. })));
        assert!(work.place(&format!("{AUGMENTED}/3.png")).exists());
        fs::remove_dir(&obstacle).unwrap();
        run(&mut work).unwrap();
        assert_eq!(made(&work), whole);
    }
}
