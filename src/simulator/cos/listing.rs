//! The paging that listings of objects and of uploads share.

/// What a listing is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'a> {
    pub(super) prefix: &'a str,
    pub(super) delimiter: &'a str,
    pub(super) limit: u64,
}

/// One page of a listing.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) common_prefixes: Vec<String>,
    /// The last key or common prefix of the page, where more would follow.
    pub(super) next: Option<String>,
}

/// Cuts a page out of `entries`, which come in key order and after the marker. Keys that share a
/// stretch up to the delimiter count as one.
pub(super) fn page<T>(
    entries: impl Iterator<Item = (String, T)>,
    marker: &str,
    query: Query<'_>,
) -> Page<T> {
    let mut page = Page {
        items: Vec::new(),
        common_prefixes: Vec::new(),
        next: None,
    };
    let mut last = String::new();
    for (key, item) in entries {
        let Some(rest) = key.strip_prefix(query.prefix) else {
            continue;
        };
        let common = common_prefix(query, rest);
        if let Some(common) = &common {
            // A marker inside the group, or the group itself, has been passed already.
            let is_passed = !marker.is_empty() && marker.starts_with(common.as_str());
            if is_passed || page.common_prefixes.last() == Some(common) {
                continue;
            }
        }
        if page.items.len() + page.common_prefixes.len() >= as_count(query.limit) {
            page.next = Some(last);
            break;
        }
        match common {
            Some(common) => {
                last.clone_from(&common);
                page.common_prefixes.push(common);
            }
            None => {
                last = key;
                page.items.push(item);
            }
        }
    }
    page
}

fn common_prefix(query: Query<'_>, rest: &str) -> Option<String> {
    if query.delimiter.is_empty() {
        return None;
    }
    let end = rest.find(query.delimiter)? + query.delimiter.len();
    Some(format!("{}{}", query.prefix, &rest[..end]))
}

fn as_count(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(marker: &str, delimiter: &str, limit: u64) -> (String, Option<String>) {
        let keys = ["a", "d/1", "d/2", "e", "f/1", "g"];
        let query = Query {
            prefix: "",
            delimiter,
            limit,
        };
        let entries = keys
            .iter()
            .filter(|key| **key > marker)
            .map(|key| ((*key).to_owned(), *key));
        let page = page(entries, marker, query);
        let shown = format!(
            "{} | {}",
            page.items.join(" "),
            page.common_prefixes.join(" ")
        );
        (shown, page.next)
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        assert_eq!(
            listing("", "", 10),
            ("a d/1 d/2 e f/1 g | ".to_owned(), None)
        );
        assert_eq!(listing("", "/", 10), ("a e g | d/ f/".to_owned(), None));
        let (first, next) = listing("", "/", 2);
        assert_eq!((first.as_str(), next.as_deref()), ("a | d/", Some("d/")));
        let (second, next) = listing("d/", "/", 2);
        assert_eq!((second.as_str(), next.as_deref()), ("e | f/", Some("f/")));
        assert_eq!(listing("f/", "/", 2), ("g | ".to_owned(), None));
    }
}
