//! What the functions' tests share.

use aws_sdk_dynamodb::config::Region;
use aws_sdk_dynamodb::{Client, Config};
use aws_smithy_http_client::test_util::NeverClient;

use crate::ports::{Clock, Timestamp};

/// A clock that stands still.
#[derive(Debug)]
pub(super) struct At(pub(super) Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// A database that never answers.
pub(super) fn silent() -> Client {
    let config = Config::builder()
        .behavior_version_latest()
        .region(Region::new("eu-west-1"))
        .with_test_defaults()
        .http_client(NeverClient::new());
    Client::from_conf(config.build())
}
