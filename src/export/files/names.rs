//! What a key says of itself, read back by the same rules that names are made by.
//!
//! A name is taken for one of an export only where every part of it is well formed and nothing stands
//! before or behind: `p_img-1_system_snap-1.raw.bak` is nobody's.

use std::fmt;
use std::str::FromStr;

use crate::export::request::{CLAIM_SUFFIX, DiskRole};
use crate::model::{ImageFormat, ImageId, InvalidValue, ObjectKey, Prefix, SnapshotId};

/// A key that has the form of one of the names around an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// `<prefix>_<imageId>_system_<snapshotId>.<format>`, or `_data_` (API page 213/73474).
    Api {
        prefix: Option<Prefix>,
        image_id: ImageId,
        disk: DiskRole,
        snapshot_id: SnapshotId,
        format: ImageFormat,
    },
    /// `<prefix>_xvda.<format>` (console guide, page 213/46841). It does not say which image it is of.
    Console {
        prefix: Option<Prefix>,
        device: String,
        format: ImageFormat,
    },
    /// The record that this tool keeps beside the files.
    Claim {
        prefix: Option<Prefix>,
        image_id: ImageId,
    },
    /// A lease of the submit: `<prefix>_<imageId>.cvm-export.lease-<format>-<number>.json`. It is neither
    /// an export nor a record, and nothing here deletes it.
    Lease {
        prefix: Option<Prefix>,
        image_id: ImageId,
        format: ImageFormat,
        number: u64,
    },
}

/// What stands between the image id and the format in the key of a lease.
const LEASE_INFIX: &str = ".cvm-export.lease-";
const LEASE_SUFFIX: &str = ".json";

impl Name {
    pub(super) fn of(key: &ObjectKey) -> Option<Self> {
        let text = key.as_str();
        if let Some(stem) = text.strip_suffix(CLAIM_SUFFIX) {
            let (prefix, image_id) = last_word(stem);
            return Some(Self::Claim {
                prefix: prefix_of(prefix)?,
                image_id: image_id.parse().ok()?,
            });
        }
        if let Some(stem) = text.strip_suffix(LEASE_SUFFIX) {
            let (stem, lease) = stem.rsplit_once(LEASE_INFIX)?;
            let (format, number) = lease.rsplit_once('-')?;
            let (prefix, image_id) = last_word(stem);
            return Some(Self::Lease {
                prefix: prefix_of(prefix)?,
                image_id: image_id.parse().ok()?,
                format: format_of(format)?,
                number: lease_number(number)?,
            });
        }
        let (stem, extension) = text.rsplit_once('.')?;
        let format = format_of(extension)?;
        let (rest, word) = last_word(stem);
        let letter = word.strip_prefix("xvd").map(str::as_bytes);
        if let Some([b'a'..=b'z']) = letter {
            return Some(Self::Console {
                prefix: prefix_of(rest)?,
                device: word.to_owned(),
                format,
            });
        }
        let snapshot_id = word.parse().ok()?;
        let (rest, disk) = last_word(rest?);
        let disk = match disk {
            "system" => DiskRole::System,
            "data" => DiskRole::Data,
            _ => return None,
        };
        let (prefix, image_id) = last_word(rest?);
        Some(Self::Api {
            prefix: prefix_of(prefix)?,
            image_id: image_id.parse().ok()?,
            disk,
            snapshot_id,
            format,
        })
    }

    pub(super) fn prefix(&self) -> Option<&Prefix> {
        match self {
            Self::Api { prefix, .. }
            | Self::Console { prefix, .. }
            | Self::Claim { prefix, .. }
            | Self::Lease { prefix, .. } => prefix.as_ref(),
        }
    }

    /// The image, where the name tells it.
    pub(super) fn image_id(&self) -> Option<&ImageId> {
        match self {
            Self::Api { image_id, .. }
            | Self::Claim { image_id, .. }
            | Self::Lease { image_id, .. } => Some(image_id),
            Self::Console { .. } => None,
        }
    }
}

