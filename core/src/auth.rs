//! Authenticates connecting clients: verifies their JSON Web Tokens with the keys that are configured for the stage.
//!
//! A function reads the keys once, when it starts. Each key is pinned to one algorithm.
//!
//! To rotate keys without refusing valid tokens, add the new key to the key set before the issuer signs
//! tokens with the new key. Remove the old key after the last token that was signed with the old key has
//! expired. A running function keeps the keys that it has read. So after you change a key outside of the
//! template, for example in Secrets Manager, change the function's configuration too, so that Lambda starts
//! new environments.

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

/// Requirements on tokens: the permitted signature algorithms, issuer, audience and tenants.
#[derive(Clone, Debug, Default)]
pub struct TokenSettings {
    /// Algorithms with which tokens may be signed. A single key or secret requires exactly one algorithm; a key
    /// set allows several.
    pub algorithms: Vec<Algorithm>,
    /// Issuer (`iss`) that a token must name; `None`, the default, accepts any issuer.
    pub issuer: Option<String>,
    /// Audience (`aud`) that a token must name; `None`, the default, accepts any audience.
    pub audience: Option<String>,
    /// Tenants that a token may name; `None`, the default, accepts any tenant.
    pub tenants: Option<BTreeSet<TenantId>>,
}

impl TokenSettings {
    /// Creates a verifier with these settings and `key`.
    ///
    /// A `key` that begins with `{` is a JSON Web Key Set. Any other `key` is one public key in PEM, or the
    /// HS256 secret.
    ///
    /// # Errors
    /// A description of the problem, if [`TokenVerifier::new`] or [`TokenVerifier::with_key_set`] refuses the key,
    /// or if `key` is a single key but several algorithms are configured.
    pub fn verifier(self, key: &str) -> Result<TokenVerifier, String> {
        let Self { algorithms, issuer, audience, tenants } = self;
        let keys = if key.trim_start().starts_with('{') {
            Keys::set(&algorithms, key)?
        } else if let [algorithm] = algorithms[..] {
            Keys::one(algorithm, key)?
        } else {
            return Err(format!(
                "found a single key; expected a JSON Web Key Set, because {} algorithms are configured",
                algorithms.len()
            ));
        };
        Ok(TokenVerifier { keys, issuer, audience, tenants })
    }
}

/// Verifies JSON Web Tokens: their signature, their times, and their issuer, audience and tenant.
#[derive(Debug)]
pub struct TokenVerifier {
    keys: Keys,
    issuer: Option<String>,
    audience: Option<String>,
    tenants: Option<BTreeSet<TenantId>>,
}

impl TokenVerifier {
    /// Maximum length of a token, in bytes. A token may be part of a URL, and the gateway accepts URLs of up
    /// to 4,096 characters.
    pub const MAX_TOKEN_BYTES: usize = 4096;
    /// Maximum length of the claims `sub` and `tenant_id`, in bytes. A request's key, which contains both
    /// claims in escaped form and the request id, then fits into the 2,048 bytes of a DynamoDB key.
    pub const MAX_ID_BYTES: usize = 255;
    /// Maximum time by which a token's `iat` and `nbf` may be in the future: 60 s, because the issuer's clock
    /// may be ahead.
    pub const MAX_AHEAD: Duration = Duration::from_secs(60);

    /// Creates a verifier for tokens that are signed with `algorithm` and the private key that belongs to
    /// `key`.
    ///
    /// `key` is a public key in PEM, whose line breaks may be written as `\n`. For HS256, `key` is the secret
    /// itself. The `kid` in a token's header is ignored.
    ///
    /// # Errors
    /// A description of the problem if `key` is not a valid key for `algorithm`.
    pub fn new(algorithm: Algorithm, key: &str) -> Result<Self, String> {
        Keys::one(algorithm, key).map(Self::with)
    }

    /// Creates a verifier for tokens that are signed with one of `algorithms` and a key of `jwks`, a JSON Web
    /// Key Set (RFC 7517).
    ///
    /// The `kid` in a token's header selects the key. A token without a `kid` is accepted only if exactly one
    /// key of the set has the token's algorithm. A key without a `kid` verifies the tokens whose `kid` matches
    /// no key of the set. Each key is pinned to one algorithm, which follows from its key type.
    ///
    /// A key of the set is ignored, with a log line, if its algorithm is not one of `algorithms`. A key is also
    /// ignored if it is for encryption, of an unknown type, incomplete or too short, because issuers publish
    /// such keys in the same set.
    ///
    /// # Errors
    /// A description of the problem if `jwks` cannot be parsed, has no usable key, contains a private key, or
    /// contains two keys with the same `kid` and algorithm.
    pub fn with_key_set(algorithms: &[Algorithm], jwks: &str) -> Result<Self, String> {
        Keys::set(algorithms, jwks).map(Self::with)
    }

