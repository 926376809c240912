import { once } from "node:events";
import { rename, symlink, writeFile } from "node:fs/promises";
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { request as httpsRequest } from "node:https";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type ConnectionOptions, connect as connectTls, type PeerCertificate, type TLSSocket } from "node:tls";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { Client, credentials, status } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import type { ServerTlsFiles } from "../../src/tls-files.ts";
import { type Authority, createAuthority, type Issued, writeIssued } from "../support/certificates.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { callUnary, failureOf, grpcClient, OPERATOR } from "./grpc-calls.ts";
import { type DoorsOptions, type OpenDoors, openDoors } from "./open-doors.ts";

const { getTracking } = OrderTrackingService.method;
const headers = { authorization: OPERATOR };

let serverCa: Authority;
let clientCa: Authority;
beforeAll(async () => {
  serverCa = await createAuthority("CA of servers");
  clientCa = await createAuthority("CA of clients");
});

type ClientFiles = { readonly ca: string; readonly cert?: string; readonly key?: string };

/** The doors with a certificate named "first", whose files are in a folder of their own. */
async function openTlsDoors({ clientCert, ...options }: DoorsOptions & { clientCert?: ServerTlsFiles["clientCert"] } = {}) {
  await using parts = new AsyncDisposableStack();
  const folder = parts.use(await temporaryFolder());
  const files = await writeIssued(folder.path, "server", await serverCa.issue({ name: "first" }));
  const clientCaFile = clientCert && join(folder.path, "client-ca.crt");
  if (clientCaFile) await writeFile(clientCaFile, clientCa.cert);
  const tls = { ...files, clientCaFile, clientCert: clientCert ?? "required" };
  const doors = parts.use(await openDoors({ ...options, tls }));
  const running = parts.move();
  return { doors, folder: folder.path, ...files, clientCaFile, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

type TlsDoors = Awaited<ReturnType<typeof openTlsDoors>>;

const addressesOf = ({ grpc, http }: OpenDoors) => ({ gRPC: grpc.address, HTTP: new URL(http.url).host });

/** Connects as far as TLS goes. */
async function handshake(address: string, options: ConnectionOptions = {}): Promise<TLSSocket & Disposable> {
  const [host, port] = address.split(":");
  const socket = connectTls({ host: host ?? "", port: Number(port), ca: serverCa.cert, ALPNProtocols: ["h2"], ...options });
  // With TLS 1.3, what the server says of a client's certificate comes after the client thinks that all is well.
  const spoken = new Promise<void>((resolve, reject) =>
    socket
      .once("data", () => resolve())
      .once("error", reject)
      .once("close", () => reject(new Error("closed"))),
  );
  await Promise.all([once(socket, "secureConnect"), spoken]);
  return Object.assign(socket, { [Symbol.dispose]: () => void socket.destroy() });
}

async function servedName(address: string): Promise<string> {
  using socket = await handshake(address);
  return [(socket.getPeerCertificate() as PeerCertificate).subject.CN].flat()[0] ?? "";
}

function tlsGrpcClient(address: string, { ca, cert, key }: ClientFiles): Client & Disposable {
  const buffer = (pem: string | undefined) => (pem === undefined ? null : Buffer.from(pem));
  const client = new Client(address, credentials.createSsl(buffer(ca), buffer(key), buffer(cert)), {
    "grpc.use_local_subchannel_pool": 1,
    // An address is no name that TLS could ask for.
    "grpc.ssl_target_name_override": "localhost",
  });
  return Object.assign(client, { [Symbol.dispose]: () => client.close() });
}

/** A request over HTTP/1.1 and TLS. */
async function get(url: string, files: ClientFiles, more: Record<string, string> = {}) {
  const outgoing = httpsRequest(url, { ...files, headers: more, agent: false });
  outgoing.end();
  const [response] = await once(outgoing, "response");
  return { status: response.statusCode as number, headers: response.headers as Record<string, string>, text: await text(response) };
}

describe("both ports with a certificate", () => {
  let open: TlsDoors;
  let ca: { ca: string };
  beforeAll(async () => {
    open = await openTlsDoors();
    ca = { ca: serverCa.cert };
  });
  afterAll(() => open[Symbol.asyncDispose]());

  it("speak gRPC by TLS", async () => {
    using client = tlsGrpcClient(open.doors.grpc.address, ca);
    expect((await callUnary(client, getTracking, { orderId: "order-1" })).order?.orderId).toBe("order-1");
  });

  it("speak REST by HTTPS, at an address that says so", async () => {
    expect(open.doors.http.url).toMatch(/^https:/);
    const answer = await get(`${open.doors.http.url}/orders/tracking/order-1`, ca, headers);
    expect(answer.status).toBe(200);
    expect(JSON.parse(answer.text)).toMatchObject({ order_id: "order-1" });
  });

  it.each(["1.1", "2"] as const)("speak Connect over HTTP/%s", async (httpVersion) => {
    const transport = createConnectTransport({ baseUrl: open.doors.http.url, httpVersion, nodeOptions: ca });
    const { order } = await createClient(OrderTrackingService, transport).getTracking({ orderId: "order-1" }, { headers });
    expect(order?.orderId).toBe("order-1");
  });

  it("speak gRPC on the HTTP port, streams too, with clients that can do HTTP/2", async () => {
    const transport = createGrpcTransport({ baseUrl: open.doors.http.url, nodeOptions: ca });
    const positions = [];
    for await (const { position } of createClient(OperationsService, transport).rebuildProjection({ name: "any" }, { headers }))
      positions.push(position);
    expect(positions).toEqual([1n, 2n, 3n]);
  });

  it("speak REST over HTTP/2: answers, refusals, bodies over the limit", async () => {
    using session = openSession(open.doors.http.url);
    expect(await session.ask({ ":path": "/orders/tracking/order-1", ...headers })).toMatchObject({ status: 200 });
    expect(await session.ask({ ":path": "/nowhere" })).toMatchObject({ status: 404, body: { code: "ROUTE_NOT_FOUND" } });
    const init = { ":method": "POST", ":path": "/orders/tracking/init", "content-type": "application/json", ...headers };
    expect(await session.ask(init, JSON.stringify({ order_id: "o", note: "x".repeat(100_000) }))).toMatchObject({ status: 413 });
    const expecting = await session.ask({ ":path": "/healthz", expect: "tea" });
    expect(expecting).toMatchObject({ status: 417, body: { code: "MALFORMED_REQUEST" } });
    expect(await session.ask({ ":path": "/healthz" })).toMatchObject({ status: 200 });
  });

  it("tell browsers to come back by TLS", async () => {
    expect((await get(`${open.doors.http.url}/healthz`, ca)).headers["strict-transport-security"]).toBe("max-age=31536000");
  });

  it.each(["gRPC", "HTTP"] as const)("take TLS 1.2 and 1.3, and nothing older, on the %s port", async (door) => {
    const address = addressesOf(open.doors)[door];
    for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
      using socket = await handshake(address, { minVersion: version, maxVersion: version });
      expect(socket.getProtocol()).toBe(version);
    }
    await expect(handshake(address, { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" })).rejects.toThrow();
  });

  it("answer nobody in the clear", async () => {
    await expect(fetch(open.doors.http.url.replace("https", "http"))).rejects.toThrow();
    using client = grpcClient(open.doors.grpc.address);
    expect((await failureOf(callUnary(client, getTracking, { orderId: "order-1" }))).code).toBe(status.UNAVAILABLE);
  });

  it("stop with clients of every kind connected", async () => {
    await using others = await openTlsDoors({ drainTimeoutMs: 10_000 });
    using session = openSession(others.doors.http.url);
    await session.ask({ ":path": "/healthz" });
    using client = tlsGrpcClient(others.doors.grpc.address, ca);
    await callUnary(client, getTracking, { orderId: "order-1" });
    const startedAt = performance.now();
    await Promise.all([others.doors.grpc.stop(), others.doors.http.stop()]);
    expect(performance.now() - startedAt).toBeLessThan(5_000);
  });
});

describe("client certificates", () => {
  it.each(["gRPC", "HTTP"] as const)("are required on the %s port: none and a stranger's do not get in", async (door) => {
    await using open = await openTlsDoors({ clientCert: "required" });
    const address = addressesOf(open.doors)[door];
    await expect(handshake(address)).rejects.toThrow();
    await expect(handshake(address, await serverCa.issue({ name: "stranger" }))).rejects.toThrow();
    await expect(handshake(address, await clientCa.issue({ name: "late", notAfter: new Date(Date.now() - 1000) }))).rejects.toThrow();
    using known = await handshake(address, await clientCa.issue({ name: "known" }));
    expect(known.authorized).toBe(true);
  });

  it("open the port, and nothing behind it: every call needs its token", async () => {
    await using open = await openTlsDoors({ clientCert: "required" });
    const files = { ca: serverCa.cert, ...(await clientCa.issue({ name: "checkout" })) };
    using client = tlsGrpcClient(open.doors.grpc.address, files);
    expect((await failureOf(callUnary(client, getTracking, { orderId: "order-1" }, { authorization: "" }))).code).toBe(
      status.UNAUTHENTICATED,
    );
    expect((await callUnary(client, getTracking, { orderId: "order-1" })).order?.orderId).toBe("order-1");
    expect((await get(`${open.doors.http.url}/orders/tracking/order-1`, files)).status).toBe(401);
    expect((await get(`${open.doors.http.url}/orders/tracking/order-1`, files, headers)).status).toBe(200);
    const peers = open.doors.logged.filter(({ msg }) => msg.startsWith("call")).map(({ peer }) => peer);
    // Of each call that is denied, there is a line that says so besides. A certificate may be a person's, until a token says otherwise.
    const [nobody, service] = ["127.0.0.0/24", "127.0.0.1 (checkout)"];
    expect(peers).toEqual([nobody, nobody, service, nobody, nobody, service]);
  });

  it("may be left out where they are optional; a stranger's counts as none", async () => {
    await using open = await openTlsDoors({ clientCert: "optional" });
    const stranger = await serverCa.issue({ name: "stranger" });
    for (const files of [{}, stranger]) {
      using client = tlsGrpcClient(open.doors.grpc.address, { ca: serverCa.cert, ...files });
      await callUnary(client, getTracking, { orderId: "order-1" });
      expect((await get(`${open.doors.http.url}/orders/tracking/order-1`, { ca: serverCa.cert, ...files }, headers)).status).toBe(200);
    }
    expect(open.doors.logged.filter(({ peer }) => String(peer).includes("stranger"))).toEqual([]);
  });
});

describe("a new certificate in the files", () => {
  it.each(["gRPC", "HTTP"] as const)("is served to new connections on the %s port, and open ones live on", async (door) => {
    await using open = await openTlsDoors();
    const address = addressesOf(open.doors)[door];
    using session = openSession(`https://${address}`);
    const request = door === "HTTP" ? { ":path": "/orders/tracking/order-1", ...headers } : HEALTH_CHECK;
    expect((await session.ask(request)).status).toBe(200);
    expect(session.name()).toBe("first");
    await writeIssued(open.folder, "server", await serverCa.issue({ name: "second" }));
    await eventually(async () => expect(await servedName(address)).toBe("second"));
    expect((await session.ask(request)).status).toBe(200);
    expect(open.doors.logged).toContainEqual(expect.objectContaining({ level: 30, door, msg: "a new certificate is in use" }));
  });

  it("is found behind a link that is turned to another folder, as container platforms do", async () => {
    await using folder = await temporaryFolder();
    const path = (name: string) => join(folder.path, name);
    const [one, two] = await Promise.all(["one", "two"].map((name) => serverCa.issue({ name })));
    await writeIssued(folder.path, "a", one as Issued);
    await writeIssued(folder.path, "b", two as Issued);
    for (const kind of ["crt", "key"]) await symlink(path(`a.${kind}`), path(`tls.${kind}`));
    const tls = { certFile: path("tls.crt"), keyFile: path("tls.key"), clientCaFile: undefined, clientCert: "required" } as const;
    await using doors = await openDoors({ tls });
    expect(await servedName(doors.grpc.address)).toBe("one");
    for (const kind of ["crt", "key"]) {
      await symlink(path(`b.${kind}`), path("next"));
      await rename(path("next"), path(`tls.${kind}`));
    }
    await eventually(async () => expect(await servedName(doors.grpc.address)).toBe("two"));
  });

  it.each<[string, (files: TlsDoors) => Promise<unknown>, RegExp]>([
    ["is no certificate", ({ certFile }) => writeFile(certFile, "hello"), /server\.crt does not hold certificates/],
    [
      "breaks off",
      async ({ certFile }) => writeFile(certFile, (await serverCa.issue({ name: "short" })).cert.slice(0, 300)),
      /server\.crt does not hold certificates/,
    ],
    [
      "is without its key",
      async ({ certFile }) => writeFile(certFile, (await serverCa.issue({ name: "other" })).cert),
      /server\.key is not that of/,
    ],
    ["has a key that is none", ({ keyFile }) => writeFile(keyFile, "secret words"), /server\.key does not hold a private key/],
    [
      "has expired",
      async ({ folder }) => writeIssued(folder, "server", await serverCa.issue({ name: "old", notAfter: new Date(Date.now() - 1000) })),
      /expired at/,
    ],
    ["is gone", ({ certFile, folder }) => rename(certFile, join(folder, "away")), /server\.crt cannot be read \(ENOENT\)/],
  ])("that %s is refused with a line in the log, and the old one stays", async (_what, spoil, problem) => {
    await using open = await openTlsDoors();
    await spoil(open);
    const refusals = () => open.doors.logged.filter(({ msg, problem: told }) => msg.includes("refused") && problem.test(String(told)));
    await eventually(() => expect(refusals().map(({ door }) => door)).toEqual(expect.arrayContaining(["gRPC", "HTTP"])));
    for (const { level } of refusals()) expect(level).toBe(50);
    expect(JSON.stringify(open.doors.logged)).not.toContain("secret words");
    for (const address of Object.values(addressesOf(open.doors))) expect(await servedName(address)).toBe("first");
    await writeIssued(open.folder, "server", await serverCa.issue({ name: "mended" }));
    for (const address of Object.values(addressesOf(open.doors)))
      await eventually(async () => expect(await servedName(address)).toBe("mended"));
    expect(refusals()).toHaveLength(2);
  });

  it("may bring other CAs for client certificates", async () => {
    await using open = await openTlsDoors({ clientCert: "required" });
    const other = await createAuthority();
    const [former, latter] = [await clientCa.issue({ name: "former" }), await other.issue({ name: "latter" })];
    await writeFile(open.clientCaFile ?? "", other.cert);
    for (const address of Object.values(addressesOf(open.doors))) {
      await eventually(async () => void (await handshake(address, latter)).destroy());
      await expect(handshake(address, former)).rejects.toThrow();
    }
  });
});

describe("a certificate that cannot be used at the start", () => {
  it("keeps the server from starting, with what is wrong and where", async () => {
    await using folder = await temporaryFolder();
    const good = await writeIssued(folder.path, "good", await serverCa.issue({ name: "good" }));
    const other = await writeIssued(folder.path, "other", await serverCa.issue({ name: "other" }));
    const none = { clientCaFile: undefined, clientCert: "required" } as const;
    await expect(openDoors({ tls: { ...none, certFile: good.certFile, keyFile: other.keyFile } })).rejects.toThrow(
      "other.key is not that of the certificate in",
    );
    await expect(openDoors({ tls: { ...none, certFile: good.keyFile, keyFile: good.keyFile } })).rejects.toThrow(
      "good.key does not hold certificates in PEM",
    );
    await expect(openDoors({ tls: { ...good, clientCaFile: good.keyFile, clientCert: "required" } })).rejects.toThrow(
      "good.key does not hold certificates in PEM",
    );
  });

  it("is told in the log a fortnight before it expires", async () => {
    await using open = await openTlsDoors({ certificateClock: () => new Date(Date.now() + 80 * 24 * 3600 * 1000) });
    const soon = () => open.doors.logged.filter(({ msg }) => msg === "the certificate in use expires soon");
    await eventually(() =>
      expect(
        soon()
          .map(({ level, door }) => [level, door])
          .sort(),
      ).toEqual([
        [40, "HTTP"],
        [40, "gRPC"],
      ]),
    );
  });
});

const HEALTH_CHECK = {
  ":method": "POST",
  ":path": "/grpc.health.v1.Health/Check",
  "content-type": "application/grpc",
  te: "trailers",
};

/** One HTTP/2 connection, on which any number of requests go. */
function openSession(url: string) {
  const session: ClientHttp2Session = connectHttp2(url, { ca: serverCa.cert });
  session.on("error", () => undefined);
  return {
    /** To whom the server's certificate is made out. */
    name: () => [(session.socket as TLSSocket).getPeerCertificate().subject?.CN].flat()[0] ?? "",
    async ask(request: Record<string, string>, body?: string) {
      const stream = session.request(request);
      stream.end(request[":path"] === HEALTH_CHECK[":path"] ? Buffer.alloc(5) : body);
      const [response] = await once(stream, "response");
      const answer = await text(stream);
      return { status: response[":status"] as number, body: answer.startsWith("{") ? JSON.parse(answer) : answer };
    },
    [Symbol.dispose]: () => void session.destroy(),
  };
}
