//! Statements on a duckling that need rows of this process: the rows go up into temporary tables of the session first.
#pragma once

#include "remote_query.hpp"

#include "duckdb/execution/physical_plan_generator.hpp"

namespace duckherder {

//! Rows, and the temporary table of the session that they go into; its columns are `c0`, `c1` …
struct RowsToUpload {
	duckdb::reference<duckdb::PhysicalOperator> rows;
	duckdb::string table_name;
};

//! The name of a temporary table with uploaded rows, in SQL.
duckdb::string UploadedName(const duckdb::string &table_name);

//! Uploads, one after the other, and then the statement, whose result columns have `types`. If some of the rows come from
//! that duckling too, all of it is one transaction there.
duckdb::PhysicalOperator &PlanUploadAndRun(duckdb::PhysicalPlanGenerator &planner, RemoteStatement statement,
                                           const duckdb::vector<duckdb::LogicalType> &types,
                                           const duckdb::vector<RowsToUpload> &uploads,
                                           duckdb::idx_t estimated_cardinality);

} // namespace duckherder
