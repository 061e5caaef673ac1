//! The key that the local stage trusts, and tokens signed with it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use streamer::ports::Timestamp;

/// An Ed25519 key pair: its public half goes into the template's `JwtKey`, its private half signs tokens.
#[derive(Debug)]
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

/// Whom a token is for.
#[derive(Clone, Debug)]
pub struct TokenFor {
    /// The token's `sub`.
    pub user: String,
    /// The token's `tenant_id`.
    pub tenant: String,
    /// The token's `permissions`.
    pub permissions: Vec<String>,
    /// How long the token is valid.
    pub ttl: Duration,
}

impl TokenFor {
    /// A user of a tenant, without permissions, for a day.
    #[must_use]
    pub fn new(user: impl Into<String>, tenant: impl Into<String>) -> Self {
        let ttl = Duration::from_hours(24);
        Self { user: user.into(), tenant: tenant.into(), permissions: Vec::new(), ttl }
    }

    /// The same with these permissions.
    #[must_use]
    pub fn with_permissions<P: Into<String>>(mut self, permissions: impl IntoIterator<Item = P>) -> Self {
        self.permissions = permissions.into_iter().map(Into::into).collect();
        self
    }
}

impl SigningKey {
    const ALGORITHM: &str = "EdDSA";

    /// A new key, which nobody else has.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> io::Result<Self> {
        Self::from_pkcs8(&new_pkcs8()?)
    }

    /// The key in `file`, which is made, readable for its owner alone, if it is not there.
    ///
    /// # Errors
    /// When the file can be neither read nor written, or holds something else.
    pub fn load_or_create(file: &Path) -> io::Result<Self> {
        match fs::read(file) {
            Ok(pkcs8) => Self::from_pkcs8(&pkcs8),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pkcs8 = new_pkcs8()?;
                match create_private(file, &pkcs8) {
                    // Another stage was quicker: its key is as good.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        Self::from_pkcs8(&fs::read(file)?)
                    }
                    Err(error) => Err(error),
                    Ok(()) => Self::from_pkcs8(&pkcs8),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Derives the key from `seed`: the same seed gives the same key. Only for simulations, since anybody can derive it.
    ///
    /// # Errors
    /// Never in practice: every seed makes a valid Ed25519 key.
    pub fn from_seed(seed: u64) -> io::Result<Self> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let pair = Ed25519KeyPair::from_seed_unchecked(&bytes)
            .map_err(|_| io::Error::other("32 bytes are a seed of Ed25519"))?;
        Ok(Self { pair })
    }

    fn from_pkcs8(pkcs8: &[u8]) -> io::Result<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "it holds no Ed25519 key: delete it, and a new one is made",
            )
        })?;
        Ok(Self { pair })
    }

    /// The public half, in PEM.
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        // RFC 8410: SubjectPublicKeyInfo of the algorithm 1.3.101.112, without parameters.
        let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        der.extend_from_slice(self.pair.public_key().as_ref());
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    /// The template's parameters that have a stage trust this key.
    #[must_use]
    pub fn parameters(&self) -> BTreeMap<String, String> {
        [("JwtAlgorithm", Self::ALGORITHM.to_owned()), ("JwtKey", self.public_key_pem())]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    /// A JSON Web Token.
    #[must_use]
    pub fn sign(&self, whom: &TokenFor, now: Timestamp) -> String {
        let TokenFor { user, tenant, permissions, ttl } = whom;
        let claims = json!({
            "sub": user, "tenant_id": tenant, "permissions": permissions,
            "iat": now.as_secs(), "exp": (now + *ttl).as_secs(),
        });
        let header = json!({"alg": Self::ALGORITHM, "typ": "JWT"});
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

fn new_pkcs8() -> io::Result<Vec<u8>> {
    Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map(|document| document.as_ref().to_vec())
        .map_err(|_| io::Error::other("the operating system has no randomness to give"))
}

/// Writes the whole file under another name first, so that nobody ever reads half a key.
fn create_private(file: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let draft = file.with_extension(format!("{}.new", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&draft)?.write_all(contents)?;
    let linked = fs::hard_link(&draft, file);
    fs::remove_file(&draft)?;
    linked
}

#[cfg(test)]
mod tests {
    use streamer::auth::{Algorithm, TokenRefused, TokenVerifier};

    use super::*;

    fn whom(ttl: Duration) -> TokenFor {
        TokenFor { user: "ann".into(), tenant: "acme".into(), permissions: vec!["reports".into()], ttl }
    }

    #[test]
    fn the_library_trusts_what_the_key_signs() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let now = Timestamp::from_secs(1_700_000_000);
        let verifier = TokenVerifier::new(Algorithm::EdDsa, &key.public_key_pem()).unwrap();
        let token = key.sign(&whom(Duration::from_secs(60)), now);
        let identity = verifier.verify(&token, now).unwrap();
        assert_eq!((identity.user.as_str(), identity.tenant.as_str()), ("ann", "acme"));
        assert_eq!(identity.permissions, ["reports"]);
        assert_eq!(identity.expires_at, Timestamp::from_secs(1_700_000_060));
        assert_eq!(verifier.verify(&token, identity.expires_at), Err(TokenRefused::Expired));
        let forged = other.sign(&whom(Duration::from_secs(60)), now);
        assert_eq!(verifier.verify(&forged, now), Err(TokenRefused::Signature));
    }

    #[test]
    fn a_key_is_made_once_and_then_kept_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/key");
        let made = SigningKey::load_or_create(&file).unwrap();
        let kept = SigningKey::load_or_create(&file).unwrap();
        assert_eq!(made.public_key_pem(), kept.public_key_pem());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path().join("deep")).unwrap().count(), 1, "no draft is left");
        fs::write(&file, "nonsense").unwrap();
        let error = SigningKey::load_or_create(&file).unwrap_err();
        assert!(error.to_string().contains("delete it"), "{error}");
    }
}
