"""TPC-H and TPC-DS on a herd, beside the same queries on a local DuckDB."""

import pytest

from herd import Herd, data, difference, load, rows

#: Queries of which more is done on the coordinator than finishing them.
GATHERED_MAX = {"tpch": 2, "tpcds": 15}

LAST_FALLBACK = (
    "SELECT fallback_reason FROM duckherder_get_query_execution_stats() ORDER BY execution_start_time DESC LIMIT 1"
)


@pytest.fixture(scope="module")
def herd(tmp_path_factory):
    herd = Herd(tmp_path_factory.mktemp("herd"))
    con = herd.connect()
    yield con
    con.close()
    herd.close()


@pytest.mark.parametrize("partitions", [1, 5, 16])
@pytest.mark.parametrize("everything", [False, True], ids=["facts", "all"])
@pytest.mark.parametrize("name", ["tpch", "tpcds"])
def test_queries_equal_those_of_one_node(herd, name, everything, partitions):
    load(herd, name, partitions, everything)
    wrong, gathered = [], {}
    for number, sql in enumerate(data(name)[1], 1):
        expected = rows(herd, sql, "memory")
        try:
            wrong_about = difference(expected, rows(herd, sql, "dh"))
        except Exception as error:  # noqa: BLE001: all failures are shown together
            wrong_about = str(error)
        if wrong_about:
            wrong.append(f"{name} {number}: {wrong_about}")
        (reason,) = herd.execute(LAST_FALLBACK).fetchone()
        if reason:
            gathered[number] = reason
    assert not wrong, "\n".join(wrong)
    assert len(gathered) <= GATHERED_MAX[name], gathered
