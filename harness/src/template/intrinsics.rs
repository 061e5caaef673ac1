//! Resolves CloudFormation's intrinsic functions, such as `!Ref`. Outer functions are resolved before inner
//! functions, and only in values that are read.

use super::diagnostics::Problem;
use super::node::{Kind, Node};
use super::scope::Scope;

/// Returns true if a mapping whose only key is `key` is an intrinsic function.
fn is_intrinsic(key: &str) -> bool {
    key == "Ref" || key.starts_with("Fn::")
}

/// Returns the name and argument of an intrinsic function; `None` for any other node.
pub(super) fn intrinsic(node: &Node) -> Option<(&str, &Node)> {
    match node.entries() {
        [(key, argument)] if is_intrinsic(key) => Some((key, argument)),
        _ => None,
    }
}

impl Scope<'_> {
    /// Resolves `node`, but not the values inside a resulting list or mapping. Returns `None` for
    /// `AWS::NoValue`.
    pub(super) fn resolve(&self, node: &Node) -> Result<Option<Node>, Problem> {
        let Some((function, argument)) = intrinsic(node) else {
            if let Some((key, _)) = node.entries().iter().find(|(key, _)| is_intrinsic(key)) {
                return Err(node.place.problem(format!("{key} must be the only key of its mapping")));
            }
            if node.scalar().is_some_and(|text| text.contains("{{resolve:")) {
                return Err(node.place.problem(
                    "a dynamic reference cannot be resolved locally; use a parameter that has this reference \
                     as its default",
                ));
            }
            return Ok(Some(node.clone()));
        };
        match function {
            "Ref" => match argument.scalar() {
                Some(name) => self.reference(name, node),
                None => Err(node.place.problem("Ref expects the name of a parameter or resource")),
            },
            "Fn::If" => {
                match self.arguments::<3>(node, argument, "[condition, value if true, value if false]")? {
                    [condition, yes, no] => {
                        self.resolve(if self.is_true_by_name(condition)? { yes } else { no })
                    }
                }
            }
            "Fn::GetAtt" => self.get_att(node, argument).map(Some),
            "Fn::Sub" => self.sub(node, argument).map(|text| Some(scalar(node, text))),
            "Fn::Join" => self.join(node, argument).map(|text| Some(scalar(node, text))),
            "Fn::Select" => self.select(node, argument),
            "Fn::Split" => self.split(node, argument).map(Some),
            "Fn::FindInMap" => self.find_in_map(node, argument),
            function => Err(node.place.problem(format!(
                "{function} cannot be resolved on the local stage; replace it by its value or by a parameter"
            ))),
        }
    }

    /// Resolves `node` to a text. Returns `None` for `AWS::NoValue`.
    pub(super) fn text(&self, node: &Node) -> Result<Option<String>, Problem> {
        match self.resolve(node)? {
            Some(Node { kind: Kind::Scalar(text), .. }) => Ok(Some(text)),
            Some(other) => Err(node.place.problem(format!("expected text, found {}", other.describe()))),
            None => Ok(None),
        }
    }

    /// Resolves `node` to the items of a list, without items that are `AWS::NoValue`.
    pub(super) fn items(&self, node: &Node) -> Result<Vec<Node>, Problem> {
        match self.resolve(node)? {
            Some(Node { kind: Kind::List(items), .. }) => {
                items.iter().filter_map(|item| self.resolve(item).transpose()).collect()
            }
            Some(other) => Err(node.place.problem(format!("expected a list, found {}", other.describe()))),
            None => Ok(Vec::new()),
        }
    }

    /// Returns whether the condition `name` is true.
    pub(super) fn condition(&self, name: &str, from: &Node) -> Result<bool, Problem> {
        let condition = self
            .root
            .get("Conditions")
            .and_then(|conditions| conditions.get(name))
            .ok_or_else(|| from.place.problem(format!("the template has no condition {name:?}")))?;
        self.resolving(&format!("condition {name}"), from, || self.is_true(condition))
    }

    fn is_true(&self, node: &Node) -> Result<bool, Problem> {
        if let [(key, name)] = node.entries()
            && key == "Condition"
        {
            return self.is_true_by_name(name);
        }
        let Some((function, argument)) = intrinsic(node) else {
            return Err(node
                .place
                .problem(format!("expected a condition function, found {}", node.describe())));
        };
        match function {
            "Fn::Equals" => match self.arguments::<2>(node, argument, "two values")? {
                [left, right] => Ok(self.text(left)? == self.text(right)?),
            },
            "Fn::Not" => match self.arguments::<1>(node, argument, "one condition")? {
                [condition] => Ok(!self.is_true(condition)?),
            },
            "Fn::And" | "Fn::Or" => {
                let Kind::List(conditions) = &argument.kind else {
                    return Err(node.place.problem(format!("{function} expects a list of conditions")));
                };
                let held: Vec<bool> = conditions.iter().map(|node| self.is_true(node)).collect::<Result<_, _>>()?;
                Ok(if function == "Fn::And" { held.iter().all(|x| *x) } else { held.iter().any(|x| *x) })
            }
            _ => Err(node.place.problem(format!(
                "{function} is not a condition function; use Fn::Equals, Fn::Not, Fn::And, Fn::Or or Condition"
            ))),
        }
    }

    fn is_true_by_name(&self, name: &Node) -> Result<bool, Problem> {
        match name.scalar() {
            Some(text) => self.condition(text, name),
            None => Err(name.place.problem("expected the name of a condition in Conditions")),
        }
    }

    fn get_att(&self, node: &Node, argument: &Node) -> Result<Node, Problem> {
        let parts = match &argument.kind {
            Kind::Scalar(text) => {
                text.split_once('.').map(|(id, attribute)| (id.to_owned(), attribute.to_owned()))
            }
            Kind::List(parts) => match parts.as_slice() {
                [id, attribute] => self.text(id)?.zip(self.text(attribute)?),
                _ => None,
            },
            Kind::Null | Kind::Map(_) | Kind::StreamArn(_) => None,
        };
        let (id, attribute) = parts.ok_or_else(|| {
            node.place.problem("Fn::GetAtt expects a resource and an attribute, such as RequestsTable.Arn")
        })?;
        self.attribute(&id, &attribute, node)
    }

    /// Replaces `${Name}`, `${Resource.Attribute}` and `${!Literal}` in a text. The long form `[text,
    /// variables]` also defines variables.
    fn sub(&self, node: &Node, argument: &Node) -> Result<String, Problem> {
        let (template, variables) = match &argument.kind {
            Kind::List(parts) => match parts.as_slice() {
                [template, variables] => (template, variables.entries()),
                _ => {
                    return Err(node
                        .place
                        .problem("Fn::Sub expects a text, or [text, mapping of variables]"));
                }
            },
            Kind::Null | Kind::Scalar(_) | Kind::Map(_) | Kind::StreamArn(_) => (argument, &[][..]),
        };
        let Some(mut rest) = template.scalar() else {
            return Err(node.place.problem("Fn::Sub expects a text, or [text, mapping of variables]"));
        };
        let mut out = String::with_capacity(rest.len());
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| node.place.problem(format!("the ${{ before {after:?} has no closing }}")))?;
            rest = after;
            let name = name.trim();
            if let Some(literal) = name.strip_prefix('!') {
                out.push_str("${");
                out.push_str(literal);
                out.push('}');
                continue;
            }
            let value = match variables.iter().find(|(variable, _)| variable == name) {
                Some((_, value)) => self.resolve(value)?,
                None => match name.split_once('.') {
                    Some((id, attribute)) => Some(self.attribute(id, attribute, node)?),
                    None => self.reference(name, node)?,
                },
            };
            match value {
                Some(Node { kind: Kind::Scalar(text), .. }) => out.push_str(&text),
                other => {
                    let found = other.map_or_else(|| "no value".to_owned(), |node| node.describe());
                    return Err(node.place.problem(format!("${{{name}}} must be a text, but is {found}")));
                }
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn join(&self, node: &Node, argument: &Node) -> Result<String, Problem> {
        let [delimiter, list] = self.arguments::<2>(node, argument, "[delimiter, list]")?;
        let delimiter = self.text(delimiter)?.unwrap_or_default();
        let items: Vec<String> = self
            .items(list)?
            .iter()
            .filter_map(|item| self.text(item).transpose())
            .collect::<Result<_, _>>()?;
        Ok(items.join(&delimiter))
    }

    fn select(&self, node: &Node, argument: &Node) -> Result<Option<Node>, Problem> {
        let [index, list] = self.arguments::<2>(node, argument, "[index, list]")?;
        let index = self.text(index)?.unwrap_or_default();
        let items = self.items(list)?;
        match index.parse::<usize>().ok().and_then(|index| items.get(index)) {
            Some(item) => Ok(Some(item.clone())),
            None => Err(node.place.problem(format!(
                "Fn::Select expects an index from 0 to {}, found {index:?}",
                items.len().saturating_sub(1)
            ))),
        }
    }

    fn split(&self, node: &Node, argument: &Node) -> Result<Node, Problem> {
        let [delimiter, text] = self.arguments::<2>(node, argument, "[delimiter, text]")?;
        let (delimiter, text) =
            (self.text(delimiter)?.unwrap_or_default(), self.text(text)?.unwrap_or_default());
        if delimiter.is_empty() {
            return Err(node.place.problem("the delimiter of Fn::Split must not be empty"));
        }
        let items = text.split(delimiter.as_str()).map(|part| scalar(node, part.to_owned())).collect();
        Ok(Node { place: node.place.clone(), kind: Kind::List(items) })
    }

    fn find_in_map(&self, node: &Node, argument: &Node) -> Result<Option<Node>, Problem> {
        let keys = self.arguments::<3>(node, argument, "[mapping, first key, second key]")?;
        let mut found = self.root.get("Mappings");
        let mut path = String::from("Mappings");
        for key in keys {
            let key = self.text(key)?.unwrap_or_default();
            found = found.and_then(|node| node.get(&key));
            path = format!("{path}.{key}");
        }
        match found {
            Some(found) => self.resolve(found),
            None => Err(node.place.problem(format!("the template has no {path}"))),
        }
    }

    fn arguments<'n, const N: usize>(
        &self,
        node: &Node,
        argument: &'n Node,
        form: &str,
    ) -> Result<&'n [Node; N], Problem> {
        let items = if let Kind::List(items) = &argument.kind { items.as_slice() } else { &[] };
        items.try_into().map_err(|_| {
            let function = intrinsic(node).map_or("this function", |(function, _)| function);
            node.place.problem(format!("{function} expects {form}"))
        })
    }
}

fn scalar(node: &Node, text: String) -> Node {
    Node { place: node.place.clone(), kind: Kind::Scalar(text) }
}
