//! The many ways in which the storage's XML may be written and still say the same.

use std::collections::BTreeSet;
use std::fmt::Debug;

use cvm_export::cloud::Cloud;
use cvm_export::cloud::cos::{CosError, CosErrorKind};

use super::cos::{buckets, each, get, golden, objects, parts, read, uploads};
use super::server::Message;
use super::xml::Element;

/// Fails unless the XML of the example `name` says the same to `call` however it is written, and
/// unless every element may be missing but for the `required` ones, whose absence is an error that
/// names the request.
#[track_caller]
pub(super) fn bears_other_xml<T: PartialEq + Debug>(
    name: &str,
    call: impl AsyncFn(&Cloud) -> Result<T, CosError>,
    required: &[&str],
) {
    let whole = golden(name);
    let tree = Element::parse(whole.text());
    let expected = read(whole.clone(), &call).expect("an answer");
    let ways = ways_to_write(&tree);
    let answers = ways.iter().map(|(_, body)| whole.with_body(body.clone()));
    for ((way, body), (_, answer)) in ways.iter().zip(each(answers.collect(), None, &call)) {
        let answer = answer.unwrap_or_else(|error| panic!("{name}, {way}: {error}\n{body}"));
        assert_eq!(answer, expected, "{name}, {way}:\n{body}");
    }

    let places = tree.places();
    let answers = places
        .iter()
        .map(|(place, _)| whole.with_body(tree.replaced(place, None).line()));
    let request_id = whole.header("x-cos-request-id");
    let mut missed = BTreeSet::from_iter(required.iter().copied());
    for ((_, path), (_, answer)) in places.iter().zip(each(answers.collect(), None, &call)) {
        if required.contains(&path.as_str()) {
            missed.remove(path.as_str());
            let error = answer.expect_err(path);
            assert_eq!(
                error.kind(),
                CosErrorKind::NoAnswer,
                "{name} without {path}"
            );
            assert!(error.to_string().contains(request_id), "{path}: {error}");
        } else if let Err(error) = answer {
            panic!("{name} without {path}: {error}");
        }
    }
    assert_eq!(missed, BTreeSet::new(), "{name} lacks required elements");

    // An element may be there and hold nothing. A required one may then be refused, but in words.
    let answers = places.iter().map(|(place, path)| {
        let name = path.rsplit('.').next().expect("a name");
        whole.with_body(tree.replaced(place, Some(Element::leaf(name, ""))).line())
    });
    for ((_, path), (_, answer)) in places.iter().zip(each(answers.collect(), None, &call)) {
        let may_fail = required
            .iter()
            .any(|required| required.starts_with(path.as_str()));
        if let Err(error) = answer {
            assert!(may_fail, "{name} with empty {path}: {error}");
            assert!(error.to_string().contains(request_id), "{path}: {error}");
        }
    }
}

/// Documents that say the same as `tree`.
fn ways_to_write(tree: &Element) -> Vec<(&'static str, String)> {
    let line = tree.line();
    let declared = |declaration: &str| format!("{declaration}{line}");
    let unforeseen = "<Unforeseen kind=\"x\">a<Deep><Key>b</Key></Deep></Unforeseen>";
    let root = format!("<{}", tree.name);
    let with_attributes =
        |attributes: &str| line.replacen(&root, &format!("{root} {attributes}"), 1);
    let ordered = |is_descending: bool| {
        let sort = |children: &mut Vec<Element>| {
            children.sort_by(|a, b| {
                if is_descending {
                    b.name.cmp(&a.name)
                } else {
                    a.name.cmp(&b.name)
                }
            });
        };
        tree.rearranged(&sort).line()
    };
    // The first of several equal names goes to the front, the others stay behind the rest.
    let interleaved = tree.rearranged(&|children| {
        let is_repeated =
            |name: &str| children.iter().filter(|child| child.name == name).count() > 1;
        if let Some(position) = children.iter().position(|child| is_repeated(&child.name)) {
            let first = children.remove(position);
            children.insert(0, first);
        }
    });
    vec![
        ("on one line", line.clone()),
        (
            "with a declaration",
            declared("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"),
        ),
        (
            "with a declaration in single quotes",
            declared("<?xml version='1.0' encoding='utf-8' ?>"),
        ),
        ("with a byte order mark", declared("\u{feff}")),
        (
            "with a byte order mark and a declaration",
            declared("\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>"),
        ),
        (
            "with a namespace",
            with_attributes("xmlns=\"http://www.qcloud.com/document/product/436/7751\""),
        ),
        (
            "with two namespaces",
            with_attributes("xmlns='urn:x' xmlns:xsi='urn:y' xsi:schemaLocation='a b'"),
        ),
        (
            "with comments",
            format!(
                "<!-- a -->{}<!-- b -->",
                tree.write(&mut |_| "<!-- <Key>c</Key> -->".to_owned())
            ),
        ),
        (
            "with processing instructions",
            tree.write(&mut |_| "<?x y?>".to_owned()),
        ),
        (
            "on many lines",
            tree.write(&mut |_| "\r\n\t  ".to_owned()) + "\r\n",
        ),
        (
            "with unknown elements everywhere",
            tree.write(&mut |_| unforeseen.to_owned()),
        ),
        ("in ascending order", ordered(false)),
        ("in descending order", ordered(true)),
        ("interleaved", interleaved.line()),
    ]
}

