#include "row_changes.hpp"

#include "remote_catalog.hpp"
#include "remote_default.hpp"
#include "remote_table.hpp"
#include "upload_and_run.hpp"

#include "duckdb/execution/operator/filter/physical_filter.hpp"
#include "duckdb/execution/operator/projection/physical_projection.hpp"
#include "duckdb/planner/expression/bound_case_expression.hpp"
#include "duckdb/planner/expression/bound_cast_expression.hpp"
#include "duckdb/planner/expression/bound_comparison_expression.hpp"
#include "duckdb/planner/expression/bound_constant_expression.hpp"
#include "duckdb/planner/expression/bound_operator_expression.hpp"
#include "duckdb/planner/expression/bound_reference_expression.hpp"
#include "duckdb/planner/operator/logical_delete.hpp"
#include "duckdb/planner/operator/logical_insert.hpp"
#include "duckdb/planner/operator/logical_merge_into.hpp"
#include "duckdb/planner/operator/logical_update.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

//! What the statement calls the table that it changes.
constexpr const char *TARGET = "__duckherder_target";

string Quoted(const Identifier &name) {
	return SQLIdentifier::ToString(name);
}

RemoteTable &TargetOf(TableCatalogEntry &table) {
	// A column of that name hides what is needed.
	if (table.ColumnExists(Identifier("rowid"))) {
		throw NotImplementedException("rows of this process that change table %s, which has a column \"rowid\": put them "
		                              "into a table of the duckling first",
		                              table.name.GetIdentifierName());
	}
	return table.Cast<RemoteTable>();
}

vector<string> ColumnsOf(const RemoteTable &table) {
	vector<string> names;
	for (auto &column : table.GetColumns().Physical()) {
		names.push_back(Quoted(column.Name()));
	}
	return names;
}

string Returning(vector<string> columns) {
	return " RETURNING " + StringUtil::Join(columns, ", ");
}

unique_ptr<Expression> Reference(const PhysicalOperator &rows, idx_t column) {
	return make_uniq<BoundReferenceExpression>(rows.types[column], column);
}

//! A statement in the making, and the columns that go up for it.
class RowChange {
public:
	RowChange(PhysicalPlanGenerator &planner, RemoteTable &table, TableIndex table_index, PhysicalOperator &rows)
	    : planner(planner), table(table), rows(rows),
	      uploaded("__duckherder_rows_of_" + to_string(table_index.index)) {
	}

	//! Has a column go up; what it is called in the statement.
	string Take(unique_ptr<Expression> column) {
		types.push_back(column->GetReturnType());
		columns.push_back(std::move(column));
		return "r.c" + to_string(columns.size() - 1);
	}
	string Take(idx_t column) {
		return Take(Reference(rows, column));
	}

	string Uploaded() const {
		return UploadedName(uploaded) + " AS r";
	}

	//! The plan of `sql`, which has been given all columns.
	PhysicalOperator &Plan(string sql, const vector<LogicalType> &result_types, idx_t estimated_cardinality) {
		auto &projection = planner.Make<PhysicalProjection>(types, std::move(columns), rows.estimated_cardinality);
		projection.children.push_back(rows);
		RemoteStatement statement {table.GetRemoteCatalog(), std::move(sql), QueryShape::DESCRIBED, {}, {}};
		return PlanUploadAndRun(planner, std::move(statement), result_types, {{projection, uploaded}},
		                        estimated_cardinality);
	}

private:
	PhysicalPlanGenerator &planner;
	RemoteTable &table;
	PhysicalOperator &rows;
	string uploaded;
	vector<LogicalType> types;
	vector<unique_ptr<Expression>> columns;
};

//! An expression as a value for a column of the table.
unique_ptr<Expression> AsColumn(ClientContext &context, unique_ptr<Expression> value, const ColumnDefinition &column) {
	return BoundCastExpression::AddCastToType(context, std::move(value), column.Type());
}

//===--------------------------------------------------------------------===//
// MERGE
//===--------------------------------------------------------------------===//

unique_ptr<Expression> Null(const LogicalType &type) {
	return make_uniq<BoundConstantExpression>(Value(type));
}

unique_ptr<Expression> IsNull(unique_ptr<Expression> expression) {
	auto result = make_uniq<BoundOperatorExpression>(ExpressionType::OPERATOR_IS_NULL, LogicalType::BOOLEAN);
	result->GetChildrenMutable().push_back(std::move(expression));
	return std::move(result);
}

unique_ptr<Expression> If(unique_ptr<Expression> condition, unique_ptr<Expression> then,
                          unique_ptr<Expression> otherwise) {
	return make_uniq<BoundCaseExpression>(std::move(condition), std::move(then), std::move(otherwise));
}

//! An action of MERGE, and its number.
struct NumberedAction {
	MergeActionCondition when;
	BoundMergeIntoAction &action;
	int32_t number;
};

