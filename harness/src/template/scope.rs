//! Resolves the names in a template: parameters, pseudo parameters, mappings, conditions and resources. Names
//! and ARNs of resources are known before any resource is created.

use std::cell::RefCell;
use std::collections::BTreeMap;

use ring::digest;

use super::diagnostics::{Problem, Report};
use super::environment::Environment;
use super::node::{Kind, Node};
use super::parameters::{self, Parameter};

/// Maximum length of a chain of names that refer to one another. Real templates have shorter chains, and a
/// chain of this length does not overflow the stack.
const MAX_CHAIN: usize = 24;

/// All names to which an intrinsic function of one template can refer.
#[derive(Debug)]
pub(super) struct Scope<'t> {
    pub(super) environment: &'t Environment,
    pub(super) root: &'t Node,
    parameters: BTreeMap<String, Parameter>,
    /// Names that are being resolved, outermost first, to detect a name that refers to itself.
    chain: RefCell<Vec<String>>,
}

impl<'t> Scope<'t> {
    pub(super) fn new(root: &'t Node, environment: &'t Environment, report: &mut Report) -> Self {
        let parameters = parameters::resolve(root, environment, report);
        Self { environment, root, parameters, chain: RefCell::default() }
    }

    /// Runs `work`, which resolves `name`. Returns an error if `name` is already being resolved, which means
    /// that `name` refers to itself.
    pub(super) fn resolving<T>(
        &self,
        name: &str,
        from: &Node,
        work: impl FnOnce() -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        {
            let mut chain = self.chain.borrow_mut();
            if chain.iter().any(|working| working == name) {
                return Err(from
                    .place
                    .problem(format!("{name} refers to itself through {} → {name}", chain.join(" → "))));
            }
            if chain.len() == MAX_CHAIN {
                return Err(from.place.problem(format!(
                    "the chain of names that refer to one another is too long; expected at most {MAX_CHAIN} names"
                )));
            }
            chain.push(name.to_owned());
        }
        let result = work();
        self.chain.borrow_mut().pop();
        result
    }

    /// Resolves `Ref` of `name`. Returns `None` for `AWS::NoValue`.
    pub(super) fn reference(&self, name: &str, from: &Node) -> Result<Option<Node>, Problem> {
        let environment = self.environment;
        let text = match name {
            "AWS::NoValue" => return Ok(None),
            "AWS::Region" => environment.region.clone(),
            "AWS::AccountId" => environment.account_id.clone(),
            "AWS::StackName" => environment.stack_name.clone(),
            "AWS::Partition" => environment.partition().to_owned(),
            "AWS::URLSuffix" => environment.url_suffix().to_owned(),
            "AWS::StackId" => self.arn("cloudformation", &format!("stack/{}/local", environment.stack_name)),
            name => match self.parameters.get(name) {
                Some(Parameter::Text(text)) => text.clone(),
                Some(Parameter::List(items)) => {
                    let scalar =
                        |item: &String| Node { place: from.place.clone(), kind: Kind::Scalar(item.clone()) };
                    let kind = Kind::List(items.iter().map(scalar).collect());
                    return Ok(Some(Node { place: from.place.clone(), kind }));
                }
                // The parameter is declared but has no valid value, which has been reported. An empty text
                // avoids a second report.
                None if self
                    .root
                    .get("Parameters")
                    .is_some_and(|parameters| parameters.get(name).is_some()) =>
                {
                    String::new()
                }
                None => self.resource_reference(name, from)?,
            },
        };
        Ok(Some(Node { place: from.place.clone(), kind: Kind::Scalar(text) }))
    }

    /// Resolves `Fn::GetAtt` of a resource's attribute.
    pub(super) fn attribute(&self, logical_id: &str, attribute: &str, from: &Node) -> Result<Node, Problem> {
        let kind = self.resource_type(logical_id, from)?;
        let name = |this: &Self| this.physical_name(logical_id, from);
        let text = match (kind, attribute) {
            ("AWS::DynamoDB::Table", "StreamArn") => {
                let kind = Kind::StreamArn(logical_id.to_owned());
                return Ok(Node { place: from.place.clone(), kind });
            }
            ("AWS::DynamoDB::Table", "Arn") => self.arn("dynamodb", &format!("table/{}", name(self)?)),
            ("AWS::Serverless::Function" | "AWS::Lambda::Function", "Arn") => {
                self.arn("lambda", &format!("function:{}", name(self)?))
            }
            ("AWS::SQS::Queue", "Arn") => self.arn("sqs", &name(self)?),
            ("AWS::SNS::Topic", "TopicArn") => self.arn("sns", &name(self)?),
            ("AWS::SQS::Queue", "QueueName") | ("AWS::SNS::Topic", "TopicName") => name(self)?,
            ("AWS::SQS::Queue", "QueueUrl") | ("AWS::ApiGatewayV2::Api", "ApiId") => {
                self.resource_reference(logical_id, from)?
            }
            ("AWS::ApiGatewayV2::Api", "ApiEndpoint") => format!(
                "wss://{}.execute-api.{}.{}",
                self.api_id(logical_id),
                self.environment.region,
                self.environment.url_suffix()
            ),
            (kind, attribute) => {
                return Err(from.place.problem(format!(
                    "the local stage does not support the attribute {attribute} of {logical_id} (type {kind})"
                )));
            }
        };
        Ok(Node { place: from.place.clone(), kind: Kind::Scalar(text) })
    }

