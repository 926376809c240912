import { BSON, type Collection, type Db, type Document } from "mongodb";
import { Unavailable } from "../domain/refusal.ts";
import type { LogReader } from "../log/reader.ts";
import { type CheckpointDocument, readCheckpoints } from "./checkpoint.ts";
import { copyName, createCopy } from "./copies.ts";
import { firstDifference } from "./first-difference.ts";
import type { Projection } from "./projection.ts";
import { readAhead } from "./read-ahead.ts";

/** A document that is not what the log says. */
export type ProjectionDifference = {
  readonly key: string;
  /** Where it differs, without the values: they may be personal. Empty when the document as a whole is missing or unexpected. */
  readonly path: string;
  readonly problem: "missing" | "unexpected" | "different";
};

/** How far a comparison has come, or what it found. */
export type VerifyProgress = {
  readonly checked: number;
  readonly different: number;
  readonly difference?: ProjectionDifference;
  /** True in the last one. */
  readonly done: boolean;
};

const READ_BATCH = 250;
const PAGE = 500;
const REPORT_MS = 500;
/** A scratch copy whose maker has not been heard of for so long is nobody's. */
const SCRATCH_MS = 60_000;

/**
 * Builds a projection from the log into a scratch copy, up to the position of the live one, and compares the two. The live
 * one may go on: each of its documents is held against what the log says of that document's own version. Changes nothing;
 * the scratch copy is dropped in any case, by the projector if this process dies.
 */
export async function* verifyProjection(
  { db, reader, checkpoints }: { readonly db: Db; readonly reader: LogReader; readonly checkpoints: Collection<CheckpointDocument> },
  projection: Projection,
  signal: AbortSignal,
): AsyncGenerator<VerifyProgress, void, undefined> {
  const scratch = copyName(projection, "verify");
  const counts = { checked: 0, different: 0 };
  let keptAt = await enterScratch(checkpoints, projection.name, scratch);
  let reportedAt = keptAt;

  /** Throws when the copy may have been dropped meanwhile: nothing that was read of it counts then. */
  async function keep(): Promise<void> {
    if (performance.now() - keptAt > SCRATCH_MS / 4) keptAt = await prolongScratch(checkpoints, projection.name, scratch);
  }

  try {
    const [checkpoint] = await readCheckpoints(checkpoints, [projection.name]);
    await createCopy(db, projection, scratch);
    const writer = projection.open(scratch, { trusted: true });
    const range = { after: 0, to: checkpoint?.position ?? 0, batchSize: READ_BATCH };
    for await (const entries of readAhead((until) => reader.readForward({ ...range, signal: until }), signal)) {
      await writer.apply(entries);
      await keep();
      if (performance.now() - reportedAt < REPORT_MS) continue;
      reportedAt = performance.now();
      yield { ...counts, done: false };
    }
    await writer.flush();
    for await (const page of compare(db, projection, scratch)) {
      signal.throwIfAborted();
      await keep();
      counts.checked += page.checked;
      for (const difference of page.differences) {
        counts.different++;
        yield { ...counts, difference, done: false };
      }
      if (performance.now() - reportedAt < REPORT_MS) continue;
      reportedAt = performance.now();
      yield { ...counts, done: false };
    }
    yield { ...counts, done: true };
  } finally {
    await db.dropCollection(scratch);
    await checkpoints.updateOne({ _id: projection.name }, { $pull: { scratch_copies: { collection: scratch } } });
  }
}

type Compared = { readonly checked: number; readonly differences: readonly ProjectionDifference[] };

async function* compare(db: Db, projection: Projection, scratch: string): AsyncGenerator<Compared, void, undefined> {
  const { key } = projection;
  const fields = Object.fromEntries(["_id", ...projection.foreignFields].map((field) => [field, 0]));
  const read = (collection: string, filter: Document) =>
    db
      .collection(collection)
      .find({ [key]: filter }, { projection: fields, readPreference: "primary" })
      .sort({ [key]: 1 });

  // Short queries by key, not one long cursor: the live collection may be swapped for a rebuilt one at any time.
  for (let after = ""; ; ) {
    const live = await read(projection.collection, { $gt: after }).limit(PAGE).toArray();
    const end = live.length < PAGE ? undefined : String(live.at(-1)?.[key]);
    const range = { $gt: after, ...(end !== undefined && { $lte: end }) };
    const expected = new Map((await read(scratch, range).toArray()).map((document) => [String(document[key]), document]));
    const differences: ProjectionDifference[] = [];
    for (const document of live) {
      const known = expected.get(String(document[key]));
      expected.delete(String(document[key]));
      const difference = await differenceOf(projection, document, known);
      if (difference) differences.push(difference);
    }
    for (const missing of expected.keys()) differences.push({ key: missing, path: "", problem: "missing" });
    yield { checked: live.length + expected.size, differences };
    if (end === undefined) break;
    after = end;
  }
  // The order of BSON has other types apart from strings, so that the pages above do not come by them.
  const strays = await read(projection.collection, { $not: { $type: "string" } }).toArray();
  yield {
    checked: strays.length,
    differences: strays.map((stray) => ({ key: String(stray[key] ?? ""), path: "", problem: "unexpected" })),
  };
}

async function differenceOf(
  projection: Projection,
  actual: Document,
  known: Document | undefined,
): Promise<ProjectionDifference | undefined> {
  const key = String(actual[projection.key]);
  const expected = known?.["version"] === actual["version"] ? known : await fromLog(projection, key, actual["version"]);
  if (expected) {
    const path = firstDifference(expected, actual);
    return path === undefined ? undefined : { key, path, problem: "different" };
  }
  const exists = known !== undefined || (await fromLog(projection, key, 1)) !== undefined;
  return exists ? { key, path: "version", problem: "different" } : { key, path: "", problem: "unexpected" };
}

/** What the log says of a document at a version, as the driver would read it. */
async function fromLog(projection: Projection, key: string, version: unknown): Promise<Document | undefined> {
  const document = typeof version === "number" ? await projection.documentAt(key, version) : undefined;
  return document && BSON.deserialize(BSON.serialize(document));
}

async function enterScratch(checkpoints: Collection<CheckpointDocument>, name: string, scratch: string): Promise<number> {
  const at = performance.now();
  const entry = { collection: scratch, expires_at: { $add: ["$$NOW", SCRATCH_MS] } };
  await checkpoints.updateOne({ _id: name }, [{ $set: { scratch_copies: { $concatArrays: ["$scratch_copies", [entry]] } } }]);
  return at;
}

async function prolongScratch(checkpoints: Collection<CheckpointDocument>, name: string, scratch: string): Promise<number> {
  const at = performance.now();
  const prolonged = {
    $cond: [{ $eq: ["$$this.collection", scratch] }, { collection: scratch, expires_at: { $add: ["$$NOW", SCRATCH_MS] } }, "$$this"],
  };
  const { matchedCount } = await checkpoints.updateOne({ _id: name, "scratch_copies.collection": scratch }, [
    { $set: { scratch_copies: { $map: { input: "$scratch_copies", in: prolonged } } } },
  ]);
  if (matchedCount === 0) throw new Unavailable("the comparison stood still for too long; start it again");
  return at;
}
