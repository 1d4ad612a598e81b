//! What statements and uploads need while they run, whichever protocol asked for them: a turn, a blocking thread, a
//! stream that cancels.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use duckherder_proto::history::Traffic;
use duckherder_proto::ipc::check_message;
use duckherder_proto::{ExceptionType, RemoteError};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tonic::Status;
use tracing::{Instrument, debug, info_span};

use crate::admission::Admitted;
use crate::history::Recording;
use crate::ingest::{self, Target, Upload};
use crate::message::Message;
use crate::parts::{Cancel, Parts};
use crate::queue::{Consumer, Producer};
use crate::session::{Lease, Place, Registration, Session, Sessions};
use crate::statement::{self, Job, Way};

/// An upload is, to the session, an INSERT.
const INGEST_SQL: &str = "INSERT";

/// Batches of an upload read ahead of the database.
const INGEST_BATCHES_AHEAD: usize = 4;

/// What a statement needs to run.
pub struct Turn {
    pub admitted: Admitted,
    pub lease: Lease,
    pub registration: Registration,
}

impl Turn {
    /// Waits until a statement may run, and for a connection fit for it.
    async fn of_statement(
        sessions: &Sessions,
        session: &Arc<Session>,
        job: &Job,
        statement_id: u64,
    ) -> Result<Self, RemoteError> {
        if session.in_transaction() && job.place != Place::Outside {
            // What it waited for could be what its transaction holds.
            return Self::of_part(sessions, session, &job.sql, job.place, statement_id).await;
        }
        let admitted = sessions.admission().statement().await?;
        Self::with(admitted, session, &job.sql, job.place, statement_id).await
    }

    /// Waits for a place of what does not wait for memory, and for a connection fit for `sql`.
    pub async fn of_part(
        sessions: &Sessions,
        session: &Arc<Session>,
        sql: &str,
        place: Place,
        statement_id: u64,
    ) -> Result<Self, RemoteError> {
        let admitted = sessions.admission().part().await?;
        Self::with(admitted, session, sql, place, statement_id).await
    }

    async fn with(
        admitted: Admitted,
        session: &Arc<Session>,
        sql: &str,
        place: Place,
        statement_id: u64,
    ) -> Result<Self, RemoteError> {
        let mut lease = session.lease(sql, place).await?;
        let registration = lease.register(statement_id)?;
        Ok(Self {
            admitted,
            lease,
            registration,
        })
    }
}

/// The messages that answer `DoGet`.
pub type Answer = BoxStream<'static, Result<Message, Status>>;

/// Runs a job; its result is read from the stream, and from those that [join](Session::join) it if the job lets them. Returns
/// when the first message is there.
///
/// # Errors
/// It does not get its turn, or fails before its first message. All others come from the stream.
pub async fn stream(
    sessions: &Arc<Sessions>,
    session: &Arc<Session>,
    job: Job,
    statement_id: u64,
    recording: Recording,
) -> Result<Answer, Status> {
    let (producer, consumer) = sessions.queues().open();
    if job.further_streams > 0 {
        let shared = (Arc::new(Parts::new(consumer)), producer);
        return stream_parts(sessions, session, job, statement_id, recording, shared).await;
    }
    let cancel = begin(sessions, session, job, statement_id, recording, producer, None).await;
    let cancel = CancelOnDrop(cancel);
    AnswerStream { consumer, cancel }.start().await
}

/// Runs a job whose result several streams share. Returns when the first message of this stream, the first of them, is
/// there.
///
/// # Errors
/// Those of [`stream`].
pub async fn stream_parts(
    sessions: &Arc<Sessions>,
    session: &Arc<Session>,
    job: Job,
    statement_id: u64,
    recording: Recording,
    (parts, producer): (Arc<Parts>, Producer),
) -> Result<Answer, Status> {
    let part = parts.part();
    if let Some(cancel) = begin(sessions, session, job, statement_id, recording, producer, Some(&parts)).await {
        parts.set_cancel(cancel);
    }
    part.start().await
}

/// Begins to run a job into a queue, that of `parts` if they are given; what interrupts it. `None` if it did not get its turn:
/// the queue then has the error.
async fn begin(
    sessions: &Arc<Sessions>,
    session: &Arc<Session>,
    job: Job,
    statement_id: u64,
    recording: Recording,
    producer: Producer,
    parts: Option<&Arc<Parts>>,
) -> Option<Cancel> {
    recording.traffic().add_received(0, job.sql.len() as u64);
    let turn = Turn::of_statement(sessions, session, &job, statement_id).await;
    let (recording, mut turn) = match recorded(recording, turn) {
        Ok(begun) => begun,
        Err(error) => {
            producer.finish(Err(error));
            return None;
        }
    };
    if let Some(pauses) = turn.admitted.pauses() {
        producer.set_pauses(pauses);
    }
    if let Some(parts) = parts {
        turn.registration.share(parts, job.further_streams);
    }
    let cancel = turn.registration.abandoner();
    let sessions = Arc::clone(sessions);
    let span = info_span!("statement", id = statement_id);
    recording.runs();
    let (way, is_little) = statement::find_way(&sessions, &mut turn.lease, &job, &turn.registration).await;
    if is_little {
        producer.expect_little();
    }
    here_or_aside(is_little, move || {
        let _entered = span.entered();
        let outcome = run(&sessions, turn, &job, way, recording, Some(&producer));
        producer.finish(outcome.map(|_| ()));
    });
    Some(Box::new(cancel))
}