    fn with(keys: Keys) -> Self {
        Self { keys, issuer: None, audience: None, tenants: None }
    }

    /// Requires tokens to name this issuer (`iss`).
    #[must_use]
    pub fn with_issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Requires tokens to name this audience (`aud`).
    #[must_use]
    pub fn with_audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Requires tokens to name one of these tenants (`tenant_id`).
    #[must_use]
    pub fn with_tenants(mut self, tenants: impl IntoIterator<Item = TenantId>) -> Self {
        self.tenants = Some(tenants.into_iter().collect());
        self
    }

    /// Verifies a token at the time `now`. Returns the user, the tenant, the permissions and the expiry from the
    /// token.
    ///
    /// # Errors
    /// [`TokenRefused`] with the reason if the token is invalid.
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
            if expected.as_ref().is_some_and(|expected| !contains(claim.as_ref(), expected)) {
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

    /// Returns the claims of a token as JSON text (RFC 7515, section 7.1), or an error if the token's header or
    /// signature is invalid.
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
        // RFC 7515, section 4.1.11: a token with an unsupported critical header must be refused. This verifier
        // supports no critical header.
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
    /// Permissions of the user. JSON null is accepted as an empty list, because issuers written in Go encode an
    /// empty list as null.
    permissions: Option<Vec<String>>,
}

/// Returns `true` if a claim is the string `text`, or a list that contains `text` (RFC 7519, section 4.1.3).
fn contains(claim: Option<&Value>, text: &str) -> bool {
    match claim {
        Some(Value::Array(values)) => values.iter().any(|value| value == text),
        Some(value) => value == text,
        None => false,
    }
}

/// A time in a token, in seconds since the Unix epoch (RFC 7519, section 2). It may be a decimal number, because
/// some issuers send fractions of a second.
#[derive(Clone, Copy)]
struct NumericDate(Timestamp);

impl NumericDate {
    /// Maximum time: the end of the year 9999, in seconds since the Unix epoch. A later time was most likely
    /// sent in milliseconds by mistake, and a token with such a time would practically never expire.
    const MAX_SECS: f64 = 253_402_300_799.0;
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let secs = f64::deserialize(deserializer)?;
        if !(0.0..=Self::MAX_SECS).contains(&secs) {
            return Err(D::Error::custom("expected a time in seconds between the years 1970 and 9999"));
        }
        let since_epoch = Duration::try_from_secs_f64(secs).map_err(D::Error::custom)?;
        Ok(Self(Timestamp::default() + since_epoch))
    }
}

/// The reason why a client's token was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TokenRefused {
    /// The client sent no token.
    Missing,
    /// The token is too long, or is not a JSON Web Token in a supported form.
    Malformed,
    /// The token's signature is invalid, or was not made with a configured key and the algorithm of that key.
    Signature,
    /// The token has expired (`exp`).
    Expired,
    /// The token is not valid yet: its `nbf` or `iat` is too far in the future.
    NotYetValid,
    /// A claim of the token, such as `sub`, `tenant_id` or `exp`, is missing or invalid, or the token does not
    /// name the configured issuer or audience.
    Claims,
    /// The token's tenant is not in the configured list of tenants that may connect.
    Tenant,
}

impl TokenRefused {
    /// Returns the error code that the client receives for this refusal, such as `TOKEN_EXPIRED`.
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
            Self::Missing => "A token is required, in the query (Authorization or token) or in a header",
            Self::Malformed => "The token is not a valid JSON Web Token",
            Self::Signature => "The token is not signed with a trusted key",
            Self::Expired => "The token has expired",
            Self::NotYetValid => "The token is not valid yet",
            Self::Claims => {
                "The token lacks a required claim, has an invalid claim, or names another issuer or audience"
            }
            Self::Tenant => "The token's tenant is not allowed to connect",
        })
    }
}

impl std::error::Error for TokenRefused {}
