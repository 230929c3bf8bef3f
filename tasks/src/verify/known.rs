//! Files whose content is published.

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::report::Problems;
use super::{Options, Report, Subject, Verdict, VerifyError, number, sum};
use crate::data::{Algorithm, Dataset, KnownFile};
use crate::dense::LabelForm;
use crate::files::Files;

/// Compares the known files that are there. Those that are not there are not looked for: which files
/// have to be there is another check. Masks are known in the form they were published in; those stored
/// in the other one are left out. A file with another content may have been encoded again, so it is a note.
pub(super) fn verify(
    dataset: &Dataset,
    files: &Files,
    (options, form): (&Options<'_>, Option<LabelForm>),
    report: &mut Report,
) -> Result<(), VerifyError> {
    if report.generated {
        return Ok(());
    }
    let two_forms = dataset.labels.as_ref().is_some_and(|labels| labels.original.is_some());
    let other_form = two_forms && form != Some(LabelForm::Original);
    let is_mask = |path: &str| path.contains("annotations/") || path.contains("masks_png/");
    let comparable = |known: &KnownFile| !(other_form && is_mask(&known.path));
    let there: Vec<usize> = (0..dataset.known.len())
        .filter(|&at| comparable(&dataset.known[at]) && files.is_file(&dataset.known[at].path))
        .collect();
    if there.is_empty() {
        return Ok(());
    }
    let look = |problems: &mut Problems, at: usize| {
        if let Some(problem) = differs(files, &dataset.known[at]) {
            problems.add(at, || problem);
        }
    };
    let problems: Problems = sum(&there, "known files", options, look, Problems::merge)?;
    let said = format!(
        "{} with a published checksum, {} with another content",
        number(there.len(), "file"),
        problems.count
    );
    let verdict = problems.verdict(Verdict::Note);
    report.check(Subject::Known, None).with(verdict, said, &problems);
    Ok(())
}

fn differs(files: &Files, known: &KnownFile) -> Option<String> {
    let path = &known.path;
    let bytes = match files.read(path) {
        Ok(bytes) => bytes,
        Err(error) => return Some(format!("{path}: {error}")),
    };
    if bytes.len() as u64 != known.bytes {
        return Some(format!("{path}: expected {} bytes, found {}", known.bytes, bytes.len()));
    }
    let digits = match known.checksum.algorithm {
        Algorithm::Md5 => hex(&Md5::digest(&bytes)),
        Algorithm::Sha1 => hex(&Sha1::digest(&bytes)),
        Algorithm::Sha256 => hex(&Sha256::digest(&bytes)),
    };
    (digits != known.checksum.digits).then(|| {
        let name = known.checksum.algorithm.name();
        format!("{path}: expected {}, found {name}:{digits} (by {})", known.checksum, known.by)
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
