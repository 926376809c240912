import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { Binary, type Db } from "mongodb";
import { Refusal } from "../domain/refusal.ts";
import type { RevocationId, Revocations } from "./revocations.ts";

/** All tokens that come of one IssueToken: an access token, then by each refresh another. */
export type Session = { readonly sessionId: string; readonly clientId: string; readonly expiresAt: Date };

/** A session with the refresh token that goes on with it. */
export type SessionStep = Session & { readonly refreshToken: string };

/** The sessions of clients, and the refresh tokens that go on with them. */
export type Sessions = {
  /** Begins a session, which ends after `lifetimeSeconds` however often it is refreshed. */
  begin(clientId: string, lifetimeSeconds: number): Promise<SessionStep>;
  /**
   * Takes a refresh token for the next. Of many who bring the same, one gets it. A token that was taken before revokes
   * the session, unless it is the last one, within a minute, with the `requestId` of the first time, which gets the same
   * answer again. Throws a Refusal UNAUTHENTICATED.
   */
  refresh(refreshToken: string, requestId: string): Promise<SessionStep>;
  /** Revokes the session of a refresh token; does nothing if it is none. */
  revokeBy(refreshToken: string): Promise<void>;
  revoke(sessionId: string): Promise<void>;
  /** Revokes all sessions of a client of which there may be valid tokens, and answers how many. */
  revokeAll(clientId: string): Promise<number>;
  ensureIndexes(): Promise<void>;
};

/** A document of `auth_sessions`. `seed` alone makes no token, nor does a token alone make the next. */
type StoredSession = {
  readonly _id: string;
  readonly client_id: string;
  readonly seed: Binary;
  readonly generation: number;
  /** SHA-256 of the secret that refreshes next. */
  readonly secret_hash: Binary;
  /** The exchange before, for a retry. */
  readonly last?: { readonly secret_hash: Binary; readonly request_hash: Binary; readonly at: Date };
  readonly created_at: Date;
  /** From when on it is not refreshed any more. */
  readonly expires_at: Date;
  /** Until when access tokens of it may be valid, so that it can be revoked. */
  readonly kept_until: Date;
};

type RefreshToken = { readonly sessionId: string; readonly generation: number; readonly secret: Buffer; readonly mac: Buffer };

/** How long a refresh whose answer was lost may be tried again. */
const RETRY_MS = 60_000;
/** How long after the session the last access token lives at most, with room for clocks. */
const AFTER_SESSION_MS = 2 * 3600 * 1000;
const ID_BYTES = 16;
const SECRET_BYTES = 32;
const MAC_BYTES = 16;
const GENERATION_BYTES = 4;
/** Tells people and secret scanners what it is. */
const PREFIX = "otr_";
const ROUND_TRIP_MS = 5000;
const DURABLE = { writeConcern: { w: "majority", journal: true }, timeoutMS: ROUND_TRIP_MS } as const;
const MAJORITY = { readConcern: "majority", readPreference: "primary", timeoutMS: ROUND_TRIP_MS } as const;

