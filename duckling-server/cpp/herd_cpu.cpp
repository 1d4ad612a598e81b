#include "herd_cpu.hpp"

#include <ctime>

namespace herd {

namespace {

//! What this thread counts at the moment. Tasks run within tasks, so a number of entries.
struct Entered {
	uint32_t depth = 0;
	const CpuTime *counter = nullptr;
	int64_t since_ns = 0;
};

thread_local Entered entered; // NOLINT

//! CPU time of this thread.
int64_t ThreadNs() {
#ifdef CLOCK_THREAD_CPUTIME_ID
	timespec time {};
	if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0) {
		return int64_t(time.tv_sec) * 1000000000 + time.tv_nsec;
	}
#endif
	return -1;
}

} // namespace

void CpuTime::Begin() {
	spent_ns = 0;
	counts = true;
	Enter();
}

int64_t CpuTime::End() {
	Leave();
	counts = false;
	return ThreadNs() < 0 ? -1 : spent_ns.load();
}

void CpuTime::Enter() {
	if (!counts) {
		return;
	}
	if (entered.depth++ == 0) {
		entered.counter = this;
		entered.since_ns = ThreadNs();
	}
}

void CpuTime::Leave() {
	if (entered.depth == 0 || --entered.depth > 0) {
		return;
	}
	if (entered.counter == this) {
		spent_ns += ThreadNs() - entered.since_ns;
	}
}

} // namespace herd
