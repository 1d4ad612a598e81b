#include "herd_plan.hpp"

#include "herd_json.hpp"
#include "herd_placement.hpp"
#include "herd_scan.hpp"

#include "duckdb/parser/query_node/select_node.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/expression/cast_expression.hpp"
#include "duckdb/parser/tableref/emptytableref.hpp"
#include "duckdb/planner/expression/bound_columnref_expression.hpp"
#include "duckdb/planner/expression/bound_constant_expression.hpp"
#include "duckdb/planner/expression/bound_function_expression.hpp"
#include "duckdb/planner/expression/bound_window_expression.hpp"
#include "duckdb/planner/expression_iterator.hpp"
#include "duckdb/planner/filter/expression_filter.hpp"
#include "duckdb/planner/logical_operator_visitor.hpp"
#include "duckdb/planner/logical_plan_sql_exporter.hpp"
#include "duckdb/planner/operator/logical_aggregate.hpp"
#include "duckdb/planner/operator/logical_any_join.hpp"
#include "duckdb/planner/operator/logical_comparison_join.hpp"
#include "duckdb/planner/operator/logical_cteref.hpp"
#include "duckdb/planner/operator/logical_distinct.hpp"
#include "duckdb/planner/operator/logical_get.hpp"
#include "duckdb/planner/operator/logical_limit.hpp"
#include "duckdb/planner/operator/logical_materialized_cte.hpp"
#include "duckdb/planner/operator/logical_projection.hpp"
#include "duckdb/planner/operator/logical_set_operation.hpp"
#include "duckdb/planner/operator/logical_window.hpp"

#include "yyjson.hpp"

namespace herd {

using namespace duckdb;
using namespace duckdb_yyjson; // NOLINT

namespace {

string Json(const ColumnBinding &binding) {
	return "[" + to_string(binding.table_index.index) + "," + to_string(binding.column_index.GetIndex()) + "]";
}

string Json(bool value) {
	return value ? "true" : "false";
}

//! The column that an expression is, or null.
string ColumnOf(const Expression &expression) {
	if (expression.GetExpressionClass() != ExpressionClass::BOUND_COLUMN_REF) {
		return "null";
	}
	return Json(expression.Cast<BoundColumnRefExpression>().Binding());
}

string ColumnsOf(const vector<unique_ptr<Expression>> &expressions) {
	return JsonList(expressions.size(), [&](idx_t i) { return ColumnOf(*expressions[i]); });
}

const char *JoinTypeName(JoinType type) {
	switch (type) {
	case JoinType::INNER:
		return "inner";
	case JoinType::LEFT:
		return "left";
	case JoinType::RIGHT:
		return "right";
	case JoinType::OUTER:
		return "outer";
	case JoinType::SEMI:
		return "semi";
	case JoinType::ANTI:
		return "anti";
	case JoinType::MARK:
		return "mark";
	case JoinType::SINGLE:
		return "single";
	case JoinType::RIGHT_SEMI:
		return "right_semi";
	case JoinType::RIGHT_ANTI:
		return "right_anti";
	default:
		return nullptr;
	}
}

string Other(const LogicalOperator &op) {
	return "{\"name\":\"other\",\"kind\":" + JsonText(op.GetName()) + "}";
}

//! Whether a value may be another one elsewhere, or at another time: random numbers, the clock. `error` is not such a
//! function, though DuckDB must not compute it early: a scalar subquery calls it if it has several rows.
bool MustRunHere(const Expression &expression) {
	if (expression.IsConsistent()) {
		return false;
	}
	auto is_function = expression.GetExpressionClass() == ExpressionClass::BOUND_FUNCTION;
	if (is_function) {
		auto &function = expression.Cast<BoundFunctionExpression>().Function();
		if (function.GetStability() != FunctionStability::CONSISTENT && function.GetName() != Identifier("error")) {
			return true;
		}
	}
	auto inconsistent = false;
	auto must = false;
	ExpressionIterator::EnumerateChildren(expression, [&](const Expression &child) {
		inconsistent = inconsistent || !child.IsConsistent();
		must = must || MustRunHere(child);
	});
	auto is_error = is_function && expression.Cast<BoundFunctionExpression>().Function().GetName() == Identifier("error");
	return must || (!inconsistent && !is_error);
}

class Description {
public:
	Description(ClientContext &context, Nodes &nodes) : context(context), nodes(nodes) {
	}

