"""pyarrow.flight (C++): Flight as such, and Flight SQL's commands made by hand."""

import concurrent.futures
import threading

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from flightsql import flightsql_pb2 as sql
from google.protobuf import any_pb2

from conftest import poll


def packed(message):
    """A message as Flight SQL sends it."""
    wrapped = any_pb2.Any()
    wrapped.Pack(message)
    return wrapped.SerializeToString()


def command(message):
    return flight.FlightDescriptor.for_command(packed(message))


def action(client, name, message, kind=None):
    """Runs an action; its one answer as `kind`."""
    results = list(client.do_action(flight.Action(name, packed(message))))
    if kind is None:
        return results
    wrapped = any_pb2.Any.FromString(results[0].body.to_pybytes())
    answer = kind()
    assert wrapped.Unpack(answer), wrapped.type_url
    return answer


def rows(client, message):
    info = client.get_flight_info(command(message))
    tables = [client.do_get(endpoint.ticket).read_all() for endpoint in info.endpoints]
    return pa.concat_tables(tables).to_pylist()


def put(client, message, schema, batches=()):
    """A DoPut; the metadata of its answer."""
    writer, reader = client.do_put(command(message), schema)
    for batch in batches:
        writer.write_batch(batch)
    writer.done_writing()
    metadata = reader.read()
    writer.close()
    return metadata.to_pybytes() if metadata is not None else b""


def update(client, text):
    answer = sql.DoPutUpdateResult.FromString(put(client, sql.CommandStatementUpdate(query=text), pa.schema([])))
    return answer.record_count


@pytest.fixture
def client(server):
    with flight.connect(server.uri.replace("grpc://", "grpc+tcp://")) as client:
        yield client


def prepare(client, text):
    return action(
        client,
        "CreatePreparedStatement",
        sql.ActionCreatePreparedStatementRequest(query=text),
        sql.ActionCreatePreparedStatementResult,
    )


def test_a_query(client):
    info = client.get_flight_info(command(sql.CommandStatementQuery(query="SELECT 42 AS answer")))
    assert info.schema == pa.schema([pa.field("answer", pa.int32())])
    assert all(not endpoint.locations for endpoint in info.endpoints)
    assert rows(client, sql.CommandStatementQuery(query="SELECT 42 AS answer")) == [{"answer": 42}]


def test_a_large_result_side_by_side_on_several_connections(client, server):
    token = client.authenticate_basic_token("mallard", "quack")
    options = flight.FlightCallOptions(headers=[token])
    query = command(sql.CommandStatementQuery(query="SELECT range AS i FROM range(2_000_000)"))
    info = client.get_flight_info(query, options)
    assert len(info.endpoints) == 3 and not info.ordered

    def read(endpoint):
        with flight.connect(server.uri.replace("grpc://", "grpc+tcp://")) as connection:
            return connection.do_get(endpoint.ticket, options).read_all().column("i").to_pylist()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        parts = list(pool.map(read, info.endpoints))
    assert sorted(sum(parts, [])) == list(range(2_000_000))
    query = command(sql.CommandStatementQuery(query="SELECT range AS i FROM range(2_000_000) ORDER BY i"))
    info = client.get_flight_info(query, options)
    assert len(info.endpoints) == 1 and info.ordered


def test_get_schema(client):
    schema = client.get_schema(command(sql.CommandStatementQuery(query="SELECT 1::SMALLINT AS a, 'x' AS b"))).schema
    assert schema.names == ["a", "b"] and schema.types == [pa.int16(), pa.string()]


def test_updates(client):
    assert update(client, "CREATE TABLE t (i INTEGER)") in (-1, 0)
    assert update(client, "INSERT INTO t VALUES (1), (2)") == 2
    assert rows(client, sql.CommandStatementQuery(query="SELECT sum(i)::INTEGER AS s FROM t")) == [{"s": 3}]


def test_asking_for_information_runs_nothing(client):
    update(client, "CREATE TABLE t (i INTEGER)")
    for _ in range(3):
        client.get_flight_info(command(sql.CommandStatementQuery(query="INSERT INTO t VALUES (1)")))
    assert rows(client, sql.CommandStatementQuery(query="SELECT count(*) AS n FROM t")) == [{"n": 0}]


