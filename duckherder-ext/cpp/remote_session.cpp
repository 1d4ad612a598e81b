#include "remote_session.hpp"

#include "error_place.hpp"
#include "remote_catalog.hpp"

#include "duckdb/common/arrow/arrow_wrapper.hpp"
#include "duckdb/common/type_visitor.hpp"
#include "duckdb/catalog/catalog_search_path.hpp"
#include "duckdb/main/client_data.hpp"
#include "duckdb/main/settings.hpp"

namespace duckherder {

using namespace duckdb;

RemoteSession::RemoteSession(shared_ptr<RemoteHandle> remote, Identifier catalog_name)
    : remote(std::move(remote)), catalog_name(std::move(catalog_name)) {
}

static string KeyOf(RemoteCatalog &catalog) {
	// The id, not the name: a catalog attached anew under the same name is another one.
	return "duckherder_session_" + to_string(catalog.GetOid());
}

shared_ptr<RemoteSession> RemoteSession::Of(ClientContext &context, RemoteCatalog &catalog) {
	return context.registered_state->GetOrCreate<RemoteSession>(KeyOf(catalog), catalog.Remote(), catalog.GetName());
}

void RemoteSession::Forget(ClientContext &context, RemoteCatalog &catalog) {
	context.registered_state->Remove(KeyOf(catalog));
}

DhSession *RemoteSession::Open(ClientContext &context) {
	lock_guard<mutex> guard(lock);
	if (!session) {
		Check([&](DhBuffer *error) {
			return Api().session_open(remote->Get(), session.Slot(), error);
		});
	}
	TellSettings(context);
	return session.Get();
}

static void AddIfOther(const char *name, const Value &value, const char *default_value, vector<string> &texts) {
	if (!value.IsNull() && !StringUtil::CIEquals(value.ToString(), default_value)) {
		texts.push_back(name);
		texts.push_back(value.ToString());
	}
}

//! By its index: every statement asks, and looking settings up by name takes longer than all the rest of it.
template <class SETTING>
static void AddIfChanged(ClientContext &context, vector<string> &texts) {
	Value value;
	if (context.TryGetCurrentUserSetting(SETTING::SettingIndex, value)) {
		AddIfOther(SETTING::Name, value, SETTING::DefaultValue, texts);
	}
}

//! A setting of the ICU extension, always: the server's own may be another. A DuckDB without ICU works as if it had
//! `fallback`. `index` is where the setting was found.
static void AddOfICU(ClientContext &context, const char *name, const char *fallback, optional_idx &index,
                     vector<string> &texts) {
	if (!index.IsValid()) {
		optional_ptr<const ConfigurationOption> option;
		index = DBConfig::GetConfig(context).TryGetSettingIndex(name, option);
	}
	Value value;
	auto known = index.IsValid() && context.TryGetCurrentUserSetting(index.GetIndex(), value) && !value.IsNull();
	texts.push_back(name);
	texts.push_back(known ? value.ToString() : fallback);
}

//! The schemas in which names without one are looked up, if they are not the default and the duckling is meant by them.
static void AddSearchPath(ClientContext &context, const Identifier &catalog_name, vector<string> &texts) {
	auto &path = *ClientData::Get(context).catalog_search_path;
	if (path.GetDefault().GetCatalog() != catalog_name) {
		return;
	}
	vector<string> schemas;
	for (auto &entry : path.GetSetPaths()) {
		if (entry.GetCatalog() == catalog_name) {
			schemas.push_back(SQLIdentifier::ToString(entry.GetSchema()));
		}
	}
	if (schemas.empty() || (schemas.size() == 1 && path.GetDefault().GetSchema() == Identifier::DefaultSchema())) {
		return;
	}
	texts.push_back("search_path");
	texts.push_back(StringUtil::Join(schemas, ","));
}

//! Which errors abort the transaction. The server's begins with this as its default.
static void AddInvalidationPolicy(ClientContext &context, vector<string> &texts) {
	auto policy = context.transaction.IsAutoCommit() ? Settings::Get<DefaultTransactionInvalidationPolicySetting>(context)
	                                                 : context.transaction.GetInvalidationPolicy();
	if (policy != TransactionInvalidationPolicy::ALL_ERRORS_INVALIDATE_TRANSACTION) {
		texts.push_back(DefaultTransactionInvalidationPolicySetting::Name);
		texts.push_back(EnumUtil::ToString(policy));
	}
}

//! Variables that are told, the bytes of their names, and of their values as SQL.
constexpr idx_t VARIABLES_MAX = 32;
constexpr idx_t VARIABLE_NAME_BYTES_MAX = 100;
constexpr idx_t VARIABLE_BYTES_MAX = 16 * 1024;

//! Whether the server has the type, and its values can be written as SQL. If not, the variable stays here: a statement that
//! does not use it must not fail.
static bool CanBeTold(const LogicalType &type) {
	return !TypeVisitor::Contains(type, [](const LogicalType &part) {
		switch (part.id()) {
		case LogicalTypeId::SQLNULL:
		case LogicalTypeId::ANY:
		case LogicalTypeId::VARIANT:
		case LogicalTypeId::UNION:
		case LogicalTypeId::GEOMETRY:
			return true;
		default:
			return part.IsAggregateState() || (part.HasAlias() && !part.IsJSONType());
		}
	});
}

//! Whether its SQL is about as short as `bytes`, which are used up.
static bool IsShort(const Value &value, idx_t &bytes) {
	optional_ptr<const vector<Value>> children;
	idx_t size = 8;
	if (!value.IsNull()) {
		switch (value.type().InternalType()) {
		case PhysicalType::VARCHAR:
			size = StringValue::Get(value).size();
			break;
		case PhysicalType::LIST:
			children = ListValue::GetChildren(value);
			break;
		case PhysicalType::ARRAY:
			children = ArrayValue::GetChildren(value);
			break;
		case PhysicalType::STRUCT:
			children = StructValue::GetChildren(value);
			break;
		default:
			break;
		}
	}
	if (size > bytes) {
		return false;
	}
	bytes -= size;
	return !children || std::all_of(children->begin(), children->end(),
	                                [&](const Value &child) { return IsShort(child, bytes); });
}

//! Those of SET VARIABLE: macros, and statements that get a variable's name as a parameter, look them up there.
static void AddVariables(ClientContext &context, vector<string> &texts) {
	idx_t count = 0;
	for (auto &variable : ClientConfig::GetConfig(context).user_variables) {
		auto &name = variable.first.GetIdentifierName();
		auto bytes = VARIABLE_BYTES_MAX;
		if (count == VARIABLES_MAX || name.size() > VARIABLE_NAME_BYTES_MAX ||
		    !CanBeTold(variable.second.type()) || !IsShort(variable.second, bytes)) {
			continue;
		}
		auto sql = "CAST(" + variable.second.ToSQLString() + " AS " + variable.second.type().ToString() + ")";
		if (sql.size() <= VARIABLE_BYTES_MAX) {
			texts.push_back("variable:" + name);
			texts.push_back(std::move(sql));
			count++;
		}
	}
}

void RemoteSession::TellSettings(ClientContext &context) {
	// They do not change within a query, unless ICU is loaded in it.
	auto query = context.transaction.HasActiveTransaction() ? context.transaction.GetActiveQuery() : MAXIMUM_QUERY_ID;
	if (query < MAXIMUM_QUERY_ID && query == told_in) {
		return;
	}
	// Those that change what a statement means. Others are the server's own business.
	vector<string> texts;
	// Decimals as wide as DuckDB's own, which saves half of their bytes and their conversion at both ends.
	texts.push_back(ArrowOutputVersionSetting::Name);
	texts.push_back("1.5");
	AddSearchPath(context, catalog_name, texts);
	AddOfICU(context, "TimeZone", "UTC", time_zone_index, texts);
	AddOfICU(context, "Calendar", "gregorian", calendar_index, texts);
	AddInvalidationPolicy(context, texts);
	AddIfChanged<DefaultNullOrderSetting>(context, texts);
	AddIfChanged<DefaultOrderSetting>(context, texts);
	AddIfChanged<DefaultCollationSetting>(context, texts);
	AddIfChanged<DialectCompatibilityModeSetting>(context, texts);
	AddIfChanged<DisableTimestamptzCastsSetting>(context, texts);
	AddIfChanged<EnableMacroDependenciesSetting>(context, texts);
	AddIfChanged<EnableViewDependenciesSetting>(context, texts);
	AddIfChanged<ErrorOnDivisionByZeroSetting>(context, texts);
	AddIfChanged<ExplainOutputSetting>(context, texts);
	AddIfChanged<IeeeFloatingPointOpsSetting>(context, texts);
	AddIfChanged<IntegerDivisionSetting>(context, texts);
	AddIfChanged<LambdaSyntaxSetting>(context, texts);
	AddIfChanged<LegacyDisableNullTypeSetting>(context, texts);
	AddIfChanged<MaxExpressionDepthSetting>(context, texts);
	AddIfChanged<OldImplicitCastingSetting>(context, texts);
	AddIfChanged<OrderByNonIntegerLiteralSetting>(context, texts);
	AddIfChanged<PivotFilterThresholdSetting>(context, texts);
	AddIfChanged<PivotLimitSetting>(context, texts);
	AddIfChanged<RegexMatchOperatorSemanticsSetting>(context, texts);
	AddIfChanged<ScalarSubqueryErrorOnMultipleRowsSetting>(context, texts);
	AddIfChanged<ShowBehaviorSetting>(context, texts);
	if (!ClientConfig::GetConfig(context).profiling_renderer_settings.empty()) {
		AddIfOther(ProfilingRendererSettingsSetting::Name, ProfilingRendererSettingsSetting::GetSetting(context), "{}",
		           texts);
	}
	AddVariables(context, texts);
	vector<DhOption> settings;
	for (idx_t i = 0; i < texts.size(); i += 2) {
		settings.push_back(DhOption {Text(texts[i]), Text(texts[i + 1])});
	}
	Check([&](DhBuffer *error) {
		return Api().session_settings(session.Get(), settings.data(), settings.size(), error);
	});
	told_in = time_zone_index.IsValid() ? query : MAXIMUM_QUERY_ID;
}

void RunToEnd(ClientContext &context, DhSession *session, const string &sql, bool transactional) {
	ScanHandle scan;
	CheckSent(context, sql, [&](DhBuffer *error) {
		return Api().scan_start(session, Text(sql), NoText(), transactional, true, InterruptOf(context), scan.Slot(),
		                        error);
	});
	GroupHandle group;
	while (CheckSent(context, sql, [&](DhBuffer *error) {
		return Api().scan_next(scan.Get(), InterruptOf(context), group.Slot(), error);
	})) {
	}
}

DhSession *RemoteSession::IfOpen() {
	lock_guard<mutex> guard(lock);
	return session.Get();
}

void RemoteSession::QueryBegin(ClientContext &context) {
	moment = Moment::IN_QUERY;
	if (!session || !context.transaction.IsAutoCommit()) {
		return;
	}
	auto typed = Text(context.GetCurrentQuery());
	if (!Api().session_foresees(session.Get(), typed)) {
		return;
	}
	try {
		lock_guard<mutex> guard(lock);
		TellSettings(context);
	} catch (...) { // NOLINT: whoever binds the query comes to the same, and can be told
		return;
	}
	has_sent_ahead = Api().session_send_ahead(session.Get(), typed);
}

void RemoteSession::QueryEnd() {
	moment = Moment::BETWEEN_QUERIES;
	will_confirm = false;
	confirm = nullptr;
	kept = ScanHandle();
	if (std::exchange(has_sent_ahead, false)) {
		Api().session_drop_ahead(session.Get());
	}
}

bool RemoteSession::CanRequestRebind() {
	// Asked before a statement is bound: if so, `OnFinalizePrepare` is called after it has been planned.
	will_confirm = has_sent_ahead;
	return will_confirm;
}

bool RemoteSession::WillConfirm() const {
	return will_confirm;
}

void RemoteSession::ConfirmWith(std::function<bool(ClientContext &)> new_confirm) {
	confirm = std::move(new_confirm);
}

void RemoteSession::Keep(ScanHandle scan, const string &sql) {
	kept = std::move(scan);
	kept_sql = sql;
}

ScanHandle RemoteSession::TakeKept(const string &sql) {
	return kept && kept_sql == sql ? std::move(kept) : ScanHandle();
}

RebindQueryInfo RemoteSession::OnFinalizePrepare(ClientContext &context, PreparedStatementData &,
                                                 PreparedStatementMode) {
	will_confirm = false;
	auto to_confirm = std::exchange(confirm, nullptr);
	return to_confirm && !to_confirm(context) ? RebindQueryInfo::ATTEMPT_TO_REBIND : RebindQueryInfo::DO_NOT_REBIND;
}

string RemoteSession::TypedText(ClientContext &context) const {
	return moment == Moment::IN_QUERY ? context.GetCurrentQuery() : string();
}

//! Whether a statement begins with that word, after white space alone.
static bool BeginsWith(const string &sql, const string &word) {
	auto begin = std::find_if_not(sql.begin(), sql.end(), StringUtil::CharacterIsSpace);
	auto length = MinValue<idx_t>(word.size(), NumericCast<idx_t>(sql.end() - begin));
	return StringUtil::CIEquals(string(begin, begin + NumericCast<int64_t>(length)), word);
}

bool RemoteSession::OnlyBinds(ClientContext &context) const {
	switch (moment) {
	case Moment::IN_QUERY: {
		// What drivers prepare is not called so: they mean to run it.
		auto &sql = context.GetCurrentQuery();
		return BeginsWith(sql, "PREPARE") || BeginsWith(sql, "EXPLAIN");
	}
	case Moment::BETWEEN_QUERIES:
		return true;
	default:
		return false;
	}
}

} // namespace duckherder
