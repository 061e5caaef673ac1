// Runs a request over a WebSocket, and reads its item from the table with the AWS SDK for JavaScript.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";

import { DynamoDBClient, ListTablesCommand, paginateScan } from "@aws-sdk/client-dynamodb";
import WebSocket from "ws";

const { STREAMER_ENDPOINT, STREAMER_TOKEN, STREAMER_WS_URL } = process.env;
const OPTIONS = { timeout: 60_000 };

/** Sends a request, and returns all of its frames, up to and including the terminal frame. */
async function runRequest(action, request, payload) {
  const socket = new WebSocket(`${STREAMER_WS_URL}?token=${STREAMER_TOKEN}`);
  const frames = [];
  try {
    await new Promise((resolve, reject) => {
      socket.on("error", reject);
      socket.on("close", (code) => reject(new Error(`connection closed with code ${code}`)));
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

test("a queued request completes and its item has the status COMPLETED", OPTIONS, async () => {
  const request = `js-${randomUUID()}`;
  const frames = await runRequest("echo_async", request, { message: "hello from ws", rounds: 3 });
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

test("a connection without a token is refused with 401", OPTIONS, async () => {
  const socket = new WebSocket(STREAMER_WS_URL);
  const status = await new Promise((resolve, reject) => {
    socket.on("unexpected-response", (request, response) => {
      resolve(response.statusCode);
      // An open connection would keep the Node.js process running.
      request.destroy();
    });
    socket.on("open", () => reject(new Error("connection without a token was accepted")));
  });
  assert.equal(status, 401);
});
