//! Worlds, one or many.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use serde_json::Value;
use streamer::app::App;
use streamer::ports::Timestamp;

use super::app_requests::AppRequests;
use super::chance::Chance;
use super::check::Violation;
use super::event::BEGIN;
use super::execution::{AppUnderTest, execute};
use super::handlers;
use super::history::History;
use super::panics::{self, Panicked};
use super::plan::Plan;
use super::recorder::Until;
use super::report::{Failure, FinishedWorld, Report};
use super::runner;
use super::shrink::{Shrunk, shrink};
use super::world::World;
use streamer_harness::stage::Services;

/// The simulator: it makes worlds from seeds, and checks what comes of them.
///
/// A world is a whole stage with its clients, on a clock of its own, in which all goes wrong that can on AWS. Whatever is
/// left to chance in it comes from its seed: the same seed makes the same world, on every machine.
///
/// ```
/// use std::time::Duration;
/// use serde_json::{Value, json};
/// use streamer::app::App;
/// use streamer::handler::{Context, Handler, HandlerError};
/// use streamer_sim::Sim;
///
/// struct Print;
///
/// impl Handler for Print {
///     type Input = u32;
///     type Output = Value;
///
///     fn estimated_duration(&self, pages: &u32) -> Duration {
///         Duration::from_secs(1) * *pages
///     }
///
///     async fn process(&self, pages: u32, context: Context) -> Result<Value, HandlerError> {
///         for page in 0..pages {
///             tokio::time::sleep(Duration::from_secs(1)).await;
///             context.progress.report(f64::from(page) / f64::from(pages) * 100.0, "printing")?;
///         }
///         Ok(json!({"pages": pages}))
///     }
/// }
///
/// fn app() -> App {
///     let mut app = App::new();
///     app.handle("print", Print).expect("no other handler has this name");
///     app
/// }
///
/// Sim::new(app)
///     .requests("print", |chance| json!(chance.number(1..=60)))
///     .check("all pages are printed", |history| {
///         for request in &history.requests {
///             if let Some(result) = &request.result
///                 && result["pages"] != request.payload
///             {
///                 return Err(format!("{} asked for {} and got {result}", request.key, request.payload));
///             }
///         }
///         Ok(())
///     })
///     .seeds(0..3)
///     .run()
///     .assert();
/// ```
#[derive(Clone)]
pub struct Sim {
    app: AppUnderTest,
    requests: AppRequests,
    permissions: Vec<String>,
    checks: Vec<Check>,
    seeds: Range<u64>,
    threads: usize,
}

/// What a user wants to hold.
#[derive(Clone)]
struct Check {
    name: String,
    holds: Arc<Holds>,
}

type Holds = dyn Fn(&History) -> Result<(), String> + Send + Sync;

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checks: Vec<_> = self.checks.iter().map(|check| &check.name).collect();
        f.debug_struct("Sim")
            .field("requests", &self.requests)
            .field("checks", &checks)
            .field("seeds", &self.seeds)
            .finish()
    }
}

/// The simulator with handlers of its own, which do all that handlers can.
impl Default for Sim {
    fn default() -> Self {
        Self::of(AppUnderTest::Jobs)
    }
}

impl Sim {
    /// A simulator of an app: `app` makes it once for each environment of a function, as on AWS.
    ///
    /// Its handlers must leave time and chance to the stage: they wait by tokio's clock, and read no other.
    /// [`requests`](Self::requests) says what its clients request.
    #[must_use]
    pub fn new(app: impl Fn() -> App + Send + Sync + 'static) -> Self {
        Self::with(move |_| app())
    }

    /// As [`new`](Self::new), for handlers that need the time of day or chance, or call AWS: they take these from the stage's
    /// services, as with [`StageBuilder::app_with`](streamer_harness::stage::StageBuilder::app_with).
    ///
    /// A client of an AWS SDK keeps worlds alike if it has the services' HTTP client, a time source that reads their clock, a
    /// retry partition of its own, and no stalled-stream protection, which reads the machine's clock.
    #[must_use]
    pub fn with(app: impl Fn(&Services) -> App + Send + Sync + 'static) -> Self {
        Self::of(AppUnderTest::Users(Arc::new(app)))
    }

