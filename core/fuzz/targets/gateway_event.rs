//! Fuzzes the functions `connect`, `disconnect` and `router` with events of API Gateway. Each function must return a
//! valid response to every event.

#![no_main]

use std::cell::LazyCell;
use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use libfuzzer_sys::fuzz_target;
use streamer::protocol::{Frame, MAX_FRAME_BYTES};
use streamer_fuzz::{Functions, NOW};

thread_local! {
    static FUNCTIONS: LazyCell<Functions> = const { LazyCell::new(Functions::new) };
}

fuzz_target!(|event: &[u8]| {
    let Ok(event) = serde_json::from_slice::<ApiGatewayWebsocketProxyRequest>(event) else { return };
    FUNCTIONS.with(|functions| {
        let deadline = NOW + Duration::from_secs(10);
        functions.runtime.block_on(async {
            let connected = functions.connect.answer(&event, deadline).await;
            assert!(
                [200, 401, 500].contains(&connected.status_code),
                "connect responds with 200, 401 or 500: {connected:?}"
            );
            let disconnected = functions.disconnect.answer(&event, deadline).await;
            assert_eq!(disconnected.status_code, 200);
            let frame = functions.router.route(&event).await;
            assert!(
                frame.len() <= MAX_FRAME_BYTES,
                "response frame has at most MAX_FRAME_BYTES bytes, found {}",
                frame.len()
            );
            serde_json::from_str::<Frame>(&frame).expect("the router's response is a frame");
        });
    });
});
