//! Tests of requests that run longer than one invocation and longer than one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError};
use streamer::protocol::{Frame, Seq};
use streamer_harness::client::{Client, ClientError};
use streamer_harness::stage::Stage;

use crate::ann;

/// A handler that scans one page per minute and saves a checkpoint after each page. It counts pages and runs.
#[derive(Clone, Debug, Default)]
struct Scan(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    pages: AtomicU32,
    runs: AtomicU32,
}

impl Handler for Scan {
    type Input = u32;
    type Output = u32;

    fn estimated_duration(&self, pages: &u32) -> Duration {
        Duration::from_mins(1) * *pages
    }

    async fn process(&self, pages: u32, context: Context) -> Result<u32, HandlerError> {
        self.0.runs.fetch_add(1, Ordering::Relaxed);
        let mut done: u32 = context.checkpoint()?.unwrap_or_default();
        while done < pages {
            if context.progress.remaining() < Duration::from_mins(2) {
                return Err(HandlerError::continue_later());
            }
            tokio::time::sleep(Duration::from_mins(1)).await;
            self.0.pages.fetch_add(1, Ordering::Relaxed);
            done += 1;
            context.progress.report(f64::from(done) / f64::from(pages) * 100.0, format!("Page {done}"))?;
            context.progress.checkpoint(done).await?;
        }
        Ok(done)
    }
}

/// The frames that a client received until its request was terminal, and the client's number of reconnects.
#[derive(Debug)]
struct Followed {
    frames: Vec<Frame>,
    reconnects: u32,
}

/// Receives the frames of a request as a real client does. If the connection closes, reconnects after five
/// minutes, and resumes after the last received frame.
async fn follow(stage: &Stage, mut client: Client, id: &str) -> Followed {
    let mut followed = Followed { frames: Vec::new(), reconnects: 0 };
    loop {
        match client.next_frame().await {
            Ok(frame) if frame.request_id().is_some_and(|about| about.as_str() == id) => {
                let is_last = frame.is_terminal();
                followed.frames.push(frame);
                if is_last {
                    return followed;
                }
            }
            Ok(Frame::Response { success: true, .. }) => {}
            Err(ClientError::Closed { .. }) => {
                followed.reconnects += 1;
                stage.advance(Duration::from_mins(5)).await;
                client = stage.connect(&ann()).await.unwrap();
                let seen = followed.frames.iter().rev().find_map(seq).unwrap_or_default();
                let subscribe_id = format!("subscribe-{}", followed.reconnects);
                client
                    .request("subscribe", &subscribe_id, json!({"request_id": id, "seq": seen}))
                    .await
                    .unwrap();
            }
            other => panic!("{other:?} after {:?}", followed.frames.last()),
        }
    }
}

fn seq(frame: &Frame) -> Option<Seq> {
    match frame {
        Frame::Progress { seq, .. } | Frame::Complete { seq, .. } => Some(*seq),
        Frame::Error { seq, .. } => *seq,
        Frame::Response { .. } | Frame::Acknowledgment { .. } => None,
    }
}

/// Runs a scan of `pages` pages to its end. Returns the frames that the client received, the handler's
/// counts, and the request's item.
async fn scan(pages: u32) -> (Followed, Scan, Value) {
    let (mut app, scan) = (App::new(), Scan::default());
    app.handle("scan", scan.clone()).unwrap();
    // The sweeper has no work in these tests, so it queries rarely: thousands of queries would slow the tests
    // down.
    let stage = Stage::builder().app(app).variable("SWEEPER_PACE_MS", "60000").start().await.unwrap();
    let mut ann = stage.connect(&ann()).await.unwrap();
    let asked = stage.now();
    ann.request("scan", "r1", json!(pages)).await.unwrap();
    let followed = follow(&stage, ann, "r1").await;
    let took = stage.now().since(asked);
    let work = Duration::from_mins(1) * pages;
    assert!(took >= work && took < work + work / 10 + Duration::from_mins(6), "{took:?}");
    let items = stage.items("RequestsTable").await.unwrap();
    assert_eq!(items.len(), 1, "{items:?}");
    assert!(stage.queues().messages("streamer-DeadLetterQueue").unwrap().is_empty());

    // The request enters the stream as PENDING once per run: each continuation goes through the table and its
    // stream, because Lambda stops a function that invokes itself.
    let (streams, mut pending) = (stage.dynamodb().streams(), 0);
    let arn = streams.latest_stream_arn("streamer-RequestsTable").unwrap();
    for shard in streams.shards(&arn).unwrap() {
        for record in streams.read(&arn, &shard, None, 10_000).unwrap() {
            let record = record.to_event_record();
            pending += u32::from(record["dynamodb"]["NewImage"]["status"]["S"] == "PENDING");
        }
    }
    assert_eq!(pending, scan.0.runs.load(Ordering::Relaxed));
    stage.shutdown().await;
    (followed, scan, items.into_iter().next().unwrap())
}

fn assert_whole(followed: &Followed, pages: u32) {
    let Some(Frame::Complete { result, .. }) = followed.frames.last() else { panic!("{followed:?}") };
    assert_eq!(*result, json!(pages));
    let seqs: Vec<Seq> = followed.frames.iter().filter_map(seq).collect();
    assert!(seqs.is_sorted_by(|earlier, later| earlier < later), "{seqs:?}");
    let percentages = followed.frames.iter().filter_map(|frame| match frame {
        Frame::Progress { percentage, .. } => Some(*percentage),
        Frame::Response { .. }
        | Frame::Acknowledgment { .. }
        | Frame::Complete { .. }
        | Frame::Error { .. } => None,
    });
    assert!(percentages.is_sorted(), "progress percentage never decreases");
}

#[tokio::test(start_paused = true)]
async fn request_of_three_hours_completes_with_one_reconnect() {
    let (followed, scan, item) = scan(180).await;
    assert_whole(&followed, 180);
    assert_eq!(followed.reconnects, 1, "the connection closes once, after two hours");
    assert_eq!(scan.0.pages.load(Ordering::Relaxed), 180, "each page is scanned exactly once");
    assert_eq!((&item["status"], &item["attempt"]), (&json!("COMPLETED"), &json!(1)));
}

/// Frames sent to a client reset the gateway's idle timer, so a client that only listens stays connected.
#[tokio::test(start_paused = true)]
async fn request_of_five_hours_completes_in_twenty_invocations_with_two_reconnects() {
    let (followed, scan, item) = scan(300).await;
    assert_whole(&followed, 300);
    assert_eq!(followed.reconnects, 2);
    let (pages, runs) = (scan.0.pages.load(Ordering::Relaxed), scan.0.runs.load(Ordering::Relaxed));
    assert_eq!(pages, 300, "each page is scanned exactly once");
    assert!(runs >= 20, "five hours take at least 20 invocations, not {runs}");
    assert_eq!((&item["attempt"], &item["continuations"]), (&json!(1), &json!(runs - 1)));
}
