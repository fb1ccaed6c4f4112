//! The simulator's own doors, for tests that drive a `cvm-export simulate` from outside.
//!
//! | request | does |
//! | --- | --- |
//! | `GET /_simulator/calls` | shows the call log |
//! | `DELETE /_simulator/calls` | empties it |
//! | `PUT /_simulator/faults` | sets the faults, `{"faults": […]}` |
//! | `GET /_simulator/held` | shows the calls that a hold keeps now |
//! | `POST /_simulator/release` | lets those of one hold go on, `{"name": "…"}` |
//!
//! They answer on any `Host`, take no signature, and do not show in the call log. Whoever reaches
//! the loopback address may use them, which is why the simulator listens nowhere else.

use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::json;

use super::fault::Fault;
use super::server::Shared;
use super::wire::{Answer, Received};

const PREFIX: &str = "/_simulator/";

/// Answers a request to the simulator itself; `None` for every other.
pub(super) fn answer(shared: &Shared, peer: SocketAddr, request: &Received) -> Option<Answer> {
    let door = request.path.strip_prefix(PREFIX)?;
    if !peer.ip().is_loopback() {
        return Some(problem(
            403,
            "only loopback may use the simulator's own doors",
        ));
    }
    Some(match (request.method.as_str(), door) {
        ("GET", "calls") => document(200, &json!({"calls": shared.calls()})),
        ("DELETE", "calls") => {
            shared.clear_calls();
            Answer::empty(204)
        }
        ("PUT", "faults") => match read_faults(request) {
            Ok(faults) => {
                shared.set_faults(faults);
                Answer::empty(204)
            }
            Err(why) => problem(400, &why),
        },
        ("GET", "held") => document(200, &json!({"held": shared.holds().held()})),
        ("POST", "release") => release(shared, request),
        _ => problem(404, "there is no such door"),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    name: String,
}

/// Releases the hold that the body names.
fn release(shared: &Shared, request: &Received) -> Answer {
    let name = match serde_json::from_slice(&request.body) {
        Ok(Release { name }) => name,
        Err(error) => return problem(400, &error.to_string()),
    };
    // A misspelt name would leave its call waiting for ever.
    if !shared.has_hold(&name) {
        return problem(404, &format!("no fault has a hold `{name}`"));
    }
    document(200, &json!({"released": shared.holds().release(&name)}))
}

fn read_faults(request: &Received) -> Result<Vec<Fault>, String> {
    let text = std::str::from_utf8(&request.body).map_err(|error| error.to_string())?;
    Fault::parse_file(text).map_err(|error| error.to_string())
}

fn document(status: u16, value: &serde_json::Value) -> Answer {
    Answer::new(status, "application/json", value.to_string())
}

fn problem(status: u16, why: &str) -> Answer {
    document(status, &json!({"error": why}))
}
