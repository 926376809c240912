import type { Db } from "mongodb";
import type { Logger } from "pino";
import { Unavailable } from "../domain/refusal.ts";

/** What a revocation is of, such as "token:<jti>". Tokens are revoked by any of the identifiers that they carry; "digest" is of one that carries none. */
export type RevocationId = `${"token" | "digest" | "session" | "key"}:${string}`;

/** What is revoked. Each process keeps all of it in memory, so that asking costs next to nothing. */
export type Revocations = {
  /** Whether any of these is revoked, as far as this process knows. */
  isRevoked(ids: readonly RevocationId[]): boolean;
  /** Whether what this process knows is young enough to go by. */
  isFresh(): boolean;
  /** Reads what others have revoked. Rejects with Unavailable when that cannot be had. */
  refresh(): Promise<void>;
  /** Whether any of these is revoked, as a majority of the database says. */
  find(ids: readonly RevocationId[]): Promise<boolean>;
  /** Revokes until `expiresAt`, after which nothing is left to revoke. Durable when it resolves; saying it twice changes nothing. */
  revoke(ids: readonly RevocationId[], expiresAt: Date): Promise<void>;
  /** Begins to read what others revoke, every second. */
  start(): Promise<void>;
  stop(): Promise<void>;
};

/** A document of `auth_revocations`. */
type StoredRevocation = { readonly _id: RevocationId; readonly revoked_at: Date; readonly expires_at: Date };

const POLL_MS = 1000;
/** After how long without reading a process trusts its memory no more: at the latest then a revocation holds everywhere. */
export const STALE_MS = 10_000;
/** All is read again that was revoked this long before the newest known: a write may be seen later than it is dated. */
const OVERLAP_MS = 60_000;
/** After how long everything is read again, whatever its date: clocks of database members may differ. */
const RELOAD_MS = 5 * 60_000;
const ROUND_TRIP_MS = 5000;

/** The revocations in the collection `auth_revocations` of `db`. */
export function createRevocations(db: Db, clock: () => Date, logger: Logger): Revocations {
  const stored = db.collection<StoredRevocation>("auth_revocations");
  const known = new Map<RevocationId, number>();
  let newestMs = 0;
  let readAtMs = Number.NEGATIVE_INFINITY;
  let reloadedAtMs = Number.NEGATIVE_INFINITY;
  let reading: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;

  function remember(id: RevocationId, expiresAt: Date): void {
    known.set(id, Math.max(known.get(id) ?? 0, expiresAt.getTime()));
  }

  async function read(): Promise<void> {
    const nowMs = clock().getTime();
    const whole = nowMs - reloadedAtMs >= RELOAD_MS || nowMs < readAtMs;
    const since = whole ? {} : { revoked_at: { $gte: new Date(newestMs - OVERLAP_MS) } };
    const cursor = stored.find(since, { readConcern: "majority", readPreference: "primary", timeoutMS: ROUND_TRIP_MS });
    for await (const { _id, revoked_at, expires_at } of cursor) {
      remember(_id, expires_at);
      newestMs = Math.max(newestMs, revoked_at.getTime());
    }
    for (const [id, expiresMs] of known) if (expiresMs <= nowMs) known.delete(id);
    readAtMs = nowMs;
    if (whole) reloadedAtMs = nowMs;
  }

  function readOnce(): Promise<void> {
    reading ??= read().finally(() => {
      reading = undefined;
    });
    return reading;
  }

  return {
    isRevoked: (ids) => known.size > 0 && ids.some((id) => known.has(id)),

    isFresh() {
      const age = clock().getTime() - readAtMs;
      return age >= 0 && age < STALE_MS;
    },

    refresh() {
      return readOnce().catch((cause: unknown) => {
        throw new Unavailable("whether a token is revoked cannot be told at present: try again", { cause });
      });
    },

    async find(ids) {
      const options = { readConcern: "majority", readPreference: "primary", timeoutMS: ROUND_TRIP_MS, projection: { _id: 1 } } as const;
      return (await stored.findOne({ _id: { $in: [...ids] } }, options)) !== null;
    },

    async revoke(ids, expiresAt) {
      await stored.bulkWrite(
        ids.map((_id) => ({
          updateOne: {
            filter: { _id },
            // Dated by the database, as all processes read by these dates.
            update: [{ $set: { revoked_at: "$$NOW", expires_at: { $max: ["$expires_at", expiresAt] } } }],
            upsert: true,
          },
        })),
        { writeConcern: { w: "majority", journal: true }, timeoutMS: ROUND_TRIP_MS },
      );
      for (const id of ids) remember(id, expiresAt);
    },

    async start() {
      await stored.createIndex({ revoked_at: 1 });
      await stored.createIndex({ expires_at: 1 }, { expireAfterSeconds: 0 });
      await readOnce();
      timer = setInterval(() => {
        readOnce().catch((error: unknown) => logger.warn({ err: error }, "what is revoked cannot be read; trying again"));
      }, POLL_MS);
    },

    async stop() {
      clearInterval(timer);
      await reading?.catch(() => undefined);
    },
  };
}
