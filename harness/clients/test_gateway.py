"""Tests of the stage's gateway with independent clients: `websockets`, and boto3's apigatewaymanagementapi.

`run.sh` starts the stage, and passes its URLs in environment variables. Each test closes the connections that it opens.
"""

import contextlib
import json
import os
import unittest
import uuid

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

URL = os.environ["STREAMER_WS_URL"]
TOKEN = os.environ["STREAMER_TOKEN"]
MANAGEMENT = os.environ["STREAMER_MANAGEMENT_URL"]
TIMEOUT_S = 20


def client(service, endpoint):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )


def opened(**options):
    return connect(f"{URL}?token={TOKEN}", open_timeout=TIMEOUT_S, **options)


def echo(socket, message, request_id="r1"):
    socket.send(json.dumps({"action": "echo", "id": request_id, "payload": {"message": message}}))
    return json.loads(socket.recv(timeout=TIMEOUT_S))


def closed(test, socket):
    """Receives frames until the gateway closes the connection, and returns the close code."""
    with test.assertRaises(ConnectionClosed) as raised:
        while True:
            socket.recv(timeout=TIMEOUT_S)
    return raised.exception.rcvd.code


class Sockets(unittest.TestCase):
    def test_quick_request_is_answered_with_a_response_frame(self):
        with opened() as socket:
            response = echo(socket, "hello")
        self.assertEqual((response["request_id"], response["success"]), ("r1", True))

    def test_handshake_without_a_token_is_refused_with_401_and_an_error_code(self):
        with self.assertRaises(InvalidStatus) as raised, connect(URL, open_timeout=TIMEOUT_S):
            pass
        self.assertEqual(raised.exception.response.status_code, 401)
        self.assertIn("code", json.loads(raised.exception.response.body))

    def test_binary_frame_closes_the_connection_with_1003(self):
        with opened() as socket:
            socket.send(b"\x01\x02")
            self.assertEqual(closed(self, socket), 1003)

    def test_frame_above_32_kib_closes_the_connection_with_1009(self):
        with opened() as socket:
            socket.send("x" * (32 * 1024 + 1))
            self.assertEqual(closed(self, socket), 1009)

    def test_only_a_message_above_128_kib_closes_the_connection_with_1009(self):
        def fragments(size):
            text = json.dumps({"action": "echo", "id": "large", "payload": {"message": "x"}})
            text += " " * (size - len(text))
            return [text[at : at + 32 * 1024] for at in range(0, size, 32 * 1024)]

        with opened() as socket:
            socket.send(fragments(128 * 1024))
            self.assertEqual(json.loads(socket.recv(timeout=TIMEOUT_S))["request_id"], "large")
            socket.send(fragments(128 * 1024 + 1))
            self.assertEqual(closed(self, socket), 1009)

    def test_ping_is_answered_and_compression_is_not_negotiated(self):
        with opened(compression="deflate") as socket:
            self.assertTrue(socket.ping().wait(TIMEOUT_S))
            self.assertEqual(list(socket.protocol.extensions), [])


class Management(unittest.TestCase):
    def setUp(self):
        self.management = client("apigatewaymanagementapi", MANAGEMENT)
        tables = client("dynamodb", os.environ["STREAMER_ENDPOINT"])
        # Other connections may be open, so a unique user agent identifies this connection in the table.
        agent = f"test-{uuid.uuid4()}"
        sockets = contextlib.ExitStack()
        self.addCleanup(sockets.close)
        self.socket = sockets.enter_context(opened(user_agent_header=agent))
        items = [
            item
            for page in tables.get_paginator("scan").paginate(TableName="streamer-ConnectionsTable")
            for item in page["Items"]
        ]
        own = [item for item in items if item["metadata"]["M"].get("user_agent") == {"S": agent}]
        self.assertEqual(len(own), 1)
        self.id = own[0]["connection_id"]["S"]

    def refused(self, call, **arguments):
        with self.assertRaises(ClientError) as raised:
            call(**arguments)
        response = raised.exception.response
        return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]

    def test_posted_data_arrives_as_a_text_frame(self):
        answer = self.management.post_to_connection(ConnectionId=self.id, Data="é".encode())
        self.assertEqual(answer["ResponseMetadata"]["HTTPStatusCode"], 200)
        self.assertEqual(self.socket.recv(timeout=TIMEOUT_S), "é")

    def test_get_connection_returns_address_and_times(self):
        found = self.management.get_connection(ConnectionId=self.id)
        self.assertEqual(found["Identity"]["SourceIp"], "127.0.0.1")
        self.assertGreaterEqual(found["LastActiveAt"], found["ConnectedAt"])

    def test_deleted_connection_is_closed_and_later_calls_fail_with_gone(self):
        self.management.delete_connection(ConnectionId=self.id)
        self.assertEqual(closed(self, self.socket), 1000)
        for call, arguments in [
            (self.management.post_to_connection, {"Data": b"late"}),
            (self.management.get_connection, {}),
            (self.management.delete_connection, {}),
        ]:
            with self.assertRaises(self.management.exceptions.GoneException):
                call(ConnectionId=self.id, **arguments)

    def test_management_api_errors_have_the_status_and_code_of_api_gateway(self):
        post = self.management.post_to_connection
        large = self.refused(post, ConnectionId=self.id, Data=b"x" * 131_073)
        self.assertEqual(large, (413, "PayloadTooLargeException"))
        malformed = self.refused(post, ConnectionId="no id", Data=b"x")
        self.assertEqual(malformed, (400, "BadRequestException"))
        elsewhere = client("apigatewaymanagementapi", f"{MANAGEMENT}-other")
        refused = self.refused(elsewhere.post_to_connection, ConnectionId=self.id, Data=b"x")
        self.assertEqual(refused, (403, "ForbiddenException"))


if __name__ == "__main__":
    unittest.main()
