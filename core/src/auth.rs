//! Who may connect: JSON Web Tokens, verified with keys that the stage is configured with.
//!
//! The keys are read once, when a function starts, and each is pinned to one algorithm. To change them without refusing
//! anybody, have the new key in the set beside the old one before tokens are signed with it, and take the old one
//! out once its last token has expired. A running function keeps what it has read: whoever changes keys outside of
//! the template has its environments started anew, as any change of the function's configuration does.

mod algorithm;
mod keys;
mod signature;
#[cfg(test)]
pub(crate) mod test_keys;
#[cfg(test)]
mod tests;
mod token_key;

pub use algorithm::Algorithm;
pub use token_key::TokenKey;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::ids::{TenantId, UserId};
use crate::ports::Timestamp;
use crate::store::Identity;
use keys::Keys;

/// Which tokens are taken, whatever they are verified with.
#[derive(Clone, Debug, Default)]
pub struct TokenSettings {
    /// The algorithms that tokens may be signed with: one for a key or a secret, several for a key set.
    pub algorithms: Vec<Algorithm>,
    /// The issuer (`iss`) that a token must name. Default any.
    pub issuer: Option<String>,
    /// The audience (`aud`) that a token must name. Default any.
    pub audience: Option<String>,
    /// The tenants that a token may name. Default any.
    pub tenants: Option<BTreeSet<TenantId>>,
}

impl TokenSettings {
    /// A verifier with `key`: a JSON Web Key Set where it begins with `{`, else one key in PEM, or the secret for HS256.
    ///
    /// # Errors
    /// As [`TokenVerifier::new`] and [`TokenVerifier::with_key_set`]; and when one key is given for several algorithms.
    pub fn verifier(self, key: &str) -> Result<TokenVerifier, String> {
        let Self { algorithms, issuer, audience, tenants } = self;
        let keys = if key.trim_start().starts_with('{') {
            Keys::set(&algorithms, key)?
        } else if let [algorithm] = algorithms[..] {
            Keys::one(algorithm, key)?
        } else {
            return Err(format!(
                "is one key, and must be a JSON Web Key Set for {} algorithms",
                algorithms.len()
            ));
        };
        Ok(TokenVerifier { keys, issuer, audience, tenants })
    }
}

/// What tokens are verified with, and whom they must name.
#[derive(Debug)]
pub struct TokenVerifier {
    keys: Keys,
    issuer: Option<String>,
    audience: Option<String>,
    tenants: Option<BTreeSet<TenantId>>,
}

impl TokenVerifier {
    /// The longest token, in bytes: the gateway's URLs, which may carry one, end at 4,096 characters.
    pub const MAX_TOKEN_BYTES: usize = 4096;
    /// The longest `sub` and `tenant_id`, in bytes: two of them, escaped, and a request id fit into the 2,048
    /// bytes of a DynamoDB key.
    pub const MAX_ID_BYTES: usize = 255;
    /// How far in the future a token may claim to have been issued, or to begin, since clocks differ.
    pub const MAX_AHEAD: Duration = Duration::from_secs(60);

    /// Verifies tokens that were signed with `algorithm` and the private half of `key`.
    ///
    /// `key` is a public key in PEM, whose line breaks may be written as `\n`; for HS256 it is the secret itself. A token
    /// may name any `kid`: there is one key.
    ///
    /// # Errors
    /// When `key` is not a key for `algorithm`.
    pub fn new(algorithm: Algorithm, key: &str) -> Result<Self, String> {
        Keys::one(algorithm, key).map(Self::with)
    }

    /// Verifies tokens that were signed with one of `algorithms` and the private half of a key of `jwks`, a JSON Web
    /// Key Set (RFC 7517).
    ///
    /// A token's `kid` says which key; one without a `kid` is taken where there is one key for its algorithm. Each key is
    /// pinned to the one algorithm here that its kind is for. Passed over, and logged, is a key that is for another one, for
    /// encryption, of an unknown kind, incomplete or too short: issuers publish such beside those that count.
    ///
    /// # Errors
    /// When `jwks` cannot be read, has no key that can be used, or has what nobody can mean: a private key, or two keys of
    /// one id for one algorithm.
    pub fn with_key_set(algorithms: &[Algorithm], jwks: &str) -> Result<Self, String> {
        Keys::set(algorithms, jwks).map(Self::with)
    }

    fn with(keys: Keys) -> Self {
        Self { keys, issuer: None, audience: None, tenants: None }
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

    /// Takes only tokens of these tenants.
    #[must_use]
    pub fn with_tenants(mut self, tenants: impl IntoIterator<Item = TenantId>) -> Self {
        self.tenants = Some(tenants.into_iter().collect());
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
        let tenant = TenantId::new(claims.tenant_id);
        if self.tenants.as_ref().is_some_and(|allowed| !allowed.contains(&tenant)) {
            return Err(TokenRefused::Tenant);
        }
        Ok(Identity {
            user: UserId::new(claims.sub),
            tenant,
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
        // What is critical must be understood (section 4.1.11), and we understand no extension.
        if header.crit.is_some() {
            return Err(TokenRefused::Malformed);
        }
        if self.keys.verify(&header.alg, header.kid.as_deref(), signed.as_bytes(), &signature) {
            Ok(claims)
        } else {
            Err(TokenRefused::Signature)
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
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
    /// Its tenant is not among those that may connect.
    Tenant,
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
            Self::Tenant => "TENANT_NOT_ALLOWED",
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
            Self::Tenant => "The token's tenant may not connect here",
        })
    }
}

impl std::error::Error for TokenRefused {}
