//! Arrow Flight SQL, as clients speak it that know nothing of us.

mod prepared;
mod statements;
mod support;
mod transactions;
