//! Draws requests to the simulator's own handlers.

use fastrand::Rng;
use serde_json::{Value, json};

use super::super::job::{BRITTLE, GUARDED, Job, JobEnd, JobStep, ONCE, WORK, Wild, ballast};
use super::random::{happens, ms_of_any_order, of_any_order, one_of};
use super::span::Span;

/// Action and payload of a drawn request.
#[derive(Clone, Debug)]
pub(super) struct DrawnRequest {
    pub(super) action: String,
    pub(super) payload: Value,
}

/// Traits of the jobs of one world; the value of a trait is its probability.
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
        // In half of the worlds, no job has a given trait. In some worlds, many jobs have it.
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
        // An hour's wait looks like a handler that hangs. The job gets a timeout, so that it still ends in
        // bounded time.
        if happens(rng, 0.1) {
            job.steps.push(JobStep::Wait(3_600_000));
            job.timeout_ms = ms_of_any_order(rng, 1_000, 30_000);
        }
    }
}

/// Draws a job that the router answers directly, unless the world queues every request.
fn quick(rng: &mut Rng) -> Job {
    // Some jobs may take longer than the gateway waits for an answer.
    let most = if happens(rng, 0.05) { 40_000 } else { 1_500 };
    Job {
        estimate_ms: rng.u64(0..=5_000),
        steps: vec![JobStep::Wait(ms_of_any_order(rng, 1, most))],
        ..Job::default()
    }
}

/// Draws a job that takes some seconds, which the processor usually runs.
fn short(rng: &mut Rng) -> Job {
    let steps = steps(rng, 6, (10, 6_000), 0.1);
    // Most jobs estimate their duration well; some estimate 45 s too much.
    let takes = if happens(rng, 0.9) { 0 } else { 45_000 };
    Job { estimate_ms: rng.u64(5_001..=30_000) + takes, steps, ..Job::default() }
}

/// Draws a job that takes some minutes, which the worker runs.
fn long(rng: &mut Rng) -> Job {
    let steps = steps(rng, 10, (1_000, 60_000), 0.3);
    Job { estimate_ms: rng.u64(30_001..=600_000), steps, ..Job::default() }
}

/// Draws a job that takes longer than one invocation, and saves checkpoints from which it continues.
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
            // Percentages may fall, because the progress reporter replaces a lower percentage with the
            // highest one so far.
            steps.push(JobStep::Report(f64::from(rng.u32(0..=10_000)) / 100.0));
        }
        if happens(rng, checkpoints) {
            steps.push(JobStep::Checkpoint);
        }
    }
    steps
}

fn failing(rng: &mut Rng) -> JobEnd {
    // A job has four attempts at most: some jobs need the last attempt, and some would need a fifth.
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

/// Makes the job's payload, checkpoint, error or result large. The large value needs a part item (a separate
/// item for a large value), or exceeds a limit.
fn grow(rng: &mut Rng, job: &mut Job) {
    match rng.u32(0..4) {
        // The gateway accepts frames of up to 32 KiB.
        0 => job.ballast = ballast(rng.usize(900..30_000)),
        1 => job.steps.push(JobStep::BigCheckpoint(rng.usize(900..60_000))),
        2 => job.end = JobEnd::FailWith(one_of(rng, &[1_000, 20_000, 135_000])),
        _ => job.end = JobEnd::SucceedWith(one_of(rng, &[900, 5_000, 60_000, 130_000, 140_000, 420_000])),
    }
}

/// Draws a request that no handler accepts: its action is unknown or its payload is invalid.
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
