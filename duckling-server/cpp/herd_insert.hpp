//! INSERT into a herd's table: rows go to the workers of their partitions.
#pragma once

#include "herd_bridge.hpp"
#include "herd_placement.hpp"

#include "duckdb/execution/physical_plan_generator.hpp"
#include "duckdb/planner/logical_operator.hpp"

namespace herd {

//! What rows go into.
struct InsertTarget {
	//! The table's schema and name; of a temporary one just the name.
	duckdb::string schema_name;
	duckdb::string table_name;
	Placement placement;
	//! Where the partition's keys are among the columns.
	duckdb::vector<duckdb::idx_t> key_columns;
	duckdb::vector<duckdb::string> column_names;
	//! The table is made for the rows.
	bool temporary = false;
};

//! A sink for the rows of `source`, and a source of their number.
duckdb::PhysicalOperator &MakeHerdInsert(duckdb::PhysicalPlanGenerator &planner, InsertTarget target,
                                         duckdb::PhysicalOperator &source, duckdb::idx_t estimated_cardinality);

//! Puts our operator where `op` inserts into a herd's table; whether it did.
bool PlanHerdInsert(duckdb::unique_ptr<duckdb::LogicalOperator> &op);

} // namespace herd
