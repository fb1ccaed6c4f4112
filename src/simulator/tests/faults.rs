//! Faults as a client meets them.

use std::time::Duration;

use serde_json::json;

use super::client::{Client, exchange};
use super::{BUCKET, BUCKET_HOST, error_code, instant};
use crate::simulator::{Effect, ExportFailure, Fault, Simulator};

fn fault(call: &str, effect: Effect) -> Vec<Fault> {
    vec![Fault::new(call, effect).with_occurrence(1)]
}

#[tokio::test]
async fn a_call_can_be_processed_and_its_answer_lost() {
    let simulator = instant().await;
    let client = Client::new(&simulator);
    simulator.set_faults(fault("ExportImages", Effect::ProcessedThenReset));
    let body = json!({"BucketName": BUCKET, "ImageIds": ["img-linux001"]});
    let request = client.api_request("cvm", "ExportImages", "2017-03-12", &body);
    let reply = client.send(&request).await;
    assert!(reply.is_reset && reply.head.is_empty(), "{reply:?}");
    assert_eq!(simulator.change(|world| world.started_tasks().len()), 1);
    let call = simulator.calls().pop().expect("the call");
    assert_eq!((call.status, call.processed), (0, true));

    simulator.set_faults(fault("ExportImages", Effect::ResetBefore));
    assert!(client.send(&request).await.is_reset);
    assert_eq!(simulator.change(|world| world.started_tasks().len()), 1);
    assert_eq!(simulator.calls().len(), 2);
}

#[tokio::test]
async fn bodies_break_as_their_faults_say() {
    let simulator = instant().await;
    simulator.change(|world| world.put_object(BUCKET, "k", vec![5; 1000]));
    let client = Client::new(&simulator);
    let get = async |effect| {
        simulator.set_faults(fault("GetObject", effect));
        client
            .cos("GET", "/k", &[("range", "bytes=100-299")], b"")
            .await
    };
    let reply = get(Effect::TruncatedBody { after_bytes: 50 }).await;
    assert_eq!((reply.body.len(), reply.is_broken), (50, true));
    assert_eq!(reply.header("content-length"), Some("200"));
    let reply = get(Effect::ShortBodyAgreeing { bytes: 50 }).await;
    assert_eq!((reply.body.len(), reply.is_broken), (50, false));
    let reply = get(Effect::FlippedByte { at: 10 }).await;
    assert_eq!(
        (reply.body[9], reply.body[10], reply.body.len()),
        (5, 4, 200)
    );
    let reply = get(Effect::WholeForRange).await;
    assert_eq!((reply.status, reply.body.len()), (200, 1000));
    let reply = get(Effect::WrongContentRange).await;
    assert_eq!(reply.header("content-range"), Some("bytes 101-299/1000"));
    let reply = get(Effect::SlowBody {
        bytes_per_second: 100_000,
    })
    .await;
    assert_eq!((reply.body.len(), reply.is_broken), (200, false));
    let etag = client.get("/k").await.header("etag").map(str::to_owned);
    let reply = get(Effect::ChangedObject).await;
    assert_ne!(reply.header("etag").map(str::to_owned), etag);
    assert_eq!(reply.body[0], !5);
    let status = Effect::CosError {
        status: 503,
        code: "SlowDown".to_owned(),
    };
    let reply = get(status).await;
    assert_eq!(
        (reply.status, reply.element("Code").as_deref()),
        (503, Some("SlowDown"))
    );
    let reply = get(Effect::Status { status: 502 }).await;
    assert!(reply.text().starts_with("<html>"), "{reply:?}");
    let reply = get(Effect::ExpiredToken).await;
    assert_eq!(reply.element("Code").as_deref(), Some("ExpiredToken"));
    let reply = get(Effect::ClockOffset { seconds: -1200 }).await;
    assert_eq!(
        reply.element("Code").as_deref(),
        Some("RequestTimeTooSkewed")
    );
    simulator.set_faults(fault("GetObject", Effect::StalledBody { after_bytes: 10 }));
    let request = client.cos_request("GET", BUCKET_HOST, "/k", &[], b"");
    let stalled = exchange(simulator.address(), &request);
    let waited = tokio::time::timeout(Duration::from_millis(200), stalled).await;
    assert!(waited.is_err(), "{waited:?}");
}

#[tokio::test]
async fn headers_can_be_missing() {
    let simulator = instant().await;
    simulator.change(|world| world.put_object(BUCKET, "k", vec![5; 1000]));
    let client = Client::new(&simulator);
    for name in ["Date", "ETag", "Content-Length"] {
        let name = name.to_owned();
        let effect = Effect::MissingField { name: name.clone() };
        simulator.set_faults(fault("HeadObject", effect));
        let reply = client.cos("HEAD", "/k", &[], b"").await;
        assert_eq!((reply.status, reply.header(&name)), (200, None));
        let reply = client.cos("HEAD", "/k", &[], b"").await;
        assert!(reply.header(&name).is_some(), "{reply:?}");
    }
}

