//! `estimate`, and what `image` and `download` do with `--max-cost`.

use std::fs;

use cvm_export::simulator::{Disk, Image};
use serde_json::Value;

use crate::support::{Run, TestEnv};

const LINE: &str = "image --id img-linux001 --bucket exports --prefix p";
const HEAD: &str = "currency = \"USD\"\ndate = 2026-11-01\nsource = \"our contract\"\n";
/// A region of which the table has no price.
const UNPRICED: &str = "ap-jakarta";

fn prices(env: &TestEnv, text: &str) {
    fs::write(env.home.path().join("prices.toml"), text).expect("a file");
}

/// A world with a bucket and an image where the table has no prices.
fn unpriced() -> TestEnv {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        let region: cvm_export::model::Region = UNPRICED.parse().expect("a region");
        world.add_bucket("there-1250000000", region.clone());
        world.add_image(Image::linux(
            "img-there".parse().expect("an id"),
            region,
            10,
        ));
    });
    env
}

/// The line of an estimate that is about `item`.
fn line<'a>(item: &'a Value, name: &str) -> &'a Value {
    let lines = item["lines"].as_array().expect("lines");
    let found = lines.iter().find(|line| line["item"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {item:#}"))
}

/// An amount as whole millionths.
fn millionths(amount: &Value) -> u64 {
    let text = amount
        .as_str()
        .unwrap_or_else(|| panic!("no decimal string: {amount}"));
    let (whole, fraction) = text.split_once('.').expect("decimals");
    format!("{whole}{fraction:0<6}").parse().expect("a number")
}

#[track_caller]
fn nothing_was_begun(env: &TestEnv) {
    let calls = env.cloud.calls();
    let is_submit = |body: Option<&str>| !body.unwrap_or_default().contains("\"DryRun\":true");
    let submit = calls
        .iter()
        .find(|call| call.operation == "ExportImages" && is_submit(call.body.as_deref()));
    assert!(submit.is_none(), "submitted: {submit:?}");
    assert_eq!(env.calls("PutObject"), 0, "no record is in the bucket");
}

#[test]
fn an_image_is_shown_by_quantities_money_and_where_the_prices_come_from() {
    let env = TestEnv::new();
    let run = env
        .line("estimate --id img-multi002 --bucket exports")
        .ends_with(0);
    // (50 + 20 + 100) × 0.024 = 4.08 a month, a thirtieth of it a day; 170 × 0.10 for the way home.
    for part in [
        "170.00 GiB",
        "img-multi002 in ap-guangzhou\n",
        "0.024 USD per GiB and month",
        "0.002 USD per 10,000 requests",
        "0.10 USD per GiB",
        "4.08",
        "17.00",
        "download traffic, public",
        "total, USD",
        "`--download-over none` leaves that out",
        "a day 0.136 USD, a month 4.08 USD in STANDARD of ap-guangzhou",
        "upload traffic",
        "free",
        "kept for 30 days",
        "2023-07-10",
        "COS documentation",
        "unconfirmed today",
        "LOW USD",
    ] {
        assert!(
            run.stdout.contains(part),
            "{part} is missing:\n{}",
            run.stdout
        );
    }
    nothing_was_begun(&env);
    // The system disk alone, for a year of twelve such months: 50 × 0.024 × 12.
    let run = env
        .line("estimate --id img-multi002 --region ap-guangzhou --system-disk-only --months 12 --download-over none")
        .ends_with(0);
    assert!(
        run.stdout.contains("14.40") && !run.stdout.contains("download"),
        "{}",
        run.stdout
    );
}

#[test]
fn the_object_has_decimal_strings_that_add_up() {
    let env = TestEnv::new();
    let json = env
        .line(
            "estimate --id img-linux001,img-multi002 --bucket exports --format qcow2 --output json",
        )
        .ends_with(0)
        .json();
    assert_eq!(json["schema"], "cvm-export.estimate.v1");
    assert_eq!(json["currency"], "USD");
    assert_eq!(json["prices"][0]["date"], "2023-07-10");
    assert_eq!(json["confirmed_today"], false);
    let (mut low, mut high) = (0, 0);
    for item in json["items"].as_array().expect("items") {
        // What a QCOW2 file of the disk has is not known: nothing, or all of it and a little more.
        let stored = &item["quantities"]["stored_bytes"];
        assert_eq!(stored["low"], 0);
        assert!(stored["high"].as_u64() > Some(50 << 30), "{stored}");
        for line in item["lines"].as_array().expect("lines") {
            low += millionths(&line["cost"]["low"]);
            high += millionths(&line["cost"]["high"]);
        }
    }
    assert_eq!(low, millionths(&json["total"]["low"]));
    assert_eq!(high, millionths(&json["total"]["high"]));
    assert!(low < high);
}

#[test]
fn exported_files_are_estimated_as_they_are_by_the_way_on_which_they_come() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        world.storage_class = "STANDARD_IA".to_owned();
    });
    let run = env.line(&format!("{LINE} -q")).ends_with(0);
    let address = run.stdout.trim().to_owned();
    let gets = env.calls("GetObject");
    let of = |flags: &str| {
        let line = format!("estimate {address} --days 1 --output json {flags}");
        env.line(line.trim_end()).ends_with(0).json()["items"][0].clone()
    };
    let item = of("");
    assert_eq!(item["object"], address);
    // Kept for a day and billed for thirty: 50 × 0.018; 50 × 0.002 for reading it, 50 × 0.10 for the way.
    assert_eq!(line(&item, "storage")["days"], 30);
    assert_eq!(line(&item, "storage")["cost"]["high"], "0.90");
    assert_eq!(line(&item, "retrieval")["cost"]["high"], "0.10");
    assert_eq!(line(&item, "download-traffic")["cost"]["high"], "5.00");
    let fetched = &item["quantities"]["fetched_bytes"];
    assert_eq!(fetched["public"]["high"], 50_u64 << 30);
    assert_eq!(fetched["internal"]["high"], 0);
    let item = of("--download-over internal");
    assert_eq!(line(&item, "download-traffic")["cost"]["high"], "0.00");
    assert_eq!(
        item["quantities"]["fetched_bytes"]["internal"]["high"],
        50_u64 << 30
    );
    // 50 × 0.07 from inside the mainland, 50 × 0.18 from elsewhere.
    let item = of("--download-over acceleration");
    assert_eq!(line(&item, "acceleration-traffic")["cost"]["low"], "3.50");
    assert_eq!(line(&item, "acceleration-traffic")["cost"]["high"], "9.00");
    // 50 × 0.005 × 3 for the 90 days that are billed at least; nobody knows what a restoration costs.
    let item = of("--storage-class archive");
    assert_eq!(line(&item, "storage")["cost"]["high"], "0.75");
    assert_eq!(line(&item, "restoration")["cost"]["high"], Value::Null);
    assert_eq!(item["total"]["high"], Value::Null);
    assert_eq!(env.calls("GetObject"), gets, "nothing was fetched");
    env.line("estimate cos://exports/nothing.raw")
        .ends_with(3)
        .says("no object `nothing.raw`");
}

