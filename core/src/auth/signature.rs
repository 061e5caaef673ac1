//! Verifies token signatures with the crate ring, which is small, starts quickly, and verifies RS256 far faster
//! than implementations in pure Rust.
//!
//! The verification of the crate jsonwebtoken is not used, because it requires one cryptography provider for the
//! whole process. A library must not choose this provider for the programs that use the library.

use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::Algorithm;

/// Returns `true` if `signature` is a valid signature of `message` with `algorithm` and `key`.
pub(super) fn is_valid(algorithm: Algorithm, key: &DecodingKey, message: &[u8], signature: &[u8]) -> bool {
    let verified = match (algorithm, key.kind()) {
        (Algorithm::Hs256, DecodingKeyKind::SecretOrDer(secret)) => {
            hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), message, signature)
        }
        (Algorithm::Rs256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
        }
        (Algorithm::Es256, DecodingKeyKind::SecretOrDer(point)) => {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
        }
        (Algorithm::EdDsa, DecodingKeyKind::SecretOrDer(public)) => {
            UnparsedPublicKey::new(&ED25519, public).verify(message, signature)
        }
        (Algorithm::Rs256, DecodingKeyKind::SecretOrDer(_))
        | (
            Algorithm::Hs256 | Algorithm::Es256 | Algorithm::EdDsa,
            DecodingKeyKind::RsaModulusExponent { .. },
        ) => Err(ring::error::Unspecified),
    };
    verified.is_ok()
}
