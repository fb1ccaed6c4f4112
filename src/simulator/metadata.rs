//! The metadata host of an instance, as far as it hands out the keys of the instance's role.
//!
//! The list of roles is a text of one name; the keys of a role are JSON; everything else is a 404. No
//! signature is asked for: whoever can reach the host is the instance.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::keys::end_of;
use super::wire::{Answer, Received, iso_date};
use super::world::World;

pub(super) const HOST: &str = "metadata.tencentyun.com";
const ROLES: &str = "/latest/meta-data/cam/security-credentials/";
/// What the keys of an instance live for where the world says nothing else.
const LIFE_SECONDS: u64 = 7200;

/// The names of all operations.
pub(super) const OPERATIONS: [&str; 3] = ["GetInstanceRole", "GetInstanceRoleKeys", "GetMetadata"];

/// What is asked for, for log and faults.
pub(super) fn operation(request: &Received) -> String {
    let name = match request.path.strip_prefix(ROLES) {
        Some("") => "GetInstanceRole",
        Some(_) => "GetInstanceRoleKeys",
        None => "GetMetadata",
    };
    name.to_owned()
}

/// Answers a request to the metadata host.
pub(super) fn answer(world: &mut World, request: &Received, now: DateTime<Utc>) -> Answer {
    let nothing = || Answer::new(404, "text/html", "<html>404 - Not Found</html>\n");
    let role = world.keys.instance_role.clone();
    match (request.path.strip_prefix(ROLES), role) {
        (Some(_), _) if request.method != "GET" => Answer::new(405, "text/plain", ""),
        (Some(""), Some(role)) => Answer::new(200, "text/plain", role),
        (Some(name), Some(role)) if name == role => keys(world, now),
        _ => nothing(),
    }
}

/// The keys of the instance; they are made anew when half of their life is over.
fn keys(world: &mut World, now: DateTime<Utc>) -> Answer {
    let present = world.keys.of_instance.take();
    let (credentials, anew) = present.filter(|(_, anew)| now < *anew).unwrap_or_else(|| {
        let credentials = world.hand_out(now, LIFE_SECONDS);
        let half = end_of(&credentials).signed_duration_since(now) / 2;
        (credentials, now.checked_add_signed(half).unwrap_or(now))
    });
    let ends = end_of(&credentials);
    let body = json!({
        "TmpSecretId": credentials.secret_id,
        "TmpSecretKey": credentials.secret_key.expose(),
        "ExpiredTime": ends.timestamp(),
        "Expiration": iso_date(ends).replace(".000Z", "Z"),
        "Token": credentials.token.as_ref().map(crate::auth::Secret::expose),
        "Code": "Success",
    });
    world.keys.of_instance = Some((credentials, anew));
    Answer::new(200, "application/json", body.to_string())
}
