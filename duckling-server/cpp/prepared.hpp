//! Statements that are run again and again, with other constants.
#pragma once

#include "duckdb.hpp"
#include "duckdb/main/prepared_statement.hpp"
#include "duckdb/main/prepared_statement_data.hpp"
#include "duckdb/parser/literal.hpp"
#include "duckdb/parser/qualified_name.hpp"
#include "duckdb/parser/statement/execute_statement.hpp"

namespace duckling {

//! A constant of a statement.
struct Constant {
	duckdb::Literal literal;
	//! What it is cast to; invalid if it is not.
	duckdb::LogicalType cast = duckdb::LogicalTypeId::INVALID;
	//! Where its literal begins in the statement, in bytes, if that is known.
	duckdb::optional_idx offset;
};

struct Prepared;

//! What is done with the constants of a kind of statements.
class Constants {
public:
	virtual ~Constants() = default;

	//! Values of these types; nothing if one of them may mean something else as such.
	virtual duckdb::optional<duckdb::vector<duckdb::Value>>
	ToValues(duckdb::ClientContext &context, const duckdb::vector<Constant> &constants,
	         const duckdb::vector<duckdb::LogicalType> &types) const = 0;
	//! Has what was prepared run with these values.
	virtual void Bind(Prepared &prepared, duckdb::vector<duckdb::Value> values,
	                  duckdb::ExecuteStatement &execution) const = 0;
	//! Runs what was prepared, is short, and has been bound to these values, in the transaction that is open. `take` gets its
	//! rows. None of DuckDB's executor, its tasks and its other threads has part in it: these take longer than all the rest.
	virtual void RunShort(duckdb::ClientContext &context, const Prepared &prepared,
	                      const duckdb::vector<duckdb::Value> &values,
	                      const std::function<void(duckdb::DataChunk &)> &take) const = 0;
};

//! What statements with other constants have in common, as soon as one of them is prepared.
struct Prepared {
	//! The table that was meant, to be compared only: a change of the table is another entry.
	const void *table = nullptr;
	duckdb::QualifiedName table_name;
	//! Of the constants; none if statements of the like are not to be prepared.
	duckdb::vector<duckdb::LogicalType> types;
	//! Of the statements' kind.
	duckdb::optional_ptr<const Constants> kind;
	//! Null if its like has been seen once only, or cannot be prepared. Takes it off the connection when it goes.
	duckdb::unique_ptr<duckdb::PreparedStatement> handle;
	//! Of `handle`.
	duckdb::shared_ptr<duckdb::PreparedStatementData> data;
	//! It yields one row at most, and looks at no others.
	bool is_short = false;
	//! Of an INSERT that is short: which of the values is that of each column.
	duckdb::vector<duckdb::idx_t> values_of_columns;
	//! How its rows become Arrow, and a number for it: with other properties the schema is another one.
	duckdb::optional<duckdb::ClientProperties> properties;
	duckdb::idx_t schema_number = 0;
	//! How often it was tried: that it failed may have been for the constants.
	duckdb::idx_t tries = 0;

	void Forget() {
		data = nullptr;
		handle = nullptr;
		is_short = false;
		properties.reset();
		tries = 0;
	}
};

//! A statement of which only the constants differ from others.
class Repeated {
public:
	virtual ~Repeated() = default;

	//! What is the same in all of them, as it was written.
	virtual duckdb::string Key() const = 0;
	virtual const duckdb::QualifiedName &TableName() const = 0;
	virtual const Constants &Kind() const = 0;
	virtual duckdb::vector<Constant> GetConstants() const = 0;
	//! The types that its constants are to have; none unless a plan for it depends on nothing but the table.
	virtual duckdb::vector<duckdb::LogicalType> Types(duckdb::ClientContext &context,
	                                                  duckdb::TableCatalogEntry &table) const = 0;
	//! Prepares what runs in its place, if that can be done.
	virtual void Prepare(duckdb::ClientContext &context, Prepared &prepared) const = 0;
};

//! `statement` as an INSERT of one row of constants, or null.
duckdb::unique_ptr<Repeated> RepeatedInsert(duckdb::SQLStatement &statement);

//! `statement` as a query of the rows of a table where one column is a constant, or null.
duckdb::unique_ptr<Repeated> RepeatedLookup(duckdb::SQLStatement &statement);

//! The table of that name; null if there is none.
duckdb::optional_ptr<duckdb::TableCatalogEntry> TableOf(duckdb::ClientContext &context,
                                                        const duckdb::QualifiedName &name);

//! Types whose values are the same whether they come as a parameter or as a constant in the text.
bool IsPlain(const duckdb::LogicalType &type);

//! Spares the execution of a plan that is kept the optimizer, which has nothing to do.
void SkipOptimizer(duckdb::BoundStatement &bound);

} // namespace duckling
