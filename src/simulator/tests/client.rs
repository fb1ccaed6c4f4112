//! A client that writes and reads HTTP by hand, so that what a test sends is exactly what it says.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::Simulator;
use super::super::wire::query_pairs;
use super::{BUCKET, BUCKET_HOST};
use crate::auth::{Credentials, Secret, Timestamp, cos, percent_encode_path, tc3};
use crate::clock;

/// An answer, or as much of it as came.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// Whether the connection ended otherwise than after the announced length.
    pub(super) is_broken: bool,
    /// Whether it was reset.
    pub(super) is_reset: bool,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The text of the first XML element of this name.
    pub(super) fn element(&self, name: &str) -> Option<String> {
        let text = self.text();
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once("</")?.0.to_owned())
    }
}

/// Sends `request` as it stands and reads until the connection ends.
pub(super) async fn exchange(address: SocketAddr, request: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(request).await.expect("send");
    let mut received = Vec::new();
    let mut buffer = vec![0; 65536];
    let is_reset = loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break false,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(_) => break true,
        }
    };
    let end = received.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) = match end {
        Some(end) => (received[..end].to_vec(), received[end + 4..].to_vec()),
        None => (Vec::new(), Vec::new()),
    };
    let mut reply = Reply {
        status: 0,
        head: String::from_utf8(head).expect("an ASCII head"),
        body,
        is_broken: is_reset,
        is_reset,
    };
    let status = reply
        .head
        .split(' ')
        .nth(1)
        .and_then(|text| text.parse().ok());
    reply.status = status.unwrap_or(0);
    let announced = reply
        .header("content-length")
        .and_then(|text| text.parse().ok());
    if !request.starts_with(b"HEAD ") {
        reply.is_broken |= announced.unwrap_or(0) != reply.body.len() || reply.status == 0;
    }
    reply
}

/// A client of one simulator.
pub(super) struct Client<'a> {
    pub(super) simulator: &'a Simulator,
    pub(super) credentials: Credentials,
    /// How far the client's clock is ahead.
    pub(super) skew_seconds: i64,
    pub(super) language: Option<&'a str>,
}

impl<'a> Client<'a> {
    pub(super) fn new(simulator: &'a Simulator) -> Self {
        Self {
            simulator,
            credentials: simulator.credentials(),
            skew_seconds: 0,
            language: Some("en-US"),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp(clock::now().timestamp() + self.skew_seconds)
    }

    fn token_header(&self, name: &str) -> String {
        let token = self.credentials.token.as_ref().map(Secret::expose);
        token.map_or_else(String::new, |token| format!("{name}: {token}\r\n"))
    }

    pub(super) fn api_request(
        &self,
        service: &str,
        action: &str,
        version: &str,
        body: &Value,
    ) -> String {
        let host = format!("{service}.tencentcloudapi.com");
        let body = body.to_string();
        let timestamp = self.now();
        let authorization = tc3::Authorization::new(
            &self.credentials,
            service,
            timestamp,
            &tc3::Request {
                method: "POST",
                path: "/",
                query: "",
                headers: &[("content-type", "application/json"), ("host", &host)],
                payload: body.as_bytes(),
            },
        );
        let language = self.language.map_or_else(String::new, |language| {
            format!("X-TC-Language: {language}\r\n")
        });
        let token = self.token_header("X-TC-Token");
        format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             X-TC-Action: {action}\r\nX-TC-Version: {version}\r\nX-TC-Timestamp: {timestamp}\r\n\
             X-TC-Region: ap-guangzhou\r\n{language}{token}Authorization: {authorization}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    pub(super) async fn send(&self, request: &str) -> Reply {
        exchange(self.simulator.address(), request.as_bytes()).await
    }

    /// The `Response` of a call.
    pub(super) async fn api(
        &self,
        service: &str,
        action: &str,
        version: &str,
        body: Value,
    ) -> Value {
        let request = self.api_request(service, action, version, &body);
        let reply = self.send(&request).await;
        assert_eq!(reply.status, 200, "{action}: {reply:?}");
        let document: Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert!(document["Response"]["RequestId"].is_string(), "{document}");
        document["Response"].clone()
    }

    pub(super) async fn cvm(&self, action: &str, body: Value) -> Value {
        self.api("cvm", action, "2017-03-12", body).await
    }

    pub(super) async fn export(&self, changes: Value) -> Value {
        let mut body = json!({
            "BucketName": BUCKET,
            "ImageIds": ["img-linux001"],
            "FileNamePrefixList": ["p"],
        });
        for (name, value) in changes.as_object().expect("an object") {
            body[name] = value.clone();
        }
        self.cvm("ExportImages", body).await
    }

    pub(super) fn cos_request(
        &self,
        method: &str,
        host: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Vec<u8> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parameters = query_pairs(query).expect("a query");
        let parameters: Vec<(&str, &str)> = parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let mut signed = vec![("host", host)];
        signed.extend_from_slice(headers);
        let start = self.now();
        let authorization = cos::Authorization::new(
            &self.credentials,
            cos::KeyTime {
                start,
                end: Timestamp(start.0 + 600),
            },
            &cos::Request {
                method,
                path,
                parameters: &parameters,
                headers: &signed,
            },
        );
        let target = match query {
            "" => percent_encode_path(path),
            query => format!("{}?{query}", percent_encode_path(path)),
        };
        let token = self.token_header("x-cos-security-token");
        let extra: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let mut request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\n{extra}{token}Authorization: {authorization}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        request
    }

    pub(super) async fn cos(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let request = self.cos_request(method, BUCKET_HOST, target, headers, body);
        exchange(self.simulator.address(), &request).await
    }

    pub(super) async fn get(&self, target: &str) -> Reply {
        self.cos("GET", target, &[], b"").await
    }
}
