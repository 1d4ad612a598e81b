//! How much CPU time a stage takes, on all threads that work for it.
#pragma once

#include <atomic>
#include <cstdint>

namespace herd {

//! CPU time that threads spend for one connection while it is counted. A thread counts from when it enters until it leaves,
//! whatever it enters in between.
class CpuTime {
public:
	//! Begins anew, with this thread.
	void Begin();
	//! Ends, on the same thread and after all others have left: nanoseconds, or -1 where the system does not tell.
	int64_t End();
	//! Whether it is being counted: whether the connection runs a stage.
	bool Counts() const {
		return counts;
	}

	//! A thread works for the connection from here on, if that is to be counted.
	void Enter();
	//! It does so no longer.
	void Leave();

private:
	std::atomic<bool> counts {false};
	std::atomic<int64_t> spent_ns {0};
};

} // namespace herd
