//! `DoGet`, with messages that are handed to HTTP/2 as they are.
//!
//! tonic's codec copies every message into a buffer of its own; most of what a server sends are record batches of some
//! MiB. So this one method is answered here, as [gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)
//! has it, and all others go on to tonic's services. A message is one piece of data for HTTP/2, whose frames are full then.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_flight::Ticket;
use arrow_flight::flight_service_server::FlightServiceServer;
use bytes::{Buf, Bytes, BytesMut};
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
use tonic::service::Routes;
use tonic::{Code, Status};
use tower_service::Service;

use crate::message::Parts;
use crate::running::Answer;
use crate::service::DucklingService;

const PATH: &str = "/arrow.flight.protocol.FlightService/DoGet";

/// So many bytes of small messages leave together.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// Arrow Flight, and other services beside it.
#[derive(Clone)]
pub struct Services {
    flight: Arc<DucklingService>,
    others: Routes,
}

impl Services {
    pub fn new(flight: DucklingService, others: Routes) -> Self {
        let flight = Arc::new(flight);
        let server = FlightServiceServer::from_arc(Arc::clone(&flight))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self {
            flight,
            others: others.add_service(server),
        }
    }
}

impl Service<Request<Body>> for Services {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<AnswerBody>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.others, context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != PATH {
            let answer = self.others.call(request);
            return async move { Ok(answer.await?.map(AnswerBody::Other)) }.boxed();
        }
        let flight = Arc::clone(&self.flight);
        async move {
            let answer = answer(&flight, request).await;
            Ok(answer.unwrap_or_else(|status| status.into_http().map(AnswerBody::Other)))
        }
        .boxed()
    }
}

/// What a request is answered with.
pub enum AnswerBody {
    Messages(Messages),
    Other(Body),
}

impl http_body::Body for AnswerBody {
    type Data = Parts;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Parts>, Status>>> {
        match self.get_mut() {
            Self::Messages(messages) => messages.poll_frame(context).map(|frame| frame.map(Ok)),
            Self::Other(body) => Pin::new(body)
                .poll_frame(context)
                .map_ok(|frame| frame.map_data(|data| Parts::from_iter([data]))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Messages(messages) => messages.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }
}

async fn answer(service: &DucklingService, request: Request<Body>) -> Result<Response<AnswerBody>, Status> {
    let (parts, body) = request.into_parts();
    let mut tickets = Streaming::new_request(TicketDecoder, body, None, Some(MESSAGE_BYTES_MAX));
    let ticket = tickets
        .message()
        .await?
        .ok_or_else(|| Status::internal("a request without a ticket"))?;
    let headers = MetadataMap::from_headers(parts.headers);
    let request = tonic::Request::from_parts(headers, parts.extensions, ticket);
    let (headers, answer, extensions) = service.get(request).await?.into_parts();
    let mut response = Response::new(AnswerBody::Messages(Messages::new(answer)));
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

/// An answer of `DoGet`.
pub struct Messages {
    /// `None` after its end.
    answer: Option<Answer>,
    pieces: Vec<Bytes>,
    gathered: BytesMut,
    trailers: Option<HeaderMap>,
}

impl Messages {
    fn new(answer: Answer) -> Self {
        Self {
            answer: Some(answer),
            pieces: Vec::new(),
            gathered: BytesMut::new(),
            trailers: None,
        }
    }

    /// Reads messages until there is enough to send, or nothing more comes at once.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.pieces.is_empty() && self.gathered.len() < GATHERED_BYTES_MAX {
            let Some(answer) = &mut self.answer else {
                return Poll::Ready(());
            };
            let Poll::Ready(item) = answer.poll_next_unpin(context) else {
                return Poll::Pending;
            };
            match item {
                Some(Ok(message)) if message.encoded_bytes() <= MESSAGE_BYTES_MAX => {
                    message.encode(&mut self.gathered, &mut self.pieces);
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

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Parts>>> {
        let pending = self.read(context).is_pending();
        let rest = self.gathered.split().freeze();
        let parts: Parts = self.pieces.drain(..).chain([rest]).collect();
        if parts.has_remaining() {
            return Poll::Ready(Some(Frame::data(parts)));
        }
        if pending {
            return Poll::Pending;
        }
        Poll::Ready(self.trailers.take().map(Frame::trailers))
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_none() && self.gathered.is_empty() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::message::Message;

    /// The sizes of what is sent at once, and the status in the trailers.
    async fn sizes(messages: Vec<Result<Message, Status>>) -> (Vec<usize>, String) {
        let mut body = Messages::new(stream::iter(messages).boxed());
        let (mut sizes, mut status) = (Vec::new(), String::new());
        while let Some(frame) = std::future::poll_fn(|context| body.poll_frame(context)).await {
            match frame.into_data() {
                Ok(data) => sizes.push(data.remaining()),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap();
                    status = trailers["grpc-status"].to_str().unwrap().to_owned();
                }
            }
        }
        assert!(body.is_end_stream());
        (sizes, status)
    }

    /// The prefix, a field's tag and length, and ten bytes.
    const SMALL_BYTES: usize = 5 + 2 + 10;

    fn small() -> Result<Message, Status> {
        Ok(Message::of_metadata(vec![7; 10]))
    }

    #[tokio::test]
    async fn small_messages_leave_together_and_large_ones_with_those_before() {
        assert_eq!(
            sizes(vec![small(), small()]).await,
            (vec![2 * SMALL_BYTES], "0".to_owned())
        );
        let large = Message::of_arrow(Bytes::new(), vec![vec![1; 1 << 20].into(), vec![2; 8].into()]);
        let large_bytes = 5 + large.encoded_bytes();
        let (sent, _) = sizes(vec![small(), Ok(large), small()]).await;
        assert_eq!(sent, [SMALL_BYTES + large_bytes, SMALL_BYTES]);
        assert_eq!(sizes(Vec::new()).await, (vec![], "0".to_owned()));
    }

    #[tokio::test]
    async fn an_error_is_the_last_thing() {
        let error = Err(Status::new(Code::Aborted, "over"));
        let (sent, status) = sizes(vec![small(), error, small()]).await;
        assert_eq!((sent.len(), status.as_str()), (1, "10"));
    }
}