#[test]
fn an_unknown_region_is_unknown_and_a_price_file_can_say() {
    let env = unpriced();
    let asked = "estimate --id img-there --bucket there";
    let run = env.line(asked).ends_with(0);
    for part in ["unknown", "no region `ap-jakarta`", "--prices FILE"] {
        assert!(
            run.stdout.contains(part),
            "{part} is missing:\n{}",
            run.stdout
        );
    }
    let json = env
        .line(&format!("{asked} --output json"))
        .ends_with(0)
        .json();
    let storage = line(&json["items"][0], "storage");
    for end in ["low", "high"] {
        assert_eq!(storage["cost"][end], Value::Null);
    }
    assert_eq!(json["total"]["high"], Value::Null);
    let reason = json["total"]["reason"].as_str().expect("a reason");
    assert!(reason.contains(UNPRICED), "{reason}");
    // What is free is free there, too.
    assert_eq!(
        line(&json["items"][0], "upload-traffic")["cost"]["high"],
        "0.00"
    );

    prices(
        &env,
        &format!(
            "{HEAD}[regions.ap-jakarta]\negress = \"0.5\"\nclasses.STANDARD = {{ storage = \"0.03\", requests = \"0.004\" }}\n\
             [regions.ap-guangzhou]\nclasses.STANDARD.storage = \"0.01\"\n"
        ),
    );
    let with = format!("{asked} --prices prices.toml");
    let json = env
        .line(&format!("{with} --output json"))
        .ends_with(0)
        .json();
    // 10 × 0.03 and 10 × 0.5
    assert_eq!(line(&json["items"][0], "storage")["cost"]["high"], "0.30");
    assert_eq!(
        line(&json["items"][0], "download-traffic")["cost"]["high"],
        "5.00"
    );
    assert_eq!(json["prices"][1]["source"], "our contract");
    let run = env.line(&with).ends_with(0);
    assert!(
        run.stdout.contains("2026-11-01 (our contract)"),
        "{}",
        run.stdout
    );
    // A price that the table has is corrected, and what the file leaves out stays: 50 × 0.01, 50 × 0.10.
    let json = env
        .line("estimate --id img-linux001 --bucket exports --prices prices.toml --output json")
        .ends_with(0)
        .json();
    assert_eq!(line(&json["items"][0], "storage")["cost"]["high"], "0.50");
    assert_eq!(
        line(&json["items"][0], "download-traffic")["cost"]["high"],
        "5.00"
    );
}

