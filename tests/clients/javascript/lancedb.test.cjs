// @lancedb/arrow-flight-sql-client: grpc-js and protobufjs, messages of at most 4 MiB. Run by test_javascript.py.
"use strict";
const assert = require("node:assert/strict");
const test = require("node:test");
const { Client } = require("@lancedb/arrow-flight-sql-client");

const connect = () =>
  Client.connect({
    host: `127.0.0.1:${process.env.DUCKLING_PORT}`,
    username: "mallard",
    password: "quack",
    insecure: true,
  });

const objects = async (client, sql) => (await (await client.query(sql)).collectToObjects()).map((row) => ({ ...row }));

test("queries", async () => {
  const client = await connect();
  assert.deepEqual(await objects(client, "SELECT 42 AS answer, 'größe' AS text"), [{ answer: 42, text: "größe" }]);
  assert.deepEqual(await objects(client, "SELECT 1 AS a WHERE false"), []);
});

test("writes, and a session that keeps its state", async () => {
  const client = await connect();
  await objects(client, "CREATE OR REPLACE TEMP TABLE lance (i INTEGER)");
  await objects(client, "INSERT INTO lance VALUES (1), (2)");
  assert.deepEqual(await objects(client, "SELECT i FROM lance ORDER BY i"), [{ i: 1 }, { i: 2 }]);
});

test("record batches, in messages that fit", async () => {
  const client = await connect();
  const result = await client.query("SELECT range AS i, repeat('x', 1000) AS s FROM range(50_000)");
  let count = 0;
  for await (const batch of result.toArrowStream()) count += batch.numRows;
  assert.equal(count, 50000);
});

// Other clients get it in several streams: LanceDB's would refuse that.
test("a large result without an order comes in one stream", async () => {
  const client = await connect();
  const result = await client.query("SELECT range AS i FROM range(1_200_000)");
  let [count, sum] = [0, 0n];
  for await (const batch of result.toArrowStream()) {
    count += batch.numRows;
    for (const number of batch.getChild("i")) sum += number;
  }
  assert.deepEqual([count, sum], [1200000, (1200000n * 1199999n) / 2n]);
});

test("errors are DuckDB's, and the connection goes on", async () => {
  const client = await connect();
  await assert.rejects(objects(client, "FROM nosuch"), /Table with name nosuch does not exist/);
  assert.deepEqual(await objects(client, "SELECT 1 AS a"), [{ a: 1 }]);
});
