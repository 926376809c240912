import { brotliCompressSync, gzipSync } from "node:zlib";
import { create, type DescMethod, fromJson, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { InitTrackingRequestSchema } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";

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

/** REST calls: of valid bodies that have been mangled, and of anything at all. */
export const restCall = fc.oneof(
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

const validMessage = toBinary(
  InitTrackingRequestSchema,
  fromJson(InitTrackingRequestSchema, {
    orderId: "o",
    storeId: "s",
    customerId: "c",
    items: [{ itemId: "i", name: "n", quantity: 2, unitPrice: { amountMinor: "5", currency: "EUR" } }],
    recipient: { name: "n", address: { lines: ["a"], latitude: 1 } },
    metadata: { a: { b: [1, null, "c"] } },
  }),
);

/** A valid message of InitTracking, some of whose bytes are others, or are missing; or any bytes. */
export const messageBytes = fc.oneof(
  fc
    .tuple(
      fc.array(fc.tuple(fc.nat(validMessage.byteLength - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
      fc.nat(validMessage.byteLength),
    )
    .map(([changes, end]) => {
      const bytes = Uint8Array.from(validMessage);
      for (const [index, byte] of changes) bytes[index] = byte;
      return bytes.slice(0, end % 3 === 0 ? end : undefined);
    }),
  fc.uint8Array({ maxLength: 100 }),
);

/** What has broken readers of JSON before. */
export const CORPUS: readonly Buffer[] = [
  "",
  "\ufeff{}",
  "{",
  "[",
  "null",
  "[1]",
  '"text"',
  '{"order_id":"o","order_id":"p"}',
  '{"order_id":"\\ud800"}',
  '{"order_id":"\\u0000"}',
  '{"__proto__":{"order_id":"o"}}',
  '{"constructor":{"prototype":{"x":1}}}',
  '{"page_size":1e999}',
  '{"page_size":-0.0}',
  '{"page_size":99999999999999999999}',
  '{"position":"9223372036854775808"}',
  '{"latitude":"NaN"}',
  '{"recorded_at":"2026-02-30T00:00:00Z"}',
  '{"recorded_at":"+010000-01-01T00:00:00Z"}',
  "{'order_id':'o'}",
  '{"order_id":"o",}',
  '{"order_id":"o"}{}',
  "//\n{}",
  `${"[".repeat(5_000)}${"]".repeat(5_000)}`,
  `{"metadata":${'{"a":'.repeat(2_000)}1${"}".repeat(2_000)}}`,
  `{"order_id":"${"a".repeat(50_000)}"}`,
]
  .map((text) => Buffer.from(text))
  .concat([Buffer.from([0xff, 0xfe, 0x7b, 0x7d]), Buffer.from([0x7b, 0xc0, 0xaf, 0x7d]), Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])]);

/** Something packed, cut short or with a byte that is another; or what never was packed. */
const packed = fc
  .record({
    coding: fc.constantFrom("gzip", "br"),
    from: fc.constantFrom(validMessage, Buffer.from("{}"), Buffer.from('{"order_id":"o"}'), Buffer.alloc(50_000)),
    cut: fc.double({ min: 0, max: 1, noNaN: true }),
    other: fc.option(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 }))),
    unpacked: fc.boolean(),
  })
  .map(({ coding, from, cut, other, unpacked }) => {
    const whole = Uint8Array.from(unpacked ? from : coding === "gzip" ? gzipSync(from) : brotliCompressSync(from));
    if (other) whole[other[0] % whole.length] = other[1];
    return { coding, body: Buffer.from(whole.subarray(0, Math.ceil(cut * whole.length))) };
  });

/** A message of a stream: what says how it is packed, its length and itself. */
export function enveloped(body: Uint8Array, flags = 0): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(flags, 0);
  head.writeUInt32BE(body.byteLength, 1);
  return Buffer.concat([head, body]);
}

/** Calls of Connect and gRPC-Web whose bodies do not unpack, and some that do. `headers` are to be sent along. */
export function packedCall(methods: readonly DescMethod[]) {
  return fc
    .record({
      path: fc.constantFrom(...methods).map(({ parent, name }) => `/${parent.typeName}/${name}`),
      type: fc.constantFrom(...CONNECT_TYPES),
      packed,
    })
    .map(({ path, type, packed: { coding, body } }) => {
      const header = type.startsWith("application/grpc") ? "grpc-encoding" : type.includes("connect") ? "connect-content-encoding" : "";
      return {
        method: "POST",
        path,
        type,
        body: header === "" ? body : enveloped(body, 1),
        headers: { [header || "content-encoding"]: coding },
      };
    });
}

const CONNECT_TYPES = [
  "application/json",
  "application/proto",
  "application/connect+json",
  "application/connect+proto",
  "application/grpc-web+proto",
] as const;

/** Calls of Connect and gRPC-Web: any method, in any of their encodings, with something for a body. */
export function connectCall(methods: readonly DescMethod[]) {
  const valid = new Map(methods.map((method) => [method, Buffer.from(toBinary(method.input, create(method.input)))]));
  return fc.record({
    method: fc.constantFrom("POST", "POST", "POST", "GET", "PUT"),
    path: fc.constantFrom(...methods).map(({ parent, name }) => `/${parent.typeName}/${name}`),
    body: fc.oneof(
      mangledBody.map(({ body }) => Buffer.from(body)),
      messageBytes.map((bytes) => Buffer.from(bytes)),
      fc.constantFrom(...CORPUS, ...valid.values()),
    ),
    type: fc.constantFrom(...CONNECT_TYPES, "text/plain"),
  });
}
