#include "remote_session.hpp"

#include "remote_catalog.hpp"

namespace duckherder {

using namespace duckdb;

RemoteSession::RemoteSession(shared_ptr<RemoteHandle> remote) : remote(std::move(remote)) {
}

static string KeyOf(RemoteCatalog &catalog) {
	// The id, not the name: a catalog attached anew under the same name is another one.
	return "duckherder_session_" + to_string(catalog.GetOid());
}

shared_ptr<RemoteSession> RemoteSession::Of(ClientContext &context, RemoteCatalog &catalog) {
	return context.registered_state->GetOrCreate<RemoteSession>(KeyOf(catalog), catalog.Remote());
}

void RemoteSession::Forget(ClientContext &context, RemoteCatalog &catalog) {
	context.registered_state->Remove(KeyOf(catalog));
}

DhSession *RemoteSession::Open(ClientContext &context) {
	lock_guard<mutex> guard(lock);
	if (!session) {
		Check([&](DhBuffer *error) {
			return Api().session_open(remote->Get(), InterruptOf(context), session.Slot(), error);
		});
	}
	return session.Get();
}

DhSession *RemoteSession::IfOpen() {
	lock_guard<mutex> guard(lock);
	return session.Get();
}

} // namespace duckherder
