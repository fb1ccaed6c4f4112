//! What the cloud's refusals of an export mean, and what to do about each.
//!
//! The codes are those of the `ExportImages` page (213/73474) and of the SDKs' error lists, with
//! neighbours of the same product that may come back as well.

use crate::export::role;
use crate::model::{BucketName, CheckName, Prefix, RoleName, shell_line};

/// The meaning of one refusal.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// The cloud's code.
    pub code: &'static str,
    /// The check that guards against it.
    pub check: CheckName,
    /// What it means, as a lower-case fragment.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// Whether the same request can succeed later.
    pub later: Later,
}

/// Whether time alone can lift a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// The request as it is will never succeed.
    Never,
    /// Something else is running; the request can be repeated when it has finished.
    WhenOthersFinish,
}

/// What to do about a shared image; the check and the refusal say the same.
pub(crate) const SHARED_IMAGE: &str = "`--copy-shared` copies the image within its own region first (`SyncImages`): \
     the copy is a custom image of yours, is exported, and deleted in the end";
/// What to do about a public or marketplace image.
pub(crate) const PUBLIC_IMAGE: &str =
    "start an instance from the image, make a custom image of that instance, and export it";
/// What to do about a licensed system.
pub(crate) const LICENSED_IMAGE: &str = "the licence of the system does not allow an export; copy the data to an instance \
     with a free system and export an image of that one";
/// What to do about disks over the limit.
pub(crate) const LARGE_DISK: &str = "move the data to disks of at most 500 GB and make a new image, or export the system \
     disk alone with `--system-disk-only` where only data disks are too large";
/// What to do about encrypted snapshots.
pub(crate) const ENCRYPTED_IMAGE: &str =
    "copy the data to an unencrypted disk and make a new image from it";
/// What to do about a busy image.
pub(crate) const BUSY_IMAGE: &str =
    "wait until the image's state is NORMAL, then run the command again";
/// What to do about a missing feature, with what the ticket must say.
pub(crate) const FEATURE_TICKET: &str = "apply for image export by a ticket (console, Support, Submit a ticket; product CVM): \
     name the account's uin, the region, the image id and the bucket, and ask to enable \
     \"export custom image to COS\"";
/// What to do about a role that CVM cannot use; [`with_command`] names bucket and role.
pub(crate) const ROLE_SETUP: &str = "`cvm-export authorize --bucket NAME` shows what is missing and makes it; or in the CAM console \
     make a role for the product service CVM (cvm) named like the one \
     above, or tick \"let CVM access my COS bucket\" once in the console's export window";
/// What to do about a role that cannot write.
pub(crate) const ROLE_POLICY: &str = "`cvm-export authorize --bucket NAME` shows what is missing and makes it; or attach \
     `QcloudCOSDataFullControl`, or a custom policy that allows writing to this bucket, to the role in the CAM console";
/// What to do about a bucket that the export does not find.
pub(crate) const BUCKET: &str = "name a bucket of the image's region in full (`--bucket NAME-APPID`), or let `cvm-export image \
     --create-bucket` make one there";

const fn never(
    code: &'static str,
    check: CheckName,
    meaning: &'static str,
    remedy: &'static str,
) -> Refusal {
    Refusal {
        code,
        check,
        meaning,
        remedy,
        later: Later::Never,
    }
}

const fn later(
    code: &'static str,
    check: CheckName,
    meaning: &'static str,
    remedy: &'static str,
) -> Refusal {
    Refusal {
        code,
        check,
        meaning,
        remedy,
        later: Later::WhenOthersFinish,
    }
}

