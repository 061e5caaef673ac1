"""The gateway as clients know it that know nothing of ours: `websockets`, and boto3's apigatewaymanagementapi.

`run.sh` starts the stage and says where it is; each test leaves the stage as it found it.
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
PATIENCE = 20


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
    return connect(f"{URL}?token={TOKEN}", open_timeout=PATIENCE, **options)


def echo(socket, message, request_id="r1"):
    socket.send(json.dumps({"action": "echo", "id": request_id, "payload": {"message": message}}))
    return json.loads(socket.recv(timeout=PATIENCE))


def closed(test, socket):
    """The code with which the gateway closes; other frames may come before."""
    with test.assertRaises(ConnectionClosed) as raised:
        while True:
            socket.recv(timeout=PATIENCE)
    return raised.exception.rcvd.code


class Sockets(unittest.TestCase):
    def test_a_request_gets_its_response(self):
        with opened() as socket:
            response = echo(socket, "hello")
        self.assertEqual((response["request_id"], response["success"]), ("r1", True))

    def test_a_handshake_without_a_token_is_refused_with_401_and_a_reason(self):
        with self.assertRaises(InvalidStatus) as raised, connect(URL, open_timeout=PATIENCE):
            pass
        self.assertEqual(raised.exception.response.status_code, 401)
        self.assertIn("code", json.loads(raised.exception.response.body))

    def test_a_binary_frame_closes_with_1003(self):
        with opened() as socket:
            socket.send(b"\x01\x02")
            self.assertEqual(closed(self, socket), 1003)

    def test_a_frame_above_32_kib_closes_with_1009(self):
        with opened() as socket:
            socket.send("x" * (32 * 1024 + 1))
            self.assertEqual(closed(self, socket), 1009)

    def test_a_message_above_128_kib_closes_with_1009_and_one_of_128_kib_does_not(self):
        def fragments(size):
            text = json.dumps({"action": "echo", "id": "large", "payload": {"message": "x"}})
            text += " " * (size - len(text))
            return [text[at : at + 32 * 1024] for at in range(0, size, 32 * 1024)]

        with opened() as socket:
            socket.send(fragments(128 * 1024))
            self.assertEqual(json.loads(socket.recv(timeout=PATIENCE))["request_id"], "large")
            socket.send(fragments(128 * 1024 + 1))
            self.assertEqual(closed(self, socket), 1009)

    def test_a_ping_is_answered_and_compression_is_not_agreed_upon(self):
        with opened(compression="deflate") as socket:
            self.assertTrue(socket.ping().wait(PATIENCE))
            self.assertEqual(list(socket.protocol.extensions), [])


class Management(unittest.TestCase):
    def setUp(self):
        self.management = client("apigatewaymanagementapi", MANAGEMENT)
        tables = client("dynamodb", os.environ["STREAMER_ENDPOINT"])
        # Other tests may connect at the same time: this one is known by its user agent.
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

    def test_a_post_is_a_text_frame(self):
        answer = self.management.post_to_connection(ConnectionId=self.id, Data="é".encode())
        self.assertEqual(answer["ResponseMetadata"]["HTTPStatusCode"], 200)
        self.assertEqual(self.socket.recv(timeout=PATIENCE), "é")

    def test_a_connection_is_described(self):
        found = self.management.get_connection(ConnectionId=self.id)
        self.assertEqual(found["Identity"]["SourceIp"], "127.0.0.1")
        self.assertGreaterEqual(found["LastActiveAt"], found["ConnectedAt"])

    def test_a_connection_that_is_deleted_is_closed_and_gone(self):
        self.management.delete_connection(ConnectionId=self.id)
        self.assertEqual(closed(self, self.socket), 1000)
        for call, arguments in [
            (self.management.post_to_connection, {"Data": b"late"}),
            (self.management.get_connection, {}),
            (self.management.delete_connection, {}),
        ]:
            with self.assertRaises(self.management.exceptions.GoneException):
                call(ConnectionId=self.id, **arguments)

    def test_errors_have_their_types(self):
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
