#include "herd_route.hpp"

#include "herd_bridge.hpp"
#include "herd_json.hpp"
#include "herd_placement.hpp"
#include "herd_scan.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/parser/expression/columnref_expression.hpp"
#include "duckdb/parser/expression/comparison_expression.hpp"
#include "duckdb/parser/expression/conjunction_expression.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/expression/function_expression.hpp"
#include "duckdb/parser/parsed_expression_iterator.hpp"
#include "duckdb/parser/query_node/select_node.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/planner/binder.hpp"

namespace herd {

using namespace duckdb;

namespace {

//! Functions that give the same on every node. There are more; a name that is missing costs time only.
bool IsEverywhereTheSame(ClientContext &context, const FunctionExpression &call) {
	static const case_insensitive_set_t NAMES = {"avg", "count", "count_star", "max", "min", "sum"};
	auto &name = call.GetQualifiedName();
	if (name.Path().size() > 1 || call.ExportState()) {
		return false;
	}
	if (!call.IsOperator() && !NAMES.count(name.Name().GetIdentifierName())) {
		return false;
	}
	for (auto type : {CatalogType::SCALAR_FUNCTION_ENTRY, CatalogType::MACRO_ENTRY}) {
		EntryLookupInfo lookup(type, Binder::CreateBinder(context)->BindTableName(name));
		auto entry = Catalog::GetEntry(context, lookup, OnEntryNotFound::RETURN_NULL);
		if (entry && !entry->internal) {
			return false;
		}
	}
	return true;
}

bool IsPlain(ClientContext &context, const ParsedExpression &expression) {
	switch (expression.GetExpressionClass()) {
	case ExpressionClass::BETWEEN:
	case ExpressionClass::CASE:
	case ExpressionClass::CAST:
	case ExpressionClass::COLUMN_REF:
	case ExpressionClass::COMPARISON:
	case ExpressionClass::CONJUNCTION:
	case ExpressionClass::CONSTANT:
	case ExpressionClass::OPERATOR:
	case ExpressionClass::STAR:
	case ExpressionClass::TYPE:
		break;
	case ExpressionClass::FUNCTION:
		if (!IsEverywhereTheSame(context, expression.Cast<FunctionExpression>())) {
			return false;
		}
		break;
	default:
		return false;
	}
	bool plain = true;
	ParsedExpressionIterator::EnumerateChildren(
	    expression, [&](const ParsedExpression &child) { plain = plain && IsPlain(context, child); });
	return plain;
}

//! Whether a literal, compared with a column of this type, is of the column's type.
bool Fits(const Literal &literal, const LogicalType &type) {
	if (type.HasAlias()) {
		return false;
	}
	return literal.kind == LiteralKind::INTEGER
	           ? type.IsIntegral()
	           : literal.kind == LiteralKind::STRING && type == LogicalType::VARCHAR;
}

//! A key's literal: where it stands, and the column's type.
optional<string> KeyOf(const ParsedExpression &condition, const ColumnDefinition &column, const BaseTableRef &table) {
	if (condition.GetExpressionType() == ExpressionType::CONJUNCTION_AND) {
		for (auto &part : condition.Cast<ConjunctionExpression>().GetChildren()) {
			auto key = KeyOf(*part, column, table);
			if (key) {
				return key;
			}
		}
		return optional<string>();
	}
	if (condition.GetExpressionType() != ExpressionType::COMPARE_EQUAL ||
	    condition.GetExpressionClass() != ExpressionClass::COMPARISON) {
		return optional<string>();
	}
	auto &comparison = condition.Cast<ComparisonExpression>();
	auto swaps = comparison.Left().GetExpressionClass() == ExpressionClass::CONSTANT;
	auto &left = swaps ? comparison.Right() : comparison.Left();
	auto &right = swaps ? comparison.Left() : comparison.Right();
	if (left.GetExpressionClass() != ExpressionClass::COLUMN_REF ||
	    right.GetExpressionClass() != ExpressionClass::CONSTANT || !right.HasQueryLocation()) {
		return optional<string>();
	}
	auto &names = left.Cast<ColumnRefExpression>().ColumnNames();
	// With a table's name before it, it might be a field of a column of that name.
	if (names.size() != 1 || names[0] != column.Name()) {
		return optional<string>();
	}
	auto &literal = right.Cast<ConstantExpression>().GetLiteral();
	if (!Fits(literal, column.Type())) {
		return optional<string>();
	}
	return "{\"offset\":" + to_string(right.GetQueryLocation().Start()) + ",\"text\":" + JsonText(literal.text) +
	       ",\"type\":" + JsonText(column.Type().ToString()) + "}";
}

string Describe(ClientContext &context, SelectNode &node) {
	if (!node.cte_map.map.empty() || node.sample || !node.where_clause || !node.from_table ||
	    node.from_table->type != TableReferenceType::BASE_TABLE) {
		return string();
	}
	auto &from = node.from_table->Cast<BaseTableRef>();
	if (from.at_clause || from.sample || !from.column_name_alias.empty() || from.GetQualifiedName().Path().size() > 2) {
		return string();
	}
	auto binder = Binder::CreateBinder(context);
	EntryLookupInfo lookup(CatalogType::TABLE_ENTRY, binder->BindTableName(from.GetQualifiedName()));
	auto entry = Catalog::GetEntry(context, lookup, OnEntryNotFound::RETURN_NULL);
	if (!entry || entry->type != CatalogType::TABLE_ENTRY) {
		return string();
	}
	auto &table = entry->Cast<TableCatalogEntry>();
	auto tag = PlacementOf(table);
	if (!tag) {
		return string();
	}
	auto placement = Placement::Parse(*tag);
	if (placement.keys.empty() || !placement.hash_is_known) {
		return string();
	}
	bool plain = true;
	ParsedExpressionIterator::EnumerateQueryNodeChildren(
	    node, [&](unique_ptr<ParsedExpression> &child) { plain = plain && IsPlain(context, *child); });
	ParsedExpressionIterator::EnumerateQueryNodeModifiers(
	    node, [&](unique_ptr<ParsedExpression> &child) { plain = plain && IsPlain(context, *child); });
	if (!plain) {
		return string();
	}
	vector<string> keys;
	for (auto &key : placement.keys) {
		auto literal = KeyOf(*node.where_clause, table.GetColumn(Identifier(key)), from);
		if (!literal) {
			return string();
		}
		keys.push_back(std::move(*literal));
	}
	return "{\"keys\":[" + StringUtil::Join(keys, ",") + "],\"placement\":" + *tag + "}";
}

//! The hash of a row's keys, each given as text.
hash_t HashOfTexts(const HerdText *types, const HerdText *texts, idx_t count) {
	vector<Value> keys;
	for (idx_t i = 0; i < count; i++) {
		LogicalType type(TransformStringToLogicalTypeId(StringOf(types[i])));
		keys.push_back(Value(StringOf(texts[i])).DefaultCastAs(type, true));
	}
	return PartitionHash(keys);
}

} // namespace

string DescribeRoute(ClientContext &context, const SQLStatement &statement) {
	if (statement.type != StatementType::SELECT_STATEMENT) {
		return string();
	}
	auto node = statement.Cast<SelectStatement>().node->Copy();
	if (node->type != QueryNodeType::SELECT_NODE) {
		return string();
	}
	string result;
	context.RunFunctionInTransaction([&]() { result = Describe(context, node->Cast<SelectNode>()); });
	return result;
}

} // namespace herd

using herd::Caught;
using herd::ContextOf;

extern "C" {

char *herd_describe_route(void *connection, const void *statement, char **description) {
	return Caught([&]() {
		auto &parsed = *static_cast<const duckdb::SQLStatement *>(statement);
		*description = strdup(herd::DescribeRoute(ContextOf(connection), parsed).c_str());
	});
}

char *herd_partition_hash(const HerdText *types, const HerdText *texts, size_t count, uint64_t *hash) {
	return Caught([&]() { *hash = herd::HashOfTexts(types, texts, count); });
}
}
