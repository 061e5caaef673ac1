//! Reads `AWS::Serverless::Function`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostics::FindingKind::{Harmless, NotEmulated};
use super::diagnostics::Place;
use super::events::Events;
use super::fields::{Fields, Ignored, Reader};
use super::node::Node;
use super::resource::{FUNCTION, Resource, of_type};
use super::{globals, invoke_config};
use streamer_fakes::lambda::AsyncSettings;

/// Lambda's maximum size of all environment variables of a function, in bytes.
const MAX_ENVIRONMENT_BYTES: usize = 4096;

/// A Lambda function of the template: its binary and its settings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Function {
    /// Logical id of the function in the template.
    pub logical_id: String,
    /// Name of the function: `FunctionName`, otherwise `<stack>-<logical id>`.
    pub name: String,
    /// Name of the Cargo binary that the function is built from.
    pub binary: String,
    /// Folder of the Cargo package with the function's binary: `CodeUri`, relative to the template's folder.
    pub code_dir: PathBuf,
    /// Value of `Handler`, which the function receives in the variable `_HANDLER`.
    pub handler: String,
    /// Maximum duration of an invocation: 1 to 900 s. Default: 3 s.
    pub timeout: Duration,
    /// Memory in MiB: 128 to 10,240. Default: 128.
    pub memory_mib: u32,
    /// Maximum number of concurrent invocations; `None` if the function has no limit of its own. With 0, the
    /// function never runs.
    pub reserved_concurrency: Option<u32>,
    /// Environment variables of the function.
    pub environment: BTreeMap<String, String>,
    /// True if Lambda lets the function invoke itself in an endless chain (`RecursiveLoop: Allow`).
    pub recursive_loop: bool,
    /// Retries and destinations of asynchronous invocations: `EventInvokeConfig` and `DeadLetterQueue`.
    pub asynchronous: AsyncSettings,
}

const IGNORED: &[Ignored] = &[
    ("Architectures", Harmless, "binaries are built for the architecture of this machine"),
    ("AssumeRolePolicyDocument", Harmless, "permissions are not checked locally"),
    ("AutoPublishAlias", Harmless, "there are no versions or aliases locally, only the current code"),
    ("CodeSigningConfigArn", Harmless, "code is not signed locally"),
    ("DeploymentPreference", Harmless, "there are no gradual deployments locally"),
    ("Description", Harmless, "a description has no effect"),
    ("EphemeralStorage", NotEmulated, "the size of /tmp is not limited locally"),
    ("FunctionUrlConfig", NotEmulated, "functions have no URL locally"),
    ("KmsKeyArn", Harmless, "nothing is encrypted locally"),
    ("LoggingConfig", Harmless, "log lines go to the terminal unchanged"),
    ("PermissionsBoundary", Harmless, "permissions are not checked locally"),
    ("Policies", Harmless, "permissions are not checked locally"),
    ("PropagateTags", Harmless, "tags have no effect locally"),
    ("ProvisionedConcurrencyConfig", Harmless, "environments start on demand"),
    ("Role", Harmless, "permissions are not checked locally"),
    ("RolePath", Harmless, "permissions are not checked locally"),
    ("RuntimeManagementConfig", Harmless, "the binary contains its own runtime"),
    ("SnapStart", Harmless, "SnapStart does not apply to binaries"),
    ("SourceKMSKeyArn", Harmless, "nothing is encrypted locally"),
    ("Tags", Harmless, "tags have no effect locally"),
    ("Tracing", NotEmulated, "traces are not recorded locally"),
    ("VpcConfig", NotEmulated, "functions use the network of this machine"),
];

/// Environment variables that Lambda reserves.
const RESERVED: &[&str] = &[
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
];

