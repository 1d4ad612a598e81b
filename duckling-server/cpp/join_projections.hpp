//! What joins leave out of the columns below them.

#pragma once

#include "duckdb/planner/logical_operator.hpp"

namespace duckdb {
class Binder;
}

namespace duckling {

//! Has no join leave out columns that cannot: a projection above it does.
//!
//! Joins without an equality become nested loops, which give all columns in DuckDB 2.0.0, whatever the join's projection map
//! says, and the chunk that they are to fill has too few: `PhysicalJoin::ConstructAntiJoinResult`, for one, throws an internal
//! error. Such maps are left over from the rewriting of subqueries (`ColumnBindingRewrite::RewriteChild`) where no later
//! optimizer clears them.
void ProjectAboveJoins(duckdb::Binder &binder, duckdb::unique_ptr<duckdb::LogicalOperator> &plan);

} // namespace duckling
