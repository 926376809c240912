import { randomBytes } from "node:crypto";
import type { Db } from "mongodb";
import type { Actor } from "../domain/caller.ts";
import { roleName } from "./claims.ts";
import type { RevocationId, Revocations } from "./revocations.ts";

/** Which tracking links there are, so that an order's links can be revoked. The links themselves are tokens. */
export type TrackingLinks = {
  /** Makes a note of a new link, and answers its identifier. */
  create(orderId: string, expiresAt: Date, by: Actor): Promise<string>;
  /** Revokes one link of an order, or all of them; one that is not the order's is let be. */
  revoke(orderId: string, linkId?: string): Promise<void>;
  ensureIndexes(): Promise<void>;
};

/** A document of `tracking_links`; `_id` is the `jti` of the link's token. */
type StoredLink = {
  readonly _id: string;
  readonly order_id: string;
  readonly created_by: { readonly role: string; readonly subject: string };
  readonly created_at: Date;
  readonly expires_at: Date;
};

const ID_BYTES = 16;
/** How much longer a revocation is kept than its link lives, for the clocks. */
const AFTER_LINK_MS = 3600 * 1000;
const ROUND_TRIP_MS = 5000;

/** The links in the collection `tracking_links` of `db`. */
export function createTrackingLinks(db: Db, revocations: Revocations, clock: () => Date): TrackingLinks {
  const stored = db.collection<StoredLink>("tracking_links");
  return {
    async create(orderId, expiresAt, { role, subject }) {
      const linkId = randomBytes(ID_BYTES).toString("base64url");
      await stored.insertOne(
        {
          _id: linkId,
          order_id: orderId,
          created_by: { role: roleName(role), subject },
          created_at: clock(),
          expires_at: expiresAt,
        },
        { writeConcern: { w: "majority", journal: true }, timeoutMS: ROUND_TRIP_MS },
      );
      return linkId;
    },

    async revoke(orderId, linkId) {
      const which = { order_id: orderId, ...(linkId !== undefined && { _id: linkId }) };
      const links = await stored.find(which, { readConcern: "majority", readPreference: "primary", timeoutMS: ROUND_TRIP_MS }).toArray();
      if (links.length === 0) return;
      const latest = links.reduce((most, { expires_at }) => Math.max(most, expires_at.getTime()), 0);
      await revocations.revoke(
        links.map(({ _id }): RevocationId => `token:${_id}`),
        new Date(latest + AFTER_LINK_MS),
      );
    },

    async ensureIndexes() {
      await stored.createIndex({ order_id: 1 });
      await stored.createIndex({ expires_at: 1 }, { expireAfterSeconds: 0 });
    },
  };
}