#[test]
fn a_bucket_of_several_zones_has_prices_that_the_table_does_not_know() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        let bucket = world.bucket_mut("exports-1250000000").expect("the bucket");
        bucket.multi_az = true;
    });
    let json = env
        .line("estimate --id img-linux001 --bucket exports --output json")
        .ends_with(0)
        .json();
    assert_eq!(
        line(&json["items"][0], "storage")["storage_class"],
        "MAZ_STANDARD"
    );
    assert_eq!(json["total"]["high"], Value::Null);
    env.line(&format!("{LINE} --max-cost 1000"))
        .ends_with(3)
        .says("no storage class MAZ_STANDARD");
    nothing_was_begun(&env);
}

#[test]
fn a_price_file_that_cannot_be_right_is_refused_before_anything_is_asked() {
    let env = TestEnv::new();
    let table = "[regions.ap-guangzhou]\n";
    for (text, expected) in [
        ("currency = \"USD\n".to_owned(), "line 1: "),
        (
            "date = 2026-11-01\nsource = \"s\"\n".to_owned(),
            "missing field `currency`",
        ),
        (
            "currency = \"USD\"\ndate = 2999-01-01\nsource = \"s\"\n".to_owned(),
            "line 2: `date` is a day that has not come",
        ),
        (
            format!("{HEAD}{table}egress = \"-0.1\"\n"),
            "line 5: `-0.1` is not a price: it is negative",
        ),
        (
            format!("{HEAD}{table}egress = 0.1\n"),
            "line 5: invalid type: floating point",
        ),
        (
            format!("{HEAD}{table}egres = \"0.1\"\n"),
            "line 5: unknown field `egres`",
        ),
    ] {
        prices(&env, &text);
        for command in [
            "estimate --id img-linux001 --bucket exports --prices prices.toml".to_owned(),
            format!("{LINE} --prices prices.toml"),
            "download cos://exports/p --prices prices.toml".to_owned(),
        ] {
            env.line(&command)
                .ends_with(2)
                .says("--prices: `prices.toml` can't be right")
                .says(expected);
        }
    }
    env.line("estimate --id img-linux001 --prices nothing.toml")
        .ends_with(2)
        .says("`nothing.toml` cannot be read");
    assert!(env.cloud.calls().is_empty(), "{:?}", env.cloud.calls());
}

#[test]
fn the_price_file_of_the_documentation_is_one() {
    let env = unpriced();
    let documentation = include_str!("../../docs/prices.md");
    let example = documentation
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    prices(&env, example.expect("an example"));
    // 10 × 0.024 and 10 × 0.10
    let json = env
        .line("estimate --id img-there --bucket there --prices prices.toml --output json")
        .ends_with(0)
        .json();
    assert_eq!(line(&json["items"][0], "storage")["cost"]["high"], "0.24");
    assert_eq!(
        line(&json["items"][0], "download-traffic")["cost"]["high"],
        "1.00"
    );
}

