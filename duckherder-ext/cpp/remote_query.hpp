//! Statements that run on a duckling, and scans of its tables, as table functions.
#pragma once

#include "bridge.hpp"

#include "duckdb/function/table_function.hpp"

namespace duckdb {
class ExtensionLoader;
}

namespace duckherder {

class RemoteCatalog;
class RemoteTable;

//! What is known of a statement's result before it runs.
enum class QueryShape : uint8_t {
	//! Rows of a statement without side effects: it starts when it is bound.
	ROWS,
	//! One number: the rows changed. It runs when it is executed.
	COUNT,
	//! Rows of a statement with side effects: described when it is bound, run when it is executed.
	DESCRIBED
};

//! The shape of a query's result.
QueryShape ShapeOf(duckdb::ClientContext &context, duckdb::QueryNode &node);

//! A reference to the table function that runs `sql` on the duckling.
duckdb::unique_ptr<duckdb::TableRef> MakeRemoteQuery(RemoteCatalog &catalog, const duckdb::string &sql,
                                                     QueryShape shape);

//! The function and its data that scan a table of the duckling.
duckdb::TableFunction MakeTableScan(duckdb::shared_ptr<RemoteTable> table,
                                    duckdb::unique_ptr<duckdb::FunctionData> &bind_data);

void RegisterRemoteQuery(duckdb::ExtensionLoader &loader);

} // namespace duckherder
