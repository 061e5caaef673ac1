use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Algorithm, signature};

/// The keys that tokens are verified with, each pinned to one algorithm.
pub(super) struct Keys(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Without the keys themselves: one of them may be a secret.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|key| (&key.id, key.algorithm))).finish()
    }
}

impl Keys {
    const MIN_SECRET_BYTES: usize = 32;
    /// What ring verifies with.
    const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
    /// A point on P-256, uncompressed.
    const P256_POINT_BYTES: usize = 65;

    /// One key, in PEM, or the secret itself.
    pub(super) fn one(algorithm: Algorithm, key: &str) -> Result<Self, String> {
        let key = match algorithm {
            Algorithm::Hs256 => secret_text(key)?,
            Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa => public_key(algorithm, key)?,
        };
        Ok(Self(vec![Key { id: None, algorithm, key }]))
    }

    /// The keys of a JSON Web Key Set that are for one of these algorithms.
    pub(super) fn set(algorithms: &[Algorithm], jwks: &str) -> Result<Self, String> {
        // Not with the text that could not be read: there may be a secret in it.
        let set: KeySet = serde_json::from_str(jwks).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("is no JSON Web Key Set, an object with a list of `keys` (line {line}, column {column})")
        })?;
        let mut keys: Vec<Key> = Vec::new();
        let mut passed_over = Vec::new();
        for (n, jwk) in set.keys.into_iter().enumerate() {
            let name = match jwk.get("kid").and_then(Value::as_str) {
                Some(id) => format!("the key {id:?}"),
                None => format!("key {}", n + 1),
            };
            let key = match jwk_key(algorithms, jwk) {
                Ok(key) => key,
                Err(Unusable::PassedOver(reason)) => {
                    tracing::info!("{name} of the token keys is passed over: it {reason}");
                    passed_over.push(format!("{name} {reason}"));
                    continue;
                }
                Err(Unusable::Refused(reason)) => return Err(format!("cannot be used: {name} {reason}")),
            };
            if keys.iter().any(|other| other.id == key.id && other.algorithm == key.algorithm) {
                return Err(format!(
                    "cannot be used: {name} is one of two {} keys that no token could tell apart",
                    key.algorithm.as_str()
                ));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            let wanted: Vec<&str> = algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
            let reasons =
                if passed_over.is_empty() { "it is empty".to_owned() } else { passed_over.join(", ") };
            return Err(format!("is a set without a key for {}: {reasons}", wanted.join(" or ")));
        }
        Ok(Self(keys))
    }

    /// Whether `signature` is that of `message`, by the key that a token's header points to.
    ///
    /// That is at most one: no token can make us try one key after another.
    pub(super) fn verify(&self, algorithm: &str, id: Option<&str>, message: &[u8], signature: &[u8]) -> bool {
        // Whatever a header names that no key is pinned to, `none` included, is not how we verify.
        let of_algorithm = || self.0.iter().filter(|key| key.algorithm.as_str() == algorithm);
        let found = match id {
            Some(id) => of_algorithm()
                .find(|key| key.id.as_deref() == Some(id))
                .or_else(|| of_algorithm().find(|key| key.id.is_none())),
            None => of_algorithm().next().filter(|_| of_algorithm().count() == 1),
        };
        found.is_some_and(|found| signature::holds(found.algorithm, &found.key, message, signature))
    }
}

fn secret_text(secret: &str) -> Result<DecodingKey, String> {
    // Anybody may have the public key of an issuer, and could sign with it.
    if secret.contains("-----BEGIN") {
        return Err("is a key in PEM, and an HS256 secret must be one that nobody else knows".into());
    }
    secret_bytes(secret.as_bytes())
}

fn secret_bytes(secret: &[u8]) -> Result<DecodingKey, String> {
    if secret.len() < Keys::MIN_SECRET_BYTES {
        return Err(format!("an HS256 secret must have at least {} bytes", Keys::MIN_SECRET_BYTES));
    }
    Ok(DecodingKey::from_secret(secret))
}

/// Refuses what the library takes for a key and ring would fail on, token after token.
fn public_key(algorithm: Algorithm, key: &str) -> Result<DecodingKey, String> {
    let pem = key.replace("\\n", "\n");
    if pem.contains("PRIVATE KEY-----") {
        return Err("is a private key: give its public half, and nobody the private one".into());
    }
    if pem.matches("-----BEGIN").count() > 1 {
        return Err("is several keys in PEM: give one, or all of them as a JSON Web Key Set".into());
    }
    let parsed = match algorithm {
        Algorithm::Es256 => DecodingKey::from_ec_pem(pem.as_bytes()),
        Algorithm::EdDsa => DecodingKey::from_ed_pem(pem.as_bytes()),
        Algorithm::Rs256 | Algorithm::Hs256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
    };
    let key = parsed.map_err(|error| format!("is no public key in PEM for {algorithm:?}: {error}"))?;
    let bytes = key.try_get_as_bytes().unwrap_or_default();
    match algorithm {
        Algorithm::Es256 if bytes.len() != Keys::P256_POINT_BYTES => {
            Err("is a key on another curve than P-256, which is that of ES256".into())
        }
        Algorithm::Rs256 => {
            let (n, e) = rsa_numbers(bytes).ok_or("is no RSA public key")?;
            rsa_key(n, e)
        }
        Algorithm::Es256 | Algorithm::EdDsa | Algorithm::Hs256 => Ok(key),
    }
}

