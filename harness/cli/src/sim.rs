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

use super::arguments::duration;
use super::process::{CommandResult, Stop, runtime, say};

/// The `sim` command.
#[derive(Args, Debug)]
pub(super) struct Sim {
    /// How many seeds to run, a world for each
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many worlds to run side by side; by default one for each core
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    jobs: Option<u16>,
    /// Begin no world after this time: 90s, 15m, 1h or 7d
    #[arg(long, value_parser = duration)]
    time: Option<Duration>,
    /// Run all seeds, though some fail
    #[arg(long)]
    keep_going: bool,
    /// Show the world of this seed alone, as a timeline
    #[arg(long, conflicts_with_all = ["seeds", "from", "jobs", "time", "keep_going"])]
    seed: Option<u64>,
    /// Show the world of a plan's file alone, as a timeline
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "from", "jobs", "time", "keep_going"])]
    plan: Option<PathBuf>,
    /// Of that timeline, show only what is about this request
    #[arg(long, value_name = "TENANT/USER/ID")]
    request: Option<String>,
    /// Show every event as the simulator has it, the same bytes each time, in place of the timeline
    #[arg(long, conflicts_with = "request")]
    trace: bool,
    /// Write the plan of that world to this file, to change and run it
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

impl Sim {
    pub(super) fn run(self) -> CommandResult {
        match (&self.plan, self.seed) {
            (Some(file), _) => self.show(read(file)?),
            (None, Some(seed)) => self.show(Plan::of_seed(seed)),
            (None, None) if self.request.is_some() || self.trace || self.save.is_some() => {
                Err("--request, --trace and --save are about one world: name it with --seed or --plan".into())
            }
            (None, None) => self.run_many(),
        }
    }

    /// One world, with all that happens in it.
    fn show(&self, plan: Plan) -> CommandResult {
        if let Some(file) = &self.save {
            write(file, &plan)?;
        }
        let world = sim::Sim::default().run_plan(plan);
        if self.trace {
            say(&world.trace())?;
        } else {
            let mut timeline = world.timeline().coloured(std::io::stdout().is_terminal());
            if let Some(request) = &self.request {
                timeline = timeline.about(request);
            }
            say(&timeline.to_string())?;
        }
        Ok(verdict(&world))
    }

    fn run_many(&self) -> CommandResult {
        let to = self
            .from
            .checked_add(self.seeds)
            .ok_or("there are no seeds beyond 2^64: lower --from or --seeds")?;
        let mut sim = sim::Sim::default().seeds(self.from..to);
        if let Some(jobs) = self.jobs {
            sim = sim.threads(jobs.into());
        }
        let stopped = stop_on_request()?;
        let bar = Bar::new(self.seeds);
        let report = sim.run_while(|so_far| {
            bar.show(so_far);
            let is_over = self.time.is_some_and(|time| so_far.took >= time);
            let may_go_on = so_far.failures.is_empty() || self.keep_going;
            may_go_on && !is_over && !stopped.load(Ordering::Relaxed)
        });
        bar.finish();
        say(&report.summary().to_string())?;
        let was_interrupted = stopped.load(Ordering::Relaxed);
        if report.worlds < self.seeds {
            eprintln!("\n{} of {} seeds were run.", report.worlds, self.seeds);
        }
        if report.failures.is_empty() {
            if report.worlds == 0 {
                return Err("no world has come to its end".into());
            }
            return Ok(if was_interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS });
        }
        tell_failures(&report);
        if was_interrupted {
            eprintln!("\nEach is shown by: cargo run --release -- sim --seed N");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        eprintln!("\nMaking the first one smaller ...");
        if let Some(failure) = sim.smallest_failure(&report) {
            tell_smallest(&failure)?;
        }
        Ok(ExitCode::FAILURE)
    }
}

/// What was wrong with a world goes to standard error, under its timeline.
fn verdict(world: &World) -> ExitCode {
    for violation in &world.violations {
        eprintln!("streamer: {violation}");
    }
    if world.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell_failures(report: &Report) {
    const MOST: usize = 20;
    eprintln!("\n{} of {} worlds are wrong:", report.failures.len(), report.worlds);
    for (seed, violations) in report.failures.iter().take(MOST) {
        if let Some(violation) = violations.first() {
            eprintln!("  seed {seed}: {violation}");
        }
    }
    if report.failures.len() > MOST {
        eprintln!("  and {} more", report.failures.len() - MOST);
    }
}

fn tell_smallest(failure: &Failure) -> Result<(), Box<dyn Error>> {
    let Failure { seed, smallest, plan, timeline, tried, .. } = failure;
    say(&format!("\n{timeline}\n"))?;
    let file = folder()?.join(format!("seed-{seed}.json"));
    write(&file, plan)?;
    let steps: usize = plan.clients.iter().map(|client| client.steps.len()).sum();
    let (clients, faults) = (plan.clients.len(), plan.faults.len());
    eprintln!("streamer: {smallest}");
    eprintln!("That is the smallest of {tried} worlds: {clients} clients, {steps} steps, {faults} faults.");
    eprintln!("It replays with");
    eprintln!("  cargo run --release -- sim --plan {}", file.display());
    eprintln!("and the world that it was made from with");
    eprintln!("  cargo run --release -- sim --seed {seed}");
    Ok(())
}

/// Where plans go that show what is wrong.
fn folder() -> Result<PathBuf, Box<dyn Error>> {
    let here = std::env::current_dir()?;
    // Where the workspace is, the path is short, as a person says it.
    let target =
        Workspace::around(&here).map_or_else(|_| here.join("target"), |workspace| workspace.target_dir);
    let folder = target.join("streamer/sim");
    Ok(folder.strip_prefix(&here).map(Path::to_owned).unwrap_or(folder))
}

fn read(file: &Path) -> Result<Plan, Box<dyn Error>> {
    let text =
        fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    Plan::from_json(&text).map_err(|error| format!("{} is no plan: {error}", file.display()).into())
}

fn write(file: &Path, plan: &Plan) -> Result<(), Box<dyn Error>> {
    let failed = |error| format!("{} cannot be written: {error}", file.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(file, plan.to_json()).map_err(failed)?;
    Ok(())
}

/// How a shell says that a process was ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Turns true at the first Ctrl-C: what has begun is ended, and told. The second ends it all.
fn stop_on_request() -> Result<Arc<AtomicBool>, Box<dyn Error>> {
    let runtime = runtime()?;
    let mut stop = runtime.block_on(async { Stop::listen() })?;
    let stopped = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stopped);
    std::thread::spawn(move || {
        runtime.block_on(async {
            stop.requested().await;
            told.store(true, Ordering::Relaxed);
            eprintln!("\nEnding the worlds that have begun ...");
            stop.requested().await;
            std::process::exit(INTERRUPTED.into());
        });
    });
    Ok(stopped)
}

/// How far it has come; only for a terminal.
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
                "{:.1} a second, {:.0} times real time",
                so_far.worlds_per_second(),
                so_far.times_real_time()
            );
            if !so_far.failures.is_empty() {
                message += &format!(", {} wrong", so_far.failures.len());
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
