"""Tests of the stage's queues with boto3."""

import json
import os
import unittest
import uuid

import boto3
from botocore.config import Config


def client():
    return boto3.client(
        "sqs",
        endpoint_url=os.environ["STREAMER_ENDPOINT"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )


class Queues(unittest.TestCase):
    def setUp(self):
        self.sqs = client()
        self.addCleanup(self.sqs.close)
        self.name = f"boto3-{uuid.uuid4()}"
        self.url = self.queue(self.name)

    def queue(self, name, **attributes):
        url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        self.addCleanup(self.sqs.delete_queue, QueueUrl=url)
        return url

    def arn(self, url):
        names = ["QueueArn"]
        return self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]["QueueArn"]

    def receive(self, url, **options):
        answer = self.sqs.receive_message(QueueUrl=url, MessageSystemAttributeNames=["All"], **options)
        return answer.get("Messages", [])

    def test_stream_failure_queue_has_the_retention_period_of_the_template(self):
        url = self.sqs.get_queue_url(QueueName="streamer-StreamFailureQueue")["QueueUrl"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        self.assertEqual(attributes["MessageRetentionPeriod"], "1209600")
        self.assertTrue(attributes["QueueArn"].endswith(":streamer-StreamFailureQueue"))

    def test_sent_message_is_received_with_its_attributes_and_then_deleted(self):
        # boto3 verifies the digests of the received body and attributes.
        attributes = {
            "text": {"DataType": "String", "StringValue": "grün"},
            "count": {"DataType": "Number", "StringValue": "7"},
            "bytes": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        }
        sent = self.sqs.send_message(QueueUrl=self.url, MessageBody="hello", MessageAttributes=attributes)
        [message] = self.receive(self.url, MessageAttributeNames=["All"])
        self.assertEqual(message["MessageId"], sent["MessageId"])
        self.assertEqual(message["Body"], "hello")
        self.assertEqual(message["MessageAttributes"], attributes)
        self.assertEqual(message["MD5OfMessageAttributes"], sent["MD5OfMessageAttributes"])
        self.assertEqual(message["Attributes"]["ApproximateReceiveCount"], "1")
        self.assertEqual(self.receive(self.url), [])
        self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])

    def test_batch_of_ten_messages_is_sent_received_and_deleted(self):
        entries = [{"Id": str(n), "MessageBody": "x" * 20_000} for n in range(10)]
        sent = self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)
        self.assertEqual(len(sent["Successful"]), 10)
        messages = self.receive(self.url, MaxNumberOfMessages=10)
        self.assertEqual(len(messages), 10)
        handles = [{"Id": m["MessageId"], "ReceiptHandle": m["ReceiptHandle"]} for m in messages]
        visible = [{**handle, "VisibilityTimeout": 60} for handle in handles]
        changed = self.sqs.change_message_visibility_batch(QueueUrl=self.url, Entries=visible)
        self.assertEqual(len(changed["Successful"]), 10)
        deleted = self.sqs.delete_message_batch(QueueUrl=self.url, Entries=handles)
        self.assertEqual(len(deleted["Successful"]), 10)

    def test_message_moves_to_the_dead_letter_queue_and_back(self):
        policy = json.dumps({"deadLetterTargetArn": self.arn(self.url), "maxReceiveCount": "1"})
        source = self.queue(f"{self.name}-source", RedrivePolicy=policy, VisibilityTimeout="0")
        self.sqs.send_message(QueueUrl=source, MessageBody="poison")
        self.assertEqual(len(self.receive(source)), 1)
        self.assertEqual(self.receive(source), [])
        [dead] = self.receive(self.url, VisibilityTimeout=0)
        self.assertEqual(dead["Attributes"]["DeadLetterQueueSourceArn"], self.arn(source))
        sources = self.sqs.list_dead_letter_source_queues(QueueUrl=self.url)["queueUrls"]
        self.assertEqual(sources, [source])
        self.sqs.start_message_move_task(SourceArn=self.arn(self.url))
        [task] = self.sqs.list_message_move_tasks(SourceArn=self.arn(self.url))["Results"]
        self.assertEqual((task["Status"], task["ApproximateNumberOfMessagesMoved"]), ("COMPLETED", 1))
        [back] = self.receive(source)
        self.assertEqual(back["Body"], "poison")

    def test_sqs_errors_are_raised_as_the_exception_types_of_boto3(self):
        errors = self.sqs.exceptions
        with self.assertRaises(errors.QueueDoesNotExist) as caught:
            self.sqs.get_queue_url(QueueName="none")
        code = caught.exception.response["Error"]["QueryErrorCode"]
        self.assertEqual(code, "QueueDoesNotExist")
        self.assertEqual(caught.exception.response["Error"]["Code"], "AWS.SimpleQueueService.NonExistentQueue")
        with self.assertRaises(errors.ReceiptHandleIsInvalid):
            self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle="nonsense")
        with self.assertRaises(errors.UnsupportedOperation):
            self.sqs.create_queue(QueueName="q.fifo", Attributes={"FifoQueue": "true"})
        with self.assertRaises(errors.EmptyBatchRequest):
            self.sqs.send_message_batch(QueueUrl=self.url, Entries=[])


if __name__ == "__main__":
    unittest.main()