/// The modulus and the exponent of an `RSAPublicKey` in DER (RFC 8017, appendix A.1.1).
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const INTEGER: u8 = 0x02;
    const SEQUENCE: u8 = 0x30;
    let (numbers, _) = der_value(SEQUENCE, der)?;
    let (n, rest) = der_value(INTEGER, numbers)?;
    let (e, _) = der_value(INTEGER, rest)?;
    Some((n, e))
}

/// The contents of the value of this tag that `der` begins with, and what comes after it (X.690, section 8.1).
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

/// RFC 7517, section 5.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// RFC 7517, section 4; RFC 7518, section 6; RFC 8037, section 2.
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

/// Why a key of a set is not used.
enum Unusable {
    /// Issuers publish keys for other purposes, and of kinds to come (RFC 7517, section 5): the others are as good.
    PassedOver(String),
    /// Nobody meant to configure this.
    Refused(String),
}

fn jwk_key(algorithms: &[Algorithm], jwk: Value) -> Result<Key, Unusable> {
    use Unusable::{PassedOver, Refused};
    let Ok(jwk) = serde_json::from_value::<Jwk>(jwk) else {
        return Err(PassedOver("is no JSON Web Key".into()));
    };
    if jwk.d.is_some() {
        return Err(Refused("is private: give its public half, and nobody the private one".into()));
    }
    if let Some(other) = jwk.intended_use.filter(|intended| intended != "sig") {
        return Err(PassedOver(format!("is not for signatures (use: {other})")));
    }
    if jwk.key_ops.is_some_and(|operations| !operations.iter().any(|operation| operation == "verify")) {
        return Err(PassedOver("is not for verifying (key_ops)".into()));
    }
    let algorithm = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => Algorithm::Rs256,
        ("EC", Some("P-256")) => Algorithm::Es256,
        ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
        ("oct", _) => Algorithm::Hs256,
        (kind, curve) => {
            let curve = curve.map(|curve| format!(", {curve}")).unwrap_or_default();
            return Err(PassedOver(format!("is of a kind that is not known here ({kind}{curve})")));
        }
    };
    if let Some(other) = jwk.alg.filter(|named| named != algorithm.as_str()) {
        return Err(PassedOver(format!("is for {other}")));
    }
    if !algorithms.contains(&algorithm) {
        return Err(PassedOver(format!("is for {}", algorithm.as_str())));
    }
    let member = |name: &str, value: Option<String>| {
        let decoded = value.and_then(|value| URL_SAFE_NO_PAD.decode(value).ok());
        decoded.ok_or_else(|| PassedOver(format!("has no `{name}` in base64url")))
    };
    let key = match algorithm {
        Algorithm::Rs256 => rsa_key(&member("n", jwk.n)?, &member("e", jwk.e)?),
        Algorithm::Es256 => p256_key(&member("x", jwk.x)?, &member("y", jwk.y)?),
        Algorithm::EdDsa => ed25519_key(&member("x", jwk.x)?),
        Algorithm::Hs256 => {
            secret_bytes(&member("k", jwk.k)?).map_err(|problem| format!("is too short: {problem}"))
        }
    };
    Ok(Key { id: jwk.kid, algorithm, key: key.map_err(PassedOver)? })
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
        return Err("has coordinates that are not of 32 bytes each".into());
    }
    Ok(DecodingKey::from_ec_der(&point))
}

