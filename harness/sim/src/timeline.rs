//! Formats the events of a world as a timeline: time, actor, and event.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde_json::Value;
use streamer::ports::Timestamp;

use super::check::Violation;
use super::event::{BEGIN, ClientEvent, Event, EventKind, HandlerEvent, HandlerPhase, WorldEvent};
use super::plan::Plan;
use super::tally::{NOT_STORED, text};
use streamer_fakes::observe::{Answer, Observation};

/// Timeline of a simulated run, which prints one line per event: the seconds since the start, the actor, and
/// the event.
///
/// The timeline leaves out calls and invocations that succeed, because other lines show their effects.
#[derive(Debug)]
pub struct Timeline<'a> {
    events: &'a [Event],
    plan: &'a Plan,
    violations: &'a [Violation],
    is_coloured: bool,
    about: Option<String>,
}

impl<'a> Timeline<'a> {
    pub(super) const fn new(events: &'a [Event], plan: &'a Plan, violations: &'a [Violation]) -> Self {
        Self { events, plan, violations, is_coloured: false, about: None }
    }

    /// Sets whether lines are colored for a terminal. Default: false.
    #[must_use]
    pub const fn colored(mut self, is_coloured: bool) -> Self {
        self.is_coloured = is_coloured;
        self
    }

    /// Limits the timeline to events about one request, named as `tenant/user/id`, and events that concern no
    /// particular request.
    #[must_use]
    pub fn about(mut self, request: impl Into<String>) -> Self {
        self.about = Some(request.into());
        self
    }
}

impl fmt::Display for Timeline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut narrator = Narrator { plan: self.plan, items: BTreeMap::new(), users: BTreeMap::new() };
        let mut violations: Vec<&Violation> = self.violations.iter().collect();
        violations.sort_by_key(|violation| violation.at);
        let mut violations = violations.into_iter().peekable();
        for event in self.events {
            while let Some(violation) = violations.next_if(|violation| violation.at < event.at) {
                self.line(f, violation.at, &Line::of_violation(violation))?;
            }
            if let Some(line) = narrator.line(&event.kind) {
                self.line(f, event.at, &line)?;
            }
        }
        for violation in violations {
            self.line(f, violation.at, &Line::of_violation(violation))?;
        }
        Ok(())
    }
}

impl Timeline<'_> {
    fn line(&self, f: &mut fmt::Formatter<'_>, at: Timestamp, line: &Line) -> fmt::Result {
        let Line { actor, text, tone, about } = line;
        if let (Some(wanted), Some(about)) = (&self.about, about)
            && wanted != about
        {
            return Ok(());
        }
        let seconds = at.since(BEGIN).as_secs_f64();
        let (on, off) = if self.is_coloured { tone.codes() } else { ("", "") };
        writeln!(f, "{seconds:>10.3}  {on}{actor:<16}  {text}{off}")
    }
}

/// One line of a timeline, without its time.
struct Line {
    actor: String,
    text: String,
    tone: Tone,
    /// Key of the request that the line concerns; `None` if the line concerns no particular request.
    about: Option<String>,
}

/// Category of a line, which decides its color.
#[derive(Clone, Copy)]
enum Tone {
    Plain,
    Client,
    Request,
    Handler,
    Fault,
    World,
    Wrong,
}

impl Tone {
    const fn codes(self) -> (&'static str, &'static str) {
        match self {
            Self::Plain => ("\u{1b}[2m", "\u{1b}[0m"),
            Self::Client => ("\u{1b}[36m", "\u{1b}[0m"),
            Self::Request => ("\u{1b}[32m", "\u{1b}[0m"),
            Self::Handler => ("", ""),
            Self::Fault => ("\u{1b}[33m", "\u{1b}[0m"),
            Self::World => ("\u{1b}[1m", "\u{1b}[0m"),
            Self::Wrong => ("\u{1b}[1;31m", "\u{1b}[0m"),
        }
    }
}

impl Line {
    fn new(tone: Tone, actor: impl Into<String>, text: impl Into<String>) -> Self {
        Self { actor: actor.into(), text: text.into(), tone, about: None }
    }

    fn about(mut self, request: Option<String>) -> Self {
        self.about = request;
        self
    }

    fn of_violation(violation: &Violation) -> Self {
        let by =
            violation.request.as_ref().map(|request| format!(" by request {request}")).unwrap_or_default();
        let text = format!("{}, broken{by}: {}", violation.rule, violation.message);
        Self::new(Tone::Wrong, "VIOLATION", text)
    }
}

