use std::str::FromStr;

/// A signature algorithm of JSON Web Tokens. Each key is pinned to one algorithm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Algorithm {
    /// RS256: RSA signatures in PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// ES256: ECDSA signatures on the curve P-256 with SHA-256.
    Es256,
    /// EdDSA: Ed25519 signatures.
    EdDsa,
    /// HS256: HMAC with SHA-256. The key is a shared secret, so every verifier can also sign tokens.
    Hs256,
}

impl Algorithm {
    /// Returns the algorithm's name in the header `alg` of a token (RFC 7518, section 3.1; RFC 8037, section 3.1).
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