    fn of(app: AppUnderTest) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self {
            app,
            requests: AppRequests::default(),
            permissions: Vec::new(),
            checks: Vec::new(),
            seeds: 0..100,
            threads,
        }
    }

    /// Clients send requests for this action, each with a payload drawn from the world's seed. Of several actions, each is as
    /// likely as another.
    #[must_use]
    pub fn requests(
        mut self,
        action: impl Into<String>,
        payload: impl Fn(&mut Chance) -> Value + Send + Sync + 'static,
    ) -> Self {
        self.requests.add(action, payload);
        self
    }

    /// What every client's token permits; by default nothing.
    #[must_use]
    pub fn permissions(mut self, permissions: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.permissions = permissions.into_iter().map(Into::into).collect();
        self
    }

    /// A rule of your own: it is asked at the end of each world, and says what is wrong with it.
    #[must_use]
    pub fn check(
        mut self,
        name: impl Into<String>,
        holds: impl Fn(&History) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.checks.push(Check { name: name.into(), holds: Arc::new(holds) });
        self
    }

    /// Which seeds [`run`](Self::run) makes worlds from. Default: 0 to 99.
    #[must_use]
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// How many worlds run side by side. Default: one for each core.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// The scenario of a seed.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::of_seed(seed);
        self.requests.replace_jobs(&mut plan);
        for client in &mut plan.clients {
            client.permissions.extend(self.permissions.iter().cloned());
        }
        plan
    }

    /// The world of a seed, on this thread; not within a tokio runtime.
    #[must_use]
    pub fn run_seed(&self, seed: u64) -> World {
        match panics::watched(|| self.plan(seed)) {
            (Some(plan), _) => self.run_plan(plan),
            (None, panicked) => {
                let message = panicked.last().map_or_else(String::new, ToString::to_string);
                let draw = violation("payloads can be drawn", BEGIN, message);
                World::broken(Plan::of_seed(seed), vec![draw])
            }
        }
    }

    /// The world of a plan, on this thread; not within a tokio runtime.
    #[must_use]
    pub fn run_plan(&self, plan: Plan) -> World {
        self.run_until(plan, &Until::End)
    }

    fn run_until(&self, plan: Plan, until: &Until) -> World {
        let (outcome, panicked) = panics::watched(|| execute(&plan, &self.app, until));
        let mut world = match outcome {
            Some(Ok(outcome)) => World::of(plan, outcome),
            Some(Err(error)) => {
                World::broken(plan, vec![violation("the stage starts", BEGIN, error.to_string())])
            }
            None => {
                let message = panicked.last().map_or_else(String::new, ToString::to_string);
                World::broken(plan, vec![violation("the world comes to its end", BEGIN, message)])
            }
        };
        let end = BEGIN + world.lasted;
        if let Some(panicked) = panicked.iter().find(|panicked| !self.may_panic(panicked)) {
            world.violations.push(violation("nothing panics", end, panicked.to_string()));
        }
        if !self.checks.is_empty() && !world.was_stopped() {
            let history = world.history();
            for Check { name, holds } in &self.checks {
                let said = match panics::watched(|| holds(&history)) {
                    (Some(said), _) => said,
                    (None, panicked) => Err(panicked
                        .last()
                        .map_or_else(String::new, |panicked| format!("it panics: {panicked}"))),
                };
                if let Err(message) = said {
                    world.violations.push(violation(name, end, message));
                }
            }
        }
        world
    }

    /// The simulator's handlers panic on purpose, and a user's are unwound as they are on AWS.
    fn may_panic(&self, panicked: &Panicked) -> bool {
        match self.app {
            AppUnderTest::Jobs => panicked.file == handlers::FILE,
            AppUnderTest::Users(_) => !panicked.is_of_streamer(),
        }
    }

    /// Makes the worlds of all seeds, until one of them is wrong: that one is made as small as it goes.
    #[must_use]
    pub fn run(&self) -> Report {
        let mut report = self.run_while(|so_far| so_far.failures.is_empty());
        report.smallest = self.smallest_failure(&report);
        report
    }

    /// Makes the worlds of all seeds, for as long as `go_on` says after each, and a few times a second.
    ///
    /// Seeds are taken in order, and what has begun is ended: the lowest seed that fails is the same however many threads there
    /// are.
    #[must_use]
    pub fn run_while(&self, go_on: impl FnMut(&Report) -> bool) -> Report {
        let world = |seed| {
            let world = self.run_seed(seed);
            FinishedWorld { seed, lasted: world.lasted, tally: world.tally(), violations: world.violations }
        };
        runner::run(self.seeds.clone(), self.threads, world, go_on)
    }

    /// Makes the world of the lowest seed that failed as small as it goes, if a seed did.
    #[must_use]
    pub fn smallest_failure(&self, report: &Report) -> Option<Failure> {
        let (seed, violations) = report.failures.iter().find(|(_, violations)| !violations.is_empty())?;
        let violation = violations.first()?.clone();
        let shrunk = self.shrink(self.plan(*seed), &violation.rule);
        let world = self.run_plan(shrunk.plan);
        let same = world.violations.iter().find(|other| other.rule == violation.rule);
        Some(Failure {
            seed: *seed,
            smallest: same.unwrap_or(&violation).clone(),
            timeline: world.timeline().to_string(),
            plan: world.plan,
            violation,
            tried: shrunk.tried,
        })
    }

    /// Makes a plan that breaks this rule smaller, for as long as it still does.
    #[must_use]
    pub fn shrink(&self, plan: Plan, rule: &str) -> Shrunk {
        let until = Until::Broken(rule.to_owned());
        shrink(plan, self.threads, |candidate| self.run_until(candidate.clone(), &until).breaks(rule))
    }
}

fn violation(rule: &str, at: Timestamp, message: String) -> Violation {
    Violation { rule: rule.to_owned(), at, request: None, message }
}