/// Converts events to lines, and keeps the last item of each request to show which attributes a write
/// changes.
struct Narrator<'a> {
    plan: &'a Plan,
    /// Item of each request after its last write, by the request's key.
    items: BTreeMap<String, Value>,
    /// User of each connection over which a request was sent, as `tenant/user`, by connection id.
    users: BTreeMap<String, String>,
}

impl Narrator<'_> {
    fn line(&mut self, kind: &EventKind) -> Option<Line> {
        match kind {
            EventKind::Client(number, event) => Some(self.client(*number, event)),
            EventKind::Handler(event) => Some(handler(event)),
            EventKind::World(event) => Some(world(event)),
            EventKind::Fake(observation) => self.observation(observation),
        }
    }

    fn client(&self, number: usize, event: &ClientEvent) -> Line {
        let of = self.plan.clients.get(number).map(|client| (client.tenant.as_str(), client.user.as_str()));
        let (tenant, user) = of.unwrap_or_default();
        let (what, message) = match event {
            ClientEvent::Connected => ("connected".to_owned(), None),
            ClientEvent::Refused(status) => (format!("connection refused with status {status}"), None),
            ClientEvent::Sent(text) => (format!("▶ {}", short(text, 200)), Some(text)),
            ClientEvent::Got(text) => (format!("◀ {}", short(text, 200)), Some(text)),
            ClientEvent::Closed(Some(code)) => {
                (format!("connection closed by the gateway with code {code}"), None)
            }
            ClientEvent::Closed(None) => ("connection lost without a close frame".to_owned(), None),
            ClientEvent::Left => ("leaves (closes, vanishes or is cut off)".to_owned(), None),
        };
        let about = message.and_then(|text| request_of(text)).map(|id| format!("{tenant}/{user}/{id}"));
        Line::new(Tone::Client, format!("{number} {user}@{tenant}"), what).about(about)
    }

    fn observation(&mut self, observation: &Observation) -> Option<Line> {
        let line = match observation {
            Observation::Called { caller, operation, tables, index, answer } => {
                let outcome = match answer {
                    Answer::Done => return None,
                    Answer::Refused(why) => format!("failed: {why}"),
                    Answer::Never => "got no answer".to_owned(),
                };
                let tables = tables.replace("streamer-", "");
                let index = index.as_ref().map(|index| format!(" by {index}")).unwrap_or_default();
                // A plain line, because a failed condition is normal: the caller has lost a race.
                Line::new(
                    Tone::Plain,
                    caller_name(caller.as_ref()),
                    format!("{operation} {tables}{index} {outcome}"),
                )
            }
            Observation::Wrote { caller, keys, image, .. } => {
                return self.wrote(&caller_name(caller.as_ref()), keys, image.as_ref());
            }
            Observation::Posted { caller, connection, frame, answer } => {
                let user = self.users.get(connection).map(String::as_str);
                let outcome = match answer {
                    Answer::Done => String::new(),
                    Answer::Refused(why) => format!(", failed with {why}"),
                    Answer::Never => ", got no answer".to_owned(),
                };
                let about = request_of(frame).and_then(|id| Some(format!("{}/{id}", user?)));
                let owner = user.map(|user| format!(" of {user}")).unwrap_or_default();
                let what = format!("posts to connection {connection}{owner}{outcome}: {}", short(frame, 120));
                Line::new(Tone::Plain, caller_name(caller.as_ref()), what).about(about)
            }
            Observation::Opened { connection } => {
                Line::new(Tone::Plain, "gateway", format!("connection {connection} opened"))
            }
            Observation::Ended { connection, code } => {
                Line::new(Tone::Plain, "gateway", format!("connection {connection} closed with code {code}"))
            }
            Observation::Started { environment } => {
                Line::new(Tone::Plain, caller_name(Some(environment)), "environment starts")
            }
            Observation::Invoked { .. } | Observation::Returned { outcome: Ok(_), .. } => return None,
            Observation::Returned { environment, outcome: Err(why), .. } => Line::new(
                Tone::Plain,
                caller_name(Some(environment)),
                format!("invocation failed: {}", short(why, 200)),
            ),
            Observation::Queued { queue, body } => Line::new(
                Tone::Plain,
                queue.replace("streamer-", ""),
                format!("accepted message {}", short(body, 120)),
            ),
            Observation::Injected { fault, operation, resource } => Line::new(
                Tone::Fault,
                "FAULT",
                format!("{fault}: {operation} {}", resource.replace("streamer-", "")),
            ),
        };
        Some(line)
    }

    fn wrote(&mut self, who: &str, keys: &Value, image: Option<&Value>) -> Option<Line> {
        let (key, part) = (text(keys, "request_id")?, text(keys, "part").unwrap_or("request"));
        let what = match (part, image) {
            ("request", Some(image)) => {
                if let Some(((connection, tenant), user)) =
                    text(image, "connection_id").zip(text(image, "tenant_id")).zip(text(image, "user_id"))
                {
                    self.users.entry(connection.to_owned()).or_insert_with(|| format!("{tenant}/{user}"));
                }
                let before = self.items.insert(key.to_owned(), image.clone());
                change(before.as_ref(), image)
            }
            ("request", None) => {
                self.items.remove(key);
                "item deleted".to_owned()
            }
            (part, Some(_)) => format!("part item `{part}` written"),
            (part, None) => format!("part item `{part}` deleted"),
        };
        Some(Line::new(Tone::Request, who, format!("{key}: {what}")).about(Some(key.to_owned())))
    }
}

