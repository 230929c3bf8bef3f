//! Generated data sets, and what changes their files.

use std::fs;
use std::path::{Path, PathBuf};

use pixio_eval_tasks::data::{Dataset, Registry};
use pixio_eval_tasks::dense::{LabelForm, PairedSet};
use pixio_eval_tasks::files::Files;
use pixio_eval_tasks::image::{decode_gray16, decode_mask};
use pixio_eval_tasks::sample;
use pixio_eval_tasks::verify::{Finding, Options, Preparation, Report, VerifyError, quick, verify};
use png::{BitDepth, ColorType};
use tempfile::TempDir;

pub const OPTIONS: Options<'static> = Options {
    full: false,
    labels: None,
    pinned: None,
    progress: &|_, _, _| {},
    stopped: &|| false,
};

/// A generated data set in a folder of its own, without the mark of generated data.
pub struct Miniature {
    pub dataset: Dataset,
    folder: TempDir,
}

impl Miniature {
    pub fn new(name: &str) -> Self {
        // Rendered once, and copied.
        let samples =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("verify-v{}", sample::REVISION));
        let rendered = sample::write(name, &samples).unwrap();
        let folder = tempfile::tempdir().unwrap();
        copy(&rendered, &folder.path().join(name));
        fs::remove_file(folder.path().join(name).join("sample.json")).unwrap();
        let mut dataset = Registry::builtin().unwrap().get(name).unwrap().clone();
        // Files of these names are generated too.
        dataset.known.clear();
        Self { dataset, folder }
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join(&self.dataset.name)
    }

    pub fn files(&self) -> Files {
        Files::folder(&self.root())
    }

    pub fn set(&self) -> PairedSet {
        PairedSet::open(&self.dataset, self.files()).unwrap()
    }

    /// Every target's path.
    pub fn targets(&self) -> Vec<PathBuf> {
        let set = self.set();
        let splits = [&set.train, &set.val];
        let pairs = splits.iter().flat_map(|split| split.pairs());
        pairs.map(|pair| self.root().join(&*pair.target)).collect()
    }

    /// Changes every depth map, by row and column.
    pub fn depth(&self, change: impl Fn(usize, usize, u16) -> u16) {
        for path in self.targets() {
            let map = decode_gray16(&path).unwrap();
            let values = map.indexed_iter().map(|((row, column), &v)| change(row, column, v));
            let bytes: Vec<u8> = values.flat_map(u16::to_be_bytes).collect();
            write_png(&path, map.dim(), (ColorType::Grayscale, BitDepth::Sixteen), &bytes);
        }
    }

    /// Changes every label.
    pub fn labels(&self, change: impl Fn(u8) -> u8) {
        for path in self.targets() {
            let mask = decode_mask(&path).unwrap();
            let bytes: Vec<u8> = mask.iter().map(|&label| change(label)).collect();
            write_png(&path, mask.dim(), (ColorType::Grayscale, BitDepth::Eight), &bytes);
        }
    }

    /// Turns every target into a PNG of another kind, with `bytes` for each pixel.
    pub fn recode(&self, kind: (ColorType, BitDepth), bytes: impl Fn(u8) -> Vec<u8>) {
        for path in self.targets() {
            let (size, values) = match self.dataset.depth {
                Some(_) => {
                    let map = decode_gray16(&path).unwrap();
                    (map.dim(), map.iter().map(|&v| (v >> 8) as u8).collect::<Vec<u8>>())
                }
                None => {
                    let mask = decode_mask(&path).unwrap();
                    (mask.dim(), mask.iter().copied().collect())
                }
            };
            let bytes: Vec<u8> = values.into_iter().flat_map(&bytes).collect();
            write_png(&path, size, kind, &bytes);
        }
    }

    pub fn report(&self, options: Options<'_>) -> Report {
        verify(&self.dataset, &self.files(), &options).unwrap()
    }

    pub fn stopped(&self) -> VerifyError {
        let options = Options { stopped: &|| true, ..OPTIONS };
        verify(&self.dataset, &self.files(), &options).unwrap_err()
    }

    /// What is found before a run, and by verification of some and of all files, all the same but for
    /// notes.
    pub fn found(&self, labels: Option<LabelForm>) -> Vec<Preparation> {
        let quick = quick(&self.dataset, &self.set(), labels);
        for full in [false, true] {
            let report = self.report(Options { full, labels, ..OPTIONS });
            let names = |findings: &[Finding]| -> Vec<Preparation> {
                let wrong =
                    findings.iter().filter(|found| found.verdict == found.preparation.verdict());
                wrong
                    .map(|found| found.preparation)
                    .filter(|p| *p != Preparation::Resized)
                    .collect()
            };
            assert_eq!(names(&report.findings), names(&quick), "full: {full}");
            for finding in &report.findings {
                assert!(!finding.about.is_empty() && !finding.instead.is_empty(), "{finding}");
            }
        }
        let mut found: Vec<_> = quick.iter().map(|finding| finding.preparation).collect();
        found.dedup();
        found
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

pub fn write_png(
    path: &Path,
    (height, width): (usize, usize),
    (color, depth): (ColorType, BitDepth),
    bytes: &[u8],
) {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.set_compression(png::Compression::Fast);
    encoder.write_header().unwrap().write_image_data(bytes).unwrap();
    fs::write(path, file).unwrap();
}

/// A report's lines, without the folder.
pub fn lines(report: &Report) -> String {
    let mut text = format!("{:?}\n", report.verdict);
    for finding in &report.findings {
        text.push_str(&format!("{finding}\n"));
    }
    for check in &report.checks {
        let split = check.split.as_deref().unwrap_or("-");
        let subject = check.subject.name();
        text.push_str(&format!("{:?} {subject} {split}: {}\n", check.verdict, check.said));
        for file in &check.files {
            text.push_str(&format!("    {file}\n"));
        }
        if check.more > 0 {
            text.push_str(&format!("    and {} more\n", check.more));
        }
    }
    text.replace(&report.root.display().to_string(), "DATA")
}
