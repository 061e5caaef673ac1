// Tests of the stage's gateway with independent clients: `ws`, and the AWS SDK for JavaScript.
//
// `run.sh` starts the stage, and passes its URLs in environment variables. Each test closes the connections that it opens.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { test } from "node:test";

import {
    ApiGatewayManagementApiClient,
    DeleteConnectionCommand,
    ForbiddenException,
    GetConnectionCommand,
    GoneException,
    PayloadTooLargeException,
    PostToConnectionCommand,
} from "@aws-sdk/client-apigatewaymanagementapi";
import { DynamoDBClient, paginateScan } from "@aws-sdk/client-dynamodb";
import WebSocket from "ws";

const { STREAMER_ENDPOINT, STREAMER_MANAGEMENT_URL, STREAMER_TOKEN, STREAMER_WS_URL } = process.env;
const timeout = 20_000;
const settings = {
    region: "us-east-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    maxAttempts: 1,
};
const management = new ApiGatewayManagementApiClient({ ...settings, endpoint: STREAMER_MANAGEMENT_URL });

async function open(headers = {}) {
    const socket = new WebSocket(`${STREAMER_WS_URL}?token=${STREAMER_TOKEN}`, { headers });
    await once(socket, "open");
    return socket;
}

async function next(socket) {
    const [data, isBinary] = await once(socket, "message");
    assert.equal(isBinary, false);
    return data.toString();
}

async function closed(socket) {
    const [code] = await once(socket, "close");
    return code;
}

/** Opens a WebSocket, and finds its connection id in the connections table by a unique user agent. */
async function identified() {
    const agent = `test-${randomUUID()}`;
    const socket = await open({ "user-agent": agent });
    const pages = paginateScan({ client: new DynamoDBClient({ ...settings, endpoint: STREAMER_ENDPOINT }) }, {
        TableName: "streamer-ConnectionsTable",
    });
    for await (const { Items } of pages) {
        const own = Items.find(({ metadata }) => metadata.M.user_agent?.S === agent);
        if (own) {
            return { socket, ConnectionId: own.connection_id.S };
        }
    }
    assert.fail("connections table has no item with the user agent of this connection");
}

test("a quick request is answered with a response frame", { timeout }, async () => {
    const socket = await open();
    socket.send(JSON.stringify({ action: "echo", id: "r1", payload: { message: "hello" } }));
    const response = JSON.parse(await next(socket));
    assert.deepEqual([response.request_id, response.success], ["r1", true]);
    socket.close(1000, "done");
    assert.equal(await closed(socket), 1000);
});

test("a handshake without a token is refused with 401 and an error code", { timeout }, async () => {
    const socket = new WebSocket(STREAMER_WS_URL);
    const [, answer] = await once(socket, "unexpected-response");
    let body = "";
    for await (const chunk of answer) {
        body += chunk;
    }
    assert.equal(answer.statusCode, 401);
    assert.ok("code" in JSON.parse(body), body);
});

test("a binary frame closes the connection with 1003", { timeout }, async () => {
    const socket = await open();
    socket.send(Buffer.from([1, 2]));
    assert.equal(await closed(socket), 1003);
});

test("a frame above 32 KiB or a message above 128 KiB closes the connection with 1009", { timeout }, async () => {
    const large = await open();
    large.send("x".repeat(32 * 1024 + 1));
    assert.equal(await closed(large), 1009);
    const long = await open();
    for (let sent = 0; sent < 5; sent += 1) {
        long.send("x".repeat(32 * 1024), { fin: sent === 4 });
    }
    assert.equal(await closed(long), 1009);
});

test("the management API posts to, describes and deletes a connection", { timeout }, async () => {
    const { socket, ConnectionId } = await identified();
    const frame = next(socket);
    await management.send(new PostToConnectionCommand({ ConnectionId, Data: "é" }));
    assert.equal(await frame, "é");

    const found = await management.send(new GetConnectionCommand({ ConnectionId }));
    assert.equal(found.Identity.SourceIp, "127.0.0.1");
    assert.ok(found.LastActiveAt >= found.ConnectedAt && found.ConnectedAt.getTime() > 0);

    const ended = closed(socket);
    const deleted = await management.send(new DeleteConnectionCommand({ ConnectionId }));
    assert.equal(deleted.$metadata.httpStatusCode, 204);
    assert.equal(await ended, 1000);
    for (const Call of [PostToConnectionCommand, GetConnectionCommand, DeleteConnectionCommand]) {
        await assert.rejects(management.send(new Call({ ConnectionId, Data: "late" })), GoneException);
    }
});

test("management API errors have the SDK's exception types", { timeout }, async () => {
    const { socket, ConnectionId } = await identified();
    const post = (client, ConnectionId, Data) => client.send(new PostToConnectionCommand({ ConnectionId, Data }));
    await assert.rejects(post(management, ConnectionId, "x".repeat(131_073)), PayloadTooLargeException);
    await assert.rejects(post(management, "no id", "x"), { name: "BadRequestException" });
    const elsewhere = new ApiGatewayManagementApiClient({ ...settings, endpoint: `${STREAMER_MANAGEMENT_URL}-other` });
    await assert.rejects(post(elsewhere, ConnectionId, "x"), ForbiddenException);
    socket.close();
    await closed(socket);
});