/// Every refusal that has a meaning of its own.
pub const REFUSALS: &[Refusal] = &[
    never(
        "AuthFailure.CamRoleNameAuthenticateFailed",
        CheckName::Role,
        "CVM could not take on the role",
        ROLE_SETUP,
    ),
    never(
        "InvalidImageId.Malformed",
        CheckName::ImageState,
        "the image id is malformed",
        "copy the id from `cvm-export images`",
    ),
    never(
        "InvalidImageId.NotFound",
        CheckName::ImageState,
        "the image is not in this region",
        "list the images of a region with `cvm-export images --region REGION`",
    ),
    never(
        "InvalidParameter.ImageIdsSnapshotIdsMustOne",
        CheckName::ServerDryRun,
        "exactly one of images and snapshots must be given",
        "report this: cvm-export always names one image",
    ),
    never(
        "InvalidParameter.SnapshotNotFound",
        CheckName::ImageState,
        "a snapshot of the image is missing",
        "make a new image; this one has lost a snapshot",
    ),
    never(
        "InvalidParameterValue.BucketNotFound",
        CheckName::BucketRegion,
        "the bucket was not found in the image's region",
        BUCKET,
    ),
    never(
        "InvalidParameterValue.InvalidAppIdFormat",
        CheckName::BucketRegion,
        "the bucket's AppId is malformed",
        BUCKET,
    ),
    never(
        "InvalidParameterValue.InvalidBucketPermissionForExport",
        CheckName::Role,
        "the role may not write to the bucket",
        ROLE_POLICY,
    ),
    never(
        "InvalidParameterValue.InvalidFileNamePrefixList",
        CheckName::Prefix,
        "the prefix is not accepted",
        "use letters, digits, hyphens and underscores in `--prefix`",
    ),
    never(
        "InvalidParameterValue.InvalidImageId",
        CheckName::ImageType,
        "the image may not be exported",
        "only custom images of this account can be exported; see `cvm-export images`",
    ),
    never(
        "InvalidParameterValue.InvalidImageOsName",
        CheckName::Platform,
        "the image's system is not supported in this region",
        "copy the image to another region (`SyncImages`) and export it there",
    ),
    later(
        "InvalidParameterValue.InvalidImageState",
        CheckName::ImageState,
        "another operation holds the image",
        BUSY_IMAGE,
    ),
    never(
        "InvalidParameterValue.LimitExceeded",
        CheckName::ServerDryRun,
        "too many values in one request",
        "report this: cvm-export names one image a request",
    ),
    never(
        "InvalidParameterValue.MissingLocationCosEndpoint",
        CheckName::BucketRegion,
        "the dedicated zone's own COS has no endpoint configured",
        "ask Tencent Cloud by a ticket to configure the COS endpoint of the dedicated zone",
    ),
    never(
        "InvalidParameterValue.TooLarge",
        CheckName::DiskSize,
        "a value is over its maximum",
        LARGE_DISK,
    ),
    later(
        "LimitExceeded.ExportImageTaskLimitExceeded",
        CheckName::Quota,
        "as many exports run as the account may have",
        "wait for running exports to finish, or leave `--no-queue` out so that this command waits",
    ),
    never(
        "UnsupportedOperation.EncryptedImagesNotSupported",
        CheckName::Encryption,
        "the image is encrypted",
        ENCRYPTED_IMAGE,
    ),
    never(
        "UnsupportedOperation.ImageTooLargeExportUnsupported",
        CheckName::DiskSize,
        "the image is too large to export",
        LARGE_DISK,
    ),
    never(
        "UnsupportedOperation.MarketImageExportUnsupported",
        CheckName::ImageType,
        "the image was built from a marketplace image",
        "install the system on an instance from a public image, and export an image of that one",
    ),
    never(
        "UnsupportedOperation.PublicImageExportUnsupported",
        CheckName::ImageType,
        "the image is a public or marketplace image",
        PUBLIC_IMAGE,
    ),
    never(
        "UnsupportedOperation.RedHatImageExportUnsupported",
        CheckName::License,
        "the image holds Red Hat",
        LICENSED_IMAGE,
    ),
    never(
        "UnsupportedOperation.SharedImageExportUnsupported",
        CheckName::ImageType,
        "the image is shared by another account",
        SHARED_IMAGE,
    ),
    never(
        "UnsupportedOperation.WindowsImageExportUnsupported",
        CheckName::Platform,
        "the image holds Windows",
        LICENSED_IMAGE,
    ),
    // Neighbours: not on the action's list, seen on others of the product.
    later(
        "FailedOperation.InvalidImageState",
        CheckName::ImageState,
        "another operation holds the image",
        BUSY_IMAGE,
    ),
    later(
        "MutexOperation.TaskRunning",
        CheckName::ImageState,
        "the same task is already running",
        BUSY_IMAGE,
    ),
    never(
        "InvalidParameter.SpecialParameterForSpecialAccount",
        CheckName::Feature,
        "the account is not on the feature's list",
        FEATURE_TICKET,
    ),
    never(
        "AccountQualificationRestrictions",
        CheckName::Feature,
        "the account lacks a qualification",
        FEATURE_TICKET,
    ),
    never(
        "OperationDenied.AccountNotSupported",
        CheckName::Feature,
        "the account may not use the feature",
        FEATURE_TICKET,
    ),
];

