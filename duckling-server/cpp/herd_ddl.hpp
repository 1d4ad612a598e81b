//! What a statement does to the catalog, and the statements that do it to a herd's tables.
#pragma once

#include "herd_bridge.hpp"

namespace herd {

//! The setting of how many partitions tables without clauses get; 0: they stay on the coordinator.
constexpr const char *DEFAULT_PARTITIONS = "duckherder_default_partitions";

//! `PARTITIONS_MAX` of `duckherder-catalog`.
constexpr duckdb::idx_t PARTITIONS_MAX = 1024;

//! What `statement` does to a herd's tables, as JSON for `herd/ddl.rs`.
duckdb::string DescribeDdl(duckdb::ClientContext &context, const duckdb::SQLStatement &statement);

//! All tables of the herd, as JSON.
duckdb::string DescribeTables(duckdb::ClientContext &context);

//! Which statements a statement consists of, if DuckDB makes several of an ALTER of a herd's table; else none.
duckdb::vector<duckdb::unique_ptr<duckdb::SQLStatement>> PartsOf(duckdb::ClientContext &context,
                                                                 const duckdb::SQLStatement &statement);

//! The CREATE TABLE that makes the coordinator's own, empty table, named `name` if that is not empty.
duckdb::unique_ptr<duckdb::SQLStatement> ShadowTable(duckdb::ClientContext &context,
                                                     const duckdb::SQLStatement &statement,
                                                     const duckdb::string &placement, const duckdb::string &name);

//! The INSERT that fills the table that a CREATE TABLE AS has made, as `ShadowTable`.
duckdb::unique_ptr<duckdb::SQLStatement> FillTable(duckdb::ClientContext &context,
                                                   const duckdb::SQLStatement &statement, const duckdb::string &name);

//! Throws if the plan changes the definition of a herd's table here, and nobody has said that its workers follow.
void CheckDefinitions(duckdb::ClientContext &context, duckdb::LogicalOperator &op);

} // namespace herd
