import { generateKeyPairSync, sign } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { openCheckpoint, type TreeHead } from "../../src/audit/checkpoint.ts";
import { EMPTY_ROOT, verifyConsistency } from "../../src/audit/merkle.ts";
import { createVerifierKey, parseNote, signatureLine, type VerifierKey } from "../../src/audit/signed-note.ts";

/** A witness as C2SP's tlog-witness has it: it cosigns what goes on from what it has seen, and says how far that is otherwise. */
export type WitnessServer = AsyncDisposable & {
  readonly key: VerifierKey;
  readonly url: string;
  /** The largest tree that it has cosigned. */
  seen(): TreeHead;
  /** The statuses that it has answered with. */
  readonly answers: number[];
  /** How it answers from now on: as a witness, with an error, with another's signature, or not at all. */
  behave(how: "well" | "fails" | "forges" | "hangs"): void;
};

export async function startWitness(logKey: VerifierKey): Promise<WitnessServer> {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const key = createVerifierKey("witness.example/w1", 4, publicKey.export({ format: "der", type: "spki" }).subarray(-32));
  const answers: number[] = [];
  let seen: TreeHead = { size: 0, root: EMPTY_ROOT };
  let behaviour: "well" | "fails" | "forges" | "hangs" = "well";

  function answer(body: string): [status: number, text: string] {
    if (behaviour === "fails") return [500, "no"];
    const end = body.indexOf("\n\n");
    const [old = "", ...proof] = body.slice(0, end).split("\n");
    const from = Number(/^old (0|[1-9]\d*)$/.exec(old)?.[1] ?? Number.NaN);
    const signed = body.slice(end + 2);
    const head = openCheckpoint(signed, [logKey]);
    if (!(from <= head.size)) return [400, ""];
    if (from !== seen.size) return [409, `${seen.size}\n`];
    const hashes = proof.map((line) => Buffer.from(line, "base64"));
    if (from > 0 && !verifyConsistency(seen, head, hashes)) return [422, ""];
    seen = head;
    const time = Buffer.alloc(8);
    time.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 1000)));
    const text = behaviour === "forges" ? "other" : parseNote(signed).text;
    const message = `cosignature/v1\ntime ${time.readBigUInt64BE()}\n${text}`;
    return [200, signatureLine(key, Buffer.concat([time, sign(null, Buffer.from(message), privateKey)]))];
  }

  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (text: string) => {
      body += text;
    });
    request.on("end", () => {
      if (behaviour === "hangs") return;
      const [status, text] = request.url === "/w/add-checkpoint" ? answer(body) : [404, ""];
      answers.push(status);
      response.writeHead(status).end(text);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    key,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/w/`,
    seen: () => seen,
    answers,
    behave(how) {
      behaviour = how;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
