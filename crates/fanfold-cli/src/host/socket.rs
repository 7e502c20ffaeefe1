//! A connection's socket and request bodies. Both keep the connection's phase up to date.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::connections::{Connection, Phase};
use super::{Lifecycle, drains};

/// A socket that sets the connection's phase as bytes are read and written.
pub(super) struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, connection: Arc<Connection>) -> Self {
        Self { stream, connection }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // hyper reads the next request only after it has written the answer.
        if this.connection.phase().0 == Phase::Answer {
            this.connection.set(Phase::Idle);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before && this.connection.phase().0 == Phase::Idle {
            this.connection.set(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?;
        this.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Socket {
    fn wrote(&self, written: usize) -> Poll<io::Result<usize>> {
        if self.connection.phase().0 == Phase::Answer {
            // Restarts the phase's time: it counts from the last progress of the answer.
            self.connection.set(Phase::Answer);
        }
        Poll::Ready(Ok(written))
    }
}

/// A request's body that counts its bytes as they arrive.
pub(super) struct CountedBody {
    body: Incoming,
    connection: Arc<Connection>,
    bytes: usize,
}

impl CountedBody {
    /// The body of a request whose head has just been read.
    pub(super) fn new(body: Incoming, connection: Arc<Connection>) -> Self {
        connection.set_unread(!body.is_end_stream());
        connection.set(if body.is_end_stream() { Phase::Work } else { Phase::Body });
        Self { body, connection, bytes: 0 }
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len);
            if !this.connection.reserve(this.bytes, length) {
                // `serve` sees the refusal, answers it, and ends the connection.
                this.connection.refuse();
                return Poll::Pending;
            }
            this.bytes += length;
        }
        if frame.is_none() || this.body.is_end_stream() {
            this.connection.set_unread(false);
            this.connection.set(Phase::Work);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        // The handler does not read the rest, so the connection no longer waits for its client.
        if self.connection.phase().0 == Phase::Body {
            self.connection.set(Phase::Work);
        }
    }
}

/// An answer's body of unknown length, such as one of events. Each of its pieces is counted until the
/// next. It ends between two pieces when the host drains, or when there is no room for the next piece.
pub(super) struct StreamedBody {
    body: Body,
    connection: Arc<Connection>,
    drains: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl StreamedBody {
    pub(super) fn new(
        body: Body,
        connection: Arc<Connection>,
        lifecycle: watch::Receiver<Lifecycle>,
    ) -> Self {
        Self { body, connection, drains: Box::pin(drains(lifecycle)) }
    }
}

impl HttpBody for StreamedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.drains.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len);
            this.connection.release();
            if !this.connection.reserve(0, length) {
                tracing::warn!("the host ends a stream of events: it has no room for the next");
                return Poll::Ready(None);
            }
        }
        Poll::Ready(frame)
    }
}

/// A timer whose deadline changes often, and that seldom expires.
#[derive(Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready after `deadline`, which may differ from that of the last call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}
