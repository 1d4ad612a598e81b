//! Names as the server knows them, in a statement that is about to be sent: local table names become the remote ones they
//! are registered for; sequences and types lose the name that the duckling is attached by.
#pragma once

#include "bridge.hpp"

#include "duckdb/common/identifier.hpp"
#include "duckdb/parser/qualified_name.hpp"

namespace duckherder {

class RemoteCatalog;

//! Replaces a local name by the remote one it is registered for; whether it was.
bool ResolveAlias(RemoteCatalog &catalog, duckdb::vector<duckdb::Identifier> &schema_path, duckdb::string &table_name);

//! The sequence that a call of nextval or currval names, with its catalog as far as the name tells; else an empty name.
duckdb::QualifiedName SequenceOf(duckdb::ClientContext &context, const duckdb::FunctionExpression &function);

class NameRewriter {
public:
	NameRewriter(duckdb::ClientContext &context, RemoteCatalog &catalog);

	void Rewrite(duckdb::QueryNode &node);
	void Rewrite(duckdb::SQLStatement &statement);

private:
	//! Replaces a name that is an alias; whether it was one.
	bool Resolve(duckdb::QualifiedName &name) const;
	void RewriteTable(duckdb::TableRef &ref);
	void RewriteExpression(duckdb::ParsedExpression &expression);
	void RewriteType(duckdb::LogicalType &type) const;
	void RewriteDefinition(duckdb::ParsedExpression &expression);
	void RewriteColumn(duckdb::ColumnDefinition &column);
	void RewriteAlter(duckdb::AlterInfo &info);
	//! Common table expressions hide tables of their names.
	void CollectHidden(duckdb::QueryNode &node);

	duckdb::ClientContext &context;
	RemoteCatalog &catalog;
	duckdb::identifier_set_t hidden;
};

} // namespace duckherder
