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

const TIMEOUT_MS = 5000;
const CONFLICT = 409;
const MAX_ANSWER_CHARS = 64 * 1024;

/** Asks one witness to sign checkpoints; remembers how far it has come. */
export type WitnessClient = {
  /** The witness's signature lines for a checkpoint, verified. Throws an Error when it gives none. */
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
      let response = await add(checkpoint, cosigned);
      if (response.status === CONFLICT) {
        // It says how far it is: from there on it can be shown the rest.
        const size = Number((await response.text()).trim());
        if (!Number.isSafeInteger(size) || size > checkpoint.size)
          throw new Error(`the witness has seen ${size} entries, more than there are`);
        cosigned = size;
        response = await add(checkpoint, size);
      }
      const answer = (await response.text()).slice(0, MAX_ANSWER_CHARS);
      if (response.status !== 200) throw new Error(`the witness answered ${response.status}`);
      const { text } = parseNote(checkpoint.signed);
      const signatures = parseSignatures(answer).filter(({ name, id }) => name === key.name && id === key.id);
      if (verifiedBy({ text, signatures }, [key]).length === 0) throw new Error("the witness's answer has no signature by its key");
      cosigned = checkpoint.size;
      return signatures.map(({ line }) => line);
    },
  };
}
