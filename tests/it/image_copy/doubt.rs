//! What the cloud, the disk and other people say about a copy is not believed beyond what it proves.

use cvm_export::simulator::{Effect, Fault, Image};
use serde_json::json;

use super::{ACROSS, changes, copies, records, states, world};
use crate::support::{TestEnv, fault, files_below};

const ONE_OF_EACH: [&str; 3] = ["SyncImages", "ExportImages", "DeleteImages"];

fn every(operation: &str, effect: Effect) -> Fault {
    Fault {
        key: None,
        occurrence: None,
        ..fault(operation, effect)
    }
}

/// Rewrites the only record of copies.
fn edit(env: &TestEnv, change: impl FnOnce(&mut serde_json::Value)) {
    let (path, text) = files_below(&env.state_folder().join("copies"))
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|end| end == "json"))
        .expect("a record");
    let mut record = serde_json::from_str(&text).expect("JSON");
    change(&mut record);
    std::fs::write(path, record.to_string()).expect("written");
}

#[test]
fn a_strangers_file_under_the_exports_name_does_not_cost_the_copy() {
    let env = world();
    env.cloud.change(|world| world.export_seconds = Some(1e6));
    env.line(&format!("{ACROSS} --timeout 1500ms")).ends_with(6);
    env.cloud
        .change(|world| world.put_object("north-1250000000", "p_xvda.raw", b"hello".to_vec()));
    env.line(ACROSS)
        .ends_with(0)
        .says("the copy is kept: an upload of");
    assert_eq!(changes(&env), ["SyncImages", "ExportImages"]);
    assert_eq!(copies(&env).len(), 1);
    env.cloud.change(|world| world.finish_exports());
    env.line(ACROSS).ends_with(0);
    assert_eq!(changes(&env), ONE_OF_EACH);
    assert_eq!(copies(&env), []);
}

#[test]
fn a_failed_look_for_open_uploads_keeps_the_copy_and_a_missing_right_does_not() {
    let interrupted = || {
        let env = world();
        env.cloud.change(|world| world.export_seconds = Some(1e6));
        env.line(&format!("{ACROSS} --timeout 1500ms")).ends_with(6);
        env.cloud
            .change(|world| world.put_object("north-1250000000", "p_xvda.raw", b"hello".to_vec()));
        env
    };
    for effect in [Effect::ResetBefore, Effect::Status { status: 500 }] {
        let env = interrupted();
        env.cloud
            .set_faults(vec![every("ListMultipartUploads", effect)]);
        env.line(ACROSS).ends_with(0).says(
            "the copy is kept: whether an upload is still open in the bucket could not be seen",
        );
        assert_eq!(changes(&env), ["SyncImages", "ExportImages"]);
        // The look fails no more, and the upload is still open.
        env.cloud.set_faults(Vec::new());
        env.line(ACROSS)
            .ends_with(0)
            .says("the copy is kept: an upload of");
        assert_eq!(changes(&env), ["SyncImages", "ExportImages"]);
        env.cloud.change(|world| world.finish_exports());
        env.line(ACROSS).ends_with(0);
        assert_eq!(changes(&env), ONE_OF_EACH);
    }

    // It is on the second page of uploads, which do not fit one answer.
    let env = interrupted();
    env.cloud.change(|world| {
        for number in 0..1000 {
            world.leave_upload("north-1250000000", &format!("p_a{number:04}"), 1);
        }
    });
    env.line(ACROSS)
        .ends_with(0)
        .says("the copy is kept: an upload of");
    assert_eq!(changes(&env), ["SyncImages", "ExportImages"]);

    let env = world();
    env.cloud.change(|world| {
        world.denied.insert("ListMultipartUploads".to_owned());
    });
    env.line(ACROSS).ends_with(0);
    assert_eq!(changes(&env), ONE_OF_EACH);
}

#[test]
fn a_copy_that_is_deleted_while_it_is_made_is_not_waited_for_for_ever() {
    let env = world();
    env.cloud.change(|world| world.copy_seconds = Some(1e6));
    env.line(&format!("{ACROSS} --timeout 400ms")).ends_with(6);
    assert_eq!(states(&env), ["open", "copying"]);
    let (copy, _) = copies(&env).remove(0);
    env.cloud.change(|world| {
        world.images.retain(|image| image.id.as_str() != copy);
        world.copy_seconds = Some(0.0);
    });
    edit(&env, |record| {
        record["steps"][0]["sent_at"] = json!("2020-01-01T00:00:00Z");
    });
    env.line(ACROSS).ends_with(7).says("is gone");
    assert_eq!(states(&env), ["abandoned", "failed"]);
    env.assert_submits(0);
}

#[test]
fn a_lost_copy_that_stands_is_gone_on_with_also_when_it_may_be_given_up() {
    let env = world();
    env.cloud.set_faults(vec![
        fault("SyncImages", Effect::ProcessedThenReset),
        every("DescribeImages", Effect::ResetBefore),
    ]);
    let line = format!("{ACROSS} --region ap-guangzhou");
    // The image cannot be seen at all, so nothing begins; that is the network, and no missing right.
    env.line(&line)
        .ends_with(1)
        .says("could not be looked for")
        .does_not_say("allow `cvm:DescribeImages`");
    env.cloud.set_faults(Vec::new());
    env.cloud
        .change(|world| world.denied.insert("DescribeImages".to_owned()));
    env.line(&line)
        .ends_with(4)
        .says("allow `cvm:DescribeImages`");
    env.cloud.change(|world| world.denied.clear());
    env.cloud.set_faults(vec![
        fault("SyncImages", Effect::ProcessedThenReset),
        // The source is seen, the copy's name is not looked up in vain but refused for a while.
        Fault {
            key: None,
            occurrence: Some(3.try_into().expect("a number")),
            ..fault(
                "DescribeImages",
                Effect::ApiError {
                    code: "InternalError".to_owned(),
                },
            )
        },
    ]);
    env.line(&format!("{line} --resubmit")).ends_with(0);
    assert_eq!(changes(&env), ONE_OF_EACH);
    assert_eq!(copies(&env), []);
}

