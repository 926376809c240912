import { createHmac, createPublicKey, type JsonWebKey, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Code, ConnectError, createClient, type Client as RpcClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { decodeJwt, decodeProtectedHeader } from "jose";
import { describe, expect, it } from "vitest";
import { createClients } from "../../src/access/clients.ts";
import { createDevelopmentKeys } from "../../src/access/keys.ts";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AuthService } from "../../src/gen/ordertrail/v1/auth_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { makeIssuerKey } from "../access/issuer.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";

const OPERATOR = { role: Role.OPERATOR, subject: "operator-1" };
const CHECKOUT = { role: Role.SERVICE, subject: "checkout" };

/** A client of the application, and a way to AuthService without any token. */
async function withClient(
  app: TestApp,
  role = "service",
  subject = "picker",
): Promise<{ clientId: string; clientSecret: string; auth: Auth }> {
  const clientId = `client-${randomUUID()}`;
  const clients = createClients(app.database.db(app.databaseName), () => new Date());
  const clientSecret = await clients.create({ clientId, role, subject, storeId: undefined });
  return { clientId, clientSecret, auth: createClient(AuthService, createGrpcTransport({ baseUrl: `http://${app.grpc}` })) };
}

type Auth = RpcClient<typeof AuthService>;

/** A POST without a token. */
async function post(app: TestApp, path: string, body: object): Promise<Response> {
  return await fetch(`${app.http}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

/** What an order's REST path answers to a token. */
async function statusWith(app: TestApp, token: string, path = "/orders/tracking"): Promise<number> {
  return (await fetch(`${app.http}${path}`, { headers: { authorization: `Bearer ${token}` } })).status;
}

const unauthenticated = expect.objectContaining({ code: Code.Unauthenticated });

describe("a client", () => {
  it("gets a token for its secret that every door takes, and that names the client", async () => {
    await using app = await startTestApp();
    const { clientId, clientSecret, auth } = await withClient(app, "partner", "uber");
    const { accessToken, tokenType, expiresIn } = await auth.issueToken({ clientId, clientSecret });
    expect([tokenType, expiresIn]).toEqual(["Bearer", 900]);
    const claims = decodeJwt(accessToken);
    expect(claims).toMatchObject({ iss: "ordertrail", aud: "ordertrail", sub: "uber", role: "partner", client_id: clientId });
    expect((claims.exp ?? 0) - (claims.iat ?? 0)).toBe(900);
    expect(await statusWith(app, accessToken)).toBe(200);
    const response = await fetch(`${app.http}/.well-known/jwks.json`);
    expect(response.headers.get("cache-control")).toBe("public, max-age=300");
    const { keys } = (await response.json()) as { keys: { kid: string; d?: string }[] };
    expect(keys.map(({ kid }) => kid)).toContain(decodeProtectedHeader(accessToken).kid);
    expect(keys.every(({ d }) => d === undefined)).toBe(true);
  });

  it("gets it over REST in the fields of OAuth", async () => {
    await using app = await startTestApp();
    const { clientId, clientSecret } = await withClient(app);
    const response = await post(app, "/auth/token", { client_id: clientId, client_secret: clientSecret });
    expect([response.status, await response.json()]).toMatchObject([200, { token_type: "Bearer", expires_in: 900 }]);
    expect(response.headers.get("cache-control")).toBe("no-store");
  });

  it("is refused alike with a wrong secret, an unknown name, and when it is disabled", async () => {
    await using app = await startTestApp();
    const { clientId, clientSecret, auth } = await withClient(app);
    const refusals = [];
    for (const attempt of [
      { clientId, clientSecret: "wrong" },
      { clientId: "nobody", clientSecret },
    ]) {
      refusals.push(await auth.issueToken(attempt).catch((error: unknown) => ConnectError.from(error)));
    }
    await createClients(app.database.db(app.databaseName), () => new Date()).disable(clientId);
    refusals.push(await auth.issueToken({ clientId, clientSecret }).catch((error: unknown) => ConnectError.from(error)));
    expect(new Set(refusals.map(String)).size).toBe(1);
    expect(refusals[0]).toEqual(unauthenticated);
  });

  it("is locked out of an address after ten wrong secrets, and told for how long, while others go on", async () => {
    await using app = await startTestApp();
    const { clientId, clientSecret } = await withClient(app);
    const other = await withClient(app);
    for (let attempt = 0; attempt < 10; attempt++)
      expect((await post(app, "/auth/token", { client_id: clientId, client_secret: "wrong" })).status).toBe(401);
    const locked = await post(app, "/auth/token", { client_id: clientId, client_secret: clientSecret });
    expect([locked.status, await locked.json()]).toMatchObject([429, { code: "RATE_LIMITED" }]);
    expect(Number(locked.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect((await post(app, "/auth/token", { client_id: other.clientId, client_secret: other.clientSecret })).status).toBe(200);
  });

  it("never has its secret or its tokens in the database or in the log", async () => {
    await using app = await startTestApp();
    const { clientId, clientSecret, auth } = await withClient(app);
    const issued = await auth.issueToken({ clientId, clientSecret });
    const refreshed = await auth.refreshToken({ refreshToken: issued.refreshToken, requestId: "refresh-1" });
    await auth.revokeToken({ token: refreshed.refreshToken });
    const db = app.database.db(app.databaseName);
    const stored = await Promise.all(
      (await db.listCollections().toArray()).map(({ name }) =>
        db
          .collection(name)
          .find()
          .map((document) => JSON.stringify(document))
          .toArray(),
      ),
    );
    const everything = [...stored.flat(), ...app.log].join("\n");
    expect(everything).toContain(clientId);
    for (const secret of [clientSecret, issued.accessToken, issued.refreshToken, refreshed.accessToken, refreshed.refreshToken]) {
      expect(everything).not.toContain(secret);
      expect(everything).not.toContain(secret.slice(4, 30));
    }
  });
});

describe("a refresh token", () => {
  it("is good once, for new tokens of the same client, within the session's time", async () => {
    await using app = await startTestApp();
    const { clientId, clientSecret, auth } = await withClient(app);
    const first = await auth.issueToken({ clientId, clientSecret });
    const second = await auth.refreshToken({ refreshToken: first.refreshToken });
    const third = await auth.refreshToken({ refreshToken: second.refreshToken });
    expect(await statusWith(app, third.accessToken)).toBe(200);
    expect(third.refreshExpiresAt).toEqual(first.refreshExpiresAt);
    expect(decodeJwt(third.accessToken).sub).toBe("picker");
  });

  it("that comes again ends everything that came of it", async () => {
    await using app = await startTestApp();
    const { clientId, clientSecret, auth } = await withClient(app);
    const first = await auth.issueToken({ clientId, clientSecret });
    const second = await auth.refreshToken({ refreshToken: first.refreshToken, requestId: "one" });
    await expect(auth.refreshToken({ refreshToken: first.refreshToken, requestId: "two" })).rejects.toEqual(unauthenticated);
    await expect(auth.refreshToken({ refreshToken: second.refreshToken })).rejects.toEqual(unauthenticated);
    for (const { accessToken } of [first, second]) expect(await statusWith(app, accessToken)).toBe(401);
    expect((await auth.issueToken({ clientId, clientSecret })).accessToken).not.toBe("");
  });

  it("of a disabled client is refused", async () => {
    await using app = await startTestApp();
    const { clientId, clientSecret, auth } = await withClient(app);
    const { refreshToken } = await auth.issueToken({ clientId, clientSecret });
    await createClients(app.database.db(app.databaseName), () => new Date()).disable(clientId);
    await expect(auth.refreshToken({ refreshToken })).rejects.toEqual(unauthenticated);
  });
});

describe("a token that is not good", () => {
  it("is UNAUTHENTICATED at every door, whatever is wrong with it", async () => {
    await using app = await startTestApp();
    const keys = await createDevelopmentKeys(app.dataDir);
    const claims = { iss: "ordertrail", aud: "ordertrail", sub: "operator-1", role: "operator" };
    const sign = (more: object, expiresInSeconds = 600) => keys.sign({ ...claims, ...more }, { expiresInSeconds });
    const good = await sign({});
    const [header = "", payload = "", signature = ""] = good.split(".");
    const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const { keys: published } = (await (await fetch(`${app.http}/.well-known/jwks.json`)).json()) as { keys: JsonWebKey[] };
    const signedAsSecret = published.map((key) => {
      const secret = createPublicKey({ key, format: "jwk" }).export({ type: "spki", format: "pem" });
      const unsigned = `${encode({ alg: "HS256", kid: (key as { kid?: string }).kid })}.${payload}`;
      return `${unsigned}.${createHmac("sha256", secret).update(unsigned).digest("base64url")}`;
    });
    const revoked = await sign({});
    const operator = app.client(AuthService, "grpc", good);
    await operator.revokeAccess({ target: { case: "tokenId", value: decodeJwt(revoked).jti ?? "" } });
    const stranger = await makeIssuerKey();
    const bad = [
      await sign({}, -600),
      await sign({ nbf: Math.floor(Date.now() / 1000) + 600 }),
      await sign({ aud: "payments" }),
      await sign({ iss: "https://elsewhere.test/" }),
      await sign({ role: "system" }),
      await sign({ role: "link" }),
      `${encode({ alg: "none" })}.${payload}.`,
      `${header}.${encode({ ...decodeJwt(good), sub: "operator-2" })}.${signature}`,
      `${header}.${payload}.${signature.startsWith("A") ? "B" : "A"}${signature.slice(1)}`,
      ...signedAsSecret,
      await stranger.sign({ ...claims, exp: Math.floor(Date.now() / 1000) + 600 }),
      revoked,
    ];
    expect(await statusWith(app, good)).toBe(200);
    for (const [index, token] of bad.entries()) {
      expect(await statusWith(app, token), `token ${index}`).toBe(401);
      for (const door of ["grpc", "connect", "grpc-web"] as const) {
        await expect(app.client(OrderTrackingService, door, token).listTrackings({}), `token ${index}`).rejects.toEqual(unauthenticated);
      }
    }
  });
});

describe("revoking", () => {
  it("ends an access token that is remembered as verified, in another process, too", async () => {
    await using app = await startTestApp();
    await using other = await startTestApp({ DATABASE_NAME: app.databaseName, DATA_DIR: app.dataDir });
    const { clientId, clientSecret, auth } = await withClient(app);
    const { accessToken } = await auth.issueToken({ clientId, clientSecret });
    for (const process of [app, other]) expect(await statusWith(process, accessToken)).toBe(200);
    await auth.revokeToken({ token: accessToken });
    const revokedAt = Date.now();
    expect(await statusWith(app, accessToken)).toBe(401);
    await eventually(async () => expect(await statusWith(other, accessToken)).toBe(401), 10_000);
    expect(Date.now() - revokedAt).toBeLessThan(5000);
  });

  it("a refresh token ends its session", async () => {
    await using app = await startTestApp();
    const { clientId, clientSecret, auth } = await withClient(app);
    const { accessToken, refreshToken } = await auth.issueToken({ clientId, clientSecret });
    await auth.revokeToken({ token: refreshToken });
    expect(await statusWith(app, accessToken)).toBe(401);
    await expect(auth.refreshToken({ refreshToken })).rejects.toEqual(unauthenticated);
  });

  it("what is no token is answered as if it were one", async () => {
    await using app = await startTestApp();
    const { auth } = await withClient(app);
    for (const token of ["nonsense", "otr_nonsense", `otr_${Buffer.alloc(68).toString("base64url")}`, "a.b.c"]) {
      await expect(auth.revokeToken({ token })).resolves.toBeDefined();
    }
  });

  it("by identifier is for operators: a token, a session, all of a client's", async () => {
    await using app = await startTestApp();
    const { clientId, clientSecret, auth } = await withClient(app);
    const operator = app.client(AuthService, "grpc", OPERATOR);
    const issue = async () => (await auth.issueToken({ clientId, clientSecret })).accessToken;
    const [one, two, three] = [await issue(), await issue(), await issue()];
    const { jti = "" } = decodeJwt(one);
    await operator.revokeAccess({ target: { case: "tokenId", value: jti } });
    expect(await Promise.all([one, two, three].map((token) => statusWith(app, token)))).toEqual([401, 200, 200]);
    await operator.revokeAccess({ target: { case: "sessionId", value: String(decodeJwt(two)["sid"]) } });
    expect(await Promise.all([one, two, three].map((token) => statusWith(app, token)))).toEqual([401, 401, 200]);
    await operator.revokeAccess({ target: { case: "clientId", value: clientId } });
    expect(await statusWith(app, three)).toBe(401);
    expect(await statusWith(app, await issue())).toBe(200);
    await expect(operator.revokeAccess({})).rejects.toMatchObject({ code: Code.InvalidArgument });
  });
});

describe("another issuer", () => {
  it("lets its customers in by any door, also in a process that starts while it is away", async () => {
    const key = await makeIssuerKey();
    const issuer = createServer((_, response) => response.end(JSON.stringify({ keys: [key.publicJwk] })));
    await new Promise<void>((resolve) => issuer.listen(0, "127.0.0.1", resolve));
    const { port } = issuer.address() as AddressInfo;
    const settings = {
      issuer: "https://login.test/",
      jwks_url: `http://127.0.0.1:${port}/keys`,
      audience: "shop",
      roles: { buyer: "customer" },
    };
    const environment = { TOKEN_ISSUERS: JSON.stringify([settings]) };
    const exp = Math.floor(Date.now() / 1000) + 600;
    const token = await key.sign({ iss: settings.issuer, aud: "shop", sub: "customer-1", role: "buyer", exp });
    await using app = await startTestApp(environment);
    expect(await statusWith(app, token)).toBe(200);
    await expect(app.client(OrderTrackingService, "grpc", token).listTrackings({})).resolves.toBeDefined();
    const saved = app.database.db(app.databaseName).collection("auth_issuer_keys");
    await eventually(async () => expect(await saved.countDocuments()).toBe(1));
    issuer.closeAllConnections();
    await new Promise((resolve) => issuer.close(resolve));
    await using later = await startTestApp({ ...environment, DATABASE_NAME: app.databaseName });
    expect(await statusWith(later, token)).toBe(200);
    const operator = await key.sign({ iss: settings.issuer, aud: "shop", sub: "operator-1", role: "operator", exp });
    expect(await statusWith(later, operator)).toBe(401);
    // Its identifiers are its own: what has the same one here is another token.
    const named = await key.sign({ iss: settings.issuer, aud: "shop", sub: "customer-1", role: "buyer", exp, jti: "one" });
    const staff = later.client(AuthService, "grpc", OPERATOR);
    await staff.revokeAccess({ target: { case: "tokenId", value: "one" } });
    expect(await statusWith(later, named)).toBe(200);
    await staff.revokeAccess({ target: { case: "tokenId", value: "one" }, issuer: settings.issuer });
    expect(await statusWith(later, named)).toBe(401);
    // It has no jti.
    await createClient(AuthService, createGrpcTransport({ baseUrl: `http://${later.grpc}` })).revokeToken({ token });
    expect(await statusWith(later, token)).toBe(401);
    await eventually(async () => expect(await statusWith(app, token)).toBe(401), 10_000);
  });
});

