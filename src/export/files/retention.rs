//! Which exports go: groups of exports that replace each other, and the rule for each group. Pure.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::removal::Stay;
use super::series::{image_series, prefix_series};
use super::{Inventory, ListedExport, ListedState, Proof};
use crate::error::{Error, ErrorKind};
use crate::model::{CloudText, ExportId, Prefix};

/// Names and prefixes are compared up to here; one from a bucket may be of any length.
const COMPARED: usize = 1024;

/// Which exports replace each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupBy {
    /// Those with the same prefix as it was written, of the images of one series.
    #[default]
    Template,
    /// Those of images with the same name, without a date, time or serial at its end.
    ImageName,
    /// Those of the same image.
    Image,
    /// Those with the same prefix.
    Prefix,
    /// All of them.
    None,
}

impl GroupBy {
    /// As it is given on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::ImageName => "image-name",
            Self::Image => "image",
            Self::Prefix => "prefix",
            Self::None => "none",
        }
    }
}

/// A rule by age and number, for each group.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Retention {
    /// Which exports replace each other.
    pub group_by: GroupBy,
    /// So many of the newest complete exports of each group stay.
    pub keep_last: Option<NonZeroUsize>,
    /// What is younger stays.
    #[serde(rename = "older_than_seconds", serialize_with = "seconds")]
    pub older_than: Option<Duration>,
    /// Whether the newest complete export of a group may go, too.
    pub include_newest: bool,
}

fn seconds<S: Serializer>(age: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    age.map(|age| age.as_secs()).serialize(serializer)
}

impl fmt::Display for Retention {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keeps = Vec::new();
        if let Some(keep) = self.keep_last {
            keeps.push(format!("the {}", newest(keep)));
        } else if !self.include_newest {
            keeps.push("the newest complete export of each group".to_owned());
        }
        if let Some(age) = self.older_than {
            keeps.push(format!("everything younger than {}", span(age)));
        }
        let keeps = match keeps.is_empty() {
            true => "nothing".to_owned(),
            false => keeps.join(" and "),
        };
        let by = self.group_by.as_str();
        write!(formatter, "keep {keeps}; groups by {by}")
    }
}

fn newest(keep: NonZeroUsize) -> String {
    match keep.get() {
        1 => "newest complete export of each group".to_owned(),
        keep => format!("{keep} newest complete exports of each group"),
    }
}

/// An age in the largest unit that it is a whole number of.
fn span(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0 => "0s".to_owned(),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// Exports that replace each other.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// What they have in common.
    pub group: CloudText,
    /// How many there are.
    pub exports: usize,
    /// How many of them are complete and proven.
    pub complete: usize,
    /// The place of the newest of those.
    #[serde(skip)]
    newest: Option<usize>,
}

/// Exports in their groups.
#[derive(Clone, Debug)]
pub struct Groups {
    /// The groups, in the order of their oldest exports.
    pub list: Vec<Group>,
    of_export: Vec<u32>,
}

impl Groups {
    /// Groups `exports`, the oldest first.
    #[must_use]
    pub fn of(exports: &[ListedExport], by: GroupBy) -> Self {
        let mut numbers: HashMap<[u8; 16], u32> = HashMap::new();
        let mut groups = Self {
            list: Vec::new(),
            of_export: Vec::with_capacity(exports.len()),
        };
        for (place, export) in exports.iter().enumerate() {
            let key = Key::of(export, by);
            let next = u32::try_from(groups.list.len()).unwrap_or(u32::MAX);
            let list = &mut groups.list;
            let number = *numbers.entry(key.digest()).or_insert_with(|| {
                list.push(Group {
                    group: CloudText::new(&key.to_string()),
                    exports: 0,
                    complete: 0,
                    newest: None,
                });
                next
            });
            groups.of_export.push(number);
            let group = &mut list[number as usize];
            group.exports += 1;
            if is_good(export) {
                group.complete += 1;
                group.newest = Some(place);
            }
        }
        groups.list.shrink_to_fit();
        groups
    }