#[test]
fn what_is_no_estimate_is_refused() {
    let env = TestEnv::new();
    env.line("estimate batch.toml")
        .ends_with(2)
        .says("manifests of many images are not there yet");
    env.line("estimate").ends_with(2).says("COS_URL");
    env.line("estimate cos://exports/p --id img-linux001")
        .ends_with(2);
    env.line("estimate cos://exports/p --format qcow2")
        .ends_with(2);
    env.line("estimate --id img-linux001 --days 0")
        .ends_with(2)
        .says("from 1 to 36500");
    env.line("estimate --id img-linux001 --days 1 --months 1")
        .ends_with(2);
    env.line("estimate --id img-nothere --bucket exports")
        .ends_with(3)
        .says("no image `img-nothere` in ap-guangzhou");
    for amount in ["-1", "1e3", "free", "0.0000001"] {
        env.line(&format!("{LINE} --max-cost={amount}"))
            .ends_with(2)
            .says("is not an amount");
    }
    nothing_was_begun(&env);
}

#[test]
fn an_export_says_what_it_takes_before_it_is_submitted() {
    let env = TestEnv::new();
    // 50 × 0.024 = 1.20; requests are below a cent.
    let run = env
        .line(LINE)
        .ends_with(0)
        .says("img-linux001: 50.00 GiB stored in STANDARD of ap-guangzhou for 30 days")
        .says("at most 1.20")
        .says("USD by prices of 2023-07-10 (COS documentation, international site), unconfirmed today");
    let said = run.stderr.find(" 50.00 GiB stored").expect("said");
    assert!(
        said < run.stderr.find("submitted as").expect("submitted"),
        "{}",
        run.stderr
    );
    assert_eq!(
        run.stdout.lines().count(),
        1,
        "stdout is for keys alone: {}",
        run.stdout
    );
}

#[test]
fn an_export_that_may_cost_too_much_is_not_submitted() {
    let env = TestEnv::new();
    let refused = |line: &str| -> Run {
        let run = env.line(line).ends_with(3);
        nothing_was_begun(&env);
        run
    };
    refused(&format!("{LINE} --max-cost 1.20"))
        .says("hint: raise `--max-cost`, or leave it out; `cvm-export estimate` shows the parts")
        .says("fail    cost: it may cost 1.20")
        .says("`--max-cost` allows 1.20")
        .says("nothing was submitted");
    // The way home is counted where it is made: 50 × 0.10.
    refused(&format!("{LINE} --max-cost 6 --download here")).says("it may cost 6.20");
    refused(&format!("{LINE} --max-cost 1 --dry-run")).says("cost: it may cost 1.20");
    let error = refused(&format!("{LINE} --max-cost 1 --output json")).error_json();
    assert_eq!(error["kind"], "precondition");
    let findings = error["findings"].as_array().expect("findings");
    assert!(
        findings
            .iter()
            .any(|finding| finding["check"] == "cost" && finding["verdict"] == "fail")
    );
    // No rule of this tool stands above the person's word.
    env.line(&format!("{LINE} --max-cost 1 --skip-check cost --dry-run"))
        .ends_with(0);
    let before = env.calls("ExportImages");
    env.line(&format!("{LINE} --max-cost 1.25")).ends_with(0);
    assert_eq!(env.calls("ExportImages") - before, 1);
}

#[test]
fn an_export_that_is_taken_as_it_stands_is_not_refused_for_its_price() {
    let mut env = TestEnv::new();
    env.line(LINE).ends_with(0);
    let skip = format!("{LINE} --if-exists reuse --max-cost 0.01");
    env.line(&skip).ends_with(0);
    // By another machine as well.
    env.lose_home();
    env.line(&skip).ends_with(0);
    env.assert_submits(1);
    // Where nothing stands it would be exported.
    env.line(
        "image --id img-linux001 --bucket exports --prefix q --if-exists reuse --max-cost 0.01",
    )
    .ends_with(3);
    env.assert_submits(1);
}

