//! Quantities times prices: the lines of an estimate, and their sum.

use std::borrow::Borrow;

use serde::Serialize;

use super::money::{Amount, Price};
use super::prices::{Charge, PriceTable};
use super::quantities::{Bounds, Purpose, Quantities, Route, StoredObject};
use crate::model::{Region, StorageClass};

/// COS bills storage by the day, at a thirtieth of the price of a month.
const DAYS_OF_A_MONTH: u32 = 30;
const REQUESTS_UNIT: u128 = 10_000;
const GIB: u128 = 1 << 30;
const TOO_MUCH: &str = "it is more than any bill";

/// What something costs, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Not less than this; `None` where it is not known, or a part of it is not.
    pub low: Option<Amount>,
    /// Not more than this; `None` where it is not known, or a part of it is not.
    pub high: Option<Amount>,
    /// What the known parts of an unknown sum cost at least, where that is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_part_at_least: Option<Amount>,
    /// Why it is not known.
    pub reason: Option<String>,
    /// Whether a price file could say what is missing.
    #[serde(skip)]
    pub lacks_price: bool,
}

impl Cost {
    /// What costs nothing by the rules, whatever the prices are.
    const FREE: Self = Self {
        low: Some(Amount::ZERO),
        high: Some(Amount::ZERO),
        known_part_at_least: None,
        reason: None,
        lacks_price: false,
    };

    /// A cost that nobody can tell.
    #[must_use]
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self {
            low: None,
            high: None,
            known_part_at_least: None,
            reason: Some(reason.into()),
            lacks_price: false,
        }
    }

    fn between(low: Option<Amount>, high: Option<Amount>) -> Self {
        match (low, high) {
            (Some(low), Some(high)) => Self {
                low: Some(low),
                high: Some(high),
                ..Self::FREE
            },
            _ => Self::unknown(TOO_MUCH),
        }
    }

    /// The sum. Where a part is unknown it is, too, and says what the others cost at least.
    #[must_use]
    pub fn sum<C: Borrow<Self>>(parts: impl IntoIterator<Item = C>) -> Self {
        let (mut low, mut high) = (Some(Amount::ZERO), Some(Amount::ZERO));
        let mut reasons: Vec<String> = Vec::new();
        let mut lacks_price = false;
        for part in parts {
            let part = part.borrow();
            let least = part.low.or(part.known_part_at_least).unwrap_or_default();
            lacks_price |= part.lacks_price;
            low = low.and_then(|low| low.checked_add(least));
            high = high.and_then(|high| high.checked_add(part.high?));
            if let Some(reason) = part.reason.as_deref()
                && !reasons.iter().any(|known| known == reason)
            {
                reasons.push(reason.to_owned());
            }
        }
        if let (Some(_), Some(_)) = (low, high) {
            return Self::between(low, high);
        }
        let reason = match reasons.is_empty() {
            true => TOO_MUCH.to_owned(),
            false => reasons.join("; "),
        };
        Self {
            // Nothing known is not the same as a known nothing.
            known_part_at_least: low.filter(|low| *low > Amount::ZERO),
            lacks_price,
            ..Self::unknown(reason)
        }
    }
}

/// What a line of an estimate is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// What is kept in the bucket, by size, class and region.
    Storage,
    /// What CVM uploads: free on both networks.
    UploadTraffic,
    /// Requests by which CVM writes the files.
    ExportRequests,
    /// Requests by which this tool checks and keeps its record.
    CheckRequests,
    /// Requests by which this tool watches.
    WatchRequests,
    /// Requests of the download.
    DownloadRequests,
    /// What leaves the bucket: free on the internal network, paid for on the public one.
    DownloadTraffic,
    /// What the acceleration costs on top of the traffic.
    AccelerationTraffic,
    /// What reading costs in some classes.
    Retrieval,
    /// What it costs to make objects of some classes readable.
    Restoration,
}

impl Item {
    /// Whether it comes with the download of the files.
    #[must_use]
    pub const fn is_of_download(self) -> bool {
        match self {
            Self::DownloadRequests
            | Self::DownloadTraffic
            | Self::AccelerationTraffic
            | Self::Retrieval
            | Self::Restoration => true,
            Self::Storage
            | Self::UploadTraffic
            | Self::ExportRequests
            | Self::CheckRequests
            | Self::WatchRequests => false,
        }
    }
}

/// What a quantity counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Requests.
    Requests,
}

/// What a price is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PricedUnit {
    /// A GiB for a month of 30 days.
    #[serde(rename = "GiB-month")]
    GibMonth,
    /// A GiB.
    #[serde(rename = "GiB")]
    Gib,
    /// 10 000 requests.
    #[serde(rename = "10000 requests")]
    TenThousandRequests,
}

