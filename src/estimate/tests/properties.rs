//! What holds for every estimate.

use proptest::prelude::*;

use super::*;

/// Any export, with or without a download of it.
fn exports() -> impl Strategy<
    Value = (
        String,
        String,
        ImageFormat,
        Vec<u64>,
        Bounds,
        u32,
        Option<Route>,
    ),
> {
    let places: Vec<String> = PriceTable::default()
        .regions()
        .map(ToString::to_string)
        .collect();
    (
        prop::sample::select([places, vec!["ap-jakarta".to_owned()]].concat()),
        prop::sample::select(vec![
            "STANDARD",
            "STANDARD_IA",
            "ARCHIVE",
            "DEEP_ARCHIVE",
            "MAZ_STANDARD",
        ]),
        prop::sample::select(ImageFormat::ALL),
        prop::collection::vec(prop_oneof![0..600_u64, any::<u64>()], 0..7),
        (0..1000_u64, 0..1_000_000_u64).prop_map(|(low, high)| Bounds::between(low, high)),
        prop_oneof![0..400_u32, any::<u32>()],
        prop::option::of(prop::sample::select(vec![
            Route::Internal,
            Route::Public,
            Route::Acceleration,
        ])),
    )
        .prop_map(|(place, name, format, disks, looks, days, route)| {
            (place, name.to_owned(), format, disks, looks, days, route)
        })
}

fn export(
    place: &str,
    name: &str,
    format: ImageFormat,
    disks_gib: &[u64],
    looks: Bounds,
    days: u32,
    route: Option<Route>,
) -> Estimate {
    let size = ExportSize {
        format,
        disks_gib,
        looks,
        keeps_record: true,
    };
    let quantities = Quantities::none(region(place))
        .with_export(&size, &class(name))
        .kept_for(days);
    estimate(match route {
        None => quantities,
        Some(route) => quantities.with_download(route, 8 << 20),
    })
}

/// An amount as whole millionths, by another way than that of the code: from what is shown.
fn millionths(amount: Amount) -> i128 {
    let text = amount.to_string();
    let (whole, fraction) = text.split_once('.').expect("decimals");
    format!("{whole}{fraction:0<6}").parse().expect("a number")
}

proptest! {
    #[test]
    fn no_line_is_negative_and_the_total_is_the_sum_of_its_lines(
        (place, name, format, disks, looks, days, route) in exports()
    ) {
        let seen = export(&place, &name, format, &disks, looks, days, route);
        let (mut low, mut high) = (0, Some(0));
        for line in &seen.lines {
            let ends = (line.cost.low.map(millionths), line.cost.high.map(millionths));
            prop_assert!(ends.0.unwrap_or(0) >= 0 && ends.0.unwrap_or(0) <= ends.1.unwrap_or(i128::MAX));
            prop_assert_eq!(ends.1.is_none(), line.cost.reason.is_some());
            low += ends.0.unwrap_or(0);
            high = high.zip(ends.1).map(|(sum, end)| sum + end);
        }
        // A sum that is more than any bill is unknown as well.
        let least = u64::try_from(low).ok().map(i128::from);
        let (whole, part) = match seen.total.high {
            Some(_) => (least, None),
            None => (None, least.filter(|least| *least > 0)),
        };
        prop_assert_eq!(seen.total.low.map(millionths), whole);
        prop_assert_eq!(seen.total.known_part_at_least.map(millionths), part);
        prop_assert_eq!(
            seen.total.high.map(millionths),
            high.and_then(|high| u64::try_from(high).ok()).map(i128::from)
        );
        prop_assert_eq!(seen.total.high.is_none(), seen.total.reason.is_some());
    }

    #[test]
    fn more_never_costs_less(
        (place, name, format, disks, looks, days, route) in exports(),
        which in any::<prop::sample::Index>(),
        more in 0..10_000_u64,
    ) {
        let before = export(&place, &name, format, &disks, looks, days, route).total;
        let mut larger = disks.clone();
        if let Some(position) = (!disks.is_empty()).then(|| which.index(disks.len())) {
            larger[position] = larger[position].saturating_add(more);
        }
        for after in [
            export(&place, &name, format, &larger, looks, days, route).total,
            export(&place, &name, format, &disks, looks, days.saturating_add(1), route).total,
        ] {
            // What is more than any bill has no end to compare.
            if let (Some(before), Some(after)) = (before.high, after.high) {
                prop_assert!(before <= after, "{} and then {}", before, after);
            }
            if let (Some(_), Some(_), Some(before), Some(after)) = (before.high, after.high, before.low, after.low) {
                prop_assert!(before <= after, "{} and then {}", before, after);
            }
        }
    }
}