    /// Returns a resource's physical name: the name in its properties, otherwise a name made from the stack's
    /// name and the logical id. (CloudFormation also appends random letters, which would only make a local
    /// stage harder to inspect.)
    pub(super) fn physical_name(&self, logical_id: &str, from: &Node) -> Result<String, Problem> {
        let property = match self.resource_type(logical_id, from)? {
            "AWS::Serverless::Function" | "AWS::Lambda::Function" => "FunctionName",
            "AWS::DynamoDB::Table" => "TableName",
            "AWS::SQS::Queue" => "QueueName",
            "AWS::SNS::Topic" => "TopicName",
            "AWS::ApiGatewayV2::Stage" => "StageName",
            _ => "",
        };
        let given = self
            .resource(logical_id)
            .and_then(|node| node.get("Properties"))
            .and_then(|node| node.get(property));
        let given = match given {
            Some(node) => self.resolving(logical_id, from, || self.text(node))?,
            None => None,
        };
        Ok(given.unwrap_or_else(|| format!("{}-{logical_id}", self.environment.stack_name)))
    }

    /// Returns the id of an API: ten letters and digits, as on AWS, but the same at every start.
    pub(super) fn api_id(&self, logical_id: &str) -> String {
        let seed = format!("{}/{logical_id}", self.environment.stack_name);
        let letter = |byte: &u8| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[usize::from(byte % 36)]);
        digest::digest(&digest::SHA256, seed.as_bytes()).as_ref().iter().take(10).map(letter).collect()
    }

    pub(super) fn arn(&self, service: &str, resource: &str) -> String {
        let Environment { region, account_id, .. } = self.environment;
        format!("arn:{}:{service}:{region}:{account_id}:{resource}", self.environment.partition())
    }

    pub(super) fn resource(&self, logical_id: &str) -> Option<&'t Node> {
        self.root.get("Resources")?.get(logical_id)
    }

    /// Returns true if the resource has no condition, or if its condition is true.
    pub(super) fn exists(&self, resource: &Node) -> Result<bool, Problem> {
        match resource.get("Condition") {
            Some(condition) => match condition.scalar() {
                Some(name) => self.condition(name, condition),
                None => Err(condition.place.problem("expected the name of a condition in Conditions")),
            },
            None => Ok(true),
        }
    }

    fn resource_type(&self, logical_id: &str, from: &Node) -> Result<&'t str, Problem> {
        let resource = self.resource(logical_id).ok_or_else(|| {
            from.place.problem(format!("the template has no parameter or resource {logical_id}"))
        })?;
        if !self.resolving(logical_id, from, || self.exists(resource))? {
            return Err(from.place.problem(format!(
                "the resource {logical_id} does not exist, because its Condition is false"
            )));
        }
        Ok(resource.get("Type").and_then(Node::scalar).unwrap_or("resource without a Type"))
    }

    fn resource_reference(&self, logical_id: &str, from: &Node) -> Result<String, Problem> {
        match self.resource_type(logical_id, from)? {
            "AWS::Serverless::Function"
            | "AWS::Lambda::Function"
            | "AWS::DynamoDB::Table"
            | "AWS::ApiGatewayV2::Stage" => self.physical_name(logical_id, from),
            "AWS::SNS::Topic" => Ok(self.arn("sns", &self.physical_name(logical_id, from)?)),
            "AWS::SQS::Queue" => {
                let Environment { region, account_id, .. } = self.environment;
                let suffix = self.environment.url_suffix();
                Ok(format!(
                    "https://sqs.{region}.{suffix}/{account_id}/{}",
                    self.physical_name(logical_id, from)?
                ))
            }
            "AWS::ApiGatewayV2::Api" => Ok(self.api_id(logical_id)),
            "AWS::ApiGatewayV2::Authorizer"
            | "AWS::ApiGatewayV2::Integration"
            | "AWS::ApiGatewayV2::Route"
            | "AWS::ApiGatewayV2::RouteResponse" => Ok(logical_id.to_owned()),
            kind => Err(from.place.problem(format!(
                "the local stage does not support Ref {logical_id}, because it does not create resources of \
                 type {kind}"
            ))),
        }
    }
}
