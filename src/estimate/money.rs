//! Money as whole numbers of decimal parts: nothing here is a binary fraction, and sums are exact.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::model::InvalidValue;

/// Decimals of an [`Amount`]: a single request costs less than a cent by far.
const AMOUNT_DECIMALS: u32 = 6;
/// Decimals of a [`Price`].
const PRICE_DECIMALS: u32 = 9;
/// What one part of an amount is in parts of a price.
const PRICE_PARTS: u128 = 10_u128.pow(PRICE_DECIMALS - AMOUNT_DECIMALS);

/// An amount of money in whole millionths of its currency, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(u64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The sum; `None` where it is more than any bill.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }
}

/// The price of one unit in whole billionths of its currency, never negative. What a unit is stands
/// where the price stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(u64);

impl Price {
    /// What `quantity` costs where this is the price of `unit` of it: the exact result, rounded up to a
    /// whole millionth. `None` where it is more than any bill.
    #[must_use]
    pub(super) fn of(self, quantity: u128, unit: u128) -> Option<Amount> {
        let parts = quantity.checked_mul(u128::from(self.0))?;
        let amount = parts.div_ceil(unit.checked_mul(PRICE_PARTS)?);
        u64::try_from(amount).ok().map(Amount)
    }
}

/// Reads a decimal number as a whole number of its smallest parts.
fn parse(text: &str, decimals: u32) -> Result<u64, &'static str> {
    if text.starts_with('-') {
        return Err("it is negative");
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || text.ends_with('.') || !is_number(whole) || !is_number(fraction) {
        return Err("it is no decimal number");
    }
    let width = decimals as usize;
    if fraction.len() > width {
        return Err("it has too many decimals");
    }
    let digits = format!("{whole}{fraction:0<width$}");
    digits.parse().map_err(|_| "it is too large")
}

/// Writes a whole number of parts as a decimal number with at least two decimals.
fn write(parts: u64, decimals: u32, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let scale = 10_u64.pow(decimals);
    let fraction = format!("{:0width$}", parts % scale, width = decimals as usize);
    let rest = fraction[2..].trim_end_matches('0');
    formatter.pad(&format!("{}.{}{rest}", parts / scale, &fraction[..2]))
}

impl FromStr for Amount {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        parse(text, AMOUNT_DECIMALS)
            .map(Self)
            .map_err(|problem| InvalidValue::new("amount", text, problem, "2.50"))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.0, AMOUNT_DECIMALS, formatter)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Price {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        parse(text, PRICE_DECIMALS)
            .map(Self)
            .map_err(|problem| InvalidValue::new("price", text, problem, "0.024"))
    }
}

impl fmt::Display for Price {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.0, PRICE_DECIMALS, formatter)
    }
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Quoted;
        impl de::Visitor<'_> for Quoted {
            type Value = Price;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a price in quotes, such as \"0.024\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Price, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Quoted)
    }
}

/// A currency by its three letters (ISO 4217).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency(String);

impl TryFrom<String> for Currency {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Ok(Self(text));
        }
        let problem = "it has three capital letters";
        Err(InvalidValue::new("currency", &text, problem, "USD"))
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.0
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_in_decimals() {
        for (text, shown) in [
            ("0", "0.00"),
            ("5", "5.00"),
            ("1.5", "1.50"),
            ("0.000001", "0.000001"),
            ("1.230000", "1.23"),
            ("18446744073709.551615", "18446744073709.551615"),
        ] {
            let amount: Amount = text.parse().expect(text);
            assert_eq!(amount.to_string(), shown);
        }
        for (text, problem) in [
            ("", "no decimal"),
            (".5", "no decimal"),
            ("1.", "no decimal"),
            ("1e3", "no decimal"),
            ("+1", "no decimal"),
            ("1,5", "no decimal"),
            ("NaN", "no decimal"),
            ("-0.01", "negative"),
            ("0.0000001", "too many decimals"),
            ("18446744073709.551616", "too large"),
        ] {
            let error = text.parse::<Amount>().expect_err(text).to_string();
            assert!(error.contains(problem), "asked: `{text}`, seen: {error}");
        }
    }

    #[test]
    fn what_is_no_whole_millionth_is_rounded_up() {
        let price: Price = "0.002".parse().expect("a price");
        // One request of 10 000 for 0.002 costs 0.0000002.
        assert_eq!(price.of(1, 10_000), Some(Amount(1)));
        assert_eq!(price.of(5, 10_000), Some(Amount(1)));
        assert_eq!(price.of(6, 10_000), Some(Amount(2)));
        assert_eq!(price.of(0, 10_000), Some(Amount::ZERO));
        assert_eq!(price.of(u128::MAX, 1), None, "more than any bill");
    }
}
