//! The key pair of a local stage, and the tokens that clients present to the stage.

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

/// An Ed25519 key pair. Its private key signs tokens; its public key is a value for the template's parameter
/// `JwtKey`, which makes a stage trust these tokens.
#[derive(Debug)]
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

/// The claims of a token with which a client connects: user, tenant, permissions and lifetime.
#[derive(Clone, Debug)]
pub struct TokenFor {
    /// User id, the token's claim `sub`.
    pub user: String,
    /// Tenant id, the token's claim `tenant_id`.
    pub tenant: String,
    /// Permissions of the user, the token's claim `permissions`.
    pub permissions: Vec<String>,
    /// Time from signing until the token expires.
    pub ttl: Duration,
}

impl TokenFor {
    /// Describes a token for a user of a tenant, without permissions, valid for 24 hours.
    #[must_use]
    pub fn new(user: impl Into<String>, tenant: impl Into<String>) -> Self {
        let ttl = Duration::from_hours(24);
        Self { user: user.into(), tenant: tenant.into(), permissions: Vec::new(), ttl }
    }

    /// Sets the permissions that the token grants.
    #[must_use]
    pub fn with_permissions<P: Into<String>>(mut self, permissions: impl IntoIterator<Item = P>) -> Self {
        self.permissions = permissions.into_iter().map(Into::into).collect();
        self
    }
}

impl SigningKey {
    const ALGORITHM: &str = "EdDSA";

    /// Generates a random key pair.
    ///
    /// # Errors
    /// [`io::Error`] if the operating system provides no randomness.
    pub fn generate() -> io::Result<Self> {
        Self::from_pkcs8(&new_pkcs8()?)
    }

    /// Loads the key pair from `file`. If there is no such file, creates it with a new key pair, readable
    /// only by its owner.
    ///
    /// # Errors
    /// [`io::Error`] if the file cannot be read or written, or does not contain an Ed25519 key pair.
    pub fn load_or_create(file: &Path) -> io::Result<Self> {
        match fs::read(file) {
            Ok(pkcs8) => Self::from_pkcs8(&pkcs8),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pkcs8 = new_pkcs8()?;
                match create_private(file, &pkcs8) {
                    // Another process has created the file in the meantime: use the key in that file.
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

    /// Derives the key pair from `seed`. Equal seeds give equal key pairs. Only for simulations, because
    /// anyone can derive the same private key.
    ///
    /// # Errors
    /// [`io::Error`] if Ed25519 rejects the seed. In practice every seed makes a valid key pair.
    pub fn from_seed(seed: u64) -> io::Result<Self> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let pair = Ed25519KeyPair::from_seed_unchecked(&bytes)
            .map_err(|_| io::Error::other("Ed25519 rejects the 32 bytes of the seed"))?;
        Ok(Self { pair })
    }

    fn from_pkcs8(pkcs8: &[u8]) -> io::Result<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the file does not hold an Ed25519 key; delete the file, and the next start creates a new key",
            )
        })?;
        Ok(Self { pair })
    }

    /// Returns the public key in PEM format.
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        // RFC 8410: SubjectPublicKeyInfo for the algorithm 1.3.101.112 (Ed25519), without parameters.
        let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        der.extend_from_slice(self.pair.public_key().as_ref());
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    /// Returns values for the template's parameters `JwtAlgorithm` and `JwtKey` that make a stage trust this
    /// key pair.
    #[must_use]
    pub fn parameters(&self) -> BTreeMap<String, String> {
        [("JwtAlgorithm", Self::ALGORITHM.to_owned()), ("JwtKey", self.public_key_pem())]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    /// Signs a JSON Web Token (JWT), issued at the time `now`.
    #[must_use]
    pub fn sign(&self, holder: &TokenFor, now: Timestamp) -> String {
        let TokenFor { user, tenant, permissions, ttl } = holder;
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
        .map_err(|_| io::Error::other("the operating system provides no randomness"))
}

/// Creates `file`, readable only by its owner. Writes the contents to a temporary file first, so that another
/// process never reads an incomplete key. Fails with `AlreadyExists` if `file` exists.
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

    fn token_for_ann(ttl: Duration) -> TokenFor {
        TokenFor { user: "ann".into(), tenant: "acme".into(), permissions: vec!["reports".into()], ttl }
    }

    #[test]
    fn token_is_accepted_until_it_expires_and_only_if_signed_by_the_trusted_key() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let now = Timestamp::from_secs(1_700_000_000);
        let verifier = TokenVerifier::new(Algorithm::EdDsa, &key.public_key_pem()).unwrap();
        let token = key.sign(&token_for_ann(Duration::from_secs(60)), now);
        let identity = verifier.verify(&token, now).unwrap();
        assert_eq!((identity.user.as_str(), identity.tenant.as_str()), ("ann", "acme"));
        assert_eq!(identity.permissions, ["reports"]);
        assert_eq!(identity.expires_at, Timestamp::from_secs(1_700_000_060));
        assert_eq!(verifier.verify(&token, identity.expires_at), Err(TokenRefused::Expired));
        let forged = other.sign(&token_for_ann(Duration::from_secs(60)), now);
        assert_eq!(verifier.verify(&forged, now), Err(TokenRefused::Signature));
    }

    #[test]
    fn signing_key_file_is_created_once_and_readable_only_by_its_owner() {
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
        assert_eq!(fs::read_dir(folder.path().join("deep")).unwrap().count(), 1, "no temporary file is left");
        fs::write(&file, "nonsense").unwrap();
        let error = SigningKey::load_or_create(&file).unwrap_err();
        assert!(error.to_string().contains("delete the file"), "{error}");
    }
}
