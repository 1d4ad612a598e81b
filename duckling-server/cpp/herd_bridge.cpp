#include "herd_bridge.hpp"

#include "duckdb/common/types/value.hpp"
#include "duckdb/parser/parser.hpp"

#include <atomic>

namespace herd {

using namespace duckdb;

static constexpr const char *STATE = "duckherder_herd";
//! Set before anything is made that calls it.
static std::atomic<const HerdApi *> api {nullptr};

const HerdApi &Api() {
	return *api.load();
}

void SetApi(const HerdApi *given) {
	api = given;
}

shared_ptr<SessionState> SessionState::Get(ClientContext &context) {
	return context.registered_state->Get<SessionState>(STATE);
}

const HerdSession *SessionState::Find(ClientContext &context) {
	auto state = Get(context);
	return state ? state->session : nullptr;
}

const HerdSession *SessionState::Of(ClientContext &context) {
	auto session = Find(context);
	if (!session) {
		throw InvalidInputException("this connection belongs to no session of a duckling: the tables of a herd cannot be "
		                            "used on it");
	}
	return session;
}

bool SessionState::ChangesDefinitions(ClientContext &context) {
	auto state = Get(context);
	return state && state->changes_definitions;
}

void SessionState::SetChangesDefinitions(ClientContext &context, bool changes) {
	auto state = Get(context);
	if (state) {
		state->changes_definitions = changes;
	}
}

void BindSession(Connection &connection, const HerdSession *session) {
	connection.context->registered_state->Insert(STATE, make_shared_ptr<SessionState>(session));
}

LogicalType ParseType(ClientContext &context, const string &text) {
	return TransformStringToLogicalType(text, context);
}

} // namespace herd
