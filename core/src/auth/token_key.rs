use std::collections::BTreeSet;

use super::{Algorithm, TokenSettings, TokenVerifier};
use crate::aws::{AwsEnvironment, StoredValue};
use crate::config::{ConfigError, Environment};
use crate::ids::TenantId;
use crate::ports::Timestamp;
use crate::telemetry::Causes;

/// The key that verifies tokens, or the location from which a function reads this key when it starts.
#[derive(Debug)]
pub enum TokenKey {
    /// The verifier with a key that was set in an environment variable.
    Given(TokenVerifier),
    /// The location of a key that has not been read yet, and the settings for the verifier that will use the
    /// key.
    Stored(StoredValue, TokenSettings),
}

impl TokenKey {
    /// Reads `ALLOWED_TENANTS` and the variables that begin with `JWT_` from the environment.
    ///
    /// See [`lambda`](crate::lambda) for the list of variables. If a variable is missing or invalid, records the
    /// problem in `environment`, and returns `None`.
    pub fn from_env(environment: &mut Environment<'_>) -> Option<Self> {
        let algorithms = environment.parsed("JWT_ALGORITHM", |names| {
            names.split(',').map(|name| name.trim().parse()).collect::<Result<Vec<Algorithm>, _>>()
        });
        let tenants = environment.optional("ALLOWED_TENANTS").map(|names| list_of_tenants(&names));
        let settings = algorithms.map(|algorithms| TokenSettings {
            algorithms,
            issuer: environment.optional("JWT_ISSUER"),
            audience: environment.optional("JWT_AUDIENCE"),
            tenants,
        });
        let variables = ["JWT_KEY", "JWT_KEY_SSM_PARAMETER", "JWT_KEY_SECRET_ID"];
        let [key, parameter, secret] = variables.map(|name| environment.optional(name));
        match (key, parameter, secret) {
            (Some(key), None, None) => match settings?.verifier(&key) {
                Ok(verifier) => Some(Self::Given(verifier)),
                Err(problem) => {
                    environment.problem(format!("JWT_KEY: {problem}"));
                    None
                }
            },
            (None, Some(name), None) => Some(Self::Stored(StoredValue::SsmParameter(name), settings?)),
            (None, None, Some(id)) => Some(Self::Stored(StoredValue::Secret(id), settings?)),
            (None, None, None) => {
                environment.problem(format!("none of {} is set", variables.join(", ")));
                None
            }
            _ => {
                environment.problem(format!("more than one of {} is set", variables.join(", ")));
                None
            }
        }
    }

    /// Returns the verifier. If the key is stored in SSM or Secrets Manager, reads the key first.
    ///
    /// # Errors
    /// [`ConfigError`] if the stored key cannot be read or is not valid.
    pub async fn verifier(self, aws: &AwsEnvironment, now: Timestamp) -> Result<TokenVerifier, ConfigError> {
        let (place, settings) = match self {
            Self::Given(verifier) => return Ok(verifier),
            Self::Stored(place, settings) => (place, settings),
        };
        match place.read(aws, now).await {
            Ok(key) => {
                settings.verifier(&key).map_err(|problem| ConfigError::new(format!("{place}: {problem}")))
            }
            Err(error) => Err(ConfigError::new(Causes(&error).to_string())),
        }
    }
}

fn list_of_tenants(names: &str) -> BTreeSet<TenantId> {
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(TenantId::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jwt_key_that_does_not_match_its_algorithm_is_reported() {
        let mut environment =
            Environment::of_variables(&[("JWT_ALGORITHM", "RS256"), ("JWT_KEY", "nonsense")]);
        assert!(TokenKey::from_env(&mut environment).is_none());
        let error = environment.finish().unwrap_err().to_string();
        assert!(error.contains("JWT_KEY: the key is not a public key in PEM for RS256"), "{error}");
    }

    #[test]
    fn token_key_is_read_from_valid_environment_variables() {
        let mut environment = Environment::of_variables(&[
            ("JWT_ALGORITHM", "HS256"),
            ("JWT_KEY", "0123456789abcdef0123456789abcdef"),
            ("JWT_ISSUER", "https://issuer.example"),
            ("JWT_AUDIENCE", "streamer"),
        ]);
        assert!(TokenKey::from_env(&mut environment).is_some());
        assert_eq!(environment.finish(), Ok(()));
    }

    #[test]
    fn token_key_must_be_set_in_exactly_one_variable() {
        let algorithm = ("JWT_ALGORITHM", "HS256");
        let mut stored =
            Environment::of_variables(&[("JWT_ALGORITHM", "RS256, ES256"), ("JWT_KEY_SECRET_ID", "jwks")]);
        let Some(TokenKey::Stored(place, settings)) = TokenKey::from_env(&mut stored) else {
            panic!("expected a stored token key")
        };
        assert_eq!(place, StoredValue::Secret("jwks".into()));
        assert_eq!(settings.algorithms, [Algorithm::Rs256, Algorithm::Es256]);
        assert_eq!(stored.finish(), Ok(()));
        let mut parameter = Environment::of_variables(&[
            ("JWT_ALGORITHM", "HS256"),
            ("JWT_KEY_SSM_PARAMETER", "/streamer/key"),
        ]);
        let Some(TokenKey::Stored(place, _)) = TokenKey::from_env(&mut parameter) else {
            panic!("expected a stored token key")
        };
        assert_eq!(place.to_string(), "the SSM parameter \"/streamer/key\"");

        for (variables, problem) in [
            (vec![algorithm], "none of JWT_KEY, JWT_KEY_SSM_PARAMETER, JWT_KEY_SECRET_ID is set"),
            (
                vec![algorithm, ("JWT_KEY", "k"), ("JWT_KEY_SECRET_ID", "jwks")],
                "more than one of JWT_KEY, JWT_KEY_SSM_PARAMETER, JWT_KEY_SECRET_ID is set",
            ),
            (
                vec![("JWT_ALGORITHM", "RS256,HS256"), ("JWT_KEY", "0123456789abcdef0123456789abcdef")],
                "JWT_KEY: found a single key; expected a JSON Web Key Set, because 2 algorithms are configured",
            ),
            (vec![("JWT_ALGORITHM", "RS256,none"), ("JWT_KEY_SECRET_ID", "jwks")], "found \"none\""),
        ] {
            let mut environment = Environment::of_variables(&variables);
            assert!(TokenKey::from_env(&mut environment).is_none());
            let error = environment.finish().unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn empty_names_in_the_list_of_tenants_are_ignored() {
        assert_eq!(list_of_tenants(" acme, a/b ,,"), ["acme".into(), "a/b".into()].into());
    }
}
