import type { Db } from "mongodb";
import { EVENTS_COLLECTION } from "./log-entry.ts";

/** Makes the index that the log relies on, on a majority, if it is not there. Call it before anything is appended. */
export async function ensureLogIndexes(db: Db): Promise<void> {
  await db.collection(EVENTS_COLLECTION).createIndex({ stream: 1, version: 1 }, { unique: true, commitQuorum: "majority" });
}
