#include "type_text.hpp"

#include "duckdb/parser/keyword_helper.hpp"

namespace duckherder {

using namespace duckdb;

bool IsCollated(const LogicalType &type) {
	return type.id() == LogicalTypeId::VARCHAR && !type.HasAlias() && !StringType::GetCollation(type).empty();
}

string TypeText(const LogicalType &type) {
	if (!IsCollated(type)) {
		return type.ToString();
	}
	// As it is written behind the name of a column.
	return "VARCHAR COLLATE " + SQLIdentifier::ToString(Identifier(StringType::GetCollation(type)));
}

} // namespace duckherder
