//! What goes wrong on the way is repeated, replaced or refused; a wrong file never has the final name.

use cvm_export::simulator::{Effect, Fault};

use super::{BUCKET, Case, PART, noise, patchy};
use crate::support::fault;

fn always(effect: Effect) -> Vec<Fault> {
    vec![Fault {
        occurrence: None,
        ..fault("GetObject", effect)
    }]
}

#[test]
fn trouble_on_the_way_is_got_over() {
    let third = |effect| {
        vec![Fault {
            occurrence: Some(3),
            ..fault("GetObject", effect)
        }]
    };
    for effect in [
        Effect::TruncatedBody { after_bytes: 1000 },
        Effect::ShortBodyAgreeing { bytes: 1000 },
        Effect::StalledBody { after_bytes: 1000 },
        Effect::ResetBefore,
        Effect::ProcessedThenReset,
        Effect::Status { status: 503 },
        Effect::CosError {
            status: 503,
            code: "SlowDown".to_owned(),
        },
        Effect::WrongContentRange,
        Effect::WholeForRange,
        Effect::Garbage,
        Effect::EmptyBody,
        Effect::FlippedByte { at: 100 },
        Effect::MissingField {
            name: "Content-Range".to_owned(),
        },
    ] {
        let case = Case::new(patchy(10 * PART));
        case.set(third(effect.clone()));
        let run = case.fetch("--stall-timeout 500ms");
        assert_eq!(run.code, 0, "{effect:?}\n{}", run.stderr);
        case.has_arrived();
    }
}

#[test]
fn a_storm_of_refusals_is_weathered() {
    let case = Case::new(patchy(20 * PART));
    let storm = (1..=60).step_by(3).map(|number| Fault {
        occurrence: Some(number),
        ..fault("GetObject", Effect::Status { status: 503 })
    });
    case.set(storm.collect());
    case.fetch("").ends_with(0);
    case.has_arrived();
}

#[test]
fn a_flipped_byte_is_found_and_replaced_and_a_second_mismatch_is_the_end() {
    let case = Case::new(noise(10 * PART));
    case.set(vec![Fault {
        occurrence: Some(4),
        ..fault("GetObject", Effect::FlippedByte { at: 5 })
    }]);
    case.fetch("")
        .ends_with(0)
        .says("every part is fetched once more")
        .says("is right now");
    case.has_arrived();
    let case = Case::new(noise(3 * PART));
    case.set(always(Effect::FlippedByte { at: 5 }));
    case.fetch("").ends_with(8).says("the bucket holds");
    assert!(!case.target().exists());
    case.set(Vec::new());
    case.fetch("").ends_with(0);
    case.has_arrived();
}

#[test]
fn a_range_that_never_comes_right_ends_the_run_and_never_leaves_a_wrong_file() {
    for effect in [
        Effect::WholeForRange,
        Effect::WrongContentRange,
        Effect::EmptyBody,
    ] {
        let case = Case::new(noise(2 * PART));
        case.set(always(effect.clone()));
        let run = case.fetch("--request-timeout 2s");
        assert_eq!(run.code, 1, "{effect:?}\n{}", run.stderr);
        assert!(!case.target().exists(), "{effect:?}");
        case.set(Vec::new());
        case.fetch("").ends_with(0);
        case.has_arrived();
    }
}

#[test]
fn an_object_that_is_replaced_midway_is_fetched_anew() {
    let mut case = Case::new(noise(10 * PART));
    case.set(vec![Fault {
        occurrence: Some(5),
        ..fault("GetObject", Effect::ChangedObject)
    }]);
    case.fetch("")
        .ends_with(0)
        .says("was replaced by another object while it was fetched; starting anew");
    case.bytes = case.env.cloud.change(|world| {
        let object = world.object(BUCKET, "folder/disk.raw").expect("the object");
        let mut bytes = vec![0; usize::try_from(object.content.size_bytes()).expect("small")];
        object.content.read_at(0, &mut bytes).expect("readable");
        bytes
    });
    case.has_arrived();
}
