//! Sums that were worked out by hand.

mod price_files;
mod properties;

use super::*;
use crate::model::ImageFormat;

const GIB: u64 = 1 << 30;
const MILLION: Bounds = Bounds::exact(1_000_000);

fn region(text: &str) -> Region {
    text.parse().expect("a region")
}

fn class(text: &str) -> StorageClass {
    text.parse().expect("a class")
}

fn objects(name: &str, sizes: &[u64]) -> Vec<StoredObject> {
    let sizes = sizes.iter();
    sizes
        .map(|bytes| StoredObject {
            class: class(name),
            bytes: Bounds::exact(*bytes),
        })
        .collect()
}

/// 100 GiB that stand there for 30 days, a million requests, and 10 GiB fetched over `route`.
fn round(place: &str, name: &str, route: Route) -> Quantities {
    let mut quantities = Quantities::none(region(place))
        .with_objects(objects(name, &[100 * GIB]))
        .kept_for(30)
        .fetching(objects(name, &[10 * GIB]), route, GIB);
    quantities.requests = vec![Requests {
        purpose: Purpose::Download,
        class: class(name),
        count: MILLION,
    }];
    quantities
}

fn estimate(quantities: Quantities) -> Estimate {
    Estimate::of(quantities, &PriceTable::default())
}

/// Both ends of what `item` costs; `-` where it is unknown, `none` where there is no such line.
fn cost(estimate: &Estimate, item: Item) -> (String, String) {
    let line = estimate.lines.iter().find(|line| line.item == item);
    let shown = |end: Option<Amount>| end.map_or_else(|| "-".to_owned(), |end| end.to_string());
    line.map_or_else(
        || ("none".to_owned(), "none".to_owned()),
        |line| (shown(line.cost.low), shown(line.cost.high)),
    )
}

#[track_caller]
fn assert_cost(asked: &str, estimate: &Estimate, item: Item, expected: &str) {
    let (low, high) = cost(estimate, item);
    let seen = match low == high {
        true => low,
        false => format!("{low}..{high}"),
    };
    assert_eq!(seen, expected, "asked: {item:?}, {asked}");
}

