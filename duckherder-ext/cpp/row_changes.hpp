//! Changes of a duckling's table whose rows are found out by a plan that runs here, whatever is in it: what goes up is
//! rowids and new values, and one statement there does the rest.
#pragma once

#include "bridge.hpp"

#include "duckdb/execution/physical_plan_generator.hpp"

namespace duckdb {
class LogicalDelete;
class LogicalInsert;
class LogicalMergeInto;
class LogicalUpdate;
} // namespace duckdb

namespace duckherder {

//! INSERT … RETURNING of what `rows` yields: all columns of the table.
duckdb::PhysicalOperator &PlanInsertReturning(duckdb::PhysicalPlanGenerator &planner, duckdb::LogicalInsert &op,
                                              duckdb::PhysicalOperator &rows);

duckdb::PhysicalOperator &PlanRowDelete(duckdb::PhysicalPlanGenerator &planner, duckdb::LogicalDelete &op,
                                        duckdb::PhysicalOperator &rows);

duckdb::PhysicalOperator &PlanRowUpdate(duckdb::ClientContext &context, duckdb::PhysicalPlanGenerator &planner,
                                        duckdb::LogicalUpdate &op, duckdb::PhysicalOperator &rows);

duckdb::PhysicalOperator &PlanRowMerge(duckdb::ClientContext &context, duckdb::PhysicalPlanGenerator &planner,
                                       duckdb::LogicalMergeInto &op, duckdb::PhysicalOperator &rows);

} // namespace duckherder
