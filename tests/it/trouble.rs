//! Trouble around the lease and the submit: COS that takes no lease, a disk that takes no record, answers that prove
//! nothing. Each ends without a second submit, and leaves nothing behind that others wait for in vain.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use cvm_export::simulator::{Effect, Fault};

use crate::support::machine::Machine;
use crate::support::{Run, TestEnv, fault, wait_until};

const LINE: &str = "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms";
const STEM: &str = "p_img-linux001";

fn cos(status: u16, code: &str) -> Effect {
    Effect::CosError {
        status,
        code: code.to_owned(),
    }
}

fn world(export_seconds: f64) -> TestEnv {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        world.export_seconds = Some(export_seconds);
        world.task_limit = 1;
    });
    env
}

fn pass_minutes(env: &TestEnv, minutes: i64) {
    env.cloud
        .change(|world| world.clock_offset_seconds += minutes * 60);
}

/// Two machines at once.
fn both(env: &TestEnv, line: &str) -> [Run; 2] {
    let machines = [Machine::new(env), Machine::new(env)];
    let running = machines.each_ref().map(|machine| machine.start(line));
    running.map(|it| it.wait())
}

#[test]
fn a_cos_that_takes_no_lease_for_the_moment_ends_the_runs_without_a_submit() {
    let effects = [
        Effect::Status { status: 503 },
        cos(503, "SlowDown"),
        cos(404, "NoSuchBucket"),
    ];
    std::thread::scope(|scope| {
        for effect in effects {
            scope.spawn(move || {
                let env = world(0.3);
                env.cloud
                    .set_faults(vec![Fault::new("PutObject", effect.clone())]);
                for run in both(&env, LINE) {
                    assert!([1, 5].contains(&run.code), "{effect:?}: {}", run.stderr);
                    run.says("COS did not take the lease")
                        .says("nothing was submitted")
                        .says("run the command again");
                }
                env.assert_submits(0);
                env.cloud.set_faults(Vec::new());
                for run in both(&env, LINE) {
                    run.ends_with(0);
                }
                env.assert_submits(1);
            });
        }
    });
}

#[test]
fn only_a_missing_right_lets_a_run_go_on_without_a_lease() {
    let env = world(0.0);
    env.cloud.change(|world| {
        world.denied.insert("PutObject".to_owned());
    });
    let run = Machine::new(&env).line(LINE).ends_with(0);
    let warnings = run.stderr.matches("may not write a lease").count();
    assert_eq!(warnings, 1, "{}", run.stderr);
    env.assert_submits(1);
}

#[test]
fn two_machines_that_export_over_an_old_one_submit_once_however_slow_a_lease_is() {
    let lease = |effect: Effect, occurrence| {
        Fault::new("PutObject", effect)
            .with_key("*.lease-raw-2.json")
            .with_occurrence(occurrence)
    };
    let several = |effect: &Effect, last| -> Vec<Fault> {
        (2..=last)
            .map(|number| lease(effect.clone(), number))
            .collect()
    };
    let slow = Effect::DelayBefore { milliseconds: 2500 };
    let look = Effect::DelayAfter { milliseconds: 2500 };
    let variants = [
        vec![lease(slow.clone(), 1)],
        vec![lease(slow, 2)],
        several(&Effect::Status { status: 503 }, 4),
        several(&cos(503, "SlowDown"), 5),
        vec![lease(Effect::StatusAfter { status: 503 }, 1)],
        vec![lease(Effect::ProcessedThenReset, 1)],
        vec![Fault::new("GetRole", look).with_occurrence(2)],
    ];
    std::thread::scope(|scope| {
        for faults in variants {
            scope.spawn(move || {
                let env = world(0.0);
                Machine::new(&env).line(LINE).ends_with(0);
                env.cloud.change(|world| world.export_seconds = Some(60.0));
                env.cloud.set_faults(faults.clone());
                let line = format!("{LINE} --if-exists overwrite --yes --no-wait");
                for run in both(&env, &line) {
                    assert_eq!(run.code, 0, "{faults:?}: {}", run.stderr);
                }
                assert_eq!(env.tasks(), 2, "{faults:?}");
                assert_eq!(env.overlapping_submits(), 0, "{faults:?}");
            });
        }
    });
}

