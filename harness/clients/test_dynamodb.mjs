// Tests of the stage's DynamoDB with the AWS SDK for JavaScript.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";

import {
  BatchWriteItemCommand,
  ConditionalCheckFailedException,
  CreateTableCommand,
  DeleteTableCommand,
  DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
  QueryCommand,
  ResourceNotFoundException,
  TransactionCanceledException,
  TransactWriteItemsCommand,
} from "@aws-sdk/client-dynamodb";

const client = new DynamoDBClient({
  endpoint: process.env.STREAMER_ENDPOINT,
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
  maxAttempts: 1,
});
const TableName = `js-${randomUUID()}`;

before(async () => {
  await client.send(
    new CreateTableCommand({
      TableName,
      KeySchema: [
        { AttributeName: "pk", KeyType: "HASH" },
        { AttributeName: "sk", KeyType: "RANGE" },
      ],
      AttributeDefinitions: [
        { AttributeName: "pk", AttributeType: "S" },
        { AttributeName: "sk", AttributeType: "N" },
      ],
      BillingMode: "PAY_PER_REQUEST",
    }),
  );
});

after(async () => {
  await client.send(new DeleteTableCommand({ TableName }));
  client.destroy();
});

test("items written in a batch are queried in pages", async () => {
  const puts = [1, 2, 3].map((n) => ({ PutRequest: { Item: { pk: { S: "a" }, sk: { N: String(n) } } } }));
  const written = await client.send(new BatchWriteItemCommand({ RequestItems: { [TableName]: puts } }));
  assert.deepEqual(written.UnprocessedItems, {});
  const query = {
    TableName,
    KeyConditionExpression: "pk = :pk",
    ExpressionAttributeValues: { ":pk": { S: "a" } },
    Limit: 2,
  };
  const first = await client.send(new QueryCommand(query));
  const rest = await client.send(new QueryCommand({ ...query, ExclusiveStartKey: first.LastEvaluatedKey }));
  assert.deepEqual([...first.Items, ...rest.Items].map((item) => item.sk.N), ["1", "2", "3"]);
  assert.equal(rest.LastEvaluatedKey, undefined);
});

test("binary values and large numbers are returned unchanged", async () => {
  const Item = { pk: { S: "kinds" }, sk: { N: "1" }, bytes: { B: new Uint8Array([0, 255, 7]) }, n: { N: "12345678901234567890" } };
  await client.send(new PutItemCommand({ TableName, Item }));
  const found = await client.send(new GetItemCommand({ TableName, Key: { pk: Item.pk, sk: Item.sk } }));
  assert.deepEqual(new Uint8Array(found.Item.bytes.B), Item.bytes.B);
  assert.equal(found.Item.n.N, Item.n.N);
});

test("a failed condition returns the old item, and a cancelled transaction returns its reasons", async () => {
  const Item = { pk: { S: "taken" }, sk: { N: "1" } };
  await client.send(new PutItemCommand({ TableName, Item }));
  const ConditionExpression = "attribute_not_exists(pk)";
  await assert.rejects(
    client.send(
      new PutItemCommand({ TableName, Item, ConditionExpression, ReturnValuesOnConditionCheckFailure: "ALL_OLD" }),
    ),
    (error) => {
      assert.ok(error instanceof ConditionalCheckFailedException);
      assert.deepEqual(error.Item, Item);
      return true;
    },
  );
  const write = (n) => ({ Put: { TableName, Item: { ...Item, sk: { N: n } }, ConditionExpression } });
  await assert.rejects(
    client.send(new TransactWriteItemsCommand({ TransactItems: [write("2"), write("1")] })),
    (error) => {
      assert.ok(error instanceof TransactionCanceledException);
      assert.deepEqual(error.CancellationReasons.map((reason) => reason.Code), ["None", "ConditionalCheckFailed"]);
      return true;
    },
  );
});

test("reading a missing table fails with ResourceNotFoundException", async () => {
  const missing = client.send(new GetItemCommand({ TableName: `js-${randomUUID()}`, Key: { pk: { S: "a" } } }));
  await assert.rejects(missing, ResourceNotFoundException);
});
