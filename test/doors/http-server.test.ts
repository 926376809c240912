import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SECURITY_HEADERS } from "../../src/doors/http-answer.ts";
import { eventually } from "../support/eventually.ts";
import { OPERATOR } from "./grpc-calls.ts";
import { type OpenDoors, openDoors } from "./open-doors.ts";

const headers = { authorization: OPERATOR };

describe("the HTTP port", () => {
  let doors: OpenDoors;
  beforeAll(async () => {
    doors = await openDoors();
  });
  afterAll(() => doors[Symbol.asyncDispose]());

  const get = (path: string) => fetch(`${doors.http.url}${path}`);

  it("shows to anybody that it lives, its paths and its keys", async () => {
    expect(await (await get("/healthz")).json()).toEqual({ status: "ok" });
    expect(await (await get("/openapi.json")).json()).toMatchObject({ openapi: "3.1.1" });
    expect(await (await get("/.well-known/jwks.json")).json()).toEqual({ keys: [{ kty: "EC", kid: "test" }] });
  });

  it("says what keeps it from being ready, without telling secrets, and logs each change once", async () => {
    expect(await (await get("/readyz")).json()).toEqual({ ready: true, checks: { mongodb: "ok" } });
    doors.setReady(false);
    const before = doors.logged.length;
    const response = await get("/readyz");
    expect(response.status).toBe(503);
    expect(await response.json()).toEqual({ ready: false, checks: { mongodb: "failed" } });
    await get("/readyz");
    doors.setReady(true);
    expect((await get("/readyz")).status).toBe(200);
    const changes = doors.logged.slice(before).map(({ level, msg }) => [level, msg]);
    expect(changes).toEqual([
      [40, "not ready"],
      [30, "ready again"],
    ]);
  });

  it.each([
    ["what is no HTTP", "hello\r\n\r\n", "400 Bad Request", "MALFORMED_REQUEST"],
    [
      "headers without end",
      `GET / HTTP/1.1\r\nHost: x\r\nX: ${"y".repeat(20_000)}\r\n\r\n`,
      "431 Request Header Fields Too Large",
      "PAYLOAD_TOO_LARGE",
    ],
    [
      "a request with two lengths",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
      "400 Bad Request",
      "MALFORMED_REQUEST",
    ],
    [
      "a Host that makes no address",
      "POST /ordertrail.v1.OrderTrackingService/GetTracking HTTP/1.1\r\nHost: [\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
      "400 Bad Request",
      "MALFORMED_REQUEST",
    ],
    [
      "a method of another protocol",
      "PROPFIND /orders/tracking HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
      "405 Method Not Allowed",
      "METHOD_NOT_ALLOWED",
    ],
    [
      "an address of another form",
      "GET ftp://x/orders/tracking HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
      "404 Not Found",
      "ROUTE_NOT_FOUND",
    ],
    ["no Host", "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", "400 Bad Request", "MALFORMED_REQUEST"],
    [
      "an expectation that it does not know",
      "GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n",
      "417 Expectation Failed",
      "MALFORMED_REQUEST",
    ],
    ["a path that starts like a host", "GET //[ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404 Not Found", "ROUTE_NOT_FOUND"],
  ])("answers %s with the error body", async (_what, bytes, status, code) => {
    const answer = await exchange(doors.http.url, bytes);
    expect(answer.split("\r\n")[0]).toBe(`HTTP/1.1 ${status}`);
    expect(JSON.parse(answer.slice(answer.indexOf("\r\n\r\n")))).toMatchObject({
      code,
      detail: expect.any(String),
      timestamp: expect.any(String),
      path: expect.any(String),
    });
  });

  it.each([
    ["a document", "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
    ["an answer of REST", `GET /orders/tracking/o HTTP/1.1\r\nHost: x\r\nAuthorization: ${OPERATOR}\r\nConnection: close\r\n\r\n`],
    ["a refusal", "GET /orders/tracking/o HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
    ["a path that is none", "GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
    [
      "an answer of Connect",
      `POST /ordertrail.v1.OrderTrackingService/GetTracking HTTP/1.1\r\nHost: x\r\nAuthorization: ${OPERATOR}\r\nContent-Type: application/json\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{"orderId":"o"}`,
    ],
    [
      "a preflight",
      "OPTIONS /orders/tracking/o HTTP/1.1\r\nHost: x\r\nOrigin: https://shop.example\r\nAccess-Control-Request-Method: GET\r\nConnection: close\r\n\r\n",
    ],
    ["an unknown expectation", "GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n"],
    ["what is no HTTP", "hello\r\n\r\n"],
    ["a head over the limits", `GET /${"a".repeat(9_000)} HTTP/1.1\r\nHost: x\r\n\r\n`],
  ])("keeps browsers from showing, framing, keeping or guessing at %s", async (_what, bytes) => {
    const [head = ""] = (await exchange(doors.http.url, bytes)).toLowerCase().split("\r\n\r\n");
    for (const [name, value] of Object.entries(SECURITY_HEADERS)) expect(head).toContain(`\r\n${name}: ${value}`.toLowerCase());
    expect(head).not.toMatch(/^(server|x-powered-by|strict-transport-security):/m);
  });

  it("finds a path also where the whole address is named, as to a proxy", async () => {
    const head = "GET http://shop.example:8080/healthz?x HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
    expect((await exchange(doors.http.url, head)).split("\r\n")[0]).toBe("HTTP/1.1 200 OK");
  });

  it("does not read on in a body over the limit", async () => {
    const bytes = `POST /orders/tracking/init HTTP/1.1\r\nHost: x\r\nAuthorization: ${OPERATOR}\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n{`;
    const [head = ""] = (await exchange(doors.http.url, bytes)).split("\r\n\r\n");
    expect(head).toMatch(/^HTTP\/1.1 413/);
    expect(head.toLowerCase()).toContain("connection: close");
  });

  it("aborts the handler's signal when the caller of a REST path leaves", async () => {
    const leaving = new AbortController();
    const call = fetch(`${doors.http.url}/orders/tracking/slow`, {
      headers: { ...headers, "x-request-id": "left" },
      signal: leaving.signal,
    });
    await eventually(() => expect(doors.asked.at(-1)?.call.traceId).toBe("left"));
    leaving.abort();
    await expect(call).rejects.toThrow();
    await eventually(() => expect(doors.asked.at(-1)?.call.signal.aborted).toBe(true));
    await eventually(() => expect(doors.logged.find((line) => line["trace_id"] === "left")).toMatchObject({ code: "CANCELLED" }));
  });
});

describe("the HTTP port, stopping", () => {
  it("lets a call under way finish, and closes its connection after it", async () => {
    await using doors = await openDoors({ drainTimeoutMs: 10_000 });
    const call = fetch(`${doors.http.url}/orders/tracking/slow`, { headers });
    await eventually(() => expect(doors.asked).toHaveLength(1));
    const startedAt = performance.now();
    const stopped = doors.http.stop();
    // It ends by its own deadline, and not by the stop.
    expect((await call).status).toBe(504);
    await stopped;
    expect(performance.now() - startedAt).toBeLessThan(5_000);
    await expect(fetch(`${doors.http.url}/healthz`)).rejects.toThrow();
  });

  it("closes idle connections at once", async () => {
    await using doors = await openDoors({ drainTimeoutMs: 10_000 });
    await (await fetch(`${doors.http.url}/healthz`)).text();
    const startedAt = performance.now();
    await doors.http.stop();
    expect(performance.now() - startedAt).toBeLessThan(2_000);
  });

  it("cuts off what does not end within the drain timeout", async () => {
    await using doors = await openDoors({ drainTimeoutMs: 50 });
    const call = fetch(`${doors.http.url}/orders/tracking/deaf`, { headers: { ...headers, "connect-timeout-ms": "2000" } }).catch(
      () => "cut off",
    );
    await eventually(() => expect(doors.asked).toHaveLength(1));
    await doors.http.stop();
    expect(await call).toBe("cut off");
    expect(doors.logged.some(({ msg }) => msg.includes("cut off"))).toBe(true);
  });

  it("says which address cannot be had", async () => {
    await using doors = await openDoors();
    await expect(openDoors({ httpPort: Number(new URL(doors.http.url).port) })).rejects.toThrow("EADDRINUSE");
  });
});

/** Sends bytes as they are, and reads until the server closes. */
async function exchange(url: string, bytes: string): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.write(bytes);
  return await text(socket);
}
