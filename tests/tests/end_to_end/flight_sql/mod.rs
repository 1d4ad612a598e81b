//! Arrow Flight SQL, as clients speak it that know nothing of us.

mod discovery;
mod endpoints;
mod hostile;
mod ingest;
mod metadata;
mod mutations;
mod options;
mod prepared;
mod sessions;
mod statements;
mod support;
mod transactions;
mod values;
