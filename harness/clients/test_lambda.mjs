// The AWS SDK's client of Lambda against the stage's functions.

import assert from "node:assert/strict";
import { test } from "node:test";

import { GetFunctionCommand, InvokeCommand, LambdaClient } from "@aws-sdk/client-lambda";

const FunctionName = "streamer-ProcessorFunction";
// A refusal is to be seen, and not tried again.
const client = new LambdaClient({ endpoint: process.env.STREAMER_ENDPOINT, maxAttempts: 1 });
const PATIENCE = { timeout: 60_000 };

const invoke = (Payload, rest = {}) => client.send(new InvokeCommand({ FunctionName, Payload, ...rest }));
const parsed = (reply) => JSON.parse(Buffer.from(reply.Payload).toString());
const batch = JSON.stringify({ Records: [] });

test("a function replies", PATIENCE, async () => {
  const reply = await invoke(batch);
  assert.deepEqual([reply.StatusCode, reply.ExecutedVersion, reply.FunctionError], [200, "$LATEST", undefined]);
  assert.ok("batchItemFailures" in parsed(reply));
});

test("a function that fails is told with its error", PATIENCE, async () => {
  const reply = await invoke(JSON.stringify(["no batch"]));
  assert.deepEqual([reply.StatusCode, reply.FunctionError], [200, "Unhandled"]);
  assert.ok(parsed(reply).errorMessage);
});

test("an event is accepted, and a dry run runs nothing", PATIENCE, async () => {
  assert.equal((await invoke(batch, { InvocationType: "Event" })).StatusCode, 202);
  assert.equal((await invoke(batch, { InvocationType: "DryRun" })).StatusCode, 204);
});

test("refusals have their names", PATIENCE, async () => {
  await assert.rejects(invoke(batch, { FunctionName: "no-such-function" }), { name: "ResourceNotFoundException" });
  await assert.rejects(invoke("{"), { name: "InvalidRequestContentException" });
  const large = "1".repeat(1024 * 1024 + 1);
  await assert.rejects(invoke(large, { InvocationType: "Event" }), { name: "RequestTooLargeException" });
});

test("a function is described", PATIENCE, async () => {
  const { Configuration } = await client.send(new GetFunctionCommand({ FunctionName }));
  assert.equal(Configuration.FunctionName, FunctionName);
  assert.equal(Configuration.State, "Active");
});
