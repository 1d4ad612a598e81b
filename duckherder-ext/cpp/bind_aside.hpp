//! Binding of one statement in the course of binding another.
#pragma once

#include "duckdb/planner/binder.hpp"

namespace duckherder {

//! Binds `statement` with a binder of its own that has the parameters of `binder`. The plan can take the place of what
//! `binder` has bound: table indexes in it are not given out again. `properties` gets the statement's, if it is not null.
duckdb::BoundStatement BindAside(duckdb::ClientContext &context, duckdb::Binder &binder,
                                 duckdb::SQLStatement &statement,
                                 duckdb::optional_ptr<duckdb::StatementProperties> properties = nullptr);

//! A statement as it was written, parsed anew: binding and optimizing change statements. One that is being prepared or
//! executed has no text of its own, but the query that does so has. Null if it cannot be found.
duckdb::unique_ptr<duckdb::SQLStatement> ParseAgain(duckdb::ClientContext &context,
                                                    const duckdb::SQLStatement &statement);

//! The statement that is being prepared, executed or run, as it was written. Null if it cannot be found.
duckdb::unique_ptr<duckdb::SQLStatement> ParseCurrent(duckdb::ClientContext &context);

} // namespace duckherder