describe("a tracking link", () => {
  const recipient = { name: "Ada Example", phone: "+4930123456", address: { lines: ["Lindenstraße 1"], city: "Berlin", country: "DE" } };
  const items = [{ itemId: "apples", name: "Secret Apples", quantity: 1, unitPrice: { amountMinor: 349n, currency: "EUR" } }];

  /** An order on its way, and another. */
  async function makeOrders(app: TestApp): Promise<void> {
    const tracking = app.client(OrderTrackingService, "grpc", CHECKOUT);
    for (const orderId of ["order-1", "order-2"]) {
      await tracking.initTracking({
        orderId,
        storeId: "store-1",
        customerId: "customer-1",
        recipient,
        items,
        metadata: { channel: "secret-app" },
      });
      await tracking.assignDriver({
        orderId,
        driverDetails: {
          driverId: "driver-7",
          name: "Kim Secondname",
          phone: "+4930999999",
          vehicleType: "bicycle",
          licensePlate: "B-XY 1",
        },
      });
      for (const status of [2, 3, 4, 6, 8, 9]) await tracking.updateStatus({ orderId, status, note: "ring at the secret door" });
      await tracking.updateLocation({ orderId, latitude: 52.5, longitude: 13.4 });
    }
  }

  it("shows its one order, without a login, and nothing personal but the driver's first name and place", async () => {
    await using app = await startTestApp({ TRACKING_LINK_PAGE: "https://shop.example/track" });
    await makeOrders(app);
    const made = await app.rest({ role: Role.CUSTOMER, subject: "customer-1" }, "POST", "/orders/tracking/order-1/links", {});
    expect(made.status).toBe(200);
    const { token, url, link_id: linkId } = made.body;
    expect(url).toBe(`https://shop.example/track#token=${token}`);
    const answers: string[] = [];
    for (const path of ["/orders/tracking/order-1", "/orders/tracking/order-1/history"]) {
      const response = await fetch(`${app.http}${path}`, { headers: { authorization: `Bearer ${token}` } });
      expect(response.status).toBe(200);
      answers.push(await response.text());
    }
    const order = JSON.parse(answers[0] ?? "");
    expect(order).toMatchObject({
      order_id: "order-1",
      current_status: "IN_TRANSIT",
      driver_details: { name: "Kim", vehicle_type: "bicycle" },
      driver_location: { latitude: 52.5, longitude: 13.4 },
    });
    expect(order.status_history.length).toBeGreaterThan(5);
    const hidden = [
      "Ada",
      "+49",
      "Lindenstraße",
      "Secondname",
      "B-XY",
      "driver-7",
      "customer-1",
      "store-1",
      "checkout",
      "secret",
      "Secret",
      "349",
    ];
    for (const text of hidden) expect(answers.join()).not.toContain(text);
    for (const path of ["/orders/tracking/order-2", "/orders/tracking/none"]) expect(await statusWith(app, token, path)).toBe(404);
    for (const path of ["/orders/tracking", "/notifications/preferences"]) expect(await statusWith(app, token, path)).not.toBe(200);
    const move = await fetch(`${app.http}/orders/tracking/order-1/status`, {
      method: "PUT",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: '{"status":"DELIVERED"}',
    });
    expect(move.status).toBe(403);
    expect(linkId).toBe(decodeJwt(token).jti);
  });

  it("is revoked by its order's parties, alone or with all others of the order", async () => {
    await using app = await startTestApp();
    await makeOrders(app);
    const customer = app.client(AuthService, "connect", { role: Role.CUSTOMER, subject: "customer-1" });
    const links = [await customer.createTrackingLink({ orderId: "order-1" }), await customer.createTrackingLink({ orderId: "order-1" })];
    const elsewhere = await customer.createTrackingLink({ orderId: "order-2" });
    const statuses = () => Promise.all(links.map(({ token }) => statusWith(app, token, "/orders/tracking/order-1")));
    expect(await statuses()).toEqual([200, 200]);
    await customer.revokeTrackingLink({ orderId: "order-1", linkId: links[0]?.linkId ?? "" });
    await customer.revokeTrackingLink({ orderId: "order-1", linkId: elsewhere.linkId });
    expect(await statuses()).toEqual([401, 200]);
    expect((await app.rest(CHECKOUT, "DELETE", "/orders/tracking/order-1/links")).status).toBe(200);
    expect(await statuses()).toEqual([401, 401]);
    expect(await statusWith(app, elsewhere.token, "/orders/tracking/order-2")).toBe(200);
    await customer.revokeTrackingLink({ orderId: "order-2", linkId: elsewhere.linkId });
    expect(await statusWith(app, elsewhere.token, "/orders/tracking/order-2")).toBe(401);
  });

  it("lives a day, or as long as was asked for, up to a week; its token is revoked like any other", async () => {
    await using app = await startTestApp();
    await makeOrders(app);
    const customer = app.client(AuthService, "grpc", { role: Role.CUSTOMER, subject: "customer-1" });
    const lifetime = ({ token }: { token: string }) => (decodeJwt(token).exp ?? 0) - (decodeJwt(token).iat ?? 0);
    const usual = await customer.createTrackingLink({ orderId: "order-1" });
    expect(lifetime(usual)).toBe(86_400);
    expect(lifetime(await customer.createTrackingLink({ orderId: "order-1", expiresIn: 604_800 }))).toBe(604_800);
    for (const expiresIn of [59, 604_801, -1])
      await expect(customer.createTrackingLink({ orderId: "order-1", expiresIn })).rejects.toMatchObject({ code: Code.InvalidArgument });
    await customer.revokeToken({ token: usual.token });
    expect(await statusWith(app, usual.token, "/orders/tracking/order-1")).toBe(401);
  });

  it("is to be had a hundred times at a time for an order, whether or not they are revoked", async () => {
    let now = Date.now();
    await using app = await startTestApp({}, () => new Date(now));
    await makeOrders(app);
    const checkout = app.client(AuthService, "grpc", CHECKOUT);
    for (let count = 0; count < 100; count++) await checkout.createTrackingLink({ orderId: "order-1", expiresIn: 300 });
    await checkout.revokeTrackingLink({ orderId: "order-1" });
    await expect(checkout.createTrackingLink({ orderId: "order-1" })).rejects.toMatchObject({ code: Code.ResourceExhausted });
    await expect(checkout.createTrackingLink({ orderId: "order-2" })).resolves.toBeDefined();
    now += 301_000;
    await expect(checkout.createTrackingLink({ orderId: "order-1" })).resolves.toBeDefined();
  });

  it("is not to be had by those whose order it is not, and its address takes no token", async () => {
    await using app = await startTestApp();
    await makeOrders(app);
    const stranger = app.client(AuthService, "grpc", { role: Role.CUSTOMER, subject: "customer-2" });
    await expect(stranger.createTrackingLink({ orderId: "order-1" })).rejects.toMatchObject({ code: Code.NotFound });
    await expect(stranger.revokeTrackingLink({ orderId: "order-1" })).rejects.toMatchObject({ code: Code.NotFound });
    const own = app.client(AuthService, "grpc", { role: Role.CUSTOMER, subject: "customer-1" });
    const { token } = await own.createTrackingLink({ orderId: "order-1" });
    expect((await fetch(`${app.http}/orders/tracking/order-1?token=${token}`)).status).toBe(401);
  });
});
