"""Tests of the stage's functions with boto3's Lambda client."""

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
        # Disables retries, so that a test receives the first refusal.
        config = Config(retries={"total_max_attempts": 1}, read_timeout=30)
        self.client = boto3.client("lambda", endpoint_url=os.environ["STREAMER_ENDPOINT"], config=config)
        self.addCleanup(self.client.close)

    def test_function_is_invoked_by_name_arn_or_partial_arn(self):
        for name in (FUNCTION, ARN, f"000000000000:function:{FUNCTION}"):
            reply = self.client.invoke(FunctionName=name, Payload=json.dumps({"Records": []}))
            self.assertEqual((reply["StatusCode"], reply["ExecutedVersion"]), (200, "$LATEST"))
            self.assertNotIn("FunctionError", reply)
            self.assertIn("batchItemFailures", json.load(reply["Payload"]))

    def test_function_error_is_returned_as_unhandled_with_type_and_message(self):
        reply = self.client.invoke(FunctionName=FUNCTION, Payload=json.dumps(["no batch"]))
        self.assertEqual((reply["StatusCode"], reply["FunctionError"]), (200, "Unhandled"))
        self.assertEqual({"errorType", "errorMessage"}, set(json.load(reply["Payload"])))

    def test_event_invocation_returns_202_and_dry_run_returns_204(self):
        payload = json.dumps({"Records": []})
        for kind, status in (("Event", 202), ("DryRun", 204)):
            reply = self.client.invoke(FunctionName=FUNCTION, InvocationType=kind, Payload=payload)
            self.assertEqual((reply["StatusCode"], reply["Payload"].read()), (status, b""))

    def test_unknown_function_is_not_found(self):
        with self.assertRaises(self.client.exceptions.ResourceNotFoundException) as refused:
            self.client.invoke(FunctionName="no-such-function")
        self.assertIn("no-such-function", refused.exception.response["Error"]["Message"])
        with self.assertRaises(self.client.exceptions.ResourceNotFoundException):
            self.client.get_function(FunctionName="no-such-function")

    def test_invalid_json_and_too_large_payloads_are_refused(self):
        with self.assertRaises(self.client.exceptions.InvalidRequestContentException):
            self.client.invoke(FunctionName=FUNCTION, Payload=b"{")
        for kind, limit in (("RequestResponse", 6 * KIB * KIB), ("Event", KIB * KIB)):
            with self.assertRaises(self.client.exceptions.RequestTooLargeException) as refused:
                self.client.invoke(FunctionName=FUNCTION, InvocationType=kind, Payload=b"1" * (limit + 1))
            self.assertEqual(refused.exception.response["ResponseMetadata"]["HTTPStatusCode"], 413)

    def test_get_function_returns_arn_state_and_environment(self):
        described = self.client.get_function(FunctionName=FUNCTION)["Configuration"]
        self.assertEqual((described["FunctionArn"], described["State"]), (ARN, "Active"))
        self.assertIn("REQUESTS_TABLE", described["Environment"]["Variables"])


if __name__ == "__main__":
    unittest.main()
