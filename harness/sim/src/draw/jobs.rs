//! Requests to the simulator's own handlers.

use fastrand::Rng;
use serde_json::{Value, json};

use super::super::job::{BRITTLE, GUARDED, Job, JobEnd, JobStep, ONCE, WORK, Wild, ballast};
use super::random::{happens, ms_of_any_order, of_any_order, one_of};
use super::span::Span;

/// What a client requests.
#[derive(Clone, Debug)]
pub(super) struct DrawnRequest {
    pub(super) action: String,
    pub(super) payload: Value,
}

/// What the jobs of one world are like: how likely each trait is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jobs {
    quick: f64,
    long: f64,
    failing: f64,
    wild: f64,
    big: f64,
    deaf: f64,
    in_haste: f64,
    wrong: f64,
    span: Span,
}

impl Jobs {
    pub(super) fn draw(rng: &mut Rng, span: Span) -> Self {
        // Of each trait many worlds have nothing, and some have much.
        let mut some = |most: f64| if happens(rng, 0.5) { of_any_order(rng, most / 10.0, most) } else { 0.0 };
        Self {
            quick: some(0.6),
            long: some(0.4),
            failing: some(0.8),
            wild: some(0.5),
            big: some(0.5),
            deaf: some(0.5),
            in_haste: some(0.3),
            wrong: some(0.2),
            span,
        }
    }

    pub(super) fn request(&self, rng: &mut Rng) -> DrawnRequest {
        if happens(rng, self.wrong) {
            return wrong(rng);
        }
        let action = match rng.u32(0..10) {
            0 => ONCE,
            1 => BRITTLE,
            2 => GUARDED,
            _ => WORK,
        };
        DrawnRequest { action: action.to_owned(), payload: json!(self.job(rng)) }
    }

    fn job(&self, rng: &mut Rng) -> Job {
        let mut job = if happens(rng, self.quick) {
            quick(rng)
        } else if happens(rng, self.long) {
            if self.span != Span::Minutes && happens(rng, 0.3) { endless(rng) } else { long(rng) }
        } else {
            short(rng)
        };
        job.is_deaf = happens(rng, self.deaf);
        if happens(rng, self.failing) {
            job.end = failing(rng);
        }
        if happens(rng, self.wild) {
            self.go_wild(rng, &mut job);
        }
        if happens(rng, self.big) {
            grow(rng, &mut job);
        }
        if happens(rng, self.in_haste) {
            job.timeout_ms = ms_of_any_order(rng, 200, 20_000);
        }
        job
    }

    fn go_wild(self, rng: &mut Rng, job: &mut Job) {
        let at = rng.usize(..=job.steps.len());
        let wild = match rng.u32(0..4) {
            0 => JobStep::Flood(rng.u32(20..400)),
            1 => JobStep::Note,
            _ => JobStep::Wild(one_of(
                rng,
                &[
                    Wild::NotANumber,
                    Wild::Infinite,
                    Wild::Below,
                    Wild::Above,
                    Wild::LongMessage,
                    Wild::FatMetadata,
                    Wild::FatCheckpoint,
                ],
            )),
        };
        job.steps.insert(at, wild);
        // It hangs, and is not to be talked to: only a limit of its own ends it within a bounded time.
        if happens(rng, 0.1) {
            job.steps.push(JobStep::Wait(3_600_000));
            job.timeout_ms = ms_of_any_order(rng, 1_000, 30_000);
        }
    }
}

/// What is answered at once, unless everything is queued here.
fn quick(rng: &mut Rng) -> Job {
    // Now and then it takes as long as nobody waits.
    let most = if happens(rng, 0.05) { 40_000 } else { 1_500 };
    Job {
        estimate_ms: rng.u64(0..=5_000),
        steps: vec![JobStep::Wait(ms_of_any_order(rng, 1, most))],
        ..Job::default()
    }
}

/// What the processor runs.
fn short(rng: &mut Rng) -> Job {
    let steps = steps(rng, 6, (10, 6_000), 0.1);
    // Most know about how long they take; some have no idea.
    let takes = if happens(rng, 0.9) { 0 } else { 45_000 };
    Job { estimate_ms: rng.u64(5_001..=30_000) + takes, steps, ..Job::default() }
}

/// What is for the worker.
fn long(rng: &mut Rng) -> Job {
    let steps = steps(rng, 10, (1_000, 60_000), 0.3);
    Job { estimate_ms: rng.u64(30_001..=600_000), steps, ..Job::default() }
}

/// What takes more than one invocation.
fn endless(rng: &mut Rng) -> Job {
    let mut steps = Vec::new();
    for _ in 0..rng.usize(8..24) {
        steps.extend([JobStep::Wait(rng.u64(30_000..180_000)), JobStep::Checkpoint]);
        if rng.bool() {
            steps.push(JobStep::Report(f64::from(rng.u32(0..=100))));
        }
    }
    steps.truncate(Job::MAX_STEPS);
    Job { estimate_ms: 1_800_000, steps, ..Job::default() }
}

fn steps(rng: &mut Rng, most: usize, takes: (u32, u32), checkpoints: f64) -> Vec<JobStep> {
    let mut steps = Vec::new();
    for _ in 0..rng.usize(..most) {
        steps.push(JobStep::Wait(ms_of_any_order(rng, takes.0, takes.1)));
        if happens(rng, 0.6) {
            // They need not rise: what goes back is raised to what was.
            steps.push(JobStep::Report(f64::from(rng.u32(0..=10_000)) / 100.0));
        }
        if happens(rng, checkpoints) {
            steps.push(JobStep::Checkpoint);
        }
    }
    steps
}

fn failing(rng: &mut Rng) -> JobEnd {
    // There are four attempts at most: some need the last of them, and some one more.
    let until = rng.u32(2..=5);
    match rng.u32(0..7) {
        0 => JobEnd::FailUntil(until),
        1 => JobEnd::BreakUntil(until),
        2 => JobEnd::RetryAfter { until, wait_ms: ms_of_any_order(rng, 100, 60_000) },
        3 => JobEnd::PanicUntil(until),
        4 => JobEnd::GoOnUntil(rng.u32(1..=4)),
        5 => JobEnd::FailWith(rng.usize(1..2_000)),
        _ => JobEnd::Fail,
    }
}

/// Makes some part of it so large that it lies beside its item, or is too large altogether.
fn grow(rng: &mut Rng, job: &mut Job) {
    match rng.u32(0..4) {
        // The gateway takes frames of 32 KiB.
        0 => job.ballast = ballast(rng.usize(900..30_000)),
        1 => job.steps.push(JobStep::BigCheckpoint(rng.usize(900..60_000))),
        2 => job.end = JobEnd::FailWith(one_of(rng, &[1_000, 20_000, 135_000])),
        _ => job.end = JobEnd::SucceedWith(one_of(rng, &[900, 5_000, 60_000, 130_000, 140_000, 420_000])),
    }
}

/// What no handler takes.
fn wrong(rng: &mut Rng) -> DrawnRequest {
    let wrong: [(&str, Value); 6] = [
        ("nobody", json!({})),
        (WORK, json!({"estimate_ms": "soon"})),
        (WORK, json!({"end": {"succeed_with": -1}})),
        (WORK, Value::Null),
        (WORK, json!({"steps": vec![json!({"wait": 0}); Job::MAX_STEPS + 1]})),
        (WORK, json!({"unheard": "of"})),
    ];
    let (action, payload) = wrong[rng.usize(..wrong.len())].clone();
    DrawnRequest { action: action.to_owned(), payload }
}
