//! Bodies of a duckling's macros, on their way into statements that are bound here.
#pragma once

#include "bridge.hpp"

#include "duckdb/parser/parsed_data/create_macro_info.hpp"
#include "duckdb/parser/parsed_expression.hpp"
#include "duckdb/parser/query_node.hpp"
#include "duckdb/parser/tableref.hpp"

namespace duckherder {

class RemoteSchema;

class MacroBody {
public:
	MacroBody(duckdb::ClientContext &context, RemoteSchema &schema);

	//! Gives the tables, macros and types of the duckling in the bodies their full names, so that nothing of this process
	//! is taken for them. False if a body would mean something else here than there, or cannot be told.
	bool Qualify(duckdb::CreateMacroInfo &macro);

private:
	void Qualify(duckdb::QueryNode &body);
	void QualifyExpression(duckdb::ParsedExpression &expression);
	void QualifyTable(duckdb::TableRef &ref);
	void QualifyType(duckdb::ParsedExpression &type);
	void QualifyFunction(duckdb::QualifiedName &name, duckdb::CatalogType type);
	//! The name with its catalog, if the schema that it names is the duckling's.
	duckdb::optional<duckdb::QualifiedName> InDuckling(const duckdb::QualifiedName &name);
	//! The same, if the duckling has a type or macro of that name.
	duckdb::optional<duckdb::QualifiedName> FindDefinition(DhDefinitionKind kind, const duckdb::QualifiedName &name);
	bool IsBuiltIn(duckdb::CatalogType type, const duckdb::QualifiedName &name);
	void CollectNames(duckdb::QueryNode &node);

	duckdb::ClientContext &context;
	RemoteSchema &schema;
	//! Common table expressions hide tables of their names.
	duckdb::identifier_set_t hidden;
	//! Calls of table functions, which are expressions too.
	duckdb::reference_set_t<const duckdb::ParsedExpression> table_functions;
	bool means_the_same = true;
};

} // namespace duckherder