def test_a_ticket_of_a_write_runs_once(client):
    update(client, "CREATE TABLE t (i INTEGER)")
    info = client.get_flight_info(command(sql.CommandStatementQuery(query="INSERT INTO t VALUES (1)")))
    client.do_get(info.endpoints[0].ticket).read_all()
    with pytest.raises(pa.ArrowException):
        client.do_get(info.endpoints[0].ticket).read_all()
    assert rows(client, sql.CommandStatementQuery(query="SELECT count(*) AS n FROM t")) == [{"n": 1}]


def test_jdbcs_order_of_calls(client):
    """Create, bind by DoPut, GetFlightInfo, DoGet, close."""
    update(client, "CREATE TABLE t AS SELECT range::INTEGER AS i FROM range(10)")
    statement = prepare(client, "SELECT i FROM t WHERE i > ? ORDER BY i")
    handle = statement.prepared_statement_handle
    assert pa.ipc.read_schema(pa.py_buffer(statement.dataset_schema)).names == ["i"]
    assert len(pa.ipc.read_schema(pa.py_buffer(statement.parameter_schema))) == 1
    query = sql.CommandPreparedStatementQuery(prepared_statement_handle=handle)
    for bound, expected in [(7, [8, 9]), (8, [9])]:
        parameters = pa.record_batch([pa.array([bound], pa.int32())], names=["1"])
        answer = put(client, query, parameters.schema, [parameters])
        if answer:
            field, value = answer[0], answer[2:]
            assert field == 0x0A and value, "DoPutPreparedStatementResult has the handle"
            query = sql.CommandPreparedStatementQuery(prepared_statement_handle=value)
        assert [row["i"] for row in rows(client, query)] == expected
    action(client, "ClosePreparedStatement", sql.ActionClosePreparedStatementRequest(prepared_statement_handle=handle))
    with pytest.raises(pa.ArrowException):
        rows(client, query)


def test_a_prepared_update_with_a_batch_of_parameters(client):
    update(client, "CREATE TABLE t (i INTEGER, s VARCHAR)")
    handle = prepare(client, "INSERT INTO t VALUES (?, ?)").prepared_statement_handle
    batch = pa.record_batch([pa.array([1, 2, 3]), pa.array(["a", None, "c"])], names=["1", "2"])
    message = sql.CommandPreparedStatementUpdate(prepared_statement_handle=handle)
    answer = sql.DoPutUpdateResult.FromString(put(client, message, batch.schema, [batch, batch]))
    assert answer.record_count == 6


def test_transactions(client):
    update(client, "CREATE TABLE t (i INTEGER)")
    begun = action(client, "BeginTransaction", sql.ActionBeginTransactionRequest(), sql.ActionBeginTransactionResult)
    transaction = begun.transaction_id
    inside = sql.CommandStatementUpdate(query="INSERT INTO t VALUES (1)", transaction_id=transaction)
    put(client, inside, pa.schema([]))
    count = "SELECT count(*) AS n FROM t"
    assert rows(client, sql.CommandStatementQuery(query=count, transaction_id=transaction)) == [{"n": 1}]
    assert rows(client, sql.CommandStatementQuery(query=count)) == [{"n": 0}]
    end = sql.ActionEndTransactionRequest(
        transaction_id=transaction, action=sql.ActionEndTransactionRequest.END_TRANSACTION_COMMIT
    )
    action(client, "EndTransaction", end)
    assert rows(client, sql.CommandStatementQuery(query=count)) == [{"n": 1}]
    with pytest.raises(pa.ArrowException):
        action(client, "EndTransaction", end)


def test_metadata(client):
    update(client, "CREATE TABLE parents (a INTEGER, b INTEGER, PRIMARY KEY (a, b))")
    update(client, "CREATE TABLE children (x INTEGER, y INTEGER, FOREIGN KEY (x, y) REFERENCES parents (a, b))")
    assert "memory" in [row["catalog_name"] for row in rows(client, sql.CommandGetCatalogs())]
    schemas = rows(client, sql.CommandGetDbSchemas(catalog="memory"))
    assert {"catalog_name": "memory", "db_schema_name": "main"} in schemas
    keys = rows(client, sql.CommandGetPrimaryKeys(table="parents"))
    assert [(key["column_name"], key["key_sequence"]) for key in keys] == [("a", 1), ("b", 2)]
    for message in [
        sql.CommandGetImportedKeys(table="children"),
        sql.CommandGetExportedKeys(table="parents"),
        sql.CommandGetCrossReference(pk_table="parents", fk_table="children"),
    ]:
        pairs = [(key["pk_column_name"], key["fk_column_name"]) for key in rows(client, message)]
        assert pairs == [("a", "x"), ("b", "y")]
    (table,) = rows(client, sql.CommandGetTables(table_name_filter_pattern="paren%", include_schema=True))
    schema = pa.ipc.read_schema(pa.py_buffer(table["table_schema"]))
    assert schema.field("a").metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"] == b"INTEGER"
    assert not schema.field("a").nullable
    assert "TABLE" in {row["table_type"].split()[-1] for row in rows(client, sql.CommandGetTableTypes())}
    assert {row["type_name"] for row in rows(client, sql.CommandGetXdbcTypeInfo())} >= {"INTEGER", "VARCHAR"}
    assert {row["info_name"] for row in rows(client, sql.CommandGetSqlInfo())} >= {0, 1, 2, 3}


