//! Test fixtures that are shared by the tests of several Lambda functions.

use aws_sdk_dynamodb::config::Region;
use aws_sdk_dynamodb::{Client, Config};
use aws_smithy_http_client::test_util::NeverClient;

use crate::ports::{Clock, Timestamp};

/// A clock that always shows the same time.
#[derive(Debug)]
pub(super) struct At(pub(super) Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// Returns a DynamoDB client whose calls are never answered.
pub(super) fn unresponsive_dynamodb() -> Client {
    let config = Config::builder()
        .behavior_version_latest()
        .region(Region::new("eu-west-1"))
        .with_test_defaults()
        .http_client(NeverClient::new());
    Client::from_conf(config.build())
}
