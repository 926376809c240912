import { once } from "node:events";
import { type AddressInfo, connect } from "node:net";
import { createServer, getCACertificates, setDefaultCACertificates } from "node:tls";
import { pino } from "pino";
import { describe, expect, it, onTestFinished } from "vitest";
import { connectToValkey } from "../../src/limits/valkey.ts";
import { createAuthority } from "../support/certificates.ts";
import { eventually } from "../support/eventually.ts";
import { startTestValkey, type TestValkey } from "../support/valkey.ts";

/** A connection that is stopped with the test, and what is logged of it. */
function aConnection(url: string) {
  const logged: string[] = [];
  const connection = connectToValkey(url, pino({ level: "debug" }, { write: (line) => logged.push(line) }));
  onTestFinished(() => connection.stop());
  return { ...connection, logged };
}

/** A port that speaks TLS before a Valkey, and the certificate that it takes to trust it. */
async function byTls(valkey: TestValkey): Promise<{ port: number; trusted: string }> {
  const authority = await createAuthority();
  const server = createServer(await authority.issue({ name: "valkey" }), (client) => {
    const behind = connect(Number(new URL(valkey.url).port), "127.0.0.1");
    client.pipe(behind).pipe(client);
    client.on("error", () => behind.destroy());
    behind.on("error", () => client.destroy());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  return { port: (server.address() as AddressInfo).port, trusted: authority.cert };
}

describe("connectToValkey", () => {
  it("speaks TLS by rediss, with a server that it trusts only", async () => {
    await using valkey = await startTestValkey();
    const { port, trusted } = await byTls(valkey);
    const distrusting = aConnection(`rediss://localhost:${port}`);
    await eventually(() => expect(distrusting.logged.join()).toMatch(/certificate.*cannot be reached/));
    await expect(distrusting.check()).rejects.toThrow("certificate");
    distrusting.stop();
    const before = getCACertificates("default");
    onTestFinished(() => setDefaultCACertificates(before));
    setDefaultCACertificates([...before, trusted]);
    const trusting = aConnection(`rediss://localhost:${port}`);
    await eventually(() => trusting.check());
  });

  it("shows a password to the server and to nobody else", async () => {
    await using valkey = await startTestValkey();
    await valkey.command("ACL", "SETUSER", "limits", "on", ">planted", "~ordertrail:*", "+@all");
    await valkey.command("ACL", "SETUSER", "default", "off");
    const { port } = new URL(valkey.url);
    const admitted = aConnection(`redis://limits:planted@127.0.0.1:${port}`);
    await eventually(() => admitted.check());
    expect(admitted.logged).toEqual([]);
    const refused = aConnection(`redis://limits:planted-wrong@127.0.0.1:${port}`);
    await eventually(() => expect(refused.logged).toHaveLength(1));
    expect(refused.logged.join()).toMatch(/WRONGPASS/);
    expect(refused.logged.join()).not.toContain("planted");
  });
});
