//! What a role needs so that CVM can write exports with it: CVM's name in its trust document, and a
//! policy that allows writing.

mod writing;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind};
use crate::model::{BucketName, InvalidValue, Prefix, RoleName};
pub(crate) use writing::{Target, allow_writing, may_allow_writing};

/// The role that the export takes on where no other is named (page 213/73474).
pub(crate) const DEFAULT_ROLE: &str = "CVM_QcsRole";

/// The service principals of CVM: the documented carrier (product page 598/19447), and a spelling
/// that occurs in bucket policies.
const CVM_PRINCIPALS: &[&str] = &["cvm.qcloud.com", "cvm.cloud.tencent.com"];

/// A preset policy of Tencent Cloud that allows writing to every bucket of the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "&'static str")]
pub enum WritingPreset {
    /// `QcloudCOSDataWriteOnly`: writing objects.
    DataWriteOnly,
    /// `QcloudCOSDataFullControl`: reading, writing and deleting objects.
    DataFullControl,
    /// `QcloudCOSFullAccess`: everything, the buckets' settings included.
    FullAccess,
}

impl WritingPreset {
    /// Every preset, the narrowest first.
    pub const ALL: &'static [Self] =
        &[Self::DataWriteOnly, Self::DataFullControl, Self::FullAccess];

    /// Its name in CAM.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DataWriteOnly => "QcloudCOSDataWriteOnly",
            Self::DataFullControl => "QcloudCOSDataFullControl",
            Self::FullAccess => "QcloudCOSFullAccess",
        }
    }
}

impl From<WritingPreset> for &'static str {
    fn from(preset: WritingPreset) -> Self {
        preset.name()
    }
}

impl fmt::Display for WritingPreset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for WritingPreset {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let mut named = Self::ALL.iter().filter(|preset| preset.name() == text);
        named.next().copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|preset| preset.name()).collect();
            InvalidValue::new(
                "preset policy",
                text,
                format!("those that allow writing are {}", names.join(", ")),
                "QcloudCOSDataWriteOnly",
            )
        })
    }
}

/// The AppId of `bucket`, for the resources of a policy: a star in its place would be another account's
/// bucket as well.
///
/// # Errors
/// [`ErrorKind::Usage`] where the name does not tell it.
pub(crate) fn app_id(bucket: &BucketName) -> Result<&str, Error> {
    bucket.app_id().ok_or_else(|| {
        let message =
            format!("the AppId of bucket `{bucket}` is not known, so no policy can name it");
        Error::new(ErrorKind::Usage, message)
            .with_hint("name the bucket in full: `--bucket NAME-APPID`")
    })
}

/// The command that lets CVM write to `bucket` as `role`, under names that start with `prefix` where there
/// is one.
pub(crate) fn authorize_words(
    role: &RoleName,
    bucket: &BucketName,
    prefix: Option<&Prefix>,
) -> Vec<String> {
    let mut words = vec!["cvm-export".to_owned(), "authorize".to_owned()];
    words.extend(["--bucket".to_owned(), bucket.to_string()]);
    if let Some(prefix) = prefix {
        words.extend(["--prefix".to_owned(), prefix.to_string()]);
    }
    if role.as_str() != DEFAULT_ROLE {
        words.extend(["--role-name".to_owned(), role.to_string()]);
    }
    words
}

/// What the names of the policies begin with that `authorize` makes.
pub(crate) const OWN_POLICIES: &str = "cvm-export-";

/// Presets that are documented to allow no writing to COS.
const OTHER_PRESETS: &[&str] = &[
    "QcloudCOSBucketConfigRead",
    "QcloudCOSDataReadOnly",
    "QcloudCOSGetServiceAccess",
    "QcloudCOSReadOnlyAccess",
    "QcloudKMSAccessForCVMRole",
];

/// What the name of a preset policy tells: whether it allows writing to COS. `None` for all others, of
/// which there are hundreds: their documents tell.
pub(crate) fn preset_writes(name: &str) -> Option<bool> {
    if is_writing_preset(name) {
        return Some(true);
    }
    OTHER_PRESETS.contains(&name).then_some(false)
}

