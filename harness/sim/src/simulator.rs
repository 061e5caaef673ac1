//! The simulator: [`Sim`] simulates one world or many.

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

/// Simulator of a whole stage, which makes worlds (simulated runs) from seeds and checks the invariants of
/// each world.
///
/// A world is a whole stage with its clients, on a virtual clock, with injected faults of the kinds that
/// occur on AWS. All randomness in a world comes from its seed: the same seed gives the same world on every
/// machine.
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
///     app.handle("print", Print).expect("the action has no other handler");
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
///                 return Err(format!("{} of {} pages has the result {result}", request.key, request.payload));
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

/// A rule that a user of the simulator has added.
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

/// The default simulator runs its own handlers, which can do everything that a user's handler can do.
impl Default for Sim {
    fn default() -> Self {
        Self::of(AppUnderTest::Jobs)
    }
}

impl Sim {
    /// Creates a simulator of an app. `app` is called once for each environment of a function, as on AWS.
    ///
    /// Handlers must be deterministic: they wait with tokio's timers, and read no other clock or source of
    /// randomness. [`requests`](Self::requests) sets the requests that the clients send.
    #[must_use]
    pub fn new(app: impl Fn() -> App + Send + Sync + 'static) -> Self {
        Self::with(move |_| app())
    }

    /// Creates a simulator of an app whose handlers need the time of day, randomness, or AWS calls. `app`
    /// receives the stage's services, which provide these, as with
    /// [`StageBuilder::app_with_services`](streamer_harness::stage::StageBuilder::app_with_services).
    ///
    /// An AWS SDK client keeps runs deterministic if it uses the services' HTTP client, a time source that
    /// reads the services' clock, and its own retry partition. Its stalled-stream protection must be off,
    /// because that protection reads the machine's clock.
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

    /// Adds an action that the clients request, each time with a payload drawn from the run's seed. All added
    /// actions are equally likely. If no action is added, clients request the simulator's own jobs.
    #[must_use]
    pub fn requests(
        mut self,
        action: impl Into<String>,
        payload: impl Fn(&mut Chance) -> Value + Send + Sync + 'static,
    ) -> Self {
        self.requests.add(action, payload);
        self
    }

    /// Sets the permissions that every client's token grants, in runs made from seeds. Default: none.
    #[must_use]
    pub fn permissions(mut self, permissions: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.permissions = permissions.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a rule of your own, which is checked at the end of each simulated run. `holds` returns `Err` with
    /// a description if the run breaks the rule.
    #[must_use]
    pub fn check(
        mut self,
        name: impl Into<String>,
        holds: impl Fn(&History) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.checks.push(Check { name: name.into(), holds: Arc::new(holds) });
        self
    }

    /// Sets the seeds to simulate, one run for each seed. Default: 0 to 99.
    #[must_use]
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// Sets the number of simulated runs that are executed concurrently, at least 1. Default: one for each
    /// core.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Returns the plan of a seed, with this simulator's requests and permissions.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::from_seed(seed);
        self.requests.replace_jobs(&mut plan);
        for client in &mut plan.clients {
            client.permissions.extend(self.permissions.iter().cloned());
        }
        plan
    }

    /// Simulates one run (a world), made from a seed, on this thread. Must not be called within a tokio
    /// runtime.
    #[must_use]
    pub fn run_seed(&self, seed: u64) -> World {
        match panics::catch_panics(|| self.plan(seed)) {
            (Some(plan), _) => self.run_plan(plan),
            (None, panicked) => {
                let message = panicked.last().map_or_else(String::new, ToString::to_string);
                let draw = violation("payload generators do not panic", BEGIN, message);
                World::broken(Plan::from_seed(seed), vec![draw])
            }
        }
    }

    /// Simulates one run (a world), made from a plan, on this thread. Must not be called within a tokio
    /// runtime.
    #[must_use]
    pub fn run_plan(&self, plan: Plan) -> World {
        self.run_until(plan, &Until::End)
    }

    fn run_until(&self, plan: Plan, until: &Until) -> World {
        let (outcome, panicked) = panics::catch_panics(|| execute(&plan, &self.app, until));
        let mut world = match outcome {
            Some(Ok(outcome)) => World::of(plan, outcome),
            Some(Err(error)) => {
                World::broken(plan, vec![violation("the stage starts", BEGIN, error.to_string())])
            }
            None => {
                let message = panicked.last().map_or_else(String::new, ToString::to_string);
                World::broken(plan, vec![violation("the world runs to its end", BEGIN, message)])
            }
        };
        let end = BEGIN + world.lasted;
        if let Some(panicked) = panicked.iter().find(|panicked| !self.may_panic(panicked)) {
            world.violations.push(violation("Streamer does not panic", end, panicked.to_string()));
        }
        if !self.checks.is_empty() && !world.was_stopped() {
            let history = world.history();
            for Check { name, holds } in &self.checks {
                let checked = match panics::catch_panics(|| holds(&history)) {
                    (Some(checked), _) => checked,
                    (None, panicked) => Err(panicked
                        .last()
                        .map_or_else(String::new, |panicked| format!("the check panicked: {panicked}"))),
                };
                if let Err(message) = checked {
                    world.violations.push(violation(name, end, message));
                }
            }
        }
        world
    }

    /// Returns whether the panic is allowed. The simulator's own handlers panic on purpose. A user's code may
    /// panic too, because Streamer unwinds such panics, as on AWS.
    fn may_panic(&self, panicked: &Panicked) -> bool {
        match self.app {
            AppUnderTest::Jobs => panicked.file == handlers::FILE,
            AppUnderTest::Users(_) => !panicked.is_of_streamer(),
        }
    }

    /// Simulates one run for each seed, until a run breaks a rule. The plan of that run is shrunk.
    #[must_use]
    pub fn run(&self) -> Report {
        let mut report = self.run_while(|so_far| so_far.failures.is_empty());
        report.smallest = self.smallest_failure(&report);
        report
    }

    /// Simulates one run for each seed, while `go_on` returns true. `go_on` is called after each run, and a
    /// few times per second.
    ///
    /// Seeds are run in ascending order, and each run that has begun is finished. So the lowest failing seed
    /// does not depend on the number of threads.
    #[must_use]
    pub fn run_while(&self, go_on: impl FnMut(&Report) -> bool) -> Report {
        let world = |seed| {
            let world = self.run_seed(seed);
            FinishedWorld { seed, lasted: world.lasted, tally: world.tally(), violations: world.violations }
        };
        runner::run(self.seeds.clone(), self.threads, world, go_on)
    }

    /// Shrinks the plan of the lowest seed in the report that broke a rule. Returns `None` if no seed broke a
    /// rule.
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

    /// Shrinks a plan that breaks a rule, to the smallest plan found that still breaks the rule. `rule` is
    /// the text of [`Violation::rule`].
    #[must_use]
    pub fn shrink(&self, plan: Plan, rule: &str) -> Shrunk {
        let until = Until::Broken(rule.to_owned());
        shrink(plan, self.threads, |candidate| self.run_until(candidate.clone(), &until).breaks(rule))
    }
}

fn violation(rule: &str, at: Timestamp, message: String) -> Violation {
    Violation { rule: rule.to_owned(), at, request: None, message }
}
