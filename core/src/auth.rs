//! Who may connect: JSON Web Tokens, verified with keys that the stage is configured with.

mod signature;
#[cfg(test)]
pub(crate) mod test_keys;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::ids::{TenantId, UserId};
use crate::ports::Timestamp;
use crate::store::Identity;

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

/// What tokens are verified with.
pub struct TokenVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
    issuer: Option<String>,
    audience: Option<String>,
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("algorithm", &self.algorithm)
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl TokenVerifier {
    /// The longest token, in bytes: the gateway's URLs, which may carry one, end at 4,096 characters.
    pub const MAX_TOKEN_BYTES: usize = 4096;
    /// The longest `sub` and `tenant_id`, in bytes: two of them, escaped, and a request id fit into the 2,048
    /// bytes of a DynamoDB key.
    pub const MAX_ID_BYTES: usize = 255;
    /// How far in the future a token may claim to have been issued, or to begin, since clocks differ.
    pub const MAX_AHEAD: Duration = Duration::from_secs(60);
    const MIN_SECRET_BYTES: usize = 32;
    const MIN_RSA_BITS: usize = 2048;
    /// A point on P-256, uncompressed.
    const P256_POINT_BYTES: usize = 65;

    /// Verifies tokens that were signed with `algorithm` and the private half of `key`.
    ///
    /// `key` is a public key in PEM, whose line breaks may be written as `\n`; for HS256 it is the secret itself.
    ///
    /// # Errors
    /// When `key` is not a key for `algorithm`.
    pub fn new(algorithm: Algorithm, key: &str) -> Result<Self, String> {
        let key = match algorithm {
            Algorithm::Hs256 => secret(key)?,
            Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa => public_key(algorithm, key)?,
        };
        Ok(Self { algorithm, key, issuer: None, audience: None })
    }

    /// Takes only tokens of this issuer (`iss`).
    #[must_use]
    pub fn with_issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Takes only tokens for this audience (`aud`).
    #[must_use]
    pub fn with_audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Whom the token names, if it is to be trusted.
    ///
    /// # Errors
    /// Why it is not.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Identity, TokenRefused> {
        if token.len() > Self::MAX_TOKEN_BYTES {
            return Err(TokenRefused::Malformed);
        }
        let claims = self.signed_claims(token)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenRefused::Claims)?;
        let NumericDate(expires_at) = claims.exp;
        if expires_at <= now {
            return Err(TokenRefused::Expired);
        }
        let is_after = |date: Option<NumericDate>, moment| date.is_some_and(|NumericDate(at)| at > moment);
        if is_after(claims.nbf, now + Self::MAX_AHEAD) || is_after(claims.iat, now + Self::MAX_AHEAD) {
            return Err(TokenRefused::NotYetValid);
        }
        for (claim, expected) in [(&claims.iss, &self.issuer), (&claims.aud, &self.audience)] {
            if expected.as_ref().is_some_and(|expected| !names(claim.as_ref(), expected)) {
                return Err(TokenRefused::Claims);
            }
        }
        for id in [&claims.sub, &claims.tenant_id] {
            if id.is_empty() || id.len() > Self::MAX_ID_BYTES || id.chars().any(char::is_control) {
                return Err(TokenRefused::Claims);
            }
        }
        Ok(Identity {
            user: UserId::new(claims.sub),
            tenant: TenantId::new(claims.tenant_id),
            permissions: claims.permissions.unwrap_or_default(),
            expires_at,
        })
    }

    /// The claims of a token (RFC 7515, section 7.1), if its header and its signature are right.
    fn signed_claims(&self, token: &str) -> Result<Vec<u8>, TokenRefused> {
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenRefused::Malformed);
        };
        let decoded = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenRefused::Malformed);
        let signed = &token[..header.len() + 1 + claims.len()];
        let (header, claims, signature) = (decoded(header)?, decoded(claims)?, decoded(signature)?);
        let header: Header = serde_json::from_slice(&header).map_err(|_| TokenRefused::Malformed)?;
        // The key is pinned to one algorithm: whatever else a header names, `none` included, is not how we verify.
        if header.alg != self.algorithm.as_str() {
            return Err(TokenRefused::Signature);
        }
        // What is critical must be understood (section 4.1.11), and we understand no extension.
        if header.crit.is_some() {
            return Err(TokenRefused::Malformed);
        }
        if signature::holds(self.algorithm, &self.key, signed.as_bytes(), &signature) {
            Ok(claims)
        } else {
            Err(TokenRefused::Signature)
        }
    }
}

