#include "herd_bridge.hpp"
#include "herd_changes.hpp"
#include "herd_ddl.hpp"
#include "herd_plan.hpp"
#include "herd_scan.hpp"
#include "herd_source.hpp"
#include "herd_steps.hpp"
#include "join_filters.hpp"
#include "join_projections.hpp"
#include "prepared.hpp"
#include "stored_results.hpp"

#include "duckdb/catalog/catalog_transaction.hpp"
#include "duckdb/main/config.hpp"
#include "duckdb/main/extension/extension_loader.hpp"
#include "duckdb/optimizer/column_binding_replacer.hpp"
#include "duckdb/optimizer/optimizer.hpp"
#include "duckdb/optimizer/optimizer_extension.hpp"
#include "duckdb/planner/planner_extension.hpp"

#include <cstring>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace herd {

using namespace duckdb;

void SetApi(const HerdApi *given);
void BindSession(Connection &connection, const HerdSession *session);

namespace {

bool ReadsHerd(const LogicalOperator &op) {
	if (HerdTableOf(op)) {
		return true;
	}
	for (auto &child : op.children) {
		if (ReadsHerd(*child)) {
			return true;
		}
	}
	return false;
}

void Disable(DBConfig &config, OptimizerType optimizer) {
	if (!config.IsOptimizerDisabled(optimizer)) {
		auto disabled = config.GetDisabledOptimizers();
		disabled.insert(optimizer);
		config.SetDisabledOptimizers(std::move(disabled));
	}
}

void PostBind(PlannerExtensionInput &input, BoundStatement &bound) {
	auto &config = DBConfig::GetConfig(input.context);
	if (config.IsOptimizerDisabled(OptimizerType::EXTENSION)) {
		// Nobody will take the Bloom filters out.
		Disable(config, OptimizerType::JOIN_FILTER_PUSHDOWN);
	}
	if (bound.plan) {
		ReplaceScans(input.context, *bound.plan);
		PlanChangesWithoutOptimizer(input.context, input.binder, bound.plan);
		duckling::StoreResult(input.context, input.binder, bound);
		duckling::SkipOptimizer(bound);
	}
}

//! Whether a connection runs a part of a distributed query.
bool RunsStage(ClientContext &context) {
	auto state = SessionState::Get(context);
	return state && state->cpu_time.Counts();
}

//! DuckDB moves aggregates below joins if it takes that for cheaper. It needs to know well how many rows filters leave over
//! for that. Of a herd's tables the coordinator knows how many values a column has, but not which; and workers take little
//! for much, of a part of a query that they get. The setting is the database's.
void PreOptimize(OptimizerExtensionInput &input, unique_ptr<LogicalOperator> &plan) {
	if (ReadsHerd(*plan) || RunsStage(input.context)) {
		Disable(DBConfig::GetConfig(input.context), OptimizerType::PARTIAL_AGGREGATE_PUSHDOWN);
	}
}

//! Has the workers do what they can of a plan. The plan that is left has the same columns.
void Distribute(OptimizerExtensionInput &input, unique_ptr<LogicalOperator> &plan) {
	auto &context = input.context;
	PlanChanges(context, input.optimizer.binder, plan);
	if (!ReadsHerd(*plan)) {
		return;
	}
	Nodes nodes;
	auto description = DescribePlan(context, *plan, nodes);
	Buffer steps;
	auto status = Check([&](HerdBuffer *error) {
		return Api().distribute(SessionState::Of(context), Text(description), steps.Slot(), error);
	});
	if (status == HerdOk) {
		ApplySteps(context, input.optimizer.binder, plan, nodes, steps.ToString());
	}
}

void Optimize(OptimizerExtensionInput &input, unique_ptr<LogicalOperator> &plan) {
	duckling::WithoutRowIdBloomFilters(*plan);
	duckling::ProjectAboveJoins(input.optimizer.binder, plan);
	RefuseOwnScans(*plan);
	// Workers know nothing of how the coordinator's results leave.
	auto &below = duckling::BelowStored(plan);
	if (&below == &plan) {
		return Distribute(input, plan);
	}
	ColumnBindingReplacer replacer;
	auto bindings = below->GetColumnBindings();
	Distribute(input, below);
	replacer.AddReplacements(bindings, below->GetColumnBindings());
	replacer.VisitOperatorBindings(*plan);
}

void CheckDefaultPartitions(ClientContext &, SetScope, Value &value) {
	if (!value.IsNull() && value.GetValue<uint64_t>() > PARTITIONS_MAX) {
		throw InvalidInputException("%s must be at most %llu", DEFAULT_PARTITIONS, PARTITIONS_MAX);
	}
}

void Install(Connection &connection) {
	auto &database = *connection.context->db;
	auto &config = DBConfig::GetConfig(database);
	PlannerExtension planner;
	planner.post_bind_function = PostBind;
	PlannerExtension::Register(config, planner);
	OptimizerExtension optimizer;
	optimizer.pre_optimize_function = PreOptimize;
	optimizer.optimize_function = Optimize;
	OptimizerExtension::Register(config, optimizer);
	config.AddExtensionOption(DEFAULT_PARTITIONS,
	                          "partitions of a new table without clauses; 0: it stays on the coordinator",
	                          LogicalType::UBIGINT, Value::UBIGINT(0), CheckDefaultPartitions);
	ExtensionLoader loader(database, "duckherder_herd");
	loader.RegisterFunction(ExchangeFunction());
	loader.RegisterFunction(UploadFunction());
	loader.RegisterFunction(ScanFunction());
	loader.RegisterFunction(StateStorageFunction());
}

//! Runs `work`; its error as text that C can take, or null.
template <class WORK>
char *Caught(WORK work) {
	try {
		work();
		return nullptr;
	} catch (std::exception &error) {
		return strdup(ErrorData(error).Message().c_str());
	} catch (...) { // NOLINT: nothing may be thrown into Rust
		return strdup("an unknown error");
	}
}

//! Calls `work` with the connection's count, if it has a session.
template <class WORK>
void WithCpuTime(void *connection, WORK work) {
	auto error = Caught([&]() {
		auto state = SessionState::Get(*static_cast<Connection *>(connection)->context);
		if (state) {
			work(state->cpu_time);
		}
	});
	// Nothing is counted then.
	free(error); // NOLINT
}

} // namespace

} // namespace herd

extern "C" {

char *herd_install(void *connection, const HerdApi *api) {
	return herd::Caught([&]() {
		herd::SetApi(api);
		herd::Install(*static_cast<duckdb::Connection *>(connection));
	});
}

char *herd_bind_session(void *connection, const HerdApi *api, const HerdSession *session) {
	return herd::Caught([&]() {
		// A database without the herd's planner has sessions all the same, and frees them.
		herd::SetApi(api);
		herd::BindSession(*static_cast<duckdb::Connection *>(connection), session);
	});
}

void herd_cpu_begin(void *connection) {
	herd::WithCpuTime(connection, [](herd::CpuTime &cpu_time) { cpu_time.Begin(); });
}

int64_t herd_cpu_end(void *connection) {
	int64_t spent_ns = -1;
	herd::WithCpuTime(connection, [&](herd::CpuTime &cpu_time) { spent_ns = cpu_time.End(); });
	return spent_ns;
}

void herd_error_free(char *error) {
	free(error); // NOLINT
}

void herd_return_freed_blocks() {
#ifdef __GLIBC__
	// Unless it is set, it rises with every larger piece that is freed.
	mallopt(M_MMAP_THRESHOLD, static_cast<int>(DEFAULT_BLOCK_ALLOC_SIZE));
#endif
}
}
