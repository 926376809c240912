import type { Db } from "mongodb";
import { EVENTS_COLLECTION, WRITERS_COLLECTION } from "./log-entry.ts";
import { UNCHANGED_COLLECTION, UNCHANGED_KEPT_SECONDS } from "./unchanged-commands.ts";

const WEEK_SECONDS = 7 * 86_400;

/** Makes the indexes that the log relies on, on a majority, if they are not there. Call it before anything is appended. */
export async function ensureLogIndexes(db: Db): Promise<void> {
  await db.collection(EVENTS_COLLECTION).createIndex({ stream: 1, version: 1 }, { unique: true, commitQuorum: "majority" });
  await db
    .collection(UNCHANGED_COLLECTION)
    .createIndex({ at: 1 }, { expireAfterSeconds: UNCHANGED_KEPT_SECONDS, commitQuorum: "majority" });
  await db.collection(WRITERS_COLLECTION).createIndex({ at: 1 }, { expireAfterSeconds: WEEK_SECONDS, commitQuorum: "majority" });
}
