import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { connect as connectTls } from "node:tls";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { createAuthority, writeIssued } from "../support/certificates.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { callUnary, grpcClient, OPERATOR } from "./grpc-calls.ts";
import { type OpenDoors, openDoors } from "./open-doors.ts";
import { END_HEADERS, END_STREAM, FRAME, frame, headerBlock, openRawHttp2, PREFACE, type RawHttp2, requestFrame } from "./raw-http2.ts";

const { getTracking } = OrderTrackingService.method;
const GET_TRACKING = "/ordertrail.v1.OrderTrackingService/GetTracking";

/** Ports that close what does not go on after a moment. */
const LIMITS = { headersTimeoutMs: 300, requestTimeoutMs: 600, idleTimeoutMs: 2_000 };
const SOON_MS = 20_000;

const seed = Number(process.hrtime.bigint() % 1_000_000_007n);

let clear: OpenDoors;
let secure: OpenDoors;
let ca: string;
const parts = new AsyncDisposableStack();
beforeAll(async () => {
  const folder = parts.use(await temporaryFolder());
  const authority = await createAuthority();
  ca = authority.cert;
  const files = await writeIssued(folder.path, "server", await authority.issue({ name: "server" }));
  clear = parts.use(await openDoors({ limits: LIMITS }));
  secure = parts.use(await openDoors({ limits: LIMITS, tls: { ...files, clientCaFile: undefined, clientCert: "required" } }));
});
afterAll(() => parts.disposeAsync());

type Port = { readonly name: string; readonly address: () => string; readonly ca: () => string | undefined };

const PORTS: readonly Port[] = [
  { name: "gRPC", address: () => clear.grpc.address, ca: () => undefined },
  { name: "HTTP", address: () => new URL(clear.http.url).host, ca: () => undefined },
  { name: "gRPC by TLS", address: () => secure.grpc.address, ca: () => ca },
  { name: "HTTP by TLS", address: () => new URL(secure.http.url).host, ca: () => ca },
];
const HTTP2_PORTS = PORTS.filter(({ name }) => name !== "HTTP");

/** The ports still serve, and nothing that came in was a fault of the server. */
async function expectUnharmed(): Promise<void> {
  using client = grpcClient(clear.grpc.address);
  expect((await callUnary(client, getTracking, { orderId: "order-1" })).order?.orderId).toBe("order-1");
  expect((await fetch(`${clear.http.url}/orders/tracking/order-1`, { headers: { authorization: OPERATOR } })).status).toBe(200);
  for (const { name, address } of HTTP2_PORTS) {
    using raw = await openRawHttp2(address(), name.endsWith("TLS") ? ca : undefined);
    raw.send(frame(FRAME.ping, 0, 0, Buffer.alloc(8)));
    await eventually(() => expect(raw.frames().some(({ type, flags }) => type === FRAME.ping && flags === 1)).toBe(true));
  }
  for (const { logged } of [clear, secure]) expect(logged.filter(({ level }) => level >= 50)).toEqual([]);
}

async function connectTo(address: string): Promise<Socket> {
  const [host = "", port] = address.split(":");
  const socket = connect(Number(port), host);
  socket.on("error", () => undefined);
  await once(socket, "connect");
  return socket;
}

/** Sends bytes as they are, and reads until the connection is closed, which must be soon. */
async function exchange(address: string, bytes: Buffer | string): Promise<string> {
  const socket = await connectTo(address);
  socket.write(bytes);
  const closed = AbortSignal.timeout(SOON_MS);
  closed.addEventListener("abort", () => socket.destroy(new Error("the connection was not closed")));
  return await text(socket).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ECONNRESET") return "";
    throw error;
  });
}

