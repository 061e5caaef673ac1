use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::test_keys::{RSA_PUBLIC, TestKey, changed_object};
use super::*;
use crate::ids::{RequestId, RequestKey};

const ALL: [Algorithm; 4] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256];
/// Current time in the tests, in seconds since the Unix epoch. It is far in the past, so that a test fails if the
/// code uses the system clock.
const NOW_SECS: u64 = 1_000_000;
const NOW: Timestamp = Timestamp::from_secs(NOW_SECS);

fn claims() -> Value {
    json!({"sub": "ann", "tenant_id": "acme", "exp": NOW_SECS + 60})
}

/// Returns valid claims, except the claims that `changes` replaces. A null in `changes` removes the claim.
fn claims_with(changes: &Value) -> Value {
    changed_object(claims(), changes)
}

/// Verifies a token that has these claims and a valid signature.
fn verify_claims(claims: &Value) -> Result<Identity, TokenRefused> {
    verify_claims_text(&claims.to_string())
}

fn verify_claims_text(claims: &str) -> Result<Identity, TokenRefused> {
    let key = TestKey::new(Algorithm::Hs256);
    key.verifier().verify(&key.sign_text(r#"{"alg":"HS256"}"#, claims), NOW)
}

#[test]
fn token_signed_with_any_supported_algorithm_yields_its_identity() {
    for algorithm in ALL {
        let key = TestKey::new(algorithm);
        let token = key.sign(&claims_with(&json!({"permissions": ["reports", "admin"]})));
        let identity = Identity {
            user: "ann".into(),
            tenant: "acme".into(),
            permissions: vec!["reports".into(), "admin".into()],
            expires_at: Timestamp::from_secs(NOW_SECS + 60),
        };
        assert_eq!(key.verifier().verify(&token, NOW), Ok(identity), "{algorithm:?}");
    }
}

#[test]
fn token_with_a_tampered_header_payload_or_signature_is_refused() {
    for algorithm in ALL {
        let key = TestKey::new(algorithm);
        let token = key.sign(&claims());
        let [header, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
        let other_claims = URL_SAFE_NO_PAD.encode(claims_with(&json!({"sub": "bob"})).to_string());
        let other_header = URL_SAFE_NO_PAD.encode(json!({"alg": algorithm.as_str(), "kid": "x"}).to_string());
        let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let cut = URL_SAFE_NO_PAD.encode(&flipped[1..]);
        flipped[7] ^= 1;
        let flipped = URL_SAFE_NO_PAD.encode(flipped);
        for changed in [
            format!("{header}.{other_claims}.{signature}"),
            format!("{other_header}.{payload}.{signature}"),
            format!("{header}.{payload}.{flipped}"),
            format!("{header}.{payload}.{cut}"),
            format!("{header}.{payload}."),
        ] {
            assert_eq!(key.verifier().verify(&changed, NOW), Err(TokenRefused::Signature), "{changed}");
        }
    }
}

#[test]
fn token_signed_with_an_untrusted_key_is_refused() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256] {
        let (trusted, other) = (TestKey::new(algorithm), TestKey::new(algorithm));
        let refused = trusted.verifier().verify(&other.sign(&claims()), NOW);
        assert_eq!(refused, Err(TokenRefused::Signature), "{algorithm:?}");
    }
}

#[test]
fn key_refuses_tokens_of_any_algorithm_except_its_pinned_algorithm() {
    for pinned in ALL {
        let verifier = TestKey::new(pinned).verifier();
        for named in ALL.into_iter().filter(|named| *named != pinned) {
            let token = TestKey::new(named).sign(&claims());
            let refused = verifier.verify(&token, NOW);
            assert_eq!(refused, Err(TokenRefused::Signature), "{named:?} for {pinned:?}");
        }
    }
}

#[test]
fn token_signed_with_the_rsa_public_key_as_hs256_secret_is_refused() {
    let forger = TestKey::Hs256(RSA_PUBLIC.to_owned());
    let verifier = TestKey::new(Algorithm::Rs256).verifier();
    assert_eq!(verifier.verify(&forger.sign(&claims()), NOW), Err(TokenRefused::Signature));
    let with_rs256_header = forger.sign_text(r#"{"alg":"RS256"}"#, &claims().to_string());
    assert_eq!(verifier.verify(&with_rs256_header, NOW), Err(TokenRefused::Signature));
    let misconfigured = TokenVerifier::new(Algorithm::Hs256, RSA_PUBLIC).unwrap_err();
    assert!(misconfigured.starts_with("the key is in PEM format"), "{misconfigured}");
}

#[test]
fn token_that_is_unsigned_or_names_an_unknown_algorithm_is_refused() {
    for algorithm in ALL {
        let key = TestKey::new(algorithm);
        let verifier = key.verifier();
        for named in ["none", "None", "", "HS512", "ES256K", "hs256", "rs256", "eddsa"] {
            let header = json!({"alg": named}).to_string();
            let unsigned = format!(
                "{}.{}.",
                URL_SAFE_NO_PAD.encode(&header),
                URL_SAFE_NO_PAD.encode(claims().to_string())
            );
            let signed = key.sign_text(&header, &claims().to_string());
            for token in [unsigned, signed] {
                assert_eq!(verifier.verify(&token, NOW), Err(TokenRefused::Signature), "{named:?}");
            }
        }
    }
}

#[test]
fn signed_token_with_an_invalid_header_is_malformed() {
    let key = TestKey::new(Algorithm::EdDsa);
    for header in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"alg":null}"#,
        r#"{"alg":["EdDSA"]}"#,
        r#"{"alg":"EdDSA","alg":"EdDSA"}"#,
        // RFC 7515, section 4.1.11: a token with an unsupported critical header must be refused.
        r#"{"alg":"EdDSA","crit":["b64"],"b64":false}"#,
        r#"{"alg":"EdDSA","crit":[]}"#,
    ] {
        let token = key.sign_text(header, &claims().to_string());
        assert_eq!(key.verifier().verify(&token, NOW), Err(TokenRefused::Malformed), "{header}");
    }
    let unusual = r#"{ "typ": "at+jwt", "alg": "EdDSA", "kid": "k1", "x-own": [1] }"#;
    assert!(key.verifier().verify(&key.sign_text(unusual, &claims().to_string()), NOW).is_ok());
}