/// Whether the preset policy of this name is known to allow writing to COS.
pub(crate) fn is_writing_preset(name: &str) -> bool {
    name == "AdministratorAccess"
        || WritingPreset::ALL
            .iter()
            .any(|preset| preset.name() == name)
}

/// The trust document of a role that CVM alone may take on (form: product page 598/19447).
pub(crate) fn trust_document() -> Value {
    json!({"version": "2.0", "statement": [trust_statement()]})
}

fn trust_statement() -> Value {
    json!({
        "effect": "allow",
        "action": "name/sts:AssumeRole",
        "principal": {"service": [CVM_PRINCIPALS[0]]},
    })
}

/// Whether a trust document names CVM as a service; `None` when it cannot be read or has a form that is
/// not known, both allows and denies, or allows under a condition alone, which is for the cloud to weigh.
pub(crate) fn trusts_cvm(document: &str) -> Option<bool> {
    let said = said_of_cvm(document)?;
    match (said.allows, said.denies, said.is_unclear) {
        (true, false, _) => Some(true),
        (true, true, _) | (false, _, true) => None,
        (false, _, false) => Some(false),
    }
}

/// Whether a trust document denies CVM, which no statement that allows it undoes.
pub(crate) fn denies_cvm(document: &str) -> bool {
    said_of_cvm(document).is_some_and(|said| said.denies)
}

/// What a trust document says of CVM.
#[derive(Default)]
struct SaidOfCvm {
    /// Whether a statement allows it without a condition.
    allows: bool,
    denies: bool,
    /// Whether one may allow it: under a condition, or in a form that is not known.
    is_unclear: bool,
}

/// `None` when the document cannot be read.
fn said_of_cvm(document: &str) -> Option<SaidOfCvm> {
    let document: Value = serde_json::from_str(document).ok()?;
    let mut said = SaidOfCvm::default();
    for statement in one_or_more(field(&document, "statement")?) {
        if !services(statement).iter().any(|name| is_cvm(name)) {
            said.is_unclear |= effect_of(statement).is_none_or(|effect| effect != "deny")
                && may_be_about_cvm(statement);
            continue;
        }
        match effect_of(statement).as_deref() {
            None | Some("allow") if field(statement, "condition").is_none() => said.allows = true,
            Some("deny") => said.denies = true,
            _ => said.is_unclear = true,
        }
    }
    Some(said)
}

/// The effect of a statement in lower case, if it has one.
fn effect_of(statement: &Value) -> Option<String> {
    let effect = field(statement, "effect")?;
    Some(effect.as_str().unwrap_or_default().to_ascii_lowercase())
}

/// Whether a statement of a trust document that does not name CVM in the ways that are known may mean it.
fn may_be_about_cvm(statement: &Value) -> bool {
    let Some(principals) = field(statement, "principal").and_then(Value::as_object) else {
        return true;
    };
    principals.iter().any(|(kind, names)| {
        let is_other: fn(&str) -> bool = match kind.to_ascii_lowercase().as_str() {
            "service" => |name| !name.contains("cvm") && !name.contains('*') && name.contains('.'),
            // Accounts and their users.
            "qcs" => |name| name.starts_with("qcs:"),
            // Identity providers.
            "federated" => |_| true,
            _ => |_| false,
        };
        let mut names = one_or_more(names).into_iter();
        names.any(|name| !name.as_str().is_some_and(is_other))
    })
}

/// Whether a trust document is for CVM and nobody else.
pub(crate) fn trusts_cvm_alone(document: &str) -> bool {
    let Ok(document) = serde_json::from_str::<Value>(document) else {
        return false;
    };
    let statements = field(&document, "statement").map(one_or_more);
    statements.is_some_and(|statements| {
        statements.iter().all(|statement| {
            let services = services(statement);
            let principal = field(statement, "principal").and_then(Value::as_object);
            principal.is_some_and(|principal| principal.len() == 1)
                && !services.is_empty()
                && services.iter().all(|name| is_cvm(name))
        })
    })
}