/** A generator of numbers from 0 to 1 that gives the same for the same seed. */
function numbersFrom(start: number): () => number {
  let state = start >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe.each(PORTS)("garbage on the $name port", ({ address }) => {
  it(`harms nobody (seed ${seed})`, async () => {
    const next = numbersFrom(seed);
    const beginnings = [
      "",
      "GET / HTTP/1.1\r\n",
      "POST /orders/tracking/init HTTP/1.1\r\nHost: x\r\n",
      PREFACE.toString("latin1"),
      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
      "PRI",
      "\0".repeat(64),
    ];
    const texts = Array.from({ length: 60 }, () => {
      const beginning = beginnings[Math.floor(next() * beginnings.length)] ?? "";
      return Buffer.from([
        ...Buffer.from(beginning, "latin1"),
        ...Array.from({ length: Math.floor(next() * 300) }, () => Math.floor(next() * 256)),
      ]);
    });
    const answers = await Promise.all(texts.map((bytes) => exchange(address(), bytes)));
    for (const answer of answers) expect(answer).not.toMatch(/^HTTP\/1\.[01] 5/);
    await expectUnharmed();
  });
});

describe.each(PORTS)("connections to the $name port", ({ name, address }) => {
  const request = name.startsWith("gRPC")
    ? Buffer.concat([PREFACE, frame(FRAME.settings, 0, 0), aRequest(1, true)])
    : Buffer.from("GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n");

  it("that are torn off at any moment harm nobody", async () => {
    const [host = ""] = address().split(":");
    await Promise.all(
      Array.from({ length: 40 }, async (_, moment) => {
        const raw = await connectTo(address());
        const alpn = moment % 8 < 4 ? "h2" : "http/1.1";
        const socket = name.endsWith("TLS") ? connectTls({ socket: raw, host, ca, ALPNProtocols: [alpn] }) : raw;
        const until = (event: string) => Promise.race([once(socket, event), once(socket, "close")]).catch(() => undefined);
        // Some before TLS or the request is complete, some after it, and some with an answer under way.
        if (socket !== raw && moment % 4 > 0) await until("secureConnect");
        if (moment % 4 > 0) socket.write(moment % 4 === 1 ? request.subarray(0, moment) : request);
        if (moment % 4 === 3) await until("data");
        raw.resetAndDestroy();
      }),
    );
    await expectUnharmed();
  });
});

describe.each(PORTS.filter(({ name }) => name.endsWith("TLS")))("connections to the $name port", ({ address }) => {
  it("that begin TLS again and again are cut off", async () => {
    const [host = "", port] = address().split(":");
    const socket = connectTls({ host, port: Number(port), ca, maxVersion: "TLSv1.2", ALPNProtocols: ["h2"] });
    socket.on("error", () => undefined);
    await once(socket, "secureConnect");
    socket.write(Buffer.concat([PREFACE, frame(FRAME.settings, 0, 0)]));
    const again = () => {
      if (!socket.closed) socket.renegotiate({}, again);
    };
    again();
    await once(socket.resume(), "close", { signal: AbortSignal.timeout(SOON_MS) });
    await expectUnharmed();
  });
});

describe("the HTTP port", () => {
  const SMUGGLED = `GET /orders/tracking/order-1 HTTP/1.1\r\nHost: x\r\nX-Request-Id: smuggled\r\nAuthorization: ${OPERATOR}\r\n\r\n`;
  const post = (...lines: string[]) => `POST /orders/tracking/order-1/status HTTP/1.1\r\nHost: x\r\n${lines.join("\r\n")}`;

  // What one of two servers in a row takes for a body, and the other for the next request.
  it.each([
    ["two lengths that differ", post("Content-Length: 0", `Content-Length: ${SMUGGLED.length}`, "", SMUGGLED)],
    ["a length and chunks", post(`Content-Length: ${SMUGGLED.length + 5}`, "Transfer-Encoding: chunked", "", `0\r\n\r\n${SMUGGLED}`)],
    ["chunks that are not the last encoding", post("Transfer-Encoding: chunked, identity", "", `0\r\n\r\n${SMUGGLED}`)],
    ["an encoding that nobody knows", post("Transfer-Encoding: xchunked", "", `0\r\n\r\n${SMUGGLED}`)],
    ["an encoding behind a tab", post("Transfer-Encoding:\tchunked", `Content-Length: ${SMUGGLED.length + 5}`, "", `0\r\n\r\n${SMUGGLED}`)],
    [
      "an encoding behind a vertical tab",
      post("Transfer-Encoding: \x0bchunked", `Content-Length: ${SMUGGLED.length + 5}`, "", `0\r\n\r\n${SMUGGLED}`),
    ],
    ["an encoding said twice", post("Transfer-Encoding: chunked", "Transfer-Encoding: identity", "", `0\r\n\r\n${SMUGGLED}`)],
    ["space before the colon", post("Transfer-Encoding : chunked", `Content-Length: ${SMUGGLED.length + 5}`, "", `0\r\n\r\n${SMUGGLED}`)],
    ["a folded header", post("Transfer-Encoding:", " chunked", `Content-Length: ${SMUGGLED.length + 5}`, "", `0\r\n\r\n${SMUGGLED}`)],
    ["a length with a sign", post(`Content-Length: +${SMUGGLED.length}`, "", SMUGGLED)],
    ["a length in hexadecimal", post(`Content-Length: 0x${SMUGGLED.length.toString(16)}`, "", SMUGGLED)],
    ["a length below zero", post("Content-Length: -1", "", SMUGGLED)],
    ["a length beyond all numbers", post("Content-Length: 99999999999999999999999", "", SMUGGLED)],
    ["lengths in one line", post(`Content-Length: 0, ${SMUGGLED.length}`, "", SMUGGLED)],
    ["a chunk's size beyond all numbers", post("Transfer-Encoding: chunked", "", `fffffffffffffffff\r\n\r\n${SMUGGLED}`)],
    ["a chunk's size with a sign", post("Transfer-Encoding: chunked", "", `-1\r\n\r\n${SMUGGLED}`)],
    ["a chunk's size that ends in a bare line feed", post("Transfer-Encoding: chunked", "", `0\n\n${SMUGGLED}`)],
    ["a line feed within a chunk's extension", post("Transfer-Encoding: chunked", "", `2;\nxx\r\n${SMUGGLED}`)],
    ["bare line feeds", post(`X: y\nTransfer-Encoding: chunked`, "", `0\r\n\r\n${SMUGGLED}`)],
    [
      "bare carriage returns",
      post(`X: y\rTransfer-Encoding: chunked`, `Content-Length: ${SMUGGLED.length + 5}`, "", `0\r\n\r\n${SMUGGLED}`),
    ],
    ["NUL in a name", post("Trans\0fer-Encoding: chunked", `Content-Length: ${SMUGGLED.length + 5}`, "", `0\r\n\r\n${SMUGGLED}`)],
    ["NUL in a value", post("Transfer-Encoding: chun\0ked", `Content-Length: ${SMUGGLED.length + 5}`, "", `0\r\n\r\n${SMUGGLED}`)],
    ["no Host", `GET /orders/tracking/order-1 HTTP/1.1\r\nX-Request-Id: smuggled\r\nAuthorization: ${OPERATOR}\r\n\r\n`],
    [
      "two Hosts",
      `GET /orders/tracking/order-1 HTTP/1.1\r\nHost: x\r\nHost: y\r\nX-Request-Id: smuggled\r\nAuthorization: ${OPERATOR}\r\n\r\n`,
    ],
    ["a version of another protocol", `GET / HTTP/9.9\r\nHost: x\r\n\r\n${SMUGGLED}`],
    ["no version", `GET /\r\n\r\n${SMUGGLED}`],
    ["spaces in the address", `GET /a b HTTP/1.1\r\nHost: x\r\n\r\n${SMUGGLED}`],
    ["a tunnel to elsewhere", `CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n${SMUGGLED}`],
  ])("takes nothing for a further request: %s", async (_what, bytes) => {
    const answer = await exchange(new URL(clear.http.url).host, bytes);
    const statuses = [...answer.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, code]) => Number(code));
    expect(statuses.length).toBeLessThanOrEqual(1);
    for (const code of statuses) expect(code === 400 || code === 501 || code === 413, `${code}`).toBe(true);
  });

  it("offers no upgrade to another protocol", async () => {
    const answer = await exchange(
      new URL(clear.http.url).host,
      "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n",
    );
    expect(answer).toMatch(/^HTTP\/1\.1 200/);
    expect(answer).not.toMatch(/101/);
  });

  it("is not kept by requests that break off", async () => {
    const halves = Array.from({ length: SMUGGLED.length - 1 }, (_, end) => SMUGGLED.slice(0, end + 1));
    await Promise.all(
      halves.map(async (half) => {
        const socket = await connectTo(new URL(clear.http.url).host);
        socket.end(half);
        const answer = await text(socket).catch(() => "");
        expect(answer === "" || /^HTTP\/1\.1 4/.test(answer)).toBe(true);
      }),
    );
    await expectUnharmed();
  });
});