//! MERGE whose rows have been joined already. Each is given the number of the action that it is for, and goes up if there
//! is one.
class RowMerge {
public:
	RowMerge(ClientContext &context, PhysicalPlanGenerator &planner, LogicalMergeInto &op, PhysicalOperator &rows)
	    : context(context), planner(planner), op(op), table(TargetOf(op.table)), rows(rows), number_column(rows.types.size()) {
		for (auto &entry : op.actions) {
			for (auto &action : entry.second) {
				actions.push_back({entry.first, *action, NumericCast<int32_t>(actions.size())});
			}
		}
	}

	PhysicalOperator &Plan() {
		auto &numbered = WithNumbers();
		RowChange change(planner, table, op.table_index, numbered);
		auto sql = "MERGE INTO " + table.RemoteName() + " AS " + TARGET + " USING " + change.Uploaded() + " ON " +
		           TARGET + ".rowid = " + change.Take(op.row_id_start);
		auto number = change.Take(number_column);
		auto empty = true;
		for (auto &numbered_action : actions) {
			if (numbered_action.action.action_type == MergeActionType::MERGE_DO_NOTHING) {
				continue;
			}
			empty = false;
			// Rows without a source have been joined too: they are found by rowid.
			auto by_target = numbered_action.when == MergeActionCondition::WHEN_NOT_MATCHED_BY_TARGET;
			sql += string(by_target ? " WHEN NOT MATCHED" : " WHEN MATCHED") + " AND " + number + " = " +
			       to_string(numbered_action.number) + " THEN " + ActionSql(change, numbered_action);
		}
		if (empty) {
			sql += " WHEN MATCHED THEN DO NOTHING";
		}
		if (op.return_chunk) {
			auto returned = ColumnsOf(table);
			returned.push_back("merge_action");
			sql += Returning(std::move(returned));
		}
		return change.Plan(std::move(sql), op.types, op.estimated_cardinality);
	}

private:
	//! The rows, and behind their columns the number of the action for each; without those that there is none for.
	PhysicalOperator &WithNumbers() {
		auto types = rows.types;
		vector<unique_ptr<Expression>> columns;
		for (idx_t i = 0; i < types.size(); i++) {
			columns.push_back(Reference(rows, i));
		}
		columns.push_back(Number());
		types.push_back(LogicalType::INTEGER);
		auto &projection =
		    planner.Make<PhysicalProjection>(types, std::move(columns), rows.estimated_cardinality);
		projection.children.push_back(rows);
		auto has_action = make_uniq<BoundOperatorExpression>(ExpressionType::OPERATOR_IS_NOT_NULL, LogicalType::BOOLEAN);
		has_action->GetChildrenMutable().push_back(Reference(projection, number_column));
		vector<unique_ptr<Expression>> conditions;
		conditions.push_back(std::move(has_action));
		auto &filter = planner.Make<PhysicalFilter>(types, std::move(conditions), rows.estimated_cardinality);
		filter.children.push_back(projection);
		return filter;
	}

	unique_ptr<Expression> Number() {
		auto of_joined = If(IsNull(Reference(rows, op.row_id_start)),
		                    NumberAmong(MergeActionCondition::WHEN_NOT_MATCHED_BY_TARGET),
		                    NumberAmong(MergeActionCondition::WHEN_MATCHED));
		if (!op.source_marker.IsValid()) {
			return of_joined;
		}
		return If(IsNull(Reference(rows, op.source_marker.GetIndex())),
		          NumberAmong(MergeActionCondition::WHEN_NOT_MATCHED_BY_SOURCE), std::move(of_joined));
	}

	//! The number of the first action whose condition holds. Conditions of those behind it are not evaluated.
	unique_ptr<Expression> NumberAmong(MergeActionCondition when) {
		auto result = Null(LogicalType::INTEGER);
		for (idx_t i = actions.size(); i > 0; i--) {
			auto &numbered = actions[i - 1];
			if (numbered.when != when) {
				continue;
			}
			unique_ptr<Expression> number = make_uniq<BoundConstantExpression>(Value::INTEGER(numbered.number));
			if (numbered.action.action_type == MergeActionType::MERGE_DO_NOTHING) {
				number = Null(LogicalType::INTEGER);
			}
			auto &condition = numbered.action.condition;
			result = condition ? If(std::move(condition), std::move(number), std::move(result)) : std::move(number);
		}
		return result;
	}

	//! A value that is evaluated for the rows of its action only.
	unique_ptr<Expression> For(const NumberedAction &numbered, unique_ptr<Expression> value) {
		auto type = value->GetReturnType();
		auto number = make_uniq<BoundReferenceExpression>(LogicalType::INTEGER, number_column);
		auto is_this = BoundComparisonExpression::Create(
		    ExpressionType::COMPARE_EQUAL, std::move(number),
		    make_uniq<BoundConstantExpression>(Value::INTEGER(numbered.number)));
		return If(std::move(is_this), std::move(value), Null(type));
	}

	string ValueSql(RowChange &change, const NumberedAction &numbered, unique_ptr<Expression> value,
	              const ColumnDefinition &column) {
		if (value->GetExpressionType() == ExpressionType::VALUE_DEFAULT || IsRemoteDefault(*value)) {
			return "DEFAULT";
		}
		return change.Take(For(numbered, AsColumn(context, std::move(value), column)));
	}

