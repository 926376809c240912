import { MongoClient } from "mongodb";

/** How long the server may take over one command of the log before it answers that it could not. */
export const ROUND_TRIP_MS = 3000;
/** How long a server may be silent: as long as the others wait by default before they elect another. */
const SILENCE_MS = 10_000;
/** How long a command waits for a member that can take it, such as during an election. */
const SELECTION_MS = 5000;

/**
 * A client for the log, with what its promises rest on whatever the URL says: retried writes, which make a late copy of a
 * write known as one, and time limits, without which a frozen server holds a writer for as long as it likes.
 */
export function createLogClient(url: string): MongoClient {
  return new MongoClient(url, {
    appName: "ordertrail",
    retryWrites: true,
    retryReads: true,
    socketTimeoutMS: SILENCE_MS,
    connectTimeoutMS: SILENCE_MS,
    serverSelectionTimeoutMS: SELECTION_MS,
  });
}