/** What an HTTP/2 client may do to a server; none of it may cost the server more than that client's connection. */
const ABUSES: readonly (readonly [string, (raw: RawHttp2, isGrpc: boolean) => Promise<void>])[] = [
  [
    "requests taken back as soon as they are made",
    (raw, isGrpc) => repeatedly(raw, 20_000, (n) => [aRequest(2 * n + 1, isGrpc), reset(2 * n + 1)]),
  ],
  ["settings without end", (raw) => repeatedly(raw, 50_000, () => [frame(FRAME.settings, 0, 0, Buffer.from([0, 4, 0, 0, 255, 255]))])],
  ["pings without end", (raw) => repeatedly(raw, 50_000, () => [frame(FRAME.ping, 0, 0, Buffer.alloc(8))])],
  [
    "headers that go on without end",
    async (raw) => {
      const block = headerBlock({ x: "y".repeat(1_000) });
      raw.send(frame(FRAME.headers, END_STREAM, 1, block));
      await repeatedly(raw, 20_000, () => [frame(FRAME.continuation, 0, 1, block)]);
    },
  ],
  [
    "empty continuations without end",
    async (raw) => {
      raw.send(frame(FRAME.headers, END_STREAM, 1, headerBlock({ x: "y" })));
      await repeatedly(raw, 100_000, () => [frame(FRAME.continuation, 0, 1)]);
    },
  ],
  [
    "empty pieces of a body without end",
    async (raw, isGrpc) => {
      raw.send(aRequest(1, isGrpc, END_HEADERS));
      await repeatedly(raw, 50_000, () => [frame(FRAME.data, 0, 1)]);
    },
  ],
  [
    "windows opened without end",
    (raw) => repeatedly(raw, 50, () => [frame(FRAME.windowUpdate, 0, 0, Buffer.from([0x7f, 0xff, 0xff, 0xff]))]),
  ],
  ["priorities without end", (raw) => repeatedly(raw, 20_000, (n) => [frame(FRAME.priority, 0, 2 * n + 1, Buffer.from([0, 0, 0, 0, 16]))])],
  [
    "a stream that resets itself",
    (raw, isGrpc) => repeatedly(raw, 5_000, (n) => [aRequest(2 * n + 1, isGrpc), frame(FRAME.windowUpdate, 0, 2 * n + 1, Buffer.alloc(4))]),
  ],
  ["frames of no known type", (raw) => repeatedly(raw, 20_000, () => [frame(0xfe, 0xff, 7, randomBytes(20))])],
  ["a frame longer than allowed", (raw) => repeatedly(raw, 1, () => [frame(FRAME.data, 0, 1, Buffer.alloc(100_000))])],
  [
    "headers that do not decode",
    (raw) => repeatedly(raw, 1, () => [frame(FRAME.headers, END_HEADERS, 1, Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]))]),
  ],
  [
    "a table of headers that grows and shrinks",
    (raw) => repeatedly(raw, 2_000, (n) => [frame(FRAME.settings, 0, 0, Buffer.from([0, 1, 0, n % 2 ? 255 : 0, 255, 255]))]),
  ],
  ["a stream that is the server's to open", (raw, isGrpc) => repeatedly(raw, 1, () => [aRequest(2, isGrpc)])],
  [
    "requests without a path or a method",
    (raw) => repeatedly(raw, 200, (n) => [requestFrame(2 * n + 1, { ":method": "GET", x: "y" }, END_HEADERS | END_STREAM)]),
  ],
  [
    "a connection header, which HTTP/2 has not",
    (raw) =>
      repeatedly(raw, 200, (n) => [
        requestFrame(
          2 * n + 1,
          { ":method": "GET", ":scheme": "https", ":path": "/healthz", "transfer-encoding": "chunked", connection: "close" },
          END_HEADERS | END_STREAM,
        ),
      ]),
  ],
];

