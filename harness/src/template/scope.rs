//! What names mean in a template: parameters, pseudo parameters, mappings, conditions, and resources, whose names
//! and ARNs are known before anything is made.

use std::cell::RefCell;
use std::collections::BTreeMap;

use ring::digest;

use super::diagnostics::{Problem, Report};
use super::environment::Environment;
use super::node::{Kind, Node};
use super::parameters::{self, Parameter};

/// How many names may lead to one another: more than any template has, and shallow enough for the stack.
const MAX_CHAIN: usize = 24;

/// All that an intrinsic function of one template can refer to.
#[derive(Debug)]
pub(super) struct Scope<'t> {
    pub(super) environment: &'t Environment,
    pub(super) root: &'t Node,
    parameters: BTreeMap<String, Parameter>,
    /// The names being worked out, so that one that leads back to itself is noticed.
    chain: RefCell<Vec<String>>,
}

impl<'t> Scope<'t> {
    pub(super) fn new(root: &'t Node, environment: &'t Environment, report: &mut Report) -> Self {
        let parameters = parameters::resolve(root, environment, report);
        Self { environment, root, parameters, chain: RefCell::default() }
    }

    /// Runs `work` for `name`, unless that is what is being worked out already.
    pub(super) fn through<T>(
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
                    .problem(format!("{name} leads back to itself: {} → {name}", chain.join(" → "))));
            }
            if chain.len() == MAX_CHAIN {
                return Err(from
                    .place
                    .problem(format!("more than {MAX_CHAIN} names lead from one to the next here")));
            }
            chain.push(name.to_owned());
        }
        let result = work();
        self.chain.borrow_mut().pop();
        result
    }

    /// What `Ref` of `name` is; nothing for `AWS::NoValue`.
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
                // It is declared, so its problem has been reported; a stand-in spares a second report.
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

    /// What `Fn::GetAtt` of a resource's attribute is.
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
                    "the local stage cannot tell the attribute {attribute} of {logical_id}, a {kind}"
                )));
            }
        };
        Ok(Node { place: from.place.clone(), kind: Kind::Scalar(text) })
    }

    /// The name that a resource has on AWS: the one it is given, else one made of the stack's and the logical id.
    /// (CloudFormation adds random letters, which would only make a local stage harder to look into.)
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
            Some(node) => self.through(logical_id, from, || self.text(node))?,
            None => None,
        };
        Ok(given.unwrap_or_else(|| format!("{}-{logical_id}", self.environment.stack_name)))
    }

    /// The id of an API: ten letters and digits, as AWS makes them, but the same at every start.
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

    /// Whether the resource exists under the conditions that hold.
    pub(super) fn exists(&self, resource: &Node) -> Result<bool, Problem> {
        match resource.get("Condition") {
            Some(condition) => match condition.scalar() {
                Some(name) => self.condition(name, condition),
                None => Err(condition.place.problem("expected the name of one of the Conditions")),
            },
            None => Ok(true),
        }
    }

    fn resource_type(&self, logical_id: &str, from: &Node) -> Result<&'t str, Problem> {
        let resource = self.resource(logical_id).ok_or_else(|| {
            from.place.problem(format!("{logical_id} is neither a parameter nor a resource"))
        })?;
        if !self.through(logical_id, from, || self.exists(resource))? {
            return Err(from.place.problem(format!("{logical_id} does not exist: its Condition is false")));
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
                "the local stage cannot tell what Ref {logical_id} is, since it makes no {kind}"
            ))),
        }
    }
}