#[test]
fn several_exports_are_held_to_the_limit_together() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        let region = "ap-guangzhou".parse().expect("a region");
        world.add_image(Image::linux(
            "img-second".parse().expect("an id"),
            region,
            50,
        ));
    });
    let line = "image --id img-linux001,img-second --bucket exports --prefix p-{image_id}";
    env.line(&format!("{line} --max-cost 2"))
        .ends_with(3)
        .says("img-linux001: 50.00 GiB stored")
        .says("img-second: 50.00 GiB stored")
        .says("all exports together: it may cost 2.40")
        .says("nothing was submitted");
    nothing_was_begun(&env);
    env.line(&format!("{line} --max-cost 2 --skip-check cost --dry-run"))
        .ends_with(0);
    env.line(&format!("{line} --max-cost 2.5")).ends_with(0);
    let kept = env
        .cloud
        .change(|world| world.keys("exports-1250000000"))
        .into_iter()
        .filter(|key| key.ends_with(".json"))
        .collect::<Vec<_>>();
    assert_eq!(
        kept,
        [
            "p-img-linux001_img-linux001.cvm-export.json",
            "p-img-linux001_img-linux001.cvm-export.lease-raw-1.json",
            "p-img-second_img-second.cvm-export.json",
            "p-img-second_img-second.cvm-export.lease-raw-1.json",
        ],
        "one attempt each"
    );
    // Dry runs are calls, too.
    let tasks = env.cloud.change(|world| world.started_tasks().len());
    assert_eq!(tasks, 2);
}

#[test]
fn where_no_price_is_known_a_limit_refuses_and_names_the_way_out() {
    let env = unpriced();
    let line = "image --id img-there --bucket there --prefix p";
    env.line(&format!("{line} --max-cost 1000000"))
        .ends_with(3)
        .says("unknown: the price table has no region `ap-jakarta`")
        .says("--prices FILE");
    nothing_was_begun(&env);
    prices(
        &env,
        &format!(
            "{HEAD}[regions.ap-jakarta]\nclasses.STANDARD = {{ storage = \"0.03\", requests = \"0.004\" }}\n"
        ),
    );
    // 10 × 0.03
    env.line(&format!("{line} --max-cost 0.29 --prices prices.toml"))
        .ends_with(3)
        .says("may cost 0.30");
    nothing_was_begun(&env);
    env.line(&format!("{line} --max-cost 0.31 --prices prices.toml"))
        .ends_with(0);
    env.assert_submits(1);
    // Without a limit nobody is held up.
    let env = unpriced();
    env.line(line)
        .ends_with(0)
        .says("cost unknown: the price table has no region");
}

#[test]
fn columns_of_money_are_aligned_and_exact_and_objects_are_named_once() {
    let env = TestEnv::new();
    let key = format!("{}.raw", "long/".repeat(16));
    env.cloud.change(|world| {
        for name in [key.as_str(), "b.raw"] {
            world.put_object("exports-1250000000", name, vec![7; 1 << 20]);
        }
    });
    let line = format!("estimate cos://exports/{key} cos://exports/b.raw");
    let run = env.line(&line).ends_with(0);
    let table = run.stdout.split("\n\n").next().expect("a table");
    let rows: Vec<&str> = table.lines().filter(|row| row.starts_with("  ")).collect();
    // Storage, requests and traffic of each.
    assert_eq!(rows.len(), 6, "{table}");
    let money = |row: &str| -> Vec<String> {
        let cells: Vec<&str> = row.split_whitespace().rev().take(2).collect();
        cells.into_iter().map(str::to_owned).collect()
    };
    let width = rows[0].len();
    for row in &rows {
        assert_eq!(row.len(), width, "the last column ends elsewhere: {table}");
        assert!(row.len() <= 120, "{row}");
        for cell in money(row) {
            let decimals = cell.split_once('.').map(|(_, decimals)| decimals.len());
            assert_eq!(decimals, Some(6), "{cell} in {row}");
            assert_ne!(cell.trim_matches(['0', '.']), "", "{cell} in {row}");
        }
    }
    assert_eq!(table.matches("long/long/").count(), 8, "{table}");
    assert_eq!(run.stdout.matches("download traffic, public").count(), 2);
    let run = env
        .line(&format!("{line} --download-over internal"))
        .ends_with(0);
    assert_eq!(run.stdout.matches("download traffic, internal").count(), 2);
}