/// Runs a job to its end and drops its rows; the number that it changed, if it is one that changes rows.
///
/// # Errors
/// It does not get its turn, or fails. Dropping the future interrupts it.
pub async fn complete(
    sessions: &Arc<Sessions>,
    session: &Arc<Session>,
    job: Job,
    statement_id: u64,
    recording: Recording,
) -> Result<Option<u64>, RemoteError> {
    recording.traffic().add_received(0, job.sql.len() as u64);
    let turn = Turn::of_statement(sessions, session, &job, statement_id).await;
    let (recording, turn) = recorded(recording, turn)?;
    recording.runs();
    let cancel = CancelOnDrop::new(turn.registration.abandoner());
    let sessions = Arc::clone(sessions);
    let outcome = blocking(move || run(&sessions, turn, &job, Way::Planned, recording, None)).await;
    cancel.disarm();
    outcome
}

fn run(
    sessions: &Sessions,
    turn: Turn,
    job: &Job,
    way: Way,
    recording: Recording,
    producer: Option<&Producer>,
) -> Result<Option<u64>, RemoteError> {
    let Turn {
        admitted,
        mut lease,
        registration,
    } = turn;
    debug!(sql = job.sql, "running");
    let herd = lease.herd()?;
    herd.statement_begins(recording.id(), &job.sql);
    let outcome = statement::run(sessions, &mut lease, job, way, &registration, &recording, producer);
    herd.statement_ends(outcome.as_ref().err());
    if let Err(error) = &outcome {
        debug!(%error, "failed");
    }
    // The connection is free, the statement no longer to be cancelled, and in the history as it ended, before its end
    // is told.
    drop((registration, lease, admitted));
    recording.end(outcome.as_ref().copied());
    outcome
}

/// Records a failure as the statement's end.
pub fn recorded<T>(recording: Recording, outcome: Result<T, RemoteError>) -> Result<(Recording, T), RemoteError> {
    match outcome {
        Ok(value) => Ok((recording, value)),
        Err(error) => {
            recording.end(Err(&error));
            Err(error)
        }
    }
}

/// Takes rows in; the number of them.
///
/// # Errors
/// The upload is not valid, does not get its turn, or fails: then nothing of it is in the table.
pub async fn upload(
    sessions: &Arc<Sessions>,
    session: &Arc<Session>,
    upload: UploadJob,
    recording: &Recording,
    data: BoxStream<'static, Result<FlightData, FlightError>>,
) -> Result<u64, RemoteError> {
    let UploadJob {
        target,
        place,
        statement_id,
        end,
    } = upload;
    let mut batches = checked_batches(data);
    // The first item tells the schema, also of a stream without batches.
    let first = next_batch(&mut batches).await?;
    let schema = batches.schema().cloned().ok_or_else(|| {
        RemoteError::new(
            ExceptionType::InvalidInput,
            "an upload must begin with an Arrow schema message",
        )
    })?;
    // A temporary table is the session's: it is made on its own connection.
    let sql = if target.temporary { "CREATE" } else { INGEST_SQL };
    let turn = Turn::of_part(sessions, session, sql, place, statement_id);
    let Turn {
        admitted,
        mut lease,
        registration,
    } = turn.await?;
    registration.start(false)?;
    recording.runs();
    let (sender, mut receiver) = mpsc::channel(INGEST_BATCHES_AHEAD);
    let feed = feed(first, batches, end, Arc::clone(recording.traffic()), sender);
    let sessions = Arc::clone(sessions);
    let work = move || ingest::run(&sessions, &mut lease, target, place, &schema, &mut receiver);
    let cancel = CancelOnDrop::new(registration.abandoner());
    let (rows, ()) = futures::join!(blocking(work), feed);
    cancel.disarm();
    drop((registration, admitted));
    rows
}

/// An upload to take in.
pub struct UploadJob {
    pub target: Target,
    pub place: Place,
    pub statement_id: u64,
    /// Asked at the end of the stream: how the upload ended. `None` if it was cut off.
    pub end: Box<dyn FnOnce() -> Option<Upload> + Send>,
}