fn xml(body: &str) -> Message {
    Message::ok("application/xml", body)
}

fn keys(body: &str) -> Vec<String> {
    let page = read(xml(body), objects).unwrap_or_else(|error| panic!("{error}: {body}"));
    let keys = page.objects.iter();
    keys.map(|entry| entry.key.to_string()).collect()
}

#[test]
fn empty_lists_are_empty() {
    for body in [
        "<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>",
        "<ListAllMyBucketsResult><Owner/><Buckets>\n</Buckets></ListAllMyBucketsResult>",
    ] {
        assert_eq!(read(xml(body), buckets).expect("an answer"), [], "{body}");
    }
    let truncated = "<IsTruncated>false</IsTruncated>";
    let body = format!("<ListBucketResult><NextMarker/>{truncated}</ListBucketResult>");
    let page = read(xml(&body), objects).expect("an answer");
    assert_eq!((page.objects.len(), page.next_marker), (0, None));
    let body = format!("<ListMultipartUploadsResult>{truncated}</ListMultipartUploadsResult>");
    assert_eq!(read(xml(&body), uploads).expect("an answer").uploads, []);
    let body = format!("<ListPartsResult>{truncated}</ListPartsResult>");
    let page = read(xml(&body), parts).expect("an answer");
    assert_eq!(page.expect("an upload").parts, []);
}

#[test]
fn repeated_elements_may_stand_between_others() {
    let entry =
        |key: &str| format!("<Contents><Size> 1 </Size><Key>{key}</Key><Size2/></Contents>");
    let body = format!(
        "<ListBucketResult>{}<CommonPrefixes><Prefix>x/</Prefix></CommonPrefixes>{}<IsTruncated>\
         false</IsTruncated>{}<CommonPrefixes/><Unforeseen/>{}</ListBucketResult>",
        entry("a"),
        entry("b"),
        entry("c"),
        entry("d")
    );
    assert_eq!(keys(&body), ["a", "b", "c", "d"]);
}

#[test]
fn entities_and_sections_are_text() {
    for (written, expected) in [
        ("a&amp;b", "a&b"),
        ("&lt;&gt;&quot;&apos;", "<>\"'"),
        ("&#26144;&#x6620;", "映映"),
        ("a<![CDATA[&amp;<b>]]>c", "a&amp;<b>c"),
        ("a<!-- - -->b", "ab"),
        ("日本語/イメージ.raw", "日本語/イメージ.raw"),
        ("a%20b", "a%20b"),
    ] {
        let body = format!(
            "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>{written}</Key>\
             <Size>1</Size></Contents></ListBucketResult>"
        );
        assert_eq!(keys(&body), [expected], "{written}");
    }
}