#[test]
fn the_total_without_the_download_is_what_the_check_says() {
    let env = TestEnv::new();
    let json = env
        .line("estimate --id img-linux001 --bucket exports --output json")
        .ends_with(0)
        .json();
    let rest = json["total_without_download"]["high"].as_str();
    let rest = rest.expect("an amount").to_owned();
    assert_ne!(json["total"]["high"], rest);
    env.line("check --id img-linux001 --bucket exports --prefix p")
        .ends_with(0)
        .says(&format!("at most {rest} USD"));
    let run = env
        .line("estimate --id img-linux001 --bucket exports")
        .ends_with(0);
    let row = run
        .stdout
        .lines()
        .find(|row| row.starts_with("without the download, USD"));
    assert!(
        row.is_some_and(|row| row.ends_with(&rest)),
        "{}",
        run.stdout
    );
    let json = env
        .line("estimate --id img-linux001 --bucket exports --download-over none --output json")
        .ends_with(0)
        .json();
    assert_eq!(json["total"]["high"], rest);
    assert_eq!(json["total_without_download"], Value::Null);
}

#[test]
fn a_class_that_nobody_knows_is_warned_of_and_has_no_total() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        world.put_object("exports-1250000000", "a.raw", vec![7; 1 << 20]);
    });
    let line = "estimate cos://exports/a.raw --storage-class bogus";
    let run = env
        .line(line)
        .ends_with(0)
        .says("knows no class BOGUS, but STANDARD, STANDARD_IA, INTELLIGENT_TIERING");
    let total = run.stdout.lines().find(|row| row.starts_with("total"));
    let cells: Vec<&str> = total.expect("a total").split_whitespace().collect();
    assert_eq!(cells, ["total,", "USD", "unknown", "unknown"]);
    let total = env
        .line(&format!("{line} --output json"))
        .ends_with(0)
        .json()["total"]
        .clone();
    for end in ["low", "high", "known_part_at_least"] {
        assert_eq!(total[end], Value::Null, "{end}");
    }
    assert!(
        total["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("BOGUS"))
    );
    // One that is known, and has a price for a part: 1 MiB × 0.10 of egress, rounded up.
    let known = env.line("estimate cos://exports/a.raw --storage-class archive --output json");
    let total = known.ends_with(0).does_not_say("knows no class").json()["total"].clone();
    assert_eq!(total["low"], Value::Null);
    assert_ne!(total["known_part_at_least"], Value::Null);
    env.line("estimate cos://exports/a.raw --storage-class archive")
        .ends_with(0);
}

#[test]
fn whether_prices_are_confirmed_is_said_by_their_table() {
    let env = TestEnv::new();
    let of = |confirmed: &str| {
        let text = HEAD.replace("USD", "CNY");
        prices(&env, &format!("{text}{confirmed}"));
        let line = "estimate --id img-linux001 --bucket exports --prices prices.toml";
        let text = env.line(line).ends_with(0).stdout;
        let json = env
            .line(&format!("{line} --output json"))
            .ends_with(0)
            .json();
        (text, json["confirmed_today"].clone())
    };
    let (text, confirmed) = of("");
    assert!(!text.contains("confirmed"), "{text}");
    assert_eq!(confirmed, Value::Null);
    let (text, confirmed) = of("confirmed = true\n");
    assert!(
        text.contains("2026-11-01 (our contract), confirmed"),
        "{text}"
    );
    assert_eq!(confirmed, true);
    let (text, confirmed) = of("confirmed = false\n");
    assert!(text.contains("(our contract), unconfirmed today"), "{text}");
    assert_eq!(confirmed, false);
}

