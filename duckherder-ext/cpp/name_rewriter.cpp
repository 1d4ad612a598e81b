#include "name_rewriter.hpp"

#include "remote_catalog.hpp"

#include "duckdb/parser/constraints/check_constraint.hpp"
#include "duckdb/parser/expression/columnref_expression.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/expression/function_expression.hpp"
#include "duckdb/parser/expression/subquery_expression.hpp"
#include "duckdb/optimizer/remote_pushdown_optimizer.hpp"
#include "duckdb/parser/parsed_data/alter_table_info.hpp"
#include "duckdb/parser/parsed_data/create_index_info.hpp"
#include "duckdb/parser/parsed_data/create_macro_info.hpp"
#include "duckdb/parser/parsed_data/create_table_info.hpp"
#include "duckdb/parser/parsed_data/create_type_info.hpp"
#include "duckdb/parser/parsed_data/create_view_info.hpp"
#include "duckdb/parser/parsed_data/drop_info.hpp"
#include "duckdb/parser/parsed_expression_iterator.hpp"
#include "duckdb/parser/query_node/insert_query_node.hpp"
#include "duckdb/parser/query_node/recursive_cte_node.hpp"
#include "duckdb/parser/statement/alter_statement.hpp"
#include "duckdb/parser/statement/create_statement.hpp"
#include "duckdb/parser/query_node/delete_query_node.hpp"
#include "duckdb/parser/query_node/merge_query_node.hpp"
#include "duckdb/parser/query_node/update_query_node.hpp"
#include "duckdb/parser/statement/delete_statement.hpp"
#include "duckdb/parser/statement/drop_statement.hpp"
#include "duckdb/parser/statement/insert_statement.hpp"
#include "duckdb/parser/statement/merge_into_statement.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/statement/update_statement.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/planner/binder.hpp"

