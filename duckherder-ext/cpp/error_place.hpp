//! Errors of the server that point to a place in what was sent.
#pragma once

#include "bridge.hpp"

namespace duckherder {

//! Throws `error`, the server's about `sent`. If it points to a place in there, it then points to where the same stands in
//! what the user has typed, or nowhere, if that is not certain.
[[noreturn]] void ThrowAbout(duckdb::ClientContext &context, const duckdb::string &sent, const duckdb::ErrorData &error);

//! Like `Check`, of a call that sends the statement `sent`, or reads what it has led to.
template <class CALL>
bool CheckSent(duckdb::ClientContext &context, const duckdb::string &sent, CALL call) {
	try {
		return Check(call);
	} catch (std::exception &exception) {
		ThrowAbout(context, sent, duckdb::ErrorData(exception));
	}
}

} // namespace duckherder