/// Runs `work` here, if it `is_little` that remains to be done and does not block, else on a thread that may. A panic in it stays
/// there: what it owned says that it has not ended well.
pub fn here_or_aside(is_little: bool, work: impl FnOnce() + Send + 'static) {
    if is_little {
        let _ = catch_unwind(AssertUnwindSafe(work));
    } else {
        drop(tokio::task::spawn_blocking(work));
    }
}

/// Runs `work` on a thread that may block. A panic there is an error here.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RemoteError> + Send + 'static,
) -> Result<T, RemoteError> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .in_current_span()
        .await
        .map_err(|_| RemoteError::new(ExceptionType::Io, "the server failed while running this request"))?
}

/// The batches of what a client sends. What the library that decodes would believe, and should not, is an error of the
/// stream.
pub fn checked_batches(data: BoxStream<'static, Result<FlightData, FlightError>>) -> FlightRecordBatchStream {
    let checked = data.map(|message| {
        let message = message?;
        check_message(&message).map_err(FlightError::Arrow)?;
        Ok(message)
    });
    FlightRecordBatchStream::new_from_flight_data(checked)
}

/// The next batch of an upload. The library that decodes panics on some malformed data: that is an error here.
///
/// # Errors
/// The data is malformed, or the upload broke off.
pub async fn next_batch(batches: &mut FlightRecordBatchStream) -> Result<Option<RecordBatch>, RemoteError> {
    match AssertUnwindSafe(batches.next()).catch_unwind().await {
        Ok(batch) => batch.transpose().map_err(|error| upload_error(&error)),
        Err(_) => Err(RemoteError::new(
            ExceptionType::InvalidInput,
            "the uploaded Arrow data is not valid: it cannot be read",
        )),
    }
}

/// To be awaited when a client's stream has ended. tonic takes a client that has cancelled for one that has sent
/// everything; but a request that is cancelled is dropped when it waits for the next time, which is here.
pub async fn unless_cancelled() {
    tokio::task::yield_now().await;
}

/// Moves batches from the network to the database thread until either end is done.
async fn feed(
    first: Option<RecordBatch>,
    mut batches: FlightRecordBatchStream,
    end: Box<dyn FnOnce() -> Option<Upload> + Send>,
    traffic: Arc<Traffic>,
    sender: mpsc::Sender<Result<Upload, RemoteError>>,
) {
    let mut next = Ok(first);
    while let Some(batch) = next.transpose() {
        let failed = batch.is_err();
        traffic.add_received(batch.as_ref().map_or(0, |batch| batch.num_rows() as u64), 0);
        if sender.send(batch.map(Upload::Batch)).await.is_err() || failed {
            return;
        }
        next = next_batch(&mut batches).await;
    }
    unless_cancelled().await;
    // Without it the stream was cut off; dropping the sender says so.
    if let Some(end) = end() {
        let _ = sender.send(Ok(end)).await;
    }
}

fn upload_error(error: &FlightError) -> RemoteError {
    match error {
        FlightError::Tonic(status) => RemoteError::new(
            ExceptionType::Interrupt,
            format!("the upload broke off and was rolled back: {}", status.message()),
        ),
        other => RemoteError::new(
            ExceptionType::InvalidInput,
            format!("the uploaded Arrow data is not valid: {other}"),
        ),
    }
}

/// The answer to a statement; dropped before its end, it interrupts the statement.
pub struct AnswerStream {
    consumer: Consumer,
    cancel: CancelOnDrop,
}

impl AnswerStream {
    pub fn new(consumer: Consumer, registration: &Registration) -> Self {
        Self {
            consumer,
            cancel: CancelOnDrop::new(registration.abandoner()),
        }
    }

    /// Waits for the first message, so that it leaves together with the response's headers.
    ///
    /// # Errors
    /// The statement fails before it.
    pub async fn start(self) -> Result<Answer, Status> {
        let (first, rest) = self.next().await;
        let first = first.transpose()?;
        let rest = stream::unfold(rest, |answer| async move {
            let (item, rest) = answer?.next().await;
            item.map(|item| (item, rest))
        });
        Ok(stream::iter(first.map(Ok)).chain(rest).boxed())
    }

    /// The next message, and what answers after it: nothing after the end or an error.
    async fn next(self) -> (Option<Result<Message, Status>>, Option<Self>) {
        match self.consumer.next().await {
            Some(Ok(message)) => (Some(Ok(message)), Some(self)),
            Some(Err(error)) => {
                self.cancel.disarm();
                (Some(Err(Status::from(error))), None)
            }
            None => {
                self.cancel.disarm();
                (None, None)
            }
        }
    }
}

/// Cancels a statement when its client goes away.
struct CancelOnDrop(Option<Cancel>);

impl CancelOnDrop {
    fn new(cancel: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(cancel)))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = self.0.take() {
            cancel();
        }
    }
}
