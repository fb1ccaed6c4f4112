//! `files`, `files url` and `files rm`.

mod attempts;
mod forged;
mod kept;
mod links;
mod listing;
mod removal;
mod retention;
mod uploads;
mod versions;

use crate::support::TestEnv;

pub(super) const BUCKET: &str = "exports-1250000000";
/// What the keys of leases have in them.
pub(super) const LEASE: &str = ".cvm-export.lease-";

impl TestEnv {
    /// Works in the cloud of `other` from now on, as another machine with another journal.
    pub(super) fn borrow_cloud(&mut self, other: &Self) {
        let credentials = other.cloud.credentials();
        self.set("CVM_EXPORT_ENDPOINT_URL", &other.cloud.endpoint_url())
            .set("TENCENTCLOUD_SECRET_ID", &credentials.secret_id)
            .set("TENCENTCLOUD_SECRET_KEY", credentials.secret_key.expose());
    }

    /// Another machine in the same cloud.
    pub(super) fn elsewhere(&self) -> Self {
        let mut other = Self::new();
        other.borrow_cloud(self);
        other
    }

    /// How often `operation` was called with a target that has `part` in it.
    pub(super) fn calls_with(&self, operation: &str, part: &str) -> usize {
        let calls = self.cloud.calls().into_iter();
        let calls = calls.filter(|call| call.operation == operation);
        calls.filter(|call| call.target.contains(part)).count()
    }

    /// Makes a whole export.
    pub(super) fn export(&self, image_id: &str, prefix: &str, flags: &str) {
        let line = format!(
            "image --id {image_id} --bucket exports --prefix {prefix} --poll-interval 100ms {flags}"
        );
        self.line(line.trim_end()).ends_with(0);
    }

    /// The id of the export in this machine's journal under `prefix`.
    pub(super) fn export_id(&self, prefix: &str) -> String {
        let status = self.line("status --output json").json();
        let items = status["items"].as_array().expect("items");
        let item = items.iter().find(|item| item["prefix"] == prefix);
        let id = item.expect("an export under the prefix")["export_id"].clone();
        id.as_str().expect("an id").to_owned()
    }

    /// Every key of the bucket, but for leases, which nobody deletes.
    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys = self.cloud.change(|world| world.keys(BUCKET));
        keys.retain(|key| !key.contains(LEASE));
        keys
    }

    /// Kind and state of each lease, in the order of the keys.
    pub(super) fn attempt_states(&self) -> Vec<String> {
        let mut keys = self.cloud.change(|world| world.keys(BUCKET));
        keys.retain(|key| key.contains(LEASE));
        let said = keys.iter().map(|key| {
            let lease = self.record_at(key);
            let word = |name: &str| lease[name].as_str().expect("a word").to_owned();
            format!("{} {}", word("kind"), word("state"))
        });
        said.collect()
    }

    /// The record that stands under a key.
    pub(super) fn record_at(&self, key: &str) -> serde_json::Value {
        let text = self.cloud.change(|world| {
            let object = world.object(BUCKET, key).expect("a record");
            let mut bytes = vec![0; usize::try_from(object.content.size_bytes()).expect("small")];
            object.content.read_at(0, &mut bytes).expect("readable");
            bytes
        });
        serde_json::from_slice(&text).expect("a record")
    }

    pub(super) fn put(&self, key: &str) {
        self.cloud
            .change(|world| world.put_object(BUCKET, key, "bytes"));
    }

    /// Lets time pass by the cloud's clock.
    pub(super) fn pass(&self, seconds: i64) {
        self.cloud
            .change(|world| world.clock_offset_seconds += seconds);
    }
}
