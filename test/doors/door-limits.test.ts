import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { connect as connectTls } from "node:tls";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { afterEach, describe, expect, it } from "vitest";
import { DOOR_LIMITS } from "../../src/doors/door-limits.ts";
import { RebuildProjectionRequestSchema } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { GetTrackingRequestSchema, OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { createAuthority, writeIssued } from "../support/certificates.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { callUnary, grpcClient, OPERATOR } from "./grpc-calls.ts";
import { type DoorsOptions, MAX_REQUEST_BYTES, type OpenDoors, openDoors } from "./open-doors.ts";
import { END_HEADERS, END_STREAM, FRAME, frame, openRawHttp2, type RawHttp2, requestFrame } from "./raw-http2.ts";

const { getTracking } = OrderTrackingService.method;
const GET_TRACKING = "/ordertrail.v1.OrderTrackingService/GetTracking";
const REBUILD = "/ordertrail.v1.OperationsService/RebuildProjection";
const LIMIT_MS = 200;
/** Much longer than the limits of these tests, and much shorter than those of production. */
const SOON_MS = 5_000;

const cleanup: AsyncDisposable[] = [];
afterEach(async () => {
  for (const one of cleanup.splice(0)) await one[Symbol.asyncDispose]();
});

async function open(options: DoorsOptions = {}): Promise<OpenDoors> {
  const doors = await openDoors(options);
  cleanup.push(doors);
  return doors;
}

/** The doors by TLS, and the CA of their certificate. */
async function openByTls(options: DoorsOptions = {}): Promise<OpenDoors & { readonly ca: string }> {
  const folder = await temporaryFolder();
  cleanup.unshift(folder);
  const authority = await createAuthority();
  const files = await writeIssued(folder.path, "server", await authority.issue({ name: "server" }));
  const doors = await openDoors({ ...options, tls: { ...files, clientCaFile: undefined, clientCert: "required" } });
  cleanup.unshift(doors);
  return { ...doors, ca: authority.cert };
}

/** Both ports answer. */
async function expectAnswers(doors: OpenDoors): Promise<void> {
  using client = grpcClient(doors.grpc.address);
  expect((await callUnary(client, getTracking, { orderId: "order-1" })).order?.orderId).toBe("order-1");
  expect((await fetch(`${doors.http.url}/orders/tracking/order-1`, { headers: { authorization: OPERATOR } })).status).toBe(200);
}

const addressOf = (doors: OpenDoors, door: "gRPC" | "HTTP") => (door === "gRPC" ? doors.grpc.address : new URL(doors.http.url).host);

/** A connection that may come from another of this machine's addresses. */
async function openSocket(address: string, localAddress = "127.0.0.1"): Promise<Socket> {
  const [host = "", port] = address.split(":");
  const socket = connect({ host, port: Number(port), localAddress });
  socket.on("error", () => undefined);
  cleanup.push({ [Symbol.asyncDispose]: async () => void socket.destroy() });
  await once(socket, "connect");
  return socket;
}

const closing = (socket: Socket) => once(socket.resume(), "close", { signal: AbortSignal.timeout(SOON_MS) });
const closingOf = (raw: RawHttp2) => Promise.race([raw.closed, once(raw.socket, "close", { signal: AbortSignal.timeout(SOON_MS) })]);

const grpcRequest = (streamId: number, path: string, flags = END_HEADERS) =>
  requestFrame(
    streamId,
    {
      ":method": "POST",
      ":scheme": "http",
      ":path": path,
      ":authority": "localhost",
      "content-type": "application/grpc",
      te: "trailers",
      authorization: OPERATOR,
    },
    flags,
  );
const httpRequest = (streamId: number, path: string, more: Record<string, string> = {}, flags = END_HEADERS | END_STREAM) =>
  requestFrame(
    streamId,
    { ":method": "GET", ":scheme": "https", ":path": path, ":authority": "localhost", authorization: OPERATOR, ...more },
    flags,
  );

/** A gRPC message on the wire: whether it is compressed, its length, and its bytes. */
function grpcMessage(bytes: Uint8Array, isCompressed = false): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(isCompressed ? 1 : 0);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

describe.each(["gRPC", "HTTP"] as const)("connections on the %s port", (door) => {
  it("are bounded for one address, and others are still served", async () => {
    const doors = await open({ limits: { maxConnectionsPerAddress: 3 } });
    const address = addressOf(doors, door);
    const greedy = await Promise.all(Array.from({ length: 3 }, () => openSocket(address, "127.0.0.2")));
    await closing(await openSocket(address, "127.0.0.2"));
    await expectAnswers(doors);
    expect(doors.logged).toContainEqual(
      expect.objectContaining({ level: 40, door, peer: "127.0.0.0/24", msg: expect.stringContaining("too many") }),
    );
    greedy[0]?.destroy();
    await eventually(async () => {
      const socket = await openSocket(address, "127.0.0.2");
      expect(await Promise.race([closing(socket).then(() => "closed"), answerTo(socket, door)])).toBe("answered");
    });
  });

  it("are bounded in all", async () => {
    const doors = await open({ limits: { maxConnections: 2 } });
    const address = addressOf(doors, door);
    const first = await openSocket(address);
    await openSocket(address);
    await closing(await openSocket(address));
    first.destroy();
    await eventually(() => expectAnswers(doors));
  });

  it("that say nothing are closed", async () => {
    const doors = await open({ limits: { headersTimeoutMs: LIMIT_MS } });
    const silent = await openSocket(addressOf(doors, door));
    await expectAnswers(doors);
    await closing(silent);
    await expectAnswers(doors);
  });

  it("that do not finish TLS, or say nothing after it, are closed", async () => {
    const doors = await openByTls({ limits: { headersTimeoutMs: LIMIT_MS } });
    const silent = await openSocket(addressOf(doors, door));
    const half = await openSocket(addressOf(doors, door));
    // The beginning of a ClientHello, whose record promises 512 bytes.
    half.write(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00]));
    await Promise.all([closing(silent), closing(half)]);
    const [host = "", port] = addressOf(doors, door).split(":");
    for (const protocol of door === "gRPC" ? ["h2"] : ["h2", "http/1.1"]) {
      const mute = connectTls({ host, port: Number(port), ca: doors.ca, ALPNProtocols: [protocol] });
      await once(mute, "secureConnect");
      await closing(mute);
    }
  });

  it("without a call are closed after a while", async () => {
    const doors = await openByTls({ limits: { idleTimeoutMs: LIMIT_MS } });
    using raw = await openRawHttp2(addressOf(doors, door), doors.ca);
    raw.send(door === "gRPC" ? grpcRequest(1, "/none", END_HEADERS | END_STREAM) : httpRequest(1, "/healthz"));
    await eventually(() => expect(raw.frames().some(({ type }) => type === FRAME.headers)).toBe(true));
    await closingOf(raw);
  });

  it("carry a bounded number of calls at once", async () => {
    const doors = await openByTls({ limits: { maxStreams: 5 } });
    using raw = await openRawHttp2(addressOf(doors, door), doors.ca);
    const settings = await eventually(() => {
      const found = raw.frames().find(({ type, flags }) => type === FRAME.settings && flags === 0);
      expect(found).toBeDefined();
      return found?.payload ?? Buffer.alloc(0);
    });
    expect(settingsIn(settings).get(3)).toBe(5);
    raw.send(frame(FRAME.settings, 1, 0));
    const ids = Array.from({ length: 8 }, (_, index) => 2 * index + 1);
    raw.send(...ids.map((id) => (door === "gRPC" ? grpcRequest(id, GET_TRACKING) : httpRequest(id, "/orders/tracking/slow"))));
    // Before its settings are acknowledged a client is refused stream by stream, after that it is thrown out.
    await eventually(() => expect(raw.frames().map(({ type }) => type)).toContain(FRAME.goaway));
    expect(door === "gRPC" ? doors.asked.length : new Set(doors.asked).size).toBeLessThanOrEqual(5);
    await closingOf(raw);
  });

  it("take no more headers than are allowed, in number or in size", async () => {
    const doors = await openByTls();
    const many = Object.fromEntries(Array.from({ length: 200 }, (_, index) => [`x-${index}`, "y"]));
    for (const more of [many, { x: "y".repeat(100_000).slice(0, 16_000), z: "y".repeat(70_000) }]) {
      using raw = await openRawHttp2(addressOf(doors, door), doors.ca);
      const block = httpRequest(1, "/healthz", more).subarray(9);
      const chunks = Array.from({ length: Math.ceil(block.length / 16_000) }, (_, index) =>
        block.subarray(index * 16_000, (index + 1) * 16_000),
      );
      raw.send(
        ...chunks.map((chunk, index) =>
          frame(
            index === 0 ? FRAME.headers : FRAME.continuation,
            (index === 0 ? END_STREAM : 0) | (index === chunks.length - 1 ? END_HEADERS : 0),
            1,
            chunk,
          ),
        ),
      );
      await eventually(() =>
        expect(raw.socket.closed || raw.frames().some(({ type }) => type === FRAME.rstStream || type === FRAME.goaway)).toBe(true),
      );
      expect(raw.frames().some(({ type }) => type === FRAME.headers)).toBe(false);
    }
  });
});

