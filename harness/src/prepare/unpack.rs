//! Writes the members of archives into the tree.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use super::PrepareError;
use super::archive::{Kind, Member, Visitor, bound, visit};
use super::member::{Danger, Places};
use super::rules::Rules;
use super::work::Work;
use crate::interrupt;
use crate::progress::{Bar, Reporter};

/// Where the members of an archive go.
pub(super) enum Targets<'a> {
    /// As the table says.
    Rules(Rules<'a>),
    /// Each to a place of its own, by the last part of its path; all of these are expected.
    Named(&'a HashMap<String, String>),
}

impl Targets<'_> {
    fn of(&self, path: &str) -> Option<String> {
        match self {
            Self::Rules(rules) => rules.target(path),
            Self::Named(places) => places.get(path.rsplit('/').next()?).cloned(),
        }
    }

    fn expected(&self) -> String {
        match self {
            Self::Rules(rules) => format!("members that begin with {}", rules.expected()),
            Self::Named(places) => format!("{} members by name", places.len()),
        }
    }
}

/// An archive that is unpacked.
pub(super) struct Source<'a> {
    /// As published.
    pub name: &'a str,
    pub path: &'a Path,
    /// Whether a checksum says that it is whole.
    pub checked: bool,
}

/// Unpacks an archive, but for what is there already; returns what is there then, with sizes.
pub(super) fn unpack(
    source: &Source<'_>,
    targets: &Targets<'_>,
    work: &mut Work,
    places: &mut Places,
    reporter: &Reporter,
) -> Result<Vec<(String, u64)>, PrepareError> {
    let size = fs::metadata(source.path).map_err(PrepareError::io("read", source.path))?.len();
    let mut unpacker = Unpacker {
        archive: source.path,
        targets,
        work,
        places,
        left: bound(size),
        bound: bound(size),
        target: String::new(),
        files: Vec::new(),
        bar: reporter.bytes(&format!("unpacking {}", source.name), size),
    };
    visit(source.path, source.checked, &mut unpacker)?;
    let files = unpacker.files;
    let all = match targets {
        Targets::Rules(_) => !files.is_empty(),
        Targets::Named(places) => files.len() == places.len(),
    };
    if all {
        return Ok(files);
    }
    let expected = targets.expected();
    Err(PrepareError::Nothing { archive: source.path.to_path_buf(), expected })
}

struct Unpacker<'a> {
    archive: &'a Path,
    targets: &'a Targets<'a>,
    work: &'a mut Work,
    places: &'a mut Places,
    /// Bytes that may still be unpacked.
    left: u64,
    bound: u64,
    /// Of the member that was wanted last.
    target: String,
    files: Vec<(String, u64)>,
    bar: Bar,
}

impl Unpacker<'_> {
    fn refused(&self, member: &Member, danger: Danger) -> PrepareError {
        let (archive, member) = (self.archive.to_path_buf(), member.path.clone());
        PrepareError::Refused { archive, member, danger }
    }
}

impl Visitor for Unpacker<'_> {
    fn inside(&self, path: &str) -> bool {
        matches!(self.targets, Targets::Rules(rules) if rules.inside(path))
    }

    fn wants(&mut self, member: &Member) -> Result<bool, PrepareError> {
        if interrupt::requested() {
            return Err(PrepareError::Interrupted);
        }
        let Some(target) = self.targets.of(&member.path) else { return Ok(false) };
        match member.kind {
            Kind::Folder => return Ok(false),
            Kind::Special(what) => return Err(self.refused(member, Danger::Special(what))),
            Kind::File => {}
        }
        self.places.take(&target).map_err(|danger| self.refused(member, danger))?;
        let bomb = || self.refused(member, Danger::Bomb(self.bound));
        self.left = self.left.checked_sub(member.size).ok_or_else(bomb)?;
        self.files.push((target.clone(), member.size));
        let there = self.work.has(&target, member.size);
        self.target = target;
        Ok(!there)
    }

    fn take(&mut self, member: &Member, bytes: &mut dyn Read) -> Result<(), PrepareError> {
        self.work.write(self.archive, member, &self.target, bytes)
    }

    fn at(&mut self, byte: u64) {
        self.bar.set(byte);
    }
}

/// Members that are small and wanted whole, each given to a function.
pub(super) struct Reader<'a, F> {
    archive: &'a Path,
    wanted: &'a dyn Fn(&str) -> bool,
    each: F,
    /// Bytes that a member may have.
    most: u64,
    bar: Bar,
}

/// Reads the members of an archive that `wanted` names, whole, one after the other.
pub(super) fn read_members(
    source: &Source<'_>,
    most: u64,
    wanted: &dyn Fn(&str) -> bool,
    each: impl FnMut(&str, &[u8]) -> Result<(), PrepareError>,
    reporter: &Reporter,
) -> Result<(), PrepareError> {
    let size = fs::metadata(source.path).map_err(PrepareError::io("read", source.path))?.len();
    let bar = reporter.bytes(&format!("reading {}", source.name), size);
    let mut reader = Reader { archive: source.path, wanted, each, most, bar };
    visit(source.path, source.checked, &mut reader)
}

impl<F: FnMut(&str, &[u8]) -> Result<(), PrepareError>> Visitor for Reader<'_, F> {
    fn inside(&self, _: &str) -> bool {
        false
    }

    fn wants(&mut self, member: &Member) -> Result<bool, PrepareError> {
        if interrupt::requested() {
            return Err(PrepareError::Interrupted);
        }
        let refused = |danger| PrepareError::Refused {
            archive: self.archive.to_path_buf(),
            member: member.path.clone(),
            danger,
        };
        match member.kind {
            _ if !(self.wanted)(&member.path) => Ok(false),
            Kind::Folder => Ok(false),
            Kind::Special(what) => Err(refused(Danger::Special(what))),
            Kind::File if member.size > self.most => Err(refused(Danger::Bomb(self.most))),
            Kind::File => Ok(true),
        }
    }

    fn take(&mut self, member: &Member, bytes: &mut dyn Read) -> Result<(), PrepareError> {
        let damaged = |why: String| PrepareError::Damaged {
            archive: self.archive.to_path_buf(),
            member: Some(member.path.clone()),
            why,
        };
        let mut whole = Vec::new();
        let read = bytes.take(member.size + 1).read_to_end(&mut whole);
        read.map_err(|error| PrepareError::unreadable(self.archive, Some(&member.path), &error))?;
        if whole.len() as u64 != member.size {
            return Err(damaged(format!("expected {} bytes, found {}", member.size, whole.len())));
        }
        (self.each)(&member.path, &whole)
    }

    fn at(&mut self, byte: u64) {
        self.bar.set(byte);
    }
}