	string Describe(LogicalOperator &op) {
		auto id = nodes.size();
		nodes.push_back(op);
		auto columns = op.GetColumnBindings();
		idx_t row_bytes = 0;
		for (auto &type : op.types) {
			row_bytes += TypeIsConstantSize(type.InternalType()) ? GetTypeIdSize(type.InternalType()) : 24;
		}
		auto kind = Kind(op);
		auto result = "{\"id\":" + to_string(id) + ",\"op\":" + kind;
		result += ",\"columns\":" + JsonList(columns.size(), [&](idx_t i) { return Json(columns[i]); });
		result += ",\"rows\":" + to_string(op.EstimateCardinality(context));
		result += ",\"row_bytes\":" + to_string(MaxValue<idx_t>(row_bytes, 1));
		result += ",\"local\":" + Json(!CanMove(op));
		result += ",\"children\":" + JsonList(op.children.size(), [&](idx_t i) { return Describe(*op.children[i]); });
		return result + "}";
	}

private:
	//! Whether an operator, on any input, means the same on a worker and can be written as SQL.
	bool CanMove(LogicalOperator &op) {
		auto can_move = true;
		LogicalOperatorVisitor::EnumerateExpressions(op, [&](unique_ptr<Expression> *expression) {
			can_move = can_move && !MustRunHere(**expression) && !(*expression)->HasParameter();
		});
		switch (op.type) {
		case LogicalOperatorType::LOGICAL_MATERIALIZED_CTE:
		case LogicalOperatorType::LOGICAL_CTE_REF:
			return can_move;
		default:
			return can_move && CanExport(op);
		}
	}

	//! Tries it with something in the place of its inputs.
	bool CanExport(LogicalOperator &op) {
		vector<LogicalPlanSQLExportReplacement> inputs;
		for (auto &child : op.children) {
			LogicalPlanSQLExportRelation relation;
			auto select = make_uniq<SelectNode>();
			select->from_table = make_uniq<EmptyTableRef>();
			auto bindings = child->GetColumnBindings();
			for (idx_t i = 0; i < bindings.size(); i++) {
				auto null = make_uniq<CastExpression>(child->types[i], ConstantExpression::FromValue(Value()));
				null->SetAlias(Identifier("c" + to_string(i)));
				select->select_list.push_back(std::move(null));
				relation.fields.push_back({bindings[i], child->types[i]});
			}
			if (bindings.empty()) {
				select->select_list.push_back(ConstantExpression::FromValue(Value()));
			}
			relation.query = std::move(select);
			inputs.push_back({*child, std::move(relation)});
		}
		try {
			auto exported = LogicalPlanSQLExporter::ExportWithSources(context, op, inputs);
			if (exported.HasError()) {
				return false;
			}
			for (auto &field : exported.GetValue().fields) {
				if (field.optimizer_type) {
					return false;
				}
			}
			return true;
		} catch (std::exception &error) { // NOLINT: then it stays here
			if (ErrorData(error).Type() == ExceptionType::INTERRUPT) {
				throw;
			}
			return false;
		}
	}

