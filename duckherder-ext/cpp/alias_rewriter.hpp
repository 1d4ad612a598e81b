//! Local table names to the remote ones they are registered for, in a statement that is about to be sent.
#pragma once

#include "bridge.hpp"

#include "duckdb/common/identifier.hpp"
#include "duckdb/parser/qualified_name.hpp"

namespace duckherder {

class RemoteCatalog;

//! Replaces a local name by the remote one it is registered for; whether it was.
bool ResolveAlias(RemoteCatalog &catalog, duckdb::string &schema_name, duckdb::string &table_name);

class AliasRewriter {
public:
	explicit AliasRewriter(RemoteCatalog &catalog);

	void Rewrite(duckdb::QueryNode &node);
	void Rewrite(duckdb::SQLStatement &statement);

private:
	//! Replaces a name that is an alias; whether it was one.
	bool Resolve(duckdb::QualifiedName &name) const;
	void RewriteTable(duckdb::TableRef &ref);
	void RewriteExpression(duckdb::ParsedExpression &expression);
	//! Common table expressions hide tables of their names.
	void CollectHidden(duckdb::QueryNode &node);

	RemoteCatalog &catalog;
	duckdb::identifier_set_t hidden;
};

} // namespace duckherder