/// The trust document `text` with CVM added as a statement of its own, which leaves all others as
/// they are; `None` when it cannot be read.
pub(crate) fn with_cvm(text: &str) -> Option<Value> {
    let mut document: Value = serde_json::from_str(text).ok()?;
    let mut fields = document.as_object_mut()?.iter_mut();
    let (_, statements) = fields.find(|(key, _)| key.eq_ignore_ascii_case("statement"))?;
    let mut list: Vec<Value> = one_or_more(statements).into_iter().cloned().collect();
    list.push(trust_statement());
    *statements = Value::Array(list);
    Some(document)
}

/// The trust document `text` without the statement that [`with_cvm`] adds; `None` where there is none, where
/// nobody would be left in it, or where it cannot be read.
pub(crate) fn without_cvm(text: &str) -> Option<Value> {
    let mut document: Value = serde_json::from_str(text).ok()?;
    let mut fields = document.as_object_mut()?.iter_mut();
    let (_, statements) = fields.find(|(key, _)| key.eq_ignore_ascii_case("statement"))?;
    let all = one_or_more(statements);
    let others: Vec<Value> = all
        .iter()
        .filter(|statement| ***statement != trust_statement())
        .map(|statement| (*statement).clone())
        .collect();
    if others.is_empty() || others.len() == all.len() {
        return None;
    }
    *statements = Value::Array(others);
    Some(document)
}

fn is_cvm(service: &str) -> bool {
    CVM_PRINCIPALS.contains(&service)
}

/// The services that a statement of a trust document names.
fn services(statement: &Value) -> Vec<&str> {
    let principal = field(statement, "principal");
    let services = principal.and_then(|principal| field(principal, "service"));
    let names = services.map(one_or_more).unwrap_or_default();
    names.into_iter().filter_map(Value::as_str).collect()
}

fn one_or_more(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        single => vec![single],
    }
}

/// The field `name` in whatever case: the documents show lower case, other tools write capitals.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value
        .as_object()?
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cvm_is_added_and_every_other_statement_stays() {
        let own = json!({"effect": "allow", "action": "name/sts:AssumeRole",
            "principal": {"service": ["scf.qcloud.com"], "qcs": ["qcs::cam::uin/1:root"]}});
        for text in [
            json!({"version": "2.0", "statement": [own]}).to_string(),
            json!({"Version": "2.0", "Statement": own}).to_string(),
        ] {
            assert_eq!(trusts_cvm(&text), Some(false), "{text}");
            let changed = with_cvm(&text).expect("a document");
            let statements = field(&changed, "statement").expect("statements");
            assert_eq!(*statements, json!([own, trust_statement()]), "{text}");
            assert_eq!(trusts_cvm(&changed.to_string()), Some(true), "{text}");
            assert!(!trusts_cvm_alone(&changed.to_string()), "{text}");
            let back = without_cvm(&changed.to_string()).expect("a document");
            assert_eq!(field(&back, "statement"), Some(&json!([own])), "{text}");
            assert_eq!(without_cvm(&text), None, "{text}");
        }
        for text in ["", "[]", "{}", "{\"version\":\"2.0\"}"] {
            assert_eq!(with_cvm(text), None, "{text}");
            assert_eq!(trusts_cvm(text), None, "{text}");
            assert!(!trusts_cvm_alone(text), "{text}");
        }
        assert!(trusts_cvm_alone(&trust_document().to_string()));
        assert_eq!(without_cvm(&trust_document().to_string()), None);
    }

    #[test]
    fn presets_are_known_by_their_exact_names() {
        for preset in WritingPreset::ALL {
            assert_eq!(preset.name().parse(), Ok(*preset));
            assert!(is_writing_preset(preset.name()));
        }
        let refused = "QcloudCOSReadOnlyAccess".parse::<WritingPreset>();
        let message = refused.expect_err("it reads").to_string();
        assert!(message.contains("QcloudCOSDataFullControl"), "{message}");
        assert_eq!(preset_writes("QcloudCOSReadOnlyAccess"), Some(false));
        assert_eq!(preset_writes("QcloudCOSAccessForCVMRole"), None);
    }
}
