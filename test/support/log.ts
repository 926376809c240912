import { randomBytes } from "node:crypto";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Db } from "mongodb";
import type { Event } from "../../src/gen/ordertrail/events/v1/log_entry_pb.js";
import { Door, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import type { AppenderOptions } from "../../src/log/appender.ts";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import {
  createEntry,
  type EncodedEntry,
  EVENTS_COLLECTION,
  encodeEntry,
  type RecordedEntry,
  type StoredEvent,
} from "../../src/log/log-entry.ts";
import { testDatabase } from "./mongo.ts";
import { type LogAccess, openLog } from "./open-log.ts";

/** A log of its own for one test, on the shared mongod. */
export type TestLog = LogAccess & {
  /** The server's address. */
  readonly url: string;
  /** A further process on the same log. */
  join(options?: Partial<AppenderOptions>): LogAccess;
};

/** An empty log; dropped at the end of the `await using` block, when all who joined it have left. */
export async function testLog(options: Partial<AppenderOptions> = {}): Promise<TestLog> {
  const database = await testDatabase();
  await ensureLogIndexes(database.db);
  const joined: LogAccess[] = [];
  const join = (more: Partial<AppenderOptions> = {}) => {
    const access = openLog(database.url, database.name, more);
    joined.push(access);
    return access;
  };
  return {
    ...join(options),
    url: database.url,
    join,
    async [Symbol.asyncDispose]() {
      for (const access of joined) await access[Symbol.asyncDispose]();
      await database[Symbol.asyncDispose]();
    },
  };
}

export type EntryParts = { readonly kinds?: readonly Event["kind"]["case"][]; readonly requestId?: string; readonly paddingBytes?: number };

/** An entry with one small event, or those of the kinds given. */
export function anEntry(
  stream: string,
  version: number,
  { kinds = ["pickingStarted"], requestId = "", paddingBytes = 0 }: EntryParts = {},
): EncodedEntry {
  const at = new Date();
  const entry = createEntry({
    entryId: new Uint8Array(randomBytes(16)),
    stream,
    version,
    recordedAt: timestampFromDate(at),
    actor: { role: Role.SERVICE, subject: "test" },
    door: Door.GRPC,
    method: "test.Service/Method",
    requestId,
    correlationId: "x".repeat(paddingBytes),
    events: kinds.map((kind) => ({ kind: { case: kind, value: {} } as Event["kind"] })),
  });
  return encodeEntry(entry, at);
}

/** Everything that a reading gives, in one list. */
export async function collect(reading: AsyncIterable<readonly RecordedEntry[]>): Promise<RecordedEntry[]> {
  const all: RecordedEntry[] = [];
  for await (const entries of reading) all.push(...entries);
  return all;
}

/** "stream:version" of every entry, in the order of the log, straight from the collection. */
export async function wholeLog(db: Db): Promise<string[]> {
  const documents = await db.collection<StoredEvent>(EVENTS_COLLECTION).find({}, { readConcern: "majority" }).sort({ _id: 1 }).toArray();
  return documents.map(({ _id, stream, version }, index) => (Number(_id) === index + 1 ? `${stream}:${version}` : `gap before ${_id}`));
}
