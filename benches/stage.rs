//! The stage in process: how long it takes to start, and what a quick request costs there, from a client's message to its
//! answer. All of it runs on one thread, so that what passes is CPU time.

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
    app.handle("echo", echo).expect("no such action yet");
    // The bench asks faster than the gateway's throttle lets through, and a refusal costs next to nothing.
    let mut limits = Limits::default();
    limits.requests = Throttle::per_second(1e6, 1_000_000);
    Stage::builder().app(app).limits(limits).start().await.expect("a stage")
}

async fn ask(client: &mut Client) -> Value {
    client.request("echo", "r1", json!({"message": "hi"})).await.expect("it is sent");
    let answer = client.next_text().await.expect("an answer");
    serde_json::from_str(&answer).expect("JSON")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
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
        let client = stage.connect(&TokenFor::new("ann", "acme")).await.expect("a connection");
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