/** The sessions in the collection `auth_sessions` of `db`. */
export function createSessions(db: Db, revocations: Revocations, clock: () => Date): Sessions {
  const stored = db.collection<StoredSession>("auth_sessions");

  async function revokeSessions(sessions: readonly StoredSession[]): Promise<void> {
    const [first] = sessions;
    if (!first) return;
    const latest = sessions.reduce((most, { kept_until }) => Math.max(most, kept_until.getTime()), 0);
    await revocations.revoke(
      sessions.map(({ _id }): RevocationId => `session:${_id}`),
      new Date(latest),
    );
  }

  /** The session that a refresh token is of, whether or not it is the token's turn, or any token's any more. */
  async function sessionOf({ sessionId, generation, secret, mac }: RefreshToken): Promise<StoredSession> {
    const session = await stored.findOne({ _id: sessionId, kept_until: { $gt: clock() } }, MAJORITY);
    if (!session || !timingSafeEqual(mac, macOf(session.seed.value(), generation, secret))) throw invalid();
    return session;
  }

  return {
    async begin(clientId, lifetimeSeconds) {
      const sessionId = randomBytes(ID_BYTES).toString("base64url");
      const seed = randomBytes(SECRET_BYTES);
      const secret = randomBytes(SECRET_BYTES);
      const now = clock();
      const expiresAt = new Date(now.getTime() + lifetimeSeconds * 1000);
      await stored.insertOne(
        {
          _id: sessionId,
          client_id: clientId,
          seed: new Binary(seed),
          generation: 1,
          secret_hash: new Binary(sha256(secret)),
          created_at: now,
          expires_at: expiresAt,
          kept_until: new Date(expiresAt.getTime() + AFTER_SESSION_MS),
        },
        DURABLE,
      );
      return { sessionId, clientId, expiresAt, refreshToken: formatToken(sessionId, seed, 1, secret) };
    },

    async refresh(refreshToken, requestId) {
      const token = parseToken(refreshToken);
      if (!token) throw invalid();
      const session = await sessionOf(token);
      const { _id: sessionId, seed, client_id: clientId, expires_at: expiresAt } = session;
      const { generation, secret } = token;
      const nextSecret = requestId === "" ? randomBytes(SECRET_BYTES) : nextSecretOf(seed.value(), secret, requestId);
      const step = { sessionId, clientId, expiresAt, refreshToken: formatToken(sessionId, seed.value(), generation + 1, nextSecret) };
      const next = { secret_hash: new Binary(sha256(nextSecret)), request_hash: new Binary(sha256(Buffer.from(requestId))) };
      const used = { secret_hash: new Binary(sha256(secret)), request_hash: next.request_hash };
      const taken = await stored.updateOne(
        { _id: sessionId, generation, secret_hash: used.secret_hash, expires_at: { $gt: clock() } },
        { $set: { generation: generation + 1, secret_hash: next.secret_hash, last: { ...used, at: clock() } } },
        DURABLE,
      );
      if (taken.matchedCount === 0) {
        const isRetry =
          requestId !== "" &&
          (await stored.findOne(
            {
              _id: sessionId,
              generation: generation + 1,
              secret_hash: next.secret_hash,
              "last.secret_hash": used.secret_hash,
              "last.request_hash": used.request_hash,
              "last.at": { $gt: new Date(clock().getTime() - RETRY_MS) },
            },
            MAJORITY,
          )) !== null;
        const ended = expiresAt <= clock();
        // The newest token of a session that has ended has not been used twice: it comes too late.
        if (!isRetry && !(ended && session.generation === generation)) {
          await revokeSessions([session]);
          throw new Refusal(
            "UNAUTHENTICATED",
            "the refresh token has been used before, so all tokens that came of it are revoked: ask for new ones with IssueToken",
          );
        }
        if (ended) throw invalid();
      }
      // Looked at last: a revocation that comes later also ends the access token that is made now.
      if (await revocations.find([`session:${sessionId}`])) throw invalid();
      return step;
    },

    async revokeBy(refreshToken) {
      const token = parseToken(refreshToken);
      if (!token) return;
      try {
        await revokeSessions([await sessionOf(token)]);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
      }
    },

    async revoke(sessionId) {
      const session = await stored.findOne({ _id: sessionId }, MAJORITY);
      if (session) await revokeSessions([session]);
    },

    async revokeAll(clientId) {
      const sessions = await stored.find({ client_id: clientId, kept_until: { $gt: clock() } }, MAJORITY).toArray();
      await revokeSessions(sessions);
      return sessions.length;
    },

    async ensureIndexes() {
      await stored.createIndex({ client_id: 1 });
      // Refresh tokens that are shown after that are unknown, which is as good as used.
      await stored.createIndex({ kept_until: 1 }, { expireAfterSeconds: 0 });
    },
  };
}

/** The same for a retry, and nobody's to guess: it takes the token, the database and the request_id. */
function nextSecretOf(seed: Uint8Array, secret: Uint8Array, requestId: string): Buffer {
  return createHmac("sha256", seed).update("next\0").update(secret).update(requestId).digest();
}

/** Tells tokens that were once given out from those that never were, which must not end anybody's session. */
function macOf(seed: Uint8Array, generation: number, secret: Uint8Array): Buffer {
  return createHmac("sha256", seed).update("token\0").update(numberBytes(generation)).update(secret).digest().subarray(0, MAC_BYTES);
}

function formatToken(sessionId: string, seed: Uint8Array, generation: number, secret: Buffer): string {
  const id = Buffer.from(sessionId, "base64url");
  return PREFIX + Buffer.concat([id, numberBytes(generation), secret, macOf(seed, generation, secret)]).toString("base64url");
}

function parseToken(text: string): RefreshToken | undefined {
  if (!text.startsWith(PREFIX)) return undefined;
  const bytes = Buffer.from(text.slice(PREFIX.length), "base64url");
  if (bytes.length !== ID_BYTES + GENERATION_BYTES + SECRET_BYTES + MAC_BYTES) return undefined;
  const secretAt = ID_BYTES + GENERATION_BYTES;
  return {
    sessionId: bytes.subarray(0, ID_BYTES).toString("base64url"),
    generation: bytes.readUInt32BE(ID_BYTES),
    secret: bytes.subarray(secretAt, secretAt + SECRET_BYTES),
    mac: bytes.subarray(secretAt + SECRET_BYTES),
  };
}

function numberBytes(value: number): Buffer {
  const bytes = Buffer.alloc(GENERATION_BYTES);
  bytes.writeUInt32BE(value);
  return bytes;
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}

function invalid(): Refusal {
  return new Refusal("UNAUTHENTICATED", "the refresh token is not valid (any more): ask for new tokens with IssueToken");
}
