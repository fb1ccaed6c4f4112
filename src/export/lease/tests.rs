//! The table of steps, and what counts as open.

use std::time::Duration;

use super::row::{Decision, Row, Wishes};
use super::{Attempt, Kind, LeaseState, Number, Rules, Seen};

const MINUTE: Duration = Duration::from_secs(60);
const ALL: [LeaseState; 9] = [
    LeaseState::Queued,
    LeaseState::Intended,
    LeaseState::Submitted,
    LeaseState::Complete,
    LeaseState::Failed,
    LeaseState::Refused,
    LeaseState::Abandoned,
    LeaseState::Withdrawn,
    LeaseState::Removed,
];
const EXPORT: Wishes = Wishes {
    kind: Kind::Export,
    is_resubmit: false,
};
const RESUBMIT: Wishes = Wishes {
    kind: Kind::Export,
    is_resubmit: true,
};

fn seen(kind: Kind, state: LeaseState, floor: Number, minutes: u32) -> Seen<()> {
    Seen {
        attempt: Attempt {
            run: format!("{state:?}"),
            kind,
            state,
            floor,
            puts: 1,
            host: String::new(),
            body: (),
        },
        etag: String::new(),
        age: MINUTE * minutes,
    }
}

fn export(state: LeaseState, floor: Number, minutes: u32) -> Seen<()> {
    seen(Kind::Export, state, floor, minutes)
}

fn row(seen: Vec<Seen<()>>) -> Row<()> {
    Row {
        seen,
        rules: Rules::default(),
    }
}

/// In short: `attach 1`, `wait 1`, `young 1 60s`, `over`, with the number to create, its floor, and what is given up.
fn decide(row: &Row<()>, wishes: Wishes) -> String {
    match row.decide(wishes, |run| run == "dead") {
        Decision::Attach(number) => format!("attach {number}"),
        Decision::Wait(number) => format!("wait {number}"),
        Decision::TooYoung { number, wait } => format!("young {number} {}s", wait.as_secs()),
        Decision::Over(opening) => {
            let gives_up = opening.gives_up().map(|(number, _)| number);
            let gives_up = gives_up.collect::<Vec<_>>();
            let (number, attempt) = (
                opening.number(),
                opening.attempt(String::new(), String::new(), ()),
            );
            format!(
                "over {number} floor {} gives up {gives_up:?}",
                attempt.floor
            )
        }
    }
}

#[test]
fn the_table_of_steps() {
    // Rows and columns in the order of `ALL`.
    let expected = [
        ".xxxxxxx.",
        "x.xxxxxxx",
        "...xx....",
        ".........",
        ".........",
        ".........",
        "..x......",
        ".........",
        ".........",
    ];
    for (from, row) in ALL.into_iter().zip(expected) {
        for (to, cell) in ALL.into_iter().zip(row.chars()) {
            assert_eq!(from.may_become(to), cell != '.', "{from:?} to {to:?}");
        }
    }
}

#[test]
fn only_a_removal_becomes_removed_and_it_submits_nothing() {
    let export = export(LeaseState::Intended, 0, 0).attempt;
    let removal = seen(Kind::Removal, LeaseState::Intended, 0, 0).attempt;
    let of = |attempt: &Attempt<()>| ALL.map(|state| attempt.may_become(state));
    assert_eq!(
        of(&export),
        [true, false, true, true, true, true, true, true, false]
    );
    assert_eq!(
        of(&removal),
        [false, false, false, false, false, false, true, true, true]
    );
}

#[test]
fn what_is_open_and_what_is_decided() {
    let open = ALL.map(LeaseState::is_open);
    assert_eq!(
        open,
        [true, true, true, false, false, false, false, false, false]
    );
    let decided = ALL.map(LeaseState::is_decided);
    assert_eq!(
        decided,
        [false, false, true, true, true, true, false, false, true]
    );
}

#[test]
fn states_are_words_in_lower_case() {
    for state in ALL {
        let written = serde_json::to_string(&state).expect("a word");
        assert_eq!(written, format!("\"{state:?}\"").to_lowercase());
        assert_eq!(
            serde_json::from_str::<LeaseState>(&written).ok(),
            Some(state)
        );
    }
}

#[test]
fn a_floor_holds_once_its_run_has_passed_the_second_reading() {
    for state in ALL {
        let row = row(vec![
            export(LeaseState::Intended, 0, 0),
            export(state, 1, 0),
        ]);
        let is_first_open = row.open().contains(&1);
        assert_eq!(is_first_open, !state.is_decided(), "{state:?}");
    }
}

