import { describe, expect, it } from "vitest";
import { startNatsServer } from "../../src/embedded/nats-server.ts";
import { createLogger } from "../../src/logger.ts";
import { type NatsSettings, startNatsClient } from "../../src/nats/nats-client.ts";
import { startTestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { startDecentralisedNats } from "./decentralised-nats.ts";
import { type SecuredNats, startSecuredNats, USER } from "./secured-nats.ts";

const NO_FILES = { caFile: undefined, certFile: undefined, keyFile: undefined };
const filesOf = ({ caFile, certFile, keyFile }: SecuredNats) => ({ caFile, certFile, keyFile });

/** A client, and what it logs; stopped at the end of the block. */
function aClient(url: string, tlsFiles: NatsSettings["tlsFiles"], credsFile?: string) {
  const lines: string[] = [];
  const client = startNatsClient({ url, tlsFiles, credsFile }, createLogger("debug", { write: (line) => lines.push(line) }));
  return { client, lines, [Symbol.asyncDispose]: () => client.stop() };
}

describe("a NATS that wants TLS, a certificate, and a password or token", () => {
  it.each(["password", "token"] as const)("is reached with all of them, by %s, and again after it was away", async (by) => {
    await using nats = await startSecuredNats(by);
    const secret = encodeURIComponent(nats.secret);
    const user = by === "password" ? `${USER}:${secret}` : secret;
    await using connected = aClient(`tls://${user}@${nats.host}`, filesOf(nats));
    await eventually(() => connected.client.check());
    await nats.kill();
    await nats.restart();
    await eventually(() => connected.client.check(), 15_000);
    for (const part of [nats.secret, secret]) expect(connected.lines.join("")).not.toContain(part);
  });

  it.each<[string, (nats: SecuredNats) => [string, NatsSettings["tlsFiles"]], RegExp]>([
    ["without TLS", (nats) => [`nats://${USER}:${encodeURIComponent(nats.secret)}@${nats.host}`, NO_FILES], /certificate|tls/i],
    ["without its CA", (nats) => [`tls://${USER}:${encodeURIComponent(nats.secret)}@${nats.host}`, NO_FILES], /certificate/i],
    [
      "without a certificate",
      (nats) => [`tls://${USER}:${encodeURIComponent(nats.secret)}@${nats.host}`, { ...NO_FILES, caFile: nats.caFile }],
      /certificate|alert|closed|disconnect|reset|timeout/i,
    ],
    ["with another password", (nats) => [`tls://${USER}:wr0ng@${nats.host}`, filesOf(nats)], /authorization/i],
    ["with none", (nats) => [`tls://${nats.host}`, filesOf(nats)], /authorization/i],
  ])("is not reached %s, and the log says why, without a secret", async (_what, settingsOf, why) => {
    await using nats = await startSecuredNats("password");
    await using refused = aClient(...settingsOf(nats));
    await eventually(() => expect(refused.lines.join("")).toMatch(why));
    await expect(refused.client.check()).rejects.toThrow("no connection to NATS");
    for (const part of [nats.secret, encodeURIComponent(nats.secret), "wr0ng"]) expect(refused.lines.join("")).not.toContain(part);
  });
});

describe("a NATS that wants credentials of an account", () => {
  it("is reached by a file of them, and by another operator's not", async () => {
    await using nats = await startDecentralisedNats();
    await using connected = aClient(nats.url, NO_FILES, nats.credsFile);
    await eventually(() => connected.client.check());
    await using refused = aClient(nats.url, NO_FILES, nats.foreignCredsFile);
    await eventually(() => expect(refused.lines.join("")).toMatch(/authorization/i));
    await expect(refused.client.check()).rejects.toThrow("no connection to NATS");
    expect(connected.lines.join("")).not.toContain(nats.seed);
  });
});

describe("a NATS of several servers", () => {
  it("is reached by any of them that is there", async () => {
    await using folder = await temporaryFolder();
    const server = await startNatsServer({ dataDir: folder.path });
    try {
      await using connected = aClient(`nats://127.0.0.1:1,127.0.0.1:2, nats://127.0.0.1:${server.port}`, NO_FILES);
      await eventually(() => connected.client.check());
    } finally {
      await server.kill();
    }
  });
});

describe("a NATS that is frozen", () => {
  it("counts as away within seconds, and is there again when it goes on", async () => {
    await using folder = await temporaryFolder();
    const server = await startNatsServer({ dataDir: folder.path });
    try {
      await using connected = aClient(server.url, NO_FILES);
      await eventually(() => expect(connected.client.connected()).toBeDefined());
      process.kill(server.pid, "SIGSTOP");
      await eventually(() => expect(connected.client.connected()).toBeUndefined(), 8000);
      process.kill(server.pid, "SIGCONT");
      await eventually(() => connected.client.check(), 15_000);
      expect(connected.client.connected()).toBeDefined();
    } finally {
      await server.kill();
    }
  });
});

describe("the application", () => {
  it("works without NATS, tells that it is away, and when it is there", async () => {
    await using folder = await temporaryFolder();
    const before = await startNatsServer({ dataDir: folder.path });
    await before.kill();
    await using app = await startTestApp({ NATS_URL: before.url });
    const ready = async () => {
      const answer = await fetch(`${app.http}/readyz`);
      return [answer.status, ((await answer.json()) as { checks: { nats: string } }).checks.nats];
    };
    expect(await ready()).toEqual([200, "failed"]);
    const server = await startNatsServer({ dataDir: folder.path, port: before.port });
    await eventually(async () => expect(await ready()).toEqual([200, "ok"]), 15_000);
    await server.stop();
  });

  it("sends nothing to a NATS that speaks no TLS where TLS is wanted", async () => {
    await using folder = await temporaryFolder();
    const server = await startNatsServer({ dataDir: folder.path });
    await using refused = aClient(server.url.replace("nats:", "tls:").replace("//", "//me:s3cret@"), NO_FILES);
    await eventually(() => expect(refused.lines.join("")).toMatch(/tls/i));
    await expect(refused.client.check()).rejects.toThrow("no connection to NATS");
    await server.stop();
  });
});