#[test]
fn an_export_of_the_journal_is_estimated_by_its_id() {
    let env = TestEnv::new();
    let made = env
        .line("image --id img-multi002 --bucket exports --prefix p --output json")
        .ends_with(0)
        .json();
    let id = made["export_id"].as_str().expect("an id");
    let json = env
        .line(&format!("estimate {id} --output json"))
        .ends_with(0)
        .json();
    let items = json["items"].as_array().expect("items");
    let sizes = items
        .iter()
        .map(|item| &item["quantities"]["stored_bytes"]["high"]);
    let sizes: Vec<u64> = sizes.filter_map(Value::as_u64).collect();
    assert_eq!(sizes, [50 << 30, 20 << 30, 100 << 30]);
    env.line(&format!("estimate {id} cos://exports/p"))
        .ends_with(2)
        .says(&format!("`cvm-export estimate {id}`"));
    env.line("estimate exp-nothing")
        .ends_with(2)
        .says("knows no export `exp-nothing`");
    let key = made["files"][0]["key"].as_str().expect("a key");
    env.cloud
        .change(|world| world.put_object("exports-1250000000", key, "another"));
    env.line(&format!("estimate {id}"))
        .ends_with(3)
        .says("was replaced by another object since its export");
}

#[test]
fn hints_of_an_estimate_name_what_helps() {
    let env = TestEnv::new();
    env.line("estimate").ends_with(2).says("--id");
    for command in ["estimate", "download"] {
        env.line(&format!("{command} cos://exports/nope"))
            .ends_with(3)
            .says("there is no object `nope` in bucket `exports-1250000000`")
            .says("`cvm-export files --bucket exports-1250000000`");
    }
    env.line("estimate cos://nope-1250000000/xx --region ap-guangzhou")
        .ends_with(3)
        .says("there is no bucket `nope-1250000000` in ap-guangzhou")
        .does_not_say("there is no object");
    prices(
        &env,
        &format!("{HEAD}[regions.ap-guangzhou]\nclasses.STANDARD.storage = \"18446744073\"\n"),
    );
    let run = env
        .line("estimate --id img-linux001 --bucket exports --prices prices.toml --days 36500")
        .ends_with(0);
    assert!(
        run.stdout.contains("unknown: it is more than any bill\n"),
        "{}",
        run.stdout
    );
}

/// A world whose image `img-small` has a disk of 5 MiB.
fn small() -> TestEnv {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        let id = "img-small".parse().expect("an id");
        let image = Image::linux(id, "ap-guangzhou".parse().expect("a region"), 1);
        world.add_image(image.with_system_disk(Disk::sample(5 << 20, "seed", "system")));
    });
    env
}

#[test]
fn a_download_that_may_cost_too_much_fetches_no_byte() {
    let env = small();
    let json = env
        .line("image --id img-small --bucket exports --prefix p --no-claim --output json")
        .ends_with(0)
        .json();
    let export_id = json["export_id"].as_str().expect("an id");
    let key = json["files"][0]["key"].as_str().expect("a key");
    let gets = env.calls("GetObject");
    // 5 MiB × 0.10 = 0.000488…, and at most 3 requests: 0.000489 and 0.000001.
    for target in [export_id.to_owned(), format!("cos://exports/{key}")] {
        for to in ["here/", "disk.raw"] {
            let run = env
                .line(&format!("download {target} --to {to} --max-cost 0.000489"))
                .ends_with(3)
                .says("5.00 MiB fetched over the public network")
                .says("the download was not begun: it may cost 0.00049 USD");
            assert!(run.stdout.is_empty(), "{}", run.stdout);
        }
    }
    let wait = format!("wait {export_id} --download there");
    env.line(&format!("{wait} --max-cost 0.000489"))
        .ends_with(3)
        .says("the download was not begun: it may cost 0.00049 USD");
    assert_eq!(env.calls("GetObject"), gets);
    assert!(!env.home.path().join("disk.raw").exists());
    assert!(!env.home.path().join("there").exists());
    env.line(&format!("wait {export_id} --max-cost 1"))
        .ends_with(2)
        .says("--download <DIR>");
    env.line(&format!("{wait} --max-cost 0.00049")).ends_with(0);
    env.line(&format!(
        "download cos://exports/{key} --to disk.raw --max-cost 0.00049"
    ))
    .ends_with(0)
    .does_not_say("were here already");
    env.line(&format!(
        "download {export_id} --to here/ --max-cost 0.00049"
    ))
    .ends_with(0);
    // What is here already is not fetched, so nothing but requests is weighed.
    for target in [
        format!("{export_id} --to here/"),
        format!("cos://exports/{key} --to disk.raw"),
    ] {
        env.line(&format!("download {target} --max-cost 0.000001"))
            .ends_with(0)
            .says("0 B fetched");
        env.line(&format!("download {target} --max-cost 0.000001 --force"))
            .ends_with(3)
            .says("5.00 MiB fetched");
    }
}