/// `remedy` with the very command that lets CVM write to `bucket` as `role`, in the place of the general one.
pub(crate) fn with_command(
    remedy: &str,
    role: &RoleName,
    bucket: &BucketName,
    prefix: Option<&Prefix>,
) -> String {
    let command = shell_line(&role::authorize_words(role, bucket, prefix));
    remedy.replacen("cvm-export authorize --bucket NAME", &command, 1)
}

impl Refusal {
    /// Looks a code up.
    #[must_use]
    pub fn of(code: &str) -> Option<&'static Self> {
        REFUSALS.iter().find(|refusal| refusal.code == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes that the ExportImages page and the SDKs' lists document (pages 213/73474 and
    /// 213/47833), with the check that guards against each; then neighbours of the same product.
    const DOCUMENTED: &[(&str, CheckName)] = &[
        ("AuthFailure.CamRoleNameAuthenticateFailed", CheckName::Role),
        ("InvalidImageId.Malformed", CheckName::ImageState),
        ("InvalidImageId.NotFound", CheckName::ImageState),
        (
            "InvalidParameter.ImageIdsSnapshotIdsMustOne",
            CheckName::ServerDryRun,
        ),
        ("InvalidParameter.SnapshotNotFound", CheckName::ImageState),
        (
            "InvalidParameterValue.BucketNotFound",
            CheckName::BucketRegion,
        ),
        (
            "InvalidParameterValue.InvalidAppIdFormat",
            CheckName::BucketRegion,
        ),
        (
            "InvalidParameterValue.InvalidBucketPermissionForExport",
            CheckName::Role,
        ),
        (
            "InvalidParameterValue.InvalidFileNamePrefixList",
            CheckName::Prefix,
        ),
        ("InvalidParameterValue.InvalidImageId", CheckName::ImageType),
        (
            "InvalidParameterValue.InvalidImageOsName",
            CheckName::Platform,
        ),
        (
            "InvalidParameterValue.InvalidImageState",
            CheckName::ImageState,
        ),
        (
            "InvalidParameterValue.LimitExceeded",
            CheckName::ServerDryRun,
        ),
        (
            "InvalidParameterValue.MissingLocationCosEndpoint",
            CheckName::BucketRegion,
        ),
        ("InvalidParameterValue.TooLarge", CheckName::DiskSize),
        (
            "LimitExceeded.ExportImageTaskLimitExceeded",
            CheckName::Quota,
        ),
        (
            "UnsupportedOperation.EncryptedImagesNotSupported",
            CheckName::Encryption,
        ),
        (
            "UnsupportedOperation.ImageTooLargeExportUnsupported",
            CheckName::DiskSize,
        ),
        (
            "UnsupportedOperation.MarketImageExportUnsupported",
            CheckName::ImageType,
        ),
        (
            "UnsupportedOperation.PublicImageExportUnsupported",
            CheckName::ImageType,
        ),
        (
            "UnsupportedOperation.RedHatImageExportUnsupported",
            CheckName::License,
        ),
        (
            "UnsupportedOperation.SharedImageExportUnsupported",
            CheckName::ImageType,
        ),
        (
            "UnsupportedOperation.WindowsImageExportUnsupported",
            CheckName::Platform,
        ),
        ("FailedOperation.InvalidImageState", CheckName::ImageState),
        ("MutexOperation.TaskRunning", CheckName::ImageState),
        (
            "InvalidParameter.SpecialParameterForSpecialAccount",
            CheckName::Feature,
        ),
        ("AccountQualificationRestrictions", CheckName::Feature),
        ("OperationDenied.AccountNotSupported", CheckName::Feature),
    ];

    #[test]
    fn every_documented_code_has_an_entry_and_there_is_no_other() {
        for (code, check) in DOCUMENTED {
            let refusal = Refusal::of(code).unwrap_or_else(|| panic!("`{code}` has no entry"));
            assert_eq!(refusal.check, *check, "asked: {code}");
        }
        let documented = |code| DOCUMENTED.iter().any(|(documented, _)| *documented == code);
        let others: Vec<&str> = REFUSALS
            .iter()
            .map(|refusal| refusal.code)
            .filter(|code| !documented(*code))
            .collect();
        assert_eq!(
            others,
            Vec::<&str>::new(),
            "entries for codes that nobody documents"
        );
    }

    #[test]
    fn only_what_passes_by_itself_is_tried_again_later() {
        let later: Vec<&str> = REFUSALS
            .iter()
            .filter(|refusal| refusal.later == Later::WhenOthersFinish)
            .map(|refusal| refusal.code)
            .collect();
        assert_eq!(
            later,
            [
                "InvalidParameterValue.InvalidImageState",
                "LimitExceeded.ExportImageTaskLimitExceeded",
                "FailedOperation.InvalidImageState",
                "MutexOperation.TaskRunning",
            ]
        );
    }

    #[test]
    fn codes_are_looked_up_whole_and_as_written() {
        for code in [
            "",
            "InvalidParameterValue",
            "invalidimageid.notfound",
            "InvalidImageId.NotFound ",
            "InternalError",
        ] {
            assert!(Refusal::of(code).is_none(), "asked: `{code}`");
        }
    }

    #[test]
    fn codes_are_unique_and_every_one_says_what_it_means_and_what_to_do() {
        for (position, refusal) in REFUSALS.iter().enumerate() {
            let code = refusal.code;
            assert!(
                REFUSALS[position + 1..]
                    .iter()
                    .all(|other| other.code != code),
                "`{code}` stands twice"
            );
            assert!(
                refusal.remedy.len() > 20,
                "`{code}` lacks a remedy: {}",
                refusal.remedy
            );
            // Both stand inside sentences.
            for text in [refusal.meaning, refusal.remedy] {
                assert!(!text.is_empty() && !text.ends_with('.'), "`{code}`: {text}");
                assert!(text.is_ascii() && !text.contains("  "), "`{code}`: {text}");
            }
            assert!(refusal.meaning.len() > 10, "`{code}`: {}", refusal.meaning);
        }
    }

    #[test]
    fn remedies_name_the_way_that_the_cloud_offers() {
        let cases = [
            (
                "UnsupportedOperation.SharedImageExportUnsupported",
                "SyncImages",
            ),
            (
                "UnsupportedOperation.PublicImageExportUnsupported",
                "custom image",
            ),
            (
                "UnsupportedOperation.ImageTooLargeExportUnsupported",
                "--system-disk-only",
            ),
            ("LimitExceeded.ExportImageTaskLimitExceeded", "--no-queue"),
            ("InvalidParameterValue.BucketNotFound", "NAME-APPID"),
            (
                "InvalidParameterValue.InvalidBucketPermissionForExport",
                "QcloudCOSDataFullControl",
            ),
            (
                "AuthFailure.CamRoleNameAuthenticateFailed",
                "let CVM access my COS bucket",
            ),
            (
                "InvalidParameter.SpecialParameterForSpecialAccount",
                "ticket",
            ),
        ];
        for (code, word) in cases {
            let remedy = Refusal::of(code)
                .map(|refusal| refusal.remedy)
                .unwrap_or_default();
            assert!(
                remedy.contains(word),
                "asked: {code}; expected: {word}; seen: {remedy}"
            );
        }
    }
}
