//! `files`, `files url` and `files rm`.

mod forged;
mod kept;
mod links;
mod listing;
mod removal;
mod retention;
mod uploads;

use crate::support::TestEnv;

pub(super) const BUCKET: &str = "exports-1250000000";

impl TestEnv {
    /// Works in the cloud of `other` from now on, as another machine with another journal.
    pub(super) fn borrow_cloud(&mut self, other: &Self) {
        let credentials = other.cloud.credentials();
        self.set("CVM_EXPORT_ENDPOINT_URL", &other.cloud.endpoint_url())
            .set("TENCENTCLOUD_SECRET_ID", &credentials.secret_id)
            .set("TENCENTCLOUD_SECRET_KEY", credentials.secret_key.expose());
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

    /// Every key of the bucket.
    pub(super) fn keys(&self) -> Vec<String> {
        self.cloud.change(|world| world.keys(BUCKET))
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