	string Kind(LogicalOperator &op) {
		switch (op.type) {
		case LogicalOperatorType::LOGICAL_GET:
			return HerdTableOf(op) ? ScanKind(op.Cast<LogicalGet>()) : Other(op);
		case LogicalOperatorType::LOGICAL_DUMMY_SCAN:
		case LogicalOperatorType::LOGICAL_EMPTY_RESULT:
			return "{\"name\":\"constant\"}";
		case LogicalOperatorType::LOGICAL_CHUNK_GET:
			return "{\"name\":\"constant\"}";
		case LogicalOperatorType::LOGICAL_EXPRESSION_GET:
			// VALUES: its rows, for each row of its input, which mostly is a dummy scan.
			return "{\"name\":\"unnest\"}";
		case LogicalOperatorType::LOGICAL_FILTER:
			return "{\"name\":\"filter\"}";
		case LogicalOperatorType::LOGICAL_PROJECTION:
			return "{\"name\":\"projection\",\"passes\":" + ColumnsOf(op.expressions) + "}";
		case LogicalOperatorType::LOGICAL_COMPARISON_JOIN:
		case LogicalOperatorType::LOGICAL_ANY_JOIN:
		case LogicalOperatorType::LOGICAL_CROSS_PRODUCT:
			return JoinKind(op);
		case LogicalOperatorType::LOGICAL_AGGREGATE_AND_GROUP_BY:
			return AggregateKind(op.Cast<LogicalAggregate>());
		case LogicalOperatorType::LOGICAL_DISTINCT:
			return DistinctKind(op.Cast<LogicalDistinct>());
		case LogicalOperatorType::LOGICAL_WINDOW:
			return WindowKind(op);
		case LogicalOperatorType::LOGICAL_ORDER_BY:
			return "{\"name\":\"order\"}";
		case LogicalOperatorType::LOGICAL_TOP_N:
			return "{\"name\":\"top_n\"}";
		case LogicalOperatorType::LOGICAL_LIMIT:
			return IsConstant(op.Cast<LogicalLimit>()) ? "{\"name\":\"limit\"}" : Other(op);
		case LogicalOperatorType::LOGICAL_UNION:
		case LogicalOperatorType::LOGICAL_EXCEPT:
		case LogicalOperatorType::LOGICAL_INTERSECT:
			return SetOperationKind(op.Cast<LogicalSetOperation>());
		case LogicalOperatorType::LOGICAL_MATERIALIZED_CTE:
			return "{\"name\":\"cte\",\"index\":" + to_string(op.Cast<LogicalMaterializedCTE>().table_index.index) + "}";
		case LogicalOperatorType::LOGICAL_CTE_REF: {
			auto &ref = op.Cast<LogicalCTERef>();
			if (ref.is_recurring || ref.correlated_columns > 0) {
				return Other(op);
			}
			return "{\"name\":\"cte_ref\",\"index\":" + to_string(ref.cte_index.index) + "}";
		}
		case LogicalOperatorType::LOGICAL_UNNEST:
			return "{\"name\":\"unnest\"}";
		default:
			return Other(op);
		}
	}

	static bool IsConstant(const LogicalLimit &limit) {
		auto constant = [](LimitNodeType type) {
			return type == LimitNodeType::CONSTANT_VALUE || type == LimitNodeType::UNSET;
		};
		return limit.limit_val.Type() == LimitNodeType::CONSTANT_VALUE && constant(limit.offset_val.Type());
	}

	string ScanKind(LogicalGet &get) {
		auto &table = *HerdTableOf(get);
		auto &placement = *PlacementOf(table);
		unique_ptr<yyjson_doc, void (*)(yyjson_doc *)> document(
		    yyjson_read(placement.c_str(), placement.size(), 0), yyjson_doc_free);
		vector<string> keys;
		vector<optional<Value>> values;
		bool fixed = true;
		idx_t index, count;
		yyjson_val *key;
		auto root = document ? yyjson_doc_get_root(document.get()) : nullptr;
		yyjson_arr_foreach(yyjson_obj_get(root, "keys"), index, count, key) {
			auto &column = table.GetColumn(Identifier(yyjson_get_str(key)));
			auto position = get.TryGetProjectionIndex(column.Logical().index);
			auto binding = position.IsValid() ? ColumnBinding(get.table_index, position) : ColumnBinding();
			auto visible = get.GetColumnBindings();
			auto is_visible =
			    position.IsValid() && std::find(visible.begin(), visible.end(), binding) != visible.end();
			keys.push_back(is_visible ? Json(binding) : "null");
			auto value = position.IsValid() ? FixedValue(get, position, column.Type()) : optional<Value>();
			fixed = fixed && value.has_value();
			values.push_back(std::move(value));
		}
		string result = "{\"name\":\"scan\",\"table\":" +
		                JsonText(table.schema.name.GetIdentifierName() + "." + table.name.GetIdentifierName()) +
		                ",\"placement\":" + placement;
		result += ",\"keys\":[" + StringUtil::Join(keys, ",") + "]";
		if (!keys.empty() && fixed) {
			auto partitions = yyjson_arr_size(yyjson_obj_get(root, "partitions"));
			result += ",\"partitions\":[" + to_string(PartitionHash(Known(values)) % partitions) + "]";
		}
		return result + "}";
	}

public:
	static optional<hash_t> FixedBucket(LogicalGet &get, const vector<string> &keys) {
		vector<optional<Value>> values;
		for (auto &key : keys) {
			auto &column = HerdTableOf(get)->GetColumn(Identifier(key));
			auto position = get.TryGetProjectionIndex(column.Logical().index);
			auto value = position.IsValid() ? FixedValue(get, position, column.Type()) : optional<Value>();
			if (!value) {
				return optional<hash_t>();
			}
			values.push_back(std::move(value));
		}
		return values.empty() ? optional<hash_t>() : PartitionHash(Known(values));
	}

private:
	static vector<Value> Known(const vector<optional<Value>> &values) {
		vector<Value> result;
		for (auto &value : values) {
			result.push_back(*value);
		}
		return result;
	}