fn secret(key: &str) -> Result<DecodingKey, String> {
    // Anybody may have the public key of an issuer, and could sign with it.
    if key.contains("-----BEGIN") {
        return Err("is a key in PEM, and an HS256 secret must be one that nobody else knows".into());
    }
    if key.len() < TokenVerifier::MIN_SECRET_BYTES {
        return Err(format!("an HS256 secret must have at least {} bytes", TokenVerifier::MIN_SECRET_BYTES));
    }
    Ok(DecodingKey::from_secret(key.as_bytes()))
}

/// Refuses what the library takes for a key and ring would fail on, token after token.
fn public_key(algorithm: Algorithm, key: &str) -> Result<DecodingKey, String> {
    let pem = key.replace("\\n", "\n");
    if pem.contains("PRIVATE KEY-----") {
        return Err("is a private key: give its public half, and nobody the private one".into());
    }
    let parsed = match algorithm {
        Algorithm::Es256 => DecodingKey::from_ec_pem(pem.as_bytes()),
        Algorithm::EdDsa => DecodingKey::from_ed_pem(pem.as_bytes()),
        Algorithm::Rs256 | Algorithm::Hs256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
    };
    let key = parsed.map_err(|error| format!("is no public key in PEM for {algorithm:?}: {error}"))?;
    let bytes = key.try_get_as_bytes().map_or(0, <[u8]>::len);
    match algorithm {
        Algorithm::Es256 if bytes != TokenVerifier::P256_POINT_BYTES => {
            Err("is a key on another curve than P-256, which is that of ES256".into())
        }
        // The modulus and little else: a key that is long enough has more bytes than its modulus.
        Algorithm::Rs256 if bytes < TokenVerifier::MIN_RSA_BITS / 8 => {
            Err(format!("an RSA key must have at least {} bits", TokenVerifier::MIN_RSA_BITS))
        }
        Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa | Algorithm::Hs256 => Ok(key),
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    tenant_id: String,
    exp: NumericDate,
    nbf: Option<NumericDate>,
    iat: Option<NumericDate>,
    iss: Option<Value>,
    aud: Option<Value>,
    /// None is what an issuer in Go makes of an empty list.
    permissions: Option<Vec<String>>,
}

/// Whether a claim that is one text or a list of them (RFC 7519, section 4.1.3) has this one.
fn names(claim: Option<&Value>, text: &str) -> bool {
    match claim {
        Some(Value::Array(many)) => many.iter().any(|one| one == text),
        Some(one) => one == text,
        None => false,
    }
}

/// Seconds since the Unix epoch, maybe with a fraction, as some issuers send (RFC 7519, section 2).
#[derive(Clone, Copy)]
struct NumericDate(Timestamp);

impl NumericDate {
    /// The end of the year 9999. What lies beyond was most likely meant as milliseconds: a token that would
    /// never expire.
    const MAX_SECS: f64 = 253_402_300_799.0;
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let secs = f64::deserialize(deserializer)?;
        if !(0.0..=Self::MAX_SECS).contains(&secs) {
            return Err(D::Error::custom("a time must be given in seconds, and lie between 1970 and 9999"));
        }
        let since_epoch = Duration::try_from_secs_f64(secs).map_err(D::Error::custom)?;
        Ok(Self(Timestamp::default() + since_epoch))
    }
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TokenRefused {
    /// None was given.
    Missing,
    /// It is no token, or none that can be read here.
    Malformed,
    /// It is not signed with our key, or not with the algorithm that the key is pinned to.
    Signature,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is not for us, or lacks `sub`, `tenant_id` or `exp`.
    Claims,
}

impl TokenRefused {
    /// The code that the refusal's body carries.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "TOKEN_MISSING",
            Self::Malformed => "TOKEN_MALFORMED",
            Self::Signature => "TOKEN_SIGNATURE_INVALID",
            Self::Expired => "TOKEN_EXPIRED",
            Self::NotYetValid => "TOKEN_NOT_YET_VALID",
            Self::Claims => "TOKEN_CLAIMS_INVALID",
        }
    }
}

impl fmt::Display for TokenRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "A token is needed: in the query as Authorization or token, or in a header",
            Self::Malformed => "The token is not a JSON Web Token that can be read here",
            Self::Signature => "The token is not signed with a key that is trusted here",
            Self::Expired => "The token has expired",
            Self::NotYetValid => "The token is not valid yet",
            Self::Claims => "The token lacks a claim that is needed, or is meant for somebody else",
        })
    }
}

impl std::error::Error for TokenRefused {}
