// Tests of the stage's DynamoDB Streams with the AWS SDK for JavaScript.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import {
  CreateTableCommand,
  DeleteTableCommand,
  DynamoDBClient,
  PutItemCommand,
  UpdateTimeToLiveCommand,
} from "@aws-sdk/client-dynamodb";
import {
  DescribeStreamCommand,
  DynamoDBStreamsClient,
  GetRecordsCommand,
  GetShardIteratorCommand,
  ResourceNotFoundException,
} from "@aws-sdk/client-dynamodb-streams";

const options = {
  endpoint: process.env.STREAMER_ENDPOINT,
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
};
const dynamodb = new DynamoDBClient(options);
const streams = new DynamoDBStreamsClient(options);
const TableName = `js-${randomUUID()}`;
// Longer than 30 seconds, the interval at which the stage deletes expired items.
const TIMEOUT_MS = 90_000;
let StreamArn;

before(async () => {
  const { TableDescription } = await dynamodb.send(
    new CreateTableCommand({
      TableName,
      KeySchema: [{ AttributeName: "pk", KeyType: "HASH" }],
      AttributeDefinitions: [{ AttributeName: "pk", AttributeType: "S" }],
      BillingMode: "PAY_PER_REQUEST",
      StreamSpecification: { StreamEnabled: true, StreamViewType: "NEW_IMAGE" },
    }),
  );
  StreamArn = TableDescription.LatestStreamArn;
});

after(async () => {
  await dynamodb.send(new DeleteTableCommand({ TableName }));
  dynamodb.destroy();
  streams.destroy();
});

const put = (key, value, more = {}) =>
  dynamodb.send(new PutItemCommand({ TableName, Item: { pk: { S: key }, v: { S: value }, ...more } }));

async function shards() {
  const all = [];
  let ExclusiveStartShardId;
  do {
    const page = await streams.send(new DescribeStreamCommand({ StreamArn, Limit: 1, ExclusiveStartShardId }));
    all.push(...page.StreamDescription.Shards.map((shard) => shard.ShardId));
    ExclusiveStartShardId = page.StreamDescription.LastEvaluatedShardId;
  } while (ExclusiveStartShardId);
  return all;
}

async function read(ShardId, ShardIteratorType, SequenceNumber) {
  const start = new GetShardIteratorCommand({ StreamArn, ShardId, ShardIteratorType, SequenceNumber });
  const { ShardIterator } = await streams.send(start);
  return streams.send(new GetRecordsCommand({ ShardIterator }));
}

/** Returns the id of the shard that contains the records of the item `key`, and these records. */
async function recordsOf(key) {
  for (const shard of await shards()) {
    const { Records } = await read(shard, "TRIM_HORIZON");
    const found = Records.filter((record) => record.dynamodb.Keys.pk.S === key);
    if (found.length > 0) return { shard, records: found };
  }
  return { records: [] };
}

test("each iterator type starts reading at its position", async () => {
  for (const value of ["1", "2", "3"]) await put("a", value);
  const { shard, records } = await recordsOf("a");
  assert.deepEqual(records.map((record) => record.eventName), ["INSERT", "MODIFY", "MODIFY"]);
  assert.ok(records[0].dynamodb.ApproximateCreationDateTime instanceof Date);
  const second = records[1].dynamodb.SequenceNumber;
  const values = ({ Records }) => Records.map((record) => record.dynamodb.NewImage.v.S);
  assert.deepEqual(values(await read(shard, "AT_SEQUENCE_NUMBER", second)), ["2", "3"]);
  assert.deepEqual(values(await read(shard, "AFTER_SEQUENCE_NUMBER", second)), ["3"]);
  const latest = await read(shard, "LATEST");
  assert.deepEqual(latest.Records, []);
  await put("a", "4");
  const next = await streams.send(new GetRecordsCommand({ ShardIterator: latest.NextShardIterator }));
  assert.deepEqual(values(next), ["4"]);
});

test("describing a missing stream fails with ResourceNotFoundException", async () => {
  const missing = streams.send(new DescribeStreamCommand({ StreamArn: `${StreamArn}-not` }));
  await assert.rejects(missing, ResourceNotFoundException);
});

test("the record of a deletion by time to live names the DynamoDB service as the deleter", async () => {
  const TimeToLiveSpecification = { Enabled: true, AttributeName: "expires" };
  await dynamodb.send(new UpdateTimeToLiveCommand({ TableName, TimeToLiveSpecification }));
  await put("expired", "1", { expires: { N: String(Math.floor(Date.now() / 1000) - 10) } });
  const deadline = Date.now() + TIMEOUT_MS;
  let removal;
  while (!removal && Date.now() < deadline) {
    await sleep(500);
    removal = (await recordsOf("expired")).records.find((record) => record.eventName === "REMOVE");
  }
  assert.deepEqual(removal?.userIdentity, { PrincipalId: "dynamodb.amazonaws.com", Type: "Service" });
});