	string ActionSql(RowChange &change, const NumberedAction &numbered) {
		auto &action = numbered.action;
		vector<string> values;
		switch (action.action_type) {
		case MergeActionType::MERGE_DELETE:
			return "DELETE";
		case MergeActionType::MERGE_UPDATE:
			for (idx_t i = 0; i < action.columns.size(); i++) {
				auto &column = table.GetColumns().GetColumn(action.columns[i]);
				values.push_back(Quoted(column.Name()) + " = " +
				                 ValueSql(change, numbered, std::move(action.expressions[i]), column));
			}
			return "UPDATE SET " + StringUtil::Join(values, ", ");
		case MergeActionType::MERGE_INSERT:
			for (auto &column : table.GetColumns().Physical()) {
				values.push_back(
				    ValueSql(change, numbered, std::move(action.expressions[column.StorageOid()]), column));
			}
			return "INSERT (" + StringUtil::Join(ColumnsOf(table), ", ") + ") VALUES (" +
			       StringUtil::Join(values, ", ") + ")";
		case MergeActionType::MERGE_ERROR:
			return action.expressions.empty()
			           ? "ERROR"
			           : "ERROR " + change.Take(For(numbered, std::move(action.expressions[0])));
		default:
			throw NotImplementedException("an action of MERGE of this kind on a duckling's table");
		}
	}

	ClientContext &context;
	PhysicalPlanGenerator &planner;
	LogicalMergeInto &op;
	RemoteTable &table;
	PhysicalOperator &rows;
	idx_t number_column;
	vector<NumberedAction> actions;
};

} // namespace

PhysicalOperator &PlanInsertReturning(PhysicalPlanGenerator &planner, LogicalInsert &op, PhysicalOperator &rows) {
	auto &table = op.table.Cast<RemoteTable>();
	vector<string> columns;
	for (auto &column : LeaveOutDefaults(rows)) {
		columns.push_back(Quoted(table.GetColumns().GetColumn(column).Name()));
	}
	RowChange change(planner, table, op.table_index, rows);
	vector<string> values;
	for (idx_t i = 0; i < rows.types.size(); i++) {
		values.push_back(change.Take(i));
	}
	auto sql = "INSERT INTO " + table.RemoteName() + " (" + StringUtil::Join(columns, ", ") + ") SELECT " +
	           StringUtil::Join(values, ", ") + " FROM " + change.Uploaded() + Returning(ColumnsOf(table));
	return change.Plan(std::move(sql), op.types, op.estimated_cardinality);
}

PhysicalOperator &PlanRowDelete(PhysicalPlanGenerator &planner, LogicalDelete &op, PhysicalOperator &rows) {
	auto &table = TargetOf(op.table);
	RowChange change(planner, table, op.table_index, rows);
	auto row_id = change.Take(op.expressions[0]->Cast<BoundReferenceExpression>().Index());
	auto sql = "DELETE FROM " + table.RemoteName() + " WHERE rowid IN (SELECT " + row_id + " FROM " +
	           change.Uploaded() + ")";
	if (op.return_chunk) {
		auto returned = ColumnsOf(table);
		for (auto &entry : table.GetVirtualColumns()) {
			returned.push_back(entry.first == COLUMN_IDENTIFIER_ROW_ID ? "rowid" : "NULL");
		}
		sql += Returning(std::move(returned));
	}
	return change.Plan(std::move(sql), op.types, op.estimated_cardinality);
}

PhysicalOperator &PlanRowUpdate(ClientContext &context, PhysicalPlanGenerator &planner, LogicalUpdate &op,
                                PhysicalOperator &rows) {
	auto &table = TargetOf(op.table);
	if (op.capture_old_rows) {
		throw NotImplementedException("an UPDATE of a duckling's table that asks for the rows as they were");
	}
	RowChange change(planner, table, op.table_index, rows);
	vector<string> values;
	for (idx_t i = 0; i < op.columns.size(); i++) {
		auto &column = table.GetColumns().GetColumn(op.columns[i]);
		auto is_default = op.expressions[i]->GetExpressionType() == ExpressionType::VALUE_DEFAULT;
		auto value = is_default ? "DEFAULT" : change.Take(AsColumn(context, std::move(op.expressions[i]), column));
		values.push_back(Quoted(column.Name()) + " = " + value);
	}
	// DuckDB keeps it behind all others.
	auto row_id = change.Take(rows.types.size() - 1);
	auto sql = "UPDATE " + table.RemoteName() + " AS " + TARGET + " SET " + StringUtil::Join(values, ", ") + " FROM " +
	           change.Uploaded() + " WHERE " + TARGET + ".rowid = " + row_id;
	if (op.return_chunk) {
		sql += Returning(ColumnsOf(table));
	}
	return change.Plan(std::move(sql), op.types, op.estimated_cardinality);
}

PhysicalOperator &PlanRowMerge(ClientContext &context, PhysicalPlanGenerator &planner, LogicalMergeInto &op,
                               PhysicalOperator &rows) {
	return RowMerge(context, planner, op, rows).Plan();
}

} // namespace duckherder
