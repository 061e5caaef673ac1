//! One-time initialization of the process and of each thread, which must not happen within a world.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::job::WORK;
use super::plan::{Act, ClientPlan, Plan, StagePlan, Step};
use streamer_harness::stage::StageError;

thread_local! {
    /// True if the one-time initialization of this thread is done.
    static IS_WARM: Cell<bool> = const { Cell::new(false) };
}

/// Runs a small plan with `run`, unless this thread has done so before. The run triggers all one-time
/// initialization of the process and the thread, such as the AWS SDK's defaults. Part of that initialization
/// draws from the thread's random generator, which would make the first world differ from later ones.
pub(super) fn warm_up(run: impl FnOnce(&Plan) -> Result<(), StageError>) -> Result<(), StageError> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    if IS_WARM.get() {
        return Ok(());
    }
    warm(&ONE_AT_A_TIME, run)?;
    IS_WARM.set(true);
    Ok(())
}

fn warm(
    one_at_a_time: &Mutex<()>,
    run: impl FnOnce(&Plan) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let _turn = one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
    let request = |id: &str, estimate_ms: u64| {
        let payload = json!({ "estimate_ms": estimate_ms });
        Step { at_ms: 1, act: Act::Request { id: id.to_owned(), action: WORK.to_owned(), payload } }
    };
    let steps = vec![
        Step { at_ms: 0, act: Act::Connect },
        request("quick", 0),
        request("short", 10_000),
        request("long", 60_000),
    ];
    let (user, tenant) = ("ann".to_owned(), "acme".to_owned());
    let client =
        ClientPlan { user, tenant, permissions: Vec::new(), token_ttl_ms: 0, gives_up: false, steps };
    let stage = StagePlan::default();
    let plan = Plan { seed: 0, faults_until_ms: 2_000, stage, clients: vec![client], faults: Vec::new() };
    run(&plan)
}
