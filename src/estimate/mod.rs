//! What an export and a download cost: quantities first, then money, by a price table that is data.
//!
//! ```text
//! disks, objects, options ─► Quantities ─┐
//!                                        ├─► Estimate: lines (low, high or unknown) and their sum ─► Budget
//! prices.toml, --prices FILE ─► PriceTable ─┘
//! ```
//!
//! Pure: it knows neither the cloud nor the clock. The rules are those of the export guide (product page
//! 213/46841, "Fees"): storage by size, class and region; requests of export and download; upload traffic
//! free on both networks; download traffic free on the internal network and paid for on the public one.
//! What no price is known for is unknown, never zero.

mod costs;
mod money;
mod prices;
mod quantities;
#[cfg(test)]
mod tests;

pub use costs::{Cost, Estimate, Item, Line, PricedUnit, Unit, UnitPrice};
pub use money::{Amount, Currency, Price};
pub use prices::{InvalidPrices, PriceTable, Sheet, parse_class};
pub use quantities::{
    Bounds, ExportSize, Purpose, Quantities, Requests, Route, StoredObject, file_bytes,
};

use crate::error::{Error, ErrorKind};
use crate::model::{Region, StorageClass};

/// How long what is exported is counted as kept where nobody says how long: a month.
pub const DEFAULT_DAYS: u32 = 30;

/// What a run may cost, and by which prices.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// The prices.
    pub prices: PriceTable,
    /// The most that it may cost, in the currency of the prices; `None` for whatever it costs.
    pub limit: Option<Amount>,
}

/// Why something may not be done for its price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverBudget {
    /// What it costs and may cost, as a lower-case fragment.
    pub evidence: String,
    /// What to do about it.
    pub remedy: String,
}

impl Budget {
    /// Refuses what may cost more than the limit, and what nobody can tell the price of.
    ///
    /// # Errors
    /// [`OverBudget`] says which of the two it is.
    pub fn require(&self, cost: &Cost) -> Result<(), OverBudget> {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        let currency = self.prices.currency();
        let Some(high) = cost.high else {
            let reason = cost.reason.as_deref().unwrap_or("it is not known");
            return Err(OverBudget {
                evidence: format!("what it costs at most is unknown: {reason}"),
                remedy: match cost.lacks_price {
                    true => "give what is missing with `--prices FILE`, or leave `--max-cost` out",
                    false => "leave `--max-cost` out",
                }
                .to_owned(),
            });
        };
        if high <= limit {
            return Ok(());
        }
        Err(OverBudget {
            evidence: format!(
                "it may cost {high} {currency} by {}, and `--max-cost` allows {limit}",
                self.prices.provenance()
            ),
            remedy: "raise `--max-cost`, or look at the parts with `cvm-export estimate`"
                .to_owned(),
        })
    }
}

impl From<OverBudget> for Error {
    fn from(over: OverBudget) -> Self {
        Self::new(ErrorKind::Precondition, over.evidence).with_hint(over.remedy)
    }
}

impl Estimate {
    /// The quantities of an export, what it costs and by which prices, in one line.
    #[must_use]
    pub fn export_line(&self, prices: &PriceTable) -> String {
        let quantities = &self.quantities;
        let classes = classes(&quantities.stored);
        let fetched = match quantities.fetched.is_empty() {
            true => String::new(),
            false => format!(", {}", self.fetched_in_words()),
        };
        format!(
            "{} stored in {classes} of {} for {} days{fetched}, {}: {}",
            size_in_words(quantities.stored_bytes()),
            quantities.region,
            quantities.days,
            count(quantities.request_count()),
            self.total_in_words(prices)
        )
    }

    /// The quantities of a download, what it costs and by which prices, in one line.
    #[must_use]
    pub fn download_line(&self, prices: &PriceTable) -> String {
        format!(
            "{}, {}: {}",
            self.fetched_in_words(),
            count(self.quantities.request_count()),
            self.total_in_words(prices)
        )
    }

    fn fetched_in_words(&self) -> String {
        let route = match self.quantities.route {
            Route::Internal => "over the internal network",
            Route::Public => "over the public network",
            Route::Acceleration => "with acceleration",
        };
        let bytes = size_in_words(self.quantities.fetched_bytes());
        format!("{bytes} fetched {route}")
    }

    fn total_in_words(&self, prices: &PriceTable) -> String {
        let currency = prices.currency();
        let provenance = prices.provenance();
        match (&self.total.high, &self.total.reason) {
            (Some(high), _) => format!("at most {high} {currency} by {provenance}"),
            (None, reason) => {
                let reason = reason.as_deref().unwrap_or("not known");
                let known = self.total.known_part_at_least;
                let known = known.map_or_else(String::new, |least| {
                    format!("; the known part at least {least} {currency}")
                });
                format!("cost unknown: {reason}{known}; by {provenance}")
            }
        }
    }
}

/// What is said after a download that did not have to fetch `saved` of its objects' bytes, as an earlier
/// run had brought them: how much that is, and what it would have cost. `None` where it is nothing.
#[must_use]
pub fn saving(
    prices: &PriceTable,
    region: &Region,
    route: Route,
    saved: Vec<StoredObject>,
) -> Option<String> {
    let none = Quantities::none(region.clone());
    let quantities = none.fetching(saved, route, u64::MAX);
    let bytes = quantities.fetched_bytes().high;
    if bytes == 0 {
        return None;
    }
    let estimate = Estimate::of(quantities, prices);
    // Requests are left out: which of them the earlier run had made is not known.
    let traffic = estimate.lines.iter();
    let traffic = traffic.filter(|line| line.unit == Unit::Bytes);
    let cost = Cost::sum(traffic.map(|line| &line.cost));
    let money = match cost.high {
        Some(Amount::ZERO) => "which are free on this network".to_owned(),
        Some(high) => format!(
            "which would have cost {high} {} again by {}",
            prices.currency(),
            prices.provenance()
        ),
        None => {
            let reason = cost.reason.unwrap_or_default();
            format!("whose price is unknown: {reason}")
        }
    };
    Some(format!(
        "{} were here already and not fetched again, {money}",
        size(bytes)
    ))
}

/// The classes of `objects`, each once.
fn classes(objects: &[StoredObject]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for object in objects {
        let name = StorageClass::as_str(&object.class);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

fn count(requests: Bounds) -> String {
    match requests {
        Bounds { low, high } if low == high => format!("{low} requests"),
        Bounds { low, high } => format!("{low} to {high} requests"),
    }
}

/// A size for people, with "at most" where it is not known exactly.
fn size_in_words(bytes: Bounds) -> String {
    match bytes {
        Bounds { low, high } if low == high => size(high),
        Bounds { high, .. } => format!("at most {}", size(high)),
    }
}

/// A size for people, in 1024-based units with two decimals, rounded up: it stands after "at most".
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in units {
        if bytes >> shift > 0 {
            let hundredths = (u128::from(bytes) * 100).div_ceil(1 << shift);
            return format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100);
        }
    }
    format!("{bytes} B")
}
