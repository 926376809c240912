import { readAtMost } from "../read-at-most.ts";
import type { SignedCheckpoint } from "./checkpoint-store.ts";
import { parseNote, parseSignatures, parseVerifierKey, type VerifierKey, verifiedBy } from "./signed-note.ts";
import type { Node } from "./tree-proofs.ts";
import { consistencyProof } from "./tree-proofs.ts";

/** Somebody else who signs a log's checkpoints after having seen that it was only added to. */
export type Witness = { readonly key: VerifierKey; readonly url: URL };

/** Reads witnesses: a verifier key in note form and an address each, with commas between. Throws an Error that says what they must be. */
export function parseWitnesses(text: string): Witness[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "")
    .map((part) => {
      const [key = "", url = ""] = part.split(/\s+/);
      if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
        throw new Error("must be a witness's verifier key, a space, and the address below which it takes checkpoints");
      return { key: parseVerifierKey(key), url: new URL(url) };
    });
}

/** What a witness has seen of the log is not what it is shown: it has seen another one, or one that went on further. */
export class WitnessDisagrees extends Error {
  override readonly name = "WitnessDisagrees";
  /** How many entries it has seen. */
  readonly size: number;
  constructor(witness: string, size: number, what: string) {
    super(`the witness ${witness} has seen ${size} entries, ${what}`);
    this.size = size;
  }
}

const TIMEOUT_MS = 5000;
const CONFLICT = 409;
const UNPROCESSABLE = 422;
const OTHERS = "and others than there are";
/** How often it is asked again when it has seen something else meanwhile: other processes may show it checkpoints, too. */
const MOST_TRIES = 4;
const MAX_ANSWER_BYTES = 64 * 1024;

/** Asks one witness to sign checkpoints; remembers how far it has come. */
export type WitnessClient = {
  /** The witness's signature lines for a checkpoint, verified. Throws WitnessDisagrees, or an Error when it gives none. */
  cosign(checkpoint: SignedCheckpoint): Promise<string[]>;
};

/** `resolve` works out the hashes of a proof. */
export function createWitnessClient(
  { key, url }: Witness,
  resolve: (nodes: readonly Node[]) => Promise<readonly Uint8Array[]>,
  send: typeof fetch = fetch,
): WitnessClient {
  let cosigned = 0;

  async function add({ size, signed }: SignedCheckpoint, from: number): Promise<Response> {
    const proof = await resolve(consistencyProof(from, size));
    const lines = proof.map((node) => `${Buffer.from(node).toString("base64")}\n`);
    return await send(`${url.href.replace(/\/$/, "")}/add-checkpoint`, {
      method: "POST",
      body: `old ${from}\n${lines.join("")}\n${signed}`,
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  }

  return {
    async cosign(checkpoint) {
      let from = Math.min(cosigned, checkpoint.size);
      let response = await add(checkpoint, from);
      let answer = await readText(response);
      for (let tries = 1; response.status === CONFLICT && tries < MOST_TRIES; tries++) {
        // It says how far it is: from there on it can be shown the rest.
        const size = /^(0|[1-9]\d{0,15})$/.test(answer.trim()) ? Number(answer) : Number.NaN;
        if (Number.isNaN(size)) throw new Error("the witness does not say how far it is");
        if (size > checkpoint.size) throw new WitnessDisagrees(key.name, size, "more than there are");
        if (size === from) throw new WitnessDisagrees(key.name, size, OTHERS);
        from = size;
        response = await add(checkpoint, from);
        answer = await readText(response);
      }
      if (response.status === UNPROCESSABLE) throw new WitnessDisagrees(key.name, from, OTHERS);
      if (response.status !== 200) throw new Error(`the witness answered ${response.status}`);
      const { text } = parseNote(checkpoint.signed);
      const signatures = parseSignatures(answer).filter(({ name, id }) => name === key.name && id === key.id);
      if (verifiedBy({ text, signatures }, [key]).length === 0) throw new Error("the witness's answer has no signature by its key");
      cosigned = checkpoint.size;
      return signatures.map(({ line }) => line);
    },
  };
}

async function readText(response: Response): Promise<string> {
  return (await readAtMost(response.body ?? [], MAX_ANSWER_BYTES)).toString();
}