/// Reads every function, and collects the stream events and schedule events of the functions.
pub(super) fn read(
    resources: &[Resource<'_>],
    base_dir: &Path,
    reader: &mut Reader<'_>,
) -> (Vec<Function>, Events) {
    let defaults = reader.scope.root.get("Globals").and_then(|globals| globals.get("Function")).cloned();
    let (mut functions, mut events) = (Vec::<Function>::new(), Events::default());
    for resource in of_type(resources, FUNCTION) {
        let Some(function) = function(resource, defaults.as_ref(), base_dir, &mut events, reader) else {
            continue;
        };
        if let Some(other) = functions.iter().find(|other| other.name == function.name) {
            let message = format!(
                "the function's name {} is already the name of {}; choose another name",
                function.name, other.logical_id
            );
            reader.report.problem(&resource.node.place, message);
        }
        functions.push(function);
    }
    // If a resource could not be read, that resource may have been the only function.
    let unread = reader.report.problems.iter().any(|problem| problem.place.path.starts_with("Resources."));
    if !unread && of_type(resources, FUNCTION).next().is_none() {
        let root = reader.scope.root;
        let place =
            root.get("Resources").map_or_else(|| root.place.below("Resources"), |node| node.place.clone());
        reader.report.problem(&place, format!("the template has no {FUNCTION}; add at least one"));
    }
    (functions, events)
}

fn function(
    resource: &Resource<'_>,
    defaults: Option<&Node>,
    base_dir: &Path,
    events: &mut Events,
    reader: &mut Reader<'_>,
) -> Option<Function> {
    let properties = match (resource.node.get("Properties"), defaults) {
        (Some(own), Some(defaults)) => Some(globals::merge(defaults, own)),
        (own, defaults) => own.or(defaults).cloned(),
    };
    let mut fields = match properties {
        Some(node) => Fields::of(&node, reader)?,
        None => Fields::none(resource.node.place.below("Properties")),
    };
    fields.node("FunctionName", reader);
    let name = reader.report.keep(reader.scope.physical_name(resource.id, resource.node));
    if let Some(name) = &name {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            let place = fields.place("FunctionName");
            reader.report.problem(
                &place,
                format!("expected a name of 1 to 64 letters, digits, - and _, found {name:?}"),
            );
        }
    }
    runtime(&mut fields, reader);
    let handler = fields.required_text("Handler", "bootstrap, for a Rust binary", reader);
    let binary = binary(resource, handler.as_deref(), reader);
    let code_dir = code_dir(&mut fields, base_dir, reader);
    let timeout = fields.count("Timeout", "seconds", 1..=900, reader).unwrap_or(3);
    let memory_mib = fields.count("MemorySize", "MiB", 128..=10_240, reader).unwrap_or(128);
    let reserved_concurrency =
        fields.count("ReservedConcurrentExecutions", "concurrent executions", 0..=u32::MAX, reader);
    let environment = environment(&mut fields, reader);
    let recursive_loop = fields.text("RecursiveLoop", reader).as_deref() == Some("Allow");
    let asynchronous = invoke_config::read(&mut fields, reader);
    let function_name = name.clone().unwrap_or_default();
    events.collect(&mut fields, resource.id, &function_name, reader);
    fields.finish(IGNORED, reader);
    Some(Function {
        logical_id: resource.id.to_owned(),
        name: name?,
        binary: binary?,
        code_dir: code_dir?,
        handler: handler?,
        timeout: Duration::from_secs(timeout.into()),
        memory_mib,
        reserved_concurrency,
        environment,
        recursive_loop,
        asynchronous,
    })
}

fn runtime(fields: &mut Fields, reader: &mut Reader<'_>) {
    if let Some(package) = fields.text("PackageType", reader).filter(|package| package != "Zip") {
        let message = format!("the local stage runs only packages of type Zip, found {package:?}");
        reader.report.unsupported(&fields.place("PackageType"), message);
    }
    if let Some(runtime) = fields.required_text("Runtime", "provided.al2023, for a Rust binary", reader)
        && !runtime.starts_with("provided.")
    {
        let message =
            format!("the local stage runs only binaries (runtime provided.al2023), found {runtime:?}");
        reader.report.unsupported(&fields.place("Runtime"), message);
    }
}

