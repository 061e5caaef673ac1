use std::str::FromStr;

/// The signature algorithms that a key may be pinned to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Algorithm {
    /// RSA, PKCS#1 v1.5, SHA-256.
    Rs256,
    /// ECDSA over P-256, SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// HMAC, SHA-256: whoever can verify can sign as well.
    Hs256,
}

impl Algorithm {
    /// As the header of a token names it (RFC 7518, section 3.1; RFC 8037, section 3.1).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
        }
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "RS256" => Ok(Self::Rs256),
            "ES256" => Ok(Self::Es256),
            "EdDSA" => Ok(Self::EdDsa),
            "HS256" => Ok(Self::Hs256),
            other => Err(format!("expected RS256, ES256, EdDSA or HS256, found {other:?}")),
        }
    }
}