/// Describes what a write changed: the status, and then each attribute that was changed or removed.
fn change(before: Option<&Value>, now: &Value) -> String {
    let state = |item: &Value| text(item, "status").unwrap_or("no status").to_owned();
    let from = before.map_or_else(|| NOT_STORED.to_owned(), state);
    let mut text = if before.is_some() && from == state(now) {
        String::new()
    } else {
        format!("{from} → {}", state(now))
    };
    let attributes = |item: Option<&Value>| item.and_then(Value::as_object).cloned().unwrap_or_default();
    let (old, new) = (attributes(before), attributes(Some(now)));
    // For a new request, action and payload are enough.
    let is_shown = |name: &str| {
        !["status", "status_shard", "timer_shard"].contains(&name)
            && (before.is_some() || ["action", "payload"].contains(&name))
    };
    for (name, value) in new.iter().filter(|(name, value)| is_shown(name) && old.get(*name) != Some(*value)) {
        let _ = write!(text, " {name}={}", short(&plain(name, value), 60));
    }
    for name in old.keys().filter(|name| is_shown(name) && !new.contains_key(*name)) {
        let _ = write!(text, " -{name}");
    }
    text.trim_start().to_owned()
}

/// Returns a value without its DynamoDB type. A time is given in seconds since the start of the world.
fn plain(name: &str, value: &Value) -> String {
    let inner = value.as_object().and_then(|typed| typed.values().next()).unwrap_or(value);
    let text = inner.as_str().map_or_else(|| inner.to_string(), str::to_owned);
    match text.parse() {
        Ok(ms) if name.ends_with("_at") => {
            format!("{:.3}", Timestamp::from_millis(ms).since(BEGIN).as_secs_f64())
        }
        _ => text,
    }
}

fn handler(HandlerEvent { user, tenant, id, attempt, continuations, phase }: &HandlerEvent) -> Line {
    let key = format!("{tenant}/{user}/{id}");
    let continued =
        if *continuations > 0 { format!(", continuation {continuations}") } else { String::new() };
    let what = match phase {
        HandlerPhase::Begin => format!("starts {key}, attempt {attempt}{continued}"),
        HandlerPhase::End => format!("finishes {key}"),
        HandlerPhase::Dropped => format!("dropped before finishing {key}"),
    };
    Line::new(Tone::Handler, "handler", what).about(Some(key))
}

fn world(event: &WorldEvent) -> Line {
    match event {
        WorldEvent::Begin => Line::new(Tone::World, "world", "starts: the stage is up"),
        WorldEvent::Fault { kind, about } => {
            Line::new(Tone::Fault, "FAULT", format!("{}: {about}", kind.name()))
        }
        WorldEvent::FaultsEnded => Line::new(Tone::World, "world", "stops injecting faults"),
        WorldEvent::Settled => Line::new(Tone::World, "world", "has settled, or its time limit has passed"),
        WorldEvent::End => Line::new(Tone::World, "world", "shuts down the stage"),
    }
}

fn caller_name(caller: Option<&streamer_fakes::faults::Caller>) -> String {
    let name = caller.map_or_else(|| "stage".to_owned(), |caller| format!("{caller:?}"));
    name.replace("streamer-", "").replace("Function", "")
}

/// Returns the id of the request that a message concerns.
fn request_of(message: &str) -> Option<String> {
    let message: Value = serde_json::from_str(message).ok()?;
    let named = message["payload"].get("request_id").or_else(|| message.get("request_id"));
    Some(named.or_else(|| message.get("id"))?.as_str()?.to_owned())
}

/// Returns the first `most` characters of a text, on one line.
fn short(text: &str, most: usize) -> String {
    let mut line: String = text.chars().take(most).map(|c| if c.is_control() { '␤' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        line.push('…');
    }
    line
}
