#include "bind_aside.hpp"

#include "duckdb/planner/bound_parameter_map.hpp"

namespace duckherder {

using namespace duckdb;

BoundStatement BindAside(ClientContext &context, Binder &binder, SQLStatement &statement,
                         optional_ptr<StatementProperties> properties) {
	auto aside = Binder::CreateBinder(context);
	if (binder.GetParameters()) {
		aside->SetParameters(*binder.GetParameters());
	}
	aside->SetBindingMode(binder.GetBindingMode());
	auto bound = aside->Bind(statement);
	auto used = aside->GenerateTableIndex();
	while (binder.GenerateTableIndex() < used) {
	}
	if (properties) {
		*properties = aside->GetStatementProperties();
	}
	return bound;
}

} // namespace duckherder
