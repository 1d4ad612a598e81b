#include "herd_bridge.hpp"

#include "duckdb/common/types/value.hpp"
#include "duckdb/parser/parser.hpp"

namespace herd {

using namespace duckdb;

static constexpr const char *STATE = "duckherder_herd";
static const HerdApi *api = nullptr;

const HerdApi &Api() {
	return *api;
}

void SetApi(const HerdApi *given) {
	api = given;
}

const HerdSession *SessionState::Find(ClientContext &context) {
	auto state = context.registered_state->Get<SessionState>(STATE);
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
	auto state = context.registered_state->Get<SessionState>(STATE);
	return state && state->changes_definitions;
}

void SessionState::SetChangesDefinitions(ClientContext &context, bool changes) {
	auto state = context.registered_state->Get<SessionState>(STATE);
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
