use std::error::Error;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::AwsEnvironment;
use super::signed_call::{CallPolicy, SignedCall};
use crate::ports::Timestamp;
use crate::service_error::ServiceError;

/// The location of a setting that is stored in an AWS service instead of an environment variable. A function
/// reads the setting once, when it starts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StoredValue {
    /// Name or ARN of a Systems Manager parameter. A `SecureString` parameter is decrypted when it is read.
    SsmParameter(String),
    /// Name or ARN of a Secrets Manager secret. The current version of the secret is read, and must be text.
    Secret(String),
}

impl StoredValue {
    const CALL_POLICY: CallPolicy =
        CallPolicy { tries: 3, timeout: Duration::from_millis(2_500), interval: Duration::from_millis(200) };

    /// Reads the value with a signed POST request, which is tried up to three times.
    ///
    /// No SDK client is linked for this call, because the client of Secrets Manager alone would add 162 KB to the
    /// function `connect`. All tries together take less than the ten seconds in which a function must start on
    /// Lambda.
    ///
    /// # Errors
    /// [`StoredValueError`] if the value does not exist or is not text, if the function has no permission to read
    /// the value, or if the service does not respond.
    pub async fn read(&self, aws: &AwsEnvironment, now: Timestamp) -> Result<String, StoredValueError> {
        let context = format!("{self} cannot be read");
        let body =
            self.call(aws).make(aws, now, Self::CALL_POLICY, &context).await.map_err(StoredValueError)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (text, problem) = match self {
            Self::SsmParameter(_) => (&body["Parameter"]["Value"], "the response has no Parameter.Value"),
            Self::Secret(_) => {
                (&body["SecretString"], "the response has no SecretString; expected a text secret")
            }
        };
        text.as_str()
            .map(str::to_owned)
            .ok_or_else(|| StoredValueError(ServiceError::refused(context, problem)))
    }

    /// Builds the call that reads the value, in AWS's JSON protocol (1.1).
    fn call(&self, aws: &AwsEnvironment) -> SignedCall {
        let (service, target, own_endpoint, body) = match self {
            Self::SsmParameter(name) => (
                "ssm",
                "AmazonSSM.GetParameter",
                &aws.ssm_endpoint,
                json!({"Name": name, "WithDecryption": true}),
            ),
            Self::Secret(id) => (
                "secretsmanager",
                "secretsmanager.GetSecretValue",
                &aws.secrets_manager_endpoint,
                json!({"SecretId": id}),
            ),
        };
        SignedCall {
            service,
            endpoint: own_endpoint.as_ref().or(aws.endpoint.as_ref()).cloned(),
            path: "/".to_owned(),
            headers: vec![("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)],
            body: body.to_string(),
        }
    }
}

impl fmt::Display for StoredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SsmParameter(name) => write!(f, "the SSM parameter {name:?}"),
            Self::Secret(id) => write!(f, "the secret {id:?}"),
        }
    }
}

/// The reason why a [`StoredValue`] could not be read.
#[derive(Debug)]
pub struct StoredValueError(ServiceError);

