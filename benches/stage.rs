//! Benchmark of the in-process stage: the time to start the stage, and the time from a client's quick request
//! to its response. The stage and the client share one thread, so the measured time is CPU time.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::HandlerError;
use streamer_harness::client::Client;
use streamer_harness::gateway::{Limits, Throttle};
use streamer_harness::signing_key::TokenFor;
use streamer_harness::stage::Stage;
use tokio::runtime::{Builder, Runtime};

criterion_group!(benches, in_process);
criterion_main!(benches);

async fn echo(message: Value) -> Result<Value, HandlerError> {
    Ok(message)
}

async fn stage() -> Stage {
    let mut app = App::new();
    app.handle("echo", echo).expect("the action echo is registered once");
    // The bench sends more requests per second than the gateway's default throttle allows. A throttled request
    // would be refused cheaply, and would distort the result.
    let mut limits = Limits::default();
    limits.requests = Throttle::per_second(1e6, 1_000_000);
    Stage::builder().app(app).limits(limits).start().await.expect("the stage starts")
}

async fn ask(client: &mut Client) -> Value {
    client.request("echo", "r1", json!({"message": "hi"})).await.expect("the request is sent");
    let answer = client.next_text().await.expect("a response arrives");
    serde_json::from_str(&answer).expect("the response is JSON")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("tokio starts a runtime")
}

fn in_process(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stage");
    let starting = runtime();
    group.bench_function("start", |bencher| {
        bencher.iter_batched(|| (), |()| starting.block_on(stage()), BatchSize::PerIteration);
    });
    let running = runtime();
    let (stage, mut client) = running.block_on(async {
        let stage = stage().await;
        let client = stage.connect(&TokenFor::new("ann", "acme")).await.expect("the client connects");
        (stage, client)
    });
    let answer = running.block_on(ask(&mut client));
    assert_eq!(answer["data"], json!({"message": "hi"}), "{answer}");
    group.bench_function("echo", |bencher| {
        bencher.iter(|| {
            let answer = running.block_on(ask(&mut client));
            assert_eq!(answer["success"], true, "{answer}");
        });
    });
    running.block_on(stage.shutdown());
    group.finish();
}
