use std::error::Error;
use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use streamer_harness::stage::Workspace;
use streamer_sim::{self as sim, Failure, Plan, Report, World};

use super::arguments::parse_duration;
use super::process::{CommandResult, StopSignals, print, runtime};

/// The `sim` command: runs simulated worlds, and checks that no invariant is broken.
#[derive(Args, Debug)]
pub(super) struct Sim {
    /// Number of seeds to run; each seed makes one world (a simulated stage with its clients and faults)
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// First seed to run
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Number of worlds to run in parallel [default: one for each CPU core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    jobs: Option<u16>,
    /// Stop starting new worlds after this duration, such as 90s or 15m
    #[arg(long, value_parser = parse_duration)]
    time: Option<Duration>,
    /// Run all seeds, even after a world has failed
    #[arg(long)]
    keep_going: bool,
    /// Run only the world of this seed, and print its timeline
    #[arg(long, conflicts_with_all = ["seeds", "from", "jobs", "time", "keep_going"])]
    seed: Option<u64>,
    /// Run only the world of this plan file, and print its timeline
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "from", "jobs", "time", "keep_going"])]
    plan: Option<PathBuf>,
    /// Print only the timeline's entries about this request (requires --seed or --plan)
    #[arg(long, value_name = "TENANT/USER/ID")]
    request: Option<String>,
    /// Print the simulator's raw events instead of the timeline; a seed always gives the same output (requires
    /// --seed or --plan)
    #[arg(long, conflicts_with = "request")]
    trace: bool,
    /// Write the world's plan to this file, which can be edited and run with --plan (requires --seed or
    /// --plan)
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

impl Sim {
    pub(super) fn run(self) -> CommandResult {
        match (&self.plan, self.seed) {
            (Some(file), _) => self.show(read(file)?),
            (None, Some(seed)) => self.show(Plan::from_seed(seed)),
            (None, None) if self.request.is_some() || self.trace || self.save.is_some() => {
                Err("--request, --trace and --save need a single world; select one with --seed or --plan"
                    .into())
            }
            (None, None) => self.run_many(),
        }
    }

    /// Runs one world, and prints its timeline or its raw events.
    fn show(&self, plan: Plan) -> CommandResult {
        if let Some(file) = &self.save {
            write(file, &plan)?;
        }
        let world = sim::Sim::default().run_plan(plan);
        if self.trace {
            print(&world.trace())?;
        } else {
            let mut timeline = world.timeline().colored(std::io::stdout().is_terminal());
            if let Some(request) = &self.request {
                timeline = timeline.about(request);
            }
            print(&timeline.to_string())?;
        }
        Ok(report_violations(&world))
    }

    fn run_many(&self) -> CommandResult {
        let to = self.from.checked_add(self.seeds).ok_or("--from plus --seeds must be below 2^64")?;
        let mut sim = sim::Sim::default().seeds(self.from..to);
        if let Some(jobs) = self.jobs {
            sim = sim.threads(jobs.into());
        }
        let stopped = stop_on_signal()?;
        let bar = Bar::new(self.seeds);
        let report = sim.run_while(|so_far| {
            bar.show(so_far);
            let is_over = self.time.is_some_and(|time| so_far.took >= time);
            let may_continue = so_far.failures.is_empty() || self.keep_going;
            may_continue && !is_over && !stopped.load(Ordering::Relaxed)
        });
        bar.finish();
        print(&report.summary().to_string())?;
        let was_interrupted = stopped.load(Ordering::Relaxed);
        if report.worlds < self.seeds {
            eprintln!("\n{} of {} seeds were run.", report.worlds, self.seeds);
        }
        if report.failures.is_empty() {
            if report.worlds == 0 {
                return Err("no world was completed".into());
            }
            return Ok(if was_interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS });
        }
        print_failures(&report);
        if was_interrupted {
            eprintln!("\nTo show one of these worlds: cargo run --release -- sim --seed N");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        eprintln!("\nShrinking the first failed world ...");
        if let Some(failure) = sim.smallest_failure(&report) {
            print_smallest(&failure)?;
        }
        Ok(ExitCode::FAILURE)
    }
}

