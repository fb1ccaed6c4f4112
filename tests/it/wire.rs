//! The documents' own examples of every action and operation, between the real client and a server
//! that only records and recites: what is sent is what they show, and what they show is understood,
//! also with fields that are null, missing, new or in another language.
//!
//! `tests/golden/wire/README.md` names the page of each example. Where the documents' request differs
//! from ours, the test lists the difference.

mod actions;
mod api;
mod cam;
mod copies;
mod cos;
mod deleting;
mod server;
mod sts;
mod writing;
mod xml;

use crate::support::{files_below, golden};

#[test]
fn every_example_names_its_source() {
    let sources = golden::read("wire/README.md");
    let folder = golden::path("wire");
    let names: Vec<_> = files_below(&folder)
        .into_iter()
        .map(|(path, _)| {
            let name = path.strip_prefix(&folder).expect("below the folder");
            name.to_str().expect("a name").replace('\\', "/")
        })
        .filter(|name| name != "README.md")
        .collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        let row = format!("| `{name}` |");
        assert_eq!(sources.matches(&row).count(), 1, "rows for {name}");
    }
}
