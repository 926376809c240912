import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, it } from "vitest";
import { rotateKeys } from "../../src/privacy/key-rotation.ts";
import type { KeyWrapper } from "../../src/privacy/key-wrapper.ts";
import { createPersonalKeys } from "../../src/privacy/personal-keys.ts";
import { testDatabase } from "../support/mongo.ts";

type ServiceRequest = { readonly key_id: string; readonly context: string; readonly bytes: string };

describe("a key management service in the place of master keys", () => {
  it("wraps, unwraps and rotates over the network, where the master keys never leave it", async () => {
    await using database = await testDatabase();
    await using service = await startKeyService();
    const clock = () => new Date();
    const people = Array.from({ length: 30 }, (_, n) => `customer-${n}`);
    const keys = createPersonalKeys(database.db, wrapperOf(service.url, "arn:key/1"), clock);
    const sealed = await Promise.all(people.map((person) => keys.seal(person, Buffer.from(person), "order-1/note")));

    let last: unknown;
    for await (const step of rotateKeys(database.db, wrapperOf(service.url, "arn:key/2"), AbortSignal.timeout(20_000))) last = step;
    expect(last).toEqual({ masterKeyId: "arn:key/2", rewrapped: 30, left: [], done: true });
    const opening = createPersonalKeys(database.db, wrapperOf(service.url, "arn:key/2"), clock);
    const opened = await opening.openMany(sealed.flatMap((one) => (one ? [{ sealed: one, context: "order-1/note" }] : [])));
    expect(opened.map((bytes) => Buffer.from(bytes ?? []).toString())).toEqual(people);
    expect(service.asked("encrypt")).toBe(60);
  });
});

/** What an adapter to such a service is: encrypt and decrypt, the binding being its encryption context. */
function wrapperOf(url: string, keyId: string): KeyWrapper {
  async function ask(action: "encrypt" | "decrypt", request: ServiceRequest): Promise<Uint8Array> {
    const response = await fetch(`${url}/${action}`, { method: "POST", body: JSON.stringify(request) });
    if (!response.ok) throw new Error(`the key service answers ${response.status}`);
    return Buffer.from(await response.text(), "base64");
  }
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
  return {
    newest: () => Promise.resolve(keyId),
    async wrap(secret, binding) {
      const wrapped = await ask("encrypt", { key_id: keyId, context: binding, bytes: base64(secret) });
      return { wrapped, nonce: new Uint8Array(), masterKeyId: keyId };
    },
    unwrap: ({ wrapped, masterKeyId }, binding) => ask("decrypt", { key_id: masterKeyId, context: binding, bytes: base64(wrapped) }),
  };
}

/** A service that keeps a key for each name, and encrypts and decrypts with it. */
async function startKeyService() {
  const masters = new Map<string, Buffer>();
  const counts = new Map<string, number>();
  const masterOf = (id: string) => masters.get(id) ?? masters.set(id, randomBytes(32)).get(id) ?? Buffer.alloc(0);
  const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    const { key_id, context, bytes } = JSON.parse(Buffer.concat(parts).toString()) as ServiceRequest;
    const action = request.url?.slice(1) ?? "";
    counts.set(action, (counts.get(action) ?? 0) + 1);
    const input = Buffer.from(bytes, "base64");
    if (action === "encrypt") {
      const nonce = randomBytes(12);
      const cipher = createCipheriv("aes-256-gcm", masterOf(key_id), nonce).setAAD(Buffer.from(context));
      const encrypted = Buffer.concat([cipher.update(input), cipher.final()]);
      response.end(Buffer.concat([nonce, cipher.getAuthTag(), encrypted]).toString("base64"));
    } else {
      const decipher = createDecipheriv("aes-256-gcm", masterOf(key_id), input.subarray(0, 12)).setAAD(Buffer.from(context));
      decipher.setAuthTag(input.subarray(12, 28));
      response.end(Buffer.concat([decipher.update(input.subarray(28)), decipher.final()]).toString("base64"));
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked: (action: string) => counts.get(action) ?? 0,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
