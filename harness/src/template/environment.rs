//! The account, region and stack of a template, and the values of its parameters.

use std::collections::BTreeMap;

use streamer_fakes::aws_format;

/// Values that a template refers to but does not contain: account, region, stack name and parameters.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Value of `AWS::Region`. Default: `us-east-1`.
    pub region: String,
    /// Value of `AWS::AccountId`. Default: `000000000000`.
    pub account_id: String,
    /// Value of `AWS::StackName`, with which the generated names of resources begin. Default: `streamer`.
    pub stack_name: String,
    /// Values of the template's parameters by name. A parameter without a value has its default value. A
    /// value for an undeclared parameter is an error.
    pub parameters: BTreeMap<String, String>,
    /// Values by parameter name, such as the public key of the local stage. A value is used only if the
    /// template declares the parameter. `parameters` overrides these values.
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
    /// Returns `AWS::Partition`, which depends on the region.
    pub(super) fn partition(&self) -> &'static str {
        aws_format::partition(&self.region)
    }

    /// Returns `AWS::URLSuffix`, which depends on the region.
    pub(super) fn url_suffix(&self) -> &'static str {
        if self.partition() == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" }
    }
}
