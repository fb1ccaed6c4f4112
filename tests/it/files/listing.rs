//! What lies in a bucket: exports by both rules of names, their records, and everybody else's objects.

use cvm_export::simulator::{Naming, Options};
use serde_json::{Value, json};

use super::BUCKET;
use crate::support::{TestEnv, files_below};

const LIST: &str = "files --bucket exports --output json";

/// The listed export with this prefix.
fn under<'a>(listing: &'a Value, prefix: &str) -> &'a Value {
    let items = listing["items"].as_array().expect("items");
    let found = items.iter().find(|item| item["prefix"] == prefix);
    found.unwrap_or_else(|| panic!("nothing under {prefix}: {listing:#}"))
}

#[test]
fn exports_are_told_with_their_images_sizes_ages_and_proofs() {
    let env = TestEnv::new();
    env.export("img-multi002", "p", "");
    env.export("img-linux001", "q", "--no-claim");
    env.put("r_xvda.raw");
    env.put("holiday.jpg");
    env.pass(3 * 86_400);
    let listing = env.line(LIST).ends_with(0).json();
    assert_eq!(listing["schema"], "cvm-export.files.v1");
    let bucket = &listing["buckets"][0];
    assert_eq!(bucket["bucket"], BUCKET);
    assert_eq!(bucket["versioning"], "off");
    assert_eq!(bucket["other_objects"], 1);

    let recorded = under(&listing, "p");
    assert_eq!(recorded["image_id"], "img-multi002");
    assert_eq!(recorded["state"], "complete");
    assert_eq!(recorded["size_bytes"], 170_u64 << 30);
    assert_eq!(
        recorded["records"][0]["key"],
        "p_img-multi002.cvm-export.json"
    );
    assert_eq!(recorded["files"].as_array().expect("files").len(), 3);
    assert_eq!(recorded["files"][0]["proof"], "record");
    assert_eq!(recorded["files"][0]["storage_class"], "STANDARD");
    let age = recorded["age_seconds"].as_u64().expect("an age");
    assert!((3 * 86_400..3 * 86_400 + 3600).contains(&age), "{age}");

    // 170 GiB at 0.024 USD a GB and month, and 50 GiB more; of the third nothing but 5 bytes.
    assert_eq!(listing["currency"], "USD");
    assert_eq!(recorded["cost_per_month"]["high"], "4.08");
    assert_eq!(under(&listing, "q")["cost_per_month"]["low"], "1.20");

    let of_journal = under(&listing, "q");
    assert_eq!(of_journal["files"][0]["proof"], "record");
    assert_eq!(of_journal["records"], Value::Array(vec![]));
    let looks_like_one = under(&listing, "r");
    assert_eq!(looks_like_one["files"][0]["proof"], "none");
    assert_eq!(looks_like_one["image_id"], Value::Null);

    let text = env.line("files --bucket exports").ends_with(0);
    let row = text
        .stdout
        .lines()
        .find(|line| line.contains("q_img-linux001_system_"));
    let row = row.unwrap_or_else(|| panic!("no row: {}", text.stdout));
    for cell in [
        "img-linux001",
        "complete",
        "3d",
        "50.00 GiB",
        "STANDARD",
        "1.20",
        "record",
    ] {
        assert!(row.contains(cell), "{cell}: {row}");
    }
    assert!(text.stdout.contains("USD/MONTH"), "{}", text.stdout);
    let unpriced = env.home.path().join("prices.toml");
    std::fs::write(
        &unpriced,
        "currency = \"CNY\"\ndate = 2026-11-25\nsource = \"a contract\"\n",
    )
    .expect("written");
    let unknown = env.line("files --bucket exports --output json --prices prices.toml");
    let unknown = unknown.ends_with(0).json();
    assert_eq!(unknown["currency"], "CNY");
    assert_eq!(under(&unknown, "q")["cost_per_month"]["high"], Value::Null);
    text.says("a month to keep")
        .says("3 exports, 5 files")
        .says("1 other object left out");
}

