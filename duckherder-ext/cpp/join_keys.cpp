#include "join_keys.hpp"

#include "join_projections.hpp"
#include "remote_query.hpp"
#include "table_scan.hpp"

#include "duckdb/main/client_context.hpp"
#include "duckdb/main/client_context_state.hpp"
#include "duckdb/main/settings.hpp"
#include "duckdb/optimizer/optimizer.hpp"
#include "duckdb/optimizer/optimizer_extension.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

//! A hash join hands its keys to the scans of its other side, but no more than `dynamic_or_filter_threshold` of them, which
//! is made for scans of local memory. For a scan of another machine a key costs a few bytes there, and a row that no key
//! matches is sent in vain.
constexpr idx_t KEYS_MAX = 5000;

//! Raises the threshold for one statement.
class JoinKeys : public ClientContextState {
public:
	void Raise(ClientContext &context) {
		Value value;
		if (raised || context.TryGetCurrentUserSetting(DynamicOrFilterThresholdSetting::SettingIndex, value)) {
			// The user has chosen one.
			return;
		}
		context.config.user_settings.SetUserSetting(DynamicOrFilterThresholdSetting::SettingIndex,
		                                            Value::UBIGINT(KEYS_MAX));
		raised = true;
	}

	void QueryEnd(ClientContext &context) override {
		if (raised) {
			context.config.user_settings.ClearSetting(DynamicOrFilterThresholdSetting::SettingIndex);
			raised = false;
		}
	}

private:
	bool raised = false;
};

bool Contains(const LogicalOperator &op, bool (*is_wanted)(const LogicalOperator &)) {
	if (is_wanted(op)) {
		return true;
	}
	for (auto &child : op.children) {
		if (Contains(*child, is_wanted)) {
			return true;
		}
	}
	return false;
}

bool IsHashJoin(const LogicalOperator &op) {
	return op.type == LogicalOperatorType::LOGICAL_COMPARISON_JOIN || op.type == LogicalOperatorType::LOGICAL_DELIM_JOIN;
}

bool IsRemoteScan(const LogicalOperator &op) {
	return TableOfScan(op) != nullptr;
}

bool IsRemote(const LogicalOperator &op) {
	return IsRemoteScan(op) || WholeRemoteStatement(op);
}

void Optimize(OptimizerExtensionInput &input, unique_ptr<LogicalOperator> &plan) {
	if (!Contains(*plan, IsRemote)) {
		return;
	}
	// Remote scans have no statistics, and so joins are left that DuckDB fails to run, and gives up its database with.
	duckling::ProjectAboveJoins(input.optimizer.binder, plan);
	if (Contains(*plan, IsRemoteScan) && Contains(*plan, IsHashJoin)) {
		input.context.registered_state->GetOrCreate<JoinKeys>("duckherder_join_keys")->Raise(input.context);
	}
}

} // namespace

void RegisterJoinKeys(DBConfig &config) {
	OptimizerExtension extension;
	extension.optimize_function = Optimize;
	OptimizerExtension::Register(config, extension);
}

} // namespace duckherder
