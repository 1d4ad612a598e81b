#include "result_names.hpp"

#include "bind_aside.hpp"

#include "duckdb/parser/parsed_data/create_table_info.hpp"
#include "duckdb/parser/parsed_expression_iterator.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/parser/query_node/delete_query_node.hpp"
#include "duckdb/parser/query_node/insert_query_node.hpp"
#include "duckdb/parser/query_node/merge_query_node.hpp"
#include "duckdb/parser/query_node/select_node.hpp"
#include "duckdb/parser/query_node/set_operation_node.hpp"
#include "duckdb/parser/query_node/update_query_node.hpp"
#include "duckdb/parser/statement/delete_statement.hpp"
#include "duckdb/parser/statement/insert_statement.hpp"
#include "duckdb/parser/statement/merge_into_statement.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/statement/update_statement.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

using Items = vector<unique_ptr<ParsedExpression>>;

optional_ptr<QueryNode> NodeOf(SQLStatement &statement) {
	switch (statement.type) {
	case StatementType::SELECT_STATEMENT:
		return statement.Cast<SelectStatement>().node.get();
	case StatementType::INSERT_STATEMENT:
		return statement.Cast<InsertStatement>().node.get();
	case StatementType::UPDATE_STATEMENT:
		return statement.Cast<UpdateStatement>().node.get();
	case StatementType::DELETE_STATEMENT:
		return statement.Cast<DeleteStatement>().node.get();
	case StatementType::MERGE_INTO_STATEMENT:
		return statement.Cast<MergeIntoStatement>().node.get();
	default:
		return nullptr;
	}
}

//! The expressions that the result's columns are named after.
optional_ptr<Items> ItemsOf(optional_ptr<QueryNode> node) {
	while (node && node->type == QueryNodeType::SET_OPERATION_NODE) {
		auto &children = node->Cast<SetOperationNode>().children;
		node = children.empty() ? nullptr : children[0].get();
	}
	if (!node) {
		return nullptr;
	}
	switch (node->type) {
	case QueryNodeType::SELECT_NODE:
		return node->Cast<SelectNode>().select_list;
	case QueryNodeType::INSERT_QUERY_NODE:
		return node->Cast<InsertQueryNode>().returning_list;
	case QueryNodeType::UPDATE_QUERY_NODE:
		return node->Cast<UpdateQueryNode>().returning_list;
	case QueryNodeType::DELETE_QUERY_NODE:
		return node->Cast<DeleteQueryNode>().returning_list;
	case QueryNodeType::MERGE_QUERY_NODE:
		return node->Cast<MergeQueryNode>().returning_list;
	default:
		return nullptr;
	}
}

bool IsWord(const Identifier &name) {
	auto &text = name.GetIdentifierName();
	return std::all_of(text.begin(), text.end(), [](char c) { return StringUtil::CharacterIsAlphaNumeric(c) || c == '_'; });
}

//! Whether it is made several columns: `*`, COLUMNS(…) in it.
bool StandsForSeveral(const ParsedExpression &expression) {
	auto found = expression.GetExpressionClass() == ExpressionClass::STAR;
	ParsedExpressionIterator::EnumerateChildren(
	    expression, [&](const ParsedExpression &child) { found = found || StandsForSeveral(child); });
	return found;
}

void Rename(const Items &sent, const Items &typed, vector<Identifier> &names) {
	const auto old_names = names;
	for (idx_t i = 0; i < sent.size(); i++) {
		auto old_name = sent[i]->GetName();
		auto new_name = typed[i]->GetName();
		if (IsWord(Identifier(old_name)) || old_name == new_name) {
			continue;
		}
		idx_t before = 0;
		idx_t expressions = 0;
		for (idx_t k = 0; k < sent.size(); k++) {
			if (sent[k]->GetName() == old_name) {
				before += k < i ? 1 : 0;
				expressions++;
			}
		}
		vector<idx_t> columns;
		for (idx_t k = 0; k < old_names.size(); k++) {
			if (old_names[k].GetIdentifierName() == old_name) {
				columns.push_back(k);
			}
		}
		// What stands for several columns has another name than each of them. If other columns are called like this
		// expression, it is not known which one is meant.
		if (columns.size() == expressions) {
			names[columns[before]] = Identifier(new_name);
		}
	}
}

} // namespace

void NameAsTyped(ClientContext &context, const string &sent, vector<Identifier> &names) {
	if (std::all_of(names.begin(), names.end(), IsWord)) {
		return;
	}
	try {
		Parser parser(context);
		parser.ParseQuery(sent);
		auto typed = ParseCurrent(context);
		auto sent_items = parser.statements.size() == 1 ? ItemsOf(NodeOf(*parser.statements[0])) : nullptr;
		auto typed_items = typed ? ItemsOf(NodeOf(*typed)) : nullptr;
		if (sent_items && typed_items && sent_items->size() == typed_items->size()) {
			Rename(*sent_items, *typed_items, names);
		}
	} catch (std::exception &) { // NOLINT: names are no reason to fail
	}
}

//! The query of CREATE TABLE AS.
static optional_ptr<QueryNode> QueryOf(CreateStatement &statement) {
	if (statement.info->type != CatalogType::TABLE_ENTRY) {
		return nullptr;
	}
	auto &query = statement.info->Cast<CreateTableInfo>().query;
	return query ? query->node.get() : nullptr;
}

void NameAsTyped(ClientContext &context, CreateStatement &statement) {
	auto items = ItemsOf(QueryOf(statement));
	if (!items) {
		return;
	}
	auto typed = ParseAgain(context, statement);
	auto typed_items = typed ? ItemsOf(QueryOf(typed->Cast<CreateStatement>())) : nullptr;
	if (!typed_items || typed_items->size() != items->size()) {
		return;
	}
	for (idx_t i = 0; i < items->size(); i++) {
		auto &item = *(*items)[i];
		Identifier typed_name((*typed_items)[i]->GetName());
		if (!StandsForSeveral(item) && !IsWord(typed_name) && item.GetName() != typed_name.GetIdentifierName()) {
			item.SetAlias(typed_name);
		}
	}
}

} // namespace duckherder
