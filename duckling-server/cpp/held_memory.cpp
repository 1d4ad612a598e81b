//! How much of DuckDB's memory belongs to what statements do at the moment: for `src/duckdb/held_memory.rs`.

#include "herd_bridge.hpp"

#include "duckdb.hpp"
#include "duckdb/storage/buffer_manager.hpp"

namespace {

using duckdb::MemoryTag;

//! Whether memory of this kind is held by statements, and free when they end. The rest is either of tables and indexes,
//! whatever runs, or a cache that gives way by itself.
bool IsHeldByStatements(MemoryTag tag) {
	switch (tag) {
	case MemoryTag::HASH_TABLE:
	case MemoryTag::ORDER_BY:
	case MemoryTag::COLUMN_DATA:
	case MemoryTag::WINDOW:
	case MemoryTag::PARQUET_READER:
	case MemoryTag::CSV_READER:
	case MemoryTag::TRANSACTION:
	case MemoryTag::ALLOCATOR:
		return true;
	default:
		return false;
	}
}

} // namespace

extern "C" {

char *duckling_held_memory(void *connection, uint64_t *held, uint64_t *limit) {
	return herd::Caught([&]() {
		auto &buffers = duckdb::BufferManager::GetBufferManager(herd::ContextOf(connection));
		*held = 0;
		for (auto &usage : buffers.GetMemoryUsageInfo()) {
			if (IsHeldByStatements(usage.tag)) {
				*held += usage.size;
			}
		}
		*limit = buffers.GetMaxMemory();
	});
}
}
