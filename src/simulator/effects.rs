//! What faults do to calls and answers.

use bytes::Bytes;
use serde_json::{Value, json};

use super::body::Pace;
use super::cos::Quirks;
use super::fault::Effect;
use super::wire::{Answer, Content};

/// No document is larger; what is counts as a disk, whatever it calls itself.
const DOCUMENT_LIMIT_BYTES: u64 = 1 << 20;

/// What faults change about the server before it processes a call.
pub(super) fn quirks(effects: &[Effect]) -> Quirks {
    Quirks {
        has_expired_tokens: effects.contains(&Effect::ExpiredToken),
        overlooks_range: effects.contains(&Effect::WholeForRange),
        replaces_object: effects.contains(&Effect::ChangedObject),
        refused_keys: effects.iter().find_map(|effect| match effect {
            Effect::RefusedKeys { keys, code } => Some((*keys, code.clone())),
            _ => None,
        }),
    }
}

/// How far the server's clock is off for the call, in seconds.
pub(super) fn clock_offset(effects: &[Effect]) -> i64 {
    effects.iter().fold(0, |sum: i64, effect| match effect {
        Effect::ClockOffset { seconds } => sum.saturating_add(*seconds),
        _ => sum,
    })
}

/// A gateway's page.
pub(super) fn html(status: u16) -> Answer {
    let page = format!(
        "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1>\
         </center>\r\n<hr><center>stgw</center>\r\n</body>\r\n</html>\r\n"
    );
    Answer::new(status, "text/html", page).with_header("Server", "stgw")
}

/// A redirect to `location` that asks to send the same request, body included, there.
pub(super) fn redirect(location: &str) -> Answer {
    Answer::empty(307).with_header("Location", location)
}

/// Applies the effects that change a finished answer, and returns the pace of its body.
pub(super) fn apply(effects: &[Effect], answer: &mut Answer) -> Pace {
    let mut pace = Pace::default();
    let is_edited = |effect: &Effect| {
        matches!(
            effect,
            Effect::HugeBody { .. }
                | Effect::MissingField { .. }
                | Effect::NullField { .. }
                | Effect::ExtraField { .. }
        )
    };
    if effects.iter().any(is_edited) {
        load_document(answer);
    }
    for effect in effects {
        match effect {
            Effect::StatusAfter { status } => replace_by_page(answer, *status),
            Effect::Garbage => replace_body(answer, "\u{fffd}<<<{{ not a document".into()),
            Effect::EmptyBody => replace_body(answer, Bytes::new()),
            Effect::HugeBody { bytes } => pad(answer, *bytes),
            Effect::MissingField { name } => edit(answer, Edit::Remove(name)),
            Effect::NullField { name } => edit(answer, Edit::Empty(name)),
            Effect::ExtraField { name } => edit(answer, Edit::Add(name)),
            Effect::ShortBodyAgreeing { bytes } => shorten(answer, *bytes),
            Effect::WrongContentRange => shift_content_range(answer),
            Effect::WrongDate { date } => {
                answer.remove_header("Date");
                answer.headers.push(("Date".to_owned(), date.clone()));
            }
            Effect::SlowBody { bytes_per_second } => {
                pace.bytes_per_second = Some(*bytes_per_second);
            }
            Effect::StalledBody { after_bytes } => pace.stall_after = Some(*after_bytes),
            Effect::TruncatedBody { after_bytes } => pace.truncate_after = Some(*after_bytes),
            Effect::FlippedByte { at } => pace.flip_at = Some(*at),
            Effect::ResetBefore
            | Effect::ProcessedThenReset
            | Effect::DelayBefore { .. }
            | Effect::DelayAfter { .. }
            | Effect::Hold { .. }
            | Effect::HoldAfter { .. }
            | Effect::Status { .. }
            | Effect::ApiError { .. }
            | Effect::CosError { .. }
            | Effect::ClockOffset { .. }
            | Effect::ExpiredToken
            | Effect::ChangedObject
            | Effect::RefusedKeys { .. }
            | Effect::WholeForRange
            | Effect::Redirect { .. } => {}
        }
    }
    pace
}

/// Puts a gateway's page in the place of an answer. Date and, for the call log, what the answer was
/// stay.
fn replace_by_page(answer: &mut Answer, status: u16) {
    let date = answer.header("date").map(str::to_owned);
    let page = html(status).with_header("Date", date.unwrap_or_default());
    *answer = Answer {
        code: answer.code.take(),
        request_id: std::mem::take(&mut answer.request_id),
        ..page
    };
}

/// Takes a stored JSON document into memory, where its fields can be edited.
fn load_document(answer: &mut Answer) {
    let is_json = answer.header("content-type") == Some("application/json");
    if let Content::Disk {
        disk,
        offset,
        length,
    } = &answer.content
        && is_json
        && *length <= DOCUMENT_LIMIT_BYTES
    {
        let mut body = vec![0; usize::try_from(*length).unwrap_or_default()];
        if disk.read_at(*offset, &mut body).is_ok() {
            replace_body(answer, body.into());
        }
    }
}

fn replace_body(answer: &mut Answer, body: Bytes) {
    answer.content = Content::Bytes(body);
}

fn pad(answer: &mut Answer, blanks: usize) {
    if let Content::Bytes(body) = &answer.content {
        let mut padded = body.to_vec();
        padded.resize(body.len().saturating_add(blanks), b' ');
        replace_body(answer, padded.into());
    }
}

fn shorten(answer: &mut Answer, bytes: u64) {
    match &mut answer.content {
        Content::Bytes(body) => {
            let keep = usize::try_from(bytes).unwrap_or(usize::MAX);
            body.truncate(keep);
        }
        Content::Disk { length, .. } => *length = bytes.min(*length),
    }
}