function settingsIn(payload: Buffer): ReadonlyMap<number, number> {
  return new Map(
    Array.from(
      { length: payload.length / 6 },
      (_, index) => [payload.readUInt16BE(index * 6), payload.readUInt32BE(index * 6 + 2)] as const,
    ),
  );
}

async function answerTo(socket: Socket, door: "gRPC" | "HTTP"): Promise<string> {
  socket.write(
    door === "gRPC"
      ? Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(FRAME.settings, 0, 0)])
      : "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
  );
  await once(socket, "data");
  return "answered";
}

describe("requests on the HTTP port", () => {
  const headers = `Host: x\r\nAuthorization: ${OPERATOR}\r\n`;

  it.each([
    ["headers that come drop by drop", "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ", "b"],
    [
      "a body that comes drop by drop",
      `POST /orders/tracking/init HTTP/1.1\r\n${headers}Content-Type: application/json\r\nContent-Length: 50000\r\n\r\n{`,
      " ",
    ],
    [
      "a body in ever more chunks",
      `POST /orders/tracking/init HTTP/1.1\r\n${headers}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n`,
      "1\r\n \r\n",
    ],
  ])("end with 408 or a refusal: %s", async (_what, beginning, drop) => {
    const doors = await open({ limits: { headersTimeoutMs: LIMIT_MS, requestTimeoutMs: 2 * LIMIT_MS } });
    const socket = await openSocket(addressOf(doors, "HTTP"));
    socket.write(beginning);
    const dripping = setInterval(() => socket.writable && socket.write(drop), 20);
    const answer = text(socket);
    await expectAnswers(doors);
    expect((await answer).split("\r\n")[0]).toMatch(/^HTTP\/1\.1 (408 Request Timeout|504 Gateway Timeout)$/);
    clearInterval(dripping);
    await expectAnswers(doors);
  });

  it("over HTTP/2 end when their body does not come", async () => {
    const doors = await openByTls({ limits: { headersTimeoutMs: LIMIT_MS, requestTimeoutMs: LIMIT_MS } });
    using raw = await openRawHttp2(addressOf(doors, "HTTP"), doors.ca);
    raw.send(httpRequest(1, "/orders/tracking/init", { ":method": "POST", "content-type": "application/json" }, END_HEADERS));
    await eventually(() =>
      expect(raw.frames().some(({ type, streamId }) => streamId === 1 && (type === FRAME.rstStream || type === FRAME.headers))).toBe(true),
    );
    raw.send(httpRequest(3, "/healthz"));
    await eventually(() => expect(raw.frames().some(({ type, streamId }) => streamId === 3 && type === FRAME.headers)).toBe(true));
  });

  it.each([
    [
      "an address of more bytes than allowed",
      `GET /${"a".repeat(DOOR_LIMITS.maxUrlBytes)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`,
      "414 URI Too Long",
    ],
    [
      "more headers than allowed",
      `GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${"A: b\r\n".repeat(DOOR_LIMITS.maxHeaders)}\r\n`,
      "431 Request Header Fields Too Large",
    ],
    [
      "headers of more bytes than allowed",
      `GET /healthz HTTP/1.1\r\nHost: x\r\nX: ${"y".repeat(DOOR_LIMITS.maxHeaderBytes)}\r\n\r\n`,
      "431 Request Header Fields Too Large",
    ],
    [
      "a trailer section of more bytes than allowed",
      `POST /orders/tracking/init HTTP/1.1\r\n${headers}Transfer-Encoding: chunked\r\n\r\n0\r\n${"X: yyyyyyyyyyyyyyyyyyyy\r\n".repeat(2_000)}\r\n`,
      "(431 Request Header Fields Too Large|400 Bad Request)",
    ],
    [
      "a chunk whose extension has no end",
      `POST /orders/tracking/init HTTP/1.1\r\n${headers}Transfer-Encoding: chunked\r\n\r\n1;${"x".repeat(20_000)}`,
      "(413 Payload Too Large|400 Bad Request)",
    ],
  ])("are refused for %s", async (_what, bytes, expected) => {
    const doors = await open();
    const socket = await openSocket(addressOf(doors, "HTTP"));
    socket.write(bytes);
    const answer = await text(socket);
    expect(answer.split("\r\n")[0]).toMatch(new RegExp(`^HTTP/1\\.1 ${expected}$`));
    expect(JSON.parse(answer.slice(answer.indexOf("\r\n\r\n")))).toMatchObject({ detail: expect.any(String), code: expect.any(String) });
    await expectAnswers(doors);
  });

  it("leave the connection open that long and no longer", async () => {
    const doors = await open({ limits: { idleTimeoutMs: LIMIT_MS } });
    const socket = await openSocket(addressOf(doors, "HTTP"));
    socket.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    await once(socket, "data");
    await closing(socket);
  });

  it("are given up when nobody takes the answer", async () => {
    const doors = await open({ limits: { stallTimeoutMs: LIMIT_MS } });
    const socket = await openSocket(addressOf(doors, "HTTP"));
    socket.pause();
    const body = grpcMessage(toBinary(RebuildProjectionRequestSchema, create(RebuildProjectionRequestSchema, { name: "endless" })));
    socket.write(`POST ${REBUILD} HTTP/1.1\r\n${headers}Content-Type: application/connect+proto\r\nContent-Length: ${body.length}\r\n\r\n`);
    socket.write(body);
    await eventually(() => expect(doors.asked.at(-1)?.call.signal.aborted).toBe(true), 30_000);
    await expectAnswers(doors);
  });

  it("over HTTP/2 are given up when nobody takes the answer", async () => {
    const doors = await openByTls({ limits: { stallTimeoutMs: LIMIT_MS } });
    using raw = await openRawHttp2(addressOf(doors, "HTTP"), doors.ca);
    raw.send(httpRequest(1, REBUILD, { ":method": "POST", "content-type": "application/connect+proto" }, END_HEADERS));
    raw.send(
      frame(
        FRAME.data,
        END_STREAM,
        1,
        grpcMessage(toBinary(RebuildProjectionRequestSchema, create(RebuildProjectionRequestSchema, { name: "endless" }))),
      ),
    );
    await eventually(() => expect(doors.asked.at(-1)?.call.signal.aborted).toBe(true), 30_000);
  });

  it("are waited for when their answers take longer than any of that", async () => {
    const limits = { stallTimeoutMs: 50, headersTimeoutMs: 50, requestTimeoutMs: 50, idleTimeoutMs: 50 };
    const doors = await open({ limits });
    // Their own deadline ends them.
    expect((await fetch(`${doors.http.url}/orders/tracking/slow`, { headers: { authorization: OPERATOR } })).status).toBe(504);
    const secure = await openByTls({ limits });
    using raw = await openRawHttp2(addressOf(secure, "HTTP"), secure.ca);
    raw.send(httpRequest(1, "/orders/tracking/slow"));
    await eventually(() =>
      expect(raw.frames().some(({ type, payload }) => type === FRAME.data && payload.includes("DEADLINE_EXCEEDED"))).toBe(true),
    );
  });

  it.each([
    ["gzip", gzipSync],
    ["br", brotliCompressSync],
  ])("that would unpack to more than allowed are refused: %s", async (encoding, compress) => {
    const doors = await open();
    const bomb = compress(Buffer.from(JSON.stringify({ orderId: " ".repeat(100 * MAX_REQUEST_BYTES) })));
    expect(bomb.length).toBeLessThan(MAX_REQUEST_BYTES / 2);
    const before = process.memoryUsage().arrayBuffers;
    const response = await fetch(`${doors.http.url}${GET_TRACKING}`, {
      method: "POST",
      headers: { authorization: OPERATOR, "content-type": "application/json", "content-encoding": encoding },
      body: bomb,
    });
    expect(response.status).toBe(429);
    expect(await response.json()).toMatchObject({ code: "resource_exhausted" });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(50 * MAX_REQUEST_BYTES);
    await expectAnswers(doors);
  });

  it("are refused where a body is compressed and only plain ones are read", async () => {
    const doors = await open();
    const response = await fetch(`${doors.http.url}/orders/tracking/init`, {
      method: "POST",
      headers: { authorization: OPERATOR, "content-type": "application/json", "content-encoding": "gzip" },
      body: gzipSync("{}"),
    });
    expect(response.status).toBe(415);
  });

  it("may be sent one behind the other, each to be answered", async () => {
    const doors = await open();
    const socket = await openSocket(addressOf(doors, "HTTP"));
    socket.write(`${"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(999)}GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect((await text(socket)).split("HTTP/1.1 200 OK")).toHaveLength(1_001);
  });
});

describe("requests on the gRPC port", () => {
  it("end with DEADLINE_EXCEEDED when their message does not come, or comes drop by drop", async () => {
    const doors = await open({ limits: { headersTimeoutMs: LIMIT_MS, requestTimeoutMs: LIMIT_MS } });
    using raw = await openRawHttp2(doors.grpc.address);
    raw.send(grpcRequest(1, GET_TRACKING), grpcRequest(3, REBUILD), grpcRequest(5, GET_TRACKING));
    const dripping = setInterval(() => raw.send(frame(FRAME.data, 0, 5, Buffer.alloc(1))), 20);
    await eventually(() => {
      const ended = raw
        .frames()
        .filter(({ type, flags, streamId }) => type === FRAME.headers && (flags & END_STREAM) !== 0 && streamId <= 5);
      expect(ended.map(({ streamId }) => streamId).sort()).toEqual([1, 3, 5]);
    });
    clearInterval(dripping);
    expect(doors.asked).toEqual([]);
    await expectAnswers(doors);
  });

  it("are given up when nobody takes the answers", async () => {
    const doors = await open({ limits: { stallTimeoutMs: LIMIT_MS } });
    using raw = await openRawHttp2(doors.grpc.address);
    const message = grpcMessage(toBinary(RebuildProjectionRequestSchema, create(RebuildProjectionRequestSchema, { name: "endless" })));
    raw.send(grpcRequest(1, REBUILD), frame(FRAME.data, END_STREAM, 1, message));
    await eventually(() => expect(doors.asked.at(-1)?.call.signal.aborted ?? false).toBe(true), 30_000);
    const made = doors.streamed();
    await expectAnswers(doors);
    expect(doors.streamed()).toBe(made);
    expect(doors.logged).toContainEqual(expect.objectContaining({ code: "CANCELLED", msg: expect.stringContaining("not read") }));
  });

  it("that would unpack to more than allowed are refused", async () => {
    const doors = await open();
    using raw = await openRawHttp2(doors.grpc.address);
    const bomb = gzipSync(
      toBinary(GetTrackingRequestSchema, create(GetTrackingRequestSchema, { orderId: " ".repeat(100 * MAX_REQUEST_BYTES) })),
    );
    const head = requestFrame(1, {
      ":method": "POST",
      ":scheme": "http",
      ":path": GET_TRACKING,
      ":authority": "localhost",
      "content-type": "application/grpc",
      "grpc-encoding": "gzip",
      te: "trailers",
      authorization: OPERATOR,
    });
    raw.send(head, frame(FRAME.data, END_STREAM, 1, grpcMessage(bomb, true)));
    await eventually(() =>
      expect(
        raw
          .frames()
          .filter(({ type }) => type === FRAME.headers)
          .map(({ payload }) => payload.includes("8")),
      ).toEqual([true]),
    );
    expect(doors.asked).toEqual([]);
    await expectAnswers(doors);
  });
});

describe("docs/channels.md", () => {
  it("tells every limit", () => {
    const page = readFileSync(new URL("../../docs/channels.md", import.meta.url), "utf8");
    for (const value of Object.values(DOOR_LIMITS)) expect(page).toContain(`| ${value.toLocaleString("en")} |`);
  });
});