#[test]
fn text_that_is_not_a_token_is_malformed() {
    let key = TestKey::new(Algorithm::Hs256);
    let verifier = key.verifier();
    let token = key.sign(&claims());
    let two_parts = token.rsplit_once('.').unwrap().0.to_owned();
    for text in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "a.b.c".into(),
        "hello".into(),
        "ключ.ключ.ключ".into(),
        "🦀".repeat(30),
        "\0".into(),
        two_parts,
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{token}"),
        format!("{token}.a.b"),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}="),
        format!("{token}!"),
        format!("Bearer {token}"),
        token.replace('.', ".="),
        token.replace('.', "/"),
    ] {
        assert_eq!(verifier.verify(&text, NOW), Err(TokenRefused::Malformed), "{text:?}");
    }
}

#[test]
fn token_may_have_at_most_4096_bytes() {
    let key = TestKey::new(Algorithm::Hs256);
    let with_padding = |n: usize| key.sign(&claims_with(&json!({"padding": "x".repeat(n)})));
    // In base64, three more bytes of claims are four more characters of the token.
    let fits = |n: &usize| (4093..=4096).contains(&with_padding(*n).len());
    let longest = (2000..4096).find(fits).unwrap();
    assert!(key.verifier().verify(&with_padding(longest), NOW).is_ok());
    let too_long = with_padding(longest + 3);
    assert_eq!(key.verifier().verify(&too_long, NOW), Err(TokenRefused::Malformed));
}

proptest! {
    #[test]
    fn arbitrary_text_is_refused_without_a_panic(text in "\\PC{0,300}", dotted in "[A-Za-z0-9_.-]{0,200}") {
        let verifier = TestKey::Hs256("0123456789abcdef0123456789abcdef".into()).verifier();
        prop_assert!(verifier.verify(&text, NOW).is_err());
        prop_assert!(verifier.verify(&dotted, NOW).is_err());
    }
}

#[test]
fn token_expiry_is_checked_against_the_given_clock_not_the_system_clock() {
    let key = TestKey::new(Algorithm::Hs256);
    let verifier = key.verifier();
    // Times in the far past, near the present and in the far future show that the system clock is not used.
    for exp in [1_000, 1_700_000_000, 250_000_000_000_u64] {
        let token = key.sign(&claims_with(&json!({"exp": exp})));
        let end = Timestamp::from_secs(exp);
        let just_before = Timestamp::from_millis(end.as_millis() - 1);
        assert_eq!(verifier.verify(&token, just_before).unwrap().expires_at, end);
        assert_eq!(verifier.verify(&token, end), Err(TokenRefused::Expired));
        assert_eq!(verifier.verify(&token, end + Duration::from_secs(1)), Err(TokenRefused::Expired));
    }
}

