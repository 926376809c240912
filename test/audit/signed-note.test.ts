import { generateKeyPairSync, sign } from "node:crypto";
import { describe, expect, it } from "vitest";
import { checkpointText, openCheckpoint, parseCheckpointText } from "../../src/audit/checkpoint.ts";
import {
  createSignerKey,
  createVerifierKey,
  parseNote,
  parseVerifierKey,
  signatureLine,
  signNote,
  verifiedBy,
} from "../../src/audit/signed-note.ts";

/** The verifier key and the note that the Go packages of the format publish as their example. */
const PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const EXAMPLE =
  "If you think cryptography is the answer to your problem,\n" +
  "then you don't know what your problem is.\n" +
  "\n" +
  "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
/** The checkpoint that C2SP's tlog-cosignature shows. */
const SOFA =
  "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n" +
  "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n" +
  "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

const signer = createSignerKey("log.example/audit", Buffer.alloc(32, 7));

describe("a signed note", () => {
  it("of others is verified by their key", () => {
    const key = parseVerifierKey(PETER);
    expect(key.text).toBe(PETER);
    expect(verifiedBy(parseNote(EXAMPLE), [key])).toEqual([key]);
    expect(() => verifiedBy(parseNote(EXAMPLE.replace("answer", "Answer")), [key])).toThrow("does not match");
  });

  it("is verified by its key, by each of several, and by none that has not signed it", () => {
    const second = createSignerKey("log.example/audit", Buffer.alloc(32, 8));
    const stranger = createSignerKey("log.example/audit", Buffer.alloc(32, 9));
    const note = parseNote(signNote("text\n\nmore\n", [signer, second]));
    expect(note.text).toBe("text\n\nmore\n");
    expect(verifiedBy(note, [signer.verifier])).toEqual([signer.verifier]);
    expect(verifiedBy(note, [second.verifier, stranger.verifier])).toEqual([second.verifier]);
    expect(verifiedBy(note, [stranger.verifier])).toEqual([]);
  });

  it("is refused when a known key's signature is wrong, even beside a right one", () => {
    const second = createSignerKey("log.example/audit", Buffer.alloc(32, 8));
    const [text = ""] = signNote("text\n", [signer]).split("\n\n");
    const mixed = signNote("text\n", [signer]) + signatureLine(second.verifier, Buffer.alloc(64));
    expect(text).toBe("text");
    expect(() => verifiedBy(parseNote(mixed), [signer.verifier, second.verifier])).toThrow("does not match");
    expect(verifiedBy(parseNote(mixed), [signer.verifier])).toEqual([signer.verifier]);
  });

  it.each([
    "",
    "text\n",
    "text\n\n",
    "text\n\nnot a signature\n",
    "te\u0001xt\n\n— a AAAAAAA=\n",
    "text\n\n— a AAAAAAA=",
    `${"x".repeat(70_000)}\n\n— a AAAAAAA=\n`,
  ])("is not %j", (text) => {
    expect(() => parseNote(text)).toThrow(/not a sign/);
  });
});

describe("a verifier key", () => {
  it("is written and read in note form", () => {
    expect(signer.verifier.text).toMatch(/^log\.example\/audit\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{44}$/);
    expect(parseVerifierKey(signer.verifier.text).id).toBe(signer.verifier.id);
  });

  it.each(["", "a+b", PETER.replace("c74f20a3", "c74f20a4"), PETER.replace("+ARpc", "+AhpC"), PETER.slice(0, -4)])("is not %j", (text) => {
    expect(() => parseVerifierKey(text)).toThrow(/^must be /);
  });
});

describe("a checkpoint", () => {
  it("is read as the format's own example", () => {
    const { text, signatures } = parseNote(SOFA);
    expect(parseCheckpointText(text)).toMatchObject({ origin: "example.com/behind-the-sofa", size: 20852163 });
    expect(checkpointText(parseCheckpointText(text))).toBe(text);
    expect(signatures.map(({ name }) => name)).toEqual(["example.com/behind-the-sofa", "witness.example.com/w1"]);
  });

  it("is believed only when the log's own key has signed it", () => {
    const head = { origin: "log.example/audit", size: 3, root: Buffer.alloc(32, 1) };
    expect(openCheckpoint(signNote(checkpointText(head), [signer]), [signer.verifier])).toMatchObject({ size: 3 });
    const stranger = createSignerKey("log.example/audit", Buffer.alloc(32, 9));
    expect(() => openCheckpoint(signNote(checkpointText(head), [stranger]), [signer.verifier])).toThrow("not signed with the key");
    const other = signNote(checkpointText({ ...head, origin: "other.example" }), [signer]);
    expect(() => openCheckpoint(other, [signer.verifier])).toThrow("of other.example");
  });

  it.each([
    "a\n01\nAAAA\n",
    "a\n-1\n\n",
    "\n1\nx\n",
    `a\n1\n${Buffer.alloc(31).toString("base64")}\n`,
    `a\n9007199254740993\n${Buffer.alloc(32).toString("base64")}\n`,
  ])("is not %j", (text) => {
    expect(() => parseCheckpointText(text)).toThrow("not a checkpoint");
  });
});

describe("a witness's cosignature", () => {
  it("is verified with its time", () => {
    const { privateKey, publicKey } = generateKeyPairSync("ed25519");
    const bytes = publicKey.export({ format: "der", type: "spki" }).subarray(-32);
    const witness = createVerifierKey("witness.example/w1", 4, bytes);
    const text = checkpointText({ origin: "log.example", size: 1, root: Buffer.alloc(32) });
    const time = Buffer.alloc(8);
    time.writeBigUInt64BE(1_679_315_147n);
    const signature = Buffer.concat([time, sign(null, Buffer.from(`cosignature/v1\ntime 1679315147\n${text}`), privateKey)]);
    const note = parseNote(`${text}\n${signatureLine(witness, signature)}`);
    expect(verifiedBy(note, [parseVerifierKey(witness.text)])).toHaveLength(1);
    time.writeBigUInt64BE(1_679_315_148n);
    const later = parseNote(`${text}\n${signatureLine(witness, Buffer.concat([time, signature.subarray(8)]))}`);
    expect(() => verifiedBy(later, [witness])).toThrow("does not match");
  });
});
