//! Record batches on disk: in a file without a name, which is gone when it is closed, also after a crash.

use std::collections::HashMap;
use std::fs::File;
use std::iter;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow_flight::utils::flight_data_to_arrow_batch;
use duckherder_proto::{ExceptionType, RemoteError};

use super::budget::{Budget, Charge};
use crate::encode::BatchEncoder;
use crate::message::Message;

/// Where batches of one query go when memory is short. The file is made when it is needed.
pub struct Spill {
    directory: PathBuf,
    budget: Arc<Budget>,
    open: Mutex<Option<Open>>,
}

struct Open {
    file: Arc<File>,
    end: u64,
    charge: Charge,
}

/// An Arrow message in a file.
#[derive(Debug, Clone, Copy)]
struct Piece {
    offset: u64,
    header_bytes: usize,
    body_bytes: usize,
}

/// One batch, as one message or several.
#[derive(Debug, Clone)]
pub struct Spilled {
    file: Arc<File>,
    pieces: Arc<[Piece]>,
    /// Rows of the batch.
    pub rows: usize,
}

impl Spill {
    pub fn new(directory: PathBuf, budget: Arc<Budget>) -> Self {
        Self {
            directory,
            budget,
            open: Mutex::default(),
        }
    }

    /// Writes a batch; what it takes on disk, too. Blocks.
    ///
    /// # Errors
    /// The disk's; `Out of Memory` if there would be more on it than there may be.
    pub fn write(&self, encoder: &mut BatchEncoder, batch: &RecordBatch) -> Result<(Spilled, u64), RemoteError> {
        let mut messages = Vec::new();
        encoder.encode(batch, &mut |message| {
            messages.push(message);
            Ok(())
        })?;
        let bytes = messages.iter().map(|message| message.arrow_bytes() as u64).sum();
        let (file, mut offset) = self.reserve(bytes)?;
        let mut pieces = Vec::with_capacity(messages.len());
        for message in &messages {
            pieces.push(Piece {
                offset,
                header_bytes: message.header.len(),
                body_bytes: message.body_bytes(),
            });
            for bytes in iter::once(&message.header).chain(message.body()) {
                file.write_all_at(bytes, offset)
                    .map_err(|error| self.failed("writing", &error))?;
                offset += bytes.len() as u64;
            }
        }
        let spilled = Spilled {
            file,
            pieces: pieces.into(),
            rows: batch.num_rows(),
        };
        Ok((spilled, bytes))
    }

    /// Room at the file's end.
    fn reserve(&self, bytes: u64) -> Result<(Arc<File>, u64), RemoteError> {
        let full = || {
            RemoteError::new(
                ExceptionType::OutOfMemory,
                format!(
                    "the exchanges of this duckling's queries would take more than {} MiB of disk, their limit",
                    self.budget.disk_bytes_max() >> 20
                ),
            )
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.as_mut() {
            if !open.charge.grow(bytes) {
                return Err(full());
            }
            let offset = open.end;
            open.end += bytes;
            return Ok((Arc::clone(&open.file), offset));
        }
        let charge = self.budget.disk(bytes).ok_or_else(full)?;
        let file = tempfile::tempfile_in(&self.directory).map_err(|error| self.failed("making a file", &error))?;
        let file = Arc::new(file);
        *open = Some(Open {
            file: Arc::clone(&file),
            end: bytes,
            charge,
        });
        Ok((file, 0))
    }

    /// Gives the disk back, as soon as nobody reads any more.
    pub fn clear(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn failed(&self, what: &str, error: &std::io::Error) -> RemoteError {
        RemoteError::new(
            ExceptionType::Io,
            format!(
                "{what} in {} for an exchange that does not fit into memory: {error}",
                self.directory.display()
            ),
        )
    }
}

impl Spilled {
    /// The batch's Arrow messages. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub fn messages(&self) -> Result<Vec<Message>, RemoteError> {
        self.pieces.iter().map(|piece| self.read(*piece)).collect()
    }

    /// The batch. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub fn batch(&self, schema: &SchemaRef) -> Result<RecordBatch, RemoteError> {
        let failed = |error| RemoteError::new(ExceptionType::Io, format!("an exchange's rows on disk: {error}"));
        let no_dictionaries = HashMap::new();
        let batches = self
            .messages()?
            .into_iter()
            .map(|message| {
                flight_data_to_arrow_batch(&message.into(), Arc::clone(schema), &no_dictionaries).map_err(failed)
            })
            .collect::<Result<Vec<_>, _>>()?;
        match batches.as_slice() {
            [one] => Ok(one.clone()),
            several => concat_batches(schema, several).map_err(failed),
        }
    }

    fn read(&self, piece: Piece) -> Result<Message, RemoteError> {
        let read = |offset, bytes| {
            let mut buffer = vec![0; bytes];
            self.file
                .read_exact_at(&mut buffer, offset)
                .map(|()| buffer)
                .map_err(|error| RemoteError::new(ExceptionType::Io, format!("an exchange's rows on disk: {error}")))
        };
        let header = read(piece.offset, piece.header_bytes)?;
        let body = read(piece.offset + piece.header_bytes as u64, piece.body_bytes)?;
        Ok(Message::of_arrow(header, vec![body.into()]))
    }
}
