"""boto3's client of Lambda against the stage's functions."""

import json
import os
import unittest

import boto3
from botocore.config import Config

FUNCTION = "streamer-ProcessorFunction"
ARN = f"arn:aws:lambda:us-east-1:000000000000:function:{FUNCTION}"
KIB = 1024


class Lambda(unittest.TestCase):
    def setUp(self):
        # A refusal is to be seen, and not tried again.
        config = Config(retries={"total_max_attempts": 1}, read_timeout=30)
        self.client = boto3.client("lambda", endpoint_url=os.environ["STREAMER_ENDPOINT"], config=config)
        self.addCleanup(self.client.close)

    def test_a_function_replies_by_whichever_name_it_is_called(self):
        for name in (FUNCTION, ARN, f"000000000000:function:{FUNCTION}"):
            reply = self.client.invoke(FunctionName=name, Payload=json.dumps({"Records": []}))
            self.assertEqual((reply["StatusCode"], reply["ExecutedVersion"]), (200, "$LATEST"))
            self.assertNotIn("FunctionError", reply)
            self.assertIn("batchItemFailures", json.load(reply["Payload"]))

    def test_a_function_that_fails_is_told_with_its_error(self):
        reply = self.client.invoke(FunctionName=FUNCTION, Payload=json.dumps(["no batch"]))
        self.assertEqual((reply["StatusCode"], reply["FunctionError"]), (200, "Unhandled"))
        self.assertEqual({"errorType", "errorMessage"}, set(json.load(reply["Payload"])))

    def test_an_event_is_accepted_and_a_dry_run_runs_nothing(self):
        payload = json.dumps({"Records": []})
        for kind, status in (("Event", 202), ("DryRun", 204)):
            reply = self.client.invoke(FunctionName=FUNCTION, InvocationType=kind, Payload=payload)
            self.assertEqual((reply["StatusCode"], reply["Payload"].read()), (status, b""))

    def test_an_unknown_function_is_not_found(self):
        with self.assertRaises(self.client.exceptions.ResourceNotFoundException) as refused:
            self.client.invoke(FunctionName="no-such-function")
        self.assertIn("no-such-function", refused.exception.response["Error"]["Message"])
        with self.assertRaises(self.client.exceptions.ResourceNotFoundException):
            self.client.get_function(FunctionName="no-such-function")

    def test_what_is_no_json_or_too_large_is_refused(self):
        with self.assertRaises(self.client.exceptions.InvalidRequestContentException):
            self.client.invoke(FunctionName=FUNCTION, Payload=b"{")
        for kind, limit in (("RequestResponse", 6 * KIB * KIB), ("Event", KIB * KIB)):
            with self.assertRaises(self.client.exceptions.RequestTooLargeException) as refused:
                self.client.invoke(FunctionName=FUNCTION, InvocationType=kind, Payload=b"1" * (limit + 1))
            self.assertEqual(refused.exception.response["ResponseMetadata"]["HTTPStatusCode"], 413)

    def test_a_function_is_described(self):
        described = self.client.get_function(FunctionName=FUNCTION)["Configuration"]
        self.assertEqual((described["FunctionArn"], described["State"]), (ARN, "Active"))
        self.assertIn("REQUESTS_TABLE", described["Environment"]["Variables"])


if __name__ == "__main__":
    unittest.main()