def test_cancelling_a_query_by_its_information(client, server):
    slow = "SELECT sum(a.range * b.range) AS slow FROM range(10_000_000) a, range(1_000_000) b"
    info = client.get_flight_info(command(sql.CommandStatementQuery(query=slow)))
    failures = []

    def read():
        try:
            # `read_all` would take the end of a cancelled query for Ctrl-C.
            client.do_get(info.endpoints[0].ticket).read_chunk()
        except pa.ArrowException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    poll(lambda: server.running("AS slow") == 1, "the statement running")
    list(client.do_action(flight.Action("CancelQuery", packed(sql.ActionCancelQueryRequest(info=info.serialize())))))
    reader.join(20)
    assert failures and not reader.is_alive()
    poll(lambda: server.running("AS slow") == 0, "the statement stopped")


def test_a_reader_that_goes_away_stops_its_query(client, server):
    info = client.get_flight_info(command(sql.CommandStatementQuery(query="SELECT range AS slow FROM range(1_000_000_000_000)")))
    reader = client.do_get(info.endpoints[0].ticket)
    reader.read_chunk()
    assert server.running("AS slow") == 1
    reader.cancel()
    del reader
    poll(lambda: server.running("AS slow") == 0, "the statement stopped")


def test_flights_are_tables(client):
    update(client, "CREATE TABLE ducks AS SELECT 'mallard' AS name")
    (info,) = client.list_flights(b"ducks")
    assert [part.decode() for part in info.descriptor.path][-1] == "ducks"
    assert client.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"name": "mallard"}]
    by_path = client.get_flight_info(flight.FlightDescriptor.for_path("ducks"))
    assert client.do_get(by_path.endpoints[0].ticket).read_all().num_rows == 1


def test_actions_are_listed(client):
    assert {action.type for action in client.list_actions()} >= {"CreatePreparedStatement", "BeginTransaction", "CancelQuery"}


@pytest.mark.parametrize("name,password", [("mallard", "quack"), ("größe", "pa:ss"), ("", "")])
def test_handshake_with_basic(client, name, password):
    header = client.authenticate_basic_token(name, password)
    assert header[0] == b"authorization" and header[1].startswith(b"Bearer ")
    options = flight.FlightCallOptions(headers=[header])
    message = command(sql.CommandStatementQuery(query="SET VARIABLE x = 1"))
    client.do_get(client.get_flight_info(message, options).endpoints[0].ticket, options).read_all()
    message = command(sql.CommandStatementQuery(query="SELECT getvariable('x') AS x"))
    reader = client.do_get(client.get_flight_info(message, options).endpoints[0].ticket, options)
    assert reader.read_all().to_pylist() == [{"x": 1}]


def test_a_token_that_nobody_gave_out_is_refused(client):
    options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer nonsense")])
    with pytest.raises(flight.FlightUnauthenticatedError):
        client.get_flight_info(command(sql.CommandStatementQuery(query="SELECT 1")), options)


@pytest.mark.parametrize("garbage", [b"", b"\xff\xff\xff", b"garbage", packed(sql.CommandStatementUpdate(query="x"))])
def test_garbage_is_refused(client, garbage):
    with pytest.raises(pa.ArrowException):
        client.do_get(flight.Ticket(garbage)).read_all()
    with pytest.raises(pa.ArrowException):
        client.get_flight_info(flight.FlightDescriptor.for_command(garbage))
    with pytest.raises(pa.ArrowException):
        list(client.do_action(flight.Action("CreatePreparedStatement", garbage)))
    with pytest.raises(pa.ArrowException):
        list(client.do_action(flight.Action("nosuch", garbage)))
    assert rows(client, sql.CommandStatementQuery(query="SELECT 1 AS a")) == [{"a": 1}]