#[test]
fn a_machine_without_records_tells_exports_by_the_images_of_the_account() {
    let mut env = TestEnv::new();
    env.export("img-multi002", "p", "--no-claim");
    env.lose_home();
    env.put("p_img-other_system_snap-1.raw");
    let listing = env.line(LIST).ends_with(0).json();
    let items = listing["items"].as_array().expect("items");
    let proofs: Vec<(&Value, &Value)> = items
        .iter()
        .map(|item| (&item["image_id"], &item["files"][0]["proof"]))
        .collect();
    assert_eq!(proofs.len(), 2, "{listing:#}");
    for (image_id, proof) in proofs {
        let expected = if image_id == "img-multi002" {
            "image"
        } else {
            "none"
        };
        assert_eq!(proof, expected, "{image_id}");
    }
    // Without the right to see images a name proves nothing.
    env.cloud.change(|world| {
        world.denied.insert("DescribeImages".to_owned());
    });
    let run = env.line(LIST).ends_with(0).says("cvm:DescribeImages");
    for item in run.json()["items"].as_array().expect("items") {
        assert_eq!(item["files"][0]["proof"], "none");
    }
}

#[test]
fn names_of_the_console_are_proven_by_their_record_alone() {
    let mut env = TestEnv::with(Options {
        naming: Naming::Console,
        ..Options::default()
    });
    env.cloud.change(|world| world.export_seconds = Some(0.0));
    env.export("img-multi002", "p", "");
    env.lose_home();
    let listing = env.line(LIST).ends_with(0).json();
    let export = under(&listing, "p");
    assert_eq!(export["files"][1]["key"], "p_xvdb.raw");
    assert_eq!(export["files"][1]["proof"], "record");
    assert_eq!(export["state"], "complete");
}

#[test]
fn an_export_that_nobody_waited_for_is_complete_once_its_files_are_there() {
    let mut env = TestEnv::new();
    env.export("img-linux001", "p", "--no-wait");
    env.lose_home();
    let listing = env.line(LIST).ends_with(0).json();
    let export = under(&listing, "p");
    assert_eq!(export["state"], "complete");
    assert_eq!(export["files"][0]["proof"], "record");
    env.cloud.change(|world| world.export_seconds = Some(1e6));
    env.export("img-linux001", "q", "--no-wait");
    let run = env.line(LIST).ends_with(0).says("1 unfinished upload");
    let listing = run.json();
    let export = under(&listing, "q");
    assert_eq!(export["state"], "running");
    assert_eq!(export["blocked"]["kind"], "running");
}

#[test]
fn a_record_that_speaks_of_another_place_proves_nothing() {
    let env = TestEnv::new();
    env.export("img-linux001", "p", "");
    let record = env.cloud.change(|world| {
        let object = world.object(BUCKET, "p_img-linux001.cvm-export.json");
        let object = object.expect("a record");
        let mut bytes = vec![0; usize::try_from(object.content.size_bytes()).expect("small")];
        object.content.read_at(0, &mut bytes).expect("readable");
        String::from_utf8(bytes).expect("text")
    });
    env.put("q_xvda.raw");
    env.put("payroll.db");
    let etag = env.cloud.change(|world| {
        world
            .object(BUCKET, "payroll.db")
            .expect("put")
            .etag
            .clone()
    });
    // A copy in another place, and one that names what no export writes.
    let mut forged: Value = serde_json::from_str(&record).expect("JSON");
    forged["files"][0]["object"]["key"] = "payroll.db".into();
    forged["files"][0]["object"]["etag"] = etag.into();
    env.cloud.change(|world| {
        world.put_object(BUCKET, "q_img-linux001.cvm-export.json", record.clone());
        world.put_object(BUCKET, "p_img-linux001.cvm-export.json", forged.to_string());
        world.put_object(BUCKET, "r_img-linux001.cvm-export.json", "no record");
    });
    let mut elsewhere = TestEnv::new();
    elsewhere.borrow_cloud(&env);
    let run = elsewhere
        .line(LIST)
        .ends_with(0)
        .says("`q_img-linux001.cvm-export.json` is left alone: it is a copy")
        .says("`r_img-linux001.cvm-export.json` is left alone: it is not a record");
    let listing = run.json();
    assert!(!listing.to_string().contains("payroll"), "{listing:#}");
    assert_eq!(under(&listing, "q")["files"][0]["proof"], "none");
}

