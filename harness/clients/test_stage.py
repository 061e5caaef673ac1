"""Runs a request over a WebSocket, and reads its item from the table with boto3."""

import asyncio
import json
import os
import unittest
import uuid

import boto3
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

ENDPOINT = os.environ["STREAMER_ENDPOINT"]
WS_URL = os.environ["STREAMER_WS_URL"]
TOKEN = os.environ["STREAMER_TOKEN"]
TIMEOUT_S = 30


async def frames_until_terminal(client, request):
    """Returns all frames of the request in order, up to and including the terminal frame."""
    frames = []
    while not frames or frames[-1]["type"] not in ("complete", "error", "response"):
        frame = json.loads(await asyncio.wait_for(client.recv(), TIMEOUT_S))
        if frame.get("request_id") == request:
            frames.append(frame)
    return frames


class Stage(unittest.IsolatedAsyncioTestCase):
    async def test_queued_request_completes_and_its_item_has_the_status_completed(self):
        request = f"py-{uuid.uuid4()}"
        async with connect(f"{WS_URL}?token={TOKEN}") as client:
            payload = {"message": "hello from websockets", "rounds": 3}
            await client.send(json.dumps({"action": "echo_async", "id": request, "payload": payload}))
            frames = await frames_until_terminal(client, request)
        kinds = [frame["type"] for frame in frames]
        self.assertEqual((kinds[0], kinds[-1]), ("acknowledgment", "complete"), frames)
        self.assertIn("progress", kinds)
        self.assertEqual(frames[-1]["result"]["message"], "hello from websockets")

        dynamodb = boto3.client("dynamodb", endpoint_url=ENDPOINT)
        tables = [name for name in dynamodb.list_tables()["TableNames"] if name.endswith("RequestsTable")]
        pages = dynamodb.get_paginator("scan").paginate(TableName=tables[0])
        items = [item for page in pages for item in page["Items"]]
        [item] = [item for item in items if item.get("client_id") == {"S": request}]
        self.assertEqual(item["status"], {"S": "COMPLETED"})

    async def test_connection_without_a_token_is_refused_with_401(self):
        with self.assertRaises(InvalidStatus) as refused:
            async with connect(WS_URL):
                pass
        self.assertEqual(refused.exception.response.status_code, 401)
        self.assertIn("code", json.loads(refused.exception.response.body))


if __name__ == "__main__":
    unittest.main()
