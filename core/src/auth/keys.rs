use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Algorithm, signature};

/// The keys that verify tokens. Each key is pinned to one algorithm.
pub(super) struct Keys(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Shows the id and the algorithm of each key, but not the key itself, because a key may be a secret.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|key| (&key.id, key.algorithm))).finish()
    }
}

impl Keys {
    /// Minimum length of an HS256 secret, in bytes.
    const MIN_SECRET_BYTES: usize = 32;
    /// Sizes of RSA keys that ring accepts, in bits.
    const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
    /// Length of an uncompressed point on the curve P-256, in bytes.
    const P256_POINT_BYTES: usize = 65;

    /// Parses a single key: a public key in PEM, or the HS256 secret itself.
    pub(super) fn one(algorithm: Algorithm, key: &str) -> Result<Self, String> {
        let key = match algorithm {
            Algorithm::Hs256 => secret_text(key),
            Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa => public_key(algorithm, key),
        };
        let key = key.map_err(|problem| format!("the key {problem}"))?;
        Ok(Self(vec![Key { id: None, algorithm, key }]))
    }

    /// Parses a JSON Web Key Set, and keeps the keys that are for one of `algorithms`.
    pub(super) fn set(algorithms: &[Algorithm], jwks: &str) -> Result<Self, String> {
        // The error must not quote `jwks`, which may contain a secret.
        let set: KeySet = serde_json::from_str(jwks).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!(
                "expected a JSON Web Key Set, an object with a list `keys` (line {line}, column {column})"
            )
        })?;
        let mut keys: Vec<Key> = Vec::new();
        let mut ignored = Vec::new();
        for (n, jwk) in set.keys.into_iter().enumerate() {
            let name = match jwk.get("kid").and_then(Value::as_str) {
                Some(id) => format!("the key {id:?}"),
                None => format!("key {} of the set", n + 1),
            };
            let key = match jwk_key(algorithms, jwk) {
                Ok(key) => key,
                Err(Unusable::Ignored(reason)) => {
                    tracing::info!(key = name, reason, "key of the JSON Web Key Set ignored");
                    ignored.push(format!("{name} {reason}"));
                    continue;
                }
                Err(Unusable::Refused(reason)) => {
                    return Err(format!("the key set is invalid: {name} {reason}"));
                }
            };
            if keys.iter().any(|other| other.id == key.id && other.algorithm == key.algorithm) {
                let kid = if key.id.is_some() { "with this kid" } else { "without a kid" };
                return Err(format!(
                    "the key set is invalid: {name} is the second {} key {kid}",
                    key.algorithm.as_str()
                ));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            let wanted: Vec<&str> = algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
            let reasons = if ignored.is_empty() { "the set is empty".to_owned() } else { ignored.join(", ") };
            return Err(format!("the key set has no usable key for {}: {reasons}", wanted.join(" or ")));
        }
        Ok(Self(keys))
    }

    /// Returns `true` if `signature` is a valid signature of `message`, made with the key that a token's
    /// header selects. `algorithm` and `id` are the header's `alg` and `kid`.
    ///
    /// A header selects at most one key, so a token cannot make the verifier try several keys.
    pub(super) fn verify(&self, algorithm: &str, id: Option<&str>, message: &[u8], signature: &[u8]) -> bool {
        // If no key is pinned to the algorithm, for example to `none`, no key is selected.
        let of_algorithm = || self.0.iter().filter(|key| key.algorithm.as_str() == algorithm);
        let found = match id {
            Some(id) => of_algorithm()
                .find(|key| key.id.as_deref() == Some(id))
                .or_else(|| of_algorithm().find(|key| key.id.is_none())),
            None => of_algorithm().next().filter(|_| of_algorithm().count() == 1),
        };
        found.is_some_and(|found| signature::is_valid(found.algorithm, &found.key, message, signature))
    }
}

