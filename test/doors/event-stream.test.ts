import { once } from "node:events";
import { connect as connectHttp2, constants } from "node:http2";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { describe, expect, it } from "vitest";
import type { WatchTrackingRequest } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { createAuthority, writeIssued } from "../support/certificates.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { OPERATOR } from "./grpc-calls.ts";
import { type OpenDoors, openDoors } from "./open-doors.ts";

const watch = (doors: OpenDoors, orderId: string, headers: Record<string, string> = {}, query = "") =>
  fetch(`${doors.http.url}/orders/tracking/${orderId}/events${query}`, { headers: { authorization: OPERATOR, ...headers } });

/** The events and comments of a stream that has ended, each in its lines. */
async function blocksOf(response: Response): Promise<string[][]> {
  const text = await response.text();
  expect(text.endsWith("\n\n")).toBe(true);
  return text
    .slice(0, -2)
    .split("\n\n")
    .map((block) => block.split("\n"));
}

describe("server-sent events", () => {
  it("tell the order of each change, with its version and what has happened", async () => {
    await using doors = await openDoors();
    const response = await watch(doors, "order-1", { accept: "text/event-stream", origin: "https://shop.example" });
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(response.headers.get("cache-control")).toBe("no-store");
    expect(response.headers.get("access-control-allow-origin")).toBe("https://shop.example");
    const blocks = await blocksOf(response);
    expect(blocks[0]?.[0]).toMatch(/^retry: \d{3,4}$/);
    expect(blocks.map((lines) => lines.filter((line) => !/^(retry|data)/.test(line)))).toEqual([
      ["id: 2", "event: snapshot"],
      ["id: 3", "event: Event3"],
      ["id: 4", "event: Event4"],
      [": 2027-01-15T08:00:00.000Z position 12"],
    ]);
    const order = JSON.parse(blocks[1]?.[2]?.slice("data: ".length) ?? "");
    expect(order).toMatchObject({ order_id: "order-1", current_status: "STORE_NOTIFIED", version: 3, position: "12" });
  });

  it("go on after Last-Event-ID, whatever the query says", async () => {
    await using doors = await openDoors();
    const asked = async (headers: Record<string, string>, query: string) => {
      await (await watch(doors, "order-1", headers, query)).text();
      return (doors.asked.at(-1)?.request as WatchTrackingRequest | undefined)?.fromVersion;
    };
    expect(await asked({}, "")).toBeUndefined();
    expect(await asked({}, "?from_version=3")).toBe(3);
    expect(await asked({ "last-event-id": "7" }, "?from_version=3")).toBe(7);
    expect(await asked({ "last-event-id": "0" }, "?fromVersion=3")).toBe(0);
    expect(await asked({ "last-event-id": "" }, "?from_version=3")).toBe(3);
  });

  it.each(["x", "-1", "1.5", "4294967296", "99999999999", "7;8"])("are refused for the Last-Event-ID %s", async (id) => {
    await using doors = await openDoors();
    const response = await watch(doors, "order-1", { "last-event-id": id });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ code: "VALIDATION_FAILED", violations: [{ field: "Last-Event-ID" }] });
    expect(doors.asked).toEqual([]);
  });

  it("are refused in the usual way before they begin", async () => {
    await using doors = await openDoors();
    const path = "/orders/tracking/refuse-ORDER_NOT_FOUND/events";
    const missing = await watch(doors, "refuse-ORDER_NOT_FOUND");
    expect([missing.status, missing.headers.get("content-type")]).toEqual([404, "application/json; charset=utf-8"]);
    expect(await missing.json()).toMatchObject({ code: "ORDER_NOT_FOUND", path, timestamp: "2026-06-01T12:00:00.000Z" });
    const unknown = await watch(doors, "order-1", {}, "?colour=red");
    expect([unknown.status, await unknown.json()]).toMatchObject([400, { code: "VALIDATION_FAILED" }]);
    expect((await watch(doors, "order-1", { authorization: "Bearer nonsense" })).status).toBe(401);
    const posted = await fetch(`${doors.http.url}/orders/tracking/order-1/events`, { method: "POST" });
    expect([posted.status, posted.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
  });

  it("end with an event that tells why, when they have begun", async () => {
    await using doors = await openDoors();
    const last = (await blocksOf(await watch(doors, "broken"))).at(-1) ?? [];
    expect(last[0]).toBe("event: error");
    expect(JSON.parse(last[1]?.slice("data: ".length) ?? "")).toMatchObject({
      code: "UNAUTHENTICATED",
      path: "/orders/tracking/broken/events",
    });
  });

  it("are no content where there is nothing more to come, at which browsers do not come back", async () => {
    await using doors = await openDoors();
    const response = await watch(doors, "over", { "last-event-id": "12" });
    expect([response.status, await response.text()]).toEqual([204, ""]);
  });

  it("are not begun for HEAD", async () => {
    await using doors = await openDoors();
    const response = await fetch(`${doors.http.url}/orders/tracking/endless/events`, {
      method: "HEAD",
      headers: { authorization: OPERATOR },
    });
    expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
    await eventually(() => expect(doors.logged.some(({ code }) => code === "CANCELLED")).toBe(true));
  });

  it("end with UNAVAILABLE when the server shuts down", async () => {
    await using doors = await openDoors();
    const response = await watch(doors, "endless");
    const rest = response.text();
    const stopped = doors.http.stop();
    const text = await rest;
    expect(text.slice(text.lastIndexOf("event: "))).toMatch(/^event: error\ndata: \{.*"code":"UNAVAILABLE".*\}\n\n$/);
    await stopped;
  });

  it("are the same over TLS and HTTP/2, one of many streams of a connection", async () => {
    await using folder = await temporaryFolder();
    const authority = await createAuthority();
    const files = await writeIssued(folder.path, "server", await authority.issue({ name: "localhost" }));
    await using doors = await openDoors({ tls: { ...files, clientCaFile: undefined, clientCert: "optional" } });
    const session = connectHttp2(doors.http.url, { ca: authority.cert, servername: "localhost" });
    const path = (orderId: string) => `/orders/tracking/${orderId}/events`;
    const texts = await Promise.all(
      Array.from({ length: 20 }, (_, n) => text(session.request({ ":path": path(`order-${n}`), authorization: OPERATOR }))),
    );
    for (const told of texts) expect(told.match(/^id: \d+$/gm)).toEqual(["id: 2", "id: 3", "id: 4"]);
    const endless = session.request({ ":path": path("endless"), authorization: OPERATOR });
    await once(endless, "data");
    // As browsers say it.
    endless.close(constants.NGHTTP2_CANCEL);
    await eventually(() => expect(doors.logged.some(({ code }) => code === "CANCELLED")).toBe(true));
    session.destroy();
  });

  it("wait for a reader who takes nothing, and are given up in the end", async () => {
    await using doors = await openDoors({ limits: { stallTimeoutMs: 300 } });
    const { hostname, port } = new URL(doors.http.url);
    const socket = connect(Number(port), hostname);
    socket.on("error", () => undefined);
    await once(socket, "connect");
    socket.pause();
    socket.write(`GET /orders/tracking/endless/events HTTP/1.1\r\nHost: x\r\nAuthorization: ${OPERATOR}\r\n\r\n`);
    const end = await eventually(() => {
      const line = doors.logged.find(({ method, code }) => String(method).endsWith("WatchTracking") && code !== undefined);
      expect(line).toBeDefined();
      return line;
    });
    expect(end?.["code"]).toBe("CANCELLED");
    const streamed = doors.streamed();
    expect(streamed).toBeGreaterThan(10);
    await new Promise((resolve) => setImmediate(resolve));
    expect(doors.streamed()).toBe(streamed);
    socket.destroy();
  });
});
