//! Answering a peer that reads an exchange.

use duckherder_proto::v1::{ExchangeSummary, ReadExchangeRequest};
use duckherder_proto::{Message as _, RemoteError};
use futures::stream::{self, StreamExt};
use tonic::Status;

use super::{Exchanges, LogReader, query_id};
use crate::encode::BatchEncoder;
use crate::message::Message;
use crate::running::{Answer, blocking};

impl Exchanges {
    /// The messages of an exchange, as they are made. Resolves with the first.
    ///
    /// # Errors
    /// There is no such exchange; the query has failed.
    pub async fn serve(&self, request: ReadExchangeRequest, message_bytes: usize) -> Result<Answer, RemoteError> {
        let id = query_id(&request.query_id)?;
        let reader = self
            .open(id, request.stage, &request.destination, request.reader)
            .await?;
        let schema = reader.schema().await?;
        let encoder = BatchEncoder::new(message_bytes);
        let first = encoder.schema(&schema);
        let serving = Serving {
            reader,
            encoder,
            summary: ExchangeSummary {
                rows: 0,
                bytes: size(&first),
            },
        };
        let rest = stream::unfold(Some(serving), |serving| async move {
            let (messages, rest) = serving?.next().await;
            Some((stream::iter(messages), rest))
        });
        Ok(stream::iter([Ok(first)]).chain(rest.flatten()).boxed())
    }
}

fn size(message: &Message) -> u64 {
    message.arrow_bytes() as u64
}

struct Serving {
    reader: LogReader,
    encoder: BatchEncoder,
    summary: ExchangeSummary,
}

impl Serving {
    /// The next messages, and what comes after them: nothing after the summary or an error.
    async fn next(mut self) -> (Vec<Result<Message, Status>>, Option<Self>) {
        match self.batch().await {
            Ok((Some(messages), encoder)) => {
                self.encoder = encoder;
                self.summary.bytes += messages.iter().map(size).sum::<u64>();
                (messages.into_iter().map(Ok).collect(), Some(self))
            }
            Ok((None, _)) => {
                let message = Message::of_metadata(self.summary.encode_to_vec());
                (vec![Ok(message)], None)
            }
            Err(error) => (vec![Err(Status::from(error))], None),
        }
    }

    /// The messages of the next batch, which is read and encoded on a blocking thread.
    async fn batch(&mut self) -> Result<(Option<Vec<Message>>, BatchEncoder), RemoteError> {
        let mut encoder = std::mem::replace(&mut self.encoder, BatchEncoder::new(0));
        let Some(stored) = self.reader.next().await? else {
            return Ok((None, encoder));
        };
        let (rows, messages, encoder) = blocking(move || {
            let messages = stored.messages(&mut encoder)?;
            Ok((stored.rows(), messages, encoder))
        })
        .await?;
        self.summary.rows += rows;
        Ok((Some(messages), encoder))
    }
}
