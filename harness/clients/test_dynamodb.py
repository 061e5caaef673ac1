"""Tests of the stage's DynamoDB with boto3."""

import gzip
import os
import unittest
import uuid

import boto3
from boto3.dynamodb.conditions import Key
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = os.environ["STREAMER_ENDPOINT"]


def resource():
    return boto3.resource(
        "dynamodb",
        endpoint_url=ENDPOINT,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 0}),
    )


class Items(unittest.TestCase):
    def setUp(self):
        self.dynamodb = resource()
        self.table = self.dynamodb.create_table(
            TableName=f"py-{uuid.uuid4()}",
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": kind}
                for name, kind in [("pk", "S"), ("sk", "N"), ("owner", "S")]
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "by-owner",
                    "KeySchema": [{"AttributeName": "owner", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        self.addCleanup(self.table.delete)
        self.table.wait_until_exists()

    def code_of(self, error):
        return error.exception.response["Error"]["Code"]

    def test_items_are_put_updated_queried_in_pages_and_deleted(self):
        for number in range(5):
            self.table.put_item(Item={"pk": "a", "sk": number, "owner": "ann", "tags": {"x", "y"}})
        first = self.table.query(KeyConditionExpression=Key("pk").eq("a"), Limit=3)
        rest = self.table.query(
            KeyConditionExpression=Key("pk").eq("a"), ExclusiveStartKey=first["LastEvaluatedKey"]
        )
        self.assertEqual([item["sk"] for item in first["Items"] + rest["Items"]], [0, 1, 2, 3, 4])
        self.assertNotIn("LastEvaluatedKey", rest)
        changed = self.table.update_item(
            Key={"pk": "a", "sk": 0},
            UpdateExpression="SET #n = if_not_exists(#n, :zero) + :one DELETE tags :x",
            ExpressionAttributeNames={"#n": "n"},
            ExpressionAttributeValues={":zero": 0, ":one": 1, ":x": {"x"}},
            ReturnValues="ALL_NEW",
        )["Attributes"]
        self.assertEqual((changed["n"], changed["tags"]), (1, {"y"}))
        found = self.table.query(IndexName="by-owner", KeyConditionExpression=Key("owner").eq("ann"))
        self.assertEqual(found["Count"], 5)
        self.table.delete_item(Key={"pk": "a", "sk": 0})
        self.assertNotIn("Item", self.table.get_item(Key={"pk": "a", "sk": 0}, ConsistentRead=True))

    def test_gzip_request_body_is_accepted(self):
        def compress(request, **_):
            body = gzip.compress(request.body)
            request.body = body
            request.headers["Content-Encoding"] = "gzip"
            request.headers["Content-Length"] = str(len(body))
            sent.append(len(body))

        sent = []
        # boto3 compresses a body only if the service's model enables compression, and DynamoDB's model does not.
        self.table.meta.client.meta.events.register("before-send.dynamodb.PutItem", compress)
        self.table.put_item(Item={"pk": "big", "sk": 0, "text": "x" * 50_000})
        item = self.table.get_item(Key={"pk": "big", "sk": 0})["Item"]
        self.assertEqual(len(item["text"]), 50_000)
        self.assertTrue(0 < sent[0] < 10_000, sent)

    def test_failed_condition_returns_the_old_item_and_cancelled_transaction_its_reasons(self):
        self.table.put_item(Item={"pk": "a", "sk": 1})
        with self.assertRaises(ClientError) as refused:
            self.table.put_item(
                Item={"pk": "a", "sk": 1},
                ConditionExpression="attribute_not_exists(pk)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        self.assertEqual(self.code_of(refused), "ConditionalCheckFailedException")
        self.assertEqual(refused.exception.response["Item"], {"pk": {"S": "a"}, "sk": {"N": "1"}})

        def write(number):
            return {
                "Put": {
                    "TableName": self.table.name,
                    "Item": {"pk": "a", "sk": number},
                    "ConditionExpression": "attribute_not_exists(pk)",
                }
            }

        client = self.dynamodb.meta.client
        with self.assertRaises(client.exceptions.TransactionCanceledException) as cancelled:
            client.transact_write_items(TransactItems=[write(2), write(1)])
        codes = [reason["Code"] for reason in cancelled.exception.response["CancellationReasons"]]
        self.assertEqual(codes, ["None", "ConditionalCheckFailed"])
        self.assertNotIn("Item", self.table.get_item(Key={"pk": "a", "sk": 2}))

    def test_consumed_capacity_and_error_codes_are_parsed(self):
        put = self.table.put_item(Item={"pk": "a", "sk": 1, "owner": "ann"}, ReturnConsumedCapacity="INDEXES")
        consumed = put["ConsumedCapacity"]
        self.assertEqual(consumed["CapacityUnits"], 2)
        self.assertEqual(consumed["GlobalSecondaryIndexes"]["by-owner"]["CapacityUnits"], 1)
        self.assertEqual(len(put["ResponseMetadata"]["RequestId"]), 52)
        with self.assertRaises(ClientError) as missing:
            self.dynamodb.Table(f"py-{uuid.uuid4()}").get_item(Key={"pk": "a"})
        self.assertEqual(self.code_of(missing), "ResourceNotFoundException")
        with self.assertRaises(ClientError) as invalid:
            self.table.get_item(Key={"pk": "a"})
        self.assertEqual(self.code_of(invalid), "ValidationException")


if __name__ == "__main__":
    unittest.main()