    /// The number of the group of the export at `place`, from 0.
    #[must_use]
    pub fn number_of(&self, place: usize) -> usize {
        self.of_export[place] as usize
    }

    /// The group of the export at `place`.
    #[must_use]
    pub fn group_of(&self, place: usize) -> &Group {
        &self.list[self.number_of(place)]
    }

    /// What becomes of the export at `place` by any rule, in one word and as a reason; `None` if the rule decides.
    #[must_use]
    pub fn fate(&self, place: usize, export: &ListedExport) -> Option<(&'static str, String)> {
        let doubt = export
            .files
            .iter()
            .find(|file| file.proof == Proof::None)
            .map(|file| file.doubt.unwrap_or("nothing proves whose it is"));
        match (&export.blocked, doubt) {
            (Some(blocked), _) => Some(("blocked", blocked.reason().to_owned())),
            (None, Some(doubt)) => Some(("unproven", doubt.to_owned())),
            (None, None) if self.group_of(place).newest == Some(place) => Some((
                "newest",
                "it is the newest complete export of its group".to_owned(),
            )),
            (None, None) => None,
        }
    }
}

/// What exports of one group have in common.
struct Key {
    by: GroupKind,
    prefix: Option<String>,
    image: Option<String>,
}

#[derive(Clone, Copy)]
enum GroupKind {
    Both,
    Image,
    Prefix,
    All,
}

impl Key {
    fn of(export: &ListedExport, by: GroupBy) -> Self {
        let prefix = export.prefix.as_ref().map(Prefix::as_str);
        let written = export.template.as_ref().map(CloudText::as_str).or(prefix);
        let id = || export.image_id.as_ref().map(ToString::to_string);
        let series = || {
            let name = export.image_name.as_ref().map(CloudText::as_str);
            let name = name.filter(|name| !name.trim().is_empty());
            let series = name.map(|name| image_series(start_of(name)).to_owned());
            series.or_else(id)
        };
        let (by, prefix, image) = match by {
            GroupBy::Template => (
                GroupKind::Both,
                written.map(|written| prefix_series(start_of(written))),
                series(),
            ),
            GroupBy::ImageName => (GroupKind::Image, None, series()),
            GroupBy::Image => (GroupKind::Image, None, id()),
            GroupBy::Prefix => (GroupKind::Prefix, prefix.map(str::to_owned), None),
            GroupBy::None => (GroupKind::All, None, None),
        };
        Self { by, prefix, image }
    }

    /// The key in little room: a bucket may hold as many groups as exports.
    fn digest(&self) -> [u8; 16] {
        let parts = [&self.prefix, &self.image].map(|part| part.as_deref().unwrap_or_default());
        // Neither prefixes nor names hold control characters, so a line break separates safely.
        let text = format!("{}\n{}", parts[0], parts[1]);
        let mut digest = [0; 16];
        digest.copy_from_slice(&Sha256::digest(text)[..16]);
        digest
    }
}

fn start_of(text: &str) -> &str {
    let end = text.char_indices().nth(COMPARED);
    &text[..end.map_or(text.len(), |(end, _)| end)]
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.prefix.as_deref().unwrap_or("no prefix");
        let image = self.image.as_deref().unwrap_or("unknown image");
        match self.by {
            GroupKind::Both => write!(formatter, "{prefix} ({image})"),
            GroupKind::Image => formatter.write_str(image),
            GroupKind::Prefix => formatter.write_str(prefix),
            GroupKind::All => formatter.write_str("all exports"),
        }
    }
}

/// Whether an export counts as one that is there: complete, and proven to be one.
fn is_good(export: &ListedExport) -> bool {
    export.state == ListedState::Complete
        && export.files.iter().all(|file| file.proof != Proof::None)
}

/// Which exports are to go. It always names or excepts some: one that says nothing would mean them all.
#[derive(Clone, Debug)]
pub struct Selection(Rule);

