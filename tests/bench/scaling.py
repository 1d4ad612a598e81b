"""How a herd would scale, from CPU time: what each query costs on its critical path, and what it moves.

All nodes share this machine, so their wall-clock times say little. CPU time does not depend on who else runs. A query's
critical path is, of each of its stages, the CPU time of the worker that it took the most; of the workers' networking, that
of the worker that has most; and all of the coordinator's. Beside it, the CPU time of the same query in one DuckDB.
"""

import json

from herd import Herd
from processes import Failed

WORKERS = (1, 2, 4, 8)

DETAILS = "herd scaling"

#: Runs of each query, of which the one with the shortest critical path counts; one more before them is not counted.
RUNS = 3

LAST = """
FROM hd.query('SELECT execution_mode, rows_moved, bytes_moved, stages FROM duckling_execution_stats()
               ORDER BY execution_start_time DESC LIMIT 1')
"""


def one_node(bench):
    """Seconds of CPU time of all queries in one DuckDB; `bench.details` has each."""
    times = []
    for query in bench.tpch_queries():
        runs = [bench.contenders["local"].cpu_time(statements=[query])["seconds"] for _ in range(RUNS + 1)]
        times.append(min(runs[1:]) * 1e3)
    bench.details[DETAILS] = {"local_ms": times, "herds": {}}
    return sum(times) / 1e3


def ports_of_workers(herd):
    """The port of each worker, by its id."""
    rows = herd.client.rows(sql="FROM hd.query('SELECT id, address FROM duckling_workers()')")["rows"]
    return {worker: int(address.rsplit(":", 1)[1]) for worker, address in rows}


def one_run(herd, ports, query):
    """What one run of a query has cost each node, in milliseconds."""
    servers = [herd.coordinator, *herd.workers]
    herd.client.run(statements=["USE hd"])
    before = [server.cpu_seconds() for server in servers]
    herd.client.time(statements=[query])
    spent = {server.port: (server.cpu_seconds() - then) * 1e3 for server, then in zip(servers, before)}
    herd.client.run(statements=["USE memory"])
    coordinator_ms = spent.pop(herd.coordinator.port)
    rows = herd.client.rows(sql=LAST)["rows"]
    if not rows:
        raise Failed(f"no worker has taken part: {query}")
    mode, rows_moved, bytes_moved, stages = rows[0]
    stages = json.loads(stages)
    if any(stage["cpu_us"] is None for stage in stages):
        raise Failed("the system does not tell threads' CPU time")
    stages_ms = sum(stage["cpu_us"] for stage in stages) / 1e3
    # What a worker's process has done beside its stages.
    network = dict(spent)
    for task in (task for stage in stages for task in stage["tasks"]):
        network[ports[task["worker"]]] -= task["cpu_us"] / 1e3
    network_ms = max(0, *network.values())
    return {
        "mode": mode,
        "rows_moved": rows_moved,
        "bytes_moved": bytes_moved,
        "stages_ms": stages_ms,
        "network_ms": network_ms,
        "coordinator_ms": coordinator_ms,
        "path_ms": stages_ms + network_ms + coordinator_ms,
        "work_ms": sum(spent.values()) + coordinator_ms,
    }


def herd_paths(herd, queries):
    """For each query, its run with the shortest critical path."""
    best = []
    ports = ports_of_workers(herd)
    for query in queries:
        runs = [one_run(herd, ports, query) for _ in range(RUNS + 1)]
        best.append(min(runs[1:], key=lambda run: run["path_ms"]))
    return best


def herds(bench):
    """Seconds of CPU time on the critical paths of all queries on the largest herd; `bench.details` has all."""
    result = bench.details[DETAILS]
    for workers in WORKERS:
        herd = Herd(bench.options.duckling, bench.options.extension, bench.work / f"herd{workers}", bench.files, workers)
        try:
            result["herds"][workers] = herd_paths(herd, bench.tpch_queries())
        finally:
            herd.close()
        print(f"herd-scaling: {workers} workers measured", flush=True)
    bench.reports.append(report(result))
    return sum(run["path_ms"] for run in result["herds"][max(WORKERS)]) / 1e3


def report(result):
    """The table, in Markdown: for each query the CPU time of one DuckDB, and of each herd the path and what it moved."""
    herds = result["herds"]
    head = ["query", "one DuckDB, ms"]
    head += [f"{workers} workers, ms" for workers in herds]
    head += [f"{max(herds)} workers: x one DuckDB", "its tier"]
    head += [f"{workers} workers: MiB moved" for workers in herds]
    lines = [head, ["---"] * len(head)]

    def line(title, local_ms, runs, mode):
        speed = local_ms / max(runs[max(herds)]["path_ms"], 1e-9)
        moved = [f"{runs[workers]['bytes_moved'] / 2**20:.2f}" for workers in herds]
        return [title, f"{local_ms:.1f}", *(f"{runs[w]['path_ms']:.1f}" for w in herds), f"{speed:.2f}", mode, *moved]

    for number, local_ms in enumerate(result["local_ms"]):
        runs = {workers: paths[number] for workers, paths in herds.items()}
        lines.append(line(f"Q{number + 1}", local_ms, runs, runs[max(herds)]["mode"]))
    total = {
        workers: {key: sum(path[key] for path in paths) for key in ("path_ms", "bytes_moved")}
        for workers, paths in herds.items()
    }
    lines.append(line("sum", sum(result["local_ms"]), total, ""))
    parts = [["workers", "stages, s", "network, s", "coordinator, s", "path, s", "all nodes, s"], ["---"] * 6]
    for workers, paths in herds.items():
        keys = ("stages_ms", "network_ms", "coordinator_ms", "path_ms", "work_ms")
        parts.append([str(workers), *(f"{sum(path[key] for path in paths) / 1e3:.2f}" for key in keys)])
    return "\n\n".join("\n".join(f"| {' | '.join(cells)} |" for cells in table) for table in (lines, parts))