#[test]
fn token_is_valid_from_60_seconds_before_its_nbf() {
    let key = TestKey::new(Algorithm::Hs256);
    let verifier = key.verifier();
    for nbf in [1_000, 1_700_000_000, 250_000_000_000_u64] {
        let token = key.sign(&claims_with(&json!({"nbf": nbf, "exp": nbf + 60})));
        let start = Timestamp::from_secs(nbf - 60);
        let just_before = Timestamp::from_millis(start.as_millis() - 1);
        assert_eq!(verifier.verify(&token, just_before), Err(TokenRefused::NotYetValid));
        assert!(verifier.verify(&token, start).is_ok());
    }
}

#[test]
fn token_with_iat_up_to_60_seconds_in_the_future_is_accepted() {
    let issued_ahead = |secs: u64| verify_claims(&claims_with(&json!({"iat": NOW_SECS + secs})));
    assert!(issued_ahead(0).is_ok());
    assert!(issued_ahead(60).is_ok());
    assert_eq!(issued_ahead(61), Err(TokenRefused::NotYetValid));
    assert!(verify_claims(&claims_with(&json!({"iat": 0}))).is_ok());
}

#[test]
fn token_times_may_have_a_fraction_of_a_second() {
    let fractional = json!({"exp": 1_000_060.25, "nbf": 999_999.5, "iat": 1_000_059.75});
    let identity = verify_claims(&claims_with(&fractional)).unwrap();
    assert_eq!(identity.expires_at, Timestamp::from_millis(1_000_060_250));
    let exponent = r#"{"sub":"ann","tenant_id":"acme","exp":1.00006e6}"#;
    assert_eq!(verify_claims_text(exponent).unwrap().expires_at, Timestamp::from_secs(1_000_060));
    let refused = [
        (json!({"exp": 999_999.999}), TokenRefused::Expired),
        (json!({"nbf": 1_000_060.001}), TokenRefused::NotYetValid),
        (json!({"iat": 1_000_060.001}), TokenRefused::NotYetValid),
    ];
    for (changes, reason) in refused {
        assert_eq!(verify_claims(&claims_with(&changes)), Err(reason), "{changes}");
    }
}