#[test]
fn an_image_that_the_answer_names_wrongly_is_not_exported_as_the_copy() {
    let env = world();
    let region = || "ap-beijing".parse().expect("a region");
    let answer = |id: &str| {
        let set = json!([{"ImageId": id, "Region": "ap-beijing"}]);
        json!({"Response": {"ImageSet": set, "RequestId": "r"}}).to_string()
    };
    env.cloud.change(|world| {
        let id = "img-another1".parse().expect("an image");
        world.add_image(Image::linux(id, region(), 50));
        let recorded = answer("img-another1");
        world
            .keys
            .recorded
            .insert("SyncImages".to_owned(), recorded);
    });
    env.line(ACROSS)
        .ends_with(1)
        .says("nothing proves that it is the copy")
        .does_not_say("DeleteImages");
    env.assert_submits(0);

    // The source itself is no copy, whatever the answer says.
    let env = world();
    env.cloud.change(|world| {
        let recorded = answer("img-linux001");
        world
            .keys
            .recorded
            .insert("SyncImages".to_owned(), recorded);
    });
    env.line(&format!("{ACROSS} --timeout 400ms"))
        .ends_with(11)
        .does_not_say("DeleteImages");
    assert_eq!(records(&env)[0]["steps"][0]["copy"], json!(null));
}

#[test]
fn a_damaged_record_of_another_copy_is_said_and_stops_nothing() {
    let env = world();
    env.line(ACROSS).ends_with(0);
    let folder = env.state_folder().join("copies");
    std::fs::write(folder.join("copy-0badbad0.json"), "").expect("written");
    env.line("status").ends_with(0).says("copy-0badbad0.json");
}

#[test]
fn status_names_copies_that_were_given_up_until_they_are_gone() {
    let env = world();
    env.cloud.change(|world| world.copy_seconds = Some(1e6));
    env.line(&format!("{ACROSS} --timeout 400ms")).ends_with(6);
    let (copy, _) = copies(&env).remove(0);
    edit(&env, |record| record["state"] = json!("abandoned"));
    env.line("status").ends_with(0).says(&copy);
    env.cloud
        .change(|world| world.images.retain(|image| image.id.as_str() != copy));
    env.line("status").ends_with(0).does_not_say(&copy);
}

#[test]
fn a_look_for_earlier_exports_by_copies_that_fails_makes_no_second_copy() {
    let env = world();
    env.line(ACROSS).ends_with(0);
    std::fs::remove_dir_all(env.state_folder()).expect("a journal");
    let made = changes(&env);
    for call in ["ListObjects", "GetObject"] {
        env.cloud.set_faults(vec![every(call, Effect::ResetBefore)]);
        env.line(ACROSS).ends_with(1);
        assert_eq!(changes(&env), made, "{call}");
    }
    env.cloud.set_faults(Vec::new());
    let claim = env.cloud.change(|world| {
        let mut keys = world.keys("north-1250000000").into_iter();
        let claim = keys.find(|key| key.ends_with(".cvm-export.json"));
        let claim = claim.expect("a record in the bucket");
        world.put_object(
            "north-1250000000",
            &claim,
            r#"{"schema":"cvm-export.record.v9"}"#,
        );
        claim
    });
    env.line(ACROSS).ends_with(3).says(&format!(
        "the record `{claim}` in the bucket cannot be read"
    ));
    assert_eq!(changes(&env), made);
    // Whoever may double it may, and so may one who has never had the right to look.
    env.line(&format!("{ACROSS} --resubmit"))
        .ends_with(0)
        .says("is left alone");
    assert_eq!(env.calls("SyncImages"), 2);

    let env = world();
    env.cloud
        .change(|world| world.denied.insert("ListObjects".to_owned()));
    env.line(ACROSS).ends_with(0);
    assert_eq!(changes(&env), ONE_OF_EACH);
}

#[test]
fn a_lost_journal_makes_no_second_copy_of_what_the_bucket_knows() {
    let lose_the_journal = |env: &TestEnv| {
        std::fs::remove_dir_all(env.state_folder()).expect("a journal");
    };
    let env = world();
    let first = env.line(ACROSS).ends_with(0);
    lose_the_journal(&env);
    env.line(&format!("{ACROSS} --if-exists fail"))
        .ends_with(3)
        .says("was exported by a copy already");
    lose_the_journal(&env);
    env.line(ACROSS).ends_with(0).prints(&first.stdout);
    assert_eq!(changes(&env), ONE_OF_EACH);

    let env = world();
    env.cloud.change(|world| world.export_seconds = Some(1e6));
    env.line(&format!("{ACROSS} --timeout 1500ms")).ends_with(6);
    lose_the_journal(&env);
    env.line(ACROSS)
        .ends_with(3)
        .says("runs already")
        .says("cvm-export wait --region ap-beijing --bucket north-1250000000")
        .does_not_say("DeleteImages");
    assert_eq!(changes(&env), ["SyncImages", "ExportImages"]);
}