fn shift_content_range(answer: &mut Answer) {
    let Some(range) = answer.header("content-range").map(str::to_owned) else {
        return;
    };
    let shifted = range
        .strip_prefix("bytes ")
        .and_then(|range| range.split_once('-'))
        .and_then(|(first, rest)| Some((first.parse::<u64>().ok()?, rest)))
        .map(|(first, rest)| format!("bytes {}-{rest}", first + 1));
    if let Some(shifted) = shifted {
        answer.remove_header("content-range");
        answer.headers.push(("Content-Range".to_owned(), shifted));
    }
}

/// A change of one field, wherever the answer keeps its fields.
#[derive(Clone, Copy, Debug)]
enum Edit<'a> {
    Remove(&'a str),
    Empty(&'a str),
    Add(&'a str),
}

fn edit(answer: &mut Answer, edit: Edit<'_>) {
    let has_document = matches!(&answer.content, Content::Bytes(body) if !body.is_empty());
    match edit {
        Edit::Remove(name) if name.eq_ignore_ascii_case("content-length") => {
            answer.tells_length = false;
        }
        Edit::Remove(name) => answer.remove_header(name),
        Edit::Empty(name) if answer.header(name).is_some() => {
            answer.remove_header(name);
            answer.headers.push((name.to_owned(), String::new()));
        }
        Edit::Add(name) if !has_document => {
            let value = "unexpected".to_owned();
            answer.headers.push((name.to_owned(), value));
        }
        Edit::Empty(_) | Edit::Add(_) => {}
    }
    let is_json = answer.header("content-type") == Some("application/json");
    if let Content::Bytes(body) = &answer.content
        && has_document
    {
        let text = String::from_utf8_lossy(body);
        let changed = if is_json {
            edit_json(&text, edit)
        } else {
            edit_xml(&text, edit)
        };
        replace_body(answer, changed.into());
    }
}

fn edit_json(text: &str, edit: Edit<'_>) -> String {
    let Ok(mut document) = serde_json::from_str::<Value>(text) else {
        return text.to_owned();
    };
    if let Edit::Add(name) = edit {
        document["Response"][name] = json!({"Unexpected": [1, null, "three"]});
    } else {
        edit_value(&mut document, edit);
    }
    document.to_string()
}

fn edit_value(value: &mut Value, edit: Edit<'_>) {
    match value {
        Value::Object(map) => {
            match edit {
                Edit::Remove(name) => {
                    map.remove(name);
                }
                Edit::Empty(name) => {
                    if let Some(field) = map.get_mut(name) {
                        *field = Value::Null;
                    }
                }
                Edit::Add(_) => {}
            }
            map.values_mut().for_each(|value| edit_value(value, edit));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| edit_value(value, edit)),
        _ => {}
    }
}

/// Edits the documents that the simulator itself writes, whose elements have no attributes.
fn edit_xml(text: &str, edit: Edit<'_>) -> String {
    let (name, replacement) = match edit {
        Edit::Remove(name) => (name, String::new()),
        Edit::Empty(name) => (name, format!("<{name}></{name}>")),
        Edit::Add(name) => {
            let end = text.rfind("</").unwrap_or(text.len());
            let (start, end) = text.split_at(end);
            return format!("{start}<{name}>unexpected</{name}>{end}");
        }
    };
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut edited = String::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once(&open) {
        let Some((_, after)) = inside.split_once(&close) else {
            break;
        };
        edited.push_str(before);
        edited.push_str(&replacement);
        rest = after;
    }
    edited + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: &Answer) -> String {
        match &answer.content {
            Content::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Content::Disk { .. } => String::new(),
        }
    }

    fn edited(content_type: &str, body: &'static str, effect: Effect) -> String {
        let mut answer = Answer::new(200, content_type, body);
        assert_eq!(apply(&[effect], &mut answer), Pace::default());
        text(&answer)
    }

    #[test]
    fn fields_are_edited_in_json_xml_and_headers() {
        let name = || "A".to_owned();
        let json = r#"{"Response":{"L":[{"A":1,"B":2}]}}"#;
        let kind = "application/json";
        assert_eq!(
            edited(kind, json, Effect::MissingField { name: name() }),
            r#"{"Response":{"L":[{"B":2}]}}"#
        );
        assert_eq!(
            edited(kind, json, Effect::NullField { name: name() }),
            r#"{"Response":{"L":[{"A":null,"B":2}]}}"#
        );
        let xml = "<R><A>1</A><B>2</B><A>3</A></R>";
        let kind = "application/xml";
        assert_eq!(
            edited(kind, xml, Effect::MissingField { name: name() }),
            "<R><B>2</B></R>"
        );
        assert_eq!(
            edited(
                kind,
                xml,
                Effect::ExtraField {
                    name: "X".to_owned()
                }
            ),
            "<R><A>1</A><B>2</B><A>3</A><X>unexpected</X></R>"
        );
        let mut head = Answer::empty(200).with_header("ETag", "\"e\"");
        let name = "etag".to_owned();
        apply(&[Effect::MissingField { name }], &mut head);
        assert_eq!(head.header("etag"), None);
    }

    #[test]
    fn a_shifted_range_keeps_its_form() {
        let mut answer = Answer::empty(206).with_header("Content-Range", "bytes 5-9/100");
        apply(&[Effect::WrongContentRange], &mut answer);
        assert_eq!(answer.header("content-range"), Some("bytes 6-9/100"));
    }

    #[test]
    fn a_huge_body_still_is_the_document() {
        let body = edited("application/json", "{}", Effect::HugeBody { bytes: 1000 });
        assert_eq!((body.len(), body.trim()), (1002, "{}"));
    }
}