#[derive(Clone, Debug)]
enum Rule {
    /// These, whatever their age.
    Named(Vec<ExportId>),
    /// Those that the rule lets go.
    Retained(Retention),
}

impl Selection {
    /// These exports, whatever their age; `None` where none is named.
    #[must_use]
    pub fn named(export_ids: Vec<ExportId>) -> Option<Self> {
        (!export_ids.is_empty()).then_some(Self(Rule::Named(export_ids)))
    }

    /// Those that are older than the rule says and that are not among the newest complete ones of their group;
    /// `None` where neither an age nor a number is given.
    #[must_use]
    pub fn retained(rule: Retention) -> Option<Self> {
        let is_given = rule.older_than.is_some() || rule.keep_last.is_some();
        is_given.then_some(Self(Rule::Retained(rule)))
    }

    pub(super) fn is_named(&self) -> bool {
        matches!(self.0, Rule::Named(_))
    }

    /// The rule by age and number.
    pub(super) fn retention(&self) -> Option<&Retention> {
        match &self.0 {
            Rule::Named(_) => None,
            Rule::Retained(rule) => Some(rule),
        }
    }

    /// The exports that are named.
    pub(super) fn ids(&self) -> &[ExportId] {
        match &self.0 {
            Rule::Named(ids) => ids,
            Rule::Retained(_) => &[],
        }
    }

    /// What it means for each export, and their groups where a rule has groups.
    pub(super) fn choices(
        &self,
        inventory: &Inventory,
        is_removed: impl Fn(&ExportId) -> bool,
        stays: &mut Vec<Stay>,
    ) -> Result<(Vec<Choice>, Option<Groups>), Error> {
        match &self.0 {
            Rule::Named(ids) => Ok((named(inventory, ids, is_removed, stays)?, None)),
            Rule::Retained(rule) => {
                let groups = Groups::of(&inventory.exports, rule.group_by);
                let choices = retained(&inventory.exports, &groups, rule);
                Ok((choices, Some(groups)))
            }
        }
    }
}

/// What a selection means for one export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// It goes, for this reason.
    Remove(CloudText),
    /// It stays, for this reason.
    Keep(CloudText),
    /// Others were named.
    NotMeant,
}

/// The exports that were named; all of them must be there, or be known to be deleted.
fn named(
    inventory: &Inventory,
    ids: &[ExportId],
    is_removed: impl Fn(&ExportId) -> bool,
    stays: &mut Vec<Stay>,
) -> Result<Vec<Choice>, Error> {
    let exports = &inventory.exports;
    let listed: HashSet<&ExportId> = exports
        .iter()
        .filter_map(|export| export.export_id.as_ref())
        .collect();
    for id in ids.iter().filter(|id| !listed.contains(id)) {
        if !is_removed(id) {
            let bucket = &inventory.scope.bucket;
            return Err(Error::new(
                ErrorKind::Precondition,
                format!("nothing of export `{id}` lies in bucket `{bucket}`; nothing was deleted"),
            )
            .with_hint(format!(
                "`cvm-export files --bucket {bucket}` lists what is there"
            )));
        }
        stays.push(Stay::new(format!("export `{id}`"), "it is deleted already"));
    }
    let ids: HashSet<&ExportId> = ids.iter().collect();
    let why = CloudText::new("it is named by --export-id");
    let chosen = exports.iter().map(|export| {
        let id = export.export_id.as_ref();
        match id.is_some_and(|id| ids.contains(id)) {
            true => Choice::Remove(why.clone()),
            false => Choice::NotMeant,
        }
    });
    Ok(chosen.collect())
}

/// What `rule` means for each of `exports`, the oldest first. The newest complete export of a group stays unless
/// the rule includes it, and one that is not complete counts for nothing: it must not push out one that is.
fn retained(exports: &[ListedExport], groups: &Groups, rule: &Retention) -> Vec<Choice> {
    let mut newer = vec![0_usize; groups.list.len()];
    let mut reasons = Reasons::new(rule);
    let mut choices = Vec::with_capacity(exports.len());
    for (place, export) in exports.iter().enumerate().rev() {
        let newer = &mut newer[groups.number_of(place)];
        let rank = *newer;
        *newer += usize::from(is_good(export));
        choices.push(judge(export, rank, rule, &mut reasons));
    }
    choices.reverse();
    choices
}

