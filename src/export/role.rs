//! What a role needs so that CVM can write exports with it: CVM's name in its trust document, and a
//! policy that allows writing.

mod writing;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind};
use crate::model::{BucketName, InvalidValue, Prefix, RoleName};
pub(crate) use writing::{Target, allow_writing};

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

/// Whether the preset policy of this name allows writing to COS.
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

/// Whether a trust document names CVM as a service; `None` when it cannot be read, both allows and
/// denies, or allows under a condition alone, which is for the cloud to weigh.
pub(crate) fn trusts_cvm(document: &str) -> Option<bool> {
    let said = said_of_cvm(document)?;
    match (said.allows, said.denies, said.is_conditional) {
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
struct SaidOfCvm {
    /// Whether a statement allows it without a condition.
    allows: bool,
    denies: bool,
    /// Whether one allows it under a condition, which is for the cloud to weigh.
    is_conditional: bool,
}

/// `None` when the document cannot be read.
fn said_of_cvm(document: &str) -> Option<SaidOfCvm> {
    let document: Value = serde_json::from_str(document).ok()?;
    let statements = one_or_more(field(&document, "statement")?);
    let of_cvm = statements
        .into_iter()
        .filter(|statement| services(statement).iter().any(|name| is_cvm(name)));
    let (allowing, others): (Vec<&Value>, Vec<&Value>) = of_cvm.partition(|statement| {
        let effect = field(statement, "effect").and_then(Value::as_str);
        effect.is_none_or(|effect| effect.eq_ignore_ascii_case("allow"))
    });
    let (conditional, plain): (Vec<&Value>, Vec<&Value>) = allowing
        .into_iter()
        .partition(|statement| field(statement, "condition").is_some());
    Some(SaidOfCvm {
        allows: !plain.is_empty(),
        denies: !others.is_empty(),
        is_conditional: !conditional.is_empty(),
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
        assert!(!is_writing_preset("QcloudCOSReadOnlyAccess"));
    }
}
