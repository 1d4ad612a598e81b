#include "bridge.hpp"

#include "duckdb/common/type_visitor.hpp"
#include "duckdb/parser/qualified_name.hpp"

namespace duckherder {

using namespace duckdb;

static const DhApi *loaded_api = nullptr;

const DhApi &Api() {
	return *loaded_api;
}

void SetApi(const DhApi *api) {
	loaded_api = api;
}

static bool IsInterrupted(void *context) {
	try {
		static_cast<ClientContext *>(context)->BlockingInterruptCheck();
		return false;
	} catch (...) { // NOLINT: nothing may be thrown into Rust; the query is to stop
		return true;
	}
}

DhInterrupt InterruptOf(ClientContext &context) {
	return DhInterrupt {IsInterrupted, &context};
}

string SchemaPathSql(const vector<Identifier> &path) {
	string result;
	for (auto &name : path) {
		result += (result.empty() ? "\"" : ".\"") + StringUtil::Replace(name.GetIdentifierName(), "\"", "\"\"") + "\"";
	}
	return result;
}

vector<Identifier> SchemaPath(const DhText &sql) {
	return QualifiedName::ParseComponents(String(sql));
}

bool TryParseType(ClientContext &context, const string &text, LogicalType &type) {
	try {
		type = UnboundType::TryParseAndDefaultBind(text);
		if (type.id() != LogicalTypeId::INVALID && !TypeVisitor::Contains(type, LogicalTypeId::UNBOUND)) {
			return true;
		}
	} catch (std::exception &) { // NOLINT: not a built-in type, then
	}
	try {
		// What an extension or the user has defined, JSON among them.
		type = TransformStringToLogicalType(text, context);
		return !TypeVisitor::Contains(type, LogicalTypeId::UNBOUND);
	} catch (std::exception &) {
		return false;
	}
}

} // namespace duckherder