function aRequest(streamId: number, isGrpc: boolean, flags = END_HEADERS | END_STREAM): Buffer {
  return requestFrame(
    streamId,
    {
      ":method": "POST",
      ":scheme": "https",
      ":path": GET_TRACKING,
      ":authority": "localhost",
      "content-type": isGrpc ? "application/grpc" : "application/json",
      te: "trailers",
      authorization: OPERATOR,
    },
    flags,
  );
}

const reset = (streamId: number) => frame(FRAME.rstStream, 0, streamId, Buffer.from([0, 0, 0, 8]));

/** Sends these frames so many times, or until the server has had enough. */
async function repeatedly(raw: RawHttp2, times: number, make: (n: number) => Buffer[]): Promise<void> {
  for (let n = 0; n < times && !raw.socket.closed; n += 100) {
    const batch = Array.from({ length: Math.min(100, times - n) }, (_, index) => Buffer.concat(make(n + index)));
    if (!raw.socket.write(Buffer.concat(batch))) await Promise.race([once(raw.socket, "drain").catch(() => undefined), raw.closed]);
  }
}

describe.each(HTTP2_PORTS)("an HTTP/2 client on the $name port", ({ name, address }) => {
  it.each(ABUSES)("that sends %s harms nobody else", async (_what, abuse) => {
    using raw = await openRawHttp2(address(), name.endsWith("TLS") ? ca : undefined);
    await abuse(raw, name.startsWith("gRPC"));
    // Not a stream was answered with a fault of the server.
    for (const { type, payload } of raw.frames()) if (type === FRAME.headers) expect(payload.includes(":status500")).toBe(false);
    await expectUnharmed();
  });

  it("uses no more memory the fourth time than the second", async () => {
    const round = async () => {
      for (const [, abuse] of ABUSES) {
        using raw = await openRawHttp2(address(), name.endsWith("TLS") ? ca : undefined);
        await abuse(raw, name.startsWith("gRPC"));
      }
      await expectUnharmed();
    };
    for (let n = 0; n < 2; n += 1) await round();
    const before = heapAfterCollection();
    for (let n = 0; n < 2; n += 1) await round();
    expect(heapAfterCollection() - before).toBeLessThan(10 * 1024 * 1024);
  });
});

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

function heapAfterCollection(): number {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