namespace duckherder {

using namespace duckdb;

NameRewriter::NameRewriter(ClientContext &context, RemoteCatalog &catalog) : context(context), catalog(catalog) {
}

QualifiedName SequenceOf(ClientContext &context, const FunctionExpression &function) {
	auto &arguments = function.GetArguments();
	auto of_sequence = function.FunctionName() == Identifier("nextval") || function.FunctionName() == Identifier("currval");
	if (!of_sequence || arguments.size() != 1 ||
	    arguments[0].GetExpression().GetExpressionClass() != ExpressionClass::CONSTANT) {
		return QualifiedName();
	}
	auto &literal = arguments[0].GetExpression().Cast<ConstantExpression>().GetLiteral();
	if (literal.kind != LiteralKind::STRING) {
		return QualifiedName();
	}
	auto name = QualifiedName::Parse(literal.text);
	// Two parts are a schema and a name, or a catalog and a name.
	if (name.Path().size() == 2 && Catalog::GetCatalogEntry(context, name.Path()[0])) {
		return QualifiedName(name.Path()[0], Identifier(), name.Name());
	}
	// Of schemas in schemas the first is no catalog.
	if (name.Path().size() > 2 && !Catalog::GetCatalogEntry(context, name.Path()[0])) {
		return QualifiedName();
	}
	return name;
}

bool ResolveAlias(RemoteCatalog &catalog, vector<Identifier> &schema_path, string &table_name) {
	if (schema_path.size() != 1 || schema_path[0] != Identifier::DefaultSchema()) {
		return false;
	}
	Buffer remote_schema;
	Buffer remote_table;
	auto found = Check([&](DhBuffer *error) {
		return Api().alias_resolve(catalog.Remote()->Get(), Text(table_name), remote_schema.Slot(), remote_table.Slot(),
		                           error);
	});
	if (found) {
		auto schema = remote_schema.ToString();
		schema_path = {schema.empty() ? Identifier::DefaultSchema() : Identifier(schema)};
		table_name = remote_table.ToString();
	}
	return found;
}

bool NameRewriter::Resolve(QualifiedName &name) const {
	if (name.Schema().empty() && hidden.find(name.Name()) != hidden.end()) {
		return false;
	}
	vector<Identifier> schema_path(name.Path().begin(), name.Path().end() - 1);
	if (schema_path.empty()) {
		schema_path.push_back(Identifier::DefaultSchema());
	}
	auto table_name = name.Name().GetIdentifierName();
	auto found = ResolveAlias(catalog, schema_path, table_name);
	if (found) {
		name = QualifiedName(std::move(schema_path), Identifier(table_name));
	}
	return found;
}

void NameRewriter::RewriteTable(TableRef &ref) {
	if (ref.type != TableReferenceType::BASE_TABLE) {
		return;
	}
	auto &table = ref.Cast<BaseTableRef>();
	auto local_name = table.Table();
	if (Resolve(table.GetQualifiedNameMutable()) && table.alias.empty()) {
		// Columns qualified with the local name keep their meaning.
		table.alias = local_name;
	}
}

void NameRewriter::RewriteExpression(ParsedExpression &expression) {
	if (expression.GetExpressionClass() == ExpressionClass::FUNCTION) {
		auto &function = expression.Cast<FunctionExpression>();
		auto sequence = SequenceOf(context, function);
		if (sequence.Catalog() == catalog.GetName()) {
			auto remote_name = sequence;
			remote_name.StripCatalog();
			function.GetArgumentsMutable()[0].GetExpressionMutable() =
			    ConstantExpression::String(remote_name.ToString());
		}
	}
	if (expression.GetExpressionClass() == ExpressionClass::SUBQUERY) {
		Rewrite(*expression.Cast<SubqueryExpression>().SubqueryMutable()->node);
	}
	ParsedExpressionIterator::EnumerateChildren(
	    expression, [&](unique_ptr<ParsedExpression> &child) { RewriteExpression(*child); });
}

//! Columns of an index name no other table than its own: the name can go.
static void StripTable(ParsedExpression &expression, const Identifier &table) {
	if (expression.GetExpressionClass() == ExpressionClass::COLUMN_REF) {
		auto &column = expression.Cast<ColumnRefExpression>();
		if (column.ColumnNames().size() > 1 && column.ColumnNames()[0] == table) {
			auto &names = column.ColumnNamesMutable();
			names.erase(names.begin());
		}
	}
	ParsedExpressionIterator::EnumerateChildren(
	    expression, [&](unique_ptr<ParsedExpression> &child) { StripTable(*child, table); });
}

void NameRewriter::CollectHidden(QueryNode &node) {
	for (auto &entry : node.cte_map.map) {
		hidden.insert(entry.first);
		if (entry.second->query_node) {
			CollectHidden(*entry.second->query_node);
		}
	}
	if (node.type == QueryNodeType::RECURSIVE_CTE_NODE) {
		hidden.insert(node.Cast<RecursiveCTENode>().ctename);
	}
}

void NameRewriter::Rewrite(QueryNode &node) {
	CollectHidden(node);
	if (node.type == QueryNodeType::INSERT_QUERY_NODE) {
		Resolve(node.Cast<InsertQueryNode>().qualified_name);
	}
	ParsedExpressionIterator::EnumerateQueryNodeChildren(
	    node, [&](unique_ptr<ParsedExpression> &expression) { RewriteExpression(*expression); },
	    [&](TableRef &ref) { RewriteTable(ref); });
}

void NameRewriter::RewriteType(LogicalType &type) const {
	if (type.id() != LogicalTypeId::UNBOUND) {
		return;
	}
	auto expression = UnboundType::GetTypeExpression(type)->Copy();
	RemotePushdownOptimizer::StripCatalogName(*expression, catalog.GetName());
	type = LogicalType::UNBOUND(std::move(expression));
}

void NameRewriter::RewriteDefinition(ParsedExpression &expression) {
	// The optimizer takes catalogs out of queries, and not out of what defines a table.
	RemotePushdownOptimizer::StripCatalogName(expression, catalog.GetName());
	RewriteExpression(expression);
}

void NameRewriter::RewriteColumn(ColumnDefinition &column) {
	RewriteType(column.TypeMutable());
	if (column.Generated()) {
		RewriteDefinition(column.GeneratedExpressionMutable());
	} else if (column.HasDefaultValue()) {
		auto value = column.DefaultValue().Copy();
		RewriteDefinition(*value);
		column.SetDefaultValue(std::move(value));
	}
}

void NameRewriter::RewriteAlter(AlterInfo &info) {
	if (info.type != AlterType::ALTER_SEQUENCE) {
		Resolve(info.GetQualifiedNameMutable());
	}
	if (info.type != AlterType::ALTER_TABLE) {
		return;
	}
	auto &alter = info.Cast<AlterTableInfo>();
	if (alter.alter_table_type == AlterTableType::ADD_COLUMN) {
		RewriteColumn(alter.Cast<AddColumnInfo>().new_column);
	} else if (alter.alter_table_type == AlterTableType::ALTER_COLUMN_TYPE) {
		RewriteType(alter.Cast<ChangeColumnTypeInfo>().target_type);
	}
}

void NameRewriter::Rewrite(SQLStatement &statement) {
	switch (statement.type) {
	case StatementType::SELECT_STATEMENT:
		return Rewrite(*statement.Cast<SelectStatement>().node);
	case StatementType::INSERT_STATEMENT:
		return Rewrite(*statement.Cast<InsertStatement>().node);
	case StatementType::UPDATE_STATEMENT:
		return Rewrite(*statement.Cast<UpdateStatement>().node);
	case StatementType::DELETE_STATEMENT:
		return Rewrite(*statement.Cast<DeleteStatement>().node);
	case StatementType::MERGE_INTO_STATEMENT:
		return Rewrite(*statement.Cast<MergeIntoStatement>().node);
	case StatementType::CREATE_STATEMENT: {
		auto &info = *statement.Cast<CreateStatement>().info;
		if (info.type == CatalogType::TABLE_ENTRY) {
			Resolve(info.GetQualifiedNameMutable());
			for (auto &column : info.Cast<CreateTableInfo>().columns.Logical()) {
				RewriteColumn(const_cast<ColumnDefinition &>(column));
			}
			for (auto &constraint : info.Cast<CreateTableInfo>().constraints) {
				if (constraint->type == ConstraintType::CHECK) {
					RewriteDefinition(*constraint->Cast<CheckConstraint>().expression);
				}
			}
			auto &query = info.Cast<CreateTableInfo>().query;
			if (query) {
				Rewrite(*query->node);
			}
		} else if (info.type == CatalogType::VIEW_ENTRY) {
			Rewrite(*info.Cast<CreateViewInfo>().query->node);
		} else if (info.type == CatalogType::TYPE_ENTRY) {
			RewriteType(info.Cast<CreateTypeInfo>().type);
		} else if (info.type == CatalogType::MACRO_ENTRY || info.type == CatalogType::TABLE_MACRO_ENTRY) {
			for (auto &macro : info.Cast<CreateMacroInfo>().macros) {
				for (auto &type : macro->types) {
					RewriteType(type);
				}
			}
		} else if (info.type == CatalogType::INDEX_ENTRY) {
			// An index has its table's schema.
			auto &index = info.Cast<CreateIndexInfo>();
			QualifiedName table(Identifier(), info.GetQualifiedName().Schema(), index.table);
			auto local_name = index.table;
			if (Resolve(table)) {
				for (auto &expression : index.expressions) {
					StripTable(*expression, local_name);
				}
				for (auto &expression : index.parsed_expressions) {
					StripTable(*expression, local_name);
				}
				index.table = table.Name();
				index.SetQualifiedName(QualifiedName(Identifier(), table.Schema(), index.GetIndexName()));
			}
		}
		break;
	}
	case StatementType::DROP_STATEMENT: {
		auto &info = *statement.Cast<DropStatement>().info;
		if (info.type == CatalogType::TABLE_ENTRY || info.type == CatalogType::VIEW_ENTRY) {
			Resolve(info.GetQualifiedNameMutable());
		}
		break;
	}
	case StatementType::ALTER_STATEMENT:
		RewriteAlter(*statement.Cast<AlterStatement>().info);
		break;
	default:
		break;
	}
}

} // namespace duckherder