impl fmt::Display for StoredValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for StoredValueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{UNREACHABLE, serve, with_endpoints, without_host_and_signature};
    use super::*;
    use crate::auth::TokenKey;
    use crate::auth::test_keys::TestKey;
    use crate::auth::{Algorithm, TokenSettings};
    use crate::telemetry::Causes;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn parameter() -> StoredValue {
        StoredValue::SsmParameter("/streamer/jwt-key".into())
    }

    fn secret() -> StoredValue {
        StoredValue::Secret("streamer/JWKS".into())
    }

    async fn read(value: &StoredValue, answers: &[(u16, &str)]) -> (Result<String, String>, Vec<String>) {
        let (url, requests) = serve(answers);
        let aws = with_endpoints(&[("AWS_ENDPOINT_URL", &url)]);
        let read = value.read(&aws, NOW).await.map_err(|error| Causes(&error).to_string());
        (read, requests.join().unwrap())
    }

    #[tokio::test]
    async fn stored_value_is_read_with_one_signed_call() {
        let stored = [
            (parameter(), r#"{"Parameter":{"Name":"/streamer/jwt-key","Value":"the key"}}"#),
            (secret(), r#"{"Name":"streamer/JWKS","SecretString":"the key","VersionStages":["AWSCURRENT"]}"#),
        ];
        let mut calls = Vec::new();
        for (value, answer) in stored {
            let (read, requests) = read(&value, &[(200, answer)]).await;
            assert_eq!(read.as_deref(), Ok("the key"));
            let [request] = &requests[..] else { panic!("expected exactly one call, found {requests:?}") };
            calls.push(without_host_and_signature(request));
        }
        insta::assert_snapshot!(calls.join("\n\n"));
    }

    #[tokio::test]
    async fn failed_read_of_a_stored_value_returns_the_error_message_of_the_service() {
        let answers = [
            (parameter(), 400, r#"{"__type":"ParameterNotFound"}"#),
            (
                parameter(),
                400,
                r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"not authorized to perform: ssm:GetParameter"}"#,
            ),
            (
                secret(),
                400,
                r#"{"__type":"ResourceNotFoundException","message":"Secrets Manager can't find it"}"#,
            ),
            (secret(), 200, r#"{"SecretBinary":"AAAA"}"#),
            (parameter(), 200, "{}"),
            (secret(), 403, "<html>error page of a proxy</html>"),
        ];
        let mut report = Vec::new();
        for (value, status, body) in answers {
            let (read, requests) = read(&value, &[(status, body)]).await;
            assert_eq!(requests.len(), 1);
            report.push(read.unwrap_err());
        }
        insta::assert_snapshot!(report.join("\n"), @r#"
        the SSM parameter "/streamer/jwt-key" cannot be read: HTTP 400, ParameterNotFound
        the SSM parameter "/streamer/jwt-key" cannot be read: HTTP 400, AccessDeniedException, not authorized to perform: ssm:GetParameter
        the secret "streamer/JWKS" cannot be read: HTTP 400, ResourceNotFoundException, Secrets Manager can't find it
        the secret "streamer/JWKS" cannot be read: the response has no SecretString; expected a text secret
        the SSM parameter "/streamer/jwt-key" cannot be read: the response has no Parameter.Value
        the secret "streamer/JWKS" cannot be read: HTTP 403
        "#);
    }

    #[tokio::test]
    async fn reading_a_stored_value_is_tried_three_times_on_transient_errors() {
        let throttled = (400, r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#);
        let failed = (500, r#"{"__type":"InternalServiceError"}"#);
        let (value, requests) = read(&secret(), &[throttled, failed, (200, r#"{"SecretString":"s"}"#)]).await;
        assert_eq!((value.as_deref(), requests.len()), (Ok("s"), 3));
        let (value, requests) = read(&secret(), &[failed, failed, throttled]).await;
        assert_eq!(requests.len(), 3);
        let error = value.unwrap_err();
        assert!(error.ends_with("cannot be read: HTTP 400, ThrottlingException, Rate exceeded"), "{error}");
    }

    #[tokio::test]
    async fn token_key_verifies_with_the_key_set_from_a_secret() {
        let key = TestKey::new(Algorithm::EdDsa);
        let set = json!({"keys": [key.jwk("k1")]}).to_string();
        let settings = TokenSettings { algorithms: vec![Algorithm::EdDsa], ..TokenSettings::default() };
        let verifier = async |text: &str| {
            let answer = json!({"SecretString": text}).to_string();
            let (url, _) = serve(&[(200, answer.as_str())]);
            let aws = with_endpoints(&[("AWS_ENDPOINT_URL", &url)]);
            TokenKey::Stored(secret(), settings.clone()).verifier(&aws, NOW).await
        };
        let token = key.sign_as("k1", &json!({"sub": "ann", "tenant_id": "acme", "exp": 1_700_000_060}));
        assert_eq!(verifier(&set).await.unwrap().verify(&token, NOW).unwrap().user, "ann".into());
        let refused = verifier("not a key").await.unwrap_err().to_string();
        let expected = "the configuration of this function is invalid: the secret \"streamer/JWKS\": the key is not a public key in PEM";
        assert!(refused.starts_with(expected), "{refused}");
    }

    #[tokio::test]
    async fn ssm_and_secrets_manager_endpoints_take_precedence_over_the_general_endpoint() {
        for (value, variable) in
            [(parameter(), "AWS_ENDPOINT_URL_SSM"), (secret(), "AWS_ENDPOINT_URL_SECRETS_MANAGER")]
        {
            let (url, requests) = serve(&[(200, r#"{"SecretString":"s","Parameter":{"Value":"s"}}"#)]);
            let aws = with_endpoints(&[("AWS_ENDPOINT_URL", UNREACHABLE), (variable, &url)]);
            assert_eq!(value.read(&aws, NOW).await.unwrap(), "s");
            requests.join().unwrap();
        }
    }

    #[tokio::test]
    async fn reading_from_an_unreachable_service_fails_with_connection_refused() {
        let aws = with_endpoints(&[("AWS_ENDPOINT_URL", UNREACHABLE)]);
        let error = secret().read(&aws, NOW).await.unwrap_err();
        let causes = Causes(&error).to_string();
        assert!(causes.starts_with("the secret \"streamer/JWKS\" cannot be read: "), "{causes}");
        assert!(causes.contains("refused"), "{causes}");
    }

    #[tokio::test(start_paused = true)]
    async fn reading_from_an_unresponsive_service_fails_within_nine_seconds() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let aws =
            with_endpoints(&[("AWS_ENDPOINT_URL", &format!("http://{}", silent.local_addr().unwrap()))]);
        let started = tokio::time::Instant::now();
        secret().read(&aws, NOW).await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    }
}