fn secret_text(secret: &str) -> Result<DecodingKey, String> {
    // If a public key were accepted as the secret, anyone who has the public key could sign tokens.
    if secret.contains("-----BEGIN") {
        return Err("is in PEM format; HS256 requires a shared secret instead".into());
    }
    secret_bytes(secret.as_bytes())
}

fn secret_bytes(secret: &[u8]) -> Result<DecodingKey, String> {
    if secret.len() < Keys::MIN_SECRET_BYTES {
        return Err(format!(
            "is too short; an HS256 secret must have at least {} bytes",
            Keys::MIN_SECRET_BYTES
        ));
    }
    Ok(DecodingKey::from_secret(secret))
}

/// Parses a public key in PEM. Refuses keys that jsonwebtoken can parse but with which ring cannot verify tokens.
fn public_key(algorithm: Algorithm, key: &str) -> Result<DecodingKey, String> {
    let pem = key.replace("\\n", "\n");
    if pem.contains("PRIVATE KEY-----") {
        return Err("is a private key; use the public key, and keep the private key secret".into());
    }
    if pem.matches("-----BEGIN").count() > 1 {
        return Err("consists of several PEM keys; use a single key, or a JSON Web Key Set".into());
    }
    let parsed = match algorithm {
        Algorithm::Es256 => DecodingKey::from_ec_pem(pem.as_bytes()),
        Algorithm::EdDsa => DecodingKey::from_ed_pem(pem.as_bytes()),
        Algorithm::Rs256 | Algorithm::Hs256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
    };
    let key =
        parsed.map_err(|error| format!("is not a public key in PEM for {}: {error}", algorithm.as_str()))?;
    let bytes = key.try_get_as_bytes().unwrap_or_default();
    match algorithm {
        Algorithm::Es256 if bytes.len() != Keys::P256_POINT_BYTES => {
            Err("is not on the curve P-256, which ES256 requires".into())
        }
        Algorithm::Rs256 => {
            let (n, e) = rsa_numbers(bytes).ok_or("is not an RSA public key")?;
            rsa_key(n, e)
        }
        Algorithm::Es256 | Algorithm::EdDsa | Algorithm::Hs256 => Ok(key),
    }
}

/// Returns the modulus and the exponent of an `RSAPublicKey` in DER (RFC 8017, appendix A.1.1).
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const INTEGER: u8 = 0x02;
    const SEQUENCE: u8 = 0x30;
    let (numbers, _) = der_value(SEQUENCE, der)?;
    let (n, rest) = der_value(INTEGER, numbers)?;
    let (e, _) = der_value(INTEGER, rest)?;
    Some((n, e))
}

/// Returns the contents of the first value in `der`, and the bytes after this value (X.690, section 8.1).
///
/// Returns `None` if the first value has a tag other than `tag`, or is truncated.
fn der_value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.strip_prefix(&[tag])?.split_first()?;
    let (len, rest) = match first.checked_sub(0x80) {
        None => (usize::from(*first), rest),
        Some(bytes) => {
            let (len, rest) = rest.split_at_checked(usize::from(bytes))?;
            let len = len
                .iter()
                .try_fold(0_usize, |len, byte| len.checked_mul(256)?.checked_add(usize::from(*byte)))?;
            (len, rest)
        }
    };
    rest.split_at_checked(len)
}

/// A JSON Web Key Set (RFC 7517, section 5).
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// A JSON Web Key (RFC 7517, section 4; RFC 7518, section 6; RFC 8037, section 2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    intended_use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    d: Option<IgnoredAny>,
}

/// The reason why a key of a JSON Web Key Set is not used.
enum Unusable {
    /// The key is ignored, and the other keys of the set are used. The contained text is the reason. Issuers
    /// also publish keys for other purposes and of unknown types, which should be ignored (RFC 7517, section 5).
    Ignored(String),
    /// The whole set is refused, because it contains this key by mistake. The contained text is the reason.
    Refused(String),
}

