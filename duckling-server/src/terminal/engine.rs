//! Where statements run: on a duckling, or in a database of this process.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use duckherder_client::{Client, ClientError, ClientOptions, QueryStream, ResultKind, Session};
use duckherder_proto::RemoteError;
use duckherder_proto::error::{ERROR_SUBTYPE, SESSION_NOT_OPEN};
use futures::TryStreamExt;

use super::local::{Local, LocalAnswer};

/// The setting that decides how a time with time zone reads.
const TIME_ZONE: &str = "TimeZone";

/// Where statements run.
pub enum Engine {
    /// In a session on a duckling.
    Remote {
        client: Client,
        session: Session,
        settings: BTreeMap<String, String>,
    },
    /// Here.
    Local(Local),
}

/// What is known of a statement when it has ended.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    /// What it gave back.
    pub kind: ResultKind,
    /// Rows that it changed, if it is one that changes rows.
    pub rows_changed: Option<u64>,
    /// The time that it took on the duckling; nothing for a local one.
    pub server_elapsed: Option<Duration>,
}

impl Engine {
    /// Connects to a duckling and opens a session, whose statements see `time_zone`.
    pub async fn connect(options: ClientOptions, time_zone: Option<String>) -> Result<Self, ClientError> {
        let client = Client::connect(options).await?;
        let settings: BTreeMap<_, _> = time_zone.map(|zone| (TIME_ZONE.to_owned(), zone)).into_iter().collect();
        let session = client.open_session_with(settings.clone()).await?;
        Ok(Self::Remote {
            client,
            session,
            settings,
        })
    }

    /// The database that unqualified names mean, for the prompt.
    pub fn database_name(&self) -> &str {
        match self {
            Self::Remote { session, .. } => &session.server().database_name,
            Self::Local(local) => local.database_name(),
        }
    }

    /// What answers, in a line.
    pub fn description(&self) -> String {
        match self {
            Self::Remote { session, .. } => {
                let server = session.server();
                format!(
                    "duckling {} at {}, DuckDB {}",
                    server.server_version, server.address, server.duckdb_version
                )
            }
            Self::Local(_) => "a database in this process".to_owned(),
        }
    }

    /// Starts one statement.
    pub async fn run(&mut self, sql: &str) -> Result<Answer, RemoteError> {
        match self {
            Self::Remote { session, .. } => {
                let stream = session.query(sql).await.map_err(|error| error.to_remote_error())?;
                Ok(Answer::Remote {
                    session: session.clone(),
                    stream: Box::new(stream),
                })
            }
            Self::Local(local) => local.run(sql).await.map(Answer::Local),
        }
    }

    /// The time zone that a statement sees now, if it can be found out.
    pub async fn time_zone(&mut self) -> Result<Option<String>, RemoteError> {
        let mut answer = self.run("SELECT current_setting('TimeZone')").await?;
        let mut zone = None;
        while let Some(batch) = answer.next().await? {
            let texts = batch.column(0).as_string_opt::<i32>();
            zone = texts
                .filter(|texts| !texts.is_empty())
                .map(|texts| texts.value(0).to_owned());
        }
        Ok(zone)
    }

    /// After an error: a session that is gone is replaced by a new one. Returns whether that was so.
    pub async fn recover(&mut self, error: &RemoteError) -> Result<bool, RemoteError> {
        let is_gone = error
            .extra_info
            .get(ERROR_SUBTYPE)
            .is_some_and(|kind| kind == SESSION_NOT_OPEN);
        match self {
            Self::Remote {
                client,
                session,
                settings,
            } if is_gone => {
                let opened = client.open_session_with(settings.clone()).await;
                *session = opened.map_err(|error| error.to_remote_error())?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Ends the session, or closes the database.
    pub async fn close(self) {
        match self {
            // The server notices anyway, later.
            Self::Remote { session, .. } => drop(session.close().await),
            Self::Local(local) => local.close(),
        }
    }
}

/// A running statement. Dropped, it is stopped.
pub enum Answer {
    Remote { session: Session, stream: Box<QueryStream> },
    Local(LocalAnswer),
}

impl Answer {
    /// The result columns.
    pub fn schema(&self) -> SchemaRef {
        match self {
            Self::Remote { stream, .. } => stream.schema(),
            Self::Local(answer) => answer.schema(),
        }
    }

    /// The next rows. May be dropped and asked again.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, RemoteError> {
        match self {
            Self::Remote { stream, .. } => stream.try_next().await.map_err(|error| error.to_remote_error()),
            Self::Local(answer) => answer.next().await,
        }
    }

    /// What the statement has done; known when there are no more rows.
    pub fn summary(&self) -> Option<Summary> {
        match self {
            Self::Remote { stream, .. } => stream.summary().map(|summary| Summary {
                kind: summary.result_kind(),
                rows_changed: summary.rows_changed,
                server_elapsed: Some(Duration::from_micros(summary.elapsed_us)),
            }),
            Self::Local(answer) => answer.summary(),
        }
    }

    /// How far the statement is, from 0 to 1; `None` if that is not known.
    pub async fn progress(&self) -> Option<f64> {
        match self {
            Self::Remote { session, stream } => session.progress(stream.statement_id()).await.ok().flatten(),
            Self::Local(answer) => answer.progress(),
        }
    }

    /// Asks the statement to stop; it then ends with an error, unless it had ended.
    pub async fn cancel(&self) -> Result<(), RemoteError> {
        match self {
            Self::Remote { session, stream } => {
                let found = session.cancel(stream.statement_id()).await;
                found.map(|_| ()).map_err(|error| error.to_remote_error())
            }
            Self::Local(answer) => {
                answer.cancel();
                Ok(())
            }
        }
    }
}