fn ed25519_key(x: &[u8]) -> Result<DecodingKey, String> {
    if x.len() != ring::signature::ED25519_PUBLIC_KEY_LEN {
        return Err("is not of 32 bytes".into());
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

    /// The key `k1`, but for these members; null takes one away.
    fn changed(key: &TestKey, changes: &Value) -> Value {
        changed_object(key.jwk("k1"), changes)
    }

    #[test]
    fn a_token_is_verified_with_the_key_that_its_kid_names() {
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

    /// An RSA key whose modulus has so many bits, in PEM.
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
    fn an_rsa_key_in_pem_is_taken_at_the_bounds_and_refused_a_bit_beyond_them() {
        let outcome = |bits| TokenVerifier::new(Algorithm::Rs256, &rsa_pem(bits)).map(drop);
        for bits in [2_048, 2_049, 8_192] {
            assert_eq!(outcome(bits), Ok(()), "{bits}");
        }
        for bits in [1_024, 2_000, 2_047, 8_193, 16_384] {
            let problem = format!("has {bits} bits; an RSA key must have 2048 to 8192");
            assert_eq!(outcome(bits), Err(problem), "{bits}");
        }
    }

    #[test]
    fn what_is_not_the_der_of_an_rsa_key_is_none() {
        let whole = [0x30, 0x08, 2, 1, 7, 2, 3, 1, 0, 1];
        assert_eq!(rsa_numbers(&whole), Some((&[7][..], &[1, 0, 1][..])));
        for cut in 0..whole.len() {
            assert_eq!(rsa_numbers(&whole[..cut]), None, "{cut}");
        }
        for odd in [&[0x30, 0x80][..], &[0x30, 0xff, 1], &[0x30, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0], &[2, 1, 7]]
        {
            assert_eq!(rsa_numbers(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn a_kid_that_is_unknown_or_another_keys_is_refused_as_a_bad_signature_is() {
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
    fn a_token_without_a_kid_is_taken_where_one_key_is_for_its_algorithm() {
        let (rsa, one, other) =
            (TestKey::new(Algorithm::Rs256), TestKey::new(Algorithm::EdDsa), TestKey::new(Algorithm::EdDsa));
        let verifier = verifier(&ASYMMETRIC, &[rsa.jwk("rsa"), one.jwk("one"), other.jwk("other")]).unwrap();
        assert_eq!(outcome(&verifier, &rsa.sign(&claims())), Ok(()));
        for key in [one, other] {
            assert_eq!(outcome(&verifier, &key.sign(&claims())), Err(TokenRefused::Signature));
        }
    }

    #[test]
    fn a_key_without_an_id_is_for_tokens_whose_kid_no_other_key_has() {
        let (named, unnamed) = (TestKey::new(Algorithm::EdDsa), TestKey::new(Algorithm::EdDsa));
        let verifier =
            verifier(&ASYMMETRIC, &[changed(&unnamed, &json!({"kid": null})), named.jwk("named")]).unwrap();
        assert_eq!(outcome(&verifier, &named.sign_as("named", &claims())), Ok(()));
        assert_eq!(outcome(&verifier, &unnamed.sign_as("any", &claims())), Ok(()));
        assert_eq!(outcome(&verifier, &unnamed.sign_as("named", &claims())), Err(TokenRefused::Signature));
    }

    #[test]
    fn a_key_of_a_set_takes_no_algorithm_but_its_own() {
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
    fn a_public_key_of_a_set_is_never_taken_for_a_secret() {
        let rsa = TestKey::new(Algorithm::Rs256);
        let verifier =
            verifier(&ALL, &[rsa.jwk("k1"), TestKey::new(Algorithm::Hs256).jwk("secret")]).unwrap();
        let jwk = rsa.jwk("k1");
        for known in [RSA_PUBLIC.to_owned(), jwk.to_string(), jwk["n"].as_str().unwrap().to_owned()] {
            let forger = TestKey::Hs256(known);
            for id in ["k1", "secret"] {
                assert_eq!(outcome(&verifier, &forger.sign_as(id, &claims())), Err(TokenRefused::Signature));
            }
            assert_eq!(outcome(&verifier, &forger.sign(&claims())), Err(TokenRefused::Signature));
        }
    }

    #[test]
    fn a_secret_of_a_set_counts_only_where_secrets_are_asked_for() {
        let (secret, public) = (TestKey::new(Algorithm::Hs256), TestKey::new(Algorithm::EdDsa));
        let set = [secret.jwk("secret"), public.jwk("public")];
        let token = secret.sign_as("secret", &claims());
        assert_eq!(outcome(&verifier(&ASYMMETRIC, &set).unwrap(), &token), Err(TokenRefused::Signature));
        assert_eq!(outcome(&verifier(&ALL, &set).unwrap(), &token), Ok(()));
    }

    #[test]
    fn an_unusable_key_costs_the_others_nothing_and_alone_is_refused_with_the_reason() {
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
            json!("no object"),
        ];
        let mut report = Vec::new();
        for jwk in unusable {
            let beside = verifier(&ASYMMETRIC, &[jwk.clone(), good.jwk("good")]).unwrap();
            assert_eq!(outcome(&beside, &good.sign_as("good", &claims())), Ok(()), "{jwk}");
            report.push(verifier(&ASYMMETRIC, &[jwk]).unwrap_err());
        }
        insta::assert_snapshot!(report.join("\n"));
    }

    #[test]
    fn what_nobody_can_mean_is_refused_whatever_stands_beside_it() {
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
            "told apart by their algorithms"
        );
    }

    #[test]
    fn a_modulus_may_begin_with_zeros() {
        let key = TestKey::new(Algorithm::Rs256);
        let mut jwk = key.jwk("k1");
        let n = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
        jwk["n"] = URL_SAFE_NO_PAD.encode([&[0, 0], &n[..]].concat()).into();
        let verifier = verifier(&[Algorithm::Rs256], &[jwk]).unwrap();
        assert_eq!(outcome(&verifier, &key.sign_as("k1", &claims())), Ok(()));
    }
}
