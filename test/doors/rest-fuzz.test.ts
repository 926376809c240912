import { Agent, type IncomingHttpHeaders, request } from "node:http";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { OPERATOR } from "./grpc-calls.ts";
import { type OpenDoors, openDoors } from "./open-doors.ts";

const RUNS = 600;

const VALID_BODIES: Readonly<Record<string, object>> = {
  "/orders/tracking/init": {
    order_id: "o",
    store_id: "s",
    customer_id: "c",
    delivery_provider: "UBER",
    items: [{ item_id: "i", name: "n", quantity: 2, unit_price: { amount_minor: "5", currency: "EUR" } }],
    recipient: { name: "n", phone: "+4930123456", address: { lines: ["a"], city: "c", country: "DE", latitude: 1, longitude: 2 } },
    metadata: { a: { b: [1, null, "c"] } },
    request_id: "r",
  },
  "/orders/tracking/o/status": { status: "IN_TRANSIT", note: "n" },
  "/orders/tracking/o/acknowledge": { accepted: false, reason: "r", ready_at: "2026-06-01T12:00:00Z" },
  "/orders/tracking/o/substitutions": {
    substitutions: [{ substitution_id: "s", original_item: { item_id: "i", name: "n", quantity: 1 }, reason: "r" }],
  },
  "/orders/tracking/o/driver": {
    driver_details: { driver_id: "d", phone: "+4930123456" },
    delivery: { provider_delivery_id: "p", fee: { amount_minor: 1, currency: "EUR" } },
    eta: "2026-06-01T12:00:00Z",
  },
  "/orders/tracking/o/location": { latitude: 1.5, longitude: -2, heading_deg: 3, recorded_at: "2026-06-01T12:00:00Z" },
  "/orders/tracking/o/delivered": {
    proof_of_delivery: { recipient_name: "n", photo_url: "https://x.example/p", delivered_at: "2026-06-01T12:00:00Z" },
  },
  "/orders/tracking/o/cancel": { reason: "r" },
};

/** Values that have broken JSON readers before. */
const nasty = fc.constantFrom<unknown>(
  null,
  true,
  0,
  -0,
  -1,
  1e308,
  5e-324,
  2 ** 53,
  "9223372036854775808",
  "-9223372036854775809",
  "1e5",
  "0x10",
  " 1",
  "",
  "\u0000",
  "\ud800",
  "\u202e",
  "NaN",
  "Infinity",
  [],
  [[]],
  {},
  { "": "" },
  { seconds: 1 },
  "2026-13-01T00:00:00Z",
  "9999-12-31T23:59:59.999999999Z",
  "0000-01-01T00:00:00Z",
  "STORE_NOTIFIED",
  "ORDER_STATUS_UNSPECIFIED",
  "__proto__",
  ["a", null],
  "x".repeat(3_000),
);

/** A valid body, some of whose parts have been replaced, renamed or dropped. */
const mangledBody = fc
  .tuple(
    fc.constantFrom(...Object.keys(VALID_BODIES)),
    fc.infiniteStream(
      fc.record({ act: fc.integer({ min: 0, max: 9 }), value: fc.oneof(nasty, fc.jsonValue()), key: fc.string({ unit: "binary" }) }),
    ),
  )
  .map(([path, choices]) => {
    const mangle = (value: unknown): unknown => {
      const { act, value: other, key } = choices.next().value;
      if (act === 0) return other;
      if (Array.isArray(value)) return act === 1 ? [...value, other] : value.map(mangle);
      if (typeof value !== "object" || value === null) return value;
      const entries = Object.entries(value).map(([name, member]) => [name, mangle(member)] as const);
      return Object.fromEntries(act === 1 ? [...entries, [key, other]] : act === 2 ? entries.slice(1) : entries);
    };
    return { path, body: JSON.stringify(mangle(VALID_BODIES[path])) };
  });

