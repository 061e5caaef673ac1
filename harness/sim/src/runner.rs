//! Many worlds, a thread for each core.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::check::Violation;
use super::report::Report;
use super::simulator::Sim;
use super::tally::Tally;

/// The embedded database parses expressions by recursion, and so do debug builds' futures poll each other.
const STACK_BYTES: usize = 16 * 1024 * 1024;
/// How often is asked whether to go on, where no world ends for long.
const TURN: Duration = Duration::from_millis(100);

/// What is kept of a world.
pub(super) struct Ended {
    pub(super) seed: u64,
    pub(super) violations: Vec<Violation>,
    pub(super) lasted: Duration,
    pub(super) tally: Tally,
}

/// The machine's time: a report says how fast worlds are.
#[expect(clippy::disallowed_methods, reason = "this is about worlds, and in none of them")]
pub(super) fn real_time() -> Instant {
    Instant::now()
}

pub(super) fn run(sim: &Sim, mut go_on: impl FnMut(&Report) -> bool) -> Report {
    let begun = real_time();
    let mut report = Report::new(sim.seeds.clone());
    let (next, stopped) = (AtomicU64::new(sim.seeds.start), AtomicBool::new(false));
    let work = |told: mpsc::Sender<Ended>| {
        while !stopped.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !sim.seeds.contains(&seed) {
                break;
            }
            let world = sim.run_seed(seed);
            let ended =
                Ended { seed, lasted: world.lasted, tally: world.tally(), violations: world.violations };
            if told.send(ended).is_err() {
                break;
            }
        }
    };
    thread::scope(|scope| {
        let (told, ended) = mpsc::channel();
        for number in 0..sim.threads {
            let thread = thread::Builder::new().name(format!("worlds {number}")).stack_size(STACK_BYTES);
            let told = told.clone();
            thread.spawn_scoped(scope, || work(told)).expect("the machine has room for another thread");
        }
        drop(told);
        loop {
            match ended.recv_timeout(TURN) {
                Ok(ended) => report.add(ended),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            report.took = begun.elapsed();
            if !go_on(&report) {
                stopped.store(true, Ordering::Relaxed);
            }
        }
    });
    report
}

/// Threads that each do one thing at a time, for as long as they are needed: what a thread makes once, it makes once.
pub(super) struct Crew<T, R>(Vec<(mpsc::Sender<T>, mpsc::Receiver<R>)>);

/// Has a crew of so many threads do `work`, for as long as `lead` lasts.
pub(super) fn with_crew<T: Send, R: Send, O>(
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
    lead: impl FnOnce(&Crew<T, R>) -> O,
) -> O {
    let work = &work;
    thread::scope(|scope| {
        let hands = (0..threads.max(1)).map(|number| {
            let (give, given) = mpsc::channel::<T>();
            let (tell, told) = mpsc::channel();
            let thread = thread::Builder::new().name(format!("crew {number}")).stack_size(STACK_BYTES);
            let work_off = move || {
                for item in given {
                    if tell.send(work(&item)).is_err() {
                        break;
                    }
                }
            };
            thread.spawn_scoped(scope, work_off).expect("the machine has room for another thread");
            (give, told)
        });
        lead(&Crew(hands.collect()))
    })
}

impl<T: Clone, R> Crew<T, R> {
    /// How many things are done at once.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Does the work for each item, of which there are no more than [hands](Self::len).
    pub(super) fn do_all(&self, items: &[T]) -> Vec<R> {
        for ((give, _), item) in self.0.iter().zip(items) {
            // A thread that has ended shows below.
            let _ = give.send(item.clone());
        }
        let done = self.0.iter().take(items.len());
        done.map(|(_, told)| told.recv().expect("a world's panics are caught")).collect()
    }
}