#[test]
fn a_slow_wait_elsewhere_does_not_put_its_end_over_a_newer_export() {
    let env = world(0.0);
    let (first, second) = (Machine::new(&env), Machine::new(&env));
    first.line(&format!("{LINE} --no-wait")).ends_with(0);
    let hold = Effect::Hold {
        name: "slow".to_owned(),
    };
    env.cloud.set_faults(vec![
        Fault::new("HeadObject", hold)
            .with_key("p_*")
            .with_occurrence(1),
    ]);
    let mut slow =
        second.start("wait --bucket exports --prefix p --poll-interval 100ms --timeout 20s");
    assert!(env.is_held_before_end("slow", &mut slow));
    drop(first.line("status"));
    env.cloud.change(|world| world.export_seconds = Some(3.0));
    let over = first
        .line(&format!(
            "{LINE} --if-exists overwrite --yes --no-wait --output json"
        ))
        .ends_with(0);
    env.cloud.release("slow");
    let waited = slow.wait();
    assert!([0, 6, 7].contains(&waited.code), "{}", waited.stderr);
    let fresh = Machine::new(&env)
        .line(&format!("{LINE} --output json"))
        .ends_with(0);
    assert_eq!(fresh.json()["export_id"], over.json()["export_id"]);
    assert_eq!(env.tasks(), 2);
    let record = env
        .object_at("p_img-linux001.cvm-export.json")
        .expect("the copy");
    let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
    assert_eq!(record["export_id"], over.json()["export_id"]);
}

#[test]
fn an_owner_whose_attempt_was_given_up_does_not_take_the_next_ones_files() {
    let env = world(0.0);
    let (owner, other) = (Machine::new(&env), Machine::new(&env));
    let hold = Effect::Hold {
        name: "slow".to_owned(),
    };
    env.cloud.set_faults(vec![
        fault("ExportImages", Effect::Status { status: 502 }),
        // The first look is before the submit.
        Fault::new("HeadObject", hold)
            .with_key("p_img-linux001_system_*")
            .with_occurrence(2),
    ]);
    let mut running = owner.start(&format!("{LINE} --timeout 30s --output json"));
    assert!(env.is_held_before_end("slow", &mut running));
    pass_minutes(&env, 16);
    let resubmitted = other
        .line(&format!("{LINE} --resubmit --output json"))
        .ends_with(0);
    env.cloud.release("slow");
    let run = running.wait().ends_with(11);
    assert_ne!(run.json()["export_id"], resubmitted.json()["export_id"]);
    let states = owner.states();
    assert!(!states.contains(&"complete".to_owned()), "{states:?}");
    assert_eq!(env.lease_states(STEM), ["abandoned", "complete"]);
    assert_eq!(env.tasks(), 1);
}

/// The name of the file that is written first when the record `name` is replaced.
fn temporary_name(name: &str) -> String {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!(".{name}.{hash:08x}.new")
}

#[test]
fn a_journal_that_fails_just_before_the_submit_leaves_nothing_that_others_wait_for() {
    let env = world(0.0);
    let machine = Machine::new(&env);
    let hold = Effect::HoldAfter {
        name: "lease".to_owned(),
    };
    env.cloud.set_faults(vec![
        Fault::new("PutObject", hold)
            .with_key("*.lease-*")
            .with_occurrence(1),
    ]);
    let mut running = machine.start(LINE);
    assert!(env.is_held_before_end("lease", &mut running));
    let folder = machine.state_folder().join("exports");
    let names = std::fs::read_dir(&folder).expect("the journal");
    let names = names.map(|entry| entry.expect("an entry").file_name().into_string());
    let mut names = names.map(|name| name.expect("a name"));
    let name = names
        .find(|name| name.starts_with("exp-") && name.ends_with(".json"))
        .expect("the record");
    // Where a folder stands, no file can be written.
    let obstacle = folder.join(temporary_name(&name));
    std::fs::create_dir_all(obstacle.join("full")).expect("a folder");
    env.cloud.release("lease");
    running.wait().ends_with(9);
    env.assert_submits(0);
    assert_eq!(env.lease_states(STEM), ["withdrawn"]);
    std::fs::remove_dir_all(&obstacle).expect("removed");
    Machine::new(&env)
        .line(&format!("{LINE} --timeout 10s"))
        .ends_with(0);
    machine.line(&format!("{LINE} --timeout 10s")).ends_with(0);
    env.assert_submits(1);
}