/// A price, or the two between which it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UnitPrice {
    /// Not less than this.
    pub low: Price,
    /// Not more than this.
    pub high: Price,
    /// What it is for.
    pub unit: PricedUnit,
}

/// One line of an estimate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What it is about.
    pub item: Item,
    /// The storage class, where the price depends on it.
    pub storage_class: Option<StorageClass>,
    /// How much there is.
    pub quantity: Bounds,
    /// Of what.
    pub unit: Unit,
    /// The days that are billed; of storage alone.
    pub days: Option<u32>,
    /// The price; `None` where there is none, or none is known.
    pub price: Option<UnitPrice>,
    /// What it costs a day; of storage alone.
    pub per_day: Option<Cost>,
    /// What it costs a month of 30 days; of storage alone.
    pub per_month: Option<Cost>,
    /// What it costs.
    pub cost: Cost,
}

impl StoredObject {
    /// What keeping it in `region` costs a month of 30 days.
    #[must_use]
    pub fn cost_per_month(self, region: &Region, prices: &PriceTable) -> Cost {
        let kept = Quantities::none(region.clone())
            .with_objects([self])
            .kept_for(DAYS_OF_A_MONTH);
        let lines = Estimate::of(kept, prices).lines.into_iter();
        let stored = lines.filter(|line| line.item == Item::Storage);
        // Without a price there is none for the month, and the line says why.
        let costs = stored.map(|line| line.per_month.unwrap_or(line.cost));
        Cost::sum(costs)
    }
}

/// What an export, or a download, costs.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// What it takes.
    pub quantities: Quantities,
    /// What each part of it costs.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub total: Cost,
}

impl Estimate {
    /// What `quantities` cost by `prices`.
    #[must_use]
    pub fn of(quantities: Quantities, prices: &PriceTable) -> Self {
        let pricing = Pricing {
            quantities: &quantities,
            prices,
        };
        let mut lines = pricing.storage();
        lines.extend(pricing.upload());
        lines.extend(pricing.requests());
        lines.extend(pricing.fetched());
        let total = Cost::sum(lines.iter().map(|line| &line.cost));
        Self {
            quantities,
            lines,
            total,
        }
    }
}

impl Estimate {
    /// The sum of what the download of the files does not add.
    #[must_use]
    pub fn without_download(&self) -> Cost {
        let lines = self.lines.iter();
        let lines = lines.filter(|line| !line.item.is_of_download());
        Cost::sum(lines.map(|line| &line.cost))
    }
}

struct Pricing<'a> {
    quantities: &'a Quantities,
    prices: &'a PriceTable,
}