#[test]
fn the_floor_of_a_removal_holds_from_its_creation_unless_withdrawn() {
    for state in [
        LeaseState::Intended,
        LeaseState::Abandoned,
        LeaseState::Removed,
        LeaseState::Withdrawn,
    ] {
        let row = row(vec![
            export(LeaseState::Submitted, 0, 0),
            seen(Kind::Removal, state, 1, 0),
        ]);
        let is_first_open = row.open().contains(&1);
        assert_eq!(is_first_open, state == LeaseState::Withdrawn, "{state:?}");
    }
}

#[test]
fn the_highest_floor_counts_not_the_newest() {
    let row = row(vec![
        export(LeaseState::Submitted, 0, 0),
        export(LeaseState::Complete, 1, 0),
        export(LeaseState::Complete, 0, 0),
    ]);
    assert!(row.open().is_empty());
    assert_eq!(decide(&row, EXPORT), "over 4 floor 3 gives up []");
}

#[test]
fn an_empty_row_begins_with_the_first_number() {
    assert_eq!(
        decide(&row(Vec::new()), EXPORT),
        "over 1 floor 0 gives up []"
    );
}

#[test]
fn a_submitted_attempt_is_attached_to_whatever_else_is_open() {
    let row = row(vec![
        export(LeaseState::Submitted, 0, 99),
        export(LeaseState::Submitted, 0, 99),
        export(LeaseState::Intended, 0, 99),
    ]);
    assert_eq!(decide(&row, EXPORT), "attach 2");
    assert_eq!(decide(&row, RESUBMIT), "attach 2");
}

#[test]
fn an_intended_attempt_is_given_up_on_request_when_it_is_old() {
    let at = |minutes| {
        row(vec![
            export(LeaseState::Complete, 0, 99),
            export(LeaseState::Intended, 1, minutes),
            export(LeaseState::Intended, 1, 20),
        ])
    };
    assert_eq!(decide(&at(20), EXPORT), "wait 3");
    assert_eq!(decide(&at(14), RESUBMIT), "young 2 60s");
    assert_eq!(decide(&at(15), RESUBMIT), "over 4 floor 1 gives up [2, 3]");
}

#[test]
fn a_queued_attempt_is_given_up_by_anybody_when_it_is_old() {
    let at = |minutes| row(vec![export(LeaseState::Queued, 0, minutes)]);
    let removal = Wishes {
        kind: Kind::Removal,
        ..EXPORT
    };
    assert_eq!(decide(&at(14), EXPORT), "wait 1");
    assert_eq!(decide(&at(14), RESUBMIT), "young 1 60s");
    assert_eq!(decide(&at(15), EXPORT), "over 2 floor 0 gives up [1]");
    assert_eq!(decide(&at(15), removal), "over 2 floor 0 gives up [1]");
}

#[test]
fn a_removal_is_given_up_after_half_an_hour_and_gives_up_no_export() {
    let resubmit = Wishes {
        kind: Kind::Removal,
        is_resubmit: true,
    };
    let at = |minutes| row(vec![seen(Kind::Removal, LeaseState::Intended, 0, minutes)]);
    assert_eq!(decide(&at(29), EXPORT), "wait 1");
    assert_eq!(decide(&at(29), RESUBMIT), "young 1 60s");
    assert_eq!(decide(&at(30), RESUBMIT), "over 2 floor 0 gives up [1]");
    assert_eq!(decide(&at(30), resubmit), "over 2 floor 0 gives up [1]");
    let export = row(vec![export(LeaseState::Intended, 0, 99)]);
    assert_eq!(decide(&export, resubmit), "wait 1");
}

#[test]
fn a_run_that_is_known_to_have_ended_needs_no_age() {
    let dead = |state| {
        let mut dead = export(state, 0, 0);
        dead.attempt.run = "dead".to_owned();
        row(vec![dead])
    };
    let (intended, queued) = (dead(LeaseState::Intended), dead(LeaseState::Queued));
    assert_eq!(decide(&intended, EXPORT), "wait 1");
    assert_eq!(decide(&intended, RESUBMIT), "over 2 floor 0 gives up [1]");
    assert_eq!(decide(&queued, EXPORT), "over 2 floor 0 gives up [1]");
}
