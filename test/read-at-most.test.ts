import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import pino from "pino";
import { expect, it } from "vitest";
import { remoteKeys } from "../src/access/key-source.ts";
import { createVerifierKey } from "../src/audit/signed-note.ts";
import { logAtUrl } from "../src/audit/tile-source.ts";
import { createWitnessClient } from "../src/audit/witness.ts";

/** A server whose answers have no end; it tells how much of the last one was taken. */
async function startEndless() {
  let taken = 0;
  const server = createServer((_, response) => {
    taken = 0;
    const chunk = Buffer.alloc(64 * 1024, "A");
    const more = () => {
      do taken += chunk.length;
      while (response.write(chunk));
    };
    response.on("drain", more);
    more();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/log`),
    taken: () => taken,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

const MIB = 1024 * 1024;
/** What sockets hold on the way. */
const ON_THE_WAY = 16 * MIB;

it("an answer that does not end is read no further than what is asked for can be, of a log, an issuer and a witness", async () => {
  await using endless = await startEndless();
  const { url, taken } = endless;
  await expect(logAtUrl(url).checkpoint()).rejects.toThrow("larger than");
  expect(taken()).toBeLessThan(17 * MIB + ON_THE_WAY);

  const keys = remoteKeys(url, () => new Date(), pino({ level: "silent" }));
  await expect(Promise.resolve(keys({ alg: "RS256", kid: "k" }, { payload: "", signature: "" }))).rejects.toThrow();
  expect(taken()).toBeLessThan(MIB + ON_THE_WAY);

  const key = createVerifierKey("witness.example/w1", 4, Buffer.alloc(32, 1));
  const witness = createWitnessClient({ key, url }, async () => []);
  const checkpoint = { size: 1, root: Buffer.alloc(32), signed: "log\n1\n\n", signedAt: new Date() };
  await expect(witness.cosign(checkpoint)).rejects.toThrow("larger than");
  expect(taken()).toBeLessThan(MIB + ON_THE_WAY);
});