#[test]
fn several_objects_are_held_to_the_limit_together_and_each_is_looked_up_once() {
    let env = TestEnv::new();
    for name in ["a.raw", "b.raw"] {
        env.cloud
            .change(|world| world.put_object("exports-1250000000", name, vec![7; 1 << 20]));
    }
    let line = "download cos://exports/a.raw cos://exports/b.raw --to here/";
    // 2 MiB × 0.10 = 0.000195…; each alone would be 0.0000976….
    env.line(&format!("{line} --max-cost 0.00015"))
        .ends_with(3)
        .says("2.00 MiB fetched")
        .does_not_say("at most 2.00 MiB");
    assert_eq!(env.calls("GetObject"), 0);
    let heads = env.calls("HeadObject");
    env.line(&format!("{line} --max-cost 0.001")).ends_with(0);
    assert_eq!(env.calls("HeadObject") - heads, 2);
}

#[test]
fn a_resumed_download_says_what_it_saved() {
    let env = TestEnv::new();
    let bytes: Vec<u8> = (0..4_u32 << 20)
        .map(|number| (number % 251) as u8 + 1)
        .collect();
    env.cloud
        .change(|world| world.put_object("exports-1250000000", "disk.raw", bytes));
    let line = "download cos://exports/disk.raw --part-size 64KiB";
    let slow = format!("{line} --limit-rate 4MiB");
    let running = env.start(&slow.split(' ').collect::<Vec<_>>());
    env.wait_for_calls("GetObject", 12);
    running.signal("INT");
    running
        .wait()
        .ends_with(130)
        .does_not_say("were here already");
    // What is still to come is weighed, and not the whole.
    env.line(&format!("{line} --max-cost 0"))
        .ends_with(3)
        .says(" fetched over the public network")
        .does_not_say("4.00 MiB fetched");
    let run = env
        .line(&format!("{line} --output json"))
        .ends_with(0)
        .says("were here already and not fetched again, which would have cost 0.000")
        .says("USD again by prices of 2023-07-10");
    let item = &run.json()["items"][0];
    let fetched = item["fetched_bytes"].as_u64().expect("a number");
    let saved = (4 << 20) - fetched;
    assert!(saved > 0, "nothing was saved: {item}");
    // The line speaks of the very bytes that were not fetched: 0.10 for a GiB, rounded up to a millionth.
    let cost = (u128::from(saved) * 100_000).div_ceil(1 << 30);
    let said = format!(
        "would have cost {} USD",
        format!("0.{cost:06}").trim_end_matches('0')
    );
    assert!(
        run.stderr.contains(&said),
        "`{said}` is not in\n{}",
        run.stderr
    );
}

#[test]
fn a_region_that_nobody_knows_in_a_price_file_is_warned_of() {
    let env = TestEnv::new();
    let prices = "currency = \"USD\"\ndate = 2026-11-25\nsource = \"ours\"\n[regions.ap-guangzhu]\negress = \"0.05\"\n";
    std::fs::write(env.home.path().join("prices.toml"), prices).expect("written");
    env.line("estimate --id img-linux001 --bucket exports --prices prices.toml")
        .ends_with(0)
        .says("ap-guangzhu");
}
