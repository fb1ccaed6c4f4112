//! The price table: data of this package, which a file can correct or replace.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::value::Datetime;

use super::money::{Currency, Price};
use crate::model::{CloudText, InvalidValue, Region, StorageClass};

/// The table that comes with this version.
static BUILT_IN: LazyLock<PriceTable> = LazyLock::new(|| {
    let text = include_str!("prices.toml");
    PriceTable::parse(text, NaiveDate::MAX).expect("a test reads the table of this package")
});

/// Prices by region and storage class, in one currency.
#[derive(Clone, Debug)]
pub struct PriceTable {
    currency: Currency,
    sheets: Vec<Sheet>,
    classes: BTreeMap<StorageClass, SaidOfClass>,
    regions: BTreeMap<Region, RegionPrices>,
}

/// Where prices come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sheet {
    /// The day on which they were valid, as `2023-07-10`.
    pub date: CloudText,
    /// Who says so.
    pub source: CloudText,
    /// For whom they do not hold, and what else must be known of them.
    pub note: Option<CloudText>,
    /// Whether somebody has compared them with those of today; `None` where it does not say.
    pub confirmed: Option<bool>,
}

/// What one file says of a storage class.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SaidOfClass {
    minimum_days: Option<u32>,
    minimum_object_bytes: Option<u64>,
    has_retrieval: Option<bool>,
    has_restoration: Option<bool>,
}

/// What holds for a storage class in every region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClassRules {
    /// What is deleted earlier is billed for so many days.
    pub minimum_days: u32,
    /// What is smaller is billed for so many bytes.
    pub minimum_object_bytes: u64,
    /// Whether reading costs something beside requests and traffic.
    pub has_retrieval: bool,
    /// Whether an object must be restored before it can be read, which has a price of its own.
    pub has_restoration: bool,
}

/// Prices of one region.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RegionPrices {
    egress: Option<Price>,
    acceleration: Option<Price>,
    acceleration_mainland: Option<Price>,
    classes: BTreeMap<StorageClass, ClassPrices>,
}

/// Prices of one storage class in one region.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClassPrices {
    storage: Option<Price>,
    requests: Option<Price>,
    retrieval: Option<Price>,
    egress: Option<Price>,
}

/// A price file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    currency: Currency,
    date: Spanned<Datetime>,
    source: Spanned<String>,
    note: Option<String>,
    confirmed: Option<bool>,
    #[serde(default)]
    classes: BTreeMap<StorageClass, SaidOfClass>,
    #[serde(default)]
    regions: BTreeMap<Region, RegionPrices>,
}

/// What a price is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    /// A GiB and month.
    Storage,
    /// 10 000 requests.
    Requests,
    /// A GiB that is read.
    Retrieval,
    /// A GiB that leaves over the public network.
    Egress,
}

impl fmt::Display for Charge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Storage => "storage",
            Self::Requests => "requests",
            Self::Retrieval => "retrieval",
            Self::Egress => "egress",
        })
    }
}

/// What is wrong with a price file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", line.map_or_else(String::new, |line| format!("line {line}: ")))]
pub struct InvalidPrices {
    line: Option<usize>,
    problem: CloudText,
}

impl InvalidPrices {
    fn at(text: &str, error: &toml::de::Error) -> Self {
        Self {
            line: error.span().map(|span| line_of(text, &span)),
            problem: CloudText::new(error.message()),
        }
    }

    fn of<T>(text: &str, value: &Spanned<T>, problem: &str) -> Self {
        Self {
            line: Some(line_of(text, &value.span())),
            problem: problem.into(),
        }
    }
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.get(..span.start).unwrap_or(text);
    before.matches('\n').count() + 1
}

impl Default for PriceTable {
    /// The table that comes with this version.
    fn default() -> Self {
        BUILT_IN.clone()
    }
}

impl PriceTable {
    /// Reads a price file, whose prices cannot be of a day after `today`.
    ///
    /// # Errors
    /// [`InvalidPrices`] with the line where it is known.
    pub fn parse(text: &str, today: NaiveDate) -> Result<Self, InvalidPrices> {
        let document: Document =
            toml::from_str(text).map_err(|error| InvalidPrices::at(text, &error))?;
        let invalid_date = |problem| InvalidPrices::of(text, &document.date, problem);
        let date = document.date.get_ref().date;
        let date = date.ok_or_else(|| invalid_date("`date` is a day, such as 2023-07-10"))?;
        let (year, month, day) = (i32::from(date.year), date.month.into(), date.day.into());
        // Elsewhere it is a day later than here.
        let last = today.succ_opt().unwrap_or(today);
        if NaiveDate::from_ymd_opt(year, month, day).is_none_or(|date| date > last) {
            return Err(invalid_date("`date` is a day that has not come"));
        }
        let source = document.source.get_ref();
        if source.trim().is_empty() {
            let problem = "`source` says nothing of where the prices come from";
            return Err(InvalidPrices::of(text, &document.source, problem));
        }
        let sheet = Sheet {
            date: CloudText::new(&date.to_string()),
            source: CloudText::new(source),
            note: document.note.as_deref().map(CloudText::new),
            confirmed: document.confirmed,
        };
        Ok(Self {
            currency: document.currency,
            sheets: vec![sheet],
            classes: document.classes,
            regions: document.regions,
        })
    }

