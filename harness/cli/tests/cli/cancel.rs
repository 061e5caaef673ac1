//! Tests of `streamer cancel` over HTTP, against the harness's fake of DynamoDB.

use std::time::Duration;

use streamer::ports::{Clock as _, SystemClock};
use streamer::store::{
    ClaimRequests as _, Claimed, LastReport, ReadRequests as _, RunRequests as _, Runner, Status,
};

use crate::dlq::Services;
use crate::workspace::printed;

fn cancel(services: &Services, arguments: &[&str]) -> String {
    let arguments = [&["cancel", "--endpoint", &services.url], arguments].concat();
    printed(&services.workspace.command_without_aws(&arguments).output().unwrap())
}

#[tokio::test]
async fn cancel_command_reports_the_outcome_for_each_request_status() {
    let services = Services::new();
    let now = SystemClock.now();
    let (mut running, mut finished) = (None, None);
    for id in ["waiting", "running", "finished"] {
        let key = services.queued(id).await.key();
        if id != "waiting" {
            let lease_end = now + Duration::from_secs(60);
            let claimed =
                services.requests.claim(&key, "owner", Runner::Worker, now, lease_end).await.unwrap();
            let Claimed::Won(_, lease) = claimed else { panic!("{claimed:?}") };
            *(if id == "running" { &mut running } else { &mut finished }) = Some((key, lease));
        }
    }
    let (running, (key, lease)) = (running.unwrap().0, finished.unwrap());
    let last = LastReport { at: now, ..LastReport::default() };
    services.requests.complete(&key, &lease, &true.into(), &last).await.unwrap();

    let of_ann = ["--user", "ann", "--tenant", "acme"];
    let mut outputs = Vec::new();
    for id in ["waiting", "waiting", "running", "finished", "unknown"] {
        outputs.push(cancel(&services, &[&of_ann[..], &[id]].concat()));
    }
    outputs.push(cancel(&services, &["--user", "bob", "--tenant", "acme", "running"]));
    insta::assert_snapshot!(outputs.join("\n"));
    let running = services.requests.get(&running).await.unwrap().unwrap();
    assert!(running.cancel_requested && running.status == Status::Processing);
}