fn jwk_key(algorithms: &[Algorithm], jwk: Value) -> Result<Key, Unusable> {
    use Unusable::{Ignored, Refused};
    let Ok(jwk) = serde_json::from_value::<Jwk>(jwk) else {
        return Err(Ignored("is not a JSON Web Key".into()));
    };
    if jwk.d.is_some() {
        return Err(Refused("is a private key; use the public key, and keep the private key secret".into()));
    }
    if let Some(other) = jwk.intended_use.filter(|intended| intended != "sig") {
        return Err(Ignored(format!("is not for signatures (`use` is `{other}`)")));
    }
    if jwk.key_ops.is_some_and(|operations| !operations.iter().any(|operation| operation == "verify")) {
        return Err(Ignored("is not for verifying signatures (`key_ops` lacks `verify`)".into()));
    }
    let algorithm = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => Algorithm::Rs256,
        ("EC", Some("P-256")) => Algorithm::Es256,
        ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
        ("oct", _) => Algorithm::Hs256,
        (kind, curve) => {
            let curve = curve.map(|curve| format!(", {curve}")).unwrap_or_default();
            return Err(Ignored(format!("has an unsupported key type ({kind}{curve})")));
        }
    };
    if let Some(other) = jwk.alg.filter(|named| named != algorithm.as_str()) {
        return Err(Ignored(format!("is for the algorithm {other}")));
    }
    if !algorithms.contains(&algorithm) {
        return Err(Ignored(format!("is for the algorithm {}", algorithm.as_str())));
    }
    let member = |name: &str, value: Option<String>| {
        let decoded = value.and_then(|value| URL_SAFE_NO_PAD.decode(value).ok());
        decoded.ok_or_else(|| Ignored(format!("has no valid base64url value `{name}`")))
    };
    let key = match algorithm {
        Algorithm::Rs256 => rsa_key(&member("n", jwk.n)?, &member("e", jwk.e)?),
        Algorithm::Es256 => p256_key(&member("x", jwk.x)?, &member("y", jwk.y)?),
        Algorithm::EdDsa => ed25519_key(&member("x", jwk.x)?),
        Algorithm::Hs256 => secret_bytes(&member("k", jwk.k)?),
    };
    Ok(Key { id: jwk.kid, algorithm, key: key.map_err(Ignored)? })
}

fn rsa_key(n: &[u8], e: &[u8]) -> Result<DecodingKey, String> {
    let [n, e] = [n, e].map(|number| &number[number.iter().take_while(|byte| **byte == 0).count()..]);
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if !Keys::RSA_BITS.contains(&bits) {
        let (least, most) = (Keys::RSA_BITS.start(), Keys::RSA_BITS.end());
        return Err(format!("has {bits} bits; an RSA key must have {least} to {most}"));
    }
    Ok(DecodingKey::from_rsa_raw_components(n, e))
}

fn p256_key(x: &[u8], y: &[u8]) -> Result<DecodingKey, String> {
    let point = [&[4], x, y].concat();
    if x.len() != y.len() || point.len() != Keys::P256_POINT_BYTES {
        return Err("has a coordinate that is not 32 bytes long".into());
    }
    Ok(DecodingKey::from_ec_der(&point))
}

