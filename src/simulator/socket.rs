//! The two things about a connection that an HTTP library keeps to itself.
//!
//! It closes connections politely. A broken load balancer does not, and a client that treats both
//! alike may lose an answer or send a request twice; so the wrapper keeps a switch. And it writes
//! header names in lower case, which is right, but Tencent's Python SDK looks them up as the cloud
//! writes them (`object_info['Content-Length']`); so the wrapper restores that.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The headers that the cloud does not write in lower case. All that begin with `x-cos-` are.
const NAMES: &[&str] = &[
    "Accept-Ranges",
    "Cache-Control",
    "Connection",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "Date",
    "ETag",
    "Last-Modified",
    "Location",
    "Server",
    "Transfer-Encoding",
];

/// What the server tells a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals {
    is_reset: Arc<AtomicBool>,
    is_head_next: Arc<AtomicBool>,
}

impl Signals {
    /// From now on nothing more is written, and the end of the connection is a reset.
    pub(super) fn reset(&self) {
        self.is_reset.store(true, Ordering::Release);
    }

    /// The next bytes written are the head of an answer.
    pub(super) fn expect_head(&self) {
        self.is_head_next.store(true, Ordering::Release);
    }
}

/// A TCP connection that listens to its signals.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    signals: Signals,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, signals: Signals) -> Self {
        Self { stream, signals }
    }

    fn check(&self) -> io::Result<()> {
        if self.signals.is_reset.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.signals.is_reset.load(Ordering::Acquire) {
            // Without lingering, closing discards what is queued and sends RST. Where the system
            // refuses, the connection closes politely, which is a broken connection as well.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if !self.signals.is_head_next.load(Ordering::Acquire) {
            return Pin::new(&mut self.stream).poll_write(context, buffer);
        }
        let end = buffer.windows(4).position(|window| window == b"\r\n\r\n");
        let head = with_cloud_names(&buffer[..end.map_or(buffer.len(), |end| end + 4)]);
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, &head))?;
        if end.is_some() && written == head.len() {
            self.signals.is_head_next.store(false, Ordering::Release);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A shutdown would send FIN before the reset.
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The same head, of the same length, with names as the cloud writes them.
fn with_cloud_names(head: &[u8]) -> Vec<u8> {
    let mut head = head.to_vec();
    for line in head.split_mut(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = &mut line[..colon];
        if let Some(known) = NAMES
            .iter()
            .find(|known| known.as_bytes().eq_ignore_ascii_case(name))
        {
            name.copy_from_slice(known.as_bytes());
        }
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_are_written_as_the_cloud_does() {
        let head = b"HTTP/1.1 200 OK\r\netag: \"a: b\"\r\nx-cos-request-id: etag\r\n\r\n";
        let expected = b"HTTP/1.1 200 OK\r\nETag: \"a: b\"\r\nx-cos-request-id: etag\r\n\r\n";
        assert_eq!(with_cloud_names(head), expected);
    }
}
