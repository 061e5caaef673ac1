"""Tests of the stage's DynamoDB Streams with boto3."""

import os
import time
import unittest
import uuid

import boto3

OPTIONS = {
    "endpoint_url": os.environ["STREAMER_ENDPOINT"],
    "region_name": "us-east-1",
    "aws_access_key_id": "test",
    "aws_secret_access_key": "test",
}
# Longer than 30 seconds, the interval at which the stage deletes expired items.
TIMEOUT_S = 90


class Streams(unittest.TestCase):
    def setUp(self):
        self.dynamodb = boto3.client("dynamodb", **OPTIONS)
        self.streams = boto3.client("dynamodbstreams", **OPTIONS)
        self.table = f"py-{uuid.uuid4()}"
        self.arn = self.dynamodb.create_table(
            TableName=self.table,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )["TableDescription"]["LatestStreamArn"]
        self.addCleanup(self.dynamodb.delete_table, TableName=self.table)

    def put(self, key, value, **more):
        self.dynamodb.put_item(TableName=self.table, Item={"pk": {"S": key}, "v": {"S": value}, **more})

    def shards(self):
        """Returns all shards, read in pages of one shard."""
        shards, start = [], {}
        while True:
            described = self.streams.describe_stream(StreamArn=self.arn, Limit=1, **start)["StreamDescription"]
            shards += described["Shards"]
            if "LastEvaluatedShardId" not in described:
                return shards
            start = {"ExclusiveStartShardId": described["LastEvaluatedShardId"]}

    def iterator(self, shard, kind, **number):
        return self.streams.get_shard_iterator(
            StreamArn=self.arn, ShardId=shard["ShardId"], ShardIteratorType=kind, **number
        )["ShardIterator"]

    def read(self, iterator, **limit):
        return self.streams.get_records(ShardIterator=iterator, **limit)

    def all_records(self):
        return [
            record for shard in self.shards() for record in self.read(self.iterator(shard, "TRIM_HORIZON"))["Records"]
        ]

    def shard_with_records(self):
        return next(shard for shard in self.shards() if self.read(self.iterator(shard, "TRIM_HORIZON"))["Records"])

    def test_stream_is_listed_and_described(self):
        [listed] = self.streams.list_streams(TableName=self.table)["Streams"]
        self.assertEqual((listed["StreamArn"], listed["TableName"]), (self.arn, self.table))
        described = self.streams.describe_stream(StreamArn=self.arn)["StreamDescription"]
        self.assertEqual((described["StreamStatus"], described["StreamViewType"]), ("ENABLED", "NEW_AND_OLD_IMAGES"))
        self.assertEqual(described["KeySchema"], [{"AttributeName": "pk", "KeyType": "HASH"}])
        self.assertEqual(self.shards(), described["Shards"])
        self.assertGreater(len(described["Shards"]), 1)

    def test_each_iterator_type_starts_reading_at_its_position(self):
        for value in ["1", "2", "3"]:
            self.put("a", value)
        shard = self.shard_with_records()
        records = self.read(self.iterator(shard, "TRIM_HORIZON"))["Records"]
        self.assertEqual([record["eventName"] for record in records], ["INSERT", "MODIFY", "MODIFY"])
        self.assertEqual(records[1]["dynamodb"]["OldImage"]["v"], {"S": "1"})
        self.assertEqual(records[1]["dynamodb"]["NewImage"]["v"], {"S": "2"})
        second = records[1]["dynamodb"]["SequenceNumber"]
        for kind, expected in [("AT_SEQUENCE_NUMBER", records[1:]), ("AFTER_SEQUENCE_NUMBER", records[2:])]:
            read = self.read(self.iterator(shard, kind, SequenceNumber=second))
            self.assertEqual(read["Records"], expected, kind)
        latest = self.read(self.iterator(shard, "LATEST"))
        self.assertEqual(latest["Records"], [])
        self.put("a", "4")
        [newest] = self.read(latest["NextShardIterator"])["Records"]
        self.assertEqual(newest["dynamodb"]["NewImage"]["v"], {"S": "4"})

    def test_records_are_read_in_pages(self):
        for value in ["1", "2", "3"]:
            self.put("a", value)
        iterator = self.iterator(self.shard_with_records(), "TRIM_HORIZON")
        seen = []
        for _ in range(3):
            page = self.read(iterator, Limit=1)
            seen += [record["dynamodb"]["NewImage"]["v"]["S"] for record in page["Records"]]
            iterator = page["NextShardIterator"]
        self.assertEqual(seen, ["1", "2", "3"])

    def test_missing_stream_and_invalid_iterator_are_refused_with_aws_error_codes(self):
        errors = self.streams.exceptions
        with self.assertRaises(errors.ResourceNotFoundException):
            self.streams.describe_stream(StreamArn=f"{self.arn}-not")
        with self.assertRaises(self.streams.exceptions.ClientError) as invalid:
            self.read("not an iterator")
        self.assertEqual(invalid.exception.response["Error"]["Code"], "ValidationException")

    def test_record_of_a_deletion_by_time_to_live_names_the_dynamodb_service(self):
        self.dynamodb.update_time_to_live(
            TableName=self.table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"}
        )
        self.put("a", "1", expires={"N": str(int(time.time()) - 10)})
        deadline = time.monotonic() + TIMEOUT_S
        removed = []
        while not removed and time.monotonic() < deadline:
            time.sleep(0.5)
            removed = [record for record in self.all_records() if record["eventName"] == "REMOVE"]
        [removal] = removed
        self.assertEqual(
            removal["userIdentity"], {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}
        )


if __name__ == "__main__":
    unittest.main()
