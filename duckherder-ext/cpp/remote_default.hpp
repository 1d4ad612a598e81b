//! Defaults that the duckling evaluates.
#pragma once

#include "bridge.hpp"

#include "duckdb/parser/expression/function_expression.hpp"
#include "duckdb/parser/query_node.hpp"
#include "duckdb/planner/expression.hpp"

namespace duckdb {
class ExtensionLoader;
class LogicalOperator;
class PhysicalOperator;
} // namespace duckdb

namespace duckherder {

class RemoteCatalog;

//! The default of a duckling's column, with all that may be in it and is known there only: sequences, macros, the clock.
//! It is written as what it is, and bound as a call of a function that stands for it.
class RemoteDefault : public duckdb::FunctionExpression {
public:
	RemoteDefault(const duckdb::Identifier &catalog, const duckdb::string &sql, const duckdb::LogicalType &type);

	duckdb::string ToString() const override;
	duckdb::unique_ptr<duckdb::ParsedExpression> Copy() const override;

private:
	duckdb::Identifier catalog;
	duckdb::string sql;
	duckdb::LogicalType type;
};

//! Whether a bound expression is such a call.
bool IsRemoteDefault(const duckdb::Expression &expression);

//! Whether there is one in a plan, as far as it is below `op`.
bool HasRemoteDefault(duckdb::LogicalOperator &op);
bool HasRemoteDefault(const duckdb::PhysicalOperator &op);

//! Takes the columns that consist of such calls out of the rows of an INSERT, and tells which columns of the table are left.
duckdb::vector<duckdb::PhysicalIndex> LeaveOutDefaults(duckdb::PhysicalOperator &rows);

//! Puts the defaults themselves into a statement for the duckling.
void WriteRemoteDefaults(duckdb::QueryNode &node);

void RegisterRemoteDefault(duckdb::ExtensionLoader &loader);

} // namespace duckherder
