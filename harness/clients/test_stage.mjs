// A request from a WebSocket client to its end, and what the AWS SDK finds of it in the table.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";

import { DynamoDBClient, ListTablesCommand, paginateScan } from "@aws-sdk/client-dynamodb";
import WebSocket from "ws";

const { STREAMER_ENDPOINT, STREAMER_TOKEN, STREAMER_WS_URL } = process.env;
const PATIENCE = { timeout: 60_000 };

/** Sends a request, and returns every frame of it to its last. */
async function ask(action, request, payload) {
  const socket = new WebSocket(`${STREAMER_WS_URL}?token=${STREAMER_TOKEN}`);
  const frames = [];
  try {
    await new Promise((resolve, reject) => {
      socket.on("error", reject);
      socket.on("close", (code) => reject(new Error(`closed with ${code}`)));
      socket.on("open", () => socket.send(JSON.stringify({ action, id: request, payload })));
      socket.on("message", (text) => {
        const frame = JSON.parse(text);
        if (frame.request_id === request) frames.push(frame);
        if (["complete", "error", "response"].includes(frame.type)) resolve();
      });
    });
  } finally {
    socket.close();
  }
  return frames;
}

test("a request is taken to its end and kept", PATIENCE, async () => {
  const request = `js-${randomUUID()}`;
  const frames = await ask("echo_async", request, { message: "hello from ws", rounds: 3 });
  const kinds = frames.map((frame) => frame.type);
  assert.deepEqual([kinds.at(0), kinds.at(-1)], ["acknowledgment", "complete"]);
  assert.ok(kinds.includes("progress"), JSON.stringify(kinds));
  assert.equal(frames.at(-1).result.message, "hello from ws");

  const client = new DynamoDBClient({ endpoint: STREAMER_ENDPOINT });
  const { TableNames } = await client.send(new ListTablesCommand({}));
  const TableName = TableNames.find((name) => name.endsWith("RequestsTable"));
  const items = [];
  for await (const page of paginateScan({ client }, { TableName })) items.push(...page.Items);
  const kept = items.filter((item) => item.client_id?.S === request && item.status);
  assert.deepEqual(kept.map((item) => item.status), [{ S: "COMPLETED" }]);
});

test("who has no token is refused", PATIENCE, async () => {
  const socket = new WebSocket(STREAMER_WS_URL);
  const status = await new Promise((resolve, reject) => {
    socket.on("unexpected-response", (request, response) => {
      resolve(response.statusCode);
      // Its connection would be kept open, and the process with it.
      request.destroy();
    });
    socket.on("open", () => reject(new Error("it was let in")));
  });
  assert.equal(status, 401);
});
