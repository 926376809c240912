import { BSON, type Db, type Document, type Filter, Long } from "mongodb";
import { EVENTS_COLLECTION, type StoredEvent } from "./log-entry.ts";

/** The bytes of an entry, undecoded. What stands in the database may be damaged: the position need not be the next one, nor whole. */
export type StoredBody = { readonly position: number; readonly body: Uint8Array };

export type BodyRange = {
  /** The first position. Whatever stands between it and the one before it, where nothing should, comes first. */
  readonly from: number;
  /** The last position; the head of the log if absent. */
  readonly to?: number;
  /** How many entries a batch holds at the most; 1,000 by default. */
  readonly batchSize?: number;
  readonly signal?: AbortSignal;
};

const DEFAULT_BATCH = 1000;

/**
 * Batches of bodies as they stand in the database, ascending, read at majority; it neither decodes them nor looks for gaps,
 * both of which are for the caller to do. Some five times as fast as reading entries.
 */
export async function* readBodies(db: Db, range: BodyRange): AsyncGenerator<StoredBody[], void, undefined> {
  const { from, to, batchSize = DEFAULT_BATCH, signal } = range;
  const upTo = to === undefined ? {} : { $lte: Long.fromNumber(to) };
  const filter: Filter<StoredEvent> = { _id: { $gt: Long.fromNumber(from - 1), ...upTo } };
  const cursor = db
    .collection<StoredEvent>(EVENTS_COLLECTION)
    .find<Uint8Array>(filter, {
      readConcern: "majority",
      readPreference: "primary",
      projection: { body: 1 },
      batchSize,
      raw: true,
      ...(signal && { signal }),
    })
    .sort({ _id: 1 });
  try {
    while (await cursor.hasNext()) {
      yield cursor.readBufferedDocuments(batchSize).map(toStoredBody);
      signal?.throwIfAborted();
    }
  } finally {
    await cursor.close();
  }
}

const INT64 = 0x12;
const BINARY = 0x05;
const ID_NAME = 5;
const ID_VALUE = 9;
const BODY_TYPE = 17;
const BODY_LENGTH = 23;
const BODY_VALUE = 28;

/** Reads the one layout that Ordertrail writes by its offsets, and leaves any other to the library. */
function toStoredBody(document: Uint8Array): StoredBody {
  const view = new DataView(document.buffer, document.byteOffset, document.byteLength);
  const isUsual =
    document.length > BODY_VALUE &&
    document[4] === INT64 &&
    document[ID_NAME] === 0x5f &&
    document[BODY_TYPE] === BINARY &&
    document[BODY_TYPE + 1] === 0x62 &&
    view.getInt32(BODY_LENGTH, true) === document.length - BODY_VALUE - 1;
  if (!isUsual) return toUnusualBody(BSON.deserialize(document));
  const position = view.getInt32(ID_VALUE + 4, true) * 2 ** 32 + view.getUint32(ID_VALUE, true);
  return { position, body: document.subarray(BODY_VALUE, document.length - 1) };
}

function toUnusualBody({ _id, body }: Document): StoredBody {
  return { position: Number(_id), body: body instanceof BSON.Binary ? body.value() : new Uint8Array() };
}