    /// This table with what `other` says instead. In the same currency what `other` leaves out stays;
    /// in another one no price of this table does, as sums of both would mean nothing.
    #[must_use]
    pub fn corrected_by(mut self, other: Self) -> Self {
        if self.currency != other.currency {
            self.currency = other.currency;
            self.sheets.clear();
            self.regions.clear();
        }
        self.sheets.extend(other.sheets);
        for (class, said) in other.classes {
            let own = self.classes.entry(class).or_default();
            own.minimum_days = said.minimum_days.or(own.minimum_days);
            own.minimum_object_bytes = said.minimum_object_bytes.or(own.minimum_object_bytes);
            own.has_retrieval = said.has_retrieval.or(own.has_retrieval);
            own.has_restoration = said.has_restoration.or(own.has_restoration);
        }
        for (region, prices) in other.regions {
            let own = self.regions.entry(region).or_default();
            own.egress = prices.egress.or(own.egress);
            own.acceleration = prices.acceleration.or(own.acceleration);
            own.acceleration_mainland = prices.acceleration_mainland.or(own.acceleration_mainland);
            for (class, prices) in prices.classes {
                let own = own.classes.entry(class).or_default();
                own.storage = prices.storage.or(own.storage);
                own.requests = prices.requests.or(own.requests);
                own.retrieval = prices.retrieval.or(own.retrieval);
                own.egress = prices.egress.or(own.egress);
            }
        }
        self
    }

    /// The regions that it has prices for.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.keys()
    }

    /// The currency of every price.
    #[must_use]
    pub fn currency(&self) -> &Currency {
        &self.currency
    }

    /// Where the prices come from; a later sheet wins over an earlier one.
    #[must_use]
    pub fn sheets(&self) -> &[Sheet] {
        &self.sheets
    }

    /// Where the prices come from, in words, and what they are worth.
    #[must_use]
    pub fn provenance(&self) -> String {
        let mut sheets = self.sheets.iter().rev();
        let mut text = String::new();
        if let Some(sheet) = sheets.next() {
            text = format!("prices of {}", sheet.in_words());
        }
        for sheet in sheets {
            text = format!(
                "{text} and, where these say nothing, of {}",
                sheet.in_words()
            );
        }
        text
    }

    /// Whether somebody has compared all prices with those of today; `None` where a sheet does not say.
    #[must_use]
    pub fn is_confirmed(&self) -> Option<bool> {
        let said = || self.sheets.iter().map(|sheet| sheet.confirmed);
        match said().any(|confirmed| confirmed == Some(false)) {
            true => Some(false),
            false => said()
                .all(|confirmed| confirmed == Some(true))
                .then_some(true),
        }
    }

    /// Whether an object of `class` must be restored before it can be read: as the table says, and of a
    /// class that it does not describe by the name, such as an archive in several zones.
    #[must_use]
    pub fn wants_restoration(&self, class: &StorageClass) -> bool {
        match self.rules(class) {
            Ok(rules) => rules.has_restoration,
            Err(_) => class.as_str().ends_with("ARCHIVE"),
        }
    }

    /// The storage classes that it describes.
    pub fn classes(&self) -> impl Iterator<Item = &StorageClass> {
        self.classes.keys()
    }

    /// What holds for `class` everywhere, or why that is not known.
    pub(super) fn rules(&self, class: &StorageClass) -> Result<ClassRules, String> {
        let said = self
            .classes
            .get(class)
            .ok_or_else(|| format!("the price table has no storage class {class}"))?;
        Ok(ClassRules {
            minimum_days: said.minimum_days.unwrap_or_default(),
            minimum_object_bytes: said.minimum_object_bytes.unwrap_or_default(),
            has_retrieval: said.has_retrieval.unwrap_or_default(),
            has_restoration: said.has_restoration.unwrap_or_default(),
        })
    }

    /// The price of `charge`, or why it is not known.
    pub(super) fn price(
        &self,
        region: &Region,
        class: &StorageClass,
        charge: Charge,
    ) -> Result<Price, String> {
        let prices = self.region(region)?;
        self.rules(class)?;
        let of_class = prices.classes.get(class);
        let price = match charge {
            Charge::Storage => of_class.and_then(|prices| prices.storage),
            Charge::Requests => of_class.and_then(|prices| prices.requests),
            Charge::Retrieval => of_class.and_then(|prices| prices.retrieval),
            Charge::Egress => of_class.and_then(|prices| prices.egress).or(prices.egress),
        };
        price.ok_or_else(|| {
            format!("the price table has no price for {charge} of {class} in `{region}`")
        })
    }

    /// The lowest and the highest price of the global acceleration, which depends on where the other end
    /// is; or why they are not known.
    pub(super) fn acceleration(&self, region: &Region) -> Result<(Price, Price), String> {
        let prices = self.region(region)?;
        let abroad = prices.acceleration.ok_or_else(|| {
            format!("the price table has no price for acceleration in `{region}`")
        })?;
        let mainland = prices.acceleration_mainland.unwrap_or(abroad);
        Ok((abroad.min(mainland), abroad.max(mainland)))
    }

    fn region(&self, region: &Region) -> Result<&RegionPrices, String> {
        self.regions
            .get(region)
            .ok_or_else(|| format!("the price table has no region `{region}`"))
    }
}

impl Sheet {
    fn in_words(&self) -> String {
        let Self { date, source, .. } = self;
        let confirmed = match self.confirmed {
            Some(true) => ", confirmed",
            Some(false) => ", unconfirmed today",
            // Of a person's own table that person knows.
            None => "",
        };
        format!("{date} ({source}){confirmed}")
    }
}

/// Reads a storage class as people write it.
///
/// # Errors
/// [`InvalidValue`] for what no class can be called.
pub fn parse_class(text: &str) -> Result<StorageClass, InvalidValue> {
    text.to_ascii_uppercase().replace('-', "_").parse()
}
