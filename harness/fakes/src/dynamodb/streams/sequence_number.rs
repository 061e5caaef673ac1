//! Sequence numbers, which order the records of a stream.

use std::fmt;
use std::str::FromStr;

/// Position of a record in its stream.
///
/// As text, a sequence number has 21 digits, so that texts sort in the same order as numbers.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SequenceNumber(pub(super) u64);

impl SequenceNumber {
    /// Offset added to the position in the text form, so that every sequence number has 21 digits.
    const OFFSET: u128 = 100_000_000_000_000_000_000;

    pub(super) fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Self::OFFSET + u128::from(self.0))
    }
}

impl FromStr for SequenceNumber {
    type Err = InvalidSequenceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 21 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u128>().ok().filter(|_| digits);
        let number = number.and_then(|number| number.checked_sub(Self::OFFSET));
        number.and_then(|n| u64::try_from(n).ok()).map(Self).ok_or(InvalidSequenceNumber)
    }
}

/// Error of parsing a text that is not a [`SequenceNumber`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidSequenceNumber;

impl fmt::Display for InvalidSequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a sequence number of 21 digits, at least 100000000000000000000")
    }
}

impl std::error::Error for InvalidSequenceNumber {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_have_21_digits_and_sort_in_the_order_of_their_texts() {
        let (nine, ten) = (SequenceNumber(9), SequenceNumber(10));
        assert_eq!(nine.to_string(), "100000000000000000009");
        assert!(nine < ten && nine.to_string() < ten.to_string());
        assert_eq!(SequenceNumber(u64::MAX).to_string().len(), 21);
        assert_eq!(ten.to_string().parse(), Ok(ten));
        for text in
            ["", "10", "abc", "000000000000000000000", "+00000000000000000010", "999999999999999999999"]
        {
            assert_eq!(text.parse::<SequenceNumber>(), Err(InvalidSequenceNumber), "{text}");
        }
    }
}
