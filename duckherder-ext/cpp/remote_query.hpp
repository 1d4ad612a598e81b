//! Statements that run on a duckling, as a table function.
#pragma once

#include "bridge.hpp"

#include "duckdb/function/table_function.hpp"

namespace duckdb {
class ExtensionLoader;
}

namespace duckherder {

class RemoteCatalog;

//! What is known of a statement's result before it runs.
enum class QueryShape : uint8_t {
	//! Rows of a statement without side effects: it starts when it is bound.
	ROWS,
	//! One number: the rows changed. It runs when it is executed.
	COUNT,
	//! No rows, as of ALTER and DROP. It runs when it is executed.
	NOTHING,
	//! No rows either, as of CREATE, whose column has another name and type.
	CREATED,
	//! Rows of a statement with side effects: described when it is bound, run when it is executed.
	DESCRIBED,
	//! It was handed over, but is about this process: it is bound here, as it was written, in place of this.
	LOCAL
};

//! A statement that runs on a duckling as it is.
struct RemoteStatement {
	RemoteCatalog &catalog;
	//! Parameters in it have got their values.
	duckdb::string sql;
	QueryShape shape;
	//! As the server calls the columns; not necessarily unique.
	duckdb::vector<duckdb::Identifier> names;
	//! Those whose values are in the text now.
	duckdb::vector<duckdb::Identifier> parameters;
};

//! The shape of the result of a query, or of a DDL statement.
QueryShape ShapeOf(duckdb::ClientContext &context, duckdb::QueryNode &node);
QueryShape ShapeOf(const duckdb::SQLStatement &statement);

//! A reference to the table function that runs `sql` on the duckling. `parameters` are those that the text contains.
duckdb::unique_ptr<duckdb::TableRef>
MakeRemoteQuery(RemoteCatalog &catalog, const duckdb::string &sql, QueryShape shape,
                duckdb::vector<duckdb::unique_ptr<duckdb::ParsedExpression>> parameters = {});

//! The statement, if all that `plan` does is to run it.
duckdb::optional_ptr<const RemoteStatement> WholeRemoteStatement(const duckdb::LogicalOperator &plan);

//! The statement that a scan runs; null if it is not such a scan.
duckdb::optional_ptr<const RemoteStatement> StatementOfScan(const duckdb::PhysicalOperator &op);

//! Whether `ref` is a call that `MakeRemoteQuery` has made.
bool IsRemoteQuery(const duckdb::TableRef &ref);

//! The function and its data that run a statement whose result columns have `types`, for a plan made without binding.
duckdb::TableFunction MakeStatementScan(RemoteStatement statement, duckdb::vector<duckdb::LogicalType> types,
                                        duckdb::unique_ptr<duckdb::FunctionData> &bind_data);

void RegisterRemoteQuery(duckdb::ExtensionLoader &loader);

} // namespace duckherder
