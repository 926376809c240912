import type { Db } from "mongodb";
import { batched } from "./batched.ts";
import { ROUND_TRIP_MS } from "./log-client.ts";

/** Where the request_ids of commands that changed nothing are kept, as the log has no entry of them. */
export const UNCHANGED_COLLECTION = "unchanged_commands";

/** What a command with a request_id led to: the version that its stream had then, and the RPC that it came by. */
export type Answered = { readonly version: number; readonly method: string };

/** Remembers commands that found things as they wanted them, so that one sent again later does not undo what came after it. */
export type UnchangedCommands = {
  /** Notes the answer, durably, unless there is one already; resolves to the one that counts. */
  note(stream: string, requestId: string, answered: Answered): Promise<Answered>;
  /** The answer that was given, if there was one. Look-ups at the same time share a round trip. */
  find(stream: string, requestId: string): Promise<Answered | undefined>;
};

type UnchangedDocument = Answered & { readonly _id: string; readonly at: Date };

/** For how long a request_id is known: 30 days. */
export const UNCHANGED_KEPT_SECONDS = 30 * 86_400;

/** The commands that changed nothing, in the collection `unchanged_commands` of `db`. */
export function createUnchangedCommands(db: Db, now: () => Date): UnchangedCommands {
  const answers = db.collection<UnchangedDocument>(UNCHANGED_COLLECTION);
  // Identifiers have no spaces.
  const keyOf = (stream: string, requestId: string) => `${stream} ${requestId}`;

  const findMany = batched<string, Answered | undefined>(async (keys) => {
    const found = await answers.find({ _id: { $in: [...keys] } }, { readPreference: "primary", maxTimeMS: ROUND_TRIP_MS }).toArray();
    const byKey = new Map(found.map(({ _id, version, method }) => [_id, { version, method }]));
    return keys.map((key) => byKey.get(key));
  });

  return {
    async note(stream, requestId, { version, method }) {
      const noted = await answers.findOneAndUpdate(
        { _id: keyOf(stream, requestId) },
        { $setOnInsert: { version, method, at: now() } },
        { upsert: true, returnDocument: "after", writeConcern: { w: "majority", journal: true }, maxTimeMS: ROUND_TRIP_MS },
      );
      return noted ? { version: noted.version, method: noted.method } : { version, method };
    },
    find: (stream, requestId) => findMany(keyOf(stream, requestId)),
  };
}
