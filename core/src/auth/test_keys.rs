//! Keys and tokens for tests. Tokens are signed with ring, because jsonwebtoken's signer is not linked.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use serde_json::{Value, json};

use super::{Algorithm, TokenVerifier};

/// The private key or HS256 secret with which a token issuer signs tokens.
pub(crate) enum TestKey {
    Rs256(Box<rsa::KeyPair>),
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Hs256(String),
}

/// Public key of the RSA test key, in PEM.
pub(super) const RSA_PUBLIC: &str = include_str!("testdata/rsa-2048-test-key.public.pem");

impl TestKey {
    /// Returns the RSA key from the test data for RS256, and a newly generated key for the other algorithms.
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let random = SystemRandom::new();
        match algorithm {
            Algorithm::Rs256 => {
                let pkcs8 = der(include_str!("testdata/rsa-2048-test-key.private.pem"));
                Self::Rs256(Box::new(rsa::KeyPair::from_pkcs8(&pkcs8).unwrap()))
            }
            Algorithm::Es256 => {
                let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
                Self::Es256(EcdsaKeyPair::from_pkcs8(curve, pkcs8.as_ref(), &random).unwrap())
            }
            Algorithm::EdDsa => {
                let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Self::EdDsa(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
            }
            Algorithm::Hs256 => {
                let secret: [u8; 32] = ring::rand::generate(&random).unwrap().expose();
                Self::Hs256(STANDARD.encode(secret))
            }
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rs256(_) => Algorithm::Rs256,
            Self::Es256(_) => Algorithm::Es256,
            Self::EdDsa(_) => Algorithm::EdDsa,
            Self::Hs256(_) => Algorithm::Hs256,
        }
    }

    /// Returns the key that a verifier needs: the public key in PEM, or the HS256 secret.
    pub(crate) fn verification_key(&self) -> String {
        // Bytes of the DER structure SubjectPublicKeyInfo before the key itself: RFC 5480 for P-256, RFC 8410
        // for Ed25519.
        const P256: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
        const ED25519: &str = "302a300506032b6570032100";
        match self {
            Self::Rs256(_) => RSA_PUBLIC.to_owned(),
            Self::Es256(pair) => pem(P256, pair.public_key().as_ref()),
            Self::EdDsa(pair) => pem(ED25519, pair.public_key().as_ref()),
            Self::Hs256(secret) => secret.clone(),
        }
    }

    /// Returns the public key or the secret as a JSON Web Key with this `kid`.
    pub(crate) fn jwk(&self, id: &str) -> Value {
        let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self {
            Self::Rs256(pair) => {
                let rsa::PublicKeyComponents { n, e } =
                    rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "n": base64(&n), "e": base64(&e)})
            }
            Self::Es256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y)})
            }
            Self::EdDsa(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64(pair.public_key().as_ref())})
            }
            Self::Hs256(secret) => json!({"kty": "oct", "k": base64(secret.as_bytes())}),
        };
        jwk["kid"] = id.into();
        jwk["alg"] = self.algorithm().as_str().into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub(crate) fn verifier(&self) -> TokenVerifier {
        TokenVerifier::new(self.algorithm(), &self.verification_key()).unwrap()
    }

    /// Returns a signed token with these claims and without a `kid`.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm().as_str(), "typ": "JWT"});
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// Returns a signed token with these claims and `id` as its `kid`.
    pub(crate) fn sign_as(&self, id: &str, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm().as_str(), "kid": id});
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// Returns a signed token with these texts as header and claims, even if the texts are not valid JSON.
    pub(crate) fn sign_text(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.signature(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Es256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::EdDsa(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Hs256(secret) => {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
                ring::hmac::sign(&key, message).as_ref().to_vec()
            }
        }
    }
}

/// Returns `object` after replacing the members that `changes` contains. A null in `changes` removes the
/// member.
pub(super) fn changed_object(mut object: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            object[name] = value.clone();
        }
    }
    object
}

fn der(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(base64).unwrap()
}

fn pem(prefix_hex: &str, key: &[u8]) -> String {
    let (pairs, _) = prefix_hex.as_bytes().as_chunks::<2>();
    let prefix = pairs.iter().map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap());
    let der: Vec<u8> = prefix.chain(key.iter().copied()).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}
