use std::fmt;

/// Tokens with which the simulated users connect. Users take the tokens in turn.
#[derive(Default)]
pub(crate) struct Tokens(Vec<String>);

impl Tokens {
    const ONE: &str = "STREAMER_TOKEN";
    const SEVERAL: &str = "STREAMER_TOKENS";

    /// Reads the tokens from `STREAMER_TOKENS` (separated by commas) or, if that is not set or empty, from
    /// `STREAMER_TOKEN`.
    pub(crate) fn from_environment(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, NoToken> {
        let text = [Self::SEVERAL, Self::ONE]
            .into_iter()
            .filter_map(lookup)
            .find(|text| !text.trim().is_empty())
            .ok_or(NoToken)?;
        let tokens: Vec<String> =
            text.split(',').map(str::trim).filter(|token| !token.is_empty()).map(str::to_owned).collect();
        if tokens.is_empty() { Err(NoToken) } else { Ok(Self(tokens)) }
    }

    /// Returns the token of the user with this number, or an empty text if there are no tokens.
    pub(crate) fn of_user(&self, number: usize) -> &str {
        let index = number % self.0.len().max(1);
        self.0.get(index).map_or("", String::as_str)
    }
}

/// Error: neither `STREAMER_TOKEN` nor `STREAMER_TOKENS` holds a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NoToken;

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no token is set; set {} to a token that the endpoint accepts (`cargo run -- token` prints a token for the \
             local stage), or set {} to several tokens, separated by commas",
            Tokens::ONE,
            Tokens::SEVERAL
        )
    }
}

impl std::error::Error for NoToken {}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(one: &str, several: &str) -> Result<Tokens, NoToken> {
        Tokens::from_environment(|name| match name {
            "STREAMER_TOKEN" => Some(one.to_owned()),
            "STREAMER_TOKENS" => Some(several.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn single_token_is_used_by_every_user() {
        let tokens = tokens(" a.b.c\n", "").unwrap();
        assert_eq!([tokens.of_user(0), tokens.of_user(7)], ["a.b.c", "a.b.c"]);
    }

    #[test]
    fn users_take_several_tokens_in_turn_and_the_single_token_is_ignored() {
        let tokens = tokens("one", "a, b,,").unwrap();
        assert_eq!([tokens.of_user(0), tokens.of_user(1), tokens.of_user(2)], ["a", "b", "a"]);
    }

    #[test]
    fn missing_token_error_says_how_to_get_a_token() {
        for (one, several) in [("", ""), (" ", ","), ("one", " , ")] {
            let error = tokens(one, several).err().unwrap().to_string();
            assert!(error.contains("set STREAMER_TOKEN to"), "{error}");
            assert!(error.contains("`cargo run -- token`"), "{error}");
        }
        assert_eq!(Tokens::from_environment(|_| None).err(), Some(NoToken));
    }
}
