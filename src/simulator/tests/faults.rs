//! Faults as a client meets them.

use std::time::Duration;

use serde_json::json;

use super::client::{Client, exchange};
use super::{BUCKET, BUCKET_HOST, error_code, instant};
use crate::simulator::{Effect, ExportFailure, Fault};

fn fault(call: &str, effect: Effect) -> Vec<Fault> {
    vec![Fault {
        call: call.to_owned(),
        occurrence: Some(1),
        effect,
    }]
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
