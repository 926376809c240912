import { create } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Binary, type Db } from "mongodb";
import { evolvePushToken, type PushTokenState, pushTokenStream } from "../domain/push-token.ts";
import { PushPlatform } from "../gen/ordertrail/events/v1/customer_events_pb.js";
import { type Sealed, SealedSchema } from "../gen/ordertrail/events/v1/values_pb.js";
import type { LogReader } from "../log/reader.ts";
import type { Projection } from "./projection.ts";
import { createStreamProjection } from "./stream-documents.ts";

/** The collection, and the projection's name. */
export const PUSH_TOKENS = "push_tokens";

const REVISION = 1;
const REST_MS = 250;

/** A document of `push_tokens`. The token itself is sealed; what it is known by is its SHA-256. */
type PushTokenDocument = {
  readonly token: string;
  /** Whose it is; null when nobody's. */
  readonly customer_id: string | null;
  readonly platform: string;
  readonly sealed: { readonly key_id: Binary; readonly nonce: Binary; readonly ciphertext: Binary } | null;
  readonly registered_at: Date;
  readonly version: number;
};

type Folded = { readonly tokenId: string; readonly state: PushTokenState; readonly at: Date; readonly version: number };

/** The projection `push_tokens`: whose which device is. */
export function createPushTokensProjection(db: Db, reader: LogReader): Projection {
  return createStreamProjection<Folded>(db, reader, {
    ...{ name: PUSH_TOKENS, revision: REVISION, key: "token", restMs: REST_MS, prefix: pushTokenStream("") },
    indexes: [{ key: { customer_id: 1, token: 1 }, unique: true }],
    fold: (before, { entry }) => ({
      tokenId: entry.stream.slice(pushTokenStream("").length),
      state: entry.events.reduce<PushTokenState>((state, event) => evolvePushToken(state, event), before?.state ?? {}),
      at: entry.recordedAt ? timestampDate(entry.recordedAt) : new Date(0),
      version: entry.version,
    }),
    documents: (folded) => [toDocument(folded)],
    streamOf: async (tokenId) => pushTokenStream(tokenId),
  });
}

function toDocument({ tokenId, state: { owner }, at, version }: Folded): PushTokenDocument {
  const token = owner?.token;
  return {
    token: tokenId,
    customer_id: owner?.customerId ?? null,
    platform: PushPlatform[owner?.platform ?? PushPlatform.UNSPECIFIED],
    sealed: token ? { key_id: new Binary(token.keyId), nonce: new Binary(token.nonce), ciphertext: new Binary(token.ciphertext) } : null,
    registered_at: at,
    version,
  };
}

/** A device of a customer's. */
export type StoredPushToken = {
  readonly tokenId: string;
  readonly platform: PushPlatform;
  readonly sealed: Sealed | undefined;
  readonly registeredAt: Date;
};

/** Reads `push_tokens`. */
export type PushTokens = { of(customerId: string): Promise<StoredPushToken[]> };

const MOST_DEVICES = 500;

export function createPushTokens(db: Db): PushTokens {
  const tokens = db.collection<PushTokenDocument>(PUSH_TOKENS, { readPreference: "primary" });
  return {
    async of(customerId) {
      const found = await tokens.find({ customer_id: customerId }).sort({ token: 1 }).limit(MOST_DEVICES).toArray();
      return found.map(({ token, platform, sealed, registered_at }) => ({
        tokenId: token,
        platform: PushPlatform[platform as keyof typeof PushPlatform],
        sealed: sealed
          ? create(SealedSchema, { keyId: sealed.key_id.value(), nonce: sealed.nonce.value(), ciphertext: sealed.ciphertext.value() })
          : undefined,
        registeredAt: registered_at,
      }));
    },
  };
}