def test_handles_and_tickets_of_others_are_refused(server):
    location = server.uri.replace("grpc://", "grpc+tcp://")
    with flight.connect(location) as one, flight.connect(location) as two:
        mine, theirs = (
            flight.FlightCallOptions(headers=[client.authenticate_basic_token("a", "b")]) for client in (one, two)
        )
        query = sql.ActionCreatePreparedStatementRequest(query="SELECT 1 AS a")
        (result,) = one.do_action(flight.Action("CreatePreparedStatement", packed(query)), mine)
        wrapped = any_pb2.Any.FromString(result.body.to_pybytes())
        prepared = sql.ActionCreatePreparedStatementResult()
        wrapped.Unpack(prepared)
        handle = sql.CommandPreparedStatementQuery(prepared_statement_handle=prepared.prepared_statement_handle)
        info = one.get_flight_info(command(handle), mine)
        with pytest.raises(pa.ArrowException):
            two.get_flight_info(command(handle), theirs)
        with pytest.raises(pa.ArrowException):
            two.do_get(info.endpoints[0].ticket, theirs).read_all()
        assert one.do_get(info.endpoints[0].ticket, mine).read_all().num_rows == 1


def texts(offsets, data):
    """A column that is made valid, and spoilt before it is sent: making it checks the offsets."""
    buffer = bytearray(4 * len(offsets))
    array = pa.Array.from_buffers(pa.string(), len(offsets) - 1, [None, pa.py_buffer(buffer), pa.py_buffer(data)])

    def spoil():
        buffer[:] = b"".join(offset.to_bytes(4, "little", signed=True) for offset in offsets)

    return pa.field("v", pa.string()), array, spoil


def opaque(name, value):
    """A value of one of DuckDB's own types, in the bytes that it has inside."""
    metadata = {
        "ARROW:extension:name": "arrow.opaque",
        "ARROW:extension:metadata": '{"type_name": "%s", "vendor_name": "DuckDB"}' % name,
    }
    return pa.field("v", pa.binary(), metadata=metadata), pa.array([value], pa.binary()), lambda: None


def bare(array):
    return pa.field("v", array.type), array, lambda: None


def whole(kind, value, width):
    return bare(pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(value.to_bytes(width, "little"))]))


# Arrow that is no Arrow: each of them could end a DuckDB that believes it.
INVALID = {
    "text": texts([0, 2], b"\xff\xfe"),
    "offsets": texts([0, 2**31 - 1], b"ab"),
    "offsets that go backwards": texts([0, 2, 1], b"ab"),
    "negative offsets": texts([-1, 1], b"ab"),
    "decimal": whole(pa.decimal128(4, 2), 10**20, 16),
    "time": whole(pa.time64("us"), 10**12, 8),
    "dictionary key": bare(
        pa.DictionaryArray.from_arrays(pa.array([5], pa.int32()), pa.array(["a"]), safe=False)
    ),
    "bit, empty": opaque("bit", b""),
    "bit, padding": opaque("bit", b"\x09\xff"),
    "bit, padding bits": opaque("bit", b"\x04\x0f"),
    "bignum, empty": opaque("bignum", b""),
    "bignum, no header": opaque("bignum", b"\x80"),
    "bignum, length": opaque("bignum", b"\x80\x00\x09\x01"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_arrow_is_refused(client, name):
    field, array, spoil = INVALID[name]
    schema = pa.schema([field])
    batch = pa.RecordBatch.from_arrays([array], schema=schema)
    spoil()
    # CommandStatementIngest is newer than the messages of this package: table "t", created.
    options = b"\x0a\x04\x08\x01\x10\x01" + b"\x12\x01t"
    wrapped = any_pb2.Any(type_url="type.googleapis.com/arrow.flight.protocol.sql.CommandStatementIngest", value=options)
    descriptor = flight.FlightDescriptor.for_command(wrapped.SerializeToString())
    with pytest.raises(pa.ArrowException):
        writer, reader = client.do_put(descriptor, schema)
        with writer:
            writer.write_batch(batch)
            writer.done_writing()
            reader.read()
    assert rows(client, sql.CommandStatementQuery(query="SELECT count(*) AS n FROM duckdb_tables()")) == [{"n": 0}]