fn format_of(extension: &str) -> Option<ImageFormat> {
    let mut formats = ImageFormat::ALL.iter().copied();
    formats.find(|format| format.extension() == extension)
}

/// The number of a lease: digits alone, from 1, without leading zeros.
fn lease_number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain)
}

/// What follows the last underscore, and what stands before it.
fn last_word(text: &str) -> (Option<&str>, &str) {
    match text.rsplit_once('_') {
        Some((before, word)) => (Some(before), word),
        None => (None, text),
    }
}

/// The prefix of a name; `None` where it can be none.
fn prefix_of(text: Option<&str>) -> Option<Option<Prefix>> {
    text.map(|text| text.parse().ok())
        .map_or(Some(None), |prefix| prefix.map(Some))
}

/// Which exports are meant, by the prefix that they were made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PrefixFilter {
    /// All of them.
    #[default]
    Any,
    /// Those with this very prefix.
    Exactly(Prefix),
    /// Those whose prefix starts like this.
    StartingWith(Prefix),
}

impl PrefixFilter {
    /// What the keys of the exports start with, to narrow a listing.
    pub(super) fn keys_start(&self) -> String {
        match self {
            Self::Any => String::new(),
            Self::Exactly(prefix) => format!("{prefix}_"),
            Self::StartingWith(start) => start.to_string(),
        }
    }

    pub(super) fn covers(&self, prefix: Option<&Prefix>) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(wanted) => prefix == Some(wanted),
            Self::StartingWith(start) => {
                prefix.is_some_and(|prefix| prefix.as_str().starts_with(start.as_str()))
            }
        }
    }
}

impl fmt::Display for PrefixFilter {
    /// As it is given on the command line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => formatter.write_str("*"),
            Self::Exactly(prefix) => write!(formatter, "{prefix}"),
            Self::StartingWith(start) => write!(formatter, "{start}*"),
        }
    }
}

impl FromStr for PrefixFilter {
    type Err = InvalidValue;