fn ed25519_key(x: &[u8]) -> Result<DecodingKey, String> {
    if x.len() != ring::signature::ED25519_PUBLIC_KEY_LEN {
        return Err("is not 32 bytes long".into());
    }
    Ok(DecodingKey::from_ed_der(x))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_keys::{RSA_PUBLIC, TestKey, changed_object};
    use super::super::{TokenRefused, TokenVerifier};
    use super::*;
    use crate::ports::Timestamp;

    const ALL: [Algorithm; 4] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256];
    const ASYMMETRIC: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn claims() -> Value {
        json!({"sub": "ann", "tenant_id": "acme", "exp": 1_000_060})
    }

    fn verifier(algorithms: &[Algorithm], keys: &[Value]) -> Result<TokenVerifier, String> {
        TokenVerifier::with_key_set(algorithms, &json!({"keys": keys}).to_string())
    }

    fn outcome(verifier: &TokenVerifier, token: &str) -> Result<(), TokenRefused> {
        verifier.verify(token, NOW).map(|_| ())
    }

    /// Returns the JWK of `key` with the kid `k1`, after replacing the members that `changes` contains. A null in
    /// `changes` removes the member.
    fn changed(key: &TestKey, changes: &Value) -> Value {
        changed_object(key.jwk("k1"), changes)
    }

    #[test]
    fn token_is_verified_with_the_key_that_its_kid_names() {
        let keys = ALL.map(|algorithm| (algorithm.as_str(), TestKey::new(algorithm)));
        let second = TestKey::new(Algorithm::EdDsa);
        let mut set: Vec<Value> = keys.iter().map(|(id, key)| key.jwk(id)).collect();
        set.push(second.jwk("second"));
        let verifier = verifier(&ALL, &set).unwrap();
        for (id, key) in &keys {
            assert_eq!(outcome(&verifier, &key.sign_as(id, &claims())), Ok(()), "{id}");
        }
        assert_eq!(outcome(&verifier, &second.sign_as("second", &claims())), Ok(()));
    }

    /// Returns an RSA public key in PEM whose modulus has this number of bits.
    fn rsa_pem(bits: usize) -> String {
        let tagged = |tag: u8, contents: &[u8]| {
            let len = u16::try_from(contents.len()).unwrap().to_be_bytes();
            [&[tag, 0x82], &len[..], contents].concat()
        };
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= bits.div_ceil(8) * 8 - bits;
        let numbers = [tagged(2, &[&[0], &modulus[..]].concat()), vec![2, 3, 1, 0, 1]].concat();
        let text = base64::engine::general_purpose::STANDARD.encode(tagged(0x30, &numbers));
        format!("-----BEGIN RSA PUBLIC KEY-----\n{text}\n-----END RSA PUBLIC KEY-----\n")
    }

    #[test]
    fn rsa_key_in_pem_is_accepted_from_2048_to_8192_bits() {
        let outcome = |bits| TokenVerifier::new(Algorithm::Rs256, &rsa_pem(bits)).map(drop);
        for bits in [2_048, 2_049, 8_192] {
            assert_eq!(outcome(bits), Ok(()), "{bits}");
        }
        for bits in [1_024, 2_000, 2_047, 8_193, 16_384] {
            let problem = format!("the key has {bits} bits; an RSA key must have 2048 to 8192");
            assert_eq!(outcome(bits), Err(problem), "{bits}");
        }
    }

    #[test]
    fn truncated_or_malformed_der_is_rejected_as_an_rsa_key() {
        let whole = [0x30, 0x08, 2, 1, 7, 2, 3, 1, 0, 1];
        assert_eq!(rsa_numbers(&whole), Some((&[7][..], &[1, 0, 1][..])));
        for cut in 0..whole.len() {
            assert_eq!(rsa_numbers(&whole[..cut]), None, "{cut}");
        }
        for malformed in
            [&[0x30, 0x80][..], &[0x30, 0xff, 1], &[0x30, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0], &[2, 1, 7]]
        {
            assert_eq!(rsa_numbers(malformed), None, "{malformed:?}");
        }
    }

    #[test]
    fn token_with_an_unknown_kid_or_the_kid_of_another_key_is_refused() {
        let (one, other) = (TestKey::new(Algorithm::EdDsa), TestKey::new(Algorithm::EdDsa));
        let verifier = verifier(&ASYMMETRIC, &[one.jwk("one"), other.jwk("other")]).unwrap();
        for id in ["other", "unknown", "", "ONE", "one ", "\u{0}", "../one"] {
            let refused = outcome(&verifier, &one.sign_as(id, &claims()));
            assert_eq!(refused, Err(TokenRefused::Signature), "{id:?}");
        }
        for kid in ["7", "null, \"kid\": \"one\"", "[\"one\"]", "{}"] {
            let header = format!(r#"{{"alg":"EdDSA","kid":{kid}}}"#);
            let refused = outcome(&verifier, &one.sign_text(&header, &claims().to_string()));
            assert_eq!(refused, Err(TokenRefused::Malformed), "{kid}");
        }
    }

    #[test]
    fn token_without_a_kid_is_accepted_only_if_one_key_has_its_algorithm() {
        let (rsa, one, other) =
            (TestKey::new(Algorithm::Rs256), TestKey::new(Algorithm::EdDsa), TestKey::new(Algorithm::EdDsa));
        let verifier = verifier(&ASYMMETRIC, &[rsa.jwk("rsa"), one.jwk("one"), other.jwk("other")]).unwrap();
        assert_eq!(outcome(&verifier, &rsa.sign(&claims())), Ok(()));
        for key in [one, other] {
            assert_eq!(outcome(&verifier, &key.sign(&claims())), Err(TokenRefused::Signature));
        }
    }

    #[test]
    fn key_without_a_kid_verifies_tokens_whose_kid_matches_no_key_of_the_set() {
        let (named, unnamed) = (TestKey::new(Algorithm::EdDsa), TestKey::new(Algorithm::EdDsa));
        let verifier =
            verifier(&ASYMMETRIC, &[changed(&unnamed, &json!({"kid": null})), named.jwk("named")]).unwrap();
        assert_eq!(outcome(&verifier, &named.sign_as("named", &claims())), Ok(()));
        assert_eq!(outcome(&verifier, &unnamed.sign_as("any", &claims())), Ok(()));
        assert_eq!(outcome(&verifier, &unnamed.sign_as("named", &claims())), Err(TokenRefused::Signature));
    }

    #[test]
    fn key_of_a_key_set_refuses_tokens_signed_with_another_algorithm() {
        for pinned in ALL {
            let verifier = verifier(&ALL, &[TestKey::new(pinned).jwk("k1")]).unwrap();
            for named in ALL.into_iter().filter(|named| *named != pinned) {
                let token = TestKey::new(named).sign_as("k1", &claims());
                assert_eq!(
                    outcome(&verifier, &token),
                    Err(TokenRefused::Signature),
                    "{named:?} for {pinned:?}"
                );
            }
            for header in [r#"{"alg":"none","kid":"k1"}"#, r#"{"alg":"HS512","kid":"k1"}"#] {
                let token = TestKey::new(pinned).sign_text(header, &claims().to_string());
                assert_eq!(outcome(&verifier, &token), Err(TokenRefused::Signature), "{header}");
            }
        }
    }

    #[test]
    fn hs256_token_signed_with_a_public_key_of_the_key_set_as_secret_is_refused() {
        let rsa = TestKey::new(Algorithm::Rs256);
        let verifier =
            verifier(&ALL, &[rsa.jwk("k1"), TestKey::new(Algorithm::Hs256).jwk("secret")]).unwrap();
        let jwk = rsa.jwk("k1");
        for public_text in [RSA_PUBLIC.to_owned(), jwk.to_string(), jwk["n"].as_str().unwrap().to_owned()] {
            let forger = TestKey::Hs256(public_text);
            for id in ["k1", "secret"] {
                assert_eq!(outcome(&verifier, &forger.sign_as(id, &claims())), Err(TokenRefused::Signature));
            }
            assert_eq!(outcome(&verifier, &forger.sign(&claims())), Err(TokenRefused::Signature));
        }
    }

    #[test]
    fn secret_of_a_key_set_verifies_tokens_only_if_hs256_is_configured() {
        let (secret, public) = (TestKey::new(Algorithm::Hs256), TestKey::new(Algorithm::EdDsa));
        let set = [secret.jwk("secret"), public.jwk("public")];
        let token = secret.sign_as("secret", &claims());
        assert_eq!(outcome(&verifier(&ASYMMETRIC, &set).unwrap(), &token), Err(TokenRefused::Signature));
        assert_eq!(outcome(&verifier(&ALL, &set).unwrap(), &token), Ok(()));
    }

    #[test]
    fn unusable_key_is_ignored_unless_it_is_the_only_key_of_its_key_set() {
        let good = TestKey::new(Algorithm::EdDsa);
        let [rsa, ec, ed, oct] = ALL.map(TestKey::new);
        let short_modulus = URL_SAFE_NO_PAD.encode([0xff; 128]);
        let unusable = [
            changed(&rsa, &json!({"use": "enc"})),
            changed(&rsa, &json!({"key_ops": ["encrypt"]})),
            changed(&rsa, &json!({"alg": "RS512"})),
            changed(&rsa, &json!({"alg": "ES256"})),
            changed(&rsa, &json!({"n": short_modulus})),
            changed(&rsa, &json!({"n": null})),
            changed(&rsa, &json!({"e": "!"})),
            changed(&rsa, &json!({"kid": 7})),
            changed(&rsa, &json!({"kty": null, "kid": null})),
            changed(&ec, &json!({"crv": "P-384", "alg": "ES384"})),
            changed(&ec, &json!({"y": "AQAB"})),
            changed(&ed, &json!({"crv": "X25519"})),
            changed(&ed, &json!({"x": "AQAB"})),
            changed(&oct, &json!({})),
            changed(&ed, &json!({"kty": "AKP"})),
            json!("not an object"),
        ];
        let mut report = Vec::new();
        for jwk in unusable {
            let with_good = verifier(&ASYMMETRIC, &[jwk.clone(), good.jwk("good")]).unwrap();
            assert_eq!(outcome(&with_good, &good.sign_as("good", &claims())), Ok(()), "{jwk}");
            report.push(verifier(&ASYMMETRIC, &[jwk]).unwrap_err());
        }
        insta::assert_snapshot!(report.join("\n"));
    }

    #[test]
    fn key_set_with_a_private_key_or_ambiguous_keys_is_refused_as_a_whole() {
        let (good, other) = (TestKey::new(Algorithm::EdDsa), TestKey::new(Algorithm::EdDsa));
        let unnamed = |key| changed(key, &json!({"kid": null}));
        let report = [
            verifier(&ASYMMETRIC, &[good.jwk("k1"), changed(&other, &json!({"d": "AQAB"}))]),
            verifier(&ASYMMETRIC, &[good.jwk("k1"), other.jwk("k1")]),
            verifier(&ASYMMETRIC, &[unnamed(&good), unnamed(&other)]),
            verifier(&ASYMMETRIC, &[]),
            TokenVerifier::with_key_set(&ASYMMETRIC, "{\"keys\":\n 7}"),
            TokenVerifier::with_key_set(&ASYMMETRIC, &good.jwk("k1").to_string()),
            TokenVerifier::with_key_set(&ASYMMETRIC, ""),
            TokenVerifier::new(Algorithm::Rs256, &RSA_PUBLIC.repeat(2)),
        ];
        insta::assert_snapshot!(report.map(Result::unwrap_err).join("\n"));
        let same_id =
            verifier(&ASYMMETRIC, &[good.jwk("k1"), TestKey::new(Algorithm::Es256).jwk("k1")]).unwrap();
        assert_eq!(
            outcome(&same_id, &good.sign_as("k1", &claims())),
            Ok(()),
            "keys with the same kid and different algorithms are both usable"
        );
    }

    #[test]
    fn rsa_modulus_of_a_jwk_may_have_leading_zeros() {
        let key = TestKey::new(Algorithm::Rs256);
        let mut jwk = key.jwk("k1");
        let n = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
        jwk["n"] = URL_SAFE_NO_PAD.encode([&[0, 0], &n[..]].concat()).into();
        let verifier = verifier(&[Algorithm::Rs256], &[jwk]).unwrap();
        assert_eq!(outcome(&verifier, &key.sign_as("k1", &claims())), Ok(()));
    }
}
