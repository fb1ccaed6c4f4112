//! What a price file changes, and what is refused in one.

use chrono::NaiveDate;

use super::*;

const HEAD: &str = "currency = \"USD\"\ndate = 2026-11-01\nsource = \"our contract\"\n";

fn today() -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 11, 1).expect("a day")
}

fn corrected(rest: &str) -> PriceTable {
    let file = PriceTable::parse(&format!("{HEAD}{rest}"), today()).expect("a price file");
    PriceTable::default().corrected_by(file)
}

#[test]
fn what_a_file_leaves_out_stays_and_what_it_adds_is_known() {
    let table = corrected(
        "[regions.ap-tokyo]\nclasses.STANDARD.storage = \"0.01\"\n\
         [regions.ap-jakarta]\negress = \"0.5\"\nclasses.STANDARD = { storage = \"0.03\", requests = \"0.004\" }\n",
    );
    // 100 × 0.01 instead of 0.020; 10 × 0.07 as before.
    let seen = Estimate::of(round("ap-tokyo", "STANDARD", Route::Public), &table);
    assert_cost("ap-tokyo", &seen, Item::Storage, "1.00");
    assert_cost("ap-tokyo", &seen, Item::DownloadTraffic, "0.70");
    // 100 × 0.03 + 100 × 0.004 + 10 × 0.5
    let seen = Estimate::of(round("ap-jakarta", "STANDARD", Route::Public), &table);
    assert_eq!(
        seen.total.high.map(|high| high.to_string()).as_deref(),
        Some("8.40")
    );
    let said = table.provenance();
    for part in [
        "where",
        "2026-11-01 (our contract)",
        "2023-07-10",
        "unconfirmed",
    ] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
}

#[test]
fn prices_of_two_currencies_never_meet() {
    let text = "currency = \"CNY\"\ndate = 2026-11-01\nsource = \"s\"\n\
                [regions.ap-tokyo]\nclasses.STANDARD.storage = \"1\"\n";
    let table =
        PriceTable::default().corrected_by(PriceTable::parse(text, today()).expect("a file"));
    let seen = Estimate::of(round("ap-tokyo", "STANDARD", Route::Public), &table);
    assert_cost("ap-tokyo", &seen, Item::Storage, "100.00");
    assert_cost("ap-tokyo", &seen, Item::DownloadTraffic, "-");
    let seen = Estimate::of(round("ap-seoul", "STANDARD", Route::Public), &table);
    assert_cost("ap-seoul", &seen, Item::Storage, "-");
    assert_eq!(table.currency().to_string(), "CNY");
    assert!(
        !table.provenance().contains("2023"),
        "{}",
        table.provenance()
    );
}

#[test]
fn a_class_is_unknown_until_a_file_describes_it() {
    let prices =
        "[regions.ap-tokyo]\nclasses.MAZ_STANDARD = { storage = \"0.03\", requests = \"0.002\" }\n";
    let total = |table: &PriceTable| {
        Estimate::of(round("ap-tokyo", "MAZ_STANDARD", Route::Public), table).total
    };
    assert_eq!(total(&corrected(prices)).high, None);
    // 100 × 0.03 + 100 × 0.002 + 10 × 0.07
    let table = corrected(&format!("[classes]\nMAZ_STANDARD = {{}}\n{prices}"));
    assert_eq!(
        total(&table).high.map(|high| high.to_string()).as_deref(),
        Some("3.90")
    );
}

#[test]
fn what_is_wrong_is_refused_with_its_line() {
    let cases = [
        (
            "currency = \"USD\ndate = 2026-11-01\nsource = \"s\"\n",
            "line 1: ",
        ),
        (
            "date = 2026-11-01\nsource = \"s\"\n",
            "missing field `currency`",
        ),
        (
            "currency = \"USD\"\nsource = \"s\"\n",
            "missing field `date`",
        ),
        (
            "currency = \"USD\"\ndate = 2026-11-01\n",
            "missing field `source`",
        ),
        (
            "currency = \"dollars\"\ndate = 2026-11-01\nsource = \"s\"\n",
            "line 1: `dollars`",
        ),
        (
            "currency = \"USD\"\ndate = 2026-02-31\nsource = \"s\"\n",
            "line 2: ",
        ),
        (
            "currency = \"USD\"\ndate = 10:00:00\nsource = \"s\"\n",
            "line 2: `date` is a day",
        ),
        (
            "currency = \"USD\"\ndate = 2026-11-03\nsource = \"s\"\n",
            "line 2: `date` is a day that has not come",
        ),
        (
            "currency = \"USD\"\ndate = 2026-11-02\nsource = \" \"\n",
            "line 3: `source` says nothing",
        ),
        (
            "currency = \"USD\"\ndate = 2026-11-01\nsource = \"s\"\nprices = 1\n",
            "line 4: unknown field `prices`",
        ),
    ];
    for (text, expected) in cases {
        let error = PriceTable::parse(text, today())
            .expect_err(text)
            .to_string();
        assert!(error.contains(expected), "asked: {text}, seen: {error}");
    }
    for (rest, expected) in [
        (
            "[regions.ap-tokyo]\nclasses.STANDARD.storage = \"-1\"\n",
            "line 5: `-1` is not a price: it is negative",
        ),
        (
            "[regions.ap-tokyo]\negress = 0.07\n",
            "line 5: invalid type: floating point `0.07`, expected a price in quotes",
        ),
        (
            "[regions.ap-tokyo]\negres = \"0.07\"\n",
            "line 5: unknown field `egres`",
        ),
        (
            "[regions.ap-tokyo]\nclasses.STANDARD = { store = \"1\" }\n",
            "line 5: unknown field `store`",
        ),
        (
            "[regions.Tokyo]\negress = \"1\"\n",
            "line 4: `Tokyo` is not a region",
        ),
        (
            "[regions.ap-tokyo]\nclasses.standard = {}\n",
            "line 5: `standard` is not a storage class",
        ),
        ("[classes]\nSTANDARD = { minimum_days = -1 }\n", "line 5: "),
    ] {
        let error = PriceTable::parse(&format!("{HEAD}{rest}"), today())
            .expect_err(rest)
            .to_string();
        assert!(error.contains(expected), "asked: {rest}, seen: {error}");
    }
}

#[test]
fn a_rule_of_a_class_that_is_corrected_leaves_its_others_as_they_are() {
    let table = corrected(
        "[classes]\nSTANDARD_IA = { minimum_days = 60 }\nARCHIVE = { minimum_days = 180 }\n",
    );
    // 10 × 0.002 for reading, as before.
    let seen = Estimate::of(round("ap-guangzhou", "STANDARD_IA", Route::Public), &table);
    assert_cost("STANDARD_IA", &seen, Item::Retrieval, "0.02");
    let seen = Estimate::of(round("ap-guangzhou", "ARCHIVE", Route::Public), &table);
    assert_eq!(seen.total.high, None, "what restoring costs is not known");
}
