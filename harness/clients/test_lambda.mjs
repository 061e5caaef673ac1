// Tests of the stage's functions with the Lambda client of the AWS SDK for JavaScript.

import assert from "node:assert/strict";
import { test } from "node:test";

import { GetFunctionCommand, InvokeCommand, LambdaClient } from "@aws-sdk/client-lambda";

const FunctionName = "streamer-ProcessorFunction";
// Disables retries, so that a test receives the first refusal.
const client = new LambdaClient({ endpoint: process.env.STREAMER_ENDPOINT, maxAttempts: 1 });
const OPTIONS = { timeout: 60_000 };

const invoke = (Payload, rest = {}) => client.send(new InvokeCommand({ FunctionName, Payload, ...rest }));
const parsed = (reply) => JSON.parse(Buffer.from(reply.Payload).toString());
const batch = JSON.stringify({ Records: [] });

test("a synchronous invocation returns the function's reply", OPTIONS, async () => {
  const reply = await invoke(batch);
  assert.deepEqual([reply.StatusCode, reply.ExecutedVersion, reply.FunctionError], [200, "$LATEST", undefined]);
  assert.ok("batchItemFailures" in parsed(reply));
});

test("a function error is returned as Unhandled with its message", OPTIONS, async () => {
  const reply = await invoke(JSON.stringify(["no batch"]));
  assert.deepEqual([reply.StatusCode, reply.FunctionError], [200, "Unhandled"]);
  assert.ok(parsed(reply).errorMessage);
});

test("an Event invocation returns 202, and a DryRun returns 204", OPTIONS, async () => {
  assert.equal((await invoke(batch, { InvocationType: "Event" })).StatusCode, 202);
  assert.equal((await invoke(batch, { InvocationType: "DryRun" })).StatusCode, 204);
});

test("refused invocations have the SDK's exception names", OPTIONS, async () => {
  await assert.rejects(invoke(batch, { FunctionName: "no-such-function" }), { name: "ResourceNotFoundException" });
  await assert.rejects(invoke("{"), { name: "InvalidRequestContentException" });
  const large = "1".repeat(1024 * 1024 + 1);
  await assert.rejects(invoke(large, { InvocationType: "Event" }), { name: "RequestTooLargeException" });
});

test("GetFunction returns the function's name and state", OPTIONS, async () => {
  const { Configuration } = await client.send(new GetFunctionCommand({ FunctionName }));
  assert.equal(Configuration.FunctionName, FunctionName);
  assert.equal(Configuration.State, "Active");
});