impl Pricing<'_> {
    fn price(&self, class: &StorageClass, charge: Charge) -> Result<Price, String> {
        self.prices.price(&self.quantities.region, class, charge)
    }

    /// Storage is billed by size and day; a class may have a smallest size and a shortest time.
    fn storage(&self) -> Vec<Line> {
        let lines = by_class(&self.quantities.stored).into_iter();
        lines
            .map(|(class, objects)| {
                let quantity = objects.iter().copied().sum();
                let (price, rules) = match (
                    self.price(&class, Charge::Storage),
                    self.prices.rules(&class),
                ) {
                    (Ok(price), Ok(rules)) => (price, rules),
                    (Err(reason), _) | (_, Err(reason)) => {
                        let line = Line::new(Item::Storage, Some(class), quantity, Unit::Bytes);
                        return line.unpriced(reason);
                    }
                };
                let least = rules.minimum_object_bytes;
                let billed = objects
                    .iter()
                    .map(|bytes| Bounds::between(bytes.low.max(least), bytes.high.max(least)));
                let billed: Bounds = billed.sum();
                let days = self.quantities.days.max(rules.minimum_days);
                let unit = GIB * u128::from(DAYS_OF_A_MONTH);
                let of_days = |days: u32| {
                    let of = |bytes: u64| price.of(u128::from(bytes) * u128::from(days), unit);
                    Cost::between(of(billed.low), of(billed.high))
                };
                Line {
                    days: Some(days),
                    price: Some(UnitPrice::exact(price, PricedUnit::GibMonth)),
                    per_day: Some(of_days(1)),
                    per_month: Some(of_days(DAYS_OF_A_MONTH)),
                    cost: of_days(days),
                    ..Line::new(Item::Storage, Some(class), quantity, Unit::Bytes)
                }
            })
            .collect()
    }

    /// Uploads are free on the private and on the public network.
    fn upload(&self) -> Option<Line> {
        let quantity = self.quantities.uploaded_bytes?;
        Some(Line::new(Item::UploadTraffic, None, quantity, Unit::Bytes))
    }

    /// Requests are billed by their number; those that fail as well.
    fn requests(&self) -> Vec<Line> {
        let requests = self.quantities.requests.iter();
        requests
            .map(|requests| {
                let item = match requests.purpose {
                    Purpose::Export => Item::ExportRequests,
                    Purpose::Checks => Item::CheckRequests,
                    Purpose::Watch => Item::WatchRequests,
                    Purpose::Download => Item::DownloadRequests,
                };
                let class = requests.class.clone();
                let price = self.price(&class, Charge::Requests);
                Line::new(item, Some(class), requests.count, Unit::Requests).priced(
                    price.map(|price| (price, price)),
                    PricedUnit::TenThousandRequests,
                )
            })
            .collect()
    }

    /// What comes over the internal network is free; over the public one it is paid for, and the
    /// acceleration on top of that. Some classes want something for being read, over whatever network.
    fn fetched(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for (class, objects) in by_class(&self.quantities.fetched) {
            let quantity: Bounds = objects.into_iter().sum();
            let line = |item| Line::new(item, Some(class.clone()), quantity, Unit::Bytes);
            let exact = |price: Result<Price, String>| price.map(|price| (price, price));
            lines.push(match self.quantities.route {
                Route::Internal => line(Item::DownloadTraffic),
                Route::Public | Route::Acceleration => line(Item::DownloadTraffic)
                    .priced(exact(self.price(&class, Charge::Egress)), PricedUnit::Gib),
            });
            if self.quantities.route == Route::Acceleration {
                let price = self.prices.acceleration(&self.quantities.region);
                lines.push(line(Item::AccelerationTraffic).priced(price, PricedUnit::Gib));
            }
            match self.prices.rules(&class) {
                Ok(rules) => {
                    if rules.has_retrieval {
                        let price = self.price(&class, Charge::Retrieval);
                        lines.push(line(Item::Retrieval).priced(exact(price), PricedUnit::Gib));
                    }
                    if rules.has_restoration {
                        let reason = format!("no price is known for restoring {class} objects");
                        lines.push(line(Item::Restoration).unknown(reason));
                    }
                }
                Err(reason) => lines.push(line(Item::Retrieval).unpriced(reason)),
            }
        }
        lines
    }
}

impl UnitPrice {
    fn exact(price: Price, unit: PricedUnit) -> Self {
        Self {
            low: price,
            high: price,
            unit,
        }
    }
}

impl Line {
    /// A line that costs nothing.
    fn new(item: Item, storage_class: Option<StorageClass>, quantity: Bounds, unit: Unit) -> Self {
        Self {
            item,
            storage_class,
            quantity,
            unit,
            days: None,
            price: None,
            per_day: None,
            per_month: None,
            cost: Cost::FREE,
        }
    }

    fn unknown(self, reason: String) -> Self {
        Self {
            cost: Cost::unknown(reason),
            ..self
        }
    }

    /// A line whose price is missing in the table.
    fn unpriced(mut self, reason: String) -> Self {
        self.cost = Cost {
            lacks_price: true,
            ..Cost::unknown(reason)
        };
        self
    }

    /// The same line for a price that lies between two, or for one that is not known.
    fn priced(self, price: Result<(Price, Price), String>, unit: PricedUnit) -> Self {
        let (low, high) = match price {
            Ok(prices) => prices,
            Err(reason) => return self.unpriced(reason),
        };
        let units = match unit {
            PricedUnit::TenThousandRequests => REQUESTS_UNIT,
            PricedUnit::Gib => GIB,
            PricedUnit::GibMonth => GIB * u128::from(DAYS_OF_A_MONTH),
        };
        Self {
            price: Some(UnitPrice { low, high, unit }),
            cost: Cost::between(
                low.of(u128::from(self.quantity.low), units),
                high.of(u128::from(self.quantity.high), units),
            ),
            ..self
        }
    }
}

/// The sizes of `objects` by their classes, in the order in which these first stand there.
fn by_class(objects: &[StoredObject]) -> Vec<(StorageClass, Vec<Bounds>)> {
    let mut groups: Vec<(StorageClass, Vec<Bounds>)> = Vec::new();
    for StoredObject { class, bytes } in objects {
        match groups.iter_mut().find(|(known, _)| known == class) {
            Some((_, sizes)) => sizes.push(*bytes),
            None => groups.push((class.clone(), vec![*bytes])),
        }
    }
    groups
}