	//! The one value that a filter leaves for a column.
	static optional<Value> FixedValue(LogicalGet &get, ProjectionIndex position, const LogicalType &type) {
		for (auto &entry : get.table_filters) {
			if (entry.GetIndex() != position || ExpressionFilter::IsOptionalFilter(entry.Filter())) {
				continue;
			}
			BoundColumnRefExpression column(type, ColumnBinding(get.table_index, position));
			auto value = EqualTo(*entry.Filter().ToExpression(column), type);
			if (value) {
				return value;
			}
		}
		return optional<Value>();
	}

	//! The constant that a condition demands of a column, if it does.
	static optional<Value> EqualTo(const Expression &condition, const LogicalType &type) {
		if (condition.GetExpressionType() == ExpressionType::CONJUNCTION_AND) {
			optional<Value> found;
			ExpressionIterator::EnumerateChildren(condition, [&](const Expression &child) {
				if (!found) {
					found = EqualTo(child, type);
				}
			});
			return found;
		}
		if (condition.GetExpressionType() != ExpressionType::COMPARE_EQUAL) {
			return optional<Value>();
		}
		bool has_column = false;
		optional<Value> constant;
		ExpressionIterator::EnumerateChildren(condition, [&](const Expression &child) {
			if (child.GetExpressionClass() == ExpressionClass::BOUND_COLUMN_REF) {
				has_column = true;
			} else if (child.GetExpressionClass() == ExpressionClass::BOUND_CONSTANT) {
				constant = child.Cast<BoundConstantExpression>().GetValue();
			}
		});
		if (!has_column || !constant || constant->type() != type) {
			return optional<Value>();
		}
		return constant;
	}

	string JoinKind(LogicalOperator &op) {
		if (op.type == LogicalOperatorType::LOGICAL_CROSS_PRODUCT) {
			return "{\"name\":\"join\",\"join_type\":\"inner\",\"equalities\":[],\"row_wise\":true}";
		}
		auto &join = op.Cast<LogicalJoin>();
		auto type = JoinTypeName(join.join_type);
		if (!type) {
			return Other(op);
		}
		vector<string> equalities;
		if (op.type == LogicalOperatorType::LOGICAL_COMPARISON_JOIN) {
			auto &comparison = op.Cast<LogicalComparisonJoin>();
			for (idx_t i = 0; i < comparison.conditions.size(); i++) {
				auto &condition = comparison.conditions[i];
				if (!condition.IsComparison()) {
					continue;
				}
				auto nulls_equal = condition.GetComparisonType() == ExpressionType::COMPARE_NOT_DISTINCT_FROM;
				if (condition.GetComparisonType() != ExpressionType::COMPARE_EQUAL && !nulls_equal) {
					continue;
				}
				if (condition.GetLHS().GetReturnType() != condition.GetRHS().GetReturnType()) {
					continue;
				}
				equalities.push_back("{\"condition\":" + to_string(i) + ",\"left\":" + ColumnOf(condition.GetLHS()) +
				                     ",\"right\":" + ColumnOf(condition.GetRHS()) +
				                     ",\"nulls_equal\":" + Json(nulls_equal) + "}");
			}
		}
		return string("{\"name\":\"join\",\"join_type\":\"") + type + "\",\"equalities\":[" +
		       StringUtil::Join(equalities, ",") + "],\"row_wise\":true}";
	}

	string AggregateKind(LogicalAggregate &aggregate) {
		auto single_set = aggregate.grouping_sets.size() <= 1 && aggregate.grouping_functions.empty();
		auto two_phase = true;
		auto order_free = true;
		// What keeps it from two phases is DISTINCT only, and this is the one argument.
		optional_ptr<const Expression> distinct;
		auto only_distinct = single_set;
		for (auto &expression : aggregate.expressions) {
			auto &function = expression->Cast<BoundAggregateExpression>();
			order_free = order_free && IsOrderFree(function);
			if (IsTwoPhase(function)) {
				continue;
			}
			two_phase = false;
			only_distinct = only_distinct && AddsUpDistinct(function) &&
			                (!distinct || distinct->Equals(*function.GetChildren()[0]));
			if (only_distinct) {
				distinct = *function.GetChildren()[0];
			}
		}
		return "{\"name\":\"aggregate\",\"groups\":" + ColumnsOf(aggregate.groups) +
		       ",\"two_phase\":" + Json(two_phase) + ",\"single_set\":" + Json(single_set) +
		       ",\"order_free\":" + Json(order_free) +
		       ",\"distinct\":" + (only_distinct && distinct ? ColumnOf(*distinct) : "null") + "}";
	}