#[test]
fn an_envelope_that_says_that_the_service_is_away_proves_nothing() {
    for code in ["ServiceUnavailable", "InternalError", "Moon.Full"] {
        let env = world(0.0);
        let machine = Machine::new(&env);
        let effect = Effect::ApiError {
            code: code.to_owned(),
        };
        env.cloud.set_faults(vec![fault("ExportImages", effect)]);
        machine
            .line(&format!("{LINE} --timeout 500ms"))
            .ends_with(11)
            .says("the answer to the submit was lost");
        assert_eq!(machine.states(), ["intended"], "{code}");
        for next in [&machine, &Machine::new(&env)] {
            next.line(&format!("{LINE} --timeout 500ms")).ends_with(11);
        }
        env.assert_submits(1);
    }
}

/// Stands between the program and the simulated cloud, and changes the answers to `ExportImages`.
fn portal(cloud: SocketAddr, change: fn(String) -> String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || drop(relay(client, cloud, change)));
        }
    });
    address
}

fn relay(
    mut client: TcpStream,
    cloud: SocketAddr,
    change: fn(String) -> String,
) -> std::io::Result<()> {
    let Some(request) = message(&mut client)? else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
    let is_head = text.starts_with("head ");
    let mut server = TcpStream::connect(cloud)?;
    let end = text.find("\r\n").unwrap_or(0) + 2;
    server.write_all(&request[..end])?;
    server.write_all(b"Connection: close\r\n")?;
    server.write_all(&request[end..])?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    if !is_head && text.contains("x-tc-action: exportimages") {
        answer = change(String::from_utf8_lossy(&answer).into_owned()).into_bytes();
    }
    client.write_all(&answer)
}

/// One request with its body; none if the connection was closed.
fn message(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some(head) = text.find("\r\n\r\n") {
            let length = text[..head]
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .and_then(|length| length.trim().parse().ok())
                .unwrap_or(0);
            if bytes.len() >= head + 4 + length {
                return Ok(Some(bytes));
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(None),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// The same answer with another body.
fn with_body(answer: &str, status: &str, body: &str) -> String {
    let date = answer
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("date:"));
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        date.unwrap_or("X-No-Date: 1"),
        body.len()
    )
}

fn through(env: &mut TestEnv, change: fn(String) -> String) {
    let address = portal(env.cloud.address(), change);
    env.set("CVM_EXPORT_ENDPOINT_URL", &format!("http://{address}"));
}

#[test]
fn an_envelope_in_a_502_is_no_refusal() {
    let mut env = world(0.3);
    through(&mut env, |answer| {
        let body = r#"{"Response":{"Error":{"Code":"InvalidParameterValue","Message":"no"},"RequestId":"r"}}"#;
        with_body(&answer, "502 Bad Gateway", body)
    });
    let run = env
        .line(LINE)
        .ends_with(0)
        .says("the answer to the submit was lost");
    assert_eq!(run.stdout.lines().count(), 1);
    env.assert_submits(1);
}

#[test]
fn an_announced_path_that_is_no_key_keeps_its_disk() {
    let mut env = world(0.3);
    through(&mut env, |answer| {
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let mut body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        body["Response"]["CosPaths"][1] = "//../no key".into();
        with_body(&answer, "200 OK", &body.to_string())
    });
    let run = env
        .line("image --id img-multi002 --bucket exports --prefix p --poll-interval 100ms --output json")
        .ends_with(0)
        .says("not an object key");
    let json = run.json();
    let files = json["files"].as_array().expect("files");
    assert_eq!(files.len(), 3, "{json}");
    assert!(
        files.iter().all(|file| file["size_bytes"].is_u64()),
        "{json}"
    );
    env.assert_submits(1);
}

#[test]
fn a_hold_keeps_what_it_is_asked_to_keep() {
    // The races rest on it: a call at a hold is not processed before its release.
    let env = world(0.0);
    let hold = Effect::Hold {
        name: "submit".to_owned(),
    };
    env.cloud.set_faults(vec![fault("ExportImages", hold)]);
    let machine = Machine::new(&env);
    let mut running = machine.start(LINE);
    assert!(env.is_held_before_end("submit", &mut running));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(env.tasks(), 0);
    env.cloud.release("submit");
    wait_until(|| "a task".to_owned(), || env.tasks() == 1);
    running.wait().ends_with(0);
}