#[tokio::test]
async fn a_vanishing_export_leaves_nothing() {
    let simulator = instant().await;
    simulator.change(|world| {
        world.export_failure = Some(ExportFailure { at_fraction: 0.5 });
    });
    let client = Client::new(&simulator);
    assert_eq!(error_code(&client.export(json!({})).await), "");
    assert!(simulator.change(|world| world.keys(BUCKET)).is_empty());
    assert_eq!(client.get("/?uploads").await.element("Upload"), None);
}

fn held(name: &str) -> Effect {
    let name = name.to_owned();
    Effect::Hold { name }
}

fn held_after(name: &str) -> Effect {
    let name = name.to_owned();
    Effect::HoldAfter { name }
}

/// Sends a PUT of `key` on a task of its own; its status.
fn put(simulator: &Simulator, key: &str) -> tokio::task::JoinHandle<u16> {
    let client = Client::new(simulator);
    let request = client.cos_request("PUT", BUCKET_HOST, &format!("/{key}"), &[], b"x");
    let address = simulator.address();
    tokio::spawn(async move { exchange(address, &request).await.status })
}

#[tokio::test]
async fn a_held_call_is_processed_when_it_is_released() {
    let simulator = instant().await;
    let hold = Fault::new("PutObject", held("a")).with_key("p_*.lease-*");
    simulator.set_faults(vec![hold.clone()]);
    assert_eq!(simulator.unmet_faults(), [hold]);
    assert_eq!(put(&simulator, "p_1.record").await.expect("an end"), 200);
    let held = put(&simulator, "p_1.lease-1");
    let call = simulator.wait_held("a").await;
    assert_eq!(call.key.as_deref(), Some("p_1.lease-1"));
    assert_eq!(
        (call.operation.as_str(), call.processed),
        ("PutObject", false)
    );
    let keys = || simulator.change(|world| world.keys(BUCKET));
    assert_eq!(keys(), ["p_1.record"]);
    assert_eq!(simulator.release("b"), 0);
    assert_eq!(simulator.held(), [call]);
    assert_eq!(simulator.release("a"), 1);
    assert_eq!(held.await.expect("an end"), 200);
    assert_eq!(keys(), ["p_1.lease-1", "p_1.record"]);
    assert_eq!(
        (simulator.held(), simulator.unmet_faults()),
        (vec![], vec![])
    );
    // What is released stays so, until the faults are set again.
    assert_eq!(put(&simulator, "p_2.lease-1").await.expect("an end"), 200);
}

#[tokio::test]
async fn a_held_answer_waits_while_what_was_asked_for_is_done() {
    let simulator = instant().await;
    let hold = |occurrence| Fault::new("PutObject", held_after("a")).with_occurrence(occurrence);
    simulator.set_faults(vec![hold(1), hold(3)]);
    let keys = || simulator.change(|world| world.keys(BUCKET).len());
    let first = put(&simulator, "k1");
    assert!(simulator.wait_held("a").await.processed);
    assert_eq!((keys(), simulator.calls().len()), (1, 1));
    assert_eq!(simulator.release("a"), 1);
    assert_eq!(first.await.expect("an end"), 200);
    assert_eq!(put(&simulator, "k2").await.expect("an end"), 200);
    // The release was about the first call, not about the third.
    let third = put(&simulator, "k3");
    simulator.wait_held("a").await;
    // Other faults do not answer the call that waits for these.
    simulator.set_faults(Vec::new());
    assert_eq!((keys(), simulator.held().len()), (3, 1));
    assert_eq!(simulator.release("a"), 1);
    assert_eq!(third.await.expect("an end"), 200);
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_hold() {
    let simulator = instant().await;
    for (effect, is_processed) in [(held("a"), false), (held_after("a"), true)] {
        simulator.clear_calls();
        simulator.set_faults(vec![Fault::new("PutObject", effect)]);
        let client = put(&simulator, "k");
        simulator.wait_held("a").await;
        client.abort();
        while !simulator.held().is_empty() || simulator.calls().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let is_there = !simulator.change(|world| world.keys(BUCKET)).is_empty();
        assert_eq!(is_there, is_processed);
        let processed: Vec<bool> = simulator
            .calls()
            .iter()
            .map(|call| call.processed)
            .collect();
        assert_eq!(processed, [is_processed]);
    }
}

#[tokio::test]
async fn a_simulator_that_ends_holds_nobody() {
    let simulator = instant().await;
    simulator.set_faults(vec![Fault::new("*", held("a"))]);
    let client = put(&simulator, "k");
    simulator.wait_held("a").await;
    drop(simulator);
    assert_eq!(client.await.expect("an end"), 0);
}
