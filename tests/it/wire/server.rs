//! A server on loopback that says what it is told to say and keeps what it was asked.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use cvm_export::auth::{Credentials, Secret};
use cvm_export::cloud::{Cloud, CloudSettings, Endpoints, RetryPolicy};
use cvm_export::event::Events;

use crate::support::golden;

/// How long the other side may take to send a request.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request or an answer, as it stands on the wire or in a golden file.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The request line or the status line.
    pub(super) first: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// Reads the golden file `name`. Its lines end in a line feed alone, and its last one is not part
    /// of the body.
    pub(super) fn golden(name: &str) -> Self {
        let text = golden::read(name);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        Self::of(head, body.as_bytes().to_vec())
    }

    /// An answer with status 200.
    pub(super) fn ok(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let head = format!("HTTP/1.1 200 OK\nContent-Type: {content_type}");
        Self::of(&head, body.into())
    }

    fn of(head: &str, body: Vec<u8>) -> Self {
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default().to_owned();
        let headers = lines.map(|line| {
            let (name, value) = line
                .split_once(':')
                .unwrap_or_else(|| panic!("`{line}` holds no colon"));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Self {
            first,
            headers: headers.collect(),
            body,
        }
    }

    /// The same message with `body`.
    pub(super) fn with_body(&self, body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..self.clone()
        }
    }

    /// The same message without the header `name`.
    pub(super) fn without(&self, name: &str) -> Self {
        let mut message = self.clone();
        message.headers.retain(|(known, _)| known != name);
        message
    }

    /// The body as text.
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    /// The value of a header that must be there once.
    #[track_caller]
    pub(super) fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        let (_, value) = found
            .next()
            .unwrap_or_else(|| panic!("no `{name}` in {self:?}"));
        assert!(found.next().is_none(), "`{name}` stands twice in {self:?}");
        value
    }

    /// Whether there is such a header.
    pub(super) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known == name)
    }

    /// The method and the target of a request.
    pub(super) fn request_line(&self) -> (&str, &str) {
        let mut words = self.first.split(' ');
        let (method, target) = (words.next(), words.next());
        assert_eq!(words.next(), Some("HTTP/1.1"), "{}", self.first);
        (method.expect("a method"), target.expect("a target"))
    }

    /// An answer as bytes. Published answers do not count the bytes that they show, so the length is
    /// counted here; an answer to HEAD speaks of a body that does not follow.
    fn answer(&self, to: &str) -> Vec<u8> {
        let mut head = format!("{}\r\nconnection: close\r\n", self.first);
        for (name, value) in &self.headers {
            if name != "connection" && (to == "HEAD" || name != "content-length") {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if to != "HEAD" {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if to != "HEAD" {
            bytes.extend(&self.body);
        }
        bytes
    }
}

/// Who asks.
pub(super) fn credentials(token: Option<&str>) -> Credentials {
    Credentials {
        secret_id: "AKIDexample".to_owned(),
        secret_key: Secret::new("not-a-key"),
        token: token.map(Secret::new),
        expires_at: None,
    }
}

/// Gives `answers`, one for each connection and in this order.
pub(super) struct Server {
    url: String,
    received: mpsc::Receiver<Message>,
}

impl Server {
    pub(super) fn answering(answers: Vec<Message>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (sender, received) = mpsc::channel();
        // It ends with its last answer, or with the test.
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a connection");
                let request = read_request(&mut stream);
                let answer = answer.answer(request.request_line().0);
                // Nobody listens when the test has failed.
                drop(sender.send(request));
                drop(stream.write_all(&answer));
            }
        });
        Self { url, received }
    }

    /// The real client of a caller with or without a session token; it asks once and not again.
    pub(super) fn cloud(&self, token: Option<&str>) -> Cloud {
        let endpoints = Endpoints::overridden(&self.url, false).expect("an address on loopback");
        let settings = CloudSettings {
            retry: RetryPolicy {
                attempts: 1,
                throttled_attempts: 1,
                ..RetryPolicy::default()
            },
            ..CloudSettings::new(endpoints)
        };
        Cloud::open(settings, credentials(token), Events::discard()).expect("a client")
    }

    /// The next request that came.
    #[track_caller]
    pub(super) fn received(&self) -> Message {
        let request = self.received.recv_timeout(PATIENCE);
        request.expect("a request")
    }
}

fn read_request(stream: &mut TcpStream) -> Message {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("a head in ASCII");
    let mut request = Message::of(head.trim_end(), Vec::new());
    if request.has("content-length") {
        let length = request.header("content-length").parse();
        request.body = vec![0; length.expect("a length")];
        stream.read_exact(&mut request.body).expect("a body");
    }
    request
}