    /// Reads a prefix as it was given to `image`, or the start of several before a star.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.strip_suffix('*') {
            Some("") => Ok(Self::Any),
            Some(start) => Ok(Self::StartingWith(start.parse()?)),
            None => Ok(Self::Exactly(text.parse()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Option<Name> {
        Name::of(&text.parse().expect("a key"))
    }

    fn shown(text: &str) -> String {
        let prefix = |name: &Name| name.prefix().map_or("-".to_owned(), ToString::to_string);
        match name(text) {
            None => "none".to_owned(),
            Some(
                ref name @ Name::Api {
                    ref image_id,
                    disk,
                    ref snapshot_id,
                    format,
                    ..
                },
            ) => format!("{} {image_id} {disk} {snapshot_id} {format}", prefix(name)),
            Some(
                ref name @ Name::Console {
                    ref device, format, ..
                },
            ) => {
                format!("{} {device} {format}", prefix(name))
            }
            Some(ref name @ Name::Claim { ref image_id, .. }) => {
                format!("{} {image_id} record", prefix(name))
            }
            Some(
                ref name @ Name::Lease {
                    ref image_id,
                    format,
                    number,
                    ..
                },
            ) => format!("{} {image_id} lease {format} {number}", prefix(name)),
        }
    }

    #[test]
    fn names_of_both_rules_and_of_records_are_read_back() {
        for (text, expected) in [
            ("p_img-1_system_snap-2.raw", "p img-1 system snap-2 raw"),
            ("img-1_data_snap-2.qcow2", "- img-1 data snap-2 qcow2"),
            (
                "a/b_c_img-1_data_snap-2.vmdk",
                "a/b_c img-1 data snap-2 vmdk",
            ),
            (
                "a_img-1_img-2_system_snap-2.vhd",
                "a_img-1 img-2 system snap-2 vhd",
            ),
            (
                "x.cvm-export.lease-raw-1_img-1_data_snap-2.raw",
                "x.cvm-export.lease-raw-1 img-1 data snap-2 raw",
            ),
            ("p_xvda.raw", "p xvda raw"),
            ("xvdz.vhd", "- xvdz vhd"),
            ("p_img-1.cvm-export.json", "p img-1 record"),
            ("img-1.cvm-export.json", "- img-1 record"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn leases_are_read_back_as_they_are_written() {
        for prefix in [
            None,
            Some("p"),
            Some("a/b_c"),
            Some("x.cvm-export.lease-raw-1"),
        ] {
            let stem = prefix.map_or("img-1".to_owned(), |prefix| format!("{prefix}_img-1"));
            for format in ImageFormat::ALL.iter().copied() {
                for number in [1, 2, 10, 4_000_000_000, u64::MAX] {
                    let text = format!(
                        "{stem}.cvm-export.lease-{}-{number}.json",
                        format.extension()
                    );
                    let expected = Name::Lease {
                        prefix: prefix.map(|prefix| prefix.parse().expect("a prefix")),
                        image_id: "img-1".parse().expect("an id"),
                        format,
                        number,
                    };
                    assert_eq!(name(&text), Some(expected), "{text}");
                }
            }
        }
    }

    #[test]
    fn look_alikes_are_nobodys() {
        for text in [
            "p_img-1.cvm-export.lease-raw-0.json",
            "p_img-1.cvm-export.lease-raw-01.json",
            "p_img-1.cvm-export.lease-raw-+1.json",
            "p_img-1.cvm-export.lease-raw-.json",
            "p_img-1.cvm-export.lease-raw-1",
            "p_img-1.cvm-export.lease-raw-1.json.bak",
            "p_img-1.cvm-export.lease-iso-1.json",
            "p_img-1.cvm-export.lease-RAW-1.json",
            "p_img-1.cvm-export.lease-raw.json",
            "p_img-1.cvm-export.lease-raw-18446744073709551616.json",
            "p_ami-1.cvm-export.lease-raw-1.json",
            "d/img-1.cvm-export.lease-raw-1.json",
            "p_img-1_system_snap-2.raw.bak",
            "p_img-1_system_snap-2.RAW",
            "p_img-1_system_snap-2.iso",
            "p_img-1_system_snap-2",
            "p_img-1_System_snap-2.raw",
            "p_IMG-1_system_snap-2.raw",
            "p_img-_system_snap-2.raw",
            "p_img-1_system_snap-.raw",
            "p_img-1_system_snap-2_copy.raw",
            "p_img-1_system_snap-2 (1).raw",
            "p_img-1_swap_snap-2.raw",
            "p_img-1-system-snap-2.raw",
            "pimg-1_system_snap-2.raw",
            "d/img-1_system_snap-2.raw",
            "_img-1_system_snap-2.raw",
            "system_snap-2.raw",
            "_xvda.raw",
            "p_xvdaa.raw",
            "p_xvd1.raw",
            "p_XVDA.raw",
            "pxvda.raw",
            "p_xvda.raw.part",
            "p_img-1.cvm-export.json.old",
            "p_img-1.json",
            "p_ami-1.cvm-export.json",
            "d/img-1.cvm-export.json",
        ] {
            assert_eq!(name(text), None, "{text}");
        }
    }

    #[test]
    fn a_filter_means_one_prefix_unless_a_star_ends_it() {
        let covered = |filter: &str, prefix: Option<&str>| {
            let filter: PrefixFilter = filter.parse().expect("a filter");
            filter.covers(prefix.map(|it| it.parse().expect("a prefix")).as_ref())
        };
        assert!(covered("p", Some("p")) && covered("p*", Some("pq")) && covered("*", None));
        assert!(!covered("p", Some("pq")) && !covered("p", None) && !covered("p*", None));
        assert!("/p".parse::<PrefixFilter>().is_err() && "".parse::<PrefixFilter>().is_err());
    }
}