#[test]
fn token_with_an_invalid_or_out_of_range_time_is_refused() {
    let latest = json!(253_402_300_799_u64);
    assert!(verify_claims(&claims_with(&json!({"exp": latest}))).is_ok());
    for (name, time) in ["exp", "nbf", "iat"].into_iter().flat_map(|name| {
        [
            json!(-1),
            json!(-0.5),
            json!(u64::MAX),
            json!(1e300),
            json!(253_402_300_800_u64),
            // A time that was sent in milliseconds by mistake. In seconds, it is in the year 55,840.
            json!(1_700_000_000_000_u64),
            json!("1000060"),
            json!(true),
            json!([]),
            json!({}),
        ]
        .map(|time| (name, time))
    }) {
        let refused = verify_claims(&claims_with(&json!({name: time})));
        assert_eq!(refused, Err(TokenRefused::Claims), "{name}: {time}");
    }
    for text in ["1e999", "null"] {
        let claims = format!(r#"{{"sub":"ann","tenant_id":"acme","exp":{text}}}"#);
        assert_eq!(verify_claims_text(&claims), Err(TokenRefused::Claims), "{text}");
    }
}

#[test]
fn token_with_a_missing_or_invalid_required_claim_is_refused() {
    let changes = [
        json!({"sub": null}),
        json!({"tenant_id": null}),
        json!({"exp": null}),
        json!({"sub": ""}),
        json!({"tenant_id": ""}),
        json!({"sub": 7}),
        json!({"tenant_id": ["acme"]}),
        json!({"sub": "x".repeat(256)}),
        json!({"tenant_id": "x".repeat(256)}),
        json!({"sub": "é".repeat(128)}),
        json!({"sub": "a\nb"}),
        json!({"sub": "a\u{0}b"}),
        json!({"tenant_id": "a\u{7f}b"}),
        json!({"tenant_id": "a\u{85}b"}),
    ];
    for change in changes {
        assert_eq!(verify_claims(&claims_with(&change)), Err(TokenRefused::Claims), "{change}");
    }
    for name in ["sub", "tenant_id"] {
        for id in ["x".repeat(255), "auth0|5f7c/ünï 🦀".to_owned()] {
            assert!(verify_claims(&claims_with(&json!({name: id}))).is_ok(), "{name}: {id}");
        }
    }
}

#[test]
fn token_whose_claims_are_not_an_object_or_repeat_a_key_is_refused() {
    for text in [
        "",
        "{",
        "[]",
        "null",
        "\"ann\"",
        r#"{"sub":"ann","sub":"root","tenant_id":"acme","exp":2000000}"#,
        r#"{"sub":"ann","tenant_id":"acme","exp":1,"exp":2000000}"#,
        r#"{"sub":"ann","tenant_id":"acme","exp":2000000} {}"#,
        r#"{"sub":"\ud800","tenant_id":"acme","exp":2000000}"#,
    ] {
        assert_eq!(verify_claims_text(text), Err(TokenRefused::Claims), "{text}");
    }
}

#[test]
fn request_key_of_the_longest_ids_fits_into_a_dynamodb_key() {
    let longest = "/".repeat(TokenVerifier::MAX_ID_BYTES);
    for character in ["/", "🦀"] {
        let id = RequestId::new(character.repeat(RequestId::MAX_CHARS));
        let key = RequestKey::new(&TenantId::new(&*longest), &UserId::new(&*longest), &id);
        assert!(key.as_str().len() <= 2048, "{}", key.as_str().len());
    }
}

#[test]
fn permissions_claim_may_be_absent_or_null_or_a_list_of_strings() {
    let permissions = |value: &str| {
        let claims = format!(r#"{{"sub":"ann","tenant_id":"acme","exp":2000000{value}}}"#);
        verify_claims_text(&claims).map(|identity| identity.permissions)
    };
    assert_eq!(permissions(""), Ok(Vec::new()));
    assert_eq!(permissions(r#","permissions":[]"#), Ok(Vec::new()));
    // An issuer written in Go encodes an empty list as null.
    assert_eq!(permissions(r#","permissions":null"#), Ok(Vec::new()));
    assert_eq!(permissions(r#","permissions":["a","b"]"#), Ok(vec!["a".into(), "b".into()]));
    for wrong in [r#""admin""#, "[1]", "[null]", r#"{"admin":true}"#, "true"] {
        let refused = permissions(&format!(r#","permissions":{wrong}"#));
        assert_eq!(refused, Err(TokenRefused::Claims), "{wrong}");
    }
}

#[test]
fn issuer_and_audience_are_checked_only_if_configured() {
    let key = TestKey::new(Algorithm::Hs256);
    let verify = |verifier: &TokenVerifier, changes: Value| {
        verifier.verify(&key.sign(&claims_with(&changes)), NOW).map(|_| ())
    };
    let any = key.verifier();
    assert_eq!(verify(&any, json!({"iss": "https://anybody.example", "aud": "anything"})), Ok(()));
    assert_eq!(verify(&any, json!({"iss": 7, "aud": {}})), Ok(()));

    let strict = key.verifier().with_issuer("https://issuer.example").with_audience("streamer");
    let iss = "https://issuer.example";
    for aud in [json!("streamer"), json!(["streamer"]), json!(["other", "streamer"])] {
        assert_eq!(verify(&strict, json!({"iss": iss, "aud": aud})), Ok(()), "{aud}");
    }
    for changes in [
        json!({"iss": iss}),
        json!({"aud": "streamer"}),
        json!({"iss": "https://issuer.example/", "aud": "streamer"}),
        json!({"iss": "", "aud": "streamer"}),
        json!({"iss": 7, "aud": "streamer"}),
        json!({"iss": iss, "aud": "Streamer"}),
        json!({"iss": iss, "aud": ""}),
        json!({"iss": iss, "aud": []}),
        json!({"iss": iss, "aud": ["other"]}),
        json!({"iss": iss, "aud": [["streamer"]]}),
        json!({"iss": iss, "aud": {"streamer": true}}),
        json!({"iss": iss, "aud": 7}),
    ] {
        assert_eq!(verify(&strict, changes.clone()), Err(TokenRefused::Claims), "{changes}");
    }
    let expired = key.sign(&claims_with(&json!({"iss": iss, "aud": "streamer", "exp": 1})));
    assert_eq!(strict.verify(&expired, NOW), Err(TokenRefused::Expired));
}

#[test]
fn token_is_refused_if_its_tenant_is_not_in_the_configured_list() {
    let key = TestKey::new(Algorithm::Hs256);
    let token_of = |tenant: &str| key.sign(&claims_with(&json!({"tenant_id": tenant})));
    let restricted = key.verifier().with_tenants(["acme".into(), "a/b".into()]);
    for (verifier, tenant, outcome) in [
        (&key.verifier(), "anybody", Ok(())),
        (&restricted, "acme", Ok(())),
        (&restricted, "a/b", Ok(())),
        (&restricted, "acm", Err(TokenRefused::Tenant)),
        (&restricted, "acme2", Err(TokenRefused::Tenant)),
        (&restricted, "Acme", Err(TokenRefused::Tenant)),
        (&restricted, "a%2Fb", Err(TokenRefused::Tenant)),
        (&restricted, "acme,a/b", Err(TokenRefused::Tenant)),
        (&key.verifier().with_tenants([]), "acme", Err(TokenRefused::Tenant)),
    ] {
        assert_eq!(verifier.verify(&token_of(tenant), NOW).map(|_| ()), outcome, "{tenant}");
    }
    let forged = TestKey::new(Algorithm::Hs256).sign(&claims_with(&json!({"tenant_id": "other"})));
    assert_eq!(
        restricted.verify(&forged, NOW),
        Err(TokenRefused::Signature),
        "the signature is checked before the tenant"
    );
}

#[test]
fn rsa_public_key_is_accepted_in_pkcs1_and_spki_pem_with_any_line_breaks() {
    let key = TestKey::new(Algorithm::Rs256);
    let token = key.sign(&claims());
    for form in [
        RSA_PUBLIC.to_owned(),
        RSA_PUBLIC.replace('\n', "\\n"),
        RSA_PUBLIC.replace('\n', "\r\n"),
        include_str!("testdata/rsa-2048-test-key.public.pkcs1.pem").to_owned(),
    ] {
        let verifier = TokenVerifier::new(Algorithm::Rs256, &form).unwrap();
        assert!(verifier.verify(&token, NOW).is_ok(), "{form}");
    }
}

#[test]
fn invalid_or_mismatched_key_is_refused_when_the_verifier_is_created() {
    let private = include_str!("testdata/rsa-2048-test-key.private.pem");
    let short = include_str!("testdata/rsa-1024-test-key.public.pem");
    let other_curve = include_str!("testdata/p384-test-key.public.pem");
    let refused = [
        (Algorithm::Rs256, ""),
        (Algorithm::Rs256, "nonsense"),
        (Algorithm::Rs256, private),
        (Algorithm::Rs256, short),
        (Algorithm::Rs256, other_curve),
        (Algorithm::Es256, RSA_PUBLIC),
        (Algorithm::Es256, other_curve),
        (Algorithm::EdDsa, RSA_PUBLIC),
        (Algorithm::Hs256, "0123456789abcdef0123456789abcde"),
        (Algorithm::Hs256, RSA_PUBLIC),
        (Algorithm::Hs256, private),
    ];
    let report: Vec<String> = refused
        .iter()
        .map(|(algorithm, key)| {
            let shown: String = key.lines().next().unwrap_or_default().chars().take(40).collect();
            format!("{algorithm:?} {shown:?} => {}", TokenVerifier::new(*algorithm, key).unwrap_err())
        })
        .collect();
    insta::assert_snapshot!(report.join("\n"));
}

#[test]
fn algorithm_is_parsed_from_its_jwt_name() {
    for algorithm in ALL {
        assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
    }
    let unknown = "none".parse::<Algorithm>().unwrap_err();
    assert_eq!(unknown, r#"expected RS256, ES256, EdDSA or HS256, found "none""#);
}

#[test]
fn debug_output_of_a_verifier_hides_its_secret() {
    let secret = "0123456789abcdef0123456789abcdef";
    let verifier = TestKey::Hs256(secret.into()).verifier().with_issuer("https://issuer.example");
    insta::assert_snapshot!(
        format!("{verifier:?}"),
        @r#"TokenVerifier { keys: {None: Hs256}, issuer: Some("https://issuer.example"), audience: None, tenants: None }"#
    );
}

#[test]
fn each_token_refusal_has_a_code_and_a_message() {
    let report = [
        TokenRefused::Missing,
        TokenRefused::Malformed,
        TokenRefused::Signature,
        TokenRefused::Expired,
        TokenRefused::NotYetValid,
        TokenRefused::Claims,
        TokenRefused::Tenant,
    ]
    .map(|refused| format!("{}: {refused}", refused.code()));
    insta::assert_snapshot!(report.join("\n"));
}
