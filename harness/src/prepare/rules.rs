//! Which members of an archive go where.

use tasks::data::Unpack;

/// The rules of one archive.
pub(super) struct Rules<'a>(pub &'a [Unpack]);

impl Rules<'_> {
    /// Where a member goes, relative to the data folder; `None` for one that is left out.
    pub fn target(&self, member: &str) -> Option<String> {
        self.0.iter().find_map(|rule| {
            let (found, rest) = beginning(&rule.from, member)?;
            let chosen = !rest.is_empty() && rest.ends_with(&rule.ending);
            chosen.then(|| format!("{}{rest}", filled(&rule.to, &found)))
        })
    }

    /// Whether a member is an archive whose own members are wanted.
    pub fn inside(&self, member: &str) -> bool {
        self.0.iter().any(|rule| {
            let folders = rule.from.split_inclusive('/').take(parts(member));
            let from: String = folders.collect();
            from.ends_with(".tar/")
                && beginning(&from, &format!("{member}/")).is_some_and(|(_, rest)| rest.is_empty())
        })
    }

    /// The beginnings of the members, for a message.
    pub fn expected(&self) -> String {
        let quoted = |rule: &Unpack| format!("{:?}", rule.from);
        self.0.iter().map(quoted).collect::<Vec<_>>().join(" or ")
    }
}

fn parts(member: &str) -> usize {
    member.matches('/').count() + 1
}

/// What the `*` of a beginning stand for in a path, and the rest of the path.
fn beginning<'a>(from: &str, path: &'a str) -> Option<(Vec<&'a str>, &'a str)> {
    let (mut found, mut rest) = (Vec::new(), path);
    for pattern in from.split_inclusive('/') {
        let (folder, after) = rest.split_once('/')?;
        found.extend(stars(pattern.trim_end_matches('/'), folder)?);
        rest = after;
    }
    Some((found, rest))
}

/// Puts what was found in the place of each `*`.
fn filled(to: &str, found: &[&str]) -> String {
    let mut found = found.iter();
    let fill = |c: char| match c {
        '*' => found.next().copied().unwrap_or_default().to_owned(),
        c => c.to_string(),
    };
    to.chars().map(fill).collect()
}

/// Whether a name is of a pattern, in which each `*` stands for any characters but `/`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    pattern.matches('/').count() == name.matches('/').count()
        && pattern.split('/').zip(name.split('/')).all(|(p, n)| stars(p, n).is_some())
}

/// What the `*` stand for, each as little as possible.
pub(super) fn stars<'a>(pattern: &str, name: &'a str) -> Option<Vec<&'a str>> {
    let mut pieces = pattern.split('*');
    let mut rest = name.strip_prefix(pieces.next()?)?;
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty().then(Vec::new) };
    let mut found = Vec::new();
    for piece in pieces {
        let (before, after) = rest.split_once(piece)?;
        found.push(before);
        rest = after;
    }
    found.push(rest.strip_suffix(last)?);
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(from: &str, to: &str, ending: &str) -> Unpack {
        Unpack { from: from.to_owned(), to: to.to_owned(), ending: ending.to_owned() }
    }

    #[test]
    fn members_go_where_the_rules_say() {
        let rules = [
            rule("train/", "annotations/", ".png"),
            rule("2011_09_26/*/image_02/data/", "images/2011_09_26/*/image_02/data/", ".png"),
        ];
        let rules = Rules(&rules);
        let target = |member| rules.target(member);
        assert_eq!(target("train/a/b.png").as_deref(), Some("annotations/a/b.png"));
        assert_eq!(
            target("2011_09_26/d_0001/image_02/data/7.png").as_deref(),
            Some("images/2011_09_26/d_0001/image_02/data/7.png")
        );
        for left in
            ["train/a/b.txt", "train", "val/a.png", "2011_09_26/d/image_03/data/7.png", "b.png"]
        {
            assert_eq!(target(left), None, "{left}");
        }
        assert_eq!(Rules(&[rule("A/", "", "")]).target("A/b/c").as_deref(), Some("b/c"));
        assert_eq!(rules.expected(), r#""train/" or "2011_09_26/*/image_02/data/""#);
    }

    #[test]
    fn an_archive_in_the_archive_is_named_by_its_rule() {
        let rules = [rule("*.tar/", "train/*/", "")];
        let rules = Rules(&rules);
        assert!(rules.inside("n01440764.tar") && !rules.inside("a/n01440764.tar"));
        assert!(!rules.inside("n01440764.zip"));
        let target = rules.target("n01440764.tar/n01440764_10026.JPEG");
        assert_eq!(target.as_deref(), Some("train/n01440764/n01440764_10026.JPEG"));
        assert_eq!(rules.target("n01440764.tar"), None);
        assert!(!Rules(&[rule("A/", "", "")]).inside("A"));
    }

    #[test]
    fn a_star_is_any_part_of_one_name() {
        assert!(matches("data/train-*.parquet", "data/train-00000-of-00294.parquet"));
        assert!(matches("2011_*_drive_*_sync.zip", "2011_09_26_drive_0001_sync.zip"));
        assert!(matches("a.zip", "a.zip"));
        for (pattern, name) in
            [("a*b", "ab/b"), ("a*a", "a"), ("data/*.x", "*.x"), ("a.zip", "a.zipx"), ("*", "a/b")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