	//! Whether it gives the same to the last bit, whatever the order of its input.
	static bool IsOrderFree(const BoundAggregateExpression &aggregate) {
		static const unordered_set<string> NAMES = {"count",    "count_star", "min",    "max",    "bool_and",
		                                            "bool_or",  "bit_and",    "bit_or", "bit_xor", "sum",
		                                            "sum_no_overflow"};
		auto &children = aggregate.GetChildren();
		auto floats = std::any_of(children.begin(), children.end(), [](const unique_ptr<Expression> &child) {
			return child->GetReturnType().IsFloating();
		});
		auto &name = aggregate.Function().GetName().GetIdentifierName();
		auto adds = name == "sum" || name == "sum_no_overflow";
		return NAMES.count(name) > 0 && !(adds && floats) && children.size() <= 1 &&
		       aggregate.StateExportMode() == AggregateStateExportMode::NONE;
	}

	//! Whether workers that have different values can each compute it with DISTINCT, to be added up.
	static bool AddsUpDistinct(const BoundAggregateExpression &aggregate) {
		static const unordered_set<string> NAMES = {"sum", "sum_no_overflow", "count", "min", "max"};
		return aggregate.IsDistinct() && !aggregate.GetOrderBys() &&
		       aggregate.StateExportMode() == AggregateStateExportMode::NONE && aggregate.GetChildren().size() == 1 &&
		       aggregate.GetChildren()[0]->GetExpressionClass() == ExpressionClass::BOUND_COLUMN_REF &&
		       NAMES.count(aggregate.Function().GetName().GetIdentifierName()) > 0;
	}

	string DistinctKind(LogicalDistinct &distinct) {
		auto plain = distinct.distinct_type == DistinctType::DISTINCT && !distinct.order_by;
		return "{\"name\":\"distinct\",\"targets\":" + ColumnsOf(distinct.distinct_targets) + ",\"plain\":" +
		       Json(plain) + "}";
	}

	string WindowKind(LogicalOperator &op) {
		auto partitions = JsonList(op.expressions.size(), [&](idx_t i) -> string {
			auto &window = op.expressions[i]->Cast<BoundWindowExpression>();
			for (auto &partition : window.Partitions()) {
				if (partition->GetExpressionClass() != ExpressionClass::BOUND_COLUMN_REF) {
					return "null";
				}
			}
			return ColumnsOf(window.Partitions());
		});
		return "{\"name\":\"window\",\"partitions\":" + partitions + "}";
	}

	string SetOperationKind(LogicalSetOperation &operation) {
		auto union_all = operation.type == LogicalOperatorType::LOGICAL_UNION && operation.setop_all;
		return "{\"name\":\"set_operation\",\"union_all\":" + Json(union_all) + "}";
	}

	ClientContext &context;
	Nodes &nodes;
};

} // namespace

bool IsTwoPhase(const BoundAggregateExpression &aggregate) {
	static const unordered_set<string> NAMES = {"sum",     "sum_no_overflow", "count",  "count_star", "min",
	                                            "max",     "bool_and",        "bool_or", "bit_and",    "bit_or",
	                                            "bit_xor", "any_value",       "first",  "avg",        "mean"};
	return !aggregate.IsDistinct() && !aggregate.GetOrderBys() &&
	       aggregate.StateExportMode() == AggregateStateExportMode::NONE && aggregate.GetChildren().size() <= 1 &&
	       NAMES.count(aggregate.Function().GetName().GetIdentifierName()) > 0;
}

optional<hash_t> FixedBucket(LogicalGet &get, const vector<string> &keys) {
	return Description::FixedBucket(get, keys);
}

string DescribePlan(ClientContext &context, LogicalOperator &root, Nodes &nodes) {
	root.ResolveOperatorTypes();
	return Description(context, nodes).Describe(root);
}

} // namespace herd