/// What a row of the next table expects: of STANDARD storage, requests and public egress; of STANDARD_IA
/// storage, requests and retrieval; of ARCHIVE storage and public egress; of DEEP_ARCHIVE storage; of
/// the acceleration.
type Row<'a> = (
    &'a str,
    [&'a str; 3],
    [&'a str; 3],
    [&'a str; 2],
    &'a str,
    &'a str,
);

#[test]
fn every_region_of_the_table_has_the_sums_that_were_worked_out_by_hand() {
    // 100 GiB for a month: 100 times the price. A million requests: 100 times that of 10 000. 10 GiB
    // fetched: 10 times. Of the archives neither requests nor, in most places, DEEP_ARCHIVE have a price.
    #[rustfmt::skip]
    let rows: [Row<'_>; 17] = [
        // 100×0.020, 100×0.002, 10×0.10 | 100×0.014, 100×0.01, 10×0.002 | 100×0.0045, 10×0.10 | 10×0.07, 10×0.18
        ("ap-chengdu",       ["2.00", "0.20", "1.00"], ["1.40", "1.00", "0.02"], ["0.45", "1.00"], "-", "0.70..1.80"),
        ("ap-chongqing",     ["2.00", "0.20", "1.00"], ["1.40", "1.00", "0.02"], ["0.45", "1.00"], "-", "0.70..1.80"),
        // 100×0.024, 100×0.002, 10×0.10 | 100×0.018, 100×0.01, 10×0.002 | 100×0.005, 10×0.10 | 100×0.002 | as above
        ("ap-beijing",       ["2.40", "0.20", "1.00"], ["1.80", "1.00", "0.02"], ["0.50", "1.00"], "0.20", "0.70..1.80"),
        ("ap-nanjing",       ["2.40", "0.20", "1.00"], ["1.80", "1.00", "0.02"], ["0.50", "1.00"], "0.20", "0.70..1.80"),
        ("ap-shanghai",      ["2.40", "0.20", "1.00"], ["1.80", "1.00", "0.02"], ["0.50", "1.00"], "0.20", "0.70..1.80"),
        ("ap-guangzhou",     ["2.40", "0.20", "1.00"], ["1.80", "1.00", "0.02"], ["0.50", "1.00"], "0.20", "0.70..1.80"),
        // 100×0.022, 100×0.002, 10×0.08 | 100×0.016, 100×0.01, 10×0.002 | 100×0.005, 10×0.08 | 10×0.18
        ("ap-hongkong",      ["2.20", "0.20", "0.80"], ["1.60", "1.00", "0.02"], ["0.50", "0.80"], "-", "1.80"),
        // 100×0.022, 100×0.003, 10×0.072 | 100×0.016, 100×0.015, 10×0.003 | 100×0.005, 10×0.072
        ("ap-singapore",     ["2.20", "0.30", "0.72"], ["1.60", "1.50", "0.03"], ["0.50", "0.72"], "-", "1.80"),
        // 100×0.024, 100×0.003, 10×0.10 | 100×0.018, 100×0.015, 10×0.003 | 100×0.005, 10×0.10
        ("ap-mumbai",        ["2.40", "0.30", "1.00"], ["1.80", "1.50", "0.03"], ["0.50", "1.00"], "-", "1.80"),
        // 100×0.024, 100×0.002, 10×0.12 | 100×0.018, 100×0.01, 10×0.002 | 100×0.005, 10×0.12
        ("ap-seoul",         ["2.40", "0.20", "1.20"], ["1.80", "1.00", "0.02"], ["0.50", "1.20"], "-", "1.80"),
        // 100×0.024, 100×0.002, 10×0.12 | 100×0.018, 100×0.01, 10×0.003 | 100×0.005, 10×0.18
        ("ap-bangkok",       ["2.40", "0.20", "1.20"], ["1.80", "1.00", "0.03"], ["0.50", "1.80"], "-", "1.80"),
        // 100×0.020, 100×0.002, 10×0.07 | 100×0.014, 100×0.01, 10×0.002 | 100×0.005, 10×0.12
        ("ap-tokyo",         ["2.00", "0.20", "0.70"], ["1.40", "1.00", "0.02"], ["0.50", "1.20"], "-", "1.80"),
        // 100×0.024, 100×0.002, 10×0.07 | 100×0.018, 100×0.01, 10×0.002 | 100×0.0045, 10×0.07
        ("na-siliconvalley", ["2.40", "0.20", "0.70"], ["1.80", "1.00", "0.02"], ["0.45", "0.70"], "-", "1.80"),
        // 100×0.020, 100×0.002, 10×0.07 | 100×0.014, 100×0.01, 10×0.002 | 100×0.0045, 10×0.07
        ("na-ashburn",       ["2.00", "0.20", "0.70"], ["1.40", "1.00", "0.02"], ["0.45", "0.70"], "-", "1.80"),
        ("na-toronto",       ["2.00", "0.20", "0.70"], ["1.40", "1.00", "0.02"], ["0.45", "0.70"], "-", "1.80"),
        ("eu-frankfurt",     ["2.00", "0.20", "0.70"], ["1.40", "1.00", "0.02"], ["0.45", "0.70"], "-", "1.80"),
        // 100×0.024, 100×0.002, 10×0.07 | 100×0.018, 100×0.01, 10×0.002 | 100×0.0045, 10×0.07
        ("eu-moscow",        ["2.40", "0.20", "0.70"], ["1.80", "1.00", "0.02"], ["0.45", "0.70"], "-", "1.80"),
    ];
    for (place, standard, infrequent, archive, deep, acceleration) in rows {
        let of = |name| estimate(round(place, name, Route::Acceleration));
        let seen = of("STANDARD");
        assert_cost(place, &seen, Item::Storage, standard[0]);
        assert_cost(place, &seen, Item::DownloadRequests, standard[1]);
        assert_cost(place, &seen, Item::DownloadTraffic, standard[2]);
        assert_cost(place, &seen, Item::Retrieval, "none");
        assert_cost(place, &seen, Item::AccelerationTraffic, acceleration);
        let seen = of("STANDARD_IA");
        assert_cost(place, &seen, Item::Storage, infrequent[0]);
        assert_cost(place, &seen, Item::DownloadRequests, infrequent[1]);
        assert_cost(place, &seen, Item::DownloadTraffic, standard[2]);
        assert_cost(place, &seen, Item::Retrieval, infrequent[2]);
        // Kept for 30 days and billed for 90, so three times the month; `per_month` is one.
        let seen = of("ARCHIVE");
        let per_month = seen.lines[0].per_month.as_ref().expect("of storage");
        let per_month = per_month.high.map(|amount| amount.to_string());
        assert_eq!(per_month.as_deref(), Some(archive[0]), "asked: {place}");
        assert_cost(place, &seen, Item::DownloadTraffic, archive[1]);
        assert_cost(place, &seen, Item::DownloadRequests, "-");
        assert_cost(place, &seen, Item::Restoration, "-");
        let seen = of("DEEP_ARCHIVE");
        let per_month = seen.lines[0].per_month.as_ref();
        let per_month = per_month
            .and_then(|cost| cost.high)
            .map(|amount| amount.to_string());
        assert_eq!(
            per_month.unwrap_or_else(|| "-".to_owned()),
            deep,
            "asked: {place}"
        );
    }
    assert_eq!(PriceTable::default().regions().count(), rows.len());
}

#[test]
fn storage_is_billed_by_size_class_and_day() {
    let kept = |name, sizes: &[u64], days| {
        let quantities = Quantities::none(region("ap-guangzhou"));
        estimate(quantities.with_objects(objects(name, sizes)).kept_for(days))
    };
    let cases: [(&str, &[u64], u32, &str); 10] = [
        // 50 × 0.024
        ("STANDARD", &[50 * GIB], 30, "1.20"),
        // 50 × 0.024 / 30 = 0.04
        ("STANDARD", &[50 * GIB], 1, "0.04"),
        // (50 + 20) × 0.024 × 365 / 30 = 20.44
        ("STANDARD", &[50 * GIB, 20 * GIB], 365, "20.44"),
        ("STANDARD", &[50 * GIB], 0, "0.00"),
        // 1 GB is 1024-based: 10^9 bytes are 0.931322… GiB, × 0.024 = 0.0223517…
        ("STANDARD", &[1_000_000_000], 30, "0.022352"),
        // Billed for 30 days at least: 100 × 0.018, also after 10 days; 60 days are two months.
        ("STANDARD_IA", &[100 * GIB], 10, "1.80"),
        ("STANDARD_IA", &[100 * GIB], 60, "3.60"),
        // Billed as 64 KiB at least: 16384 × 64 KiB are 1 GiB, × 0.018; as 1 KiB each it would be a 64th.
        ("STANDARD_IA", &[1024; 16384], 30, "0.018"),
        // 90 days at least: 100 × 0.005 × 3; 180 days: 100 × 0.002 × 6.
        ("ARCHIVE", &[100 * GIB], 1, "1.50"),
        ("DEEP_ARCHIVE", &[100 * GIB], 1, "1.20"),
    ];
    for (name, sizes, days, expected) in cases {
        let seen = kept(name, sizes, days);
        assert_cost(
            &format!("{name}, {days} days"),
            &seen,
            Item::Storage,
            expected,
        );
    }
    let line = &kept("STANDARD", &[50 * GIB], 90).lines[0];
    let shown = |cost: &Option<Cost>| {
        cost.as_ref()
            .and_then(|cost| cost.high)
            .map(|high| high.to_string())
    };
    // 50 × 0.024 = 1.20 a month, a thirtieth of it a day.
    assert_eq!(shown(&line.per_month).as_deref(), Some("1.20"));
    assert_eq!(shown(&line.per_day).as_deref(), Some("0.04"));
}

#[test]
fn upload_traffic_is_free_even_where_no_price_is_known() {
    let export = ExportSize {
        format: ImageFormat::Raw,
        disks_gib: &[500],
        looks: Bounds::exact(1),
        keeps_record: false,
    };
    for place in ["ap-guangzhou", "ap-jakarta"] {
        let none = Quantities::none(region(place));
        let seen = estimate(none.with_export(&export, &StorageClass::standard()));
        assert_cost(place, &seen, Item::UploadTraffic, "0.00");
    }
}

#[test]
fn download_traffic_is_free_on_the_internal_network_and_paid_for_on_the_public_one() {
    // 10 × 0.10; and on top of that 10 × 0.07 from inside the mainland, 10 × 0.18 from elsewhere.
    for (route, traffic, acceleration) in [
        (Route::Internal, "0.00", "none"),
        (Route::Public, "1.00", "none"),
        (Route::Acceleration, "1.00", "0.70..1.80"),
    ] {
        let seen = estimate(round("ap-guangzhou", "STANDARD", route));
        assert_cost(&format!("{route:?}"), &seen, Item::DownloadTraffic, traffic);
        assert_cost(
            &format!("{route:?}"),
            &seen,
            Item::AccelerationTraffic,
            acceleration,
        );
    }
    // Free as well where no price is known; what reading costs is no traffic.
    let seen = estimate(round("ap-jakarta", "STANDARD", Route::Internal));
    assert_cost("ap-jakarta", &seen, Item::DownloadTraffic, "0.00");
    let seen = estimate(round("ap-guangzhou", "STANDARD_IA", Route::Internal));
    assert_cost("STANDARD_IA", &seen, Item::Retrieval, "0.02");
}

#[test]
fn requests_are_counted_by_purpose() {
    let export = ExportSize {
        format: ImageFormat::Raw,
        disks_gib: &[50, 20],
        looks: Bounds::between(1, 100),
        keeps_record: true,
    };
    let none = Quantities::none(region("ap-guangzhou"));
    let quantities = none
        .with_export(&export, &StorageClass::standard())
        .with_download(Route::Public, 8 << 20);
    let seen: Vec<(Purpose, u64, u64)> = quantities
        .requests
        .iter()
        .map(|requests| (requests.purpose, requests.count.low, requests.count.high))
        .collect();
    assert_eq!(
        seen,
        [
            // In 5 GiB parts 10 + 4, in 1 MiB parts 10 000 (the most there are) twice; 2 more for each file.
            (Purpose::Export, 14 + 4, 20_000 + 4),
            // 3 or 4, HEAD of two names of two disks; the record's 4 to 7.
            (Purpose::Checks, 7 + 4, 8 + 7),
            // A look: 4 HEAD, 1 listing; and 2 listings of parts.
            (Purpose::Watch, 5, 700),
            // 50 GiB in 6400 parts of 8 MiB, 20 GiB in 2560; a HEAD each, and a list of buckets each at most.
            (Purpose::Download, 8962, 8964),
        ]
    );
    // (18 + 11 + 5 + 8962) and (20004 + 15 + 700 + 8964), × 0.002 / 10 000
    let requests = |seen: &Estimate| {
        let lines = seen.lines.iter().filter(|line| line.unit == Unit::Requests);
        let cost = Cost::sum(lines.map(|line| &line.cost));
        (
            cost.low.map(|low| low.to_string()),
            cost.high.map(|high| high.to_string()),
        )
    };
    // Each line is rounded up by itself: 0.0000036, 0.0000022, 0.000001, 0.0017924 and
    // 0.0040008, 0.000003, 0.00014, 0.0017928.
    let (low, high) = requests(&estimate(quantities));
    assert_eq!(low.as_deref(), Some("0.001801"));
    assert_eq!(high.as_deref(), Some("0.005937"));
}

#[test]
fn small_files_may_be_written_by_a_single_request() {
    for (gib, low, high) in [
        (0, 1, 3),
        (1, 1, 1026),
        (5, 1, 5122),
        (6, 4, 6146),
        (500, 102, 10_002),
    ] {
        let export = ExportSize {
            format: ImageFormat::Raw,
            disks_gib: &[gib],
            looks: Bounds::exact(1),
            keeps_record: false,
        };
        let none = Quantities::none(region("ap-guangzhou"));
        let seen = none.with_export(&export, &StorageClass::standard());
        assert_eq!(
            seen.requests[0].count,
            Bounds { low, high },
            "asked: {gib} GiB"
        );
    }
}

#[test]
fn formats_that_leave_zeros_out_have_two_bounds() {
    assert_eq!(
        file_bytes(ImageFormat::Raw, 50 * GIB),
        Bounds::exact(50 * GIB)
    );
    for format in [ImageFormat::Qcow2, ImageFormat::Vhd, ImageFormat::Vmdk] {
        let Bounds { low, high } = file_bytes(format, 64 * GIB);
        assert_eq!((low, high), (0, 66 * GIB + (4 << 20)), "{format}");
    }
}

#[test]
fn what_is_unknown_is_never_zero() {
    for (asked, quantities, expected) in [
        (
            "a region",
            round("ap-jakarta", "STANDARD", Route::Public),
            "no region `ap-jakarta`",
        ),
        (
            "a class",
            round("ap-guangzhou", "MAZ_STANDARD", Route::Public),
            "no storage class MAZ_STANDARD",
        ),
        (
            "a price",
            round("ap-tokyo", "DEEP_ARCHIVE", Route::Public),
            "no price for storage of DEEP_ARCHIVE",
        ),
    ] {
        let seen = estimate(quantities);
        let storage = &seen.lines[0];
        assert_eq!(
            (storage.cost.low, storage.cost.high),
            (None, None),
            "asked: {asked}"
        );
        assert_eq!(seen.total.high, None, "asked: {asked}");
        let reason = seen.total.reason.unwrap_or_default();
        assert!(reason.contains(expected), "asked: {asked}, seen: {reason}");
    }
    // What is known of the rest is told, and is no total: DEEP_ARCHIVE has no egress of its own, so 10 × 0.07.
    let total = estimate(round("ap-tokyo", "DEEP_ARCHIVE", Route::Public)).total;
    let known = total.known_part_at_least.map(|known| known.to_string());
    assert_eq!((total.low, known.as_deref()), (None, Some("0.70")));
    // Of this one nothing is known but what is free for everybody, which is not said as a sum of zero.
    let total = estimate(round("ap-jakarta", "STANDARD", Route::Internal)).total;
    assert_eq!((total.low, total.known_part_at_least), (None, None));
    assert!(total.lacks_price);
    // No price file can make a number smaller.
    let total = estimate(
        Quantities::none(region("ap-guangzhou"))
            .with_objects(objects("STANDARD", &[u64::MAX; 60]))
            .kept_for(u32::MAX),
    )
    .total;
    assert_eq!(total.reason.as_deref(), Some("it is more than any bill"));
    assert!(!total.lacks_price);
}

#[test]
fn a_budget_holds_the_upper_end_and_refuses_what_is_unknown() {
    let budget = |limit: &str| Budget {
        limit: Some(limit.parse().expect("an amount")),
        ..Budget::default()
    };
    // 2.40 + 0.20 + 1.00 + (0.70 to 1.80)
    let total = estimate(round("ap-guangzhou", "STANDARD", Route::Acceleration)).total;
    assert_eq!(budget("5.40").require(&total), Ok(()));
    let over = budget("5.399999")
        .require(&total)
        .expect_err("a millionth more");
    assert!(
        over.evidence.contains("may cost 5.40 USD"),
        "{}",
        over.evidence
    );
    assert!(over.evidence.contains("2023-07-10"), "{}", over.evidence);
    let total = estimate(round("ap-jakarta", "STANDARD", Route::Public)).total;
    let over = budget("1000000").require(&total).expect_err("unknown");
    assert!(
        over.evidence.contains("ap-jakarta") && over.remedy.contains("--prices"),
        "{over:?}"
    );
    assert_eq!(
        Budget::default().require(&total),
        Ok(()),
        "nobody set a limit"
    );
}

#[test]
fn a_resume_saves_the_traffic_and_not_more() {
    let guangzhou = region("ap-guangzhou");
    let said = |route, sizes: &[u64]| {
        saving(
            &PriceTable::default(),
            &guangzhou,
            route,
            objects("STANDARD", sizes),
        )
    };
    // 3 × 0.10
    let line = said(Route::Public, &[2 * GIB, GIB]).expect("something");
    assert!(
        line.starts_with("3.00 GiB were here already") && line.contains("0.30 USD"),
        "{line}"
    );
    let line = said(Route::Internal, &[GIB]).expect("something");
    assert!(line.contains("free"), "{line}");
    assert_eq!(said(Route::Public, &[0]), None);
}

#[test]
fn sizes_are_shown_rounded_up() {
    for (bytes, shown) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1025, "1.01 KiB"),
        (50 * GIB, "50.00 GiB"),
        (u64::MAX, "16777216.00 TiB"),
    ] {
        assert_eq!(size(bytes), shown);
    }
}
