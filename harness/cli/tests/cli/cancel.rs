//! `streamer cancel` over HTTP, against the harness's own DynamoDB.

use std::time::Duration;

use streamer::ports::{Clock as _, SystemClock};
use streamer::store::{
    ClaimRequests as _, Claimed, LastReport, ReadRequests as _, RunRequests as _, Runner, Status,
};

use crate::dlq::Services;
use crate::workspace::told;

fn cancel(services: &Services, arguments: &[&str]) -> String {
    let arguments = [&["cancel", "--endpoint", &services.url], arguments].concat();
    told(&services.workspace.command_without_aws(&arguments).output().unwrap())
}

#[tokio::test]
async fn cancel_command_reports_the_outcome_for_each_request_status() {
    let services = Services::new();
    let now = SystemClock.now();
    let (mut running, mut ended) = (None, None);
    for id in ["waiting", "running", "ended"] {
        let key = services.queued(id).await.key();
        if id != "waiting" {
            let end = now + Duration::from_secs(60);
            let claimed = services.requests.claim(&key, "owner", Runner::Worker, now, end).await.unwrap();
            let Claimed::Won(_, lease) = claimed else { panic!("{claimed:?}") };
            *(if id == "running" { &mut running } else { &mut ended }) = Some((key, lease));
        }
    }
    let (running, (key, lease)) = (running.unwrap().0, ended.unwrap());
    let last = LastReport { at: now, ..LastReport::default() };
    services.requests.complete(&key, &lease, &true.into(), &last).await.unwrap();

    let of_ann = ["--user", "ann", "--tenant", "acme"];
    let mut said = Vec::new();
    for id in ["waiting", "waiting", "running", "ended", "unknown"] {
        said.push(cancel(&services, &[&of_ann[..], &[id]].concat()));
    }
    said.push(cancel(&services, &["--user", "bob", "--tenant", "acme", "running"]));
    insta::assert_snapshot!(said.join("\n"));
    let running = services.requests.get(&running).await.unwrap().unwrap();
    assert!(running.cancel_requested && running.status == Status::Processing);
}
