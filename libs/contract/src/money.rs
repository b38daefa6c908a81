//! Integer amounts of minor units, with a currency.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A currency by its ISO 4217 code, three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// The euro.
    pub const EUR: Self = Self(*b"EUR");

    /// The code's three letters.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }
}

/// A text that is not a currency code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a currency is three capital letters (ISO 4217)")]
pub struct InvalidCurrency;

impl FromStr for Currency {
    type Err = InvalidCurrency;

    fn from_str(text: &str) -> Result<Self, InvalidCurrency> {
        match text.as_bytes() {
            &[a, b, c] if [a, b, c].iter().all(u8::is_ascii_uppercase) => Ok(Self([a, b, c])),
            _ => Err(InvalidCurrency),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = InvalidCurrency;

    fn try_from(text: String) -> Result<Self, InvalidCurrency> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.code().to_owned()
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount of money: a count of the currency's minor units (cents), never negative, never a fraction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "MoneyParts")]
pub struct Money {
    amount_minor: i64,
    currency: Currency,
}

impl JsonSchema for Money {
    fn schema_name() -> Cow<'static, str> {
        "Money".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An amount: a count of the currency's minor units (cents).",
            "type": "object",
            "required": ["amount_minor", "currency"],
            "properties": {
                "amount_minor": {"type": "integer", "format": "int64", "minimum": 0},
                "currency": {"type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217."},
            },
        })
    }
}

#[derive(Deserialize)]
struct MoneyParts {
    amount_minor: i64,
    currency: Currency,
}

impl TryFrom<MoneyParts> for Money {
    type Error = MoneyError;

    fn try_from(parts: MoneyParts) -> Result<Self, MoneyError> {
        Self::new(parts.amount_minor, parts.currency)
    }
}

/// Why an amount cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The count of minor units would leave the range of a 64-bit integer.
    #[error("the amount is too large")]
    Overflow,
    /// The count of minor units would be below zero.
    #[error("the amount is below zero")]
    Negative,
    /// The two amounts are of different currencies.
    #[error("the amounts are in different currencies")]
    CurrencyMismatch,
}

impl Money {
    /// An amount of `amount_minor` minor units (cents).
    ///
    /// # Errors
    /// [`MoneyError::Negative`] below zero.
    pub fn new(amount_minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        if amount_minor < 0 { Err(MoneyError::Negative) } else { Ok(Self { amount_minor, currency }) }
    }

    /// Nothing at all, in `currency`.
    pub fn zero(currency: Currency) -> Self {
        Self { amount_minor: 0, currency }
    }

    /// The count of minor units (cents).
    pub fn amount_minor(&self) -> i64 {
        self.amount_minor
    }

    /// The currency.
    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// The sum of both.
    ///
    /// # Errors
    /// [`MoneyError::CurrencyMismatch`], [`MoneyError::Overflow`].
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        let amount_minor = self.amount_minor.checked_add(other.amount_minor).ok_or(MoneyError::Overflow)?;
        Ok(Self { amount_minor, ..self })
    }

    /// What is left of this after `other` is taken away.
    ///
    /// # Errors
    /// [`MoneyError::CurrencyMismatch`], [`MoneyError::Negative`].
    pub fn minus(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        let amount_minor = self.amount_minor.checked_sub(other.amount_minor).ok_or(MoneyError::Overflow)?;
        Self::new(amount_minor, self.currency)
    }

    /// The price of `quantity` pieces at this price.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn times(self, quantity: u32) -> Result<Self, MoneyError> {
        let amount_minor = self.amount_minor.checked_mul(i64::from(quantity)).ok_or(MoneyError::Overflow)?;
        Ok(Self { amount_minor, ..self })
    }

    fn same_currency(self, other: Self) -> Result<(), MoneyError> {
        if self.currency == other.currency { Ok(()) } else { Err(MoneyError::CurrencyMismatch) }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02} {}", self.amount_minor / 100, self.amount_minor % 100, self.currency.code())
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn euros(amount_minor: i64) -> Money {
        Money::new(amount_minor, Currency::EUR).unwrap()
    }

    #[test]
    fn sums_are_checked() {
        assert_eq!(euros(199).plus(euros(1)), Ok(euros(200)));
        assert_eq!(euros(i64::MAX).plus(euros(1)), Err(MoneyError::Overflow));
        assert_eq!(euros(1).minus(euros(2)), Err(MoneyError::Negative));
        assert_eq!(euros(i64::MAX).times(2), Err(MoneyError::Overflow));
        let dollars = Money::new(1, "USD".parse().unwrap()).unwrap();
        assert_eq!(euros(1).plus(dollars), Err(MoneyError::CurrencyMismatch));
    }

    #[test]
    fn json_below_zero_or_with_a_fraction_is_refused() {
        let money = |text: &str| serde_json::from_str::<Money>(text);
        assert_eq!(money(r#"{"amount_minor":1250,"currency":"EUR"}"#).unwrap(), euros(1250));
        assert!(money(r#"{"amount_minor":-1,"currency":"EUR"}"#).is_err());
        assert!(money(r#"{"amount_minor":1.5,"currency":"EUR"}"#).is_err());
        assert!(money(r#"{"amount_minor":1,"currency":"eur"}"#).is_err());
    }

    #[test]
    fn money_reads_as_people_write_it() {
        assert_eq!(euros(1205).to_string(), "12.05 EUR");
    }
}