/// What `rule` means for an export with `rank` newer complete ones in its group.
fn judge(export: &ListedExport, rank: usize, rule: &Retention, reasons: &mut Reasons) -> Choice {
    let age = export.age_seconds.map(Duration::from_secs);
    match (rule.older_than, age) {
        (Some(limit), Some(age)) if age < limit => return Choice::Keep(reasons.younger.clone()),
        (Some(_), None) => return Choice::Keep(reasons.ageless.clone()),
        _ => {}
    }
    // The rest of a deletion that was broken off.
    if export.is_record_alone {
        return Choice::Remove(reasons.record_alone.clone());
    }
    if rule.keep_last.is_some() && export.image_id.is_none() {
        return Choice::Keep(reasons.imageless.clone());
    }
    let is_among = rule.keep_last.is_some_and(|keep| rank < keep.get());
    match (is_good(export), is_among) {
        (true, true) => Choice::Keep(reasons.among.clone()),
        (true, false) if rank == 0 && !rule.include_newest => Choice::Keep(reasons.first.clone()),
        (true, false) => Choice::Remove(reasons.goes.clone()),
        (false, is_newer) => reasons.incomplete(export.state, is_newer),
    }
}

/// The reasons, each held once.
struct Reasons {
    younger: CloudText,
    ageless: CloudText,
    record_alone: CloudText,
    imageless: CloudText,
    among: CloudText,
    first: CloudText,
    goes: CloudText,
    keep_last: Option<NonZeroUsize>,
    incomplete: HashMap<(&'static str, bool), CloudText>,
}

impl Reasons {
    fn new(rule: &Retention) -> Self {
        let Retention {
            keep_last,
            older_than,
            ..
        } = rule;
        let first = "it is the newest complete export of its group";
        let (among, not_among) = match keep_last {
            Some(keep) if keep.get() > 1 => (
                format!("it is one of the {keep} newest complete exports of its group"),
                format!("it is not one of the {keep} newest complete exports of its group"),
            ),
            _ => (
                first.to_owned(),
                "it is not the newest complete export of its group".to_owned(),
            ),
        };
        let age = older_than.map(span).unwrap_or_default();
        let goes = match (keep_last, older_than) {
            (_, None) => not_among,
            (None, Some(_)) => format!("it is older than {age}"),
            (Some(_), Some(_)) => format!("it is older than {age}, and {not_among}"),
        };
        Self {
            younger: CloudText::new(&format!("it is younger than {age}")),
            ageless: "its age is not known".into(),
            record_alone: "its files are gone, and only its record is left".into(),
            imageless: "nothing says which image it is of".into(),
            among: among.into(),
            first: first.into(),
            goes: goes.into(),
            keep_last: *keep_last,
            incomplete: HashMap::new(),
        }
    }

    /// What becomes of an export that is not whole: it stays while it is newer than those that are kept.
    fn incomplete(&mut self, state: ListedState, is_newer: bool) -> Choice {
        let state = match state {
            ListedState::Complete => "unproven",
            state => state.as_str(),
        };
        let (keep_last, goes) = (self.keep_last, &self.goes);
        let reason = self.incomplete.entry((state, is_newer));
        let reason = reason.or_insert_with(|| {
            CloudText::new(&match (keep_last, is_newer) {
                (Some(keep), true) => {
                    let those = newest(keep).replace("of each", "of its");
                    format!("it is {state} and newer than the {those}")
                }
                _ => format!("it is {state}, and {goes}"),
            })
        });
        match is_newer {
            true => Choice::Keep(reason.clone()),
            false => Choice::Remove(reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
