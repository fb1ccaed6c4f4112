//! Parameters, checked against what an action declares: unknown, of the wrong type, missing.

use serde_json::{Map, Value};

use super::ApiError;

/// What type a parameter has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Unsigned,
    UnsignedList,
    Flag,
    Texts,
    /// A list of `{"Name": …, "Values": […]}`.
    Filters,
    /// A list of `{"Key": …, "Value": …}`.
    Tags,
}

/// One parameter of an action.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    name: &'static str,
    kind: Kind,
    is_required: bool,
}

impl Field {
    pub(super) const fn optional(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            is_required: false,
        }
    }

    pub(super) const fn required(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            is_required: true,
        }
    }
}

/// One filter of a describing action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) name: String,
    pub(super) values: Vec<String>,
}

/// Parameters of which each is known and has its type.
#[derive(Clone, Debug)]
pub(super) struct Parameters(Map<String, Value>);

impl Parameters {
    /// Reads a request's body.
    pub(super) fn read(body: &[u8], fields: &[Field]) -> Result<Self, ApiError> {
        let Ok(Value::Object(map)) = serde_json::from_slice(body) else {
            return Err(ApiError::new(
                "InvalidParameter",
                "The request body is not a JSON object.",
            ));
        };
        for (name, value) in &map {
            let field = fields.iter().find(|field| field.name == name);
            let field = field.ok_or_else(|| unknown(name))?;
            check(name, value, field.kind)?;
        }
        let missing = fields
            .iter()
            .find(|field| field.is_required && !map.contains_key(field.name));
        match missing {
            Some(field) => Err(missing_parameter(field.name)),
            None => Ok(Self(map)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    pub(super) fn unsigned(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    pub(super) fn unsigned_list(&self, name: &str) -> Vec<u64> {
        let list = self.0.get(name).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The list; `None` where it is missing or empty, which the cloud does not tell apart.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<&str>> {
        let list = self.0.get(name)?.as_array()?;
        let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
        (!texts.is_empty()).then_some(texts)
    }

    pub(super) fn filters(&self) -> Vec<Filter> {
        let list = self.0.get("Filters").and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .map(|filter| Filter {
                name: filter["Name"].as_str().unwrap_or_default().to_owned(),
                values: strings(&filter["Values"]),
            })
            .collect()
    }

    /// `Offset` and `Limit` with the platform's defaults.
    pub(super) fn page(&self) -> Result<(usize, usize), ApiError> {
        let offset = self.unsigned("Offset").unwrap_or(0);
        let limit = self.unsigned("Limit").unwrap_or(20);
        if !(1..=100).contains(&limit) {
            return Err(ApiError::new(
                "InvalidParameterValue.InvalidParameterValueLimit",
                format!("The value `{limit}` of `Limit` is not between 1 and 100."),
            ));
        }
        let number = |value| usize::try_from(value).unwrap_or(usize::MAX);
        Ok((number(offset), number(limit)))
    }
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn unknown(name: &str) -> ApiError {
    ApiError::new(
        "UnknownParameter",
        format!("The parameter `{name}` is not recognized."),
    )
}

fn missing_parameter(name: &str) -> ApiError {
    ApiError::new(
        "MissingParameter",
        format!("The request is missing a required parameter `{name}`."),
    )
}

fn check(name: &str, value: &Value, kind: Kind) -> Result<(), ApiError> {
    let is_right = match kind {
        Kind::Text => value.is_string(),
        Kind::Unsigned => value.is_u64(),
        Kind::UnsignedList => value
            .as_array()
            .is_some_and(|list| list.iter().all(Value::is_u64)),
        Kind::Flag => value.is_boolean(),
        Kind::Texts => value
            .as_array()
            .is_some_and(|list| list.iter().all(Value::is_string)),
        Kind::Filters => {
            return check_objects(
                name,
                value,
                &[("Name", Kind::Text), ("Values", Kind::Texts)],
            );
        }
        Kind::Tags => {
            return check_objects(name, value, &[("Key", Kind::Text), ("Value", Kind::Text)]);
        }
    };
    if is_right {
        return Ok(());
    }
    Err(ApiError::new(
        "InvalidParameter",
        format!("The value type of parameter `{name}` is not valid."),
    ))
}

/// Checks a list of objects, each of which has exactly these fields.
fn check_objects(name: &str, value: &Value, fields: &[(&str, Kind)]) -> Result<(), ApiError> {
    let wrong = |place: &str| {
        ApiError::new(
            "InvalidParameter",
            format!("The value type of parameter `{place}` is not valid."),
        )
    };
    let list = value.as_array().ok_or_else(|| wrong(name))?;
    for (index, item) in list.iter().enumerate() {
        let place = format!("{name}.{index}");
        let item = item.as_object().ok_or_else(|| wrong(&place))?;
        for (key, value) in item {
            let place = format!("{place}.{key}");
            let kind = fields.iter().find(|(known, _)| known == key);
            let (_, kind) = kind.ok_or_else(|| unknown(&place))?;
            check(&place, value, *kind)?;
        }
        for (field, _) in fields {
            if !item.contains_key(*field) {
                return Err(missing_parameter(&format!("{place}.{field}")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[
        Field::required("Bucket", Kind::Text),
        Field::optional("Ids", Kind::Texts),
        Field::optional("Limit", Kind::Unsigned),
        Field::optional("DryRun", Kind::Flag),
        Field::optional("Filters", Kind::Filters),
    ];

    #[test]
    fn parameters_are_refused_by_the_first_rule_they_break() {
        for (body, code) in [
            (r#"{"Bucket": "b", "Ids": ["x"], "DryRun": true}"#, "ok"),
            ("", "InvalidParameter"),
            ("[]", "InvalidParameter"),
            ("{}", "MissingParameter"),
            (r#"{"Bucket": "b", "bucket": "b"}"#, "UnknownParameter"),
            (r#"{"Bucket": null}"#, "InvalidParameter"),
            (r#"{"Bucket": "b", "Limit": "20"}"#, "InvalidParameter"),
            (r#"{"Bucket": "b", "Limit": -1}"#, "InvalidParameter"),
            (r#"{"Bucket": "b", "Ids": "x"}"#, "InvalidParameter"),
            (
                r#"{"Bucket": "b", "Filters": [{"Name": "n", "Values": [], "X": 1}]}"#,
                "UnknownParameter",
            ),
            (
                r#"{"Bucket": "b", "Filters": [{"Name": "n"}]}"#,
                "MissingParameter",
            ),
        ] {
            let result = Parameters::read(body.as_bytes(), FIELDS);
            let seen = result.map_or_else(|error| error.code, |_| "ok".to_owned());
            assert_eq!(seen, code, "{body}");
        }
    }
}