const anyBody = fc.oneof(
  fc.json(),
  fc.string(),
  fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
);
const segment = fc.oneof(
  fc.constantFrom(
    "orders",
    "tracking",
    "init",
    "o",
    "history",
    "status",
    "%2f",
    "%",
    "%ff",
    "%00",
    "..",
    ".",
    "",
    "ä",
    ";",
    "a%20b",
    "__proto__",
  ),
  fc.string({ maxLength: 8 }).map(encodeURIComponent.bind(undefined)),
);
const query = fc.oneof(
  fc.constant(""),
  fc.constantFrom(
    "?",
    "?&&=",
    "?page_size",
    "?page_size=1e3",
    "?a.b.c.d.e.f.g.h.i=1",
    "?statuses=",
    "?min_position=-1",
    "?__proto__=1",
    "?created_from=%",
    "?metadata.a=1",
    "?constructor.name=1",
  ),
  fc
    .dictionary(
      fc.constantFrom("page_size", "store_id", "statuses", "created_from", "min_position", "page_token", "x", "toString"),
      fc.string({ unit: "binary-ascii", maxLength: 20 }),
    )
    .map((parameters) => `?${new URLSearchParams(parameters)}`),
);
const anyPath = fc
  .tuple(fc.array(segment, { maxLength: 5 }), query)
  .map(([segments, rest]) => `/${segments.join("/")}${rest}`.replaceAll(/[^\x21-\x7e]/g, ""));

const call = fc.oneof(
  {
    weight: 3,
    arbitrary: mangledBody.map(({ path, body }) => ({
      method: path.endsWith("init") || /acknowledge|cancel/.test(path) ? "POST" : "PUT",
      path,
      body,
      type: "application/json",
    })),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      method: fc.constantFrom("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"),
      path: anyPath,
      body: anyBody,
      type: fc.constantFrom("application/json", "text/plain", ";;", "application/json;charset=x"),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      method: fc.constant("GET"),
      path: query.map((rest) => `/orders/tracking${rest}`),
      body: fc.constant(""),
      type: fc.constant("application/json"),
    }),
  },
);

describe("the REST door, whatever it is sent", () => {
  let doors: OpenDoors;
  const agent = new Agent({ keepAlive: true });
  beforeAll(async () => {
    doors = await openDoors();
  });
  afterAll(async () => {
    agent.destroy();
    await doors[Symbol.asyncDispose]();
  });

  it("never has a fault, and refuses with the documented body", async () => {
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(call, async ({ method, path, body, type }) => {
        const answer = await send(new URL(doors.http.url), agent, { method, path, type }, body);
        expect(answer.status, answer.text).toBeLessThan(500);
        if (answer.status < 400 || method === "HEAD") return;
        refused += 1;
        const error = JSON.parse(answer.text);
        expect(Object.keys(error).filter((key) => key !== "violations")).toEqual(["detail", "code", "timestamp", "path"]);
        expect(error.path).toBe(path.split("?")[0]);
        expect(error.code).toMatch(/^[A-Z_]+$/);
        expect("violations" in error).toBe(error.code === "VALIDATION_FAILED");
        for (const violation of error.violations ?? []) expect(Object.keys(violation).sort()).toEqual(["detail", "field", "rule"]);
      }),
      { numRuns: RUNS },
    );
    expect(refused).toBeGreaterThan(RUNS / 4);
    expect(doors.logged.filter(({ level }) => level >= 50)).toEqual([]);
  });
});

type Answer = { readonly status: number; readonly headers: IncomingHttpHeaders; readonly text: string };

/** Sends a request as it is: fetch would tidy the path. */
function send(
  { hostname, port }: URL,
  agent: Agent,
  { method, path, type }: { method: string; path: string; type: string },
  body: string | Buffer,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        hostname,
        port,
        agent,
        method,
        path,
        headers: { authorization: OPERATOR, "content-type": type, "content-length": Buffer.byteLength(body) },
      },
      (incoming) => {
        const chunks: Buffer[] = [];
        incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
        incoming.on("end", () =>
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text: Buffer.concat(chunks).toString() }),
        );
        incoming.on("error", reject);
      },
    );
    outgoing.on("error", reject);
    outgoing.end(body);
  });
}
