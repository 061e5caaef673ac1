// Tests of the stage's queues with the AWS SDK for JavaScript.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import test from "node:test";

import {
  ChangeMessageVisibilityCommand,
  CreateQueueCommand,
  DeleteMessageCommand,
  DeleteQueueCommand,
  GetQueueAttributesCommand,
  GetQueueUrlCommand,
  QueueDoesNotExist,
  ReceiptHandleIsInvalid,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
  SQSClient,
} from "@aws-sdk/client-sqs";

const sqs = new SQSClient({
  endpoint: process.env.STREAMER_ENDPOINT,
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
  maxAttempts: 1,
});

test.after(() => sqs.destroy());

// Creates a queue, and deletes it at the end of the test.
async function queue(t, attributes = {}) {
  const { QueueUrl } = await sqs.send(
    new CreateQueueCommand({ QueueName: `js-${randomUUID()}`, Attributes: attributes }),
  );
  t.after(() => sqs.send(new DeleteQueueCommand({ QueueUrl })));
  return QueueUrl;
}

async function receive(QueueUrl, options = {}) {
  const { Messages } = await sqs.send(
    new ReceiveMessageCommand({ QueueUrl, MessageSystemAttributeNames: ["All"], ...options }),
  );
  return Messages ?? [];
}

test("a sent message is received with its attributes and then deleted", async (t) => {
  const QueueUrl = await queue(t);
  // The SDK verifies the digest of the received body.
  const MessageAttributes = {
    text: { DataType: "String", StringValue: "grün" },
    bytes: { DataType: "Binary", BinaryValue: new Uint8Array([0, 255]) },
  };
  const sent = await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: "hello", MessageAttributes }));
  const [message] = await receive(QueueUrl, { MessageAttributeNames: ["All"] });
  assert.equal(message.MessageId, sent.MessageId);
  assert.equal(message.Body, "hello");
  assert.equal(message.MD5OfMessageAttributes, sent.MD5OfMessageAttributes);
  assert.deepEqual(message.MessageAttributes.bytes.BinaryValue, new Uint8Array([0, 255]));
  assert.equal(message.Attributes.ApproximateReceiveCount, "1");
  const { ReceiptHandle } = message;
  await sqs.send(new ChangeMessageVisibilityCommand({ QueueUrl, ReceiptHandle, VisibilityTimeout: 0 }));
  assert.equal((await receive(QueueUrl)).length, 1);
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle }));
});

test("a long poll returns messages that are sent while it waits", async (t) => {
  const QueueUrl = await queue(t);
  const polled = receive(QueueUrl, { WaitTimeSeconds: 20, MaxNumberOfMessages: 10 });
  const Entries = ["a", "b"].map((Id) => ({ Id, MessageBody: Id }));
  const { Successful } = await sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
  assert.equal(Successful.length, 2);
  const bodies = (await polled).map((message) => message.Body);
  assert.deepEqual(bodies, ["a", "b"]);
});

test("the stream failure queue has the retention period of the template", async () => {
  const { QueueUrl } = await sqs.send(new GetQueueUrlCommand({ QueueName: "streamer-StreamFailureQueue" }));
  const { Attributes } = await sqs.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["All"] }));
  assert.equal(Attributes.MessageRetentionPeriod, "1209600");
});

test("SQS errors have the SDK's exception types", async (t) => {
  await assert.rejects(sqs.send(new GetQueueUrlCommand({ QueueName: "none" })), QueueDoesNotExist);
  const QueueUrl = await queue(t);
  const wrong = new DeleteMessageCommand({ QueueUrl, ReceiptHandle: "nonsense" });
  await assert.rejects(sqs.send(wrong), ReceiptHandleIsInvalid);
});
