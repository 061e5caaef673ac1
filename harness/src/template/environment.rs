//! The account, region and stack that a template is deployed to, and the values of its parameters.

use std::collections::BTreeMap;

use streamer_fakes::aws_format;

/// What CloudFormation would know from outside of the template.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `AWS::Region`, by default `us-east-1`.
    pub region: String,
    /// `AWS::AccountId`, by default `000000000000`.
    pub account_id: String,
    /// `AWS::StackName`, by default `streamer`. The names of what has none of its own begin with it.
    pub stack_name: String,
    /// Values for the template's parameters; those absent take their defaults.
    pub parameters: BTreeMap<String, String>,
    /// Values for parameters that the template may declare or not, such as the key that the local stage signs with.
    pub offered: BTreeMap<String, String>,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            account_id: "000000000000".to_owned(),
            stack_name: "streamer".to_owned(),
            parameters: BTreeMap::new(),
            offered: BTreeMap::new(),
        }
    }
}

impl Environment {
    /// `AWS::Partition`, which follows from the region.
    pub(super) fn partition(&self) -> &'static str {
        aws_format::partition(&self.region)
    }

    /// `AWS::URLSuffix`, which follows from the region.
    pub(super) fn url_suffix(&self) -> &'static str {
        if self.partition() == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" }
    }
}