/// Prints the violations of a world to standard error, and returns the exit code.
fn report_violations(world: &World) -> ExitCode {
    for violation in &world.violations {
        eprintln!("streamer: {violation}");
    }
    if world.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_failures(report: &Report) {
    const MAX_SHOWN: usize = 20;
    eprintln!("\n{} of {} worlds broke an invariant:", report.failures.len(), report.worlds);
    for (seed, violations) in report.failures.iter().take(MAX_SHOWN) {
        if let Some(violation) = violations.first() {
            eprintln!("  seed {seed}: {violation}");
        }
    }
    if report.failures.len() > MAX_SHOWN {
        eprintln!("  and {} more", report.failures.len() - MAX_SHOWN);
    }
}

fn print_smallest(failure: &Failure) -> Result<(), Box<dyn Error>> {
    let Failure { seed, smallest, plan, timeline, tried, .. } = failure;
    print(&format!("\n{timeline}\n"))?;
    let file = failed_plans_folder()?.join(format!("seed-{seed}.json"));
    write(&file, plan)?;
    let steps: usize = plan.clients.iter().map(|client| client.steps.len()).sum();
    let (clients, faults) = (plan.clients.len(), plan.faults.len());
    eprintln!("streamer: {smallest}");
    eprintln!(
        "The smallest world that still fails, of {tried} that were tried, has {clients} clients, {steps} steps \
         and {faults} faults."
    );
    eprintln!("To replay the smallest world:");
    eprintln!("  cargo run --release -- sim --plan {}", file.display());
    eprintln!("To replay the original world:");
    eprintln!("  cargo run --release -- sim --seed {seed}");
    Ok(())
}

/// Returns the folder for the plans of failed worlds.
fn failed_plans_folder() -> Result<PathBuf, Box<dyn Error>> {
    let here = std::env::current_dir()?;
    // A path relative to the current folder is easier to read and to type.
    let target =
        Workspace::around(&here).map_or_else(|_| here.join("target"), |workspace| workspace.target_dir);
    let folder = target.join("streamer/sim");
    Ok(folder.strip_prefix(&here).map(Path::to_owned).unwrap_or(folder))
}

fn read(file: &Path) -> Result<Plan, Box<dyn Error>> {
    let text =
        fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    Plan::from_json(&text).map_err(|error| format!("{} is not a valid plan: {error}", file.display()).into())
}

fn write(file: &Path, plan: &Plan) -> Result<(), Box<dyn Error>> {
    let failed = |error| format!("{} cannot be written: {error}", file.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(file, plan.to_json()).map_err(failed)?;
    Ok(())
}

/// Exit code of a process that Ctrl-C ended, as shells report it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// Returns a flag that becomes true at the first Ctrl-C (or SIGHUP or SIGTERM), so that no further world
/// starts and the results are printed. The second signal ends the process immediately.
fn stop_on_signal() -> Result<Arc<AtomicBool>, Box<dyn Error>> {
    let runtime = runtime()?;
    let mut stop = runtime.block_on(async { StopSignals::listen() })?;
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopped);
    std::thread::spawn(move || {
        runtime.block_on(async {
            stop.received().await;
            flag.store(true, Ordering::Relaxed);
            eprintln!("\nFinishing the running worlds; press Ctrl-C again to exit immediately ...");
            stop.received().await;
            std::process::exit(INTERRUPTED.into());
        });
    });
    Ok(stopped)
}

/// A progress bar on standard error; nothing is shown if standard error is not a terminal.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new(seeds: u64) -> Self {
        Self(std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "{elapsed_precise} [{bar:40.cyan/blue}] {pos}/{len} worlds, {msg}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("█▉▊▋▌▍▎▏ ");
            ProgressBar::new(seeds).with_style(style)
        }))
    }

    fn show(&self, so_far: &Report) {
        if let Some(bar) = &self.0 {
            bar.set_position(so_far.worlds);
            let mut message = format!(
                "{:.1} per second, {:.0} times real time",
                so_far.worlds_per_second(),
                so_far.times_real_time()
            );
            if !so_far.failures.is_empty() {
                message += &format!(", {} failed", so_far.failures.len());
            }
            bar.set_message(message);
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
