//! `DoGet`, with messages that are handed to HTTP/2 as they are.
//!
//! tonic's codec copies every message into a buffer of its own; most of what a server sends are record batches of about
//! 2 MiB. So this one method is answered here, as [gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)
//! has it, and all others go on to tonic's service.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_flight::Ticket;
use arrow_flight::flight_service_server::FlightServiceServer;
use bytes::{Bytes, BytesMut};
use duckherder_proto::limits::MESSAGE_BYTES_MAX;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use prost::Message as _;
use tonic::body::Body;
use tonic::codec::{DecodeBuf, Decoder, Streaming};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower_service::Service;

use crate::in_flight;
use crate::running::Answer;
use crate::service::DucklingService;

const PATH: &str = "/arrow.flight.protocol.FlightService/DoGet";

/// So many bytes of small messages leave together.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// All of Arrow Flight.
#[derive(Clone)]
pub struct Flight {
    service: Arc<DucklingService>,
    others: FlightServiceServer<DucklingService>,
}

impl Flight {
    pub fn new(service: DucklingService) -> Self {
        let service = Arc::new(service);
        Self {
            others: FlightServiceServer::from_arc(Arc::clone(&service))
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            service,
        }
    }
}

impl NamedService for Flight {
    const NAME: &'static str = <FlightServiceServer<DucklingService> as NamedService>::NAME;
}

impl Service<Request<Body>> for Flight {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != PATH {
            return self.others.call(request);
        }
        let service = Arc::clone(&self.service);
        async move { Ok(answer(&service, request).await.unwrap_or_else(Status::into_http)) }.boxed()
    }
}

async fn answer(service: &DucklingService, request: Request<Body>) -> Result<Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    let mut tickets = Streaming::new_request(TicketDecoder, body, None, Some(MESSAGE_BYTES_MAX));
    let ticket = tickets
        .message()
        .await?
        .ok_or_else(|| Status::internal("a request without a ticket"))?;
    let headers = MetadataMap::from_headers(parts.headers);
    let request = tonic::Request::from_parts(headers, parts.extensions, ticket);
    let (headers, answer, extensions) = service.get(request).await?.into_parts();
    let mut response = Response::new(Body::new(Messages::new(answer)));
    *response.headers_mut() = headers.into_headers();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    *response.extensions_mut() = extensions;
    Ok(response)
}

struct TicketDecoder;

impl Decoder for TicketDecoder {
    type Item = Ticket;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Ticket>, Status> {
        Ticket::decode(buffer)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// The body of an answer.
struct Messages {
    /// `None` after its end.
    answer: Option<Answer>,
    frames: VecDeque<Bytes>,
    gathered: BytesMut,
    trailers: Option<HeaderMap>,
}

impl Messages {
    fn new(answer: Answer) -> Self {
        Self {
            answer: Some(answer),
            frames: VecDeque::new(),
            gathered: BytesMut::new(),
            trailers: None,
        }
    }

    /// Reads messages until there are frames to send, or nothing more comes at once.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.frames.is_empty() && self.gathered.len() < GATHERED_BYTES_MAX {
            let Some(answer) = &mut self.answer else {
                return Poll::Ready(());
            };
            let Poll::Ready(item) = answer.poll_next_unpin(context) else {
                return Poll::Pending;
            };
            match item {
                Some(Ok(message)) if message.encoded_bytes() <= MESSAGE_BYTES_MAX => {
                    message.encode(&mut self.gathered, &mut self.frames);
                }
                Some(Ok(message)) => self.end(&Status::out_of_range(format!(
                    "a message of {} bytes exceeds the limit of {MESSAGE_BYTES_MAX}: one row is too large",
                    message.encoded_bytes()
                ))),
                Some(Err(status)) => self.end(&status),
                None => self.end(&Status::new(Code::Ok, "")),
            }
        }
        Poll::Ready(())
    }

    fn end(&mut self, status: &Status) {
        self.answer = None;
        let mut trailers = HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            trailers.insert("grpc-status", HeaderValue::from_static("13"));
        }
        self.trailers = Some(trailers);
    }
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let pending = this.frames.is_empty() && this.read(context).is_pending();
        let frame = this
            .frames
            .pop_front()
            .map(in_flight::share)
            .or_else(|| (!this.gathered.is_empty()).then(|| this.gathered.split().freeze()));
        match frame {
            Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
            None if pending => Poll::Pending,
            None => Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_none() && self.frames.is_empty() && self.gathered.is_empty() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body::Body as _;

    use super::*;
    use crate::message::Message;

    /// The sizes of the frames of data, and the status in the trailers.
    async fn frames(messages: Vec<Result<Message, Status>>) -> (Vec<usize>, String) {
        let mut body = Box::pin(Messages::new(stream::iter(messages).boxed()));
        let (mut sizes, mut status) = (Vec::new(), String::new());
        while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
            match frame.unwrap().into_data() {
                Ok(data) => sizes.push(data.len()),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap();
                    status = trailers["grpc-status"].to_str().unwrap().to_owned();
                }
            }
        }
        assert!(body.is_end_stream());
        (sizes, status)
    }

    fn small() -> Result<Message, Status> {
        Ok(Message::of_metadata(vec![7; 10]))
    }

    #[tokio::test]
    async fn small_messages_leave_together_and_large_pieces_as_they_are() {
        assert_eq!(
            frames(vec![small(), small()]).await,
            (vec![2 * (5 + 2 + 10)], "0".to_owned())
        );
        let large = Message::of_arrow(Bytes::new(), vec![vec![1; 1 << 20].into(), vec![2; 8].into()]);
        let (sizes, _) = frames(vec![small(), Ok(large), small()]).await;
        assert_eq!(sizes.len(), 3);
        assert_eq!(sizes[1], 1 << 20);
        assert_eq!(frames(Vec::new()).await, (vec![], "0".to_owned()));
    }

    #[tokio::test]
    async fn an_error_is_the_last_thing() {
        let error = Err(Status::new(Code::Aborted, "over"));
        let (sizes, status) = frames(vec![small(), error, small()]).await;
        assert_eq!((sizes.len(), status.as_str()), (1, "10"));
    }
}
