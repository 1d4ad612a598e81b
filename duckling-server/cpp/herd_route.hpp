//! Statements of which each literal says which worker has all their rows.
#pragma once

#include "duckdb.hpp"

namespace herd {

//! If `statement` reads one herd's table and compares each column that the table is partitioned by with a literal: which
//! these are, as JSON for `herd/routes.rs`; else nothing. The statement means the same on the worker that has the rows of
//! these keys as it does here.
duckdb::string DescribeRoute(duckdb::ClientContext &context, const duckdb::SQLStatement &statement);

} // namespace herd