#[test]
fn a_prefix_means_itself_and_a_star_means_a_start() {
    let env = TestEnv::new();
    for prefix in ["p", "pq", "r"] {
        env.export("img-linux001", prefix, "");
    }
    let prefixes = |flags: &str| -> Vec<String> {
        let listing = env
            .line(format!("{LIST} {flags}").trim_end())
            .ends_with(0)
            .json();
        let items = listing["items"].as_array().expect("items");
        let mut prefixes: Vec<String> = items
            .iter()
            .map(|item| item["prefix"].as_str().expect("a prefix").to_owned())
            .collect();
        prefixes.sort();
        prefixes
    };
    assert_eq!(prefixes("--prefix p"), ["p"]);
    assert_eq!(prefixes("--prefix p*"), ["p", "pq"]);
    assert_eq!(prefixes(""), ["p", "pq", "r"]);
    assert!(prefixes("--id img-multi002").is_empty());
    env.export("img-linux001", "long", "");
    let hint = "`--prefix 'lo*'` lists them";
    env.line("files --bucket exports --prefix lo")
        .ends_with(0)
        .says("0 exports")
        .says(hint);
    for other in ["nothing", "long"] {
        env.line(&format!("files --bucket exports --prefix {other}"))
            .ends_with(0)
            .does_not_say("lists them");
    }
    env.line("files --prefix p rm --keep-last 1 --bucket exports")
        .ends_with(2)
        .says("belong behind");
}

#[test]
fn without_a_bucket_those_of_the_journal_are_listed() {
    let env = TestEnv::new();
    env.line("files").ends_with(2).says("--bucket");
    env.export("img-linux001", "p", "");
    let listing = env.line("files --output json").ends_with(0).json();
    assert_eq!(listing["items"][0]["bucket"], BUCKET);
    env.line("files --simulate --bucket b")
        .ends_with(0)
        .says("0 exports");
}

#[test]
fn missing_rights_are_warnings_but_for_the_listing_itself() {
    let env = TestEnv::new();
    env.export("img-linux001", "p", "");
    env.cloud.change(|world| {
        world.denied.insert("GetBucketVersioning".to_owned());
        world.denied.insert("ListMultipartUploads".to_owned());
    });
    let run = env
        .line(LIST)
        .ends_with(0)
        .says("whether the bucket keeps versions could not be seen")
        .says("unfinished uploads could not be seen");
    assert_eq!(run.json()["buckets"][0]["versioning"], Value::Null);
    env.line("files rm --bucket exports --older-than 0s --include-newest --yes")
        .ends_with(4)
        .says("name/cos:ListMultipartUploads");
    env.cloud.change(|world| {
        world.denied.insert("ListObjects".to_owned());
    });
    env.line(LIST).ends_with(4);
}

#[test]
fn a_record_of_the_first_day_of_the_calendar_stops_nothing() {
    let env = TestEnv::new();
    env.export("img-linux001", "p", "--no-wait");
    env.cloud.change(|world| world.finish_exports());
    let (_, text) = files_below(&env.state_folder().join("exports")).remove(0);
    let record: Value = serde_json::from_str(&text).expect("a record");
    for (baseline, day) in [
        (json!("unseen"), "-262143-01-01T00:00:00Z"),
        (json!("absent"), "-262143-01-01T00:00:00Z"),
        (json!("unseen"), "+262142-12-31T23:59:59Z"),
    ] {
        let mut record = record.clone();
        record["created_at"] = json!(day);
        record["submitted_at"] = json!(day);
        for name in record["files"][0]["names"].as_array_mut().expect("names") {
            name["baseline"] = baseline.clone();
        }
        env.cloud.change(|world| {
            let key = "p_img-linux001.cvm-export.json";
            world.put_object(BUCKET, key, record.to_string());
        });
        let mut other = TestEnv::new();
        other.borrow_cloud(&env);
        let run = other.line("files --bucket exports --output json");
        let run = run.ends_with(0);
        if day.starts_with('+') {
            run.says("is left alone: it speaks of a time that has not come");
            continue;
        }
        // It is a record, and was read as one.
        let listing = run.does_not_say("is left alone").json();
        let mut items = listing["items"].as_array().expect("items").iter();
        assert!(
            items.any(|item| item["export_id"] == record["export_id"]),
            "{day}: {listing:#}"
        );
    }
}
