import { randomBytes } from "node:crypto";
import type { Db, Filter } from "mongodb";
import type { Actor } from "../domain/caller.ts";
import { Refusal } from "../domain/refusal.ts";
import { roleName } from "./claims.ts";
import type { RevocationId, Revocations } from "./revocations.ts";

/** A tracking link, as far as it is known without its token. */
export type TrackingLink = { readonly linkId: string; readonly orderId: string; readonly createdAt: Date; readonly expiresAt: Date };

/** Which tracking links there are, so that an order's links can be revoked. The links themselves are tokens. */
export type TrackingLinks = {
  /** Makes a note of a new link, and answers its identifier. Throws a Refusal RATE_LIMITED when the order has too many. */
  create(orderId: string, expiresAt: Date, by: Actor): Promise<string>;
  /** Revokes one link of an order, or all of them; one that is not the order's is let be. */
  revoke(orderId: string, linkId?: string): Promise<void>;
  /** Revokes all links of these orders. */
  revokeAll(orderIds: readonly string[]): Promise<void>;
  /** Takes back the note of a link whose token nobody has been given. */
  discard(linkId: string): Promise<void>;
  /** Those of these orders' links that somebody made and that have not expired, oldest first. */
  madeBy(actor: Actor, orderIds: readonly string[]): Promise<TrackingLink[]>;
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
/** Revoked ones count until their time is up: every process remembers them for as long. */
const MOST_OF_AN_ORDER = 100;
const ROUND_TRIP_MS = 5000;
const READING = { readConcern: "majority", readPreference: "primary", timeoutMS: ROUND_TRIP_MS } as const;
const WRITING = { writeConcern: { w: "majority", journal: true }, timeoutMS: ROUND_TRIP_MS } as const;

/** The links in the collection `tracking_links` of `db`. */
export function createTrackingLinks(db: Db, revocations: Revocations, clock: () => Date): TrackingLinks {
  const stored = db.collection<StoredLink>("tracking_links");

  async function revokeThese(which: Filter<StoredLink>): Promise<void> {
    const links = await stored.find(which, READING).toArray();
    if (links.length === 0) return;
    const latest = links.reduce((most, { expires_at }) => Math.max(most, expires_at.getTime()), 0);
    await revocations.revoke(
      links.map(({ _id }): RevocationId => `token:${_id}`),
      new Date(latest + AFTER_LINK_MS),
    );
  }

  return {
    async create(orderId, expiresAt, { role, subject }) {
      const [next, ...others] = await stored
        .find({ order_id: orderId, expires_at: { $gt: clock() } }, { ...READING, sort: { expires_at: 1 }, limit: MOST_OF_AN_ORDER })
        .toArray();
      if (next && others.length + 1 >= MOST_OF_AN_ORDER) {
        const waitSeconds = Math.ceil((next.expires_at.getTime() - clock().getTime()) / 1000);
        throw new Refusal(
          "RATE_LIMITED",
          `order ${orderId} has had ${MOST_OF_AN_ORDER} links whose time is not up yet, revoked ones included: wait ${waitSeconds} seconds`,
          { order_id: orderId, retry_after_seconds: String(waitSeconds) },
        );
      }
      const linkId = randomBytes(ID_BYTES).toString("base64url");
      await stored.insertOne(
        {
          _id: linkId,
          order_id: orderId,
          created_by: { role: roleName(role), subject },
          created_at: clock(),
          expires_at: expiresAt,
        },
        WRITING,
      );
      return linkId;
    },

    async revoke(orderId, linkId) {
      await revokeThese({ order_id: orderId, ...(linkId !== undefined && { _id: linkId }) });
    },

    async revokeAll(orderIds) {
      await revokeThese({ order_id: { $in: orderIds } });
    },

    async discard(linkId) {
      await stored.deleteOne({ _id: linkId }, WRITING);
    },

    async madeBy({ role, subject }, orderIds) {
      const which = { order_id: { $in: orderIds }, "created_by.role": roleName(role), "created_by.subject": subject };
      const links = await stored.find(which, { ...READING, sort: { created_at: 1 } }).toArray();
      return links
        .filter(({ expires_at }) => expires_at > clock())
        .map(({ _id, order_id, created_at, expires_at }) => ({
          linkId: _id,
          orderId: order_id,
          createdAt: created_at,
          expiresAt: expires_at,
        }));
    },

    async ensureIndexes() {
      await stored.createIndex({ order_id: 1 });
      await stored.createIndex({ expires_at: 1 }, { expireAfterSeconds: 0 });
    },
  };
}
