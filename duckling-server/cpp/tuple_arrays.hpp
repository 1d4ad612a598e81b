//! What DuckDB's hash tables cannot do with tuples.

#pragma once

#include "duckdb/planner/logical_operator.hpp"

namespace duckling {

//! Refuses an optimized plan that would put a tuple with an ARRAY in it, `row([1]::INTEGER[1], 1)`, into a hash table.
//!
//! DuckDB 2.0.0 keeps arrays there as lists. `ArrayType::ConvertToList` makes the type for that, and leaves out those in a
//! TUPLE, but `TupleDataCollection` reads them back as if it had not: the process ends.
//!
//! Throws a NotImplementedException.
void RefuseTuplesOfArrays(duckdb::LogicalOperator &plan);

} // namespace duckling
