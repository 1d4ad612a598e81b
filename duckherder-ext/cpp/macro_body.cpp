#include "macro_body.hpp"

#include "expression_visitor.hpp"
#include "remote_catalog.hpp"
#include "remote_schema.hpp"

#include "duckdb/catalog/catalog_entry/table_function_catalog_entry.hpp"
#include "duckdb/function/scalar_macro_function.hpp"
#include "duckdb/function/table_macro_function.hpp"
#include "duckdb/parser/expression/cast_expression.hpp"
#include "duckdb/parser/expression/function_expression.hpp"
#include "duckdb/parser/expression/subquery_expression.hpp"
#include "duckdb/parser/expression/type_expression.hpp"
#include "duckdb/parser/expression/window_expression.hpp"
#include "duckdb/parser/query_node/recursive_cte_node.hpp"
#include "duckdb/parser/query_node/select_node.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/parser/tableref/emptytableref.hpp"
#include "duckdb/parser/tableref/subqueryref.hpp"
#include "duckdb/parser/tableref/table_function_ref.hpp"

namespace duckherder {

using namespace duckdb;

MacroBody::MacroBody(ClientContext &context, RemoteSchema &schema) : context(context), schema(schema) {
}

bool MacroBody::Qualify(CreateMacroInfo &macro) {
	for (auto &overload : macro.macros) {
		if (overload->type == MacroType::TABLE_MACRO) {
			Qualify(*overload->Cast<TableMacroFunction>().query_node);
			continue;
		}
		auto &expression = overload->Cast<ScalarMacroFunction>().expression;
		SelectNode body;
		body.from_table = make_uniq<EmptyTableRef>();
		body.select_list.push_back(std::move(expression));
		Qualify(body);
		expression = std::move(body.select_list[0]);
	}
	return means_the_same;
}

void MacroBody::Qualify(QueryNode &body) {
	CollectNames(body);
	VisitExpressions(
	    body,
	    [&](unique_ptr<ParsedExpression> &expression) {
		    if (expression->GetExpressionClass() == ExpressionClass::SUBQUERY) {
			    CollectNames(*expression->Cast<SubqueryExpression>().SubqueryMutable()->node);
		    }
	    },
	    [&](TableRef &ref) {
		    if (ref.type == TableReferenceType::SUBQUERY) {
			    CollectNames(*ref.Cast<SubqueryRef>().subquery->node);
		    } else if (ref.type == TableReferenceType::TABLE_FUNCTION) {
			    table_functions.insert(*ref.Cast<TableFunctionRef>().function);
		    }
	    });
	VisitExpressions(
	    body, [&](unique_ptr<ParsedExpression> &expression) { QualifyExpression(*expression); },
	    [&](TableRef &ref) { QualifyTable(ref); });
}

void MacroBody::CollectNames(QueryNode &node) {
	for (auto &entry : node.cte_map.map) {
		hidden.insert(entry.first);
		if (entry.second->query_node) {
			CollectNames(*entry.second->query_node);
		}
	}
	if (node.type == QueryNodeType::RECURSIVE_CTE_NODE) {
		hidden.insert(node.Cast<RecursiveCTENode>().ctename);
	}
}

optional<QualifiedName> MacroBody::InDuckling(const QualifiedName &name) {
	auto &catalog = schema.catalog.Cast<RemoteCatalog>();
	vector<Identifier> path(name.Path().begin(), name.Path().end() - 1);
	if (path.empty()) {
		path.push_back(Identifier::DefaultSchema());
	} else if (!catalog.FindSchema(catalog.GetCatalogTransaction(context), path)) {
		// It is in another database there.
		return optional<QualifiedName>();
	}
	return QualifiedName::FromCatalogSchema(catalog.GetName(), std::move(path), name.Name());
}

optional<QualifiedName> MacroBody::FindDefinition(DhDefinitionKind kind, const QualifiedName &name) {
	auto full_name = InDuckling(name);
	if (!full_name) {
		return full_name;
	}
	auto &catalog = schema.catalog.Cast<RemoteCatalog>();
	auto &path = full_name->Path();
	auto path_sql = SchemaPathSql(vector<Identifier>(path.begin() + 1, path.end() - 1));
	auto &text = name.Name().GetIdentifierName();
	DefinitionsHandle described;
	auto found = Check([&](DhBuffer *error) {
		return Api().lookup_definition(catalog.Session(context), kind, Text(path_sql), Text(text), false,
		                               InterruptOf(context), described.Slot(), error);
	});
	return found ? full_name : optional<QualifiedName>();
}

bool MacroBody::IsBuiltIn(CatalogType type, const QualifiedName &name) {
	auto &system = Catalog::GetSystemCatalog(context);
	auto transaction = system.GetCatalogTransaction(context);
	for (auto &schema_name : {Identifier::DefaultSchema(), Identifier("pg_catalog")}) {
		auto builtin_schema = system.GetSchema(context, schema_name, OnEntryNotFound::RETURN_NULL);
		if (builtin_schema && builtin_schema->GetEntry(transaction, type, name.Name())) {
			return true;
		}
	}
	return false;
}

void MacroBody::QualifyFunction(QualifiedName &name, CatalogType type) {
	// These tell of the session or the database that they run in.
	static const identifier_set_t ABOUT_WHERE_IT_RUNS {
	    "nextval",          "currval",        "setval",          "getvariable",  "current_setting", "current_database",
	    "current_schema",   "current_schemas", "current_catalog", "in_search_path", "txid_current",   "current_user",
	    "current_query_id", "current_transaction_id", "current_connection_id", "query",          "query_table"};
	if (ABOUT_WHERE_IT_RUNS.find(name.Name()) != ABOUT_WHERE_IT_RUNS.end()) {
		means_the_same = false;
		return;
	}
	auto kind = type == CatalogType::TABLE_FUNCTION_ENTRY ? DhTableMacro : DhMacro;
	auto full_name = FindDefinition(kind, name);
	if (full_name) {
		name = *full_name;
	} else if (name.Path().size() > 1 || !IsBuiltIn(type, name)) {
		means_the_same = false;
	}
}

void MacroBody::QualifyType(ParsedExpression &expression) {
	if (expression.GetExpressionClass() != ExpressionClass::TYPE) {
		return;
	}
	auto &type = expression.Cast<TypeExpression>();
	auto full_name = FindDefinition(DhType, type.GetQualifiedName());
	if (full_name) {
		type.SetQualifiedName(*full_name);
	} else if (type.GetQualifiedName().Path().size() > 1 || !IsBuiltIn(CatalogType::TYPE_ENTRY, type.GetQualifiedName())) {
		means_the_same = false;
	}
	for (auto &child : type.GetChildren()) {
		QualifyType(*child);
	}
}

void MacroBody::QualifyExpression(ParsedExpression &expression) {
	switch (expression.GetExpressionClass()) {
	case ExpressionClass::FUNCTION:
		if (table_functions.find(expression) == table_functions.end()) {
			QualifyFunction(expression.Cast<FunctionExpression>().GetQualifiedNameMutable(),
			                CatalogType::SCALAR_FUNCTION_ENTRY);
		}
		break;
	case ExpressionClass::WINDOW:
		QualifyFunction(expression.Cast<WindowExpression>().GetQualifiedNameMutable(),
		                CatalogType::SCALAR_FUNCTION_ENTRY);
		break;
	case ExpressionClass::CAST:
		QualifyType(expression.Cast<CastExpression>().TargetTypeMutable());
		break;
	case ExpressionClass::TYPE:
		QualifyType(expression);
		break;
	default:
		break;
	}
}

//! Whether a table function makes its rows of its arguments alone.
static bool MakesRowsOfArguments(ClientContext &context, const QualifiedName &name) {
	auto &system = Catalog::GetSystemCatalog(context);
	auto &schema = system.GetSchema(context, Identifier::DefaultSchema());
	auto entry =
	    schema.GetEntry(system.GetCatalogTransaction(context), CatalogType::TABLE_FUNCTION_ENTRY, name.Name());
	if (!entry || entry->type != CatalogType::TABLE_FUNCTION_ENTRY) {
		return false;
	}
	for (auto &overload : entry->Cast<TableFunctionCatalogEntry>().functions.functions) {
		if (overload->return_type == TableFunctionReturnType::SET_RETURNING_FUNCTION) {
			return true;
		}
	}
	return false;
}

void MacroBody::QualifyTable(TableRef &ref) {
	switch (ref.type) {
	case TableReferenceType::BASE_TABLE: {
		auto &table = ref.Cast<BaseTableRef>();
		auto &name = table.GetQualifiedName();
		if (name.Path().size() == 1 && hidden.find(name.Name()) != hidden.end()) {
			return;
		}
		auto full_name = InDuckling(name);
		if (full_name) {
			table.SetQualifiedName(*full_name);
		} else {
			means_the_same = false;
		}
		return;
	}
	case TableReferenceType::TABLE_FUNCTION: {
		auto &name = ref.Cast<TableFunctionRef>().function->Cast<FunctionExpression>().GetQualifiedNameMutable();
		QualifyFunction(name, CatalogType::TABLE_FUNCTION_ENTRY);
		if (name.Path().size() == 1 && !MakesRowsOfArguments(context, name)) {
			// Of a file, say, that is there.
			means_the_same = false;
		}
		return;
	}
	case TableReferenceType::SUBQUERY:
	case TableReferenceType::JOIN:
	case TableReferenceType::EXPRESSION_LIST:
	case TableReferenceType::EMPTY_FROM:
		return;
	default:
		means_the_same = false;
	}
}

} // namespace duckherder