/// Returns the name of the function's binary: `Metadata.BuildProperties.Binary`, or otherwise the handler.
/// The handler `bootstrap` is not used, because every binary is deployed under that name.
fn binary(resource: &Resource<'_>, handler: Option<&str>, reader: &mut Reader<'_>) -> Option<String> {
    let place = resource.node.place.below("Metadata.BuildProperties.Binary");
    let mut named = None;
    if let Some(node) = resource.node.get("Metadata") {
        let mut metadata = Fields::of(node, reader)?;
        if let Some(method) =
            metadata.text("BuildMethod", reader).filter(|method| method != "rust-cargolambda")
        {
            let message =
                format!("the local stage builds only with Cargo (rust-cargolambda), found {method:?}");
            reader.report.unsupported(&metadata.place("BuildMethod"), message);
        }
        if let Some(mut build) = metadata.fields("BuildProperties", reader) {
            named = build.text("Binary", reader);
            build.finish(&[], reader);
        }
    }
    let named = named.or_else(|| handler.filter(|handler| *handler != "bootstrap").map(str::to_owned));
    if named.is_none() && handler.is_some() {
        reader
            .report
            .problem(&place, "required, but missing; expected the name of the function's Cargo binary");
    }
    named
}

fn code_dir(fields: &mut Fields, base_dir: &Path, reader: &mut Reader<'_>) -> Option<PathBuf> {
    let uri = fields.required_text(
        "CodeUri",
        "the folder of the Cargo package, relative to the template",
        reader,
    )?;
    if uri.contains("://") {
        let message = format!("the local stage builds only from a folder, found {uri:?}");
        reader.report.unsupported(&fields.place("CodeUri"), message);
        return None;
    }
    Some(base_dir.join(uri).components().collect())
}

fn environment(fields: &mut Fields, reader: &mut Reader<'_>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    let Some(mut outer) = fields.fields("Environment", reader) else { return environment };
    let place = outer.place("Variables");
    let variables = outer.fields("Variables", reader);
    outer.finish(&[], reader);
    for (name, node) in variables.map(Fields::into_entries).unwrap_or_default() {
        check_variable_name(&name, &node.place, reader);
        if let Some(Some(value)) = reader.report.keep(reader.scope.text(&node)) {
            environment.insert(name, value);
        }
    }
    let bytes: usize = environment.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_ENVIRONMENT_BYTES {
        let message =
            format!("the variables take {bytes} bytes, but Lambda allows at most {MAX_ENVIRONMENT_BYTES}");
        reader.report.problem(&place, message);
    }
    environment
}

fn check_variable_name(name: &str, place: &Place, reader: &mut Reader<'_>) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if RESERVED.contains(&name) {
        reader.report.problem(place, "this variable is reserved by Lambda; choose another name");
    } else if name.len() < 2
        || !name.starts_with(|c: char| c.is_ascii_alphabetic())
        || !name.chars().all(allowed)
    {
        let message =
            "expected a variable name of at least two characters: a letter, then letters, digits and _";
        reader.report.problem(place, message);
    }
}

/// Extracts the function's name from an ARN with or without a version. Returns any other text unchanged.
pub(super) fn function_name(arn: &str) -> &str {
    let mut parts = arn.split(':');
    if parts.next() == Some("arn") { parts.nth(5).unwrap_or(arn) } else { arn }
}

#[cfg(test)]
mod tests {
    use super::function_name;

    #[test]
    fn function_name_is_extracted_from_an_arn_with_or_without_a_version() {
        assert_eq!(function_name("arn:aws:lambda:eu-west-1:123456789012:function:router"), "router");
        assert_eq!(function_name("arn:aws:lambda:eu-west-1:123456789012:function:router:live"), "router");
        assert_eq!(function_name("router"), "router");
        assert_eq!(function_name("arn:nonsense"), "arn:nonsense");
    }
}
