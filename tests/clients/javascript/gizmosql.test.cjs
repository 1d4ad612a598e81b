// @gizmodata/gizmosql-client: grpc-js, with an SQL layer of its own. Run by test_javascript.py.
"use strict";
const assert = require("node:assert/strict");
const test = require("node:test");
const { FlightSQLClient } = require("@gizmodata/gizmosql-client");

const port = Number(process.env.DUCKLING_PORT);
const login = { username: "mallard", password: "quack" };

async function withClient(options, body) {
  const client = new FlightSQLClient({ host: "127.0.0.1", port, plaintext: true, ...options });
  try {
    await body(client);
  } finally {
    await client.close();
  }
}

const rows = async (client, sql) => (await client.execute(sql)).toArray().map((row) => row.toJSON());

for (const [name, options] of [["without a login", {}], ["with a login", login]]) {
  test(`statements ${name}`, () =>
    withClient(options, async (client) => {
      assert.deepEqual(await rows(client, "SELECT 42 AS answer, 'größe' AS text"), [{ answer: 42, text: "größe" }]);
      await client.execute("CREATE OR REPLACE TABLE js (i INTEGER)");
      await client.execute("INSERT INTO js VALUES (1), (2)");
      assert.deepEqual(await rows(client, "SELECT i FROM js ORDER BY i"), [{ i: 1 }, { i: 2 }]);
      const empty = await client.execute("SELECT i FROM js WHERE false");
      assert.equal(empty.numRows, 0);
    }));
}

test("a session keeps its state", () =>
  withClient(login, async (client) => {
    await client.execute("SET VARIABLE x = 7");
    assert.deepEqual(await rows(client, "SELECT getvariable('x') AS x"), [{ x: 7 }]);
  }));

test("values", () =>
  withClient({}, async (client) => {
    const [row] = await rows(
      client,
      "SELECT true AS b, 9007199254740993 AS big, 0.5::DOUBLE AS d, NULL AS n, DATE '2024-02-29' AS day, " +
        "'b'::ENUM('a', 'b') AS e, [1, NULL] AS l, {'k': 'v'} AS s, 'x'::BLOB AS blob, " +
        "'00112233-4455-6677-8899-aabbccddeeff'::UUID AS u",
    );
    assert.equal(row.b, true);
    assert.equal(row.big, 9007199254740993n);
    assert.equal(row.d, 0.5);
    assert.equal(row.n, null);
    assert.equal(new Date(row.day).toISOString().slice(0, 10), "2024-02-29");
    assert.equal(row.e, "b");
    assert.deepEqual([...row.l], [1, null]);
    assert.equal(row.s.k, "v");
    assert.equal(Buffer.from(row.blob).toString(), "x");
    assert.equal(row.u, "00112233-4455-6677-8899-aabbccddeeff");
  }));

test("a large result", () =>
  withClient({}, async (client) => {
    const table = await client.execute("SELECT range AS i, repeat('x', 100) AS s FROM range(200_000)");
    assert.equal(table.numRows, 200000);
    assert.equal(table.getChild("i").get(199999), 199999n);
  }));

// Other clients get it in several streams: LanceDB's would refuse that.
test("a large result without an order comes in one stream", () =>
  withClient({}, async (client) => {
    const table = await client.execute("SELECT range AS i FROM range(1_200_000)");
    assert.equal(table.numRows, 1200000);
    const numbers = BigInt64Array.from(table.getChild("i")).sort();
    assert.ok(numbers.every((number, index) => number === BigInt(index)));
  }));

test("errors are DuckDB's, and the connection goes on", () =>
  withClient({}, async (client) => {
    await assert.rejects(client.execute("FROM nosuch"), /Table with name nosuch does not exist/);
    assert.deepEqual(await rows(client, "SELECT 1 AS a"), [{ a: 1 }]);
  }));

test("metadata", () =>
  withClient(login, async (client) => {
    await client.execute("CREATE OR REPLACE TABLE js (i INTEGER)");
    assert.ok((await client.getCatalogs()).includes("memory"));
    assert.ok((await client.getSchemas("memory")).some((schema) => schema.schema === "main"));
    const tables = await client.getTables("memory", "main", "j%");
    assert.deepEqual(tables.map((table) => table.tableName), ["js"]);
    assert.ok((await client.getTableTypes()).some((kind) => kind.includes("TABLE")));
    const info = await client.getSqlInfo([0, 1]);
    assert.equal(typeof info.get(0), "string");
  }));

test("a token that nobody gave out is refused", () =>
  withClient({ token: "nonsense" }, (client) => assert.rejects(client.execute("SELECT 1"))));

// This version of the client sends these without the wrapping that Flight SQL asks for.
test("malformed requests are refused, and harm nothing", () =>
  withClient({}, async (client) => {
    await assert.rejects(client.prepare("SELECT ?"));
    await assert.rejects(client.getPrimaryKeys("memory", "main", "js"));
    await assert.rejects(client.getQuerySchema("SELECT 1"));
    assert.deepEqual(await rows(client, "SELECT 1 AS a"), [{ a: 1 }]);
  }));
