//! Texts that are kept as files under `tests/golden`, to be read by people and compared by tests.
//!
//! `UPDATE_GOLDEN=1 cargo test` writes what the program says now; `git diff` then shows what changed.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// Lines shown before and after a difference.
const CONTEXT_LINES: usize = 2;

/// The golden file or folder `name`, written with slashes.
pub(crate) fn path(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    name.split('/').fold(root, |path, part| path.join(part))
}

/// Reads the golden file `name`.
pub(crate) fn read(name: &str) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails unless the golden file `name` holds exactly `actual`; rewrites it when `UPDATE_GOLDEN` is
/// set.
#[track_caller]
pub(crate) fn assert_matches(name: &str, actual: &str) {
    let path = path(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        }
        fs::write(&path, actual).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    match fs::read_to_string(&path) {
        Ok(expected) if expected == actual => {}
        Ok(expected) => panic!(
            "{} differs (- file, + now):\n{}set UPDATE_GOLDEN=1 to accept",
            path.display(),
            difference(&expected, actual)
        ),
        Err(error) => panic!(
            "{}: {error}; set UPDATE_GOLDEN=1 to write this:\n{actual}",
            path.display()
        ),
    }
}

/// The lines in which two texts differ, with a little of what surrounds them. The common start and
/// the common end are left out; what lies between is shown whole, which is enough for short files.
fn difference(expected: &str, actual: &str) -> String {
    let old: Vec<&str> = expected.split('\n').collect();
    let new: Vec<&str> = actual.split('\n').collect();
    let same = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| {
        pairs.take_while(|(left, right)| left == right).count()
    };
    let start = same(&mut old.iter().zip(&new));
    let end = same(&mut old[start..].iter().rev().zip(new[start..].iter().rev()));
    let (old_end, new_end) = (old.len() - end, new.len() - end);

    let mut shown = String::new();
    let mut show = |mark: char, lines: &[&str]| {
        for line in lines {
            // Debug quoting makes blanks and control characters visible.
            let _ = writeln!(shown, "{mark} {line:?}");
        }
    };
    show(' ', &old[start.saturating_sub(CONTEXT_LINES)..start]);
    show('-', &old[start..old_end]);
    show('+', &new[start..new_end]);
    show(' ', &old[old_end..old.len().min(old_end + CONTEXT_LINES)]);
    format!("from line {}:\n{shown}", start + 1)
}

#[test]
fn a_difference_shows_the_changed_lines_and_their_neighbours() {
    assert_eq!(
        difference("a\nb\nc\nd\ne\nf\n", "a\nb\nc\nD \ne\nf\n"),
        "from line 4:\n  \"b\"\n  \"c\"\n- \"d\"\n+ \"D \"\n  \"e\"\n  \"f\"\n"
    );
    assert_eq!(
        difference("a", "a\n"),
        "from line 2:\n  \"a\"\n+ \"\"\n",
        "a missing final line break should show"
    );
}
