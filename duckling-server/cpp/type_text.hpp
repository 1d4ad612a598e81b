//! Types as text, between ducklings and this extension.
#pragma once

#include "duckdb/common/types.hpp"

namespace duckherder {

//! The text of a column's type. DuckDB's own leaves out the collation of a VARCHAR, without which two of its values are
//! compared in another way.
duckdb::string TypeText(const duckdb::LogicalType &type);

//! Whether `TypeText` says more than DuckDB's own text.
bool IsCollated(const duckdb::LogicalType &type);

} // namespace duckherder
