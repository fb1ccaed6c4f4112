//! The `Range` header: one range of bytes, or none worth obeying.

/// What a `Range` header asks of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// Everything: no header, or one that is not understood, which HTTP says to overlook.
    Whole,
    /// The bytes from the first to the last, both included.
    Part { first: u64, last: u64 },
    /// Bytes that the object does not have.
    Unsatisfiable,
}

/// Reads a `Range` header for an object of `size` bytes.
pub(super) fn parse(header: Option<&str>, size: u64) -> Range {
    let Some((first, last)) = header
        .and_then(|header| header.trim().strip_prefix("bytes="))
        .and_then(|range| range.split_once('-'))
    else {
        return Range::Whole;
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.min(size.saturating_sub(1))),
        (Ok(first), Err(_)) if last.is_empty() => (first, size.saturating_sub(1)),
        (Err(_), Ok(count)) if first.is_empty() => {
            if count == 0 {
                return Range::Unsatisfiable;
            }
            (size.saturating_sub(count), size.saturating_sub(1))
        }
        _ => return Range::Whole,
    };
    if range.0 >= size {
        return Range::Unsatisfiable;
    }
    Range::Part {
        first: range.0,
        last: range.1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_obeyed_and_anything_else_overlooked() {
        let part = |first, last| Range::Part { first, last };
        for (header, expected) in [
            ("bytes=0-9", part(0, 9)),
            ("bytes=90-200", part(90, 99)),
            ("bytes=90-", part(90, 99)),
            ("bytes=-10", part(90, 99)),
            ("bytes=-1000", part(0, 99)),
            ("bytes=100-", Range::Unsatisfiable),
            ("bytes=100-200", Range::Unsatisfiable),
            ("bytes=-0", Range::Unsatisfiable),
            ("bytes=5-4", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("items=0-1", Range::Whole),
        ] {
            assert_eq!(parse(Some(header), 100), expected, "{header}");
        }
        assert_eq!(parse(None, 100), Range::Whole);
        assert_eq!(parse(Some("bytes=0-0"), 0), Range::Unsatisfiable);
    }
}
