//! Who may connect: JSON Web Tokens, verified with keys that the stage is configured with.

mod ring_provider;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

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
    const fn to_jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
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
    key: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("algorithms", &self.validation.algorithms)
            .finish_non_exhaustive()
    }
}

impl TokenVerifier {
    /// The longest token, in bytes: what still leaves room in the gateway's 4,096 character URL.
    pub const MAX_TOKEN_BYTES: usize = 4096;
    /// The longest `sub` and `tenant_id`, in bytes: two of them, escaped, and a request id fit into a DynamoDB key.
    pub const MAX_ID_BYTES: usize = 256;
    /// How far in the future a token may claim to have been issued, since clocks differ.
    pub const MAX_IAT_AHEAD: Duration = Duration::from_secs(60);
    const MIN_SECRET_BYTES: usize = 32;

    /// Verifies tokens that were signed with `algorithm` and the private half of `key`.
    ///
    /// `key` is a public key in PEM, whose line breaks may be written as `\n`; for HS256 it is the secret itself.
    ///
    /// # Errors
    /// When `key` is not a key for `algorithm`.
    pub fn new(algorithm: Algorithm, key: &str) -> Result<Self, String> {
        ring_provider::install();
        let pem = key.replace("\\n", "\n");
        let parsed = match algorithm {
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::Es256 => DecodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDsa => DecodingKey::from_ed_pem(pem.as_bytes()),
            Algorithm::Hs256 if key.len() < Self::MIN_SECRET_BYTES => {
                return Err(format!("an HS256 secret must have at least {} bytes", Self::MIN_SECRET_BYTES));
            }
            Algorithm::Hs256 => Ok(DecodingKey::from_secret(key.as_bytes())),
        };
        let key = parsed.map_err(|error| format!("is no public key in PEM for {algorithm:?}: {error}"))?;
        let mut validation = Validation::new(algorithm.to_jwt());
        // Times are checked against our own clock, below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Ok(Self { key, validation })
    }

    /// Takes only tokens of this issuer (`iss`).
    #[must_use]
    pub fn with_issuer(mut self, issuer: &str) -> Self {
        self.validation.set_issuer(&[issuer]);
        self.validation.required_spec_claims.insert("iss".into());
        self
    }

    /// Takes only tokens for this audience (`aud`).
    #[must_use]
    pub fn with_audience(mut self, audience: &str) -> Self {
        self.validation.validate_aud = true;
        self.validation.set_audience(&[audience]);
        self.validation.required_spec_claims.insert("aud".into());
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
        if decode_header(token).is_err() {
            return Err(TokenRefused::Malformed);
        }
        let claims = match decode::<Claims>(token, &self.key, &self.validation) {
            Ok(data) => data.claims,
            Err(error) => return Err(TokenRefused::from_jwt(error.kind())),
        };
        let now_secs = now.as_millis() / 1_000;
        if claims.exp <= now_secs {
            return Err(TokenRefused::Expired);
        }
        let ahead = now_secs + Self::MAX_IAT_AHEAD.as_secs();
        if claims.nbf.is_some_and(|nbf| nbf > now_secs) || claims.iat.is_some_and(|iat| iat > ahead) {
            return Err(TokenRefused::NotYetValid);
        }
        for id in [&claims.sub, &claims.tenant_id] {
            if id.is_empty() || id.len() > Self::MAX_ID_BYTES || id.chars().any(char::is_control) {
                return Err(TokenRefused::Claims);
            }
        }
        Ok(Identity {
            user: UserId::new(claims.sub),
            tenant: TenantId::new(claims.tenant_id),
            permissions: claims.permissions,
            expires_at: Timestamp::from_secs(claims.exp),
        })
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    tenant_id: String,
    exp: u64,
    nbf: Option<u64>,
    iat: Option<u64>,
    #[serde(default)]
    permissions: Vec<String>,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TokenRefused {
    /// None was given.
    Missing,
    /// It is no token.
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
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library's enum is open: all else is a token that cannot be read"
    )]
    fn from_jwt(kind: &ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => Self::Signature,
            ErrorKind::InvalidIssuer
            | ErrorKind::InvalidAudience
            | ErrorKind::MissingRequiredClaim(_)
            | ErrorKind::Json(_) => Self::Claims,
            _ => Self::Malformed,
        }
    }

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
            Self::Malformed => "The token is not a JSON Web Token",
            Self::Signature => "The token is not signed with a key that is trusted here",
            Self::Expired => "The token has expired",
            Self::NotYetValid => "The token is not valid yet",
            Self::Claims => "The token lacks a claim that is needed, or is meant for somebody else",
        })
    }
}

impl std::error::Error for TokenRefused {}