/// The page of List Multipart Uploads spells the element with a hyphen, older pages of GET Bucket too.
#[test]
fn encoded_names_are_decoded_however_the_encoding_is_announced() {
    let name = "%E8%85%BE%E8%AE%AF%E4%BA%91%2Fa%2Bb+c%26";
    let decoded = "腾讯云/a+b+c&";
    for (announced, expected) in [
        ("<EncodingType>url</EncodingType>", decoded),
        ("<Encoding-Type>url</Encoding-Type>", decoded),
        ("<Encoding-type>url</Encoding-type>", decoded),
        ("<EncodingType/>", name),
        ("<Encoding-Type/>", name),
        ("", name),
    ] {
        let contents = format!("<Contents><Key>{name}</Key><Size>1</Size></Contents>");
        let body = format!(
            "<ListBucketResult>{announced}<IsTruncated>true</IsTruncated>\
             <NextMarker>{name}</NextMarker>{contents}</ListBucketResult>"
        );
        assert_eq!(keys(&body), [expected], "{announced}");
        let page = read(xml(&body), objects).expect("a page");
        assert_eq!(page.next_marker.as_deref(), Some(expected), "{announced}");

        let body = format!(
            "<ListMultipartUploadsResult>{announced}<IsTruncated>false</IsTruncated><Upload>\
             <Key>{name}</Key><UploadId>u</UploadId></Upload></ListMultipartUploadsResult>"
        );
        let list = read(xml(&body), uploads).expect("a list");
        assert_eq!(list.uploads[0].key.as_str(), expected, "{announced}");
    }
}

/// The page of List Multipart Uploads says `TRUE` and `FALSE` and shows `false`.
#[test]
fn truth_is_understood_in_both_spellings() {
    for (written, expected) in [
        ("true", true),
        ("TRUE", true),
        ("True", true),
        (" true\n", true),
        ("false", false),
        ("FALSE", false),
    ] {
        let truncated = format!("<IsTruncated>{written}</IsTruncated>");
        let body = format!(
            "<ListMultipartUploadsResult>{truncated}<NextKeyMarker>n</NextKeyMarker></ListMultipartUploadsResult>"
        );
        let list = read(xml(&body), uploads).expect("a list");
        assert_eq!(list.is_truncated, expected, "{written}");
        let part = "<Part><PartNumber>1</PartNumber><Size>1</Size></Part>";
        let body = format!("<ListPartsResult>{truncated}{part}</ListPartsResult>");
        let page = read(xml(&body), parts).expect("an answer");
        assert_eq!(page.expect("an upload").is_truncated, expected, "{written}");
        let body =
            format!("<ListBucketResult>{truncated}<NextMarker>n</NextMarker></ListBucketResult>");
        let page = read(xml(&body), objects).expect("a page");
        assert_eq!(page.next_marker.is_some(), expected, "{written}");
    }
    let body = "<ListPartsResult><IsTruncated>perhaps</IsTruncated></ListPartsResult>";
    let error = read(xml(body), parts).expect_err("no truth");
    assert_eq!(error.kind(), CosErrorKind::NoAnswer);
}

#[test]
fn a_refusal_is_understood_however_it_is_written() {
    let whole = golden("Error.response");
    let tree = Element::parse(whole.text());
    let call = async |cloud: &Cloud| get(cloud, 100).await;
    let mut bodies: Vec<_> = ways_to_write(&tree)
        .into_iter()
        .map(|(way, body)| (way.to_owned(), body))
        .collect();
    bodies.push(("as published".to_owned(), whole.text().to_owned()));
    for (place, path) in tree.places().iter().filter(|(_, path)| path != "Code") {
        bodies.push((format!("without {path}"), tree.replaced(place, None).line()));
        let empty = Element::leaf(path, "");
        let body = tree.replaced(place, Some(empty)).line();
        bodies.push((format!("with empty {path}"), body));
    }
    let answers = bodies.iter().map(|(_, body)| whole.with_body(body.clone()));
    for ((way, _), (_, answer)) in bodies.iter().zip(each(answers.collect(), None, call)) {
        let error = answer.expect_err("a refusal");
        assert_eq!(error.kind(), CosErrorKind::Changed, "{way}");
        assert_eq!(error.code(), Some("PreconditionFailed"), "{way}");
        assert_eq!(
            error.request_id(),
            Some("NWYyMTFjODZfOGRjOTJhMDlfMmIyMWVfOTJl****"),
            "{way}"
        );
        let says = error.to_string();
        let has_words = says.contains("Precondition not match.");
        assert_eq!(has_words, !way.ends_with(" Message"), "{way}: {says}");
    }

    for body in [
        "",
        "<Error/>",
        "<Error><Message>m</Message></Error>",
        "busy",
    ] {
        let error = read(whole.with_body(body), call).expect_err("a refusal");
        assert_eq!(error.kind(), CosErrorKind::Changed, "{body}");
        assert_eq!(error.code(), None, "{body}");
    }
}
